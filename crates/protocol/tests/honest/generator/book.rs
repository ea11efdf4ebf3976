//! Orders that fit together, and which of them meet.

use super::draw::Draw;
use super::scripts::{point, secret};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::bitcoin::secp256k1::SecretKey;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, KeyLocator, MultisigKey, NodeId, OrderNonce};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeAddress, NodeTier, Order,
    OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder, SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

pub(crate) const UNIT: u64 = 100_000;
const DURATIONS: [u32; 4] = [2_016, 4_032, 12_096, 52_416];

/// Who submits: a trader with one of its accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) trader: usize,
    pub(crate) account: AccountKey,
    pub(crate) node: NodeId,
    pub(crate) batch_version: BatchVersion,
    pub(crate) fee: ExecutionFee,
    pub(crate) extension: BlockCount,
}

/// An order in the venue's book, with what its owner stores.
#[derive(Clone, Debug)]
pub(crate) struct BookOrder {
    pub(crate) owner: Owner,
    pub(crate) own: OwnOrder,
    pub(crate) shown: SubmittedOrder,
    pub(crate) multisig: SecretKey,
}

/// What both orders of a pair must agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) auction: AuctionType,
    pub(crate) duration: u32,
    pub(crate) channel_type: OrderChannelType,
    pub(crate) unannounced: bool,
    pub(crate) zero_conf: bool,
    pub(crate) rate: u32,
    pub(crate) units: u32,
    pub(crate) self_balance: bool,
}

impl Wish {
    pub(crate) fn random(draw: &mut Draw) -> Wish {
        use OrderChannelType::{PeerDependent, ScriptEnforced, SimpleTaproot};
        let channel_type = draw.pick(&[PeerDependent, PeerDependent, ScriptEnforced, SimpleTaproot]);
        let auction = if draw.chance(20) { AuctionType::Outbound } else { AuctionType::Inbound };
        Wish {
            auction,
            duration: draw.pick(&DURATIONS),
            channel_type,
            unannounced: channel_type == SimpleTaproot || draw.chance(30),
            zero_conf: channel_type != PeerDependent && draw.chance(30),
            rate: draw.u32(1, 4_000),
            units: draw.u32(1, 60),
            self_balance: draw.chance(30),
        }
    }

    /// A wish that an existing order of the other side can meet.
    pub(crate) fn to_meet(draw: &mut Draw, other: &OwnOrder) -> Wish {
        let order = &other.order;
        let free = Wish::random(draw);
        let left = other.units_unfulfilled.get().max(1);
        let same = Wish {
            auction: order.auction,
            duration: order.duration.get(),
            channel_type: order.channel_type,
            rate: order.rate.get(),
            units: draw.pick(&[left, left + free.units, left.div_ceil(2)]),
            ..free
        };
        match &order.side {
            OrderSide::Bid(bid) => Wish {
                unannounced: bid.unannounced,
                zero_conf: bid.zero_conf,
                rate: order.rate.get().saturating_sub(draw.u32(0, 300)).max(1),
                self_balance: bid.self_balance > Sats::ZERO,
                ..same
            },
            OrderSide::Ask(ask) => Wish {
                unannounced: match ask.announcement {
                    AnnouncementConstraint::None => {
                        order.channel_type == OrderChannelType::SimpleTaproot || free.unannounced
                    }
                    AnnouncementConstraint::OnlyAnnounced => false,
                    AnnouncementConstraint::OnlyUnannounced => true,
                },
                zero_conf: match ask.confirmation {
                    ConfirmationConstraint::None => {
                        order.channel_type != OrderChannelType::PeerDependent && free.zero_conf
                    }
                    ConfirmationConstraint::OnlyConfirmed => false,
                    ConfirmationConstraint::OnlyZeroConf => true,
                },
                rate: order.rate.get() + draw.u32(0, 300),
                self_balance: free.self_balance && order.version >= OrderVersion::V4,
                ..same
            },
        }
    }
}

fn version(number: u32) -> OrderVersion {
    OrderVersion::from_number(number).unwrap()
}

fn ask_side(draw: &mut Draw, wish: &Wish) -> OrderSide {
    use {AnnouncementConstraint as A, ConfirmationConstraint as C};
    let announcement = if wish.unannounced { A::OnlyUnannounced } else { A::OnlyAnnounced };
    let confirmation = if wish.zero_conf { C::OnlyZeroConf } else { C::OnlyConfirmed };
    OrderSide::Ask(AskTerms {
        announcement: draw.pick(&[A::None, announcement]),
        confirmation: draw.pick(&[C::None, confirmation]),
    })
}

fn bid_side(draw: &mut Draw, wish: &Wish, units: u32) -> OrderSide {
    let self_balance = match wish.auction {
        // Often the very least that some ask demands.
        AuctionType::Outbound if draw.chance(30) => 4 * UNIT,
        AuctionType::Outbound => draw.between(4, 40) * UNIT,
        // Any amount up to the order's, whole units or not.
        AuctionType::Inbound if wish.self_balance => draw.between(1, u64::from(units) * UNIT),
        AuctionType::Inbound => 0,
    };
    OrderSide::Bid(BidTerms {
        min_node_tier: draw.pick(&[NodeTier::Tier0, NodeTier::Tier1]),
        self_balance: Sats::new(self_balance).unwrap(),
        sidecar: wish.auction == AuctionType::Inbound && draw.chance(10),
        unannounced: wish.unannounced,
        zero_conf: wish.zero_conf,
    })
}

/// A valid order of this owner. The batch fee rate that it allows is at least `fee_rate`.
pub(crate) fn order(draw: &mut Draw, owner: Owner, ask: bool, wish: &Wish, fee_rate: u64) -> BookOrder {
    let units = if wish.auction == AuctionType::Outbound { 1 } else { wish.units };
    let side = if ask { ask_side(draw, wish) } else { bid_side(draw, wish, units) };
    let (whole, lowest) = match &side {
        // A seller must know of self balances to be matched with one.
        OrderSide::Ask(_) => (false, if wish.self_balance || wish.auction == AuctionType::Outbound { 4 } else { 0 }),
        OrderSide::Bid(bid) if bid.sidecar => (true, 4),
        OrderSide::Bid(bid) if bid.self_balance > Sats::ZERO => (true, 3),
        OrderSide::Bid(_) => (false, 0),
    };
    let lowest = match (wish.channel_type, wish.duration) {
        (OrderChannelType::ScriptEnforced | OrderChannelType::SimpleTaproot, _) => 5,
        (OrderChannelType::PeerDependent, 2_016) => lowest,
        (OrderChannelType::PeerDependent, _) => lowest.max(2),
    };
    let min_units = match (wish.auction, ask) {
        (AuctionType::Outbound, true) => draw.u32(1, 4),
        _ if whole || draw.chance(10) => units,
        _ => draw.u32(1, units.div_ceil(3)),
    };
    let strangers = |draw: &mut Draw, percent| match draw.chance(percent) {
        true => vec![NodeId::new(point(&secret(draw)))],
        false => Vec::new(),
    };
    let terms = Order {
        nonce: OrderNonce::new(draw.bytes()),
        version: version(draw.u32(lowest, 5)),
        account: owner.account,
        auction: wish.auction,
        rate: RatePerBillion::new(wish.rate),
        amount: UnitCount::new(units).to_sats(),
        min_units: UnitCount::new(min_units),
        duration: BlockCount::new(wish.duration),
        max_batch_fee_rate: SatPerKw::new(if draw.chance(30) { fee_rate } else { draw.between(fee_rate, 50_000) }),
        channel_type: wish.channel_type,
        allowed_nodes: Vec::new(),
        denied_nodes: strangers(draw, 10),
        public: draw.chance(50),
        side,
    };
    terms.validate().unwrap_or_else(|error| panic!("{error}: {terms:?}"));
    let multisig = secret(draw);
    let sidecar = terms.bid().is_some_and(|bid| bid.sidecar);
    let node = if sidecar { NodeId::new(point(&secret(draw))) } else { owner.node };
    let shown = SubmittedOrder {
        order: terms.clone(),
        signature: Vec::new(),
        multisig: MultisigKey::new(point(&multisig)),
        node,
        addresses: vec![NodeAddress("203.0.113.7:9735".to_owned())],
    };
    let own = OwnOrder {
        order: terms,
        preimage: None,
        state: OrderState::Submitted,
        units_unfulfilled: UnitCount::new(units),
        multisig: KeyDescriptor { point: point(&multisig), locator: KeyLocator { family: 0, index: draw.u32(0, 999) } },
        fee_ceiling: owner.fee,
        extension_quoted: owner.extension,
    };
    BookOrder { owner, own, shown, multisig }
}

/// Units that these two exchange, or nothing when they may not meet.
pub(crate) fn fill(ask: &BookOrder, ask_left: u32, bid: &BookOrder, bid_left: u32) -> Option<u32> {
    let (seller, buyer) = (&ask.own.order, &bid.own.order);
    let (asked, wanted) = (seller.ask()?, buyer.bid()?);
    let strangers = ask.owner.trader != bid.owner.trader && ask.shown.node != bid.shown.node;
    let same = seller.auction == buyer.auction && seller.duration == buyer.duration && seller.rate <= buyer.rate;
    let types = match (seller.channel_type, buyer.channel_type) {
        (OrderChannelType::SimpleTaproot, other) | (other, OrderChannelType::SimpleTaproot) => {
            other == OrderChannelType::SimpleTaproot
        }
        // One side's wish for a script-enforced lease is enough for both.
        (OrderChannelType::PeerDependent | OrderChannelType::ScriptEnforced, _) => true,
    };
    let announcement = match asked.announcement {
        AnnouncementConstraint::None => true,
        AnnouncementConstraint::OnlyAnnounced => !wanted.unannounced,
        AnnouncementConstraint::OnlyUnannounced => wanted.unannounced,
    };
    let confirmation = match asked.confirmation {
        ConfirmationConstraint::None => true,
        ConfirmationConstraint::OnlyConfirmed => !wanted.zero_conf,
        ConfirmationConstraint::OnlyZeroConf => wanted.zero_conf,
    };
    let able = |owner: &Owner| owner.batch_version.0 & 0xf >= 11 || owner.batch_version.0 & 0x10 != 0;
    let versions = (!wanted.unannounced || ask.owner.batch_version.0 & 0xf >= 2)
        && (!wanted.zero_conf || able(&ask.owner) && able(&bid.owner))
        && (wanted.self_balance == Sats::ZERO || seller.version >= OrderVersion::V4);
    let lists = accepts(seller, bid.shown.node) && accepts(buyer, ask.shown.node);
    if !(strangers && same && types && announcement && confirmation && versions && lists) {
        return None;
    }
    let units = ask_left.min(bid_left);
    match seller.auction {
        AuctionType::Inbound => {
            let enough = units > 0 && units >= seller.min_units.get() && units >= buyer.min_units.get();
            let whole = wanted.self_balance == Sats::ZERO || units == bid_left;
            (enough && whole).then_some(units)
        }
        AuctionType::Outbound => {
            let large = u64::from(seller.min_units.get()) * UNIT <= wanted.self_balance.get();
            (units == 1 && large).then_some(1)
        }
    }
}

fn accepts(order: &Order, node: NodeId) -> bool {
    match order.allowed_nodes.as_slice() {
        [] => !order.denied_nodes.contains(&node),
        allowed => allowed.contains(&node),
    }
}
