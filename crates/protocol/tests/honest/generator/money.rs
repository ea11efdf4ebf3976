//! The network's arithmetic, written down once more: plain numbers, in satoshi.

use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::order::AuctionType;

/// One match's numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) auction: AuctionType,
    pub(crate) filled: u64,
    pub(crate) self_balance: u64,
    pub(crate) price: u32,
    pub(crate) duration: u32,
}

/// What a match does to both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) premium: u64,
    pub(crate) maker_fee: u64,
    pub(crate) taker_fee: u64,
    pub(crate) maker: i64,
    pub(crate) taker: i64,
}

// The network computes premiums in doubles.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)]
fn premium(amount: u64, price: u32, blocks: u32) -> u64 {
    ((amount as f64 * f64::from(price)) / 1e9 * f64::from(blocks)).trunc() as u64
}

fn execution_fee(amount: u64, fee: &ExecutionFee) -> u64 {
    fee.base.get() + amount * fee.rate_ppm / 1_000_000
}

/// Maker and taker may be charged differently.
pub(crate) fn outcome(terms: &Terms, maker: &ExecutionFee, taker: &ExecutionFee) -> Outcome {
    let base = match terms.auction {
        AuctionType::Inbound => terms.filled,
        AuctionType::Outbound => terms.filled + terms.self_balance,
    };
    let premium = premium(base, terms.price, terms.duration);
    let (maker_fee, taker_fee) = (execution_fee(terms.filled, maker), execution_fee(base, taker));
    Outcome {
        premium,
        maker_fee,
        taker_fee,
        maker: signed(premium) - signed(terms.filled) - signed(maker_fee),
        taker: -signed(premium) - signed(terms.self_balance) - signed(taker_fee),
    }
}

pub(crate) fn chain_fee(channels: u64, rate: u64, version: AccountVersion) -> u64 {
    let bytes = 43 + 41 + (43 * channels).div_ceil(2);
    let witness = if version == AccountVersion::V0 { 229 } else { 66 };
    rate * (4 * bytes + witness) / 1000
}

pub(crate) fn signed(sat: u64) -> i64 {
    i64::try_from(sat).unwrap()
}
