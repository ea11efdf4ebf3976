//! A search for books that make clearing slow: the bound on its work holds for the worst ones found.

use crate::testkit::{ask, bid, point};
use crate::{BookOrder, Conflicts, PairingRules, clear_within, plan};
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::order::{NodeTier, OrderChannelType};
use tidegate_protocol::units::{RatePerBillion, UnitCount};

/// The simplest generator that will do (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(bound)).unwrap()
    }
}

/// The order of a number, where a search starts.
type Start = fn(u32) -> BookOrder;

struct Search {
    dice: Dice,
    nodes: Vec<NodeId>,
    accounts: Vec<AccountKey>,
    conflicts: Conflicts,
}

impl Search {
    fn new(seed: u64) -> Search {
        let nodes: Vec<NodeId> = (0..6).map(|n| NodeId::new(point("node", n))).collect();
        let accounts: Vec<AccountKey> = (0..6).map(|n| AccountKey::new(point("account", n))).collect();
        let conflicts = [(accounts[0], accounts[1]), (accounts[2], accounts[3])].into_iter().collect();
        Search { dice: Dice(seed), nodes, accounts, conflicts }
    }

    fn pick(&mut self) -> usize {
        usize::try_from(self.dice.below(6)).unwrap()
    }

    /// Changes one thing about an order.
    fn mutate(&mut self, entry: &mut BookOrder) {
        let units = 1 + self.dice.below(40);
        let (some, other) = (self.pick(), self.pick());
        let list = vec![self.nodes[some], self.nodes[other]];
        let rate = RatePerBillion::new(self.dice.below(100));
        let order = &mut entry.submitted.order;
        match self.dice.below(10) {
            0 => order.rate = rate,
            1 => entry.open = UnitCount::new(units),
            2 => order.min_units = UnitCount::new(units),
            3 => (entry.open, order.min_units) = (UnitCount::new(units), UnitCount::new(units)),
            4 => entry.submitted.node = self.nodes[some],
            5 => order.account = self.accounts[some],
            6 => entry.owner = [u8::try_from(some).unwrap(); 32],
            7 => (order.allowed_nodes, order.denied_nodes) = (list, Vec::new()),
            8 => (order.allowed_nodes, order.denied_nodes) = (Vec::new(), list),
            _ => {
                entry.tier = if some % 2 == 0 { NodeTier::Tier0 } else { NodeTier::Tier1 };
                order.channel_type =
                    if some % 3 == 0 { OrderChannelType::SimpleTaproot } else { OrderChannelType::PeerDependent };
            }
        }
    }

    fn work(&self, orders: &[BookOrder]) -> u64 {
        plan(orders, &self.rules(), u64::MAX).work
    }

    fn rules(&self) -> PairingRules<'_> {
        PairingRules { conflicts: &self.conflicts, ratings_enabled: true, max_pairs: usize::MAX }
    }

    /// Climbs from a book to one that costs as much work as can be found.
    fn climb(&mut self, start: Start, count: u32, steps: u32) -> Vec<BookOrder> {
        let mut orders: Vec<BookOrder> = (0..count).map(start).collect();
        let mut most = self.work(&orders);
        for _ in 0..steps {
            let mut changed = orders.clone();
            for _ in 0..1 + self.dice.below(8) {
                let at = usize::try_from(self.dice.below(count)).unwrap();
                self.mutate(&mut changed[at]);
            }
            let work = self.work(&changed);
            if work >= most {
                (orders, most) = (changed, work);
            }
        }
        orders
    }
}

/// Different sizes, few traders on each side.
fn ordinary(n: u32) -> BookOrder {
    if n.is_multiple_of(2) { ask(n, n % 3, n, 1 + n % 30) } else { bid(n, 3 + n % 3, 200 - n, 1 + n % 30) }
}

/// Everybody is the same trader: nothing meets.
fn alone(n: u32) -> BookOrder {
    if n.is_multiple_of(2) { ask(n, 1, n, 9) } else { bid(n, 1, 200 - n, 9) }
}

#[test]
fn the_worst_book_found_costs_no_more_than_a_walk_over_all_pairs() {
    let starts: [(u64, Start); 3] = [(1, ordinary), (2, ordinary), (3, alone)];
    for (seed, start) in starts {
        let mut search = Search::new(seed);
        let count = 80;
        let worst = search.climb(start, count, 600);
        let work = search.work(&worst);
        let asks = u64::try_from(worst.iter().filter(|order| order.submitted.order.is_ask()).count()).unwrap();
        let bids = u64::from(count) - asks;
        let reading = plan(&worst, &search.rules(), 0).work;
        let walking = work - reading;
        println!("seed {seed}: {walking} for {asks} asks and {bids} bids, {} a pair", walking / (asks * bids));
        assert!(walking > asks * bids, "the search finds books that need a walk");
        assert!(walking <= asks * bids * 12 + bids * 100, "a pair costs a bounded work");

        // With half of the work it is cut, and that is said.
        let less = clear_within(&worst, &search.rules(), work / 2);
        assert!(less.cut && less.work <= work);
    }
}
