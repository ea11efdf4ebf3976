//! Why an open order of ours is not filled, as far as its owner can know: from its own terms, the last clearing as the
//! venue published it, and the open interest.

use std::fmt;
use tidegate_ports::{BatchSnapshot, MarketInterest, Timestamp};
use tidegate_protocol::order::Order;
use tidegate_protocol::units::{RatePerBillion, SatPerKw};

/// The reason that comes first; later ones may hold too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The account does not take part in batches at the moment.
    NotTakingPart,
    /// It is younger than the last clearing.
    NoClearingYet,
    /// Nobody is on the other side of its market.
    NobodyOpposite { ask: bool },
    /// The batch was dearer than the order allows.
    BatchFee { batch: SatPerKw, limit: SatPerKw },
    /// The last clearing was on the other side of its limit.
    Price { ask: bool, limit: RatePerBillion, cleared: RatePerBillion },
    /// The duration was not traded in the last batch.
    NotTraded,
    /// Its price was good enough: what it can be matched with went to others, or comes in smaller pieces than it takes.
    Others { min_units: u32 },
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfilled::NotTakingPart => f.write_str("its account takes no part in batches right now"),
            Unfilled::NoClearingYet => f.write_str("no clearing since it was placed"),
            Unfilled::NobodyOpposite { ask: true } => f.write_str("nobody bids for this duration"),
            Unfilled::NobodyOpposite { ask: false } => f.write_str("nobody offers this duration"),
            Unfilled::BatchFee { batch, limit } => {
                write!(f, "the batch pays {} sat/kW, it allows {}", batch.get(), limit.get())
            }
            Unfilled::Price { ask: true, limit, cleared } => {
                write!(f, "asks {}, the last batch cleared at {} ppb", limit.get(), cleared.get())
            }
            Unfilled::Price { ask: false, limit, cleared } => {
                write!(f, "bids {}, the last batch cleared at {} ppb", limit.get(), cleared.get())
            }
            Unfilled::NotTraded => f.write_str("asks and bids of this duration did not meet"),
            Unfilled::Others { min_units } => {
                write!(f, "others came first, or had less than {min_units} units for it")
            }
        }
    }
}

/// What is known about an order and its market.
pub(super) struct Case<'a> {
    pub(super) order: &'a Order,
    pub(super) placed_at: Timestamp,
    pub(super) takes_part: bool,
    pub(super) last: Option<&'a BatchSnapshot>,
    pub(super) interest: Option<&'a MarketInterest>,
    /// Chain fee rate of the next batch, as the terms tell it.
    pub(super) next_fee_rate: Option<SatPerKw>,
}

/// The first reason that holds.
pub(super) fn why(case: &Case<'_>) -> Unfilled {
    let (order, ask) = (case.order, case.order.is_ask());
    if !case.takes_part {
        return Unfilled::NotTakingPart;
    }
    let limit = order.max_batch_fee_rate;
    if let Some(batch) = case.next_fee_rate.filter(|rate| *rate > limit) {
        return Unfilled::BatchFee { batch, limit };
    }
    let opposite = case.interest.map(|interest| if ask { interest.bids } else { interest.asks });
    if opposite.is_none_or(|side| side.units_tier0.saturating_add(side.units_tier1) == 0) {
        return Unfilled::NobodyOpposite { ask };
    }
    let Some(last) = case.last.filter(|last| last.created_ns / 1_000_000 > case.placed_at.0) else {
        return Unfilled::NoClearingYet;
    };
    if last.fee_rate > limit {
        return Unfilled::BatchFee { batch: last.fee_rate, limit };
    }
    let Some((cleared, _)) = last.markets.get(&order.duration) else { return Unfilled::NotTraded };
    let good = if ask { order.rate <= *cleared } else { order.rate >= *cleared };
    if good {
        Unfilled::Others { min_units: order.min_units.get() }
    } else {
        Unfilled::Price { ask, limit: order.rate, cleared: *cleared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use std::collections::BTreeMap;
    use tidegate_ports::Interest;
    use tidegate_protocol::keys::{AccountKey, BatchId, OrderNonce};
    use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderChannelType, OrderSide, OrderVersion};
    use tidegate_protocol::script::INITIAL_BATCH_KEY;
    use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

    const DURATION: BlockCount = BlockCount::new(2016);

    fn order(ask: bool, rate: u32) -> Order {
        Order {
            nonce: OrderNonce::new([1; 32]),
            version: OrderVersion::V5,
            account: INITIAL_BATCH_KEY.parse::<AccountKey>().expect("a point"),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(rate),
            amount: Sats::constant(1_000_000),
            min_units: UnitCount::new(4),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(1_000),
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side: if ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(BidTerms::default()) },
        }
    }

    fn snapshot(fee_rate: u64, price: Option<u32>) -> BatchSnapshot {
        let transaction =
            bitcoin::Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![], output: vec![] };
        BatchSnapshot {
            batch_id: INITIAL_BATCH_KEY.parse::<BatchId>().expect("a point"),
            previous: None,
            transaction,
            fee_rate: SatPerKw::new(fee_rate),
            created_ns: 2_000_000_000,
            markets: price
                .map(|price| (DURATION, (RatePerBillion::new(price), Vec::new())))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn each_reason_is_found_and_told() {
        let both = MarketInterest {
            asks: Interest { units_tier1: 5, ..Interest::default() },
            bids: Interest { units_tier0: 5, ..Interest::default() },
        };
        let nobody = MarketInterest { asks: Interest::default(), bids: Interest::default() };
        let cleared = snapshot(500, Some(1_200));
        let (dear, silent) = (snapshot(1_001, Some(1_200)), snapshot(500, None));
        let rows = [
            ("no part", true, 1, 0, false, &both, &cleared, 500, "its account takes no part in batches right now"),
            ("next batch dear", true, 1, 0, true, &both, &cleared, 5_060, "the batch pays 5060 sat/kW, it allows 1000"),
            ("no bids", true, 1, 0, true, &nobody, &cleared, 500, "nobody bids for this duration"),
            ("no asks", false, 1, 0, true, &nobody, &cleared, 500, "nobody offers this duration"),
            ("young", true, 1, 2_000, true, &both, &cleared, 500, "no clearing since it was placed"),
            ("last batch dear", true, 1, 0, true, &both, &dear, 500, "the batch pays 1001 sat/kW, it allows 1000"),
            ("not traded", true, 1, 0, true, &both, &silent, 500, "asks and bids of this duration did not meet"),
            (
                "ask too high",
                true,
                1_201,
                0,
                true,
                &both,
                &cleared,
                500,
                "asks 1201, the last batch cleared at 1200 ppb",
            ),
            (
                "bid too low",
                false,
                1_199,
                0,
                true,
                &both,
                &cleared,
                500,
                "bids 1199, the last batch cleared at 1200 ppb",
            ),
            (
                "in the money",
                true,
                1_200,
                0,
                true,
                &both,
                &cleared,
                500,
                "others came first, or had less than 4 units for it",
            ),
        ];
        for (name, ask, rate, placed, takes_part, interest, last, next, told) in rows {
            let order = order(ask, rate);
            let (last, interest, next_fee_rate) = (Some(last), Some(interest), Some(SatPerKw::new(next)));
            let case = Case { order: &order, placed_at: Timestamp(placed), takes_part, last, interest, next_fee_rate };
            assert_eq!(why(&case).to_string(), told, "{name}");
        }
    }
}
