//! The fast matcher gives what the specification gives, over random books.

use crate::testkit::{ask, bid, point};
use crate::{BookOrder, Conflicts, MAX_PAIRS, Market, PairingRules, clear, clear_within, plan, reference};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::sync::LazyLock;
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeTier, OrderChannelType,
    OrderSide, OrderVersion,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};

const PEOPLE: usize = 8;

static NODES: LazyLock<Vec<NodeId>> = LazyLock::new(|| (0..8).map(|n| NodeId::new(point("node", n))).collect());
static ACCOUNTS: LazyLock<Vec<AccountKey>> =
    LazyLock::new(|| (0..8).map(|n| AccountKey::new(point("account", n))).collect());
static SAMPLE: LazyLock<(BookOrder, BookOrder)> = LazyLock::new(|| (ask(1, 1, 1, 1), bid(1, 1, 1, 1)));

/// How varied the orders of a book are. Great variety tests the predicates, little variety the bookkeeping of many fills.
#[derive(Clone, Copy, Debug)]
struct Variety {
    /// Chance of everything unusual.
    rare: f64,
    units: u32,
    rates: u32,
}

const VARIED: Variety = Variety { rare: 0.15, units: 12, rates: 30 };
const CROWD: Variety = Variety { rare: 0.02, units: 90, rates: 60 };

fn or_rarely<T: Clone + core::fmt::Debug + 'static>(rare: f64, usual: T, all: Vec<T>) -> impl Strategy<Value = T> {
    (prop::bool::weighted(rare), prop::sample::select(all))
        .prop_map(move |(rarely, other)| if rarely { other } else { usual.clone() })
}

fn nodes(chance: f64) -> impl Strategy<Value = Vec<NodeId>> {
    let some = prop::collection::vec(0..PEOPLE, 1..5);
    prop::option::weighted(chance, some)
        .prop_map(|list| list.unwrap_or_default().into_iter().map(|n| NODES[n]).collect())
}

/// Units, units still open, smallest match (at times none, or more than there is).
fn sizes(most: u32) -> impl Strategy<Value = (u32, u32)> {
    (1..=most).prop_flat_map(|open| {
        let min = prop_oneof![3 => Just(1), 4 => 1..=open, 2 => Just(open), 1 => 0..=open + 2];
        (Just(open), min)
    })
}

fn sides(rare: f64) -> impl Strategy<Value = OrderSide> {
    use {AnnouncementConstraint as A, ConfirmationConstraint as C};
    let asks = (
        or_rarely(rare, A::None, vec![A::OnlyAnnounced, A::OnlyUnannounced]),
        or_rarely(rare, C::None, vec![C::OnlyConfirmed, C::OnlyZeroConf]),
    );
    let balances = [50_000, 100_000, 300_000, 1_000_000].map(Sats::constant).to_vec();
    let bids = (
        or_rarely(rare * 2.0, NodeTier::Tier0, vec![NodeTier::Tier1]),
        or_rarely(rare, Sats::ZERO, balances),
        prop::bool::weighted(rare),
        prop::bool::weighted(rare),
    );
    prop_oneof![
        asks.prop_map(|(announcement, confirmation)| OrderSide::Ask(AskTerms { announcement, confirmation })),
        bids.prop_map(|(min_node_tier, self_balance, unannounced, zero_conf)| {
            OrderSide::Bid(BidTerms { min_node_tier, self_balance, sidecar: false, unannounced, zero_conf })
        }),
    ]
}

fn entry(variety: Variety) -> impl Strategy<Value = BookOrder> {
    use {OrderChannelType as T, OrderVersion as V};
    let rare = variety.rare;
    let versions = vec![V::V0, V::V1, V::V2, V::V3, V::V4];
    let conversations = [0, 1, 2, 11, 16, 17, 18].map(BatchVersion).to_vec();
    let who = (0..PEOPLE, 0..PEOPLE, 0..PEOPLE);
    let terms = (
        1..=variety.rates,
        or_rarely(rare, 2016, vec![4032, 6048]),
        or_rarely(rare, AuctionType::Inbound, vec![AuctionType::Outbound]),
        or_rarely(rare, T::PeerDependent, vec![T::ScriptEnforced, T::SimpleTaproot]),
        or_rarely(rare, V::V5, versions),
    );
    let venue = (or_rarely(rare * 2.0, NodeTier::Tier1, vec![NodeTier::Tier0]), or_rarely(rare, 58, vec![0]));
    let lists = (nodes(rare.max(0.1)), nodes(rare.max(0.1)));
    (who, sizes(variety.units), terms, sides(rare), venue, lists, prop::sample::select(conversations)).prop_map(
        |((node, account, owner), (open, min), terms, side, (tier, batch_version), lists, other_version)| {
            let mut entry = if matches!(side, OrderSide::Ask(_)) { SAMPLE.0.clone() } else { SAMPLE.1.clone() };
            entry.submitted.node = NODES[node];
            entry.owner = [u8::try_from(owner).unwrap(); 32];
            entry.tier = tier;
            entry.batch_version = if batch_version == 0 { other_version } else { BatchVersion(58) };
            let order = &mut entry.submitted.order;
            order.account = ACCOUNTS[account];
            order.min_units = UnitCount::new(min);
            (order.allowed_nodes, order.denied_nodes) = lists;
            (order.rate, order.duration) = (RatePerBillion::new(terms.0), BlockCount::new(terms.1));
            (order.auction, order.channel_type, order.version) = (terms.2, terms.3, terms.4);
            // Orders of the outbound market are small, else they never meet.
            let outbound =
                order.auction == AuctionType::Outbound && !matches!(side, OrderSide::Ask(_)) && open % 4 != 0;
            entry.open = UnitCount::new(if outbound { 1 } else { open });
            order.side = side;
            entry
        },
    )
}

fn book(variety: Variety, most: usize) -> impl Strategy<Value = Vec<BookOrder>> {
    // Each order has its own name, so that pairs can be told apart.
    prop::collection::vec(entry(variety), 0..most).prop_map(|mut orders| {
        for (number, order) in (0..).zip(&mut orders) {
            order.submitted.order.nonce = crate::testkit::nonce(number);
        }
        orders
    })
}

fn conflicts() -> impl Strategy<Value = Conflicts> {
    let pair = (0..PEOPLE, 0..PEOPLE).prop_map(|(a, b)| (ACCOUNTS[a], ACCOUNTS[b]));
    prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.into_iter().collect())
}

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(usize::MAX), 1 => Just(MAX_PAIRS), 1 => 0usize..12]
}

fn check(orders: &[BookOrder], rules: &PairingRules<'_>) -> Result<(), TestCaseError> {
    let wanted = reference::clear(orders, rules);
    prop_assert_eq!(&clear(orders, rules), &wanted);
    let complete = clear_within(orders, rules, u64::MAX);
    prop_assert!(!complete.cut);
    prop_assert_eq!(&clear_within(orders, rules, u64::MAX), &complete, "again");
    let planned = plan(orders, rules, u64::MAX);
    prop_assert_eq!(planned.markets.len(), wanted.len());
    for (duration, market) in planned.markets {
        prop_assert_eq!(market.price, wanted[&duration].price);
        let named = market
            .meetings
            .iter()
            .map(|m| (orders[m.ask].submitted.order.nonce, orders[m.bid].submitted.order.nonce, m.units));
        let pairs = wanted[&duration].pairs.iter().map(|p| (p.ask.order.nonce, p.bid.order.nonce, p.units));
        prop_assert!(named.eq(pairs));
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::testkit::always(1_024))]

    #[test]
    fn equals_the_specification(
        orders in book(VARIED, 70), conflicts in conflicts(), ratings_enabled in any::<bool>(), max_pairs in limits(),
    ) {
        check(&orders, &PairingRules { conflicts: &conflicts, ratings_enabled, max_pairs })?;
    }
}

proptest! {
    #![proptest_config(crate::testkit::always(128))]

    #[test]
    fn equals_the_specification_for_crowded_books(
        orders in book(CROWD, 500), conflicts in conflicts(), ratings_enabled in any::<bool>(), max_pairs in limits(),
    ) {
        check(&orders, &PairingRules { conflicts: &conflicts, ratings_enabled, max_pairs })?;
    }

    #[test]
    fn little_work_gives_the_first_pairs_and_says_so(
        orders in book(CROWD, 200), conflicts in conflicts(), share in 0u64..100,
    ) {
        let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: usize::MAX };
        let complete = clear_within(&orders, &rules, u64::MAX);
        let less = clear_within(&orders, &rules, complete.work * share / 100);
        prop_assert!(less.cut || less.markets == complete.markets);
        let pairs = reference::pair_up(&orders, &rules);
        for (duration, market) in &less.markets {
            let pairs = &pairs[duration];
            let prefixes: Vec<Market> = (1..=pairs.len()).filter_map(|k| reference::price(pairs[..k].to_vec())).collect();
            prop_assert!(prefixes.contains(market));
        }
    }
}

/// The random books mean something: each rule decides the outcome of many of them, alone.
#[test]
fn every_rule_matters_in_random_books() {
    type Bend = fn(&mut BookOrder);
    let bends: [(&str, Bend); 7] = [
        ("durations", |order| order.submitted.order.duration = BlockCount::new(2_016)),
        ("smallest matches", |order| order.submitted.order.min_units = UnitCount::new(1)),
        ("allow lists", |order| order.submitted.order.allowed_nodes.clear()),
        ("deny lists", |order| order.submitted.order.denied_nodes.clear()),
        ("channel types", |order| order.submitted.order.channel_type = OrderChannelType::PeerDependent),
        ("markets", |order| order.submitted.order.auction = AuctionType::Inbound),
        ("prices", |order| {
            let rate = if order.submitted.order.is_ask() { 1 } else { 1_000 };
            order.submitted.order.rate = RatePerBillion::new(rate);
        }),
    ];
    let none = Conflicts::new();
    let mut matters: std::collections::BTreeMap<&str, u32> = bends.iter().map(|(rule, _)| (*rule, 0)).collect();
    let mut runner = TestRunner::new(crate::testkit::always(1));
    for _ in 0..200 {
        let draw = (book(VARIED, 70), conflicts()).new_tree(&mut runner).unwrap();
        let (orders, conflicts) = draw.current();
        let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: usize::MAX };
        let outcome = clear(&orders, &rules);
        let mut count = |rule: &'static str, other| *matters.entry(rule).or_default() += u32::from(outcome != other);
        count("conflicts", clear(&orders, &PairingRules { conflicts: &none, ..rules }));
        count("tiers", clear(&orders, &PairingRules { ratings_enabled: false, ..rules }));
        for (rule, bend) in bends {
            let mut bent = orders.clone();
            bent.iter_mut().for_each(bend);
            // Pairs hold their orders: only who meets whom, and at what price, is compared.
            let shape = |markets: &std::collections::BTreeMap<BlockCount, Market>| -> Vec<_> {
                let pairs = markets.values().flat_map(|market| market.pairs.iter());
                pairs.map(|pair| (pair.ask.order.nonce, pair.bid.order.nonce, pair.units)).collect()
            };
            *matters.entry(rule).or_default() += u32::from(shape(&outcome) != shape(&clear(&bent, &rules)));
        }
    }
    println!("of 200 books each rule decided: {matters:?}");
    assert!(matters.values().all(|books| *books >= 10), "{matters:?}");
}

#[test]
fn no_work_means_no_pair_and_is_said() {
    let orders = [ask(1, 1, 5, 1), bid(2, 2, 9, 1)];
    let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: true, max_pairs: MAX_PAIRS };
    let none = clear_within(&orders, &rules, 0);
    assert!(none.cut && none.markets.is_empty());
    let enough = clear_within(&orders, &rules, crate::TICK_WORK);
    assert!(!enough.cut && enough.markets == clear(&orders, &rules) && enough.markets.len() == 1);
}

/// Without this, a slow search structure would still pass every test: the work must not grow with the square of the book.
#[test]
fn the_work_for_an_ordinary_book_grows_with_its_size() {
    let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: true, max_pairs: usize::MAX };
    let work = |count: u32| {
        let orders: Vec<BookOrder> = (0..count)
            .map(|n| {
                let (mut order, units) = (if n % 2 == 0 { SAMPLE.0.clone() } else { SAMPLE.1.clone() }, 1 + n * 7 % 40);
                let side = usize::from(n % 2 == 1);
                order.submitted.node = NODES[side + 2 * usize::try_from(n / 2 % 4).unwrap()];
                order.submitted.order.account = ACCOUNTS[side];
                order.owner = [u8::try_from(side).unwrap(); 32];
                order.submitted.order.rate = RatePerBillion::new(1 + n * 31 % 997);
                order.submitted.order.min_units = UnitCount::new(units.div_ceil(2));
                order.open = UnitCount::new(units);
                order
            })
            .collect();
        clear_within(&orders, &rules, u64::MAX).work
    };
    let (small, large) = (work(2_000), work(20_000));
    assert!(large < 20 * small, "ten times the orders cost {small} -> {large}");
}
