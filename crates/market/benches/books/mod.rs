//! Books of orders: the usual mix, and some made to be slow. The same on every machine.

mod keys;
mod numbers;

use keys::Trader;
use numbers::Numbers;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use tidegate_market::{BookOrder, Conflicts};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{NodeId, OrderNonce};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeAddress, NodeTier, Order,
    OrderChannelType, OrderSide, OrderVersion, SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

/// Orders of one trader, about.
const ORDERS_PER_TRADER: usize = 50;

/// Orders, and who shall not meet.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// The orders, in order of arrival.
    pub(crate) orders: Vec<BookOrder>,
    /// Nodes that shall not meet.
    pub(crate) conflicts: Conflicts,
}

/// A way to make clearing slow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Worst {
    /// One owner behind all orders: nothing may meet.
    OneOwner,
    /// Every ask denies the node of every bid.
    Denied,
    /// Every bid's node is in conflict with every ask's.
    Conflicts,
    /// All or nothing, all sizes different, in no order: asks of odd, bids of even sizes.
    AllOrNothing,
    /// The same with few sizes, large and small in turn, none of them that of a bid.
    Interleaved,
    /// Every bid allows the one node that has all asks, which are too large.
    AllowedButUnfit,
    /// Every bid allows a thousand nodes.
    LongLists,
    /// Every kind of order there is.
    AllKinds,
}

impl Worst {
    /// All of them.
    pub(crate) const ALL: [Worst; 8] = [
        Worst::OneOwner,
        Worst::Denied,
        Worst::Conflicts,
        Worst::AllOrNothing,
        Worst::Interleaved,
        Worst::AllowedButUnfit,
        Worst::LongLists,
        Worst::AllKinds,
    ];
}

static BOOKS: LazyLock<Mutex<BTreeMap<usize, &'static Book>>> = LazyLock::new(Mutex::default);

impl Book {
    /// The usual mix, made once per size.
    pub(crate) fn cached(size: usize) -> &'static Book {
        let mut books = BOOKS.lock().expect("no bench panics while it makes a book");
        books.entry(size).or_insert_with(|| Box::leak(Box::new(Book::usual(size))))
    }

    /// The mix of the arena: two durations, two tiers, geometric sizes with a smallest match of a half, a few whales,
    /// 10 % with node lists, 5 % of the nodes with conflicts; prices around the same median on both sides.
    fn usual(size: usize) -> Book {
        let mut numbers = Numbers::new(4);
        let traders = keys::traders((size / ORDERS_PER_TRADER).max(16));
        let mut book = Book::default();
        for number in 0..size {
            let trader = numbers.pick(&traders);
            let mut entry = order(number, trader, numbers.chance(50));
            vary(&mut entry, &mut numbers);
            if numbers.chance(10) {
                let length = 1 + numbers.below(8);
                let nodes = (0..length).map(|_| numbers.pick(&traders).node).collect();
                let order = &mut entry.submitted.order;
                *(if numbers.chance(50) { &mut order.allowed_nodes } else { &mut order.denied_nodes }) = nodes;
            }
            book.orders.push(entry);
        }
        for trader in &traders {
            if numbers.chance(5) {
                for _ in 0..1 + numbers.below(3) {
                    book.conflicts.insert(trader.account, numbers.pick(&traders).account);
                }
            }
        }
        book
    }

    /// A book made to be slow: half asks, half bids, all prices cross.
    pub(crate) fn worst(worst: Worst, size: usize) -> Book {
        let mut numbers = Numbers::new(5);
        let traders = keys::traders(1002);
        let (sellers, buyer) = (&traders[..2], &traders[2]);
        let many: Vec<NodeId> = traders[2..].iter().map(|trader| trader.node).collect();
        let mut book = Book::default();
        for number in 0..size {
            let is_ask = number % 2 == 0;
            let turn = number / 2 % 2;
            let mut entry = order(number, if is_ask { &sellers[turn] } else { buyer }, is_ask);
            let step = small(number / 2);
            entry.submitted.order.rate = RatePerBillion::new(if is_ask { 1000 + step } else { 1_000_000 + step });
            spoil(&mut entry, worst, &many, (step, numbers.below(40_000)));
            book.orders.push(entry);
        }
        if matches!(worst, Worst::Conflicts) {
            sellers.iter().for_each(|seller| book.conflicts.insert(seller.account, buyer.account));
        }
        book
    }
}

/// Applies the idea of `worst` to an order.
fn spoil(entry: &mut BookOrder, worst: Worst, many: &[NodeId], (step, random): (u32, u32)) {
    let is_ask = entry.submitted.order.is_ask();
    let all_or_nothing = |entry: &mut BookOrder, units: u32| {
        entry.open = UnitCount::new(units);
        entry.submitted.order.min_units = entry.open;
    };
    match worst {
        Worst::OneOwner => entry.owner = [0; 32],
        Worst::Denied if is_ask => entry.submitted.order.denied_nodes = many.to_vec(),
        Worst::AllOrNothing => all_or_nothing(entry, 2 * (1 + random) + u32::from(is_ask)),
        Worst::Interleaved => {
            let large = if step % 2 == 0 { 11 + random % 10 } else { 1 + random % 9 };
            all_or_nothing(entry, if is_ask { large } else { 10 });
        }
        Worst::AllowedButUnfit if is_ask => all_or_nothing(entry, 10),
        Worst::AllowedButUnfit => {
            all_or_nothing(entry, 9);
            entry.submitted.order.allowed_nodes = keys::traders(2).iter().map(|trader| trader.node).collect();
        }
        Worst::LongLists if !is_ask && step % 50 == 0 => entry.submitted.order.allowed_nodes = many.to_vec(),
        Worst::AllKinds => {
            let mut numbers = Numbers::new(u64::from(step));
            kind(entry, &mut numbers);
        }
        Worst::Denied | Worst::Conflicts | Worst::LongLists => {}
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("books of a bench are small")
}

/// Sizes, price and kind as they usually are.
fn vary(entry: &mut BookOrder, numbers: &mut Numbers) {
    let whale = numbers.chance(1);
    let units = if whale { 1_000 + numbers.below(1_000) } else { 1 + numbers.geometric(20) };
    let min = if whale || numbers.chance(50) { units.div_ceil(2) } else { 1 };
    entry.open = UnitCount::new(units);
    entry.tier = if numbers.chance(20) { NodeTier::Tier0 } else { NodeTier::Tier1 };
    let order = &mut entry.submitted.order;
    order.amount = entry.open.to_sats();
    order.min_units = UnitCount::new(min);
    order.rate = RatePerBillion::new(numbers.around(2_200));
    order.duration = BlockCount::new(if numbers.chance(70) { 2016 } else { 4032 });
    if numbers.chance(10) {
        order.channel_type = OrderChannelType::ScriptEnforced;
    }
    match &mut order.side {
        OrderSide::Ask(terms) => {
            if numbers.chance(5) {
                terms.announcement = AnnouncementConstraint::OnlyAnnounced;
            }
        }
        OrderSide::Bid(terms) => {
            terms.min_node_tier = if numbers.chance(70) { NodeTier::Tier1 } else { NodeTier::Tier0 };
            terms.unannounced = numbers.chance(10);
            if numbers.chance(3) {
                terms.self_balance = Sats::constant(100_000);
                order.min_units = UnitCount::new(units);
            }
        }
    }
}

/// Everything that distinguishes kinds of orders, evenly.
fn kind(entry: &mut BookOrder, numbers: &mut Numbers) {
    entry.tier = if numbers.chance(50) { NodeTier::Tier0 } else { NodeTier::Tier1 };
    entry.batch_version = BatchVersion([0, 2, 16, 58][usize::try_from(numbers.below(4)).expect("small")]);
    let order = &mut entry.submitted.order;
    order.version = if numbers.chance(50) { OrderVersion::V3 } else { OrderVersion::V5 };
    order.channel_type =
        if numbers.chance(50) { OrderChannelType::PeerDependent } else { OrderChannelType::SimpleTaproot };
    match &mut order.side {
        OrderSide::Ask(terms) => {
            use {AnnouncementConstraint as A, ConfirmationConstraint as C};
            terms.announcement = *numbers.pick(&[A::None, A::OnlyAnnounced, A::OnlyUnannounced]);
            terms.confirmation = *numbers.pick(&[C::None, C::OnlyConfirmed, C::OnlyZeroConf]);
        }
        OrderSide::Bid(terms) => {
            terms.min_node_tier = if numbers.chance(50) { NodeTier::Tier0 } else { NodeTier::Tier1 };
            terms.unannounced = numbers.chance(50);
            terms.zero_conf = numbers.chance(50);
        }
    }
}

/// One unit; with a signature and an address, as real orders have them.
fn order(number: usize, trader: &Trader, is_ask: bool) -> BookOrder {
    let mut nonce = [0; 32];
    nonce[..4].copy_from_slice(&small(number).to_be_bytes());
    BookOrder {
        submitted: SubmittedOrder {
            order: Order {
                nonce: OrderNonce::new(nonce),
                version: OrderVersion::V5,
                account: trader.account,
                auction: AuctionType::Inbound,
                rate: RatePerBillion::new(1),
                amount: UnitCount::new(1).to_sats(),
                min_units: UnitCount::new(1),
                duration: BlockCount::new(2016),
                max_batch_fee_rate: SatPerKw::new(25_000),
                channel_type: OrderChannelType::PeerDependent,
                allowed_nodes: Vec::new(),
                denied_nodes: Vec::new(),
                public: true,
                side: if is_ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(BidTerms::default()) },
            },
            signature: vec![0; 71],
            multisig: trader.multisig,
            node: trader.node,
            addresses: vec![NodeAddress("203.0.113.77:9735".to_owned())],
        },
        open: UnitCount::new(1),
        owner: trader.owner,
        tier: NodeTier::Tier1,
        batch_version: BatchVersion(58),
    }
}
