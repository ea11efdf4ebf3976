//! Refusing an honest batch is a defect: thousands of random ones are accepted, signed for and finalized, and every
//! number that verification draws from them is the one that the generator computed by itself.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and a run says what it tried"
)]

mod generator;

use generator::World;
use generator::proposal::{Batch, DUST, Proposal};
use generator::scripts::sha256_of;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::channel::AcceptorRule;
use tidegate_protocol::keys::{NodeId, OrderNonce};
use tidegate_protocol::order::{AuctionType, NodeTier, SubmittedOrder};
use tidegate_protocol::verify::{VerifiedBatch, VerifiedMatch, verify_finalize, verify_prepare, verify_sign};
use tidegate_wire::{batch as wire, poolrpc};

/// Batches of one world, each from where the one before ended.
const SUCCESSIVE: u64 = 5;

/// How often each thing that can happen did.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    fn count(&mut self, what: &'static str, happened: bool) {
        *self.0.entry(what).or_default() += usize::from(happened);
    }
}

/// The messages as they come over the wire.
fn over_the_wire(proposal: &Proposal) -> Proposal {
    let prepare = wire::to_prepare(&proposal.prepare).unwrap().encode_to_vec();
    let sign = wire::to_sign_begin(&proposal.sign).encode_to_vec();
    let finalize = wire::to_finalize(&proposal.finalize).encode_to_vec();
    Proposal {
        prepare: wire::from_prepare(poolrpc::OrderMatchPrepare::decode(&prepare[..]).unwrap()).unwrap(),
        sign: wire::from_sign_begin(poolrpc::OrderMatchSignBegin::decode(&sign[..]).unwrap()).unwrap(),
        finalize: wire::from_finalize(poolrpc::OrderMatchFinalize::decode(&finalize[..]).unwrap()).unwrap(),
        ..proposal.clone()
    }
}

fn check(proposal: &Proposal, what: &str) {
    let received = over_the_wire(proposal);
    assert_eq!((&received.prepare, &received.sign), (&proposal.prepare, &proposal.sign), "{what}");
    let view = received.local.view();
    let batch = verify_prepare(&view, &received.prepare).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_accounts(proposal, &batch, what);
    check_matches(proposal, &batch, what);
    verify_sign(&view, &batch, &received.sign).unwrap_or_else(|error| panic!("{what}: {error}"));
    verify_finalize(&batch, &received.finalize).unwrap_or_else(|error| panic!("{what}: {error}"));
}

fn check_accounts(proposal: &Proposal, batch: &VerifiedBatch, what: &str) {
    assert_eq!(batch.accounts().len(), proposal.accounts.len(), "{what}");
    for (key, (after, fee)) in &proposal.accounts {
        let found = &batch.accounts()[key];
        assert_eq!(found.after.terms, after.terms, "{what}");
        assert_eq!(&found.after, after, "{what}");
        assert_eq!(found.chain_fee.get(), *fee, "{what}");
        assert_eq!(found.recreated, after.value.get() >= DUST, "{what}");
        let spent = batch.prepare().transaction.input[found.input].previous_output;
        assert_eq!(Some(spent), proposal.local.accounts[key].outpoint, "{what}");
    }
    let orders = batch.orders().iter().map(|order| (order.nonce, (order.state, order.units_unfulfilled.get())));
    assert_eq!(orders.collect::<BTreeMap<_, _>>(), proposal.orders, "{what}");
}

fn check_matches(proposal: &Proposal, batch: &VerifiedBatch, what: &str) {
    assert_eq!(batch.matches().len(), proposal.matches.len(), "{what}");
    for found in batch.matches() {
        let expected = &proposal.matches[&(found.ours, found.theirs)];
        assert_eq!(found.shim.channel_point, expected.channel, "{what}");
        assert_eq!(found.shim.capacity.get(), expected.capacity, "{what}");
        assert_eq!((found.maker, found.units.get()), (expected.maker, expected.units), "{what}");
        assert_eq!(found.premium.get(), expected.premium, "{what}");
        assert_eq!(found.execution_fee.get(), expected.execution_fee, "{what}");
        assert_eq!(found.open.commitment, expected.commitment, "{what}");
        check_channel(proposal, found, what);
    }
    let unverified = batch.unverified_tiers().iter().map(|found| (found.order, found.node));
    assert_eq!(unverified.collect::<BTreeSet<_>>(), unrated(proposal), "{what}");
}

/// The other side's order, as the proposal shows it.
fn shown<'a>(proposal: &'a Proposal, found: &VerifiedMatch) -> &'a SubmittedOrder {
    let market = &proposal.prepare.markets[&proposal.local.orders[&found.ours].order.duration];
    let mut matches = market.orders[&found.ours].iter().map(|matched| &matched.order);
    matches.find(|other| other.order.nonce == found.theirs).unwrap()
}

/// What the node is told about a channel: taken from both orders, whichever of them is ours.
fn check_channel(proposal: &Proposal, found: &VerifiedMatch, what: &str) {
    let (own, other) = (&proposal.local.orders[&found.ours], shown(proposal, found));
    let (ask, bid) = if own.order.is_ask() { (&own.order, &other.order) } else { (&other.order, &own.order) };
    let terms = bid.bid().unwrap();
    assert_eq!((found.node, &found.addresses), (other.node, &other.addresses), "{what}");
    assert_eq!((found.account, found.duration), (own.order.account, own.order.duration), "{what}");
    assert_eq!(found.clearing_price, proposal.prepare.markets[&bid.duration].clearing_price, "{what}");
    assert_eq!(found.self_balance, terms.self_balance, "{what}");
    let shim = &found.shim;
    assert_eq!(shim.pending_id.as_bytes(), &sha256_of(&[ask.nonce.as_bytes(), bid.nonce.as_bytes()]), "{what}");
    assert_eq!((shim.local_key, shim.remote_key), (own.multisig, other.multisig), "{what}");
    let commitment = found.open.commitment.number();
    assert_eq!(shim.musig2, commitment == 5, "{what}");
    let lease_end = proposal.prepare.height_hint.get() + bid.duration.get();
    assert_eq!(shim.thaw_height, if commitment == 4 { lease_end } else { bid.duration.get() }, "{what}");
    let open = &found.open;
    assert_eq!((open.node, &open.shim, open.push), (other.node, shim, terms.self_balance), "{what}");
    assert_eq!((open.private, open.zero_conf), (terms.unannounced, terms.zero_conf), "{what}");
    assert_eq!(found.acceptor, AcceptorRule::for_bid(terms, bid.channel_type), "{what}");
}

/// Bids of ours that demand a tier, with the nodes of which none is known that is younger than a day.
fn unrated(proposal: &Proposal) -> BTreeSet<(OrderNonce, NodeId)> {
    let known = |node: &NodeId| proposal.local.ratings.get(node).is_some_and(|rating| rating.age_seconds < 86_400);
    let mut unrated = BTreeSet::new();
    for market in proposal.prepare.markets.values() {
        for (ours, matches) in &market.orders {
            let picky = proposal.local.orders[ours].order.bid().is_some_and(|bid| bid.min_node_tier == NodeTier::Tier1);
            let nodes = matches.iter().map(|matched| matched.order.node).filter(|node| picky && !known(node));
            unrated.extend(nodes.map(|node| (*ours, node)));
        }
    }
    unrated
}

fn tally(seen: &mut Seen, batch: &Batch) {
    for proposal in &batch.proposals {
        seen.count("proposals", true);
        seen.count("of several accounts", proposal.accounts.len() > 1);
        for (key, (after, _)) in &proposal.accounts {
            let before = &proposal.local.accounts[key];
            seen.count("accounts of version 0", before.terms.version == AccountVersion::V0);
            seen.count("accounts of version 1", before.terms.version == AccountVersion::V1);
            seen.count("accounts of version 2", before.terms.version == AccountVersion::V2);
            seen.count("upgrades", after.terms.version > before.terms.version);
            seen.count("extensions", after.terms.expiry > before.terms.expiry);
            seen.count("from an unconfirmed batch", before.state == AccountState::PendingBatch);
            seen.count("ending with 0", after.value.get() == 0);
            seen.count("ending with 434", after.value.get() == 434);
            seen.count("ending with 435", after.value.get() == 435);
            seen.count("ending with 436", after.value.get() == 436);
        }
        for ((ours, _), found) in &proposal.matches {
            let order = &proposal.local.orders[ours].order;
            seen.count("matches", true);
            seen.count("outbound", order.auction == AuctionType::Outbound);
            let least = order.min_units.to_sats().get() == found.capacity - u64::from(found.units) * 100_000;
            seen.count("of the least self balance", found.maker && order.auction == AuctionType::Outbound && least);
            seen.count("with self balance", found.capacity > u64::from(found.units) * 100_000);
            seen.count("script enforced", found.commitment.number() == 4);
            seen.count("simple taproot", found.commitment.number() == 5);
            seen.count("zero-conf", order.bid().is_some_and(|bid| bid.zero_conf));
            seen.count("unannounced", order.bid().is_some_and(|bid| bid.unannounced));
            seen.count("sidecar", order.bid().is_some_and(|bid| bid.sidecar));
            seen.count("by an allow list", !order.allowed_nodes.is_empty());
            seen.count("of 52,416 blocks", order.duration.get() == 52_416);
        }
        seen.count("with unrated nodes", !unrated(proposal).is_empty());
        seen.count("partly filled", proposal.orders.values().any(|(_, left)| *left > 0));
    }
}

/// Runs these worlds, `times` as many when the environment asks for more.
fn run(worlds: std::ops::Range<u64>) {
    let times = std::env::var("TIDEGATE_HONEST_TIMES").map_or(1, |times| times.parse::<u64>().unwrap());
    let worlds = worlds.start..worlds.start + (worlds.end - worlds.start) * times;
    let mut seen = Seen::default();
    for seed in worlds.clone() {
        let mut world = World::new(seed);
        for round in 0..SUCCESSIVE {
            let Some(batch) = world.next_batch() else { continue };
            for (place, proposal) in batch.proposals.iter().enumerate() {
                check(proposal, &format!("world {seed}, batch {round}, proposal {place}"));
            }
            seen.count("batches", true);
            tally(&mut seen, &batch);
            world.apply(&batch);
        }
    }
    println!("worlds {worlds:?}: all accepted, {:?}", seen.0);
    for (what, times) in &seen.0 {
        assert!(*times >= 10, "{what} hardly ever happens: {times}");
    }
    assert!(seen.0["batches"] >= 1_500);
}

// Two halves, so that two cores share them.

#[test]
fn honest_batches_of_even_seeds_are_accepted() {
    run(0..400);
}

#[test]
fn honest_batches_of_odd_seeds_are_accepted() {
    run(1_000_000..1_000_400);
}
