//! Ends of accounts and channels without the venue's help, and other programs on the same node.

use crate::btcd::spent;
use crate::failure::{Failure, Outcome};
use crate::group::Group;
use crate::json;
use crate::lifecycle::{Change, Wish, change_all};
use crate::matrix::{ChannelKind, Market, SelfBalance, Setting, Timing, Visibility};
use crate::pool::{AccountVersion, Order};
use crate::poold::Poold;
use crate::process::Wait;
use crate::trade::{ACCOUNT_BLOCKS, CONFIRMATIONS, OrderTerms, Side, known_channels, txid_of, wait_new_channel};

/// Blocks until an account expires that is to expire: little more than the shortest that may be.
pub(crate) const SHORT_ACCOUNT_BLOCKS: u64 = 160;
/// The shortest lease that these cases trade.
pub(crate) const SHORT_LEASE_BLOCKS: u64 = 144;
const LEASE_SAT: u64 = 2_000_000;
/// What another program sends, locks and opens.
const FOREIGN_SAT: u64 = 500_000;

/// Mines until every account has expired, and reads them as expired.
fn expire(group: &mut Group<'_>) -> Outcome<()> {
    let expires_at = group.seller.accounts.iter().chain(&group.buyer.accounts).map(|one| one.expires_at).max();
    let expires_at = expires_at.ok_or_else(|| Failure::fatal("no account"))?;
    group.network.mine(expires_at - group.network.chain.height()?)?;
    for party in [&mut group.seller, &mut group.buyer] {
        for at in 0..party.accounts.len() {
            party.accounts[at] = party.wait_state(&party.accounts[at].trader_key, "EXPIRED")?;
        }
    }
    Ok(())
}

/// Expired accounts are renewed together with the venue, and trade again.
pub(crate) fn renew_expired(group: &mut Group<'_>) -> Outcome<()> {
    expire(group)?;
    change_all(group, Wish { change: Change::Renew, expiry_blocks: Some(ACCOUNT_BLOCKS), upgrade: false })?;
    short_lease(group, None).map(|_| ())
}

/// The venue is gone for good. After their expiry our trader takes every account home alone.
pub(crate) fn leave_after_expiry(group: &mut Group<'_>) -> Outcome<()> {
    group.venue.kill()?;
    expire(group)?;
    let mut closings = Vec::new();
    for party in [&group.seller, &group.buyer] {
        for account in &party.accounts {
            let txid = party.client.cli().close_account(&account.trader_key)?;
            let closing = group.network.chain.wait_for_transaction(&txid)?;
            assert_eq!(spent(&closing)?, std::slice::from_ref(&account.outpoint));
            assert!(json::number(&closing, "/locktime")? >= account.expires_at, "{closing}");
            closings.push(closing);
        }
    }
    group.network.mine(CONFIRMATIONS)?;
    for party in [&group.seller, &group.buyer] {
        for account in &party.accounts {
            let closed = party.wait_state(&account.trader_key, "CLOSED")?;
            assert_eq!(closed.value_sat, 0);
            assert!(group.network.chain.unspent(&account.outpoint).is_err());
        }
    }
    closings.iter().try_for_each(|closing| group.audit.transaction(closing))?;
    group.traded(0, 0, closings.len())
}

/// A short lease; its channel.
fn short_lease(group: &mut Group<'_>, kind: Option<&'static str>) -> Outcome<String> {
    let before = known_channels(&group.network.alice)?;
    let at = AccountVersion::V2.index();
    for (side, percent) in [(Side::Seller, 0.2), (Side::Buyer, 0.6)] {
        let party = group.party(side);
        let terms = OrderTerms { amount_sat: LEASE_SAT, blocks: SHORT_LEASE_BLOCKS, percent };
        let order = Order { channel_type: kind, ..Order::whole(side, &party.accounts[at].trader_key, &terms) };
        party.client.cli().submit(&order)?;
    }
    group.tick()?;
    let logs = [group.venue.log()];
    let point = wait_new_channel(group.network, [&group.network.alice, &group.network.bob], &before, &logs)?;
    group.network.confirm(txid_of(&point)?, CONFIRMATIONS)?;
    for node in [&group.network.alice, &group.network.bob] {
        node.wait_active(&point)?;
    }
    group.audit.transaction(&group.network.chain.transaction(txid_of(&point)?)?)?;
    group.traded(1, 1, 2)?;
    Ok(point)
}

/// The seller can not close a lease together with the buyer before its end, and can after it.
pub(crate) fn close_at_maturity(group: &mut Group<'_>) -> Outcome<()> {
    let mut points = Vec::new();
    for kind in [None, Some("script-enforced")] {
        points.push(short_lease(group, kind)?);
    }
    for point in &points {
        let refusal = match group.network.alice.close_channel(point) {
            Ok(txid) => return Err(Failure::fatal(format!("{point} was closed early by {txid}"))),
            Err(failure) => failure.to_string(),
        };
        assert!(refusal.contains("frozen"), "{refusal}");
        assert!(group.network.bob.wait_active(point)?.active);
    }
    group.network.mine(SHORT_LEASE_BLOCKS)?;
    for point in &points {
        let txid = group.network.alice.close_channel(point)?;
        let closing = group.network.chain.wait_for_transaction(&txid)?;
        assert_eq!(spent(&closing)?, std::slice::from_ref(point));
        group.network.mine(CONFIRMATIONS)?;
        for node in [&group.network.alice, &group.network.bob] {
            Wait::new(format!("{point} gone at {}", node.name())).until(|| {
                match known_channels(node)?.contains(point) {
                    true => Err(Failure::new("still listed")),
                    false => Ok(()),
                }
            })?;
        }
    }
    Ok(())
}

/// While our traders work, other programs use their nodes: one opens an ordinary channel during a batch, one has locked
/// coins, and the deployed client holds a channel acceptor of its own. Nobody gets in anybody's way.
pub(crate) fn share_the_node(group: &mut Group<'_>, folder: &std::path::Path) -> Outcome<()> {
    let network = group.network;
    let (alice, bob) = (&network.alice, &network.bob);
    let mut guest = Poold::start(&network.programs, bob, &group.audit.address(Side::Buyer), &folder.join("guest"))?;
    guest.wait_ready()?;
    let locked = alice.lock_coins(&network.venue.new_address()?, FOREIGN_SAT)?;
    assert_eq!(locked.len(), 1, "{locked:?}");
    // Not mined: it is pending while the batch opens its channel between the same nodes.
    let foreign = alice.open_channel(&bob.identity()?, FOREIGN_SAT)?;
    group.lease(&Setting {
        seller_version: AccountVersion::V2,
        buyer_version: AccountVersion::V2,
        channel: ChannelKind::ScriptEnforced,
        visibility: Visibility::Announced,
        timing: Timing::ZeroConf,
        market: Market::Inbound,
        own: SelfBalance::Some,
    })?;
    let mut opened = alice.channels()?.into_iter().filter(|one| one.point.starts_with(&foreign));
    let opened = opened.next().ok_or_else(|| Failure::fatal("the other program's channel is gone"))?;
    for node in [alice, bob] {
        assert_eq!(node.wait_active(&opened.point)?.capacity_sat, FOREIGN_SAT);
    }
    // A deposit takes other coins, and leaves the locks alone.
    let at = AccountVersion::V2.index();
    let account = group.seller.accounts[at].clone();
    let deposit = group.seller.client.cli().deposit(&account.trader_key, FOREIGN_SAT, Some(account.version), None)?;
    let deposit = network.chain.wait_for_transaction(&deposit)?;
    let inputs = spent(&deposit)?;
    assert!(inputs.iter().all(|input| !locked.contains(input)), "{inputs:?} has locked coins of {locked:?}");
    let held = alice.locked_coins()?;
    assert!(held.is_superset(&locked), "{held:?} lacks locks of {locked:?}");
    // Ours lasts while what it is for is pending.
    assert!(held.difference(&locked).all(|coin| inputs.contains(coin)), "{held:?} beyond {locked:?} and {inputs:?}");
    network.mine(CONFIRMATIONS)?;
    let after = group.seller.wait_state(&account.trader_key, "OPEN")?;
    assert_eq!(after.value_sat, account.value_sat + FOREIGN_SAT);
    group.audit.transaction(&deposit)?;
    group.modified(1)?;
    assert_eq!(guest.cli.accounts()?, []);
    assert!(alice.locked_coins()?.is_superset(&locked));
    alice.unlock_coins(&locked)
}
