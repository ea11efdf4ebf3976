//! Seeded payments behind the nodes: what buyers are paid through the channels that they leased.

use crate::random::Random;
use crate::traffic::Lane;
use crate::world::World;
use bitcoin::OutPoint;
use std::collections::BTreeMap;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::Sats;

/// Blocks after its maturity until a channel is closed.
const CLOSE_AFTER: u32 = 3;
/// Payments to one node in one block, at most.
const PAYMENTS: u64 = 3;
/// What forwarding costs, in parts per million of the payment.
const FEE_PPM: (u64, u64) = (100, 1_500);

/// Draws the payments of each block, and ends channels whose lease is over.
#[derive(Clone, Debug)]
pub struct Demand {
    random: Random,
    /// Node → what its customers would pay it in a block, on average, in satoshi.
    customers: BTreeMap<NodeId, u64>,
}

/// What happened behind the nodes in one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payments that arrived.
    pub payments: u64,
    /// Their sum, in satoshi.
    pub paid_sats: u64,
    /// Payments that found no channel with enough room.
    pub failed: u64,
    /// Channels that were closed since their lease is over.
    pub closed: Vec<OutPoint>,
}

impl Demand {
    /// Nobody is paid yet. The draws follow from the seed and the number of the start.
    pub fn new(seed: u64, start: u64) -> Demand {
        Demand { random: Random::named(seed.wrapping_add(start), "payments"), customers: BTreeMap::new() }
    }

    /// From now on customers of `node` pay about this much per block.
    pub fn set(&mut self, node: NodeId, sats_per_block: u64) {
        self.customers.insert(node, sats_per_block);
    }

    /// One block: payments, and the end of leases that are over.
    pub fn step(&mut self, world: &World) -> Traffic {
        let lanes = world.lanes();
        let mut traffic = Traffic::default();
        let height = world.height();
        for lane in &lanes {
            let over = lane.maturity.is_some_and(|end| height.get() >= end.get().saturating_add(CLOSE_AFTER));
            // A node that is away closes later; a closing transaction that waits is no reason for another one.
            if over && lane.usable && world.close_channel(lane.channel).is_ok() {
                traffic.closed.push(lane.channel);
            }
        }
        let customers: Vec<(NodeId, u64)> = self.customers.iter().map(|(node, rate)| (*node, *rate)).collect();
        for (node, rate) in customers {
            let own: Vec<&Lane> = lanes.iter().filter(|lane| lane.acceptor == node && lane.usable).collect();
            if !own.is_empty() {
                self.pay(world, &own, rate, &mut traffic);
            }
        }
        traffic
    }

    fn pay(&mut self, world: &World, lanes: &[&Lane], rate: u64, traffic: &mut Traffic) {
        for _ in 0..self.random.between(0, PAYMENTS) {
            let amount = self.random.between(rate / 3, rate).max(1);
            let fee_ppm = self.random.between(FEE_PPM.0, FEE_PPM.1);
            let lane = *self.random.pick(lanes);
            let paid = Sats::new(amount).is_ok_and(|sats| {
                // A millionth of a satoshi's thousandth is not counted.
                world.pay_through(lane.channel, sats, amount.saturating_mul(fee_ppm) / 1_000)
            });
            if paid {
                traffic.payments = traffic.payments.saturating_add(1);
                traffic.paid_sats = traffic.paid_sats.saturating_add(amount);
            } else {
                traffic.failed = traffic.failed.saturating_add(1);
            }
        }
    }
}
