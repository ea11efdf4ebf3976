//! Payments through leased channels, their end, and worlds that are saved block by block.

use super::channels::Pair;
use super::{now, sats};
use crate::{Demand, Keeper, NodeSnapshot, World, WorldSnapshot};
use tidegate_ports::{AddressKind, Channels, Wallet};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::units::{SatPerKw, Sats};

const CAPACITY: u64 = 500_000;
const PUSH: u64 = 100_000;

fn opened(commitment: CommitmentType) -> Pair {
    let pair = Pair::new(commitment);
    pair.open().expect("opened");
    pair.world.mine(3);
    pair
}

fn balance(pair: &Pair) -> [u64; 2] {
    [&pair.maker, &pair.taker].map(|node| now(node.confirmed_balance()).expect("told").get())
}

#[test]
fn payments_use_up_a_channel_until_its_reserve() {
    let pair = opened(CommitmentType::Negotiated);
    let lane = |world: &World| world.lanes().into_iter().next().expect("one channel");
    let first = lane(&pair.world);
    // All but the push and one hundredth.
    assert_eq!((first.inbound, first.usable), (sats(CAPACITY - PUSH - CAPACITY / 100), true));
    assert_eq!((first.opener, first.acceptor), (pair.maker.id(), pair.taker.id()));
    assert!(pair.world.pay_through(first.channel, sats(300_000), 42));
    assert!(!pair.world.pay_through(first.channel, sats(300_000), 42), "there is not so much left");
    let second = lane(&pair.world);
    assert_eq!((second.usage.moved, second.usage.payments, second.usage.fees_msat), (sats(300_000), 1, 42));
    pair.taker.set_up(false);
    assert!(!pair.world.pay_through(first.channel, sats(1), 0), "the buyer is away");
    pair.taker.set_up(true);
    pair.world.reconnect();
    assert!(pair.world.pay_through(first.channel, sats(1), 0));
}

#[test]
fn a_close_pays_each_side_what_it_has() {
    for commitment in [CommitmentType::Negotiated, CommitmentType::ScriptEnforcedLease] {
        let pair = opened(commitment);
        let point = pair.point();
        assert!(pair.world.pay_through(point, sats(250_000), 0));
        let before = balance(&pair);
        pair.world.close_channel(point).expect("closed");
        pair.world.mine(1);
        let after = balance(&pair);
        let fee = SatPerKw::FLOOR.fee_floor(800).expect("an amount").get();
        assert_eq!(after[1] - before[1], PUSH + 250_000, "{commitment:?}");
        assert_eq!(after[0] - before[0], CAPACITY - PUSH - 250_000 - fee, "{commitment:?}");
        assert!(pair.world.lanes().is_empty());
        assert!(pair.world.close_channel(point).is_err(), "once");
    }
}

#[test]
fn taproot_channels_and_nodes_that_are_away_do_not_close() {
    let pair = opened(CommitmentType::SimpleTaproot);
    assert!(pair.world.close_channel(pair.point()).is_err());
    let pair = opened(CommitmentType::Negotiated);
    pair.maker.set_up(false);
    assert!(pair.world.close_channel(pair.point()).is_err());
}

#[test]
fn leases_end_at_their_maturity_and_pay_until_then() {
    let pair = opened(CommitmentType::Negotiated);
    let mut demand = Demand::new(3, 0);
    demand.set(pair.taker.id(), 2_000);
    let mut paid = 0;
    let end = pair.world.lanes()[0].maturity.expect("confirmed").get();
    while pair.world.height().get() < end + 3 {
        let traffic = demand.step(&pair.world);
        assert_eq!(traffic.closed, [], "at {}", pair.world.height());
        paid += traffic.paid_sats;
        pair.world.mine(1);
    }
    assert_eq!(pair.world.lanes()[0].usage.moved.get(), paid);
    assert!(paid > 300_000, "{paid}");
    assert_eq!(demand.step(&pair.world).closed, [pair.point()]);
    pair.world.mine(1);
    assert_eq!(demand.step(&pair.world), crate::Traffic::default());
}

/// Puts checkpoints together as a store would.
#[derive(Default)]
struct Saved {
    blocks: Vec<Vec<bitcoin::Transaction>>,
    nodes: std::collections::BTreeMap<usize, NodeSnapshot>,
    uses: std::collections::BTreeMap<bitcoin::OutPoint, crate::ChannelUse>,
}

impl Saved {
    fn block(&mut self, world: &World, keeper: &mut Keeper) {
        let point = world.plan(keeper);
        self.blocks.push(point.block.transactions.clone());
        for (place, news) in point.nodes {
            let mut labels = Vec::new();
            let mut channels = Vec::new();
            if let Some(before) = self.nodes.remove(&place) {
                labels = before.labels;
                channels = before.channels;
            }
            channels.retain(|old| news.channels.iter().all(|new| new.channel_point != old.channel_point));
            labels.extend(news.labels);
            channels.extend(news.channels);
            labels.sort();
            channels.sort_by_key(|record| record.channel_point);
            self.nodes.insert(place, NodeSnapshot { labels, channels, ..news });
        }
        self.uses.extend(point.uses);
        assert_eq!(world.mine_plan(&point.block), point.height);
    }
}

#[test]
fn a_world_saved_block_by_block_is_the_world() {
    let (world, mut keeper, mut saved) = (World::new(5), Keeper::default(), Saved::default());
    let (maker, taker) = (world.add_node("maker"), world.add_node("taker"));
    for node in [&maker, &taker] {
        let script = now(node.new_address(AddressKind::Taproot)).expect("an address");
        world.pay(script, sats(1_000_000)).expect("paid");
    }
    saved.block(&world, &mut keeper);
    saved.block(&world, &mut keeper);
    let pair = Pair::within(world, maker, taker, CommitmentType::Negotiated);
    pair.open().expect("opened");
    for _ in 0..4 {
        saved.block(&pair.world, &mut keeper);
    }
    assert!(pair.world.pay_through(pair.point(), sats(5_000), 3));
    saved.block(&pair.world, &mut keeper);
    assert_eq!(pair.world.plan(&mut keeper).nodes, [], "nothing changed");
    let uses = saved.uses.into_iter().collect();
    let whole = pair.world.save();
    let (blocks, nodes) = (saved.blocks, saved.nodes.into_values().collect());
    let built = WorldSnapshot { blocks, nodes, uses, mempool: Vec::new(), ..whole.clone() };
    assert_eq!(built, whole);
    let restored = World::restore(&built).expect("it was valid");
    assert_eq!(restored.lanes().len(), 1);
    assert!(!restored.lanes()[0].usable, "connections are made anew");
    restored.reconnect();
    assert!(restored.lanes()[0].usable);
    assert_eq!(restored.lanes()[0].usage.moved, sats(5_000));
    restored.close_channel(pair.point()).expect("the keys are the same");
}

#[test]
fn a_planned_block_takes_nothing_that_came_later() {
    let (world, mut keeper) = (World::new(5), Keeper::default());
    let node = world.add_node("alice");
    let pay = |amount: Sats| {
        let script = now(node.new_address(AddressKind::Taproot)).expect("an address");
        world.pay(script, amount).expect("paid").txid
    };
    let early = pay(sats(10_000));
    let point = world.plan(&mut keeper);
    let late = pay(sats(20_000));
    assert_eq!(point.block.transactions.iter().map(bitcoin::Transaction::compute_txid).collect::<Vec<_>>(), [early]);
    let height = world.mine_plan(&point.block);
    assert_eq!(world.transaction(early).expect("known").1, Some(height));
    assert_eq!(world.transaction(late).expect("known").1, None);
    assert_eq!(now(node.active_channels()).expect("told"), []);
}
