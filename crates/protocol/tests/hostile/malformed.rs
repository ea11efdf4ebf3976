//! Messages that must not even be read: numbers out of range, keys that are none, ambiguities, excess.

use prost::Message;
use tidegate_wire::poolrpc::{OrderMatchPrepare, OrderMatchSignBegin, ServerOrder};

/// Name, and what breaks the message; that answers nothing when it does not apply.
pub(crate) type Broken<M> = (&'static str, fn(&mut M) -> Option<()>);

/// The first matched order's details.
fn details(message: &mut OrderMatchPrepare) -> Option<&mut ServerOrder> {
    let order = message.matched_markets.values_mut().next()?.matched_orders.values_mut().next()?;
    match order.matched_asks.first_mut() {
        Some(matched) => matched.ask.as_mut()?.details.as_mut(),
        None => order.matched_bids.first_mut()?.bid.as_mut()?.details.as_mut(),
    }
}

/// Replaces the name of the first matched order.
fn rename(message: &mut OrderMatchPrepare, name: fn(String) -> String) -> Option<()> {
    let market = message.matched_markets.values_mut().next()?;
    let old = market.matched_orders.keys().next()?.clone();
    let order = market.matched_orders.remove(&old)?;
    market.matched_orders.insert(name(old), order);
    Some(())
}

pub(crate) const PREPARE: &[Broken<OrderMatchPrepare>] = &[
    ("malformed: nothing at all", |m| {
        *m = OrderMatchPrepare::default();
        Some(())
    }),
    ("malformed: no batch id", |m| {
        m.batch_id.clear();
        Some(())
    }),
    ("malformed: a batch id that is no point", |m| {
        m.batch_id[1..].fill(0xff);
        Some(())
    }),
    ("malformed: no execution fee", |m| m.execution_fee.take().map(drop)),
    ("malformed: a base fee beyond all bitcoin", |m| {
        m.execution_fee.as_mut()?.base_fee = u64::MAX;
        Some(())
    }),
    ("malformed: no transaction", |m| {
        m.batch_transaction.clear();
        Some(())
    }),
    ("malformed: half a transaction", |m| {
        m.batch_transaction.truncate(m.batch_transaction.len() / 2);
        Some(())
    }),
    ("malformed: a transaction and more", |m| {
        m.batch_transaction.push(0);
        Some(())
    }),
    ("malformed: a transaction that claims endless inputs", |m| {
        m.batch_transaction.truncate(4);
        m.batch_transaction.extend([0xff; 9]);
        Some(())
    }),
    ("malformed: a transaction without inputs", |m| {
        m.batch_transaction = vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Some(())
    }),
    ("malformed: a nonce of 31 bytes", |m| rename(m, |name| name[2..].to_owned())),
    ("malformed: a nonce that is no hexadecimal", |m| rename(m, |name| format!("zz{}", &name[2..]))),
    ("malformed: the same order twice in other letters", |m| {
        let market = m.matched_markets.values_mut().next()?;
        let (name, order) = market.matched_orders.iter().next()?;
        let (upper, order) = (name.to_uppercase(), order.clone());
        let other = upper != *name;
        market.matched_orders.insert(upper, order);
        other.then_some(())
    }),
    ("malformed: asks and bids for one order", |m| {
        let order = m.matched_markets.values_mut().next()?.matched_orders.values_mut().next()?;
        order.matched_asks.push(Default::default());
        order.matched_bids.push(Default::default());
        Some(())
    }),
    ("malformed: neither asks nor bids for an order", |m| {
        *m.matched_markets.values_mut().next()?.matched_orders.values_mut().next()? = Default::default();
        Some(())
    }),
    ("malformed: a node that is no point", |m| {
        details(m)?.node_pub[1..].fill(0xff);
        Some(())
    }),
    ("malformed: a funding key that is no point", |m| {
        details(m)?.multi_sig_key[1..].fill(0xff);
        Some(())
    }),
    ("malformed: a funding key that is not compressed", |m| {
        let key = &mut details(m)?.multi_sig_key;
        key[0] = 4;
        key.resize(65, 1);
        Some(())
    }),
    ("malformed: an account key off the curve", |m| {
        details(m)?.trader_key[1..].fill(0xff);
        Some(())
    }),
    ("malformed: a short account key", |m| {
        details(m)?.trader_key.truncate(32);
        Some(())
    }),
    ("malformed: an unknown channel type", |m| {
        details(m)?.channel_type = 9;
        Some(())
    }),
    ("malformed: an unknown market", |m| {
        details(m)?.auction_type = 2;
        Some(())
    }),
    ("malformed: an amount beyond all bitcoin", |m| {
        details(m)?.amt = u64::MAX;
        Some(())
    }),
    ("malformed: an address that is none", |m| {
        details(m)?.node_addr.first_mut()?.addr = "nowhere".to_owned();
        Some(())
    }),
    ("malformed: an ask without address", |m| {
        let order = m.matched_markets.values_mut().next()?.matched_orders.values_mut().next()?;
        order.matched_asks.first_mut()?.ask.as_mut()?.details.as_mut()?.node_addr.clear();
        Some(())
    }),
    ("malformed: a nonce of theirs of 33 bytes", |m| {
        details(m)?.order_nonce.push(0);
        Some(())
    }),
    ("malformed: a self balance beyond all bitcoin", |m| {
        let order = m.matched_markets.values_mut().next()?.matched_orders.values_mut().next()?;
        order.matched_bids.first_mut()?.bid.as_mut()?.self_chan_balance = u64::MAX;
        Some(())
    }),
    ("malformed: a changed account that is no point", |m| {
        m.charged_accounts.first_mut()?.trader_key.push(0);
        Some(())
    }),
    ("malformed: a balance beyond all bitcoin", |m| {
        m.charged_accounts.first_mut()?.ending_balance = u64::MAX;
        Some(())
    }),
    ("malformed: an unknown ending", |m| {
        m.charged_accounts.first_mut()?.ending_state = 4;
        Some(())
    }),
    ("malformed: more changes than accounts may be", |m| {
        let diff = m.charged_accounts.first()?.clone();
        m.charged_accounts.resize(10_000, diff);
        Some(())
    }),
    ("malformed: a flood of matches", |m| {
        let order = m.matched_markets.values_mut().next()?.matched_orders.values_mut().next()?;
        if let Some(first) = order.matched_bids.first().cloned() {
            order.matched_bids.resize(3_000, first);
        } else {
            let first = order.matched_asks.first()?.clone();
            order.matched_asks.resize(3_000, first);
        }
        Some(())
    }),
];

pub(crate) const SIGN: &[Broken<OrderMatchSignBegin>] = &[
    ("malformed sign: a nonce of 65 bytes", |m| m.server_nonces.values_mut().next()?.pop().map(drop)),
    ("malformed sign: an account key of 32 bytes", |m| {
        let (name, nonce) = m.server_nonces.iter().next().map(|(name, nonce)| (name[2..].to_owned(), nonce.clone()))?;
        m.server_nonces.insert(name, nonce);
        Some(())
    }),
    ("malformed sign: an account key that is no hexadecimal", |m| {
        let (name, nonce) =
            m.server_nonces.iter().next().map(|(name, nonce)| (format!("zz{}", &name[2..]), nonce.clone()))?;
        m.server_nonces.insert(name, nonce);
        Some(())
    }),
    ("malformed sign: one account in two spellings", |m| {
        let (name, nonce) = m.server_nonces.iter().next().map(|(name, nonce)| (name.to_uppercase(), nonce.clone()))?;
        let other = !m.server_nonces.contains_key(&name);
        m.server_nonces.insert(name, nonce);
        other.then_some(())
    }),
    ("malformed sign: a previous output beyond all bitcoin", |m| {
        m.prev_outputs.first_mut()?.value = u64::MAX;
        Some(())
    }),
    ("malformed sign: a flood of previous outputs", |m| {
        let output = m.prev_outputs.first()?.clone();
        m.prev_outputs.resize(100_000, output);
        Some(())
    }),
    ("malformed sign: an endless batch id", |m| {
        m.batch_id = vec![2; 1 << 20];
        Some(())
    }),
];

/// Bytes that are cut, or turned: reading them never panics.
pub(crate) fn bytes_of(message: &OrderMatchPrepare) -> Vec<u8> {
    message.encode_to_vec()
}
