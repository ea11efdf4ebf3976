//! What must hold of every batch that was accepted, recomputed in plain integers from messages and stored state.
//!
//! The formulas are restated here and not called: a satoshi that the rules lose is to be seen.

use crate::verify::Case;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::account::{Account, AccountVersion};
use tidegate_protocol::order::{AuctionType, NodeTier, OwnOrder};
use tidegate_protocol::verify::{EndingAccount, VerifiedBatch, VerifiedMatch};

/// Smallest value of a recreated output.
const SMALLEST_OUTPUT: u64 = 435;

/// All claims of an accepted proposal.
pub(crate) fn assert_honest(case: &Case, batch: &VerifiedBatch) {
    let claimed: usize = case.prepare.markets.values().flat_map(|market| market.orders.values()).map(Vec::len).sum();
    assert_eq!(batch.matches().len(), claimed, "every match is judged, none is invented");
    assert_eq!(batch.accounts().len(), case.prepare.accounts.len());
    let mut outputs = BTreeSet::new();
    for matched in batch.matches() {
        assert_match(case, batch, matched);
        assert!(outputs.insert(matched.shim.channel_point.vout), "two channels in one output");
    }
    for (key, ending) in batch.accounts() {
        let before = &case.accounts[key];
        assert_balance(case, batch, before, ending);
        let place = assert_place(case, before, ending);
        assert!(place.is_none_or(|index| outputs.insert(index)), "an account in another's output");
    }
    assert_orders(case, batch);
    assert_inputs(case, batch);
}

/// Value before, plus what the matches give, minus the chain fee, is the value after.
fn assert_balance(case: &Case, batch: &VerifiedBatch, before: &Account, ending: &EndingAccount) {
    let matches: Vec<_> = batch.matches().iter().filter(|matched| matched.account == before.key()).collect();
    assert!(!matches.is_empty(), "an account without match is charged");
    let mut balance = i128::from(before.value.get());
    for matched in &matches {
        let own = &case.orders[&matched.ours];
        let (premium, fee) = (exact_premium(own, matched), execution_fee(case, own, matched));
        assert!((i128::from(matched.premium.get()) - premium).abs() <= 1, "{} is no premium", matched.premium);
        assert_eq!(i128::from(matched.execution_fee.get()), fee);
        let premium = i128::from(matched.premium.get());
        balance += match matched.maker {
            true => premium - filled(matched) - fee,
            false => -premium - i128::from(matched.self_balance.get()) - fee,
        };
    }
    let witness = if before.terms.version == AccountVersion::V0 { 229 } else { 66 };
    let channels = i128::try_from(matches.len()).expect("a short list");
    let weight = 4 * (43 + 41 + (43 * channels + 1) / 2) + witness;
    let chain_fee = i128::from(case.prepare.fee_rate.get()) * weight / 1_000;
    assert_eq!(i128::from(ending.chain_fee.get()), chain_fee);
    assert_eq!(balance - chain_fee, i128::from(ending.after.value.get()), "satoshis of {} are lost", before.key());
    let stated = case.prepare.accounts.iter().find(|diff| diff.account == before.key());
    assert_eq!(stated.map(|diff| diff.ending_balance), Some(ending.after.value));
}

fn filled(matched: &VerifiedMatch) -> i128 {
    i128::from(matched.units.get()) * 100_000
}

/// What a taker's fees and both sides' premium are counted on.
fn base(own: &OwnOrder, matched: &VerifiedMatch) -> i128 {
    match own.order.auction {
        AuctionType::Inbound => filled(matched),
        AuctionType::Outbound => filled(matched) + i128::from(matched.self_balance.get()),
    }
}

fn exact_premium(own: &OwnOrder, matched: &VerifiedMatch) -> i128 {
    let per_block = base(own, matched) * i128::from(matched.clearing_price.get());
    per_block * i128::from(own.order.duration.get()) / 1_000_000_000
}

fn execution_fee(case: &Case, own: &OwnOrder, matched: &VerifiedMatch) -> i128 {
    let fee = &case.prepare.execution_fee;
    let on = if matched.maker { filled(matched) } else { base(own, matched) };
    i128::from(fee.base.get()) + on * i128::from(fee.rate_ppm) / 1_000_000
}

/// The account's output afterwards, if there is one: its index.
fn assert_place(case: &Case, before: &Account, ending: &EndingAccount) -> Option<u32> {
    let after = &ending.after;
    let input = &case.prepare.transaction.input[ending.input];
    assert_eq!(Some(input.previous_output), before.outpoint);
    assert_eq!(ending.recreated, after.value.get() >= SMALLEST_OUTPUT);
    assert!(after.terms.expiry >= before.terms.expiry && after.terms.version >= before.terms.version);
    if !ending.recreated {
        return None;
    }
    assert_extension(case, before, after);
    let outpoint = after.outpoint.expect("recreated");
    assert_eq!(outpoint.txid, case.prepare.transaction.compute_txid());
    let output = &case.prepare.transaction.output[usize::try_from(outpoint.vout).expect("an index of a vector")];
    assert_eq!(output.value.to_sat(), after.value.get());
    assert_eq!(Ok(&output.script_pubkey), after.terms.output_script().as_ref());
    Some(outpoint.vout)
}

/// An expiry moves no further than somebody quoted, from a height that may be three ahead of ours.
fn assert_extension(case: &Case, before: &Account, after: &Account) {
    if after.terms.expiry == before.terms.expiry {
        return;
    }
    let mine = case.orders.values().filter(|own| own.order.account == before.key());
    let quoted = mine.map(|own| own.extension_quoted).chain([case.extension_now]).max().unwrap_or_default();
    let (best, found) = (u64::from(case.best_height.get()), u64::from(after.terms.expiry.get()));
    assert!(found <= best + 3 + u64::from(quoted.get()), "extended to {found}");
    assert!(found <= best + 52_560, "extended to {found}");
}

/// One channel: worth what was matched, within the limits of our order, with somebody else.
fn assert_match(case: &Case, batch: &VerifiedBatch, matched: &VerifiedMatch) {
    let (own, price) = (&case.orders[&matched.ours], matched.clearing_price);
    assert_eq!(matched.maker, own.order.is_ask());
    let kept = if matched.maker { own.order.rate <= price } else { own.order.rate >= price };
    assert!(kept, "{price:?} is beyond our limit");
    assert!(case.prepare.fee_rate <= own.order.max_batch_fee_rate);
    assert!(case.prepare.execution_fee.base <= own.fee_ceiling.base);
    assert!(case.prepare.execution_fee.rate_ppm <= own.fee_ceiling.rate_ppm);
    assert!(own.order.auction == AuctionType::Outbound || matched.units >= own.order.min_units);
    assert!(matched.node != case.node && own.order.accepts_node(matched.node));
    if let Some(bid) = own.order.bid() {
        let rating = case.ratings.get(&matched.node).filter(|rating| rating.age_seconds < 86_400);
        assert!(rating.is_none_or(|rating| rating.tier >= bid.min_node_tier), "a worse node than we bid for");
        let doubtful = rating.is_none() && bid.min_node_tier > NodeTier::Tier0;
        let told =
            batch.unverified_tiers().iter().any(|doubt| doubt.node == matched.node && doubt.order == matched.ours);
        assert!(!doubtful || (told && !case.reject_unrated), "an unknown tier passes unsaid");
    }
    assert!(!case.orders.contains_key(&matched.theirs));
    assert_eq!(matched.account, own.order.account);
    assert_eq!(matched.duration, own.order.duration);
    if !matched.maker {
        assert_eq!(matched.self_balance, own.order.self_balance(), "we push what our bid says");
    }
    let capacity = filled(matched) + i128::from(matched.self_balance.get());
    assert_eq!(i128::from(matched.shim.capacity.get()), capacity);
    let point = matched.shim.channel_point;
    assert_eq!(point.txid, batch.prepare().transaction.compute_txid());
    let output = &case.prepare.transaction.output[usize::try_from(point.vout).expect("an index of a vector")];
    assert_eq!(i128::from(output.value.to_sat()), capacity);
}

/// No order is filled beyond what is open, and what is left is stated.
fn assert_orders(case: &Case, batch: &VerifiedBatch) {
    let mut filled: BTreeMap<_, u64> = BTreeMap::new();
    for matched in batch.matches() {
        *filled.entry(matched.ours).or_default() += u64::from(matched.units.get());
    }
    assert_eq!(filled.len(), batch.orders().len());
    for ending in batch.orders() {
        let before = u64::from(case.orders[&ending.nonce].units_unfulfilled.get());
        assert_eq!(u64::from(ending.units_unfulfilled.get()) + filled[&ending.nonce], before);
        assert!(!case.orders[&ending.nonce].state.is_archived());
    }
}

/// Our accounts are spent once each when reported, and not at all otherwise.
fn assert_inputs(case: &Case, batch: &VerifiedBatch) {
    for account in case.accounts.values().filter(|account| account.outpoint.is_some()) {
        let spends = case.prepare.transaction.input.iter();
        let spends = spends.filter(|input| Some(input.previous_output) == account.outpoint).count();
        // Two accounts that claim one output are a broken store, not a hostile batch; only then is one spent unreported.
        let shared = case.accounts.values().filter(|other| other.outpoint == account.outpoint).count() > 1;
        let reported = batch.accounts().contains_key(&account.key());
        assert!(shared || spends == usize::from(reported), "{} is spent {spends} times", account.key());
    }
}

/// What must hold when we would sign: the venue spends what we own, and nobody gets money from nowhere.
pub(crate) fn assert_signable(case: &Case, batch: &VerifiedBatch) {
    let transaction = &batch.prepare().transaction;
    let previous = &case.sign.prev_outputs;
    assert_eq!(previous.len(), transaction.input.len());
    let total =
        |outputs: &[bitcoin::TxOut]| outputs.iter().map(|output| u128::from(output.value.to_sat())).sum::<u128>();
    assert!(total(previous) >= total(&transaction.output), "more out than in");
    assert!(previous.iter().all(|output| output.script_pubkey.is_witness_program()));
    for (key, ending) in batch.accounts() {
        let account = &case.accounts[key];
        assert_eq!(previous[ending.input].value.to_sat(), account.value.get());
        assert_eq!(Ok(&previous[ending.input].script_pubkey), account.terms.output_script().as_ref());
        let nonce = case.sign.server_nonces.contains_key(key);
        assert!(nonce || account.terms.version == AccountVersion::V0, "a taproot account without nonces");
    }
}
