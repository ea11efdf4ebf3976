//! Prices and fees, to the satoshi as the whole network computes them.

pub use crate::execution_fee::ExecutionFee;

use crate::account::AccountVersion;
use crate::order::{AuctionType, Order, OrderState, OwnOrder};
use crate::sizes;
use crate::units::{BlockCount, RatePerBillion, SatPerKw, Sats, SatsDelta, UnitCount, UnitError};

/// The premium of a lease, bit-equal to the network's doubles, rounded toward zero.
///
/// # Errors
/// [`UnitError::TooManySats`] when it cannot exist.
///
/// # Source
/// Protocol notes, batch §2.
// The network's software computes this in doubles, and balances are compared to the satoshi: integers are one satoshi off
// in places. All conversions are exact (an amount is below 2^53) but the last, which truncates and saturates.
#[allow(clippy::as_conversions, clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn reference_premium(amount: Sats, rate: RatePerBillion, blocks: BlockCount) -> Result<Sats, UnitError> {
    let per_block = (amount.get() as f64 * f64::from(rate.get())) / 1e9;
    Sats::new((per_block * f64::from(blocks.get())) as u64)
}

/// An account's share of the chain fee of a batch in which it gets `channels` channels; `version` is the account's
/// before the batch. Halves of channel outputs are rounded up, the fee down.
///
/// # Errors
/// [`UnitError`] on overflow.
///
/// # Source
/// Protocol notes, batch §2.
pub fn chain_fee(channels: u32, rate: SatPerKw, version: AccountVersion) -> Result<Sats, UnitError> {
    // The account's own output and input, and half of every channel output.
    let bytes = sizes::P2WSH_OUTPUT + sizes::INPUT + (sizes::P2WSH_OUTPUT * u64::from(channels)).div_ceil(2);
    rate.fee_floor(4 * bytes + sizes::cooperative_witness_size(version))
}

/// One match's terms, as far as balances depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchTerms {
    /// Market.
    pub auction: AuctionType,
    /// Units · 100,000.
    pub filled: Sats,
    /// The bid's self balance.
    pub self_balance: Sats,
    /// Clearing price.
    pub price: RatePerBillion,
    /// The bid's duration.
    pub duration: BlockCount,
}

impl MatchTerms {
    /// The amount on which the premium is computed: what is filled, and in the outbound market the self balance too.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    pub fn premium_base(&self) -> Result<Sats, UnitError> {
        match self.auction {
            AuctionType::Inbound => Ok(self.filled),
            AuctionType::Outbound => {
                self.filled.checked_add(self.self_balance).ok_or(UnitError::Overflow("premium base"))
            }
        }
    }

    /// The premium of this match.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    pub fn premium(&self) -> Result<Sats, UnitError> {
        reference_premium(self.premium_base()?, self.price, self.duration)
    }

    /// The maker's execution fee: on what is filled, in both markets.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    pub fn maker_execution_fee(&self, fee: &ExecutionFee) -> Result<Sats, UnitError> {
        fee.on(self.filled)
    }

    /// The taker's execution fee: on the premium's base, so in the outbound market on the self balance too.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    pub fn taker_execution_fee(&self, fee: &ExecutionFee) -> Result<Sats, UnitError> {
        fee.on(self.premium_base()?)
    }

    /// Change of the maker's balance: `premium - filled - execution fee`.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    ///
    /// # Source
    /// Protocol notes, batch §2.
    pub fn maker_delta(&self, fee: &ExecutionFee) -> Result<SatsDelta, UnitError> {
        difference(self.premium()?, &[self.filled, self.maker_execution_fee(fee)?])
    }

    /// Change of the taker's balance: `-(premium + self balance + execution fee)`.
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    ///
    /// # Source
    /// Protocol notes, batch §2.
    pub fn taker_delta(&self, fee: &ExecutionFee) -> Result<SatsDelta, UnitError> {
        difference(Sats::ZERO, &[self.premium()?, self.self_balance, self.taker_execution_fee(fee)?])
    }
}

fn difference(from: Sats, costs: &[Sats]) -> Result<SatsDelta, UnitError> {
    costs
        .iter()
        .try_fold(from.to_delta(), |left, cost| left.checked_sub(cost.to_delta()))
        .ok_or(UnitError::Overflow("balance change"))
}

/// Worst-case cost of filling what is left of an order: value that the account must keep for it.
///
/// The network's formula is taken literally, also where it looks odd: fewer units left than the minimum match give a
/// count of minus one whole match.
///
/// # Errors
/// [`UnitError`] on overflow, or for a minimum match of zero units.
///
/// # Source
/// Protocol notes, batch §3.
pub fn reserved_value(
    order: &Order,
    units_unfulfilled: UnitCount,
    state: OrderState,
    fee: &ExecutionFee,
    version: AccountVersion,
) -> Result<Sats, UnitError> {
    const OVERFLOW: UnitError = UnitError::Overflow("reserved value");
    if state.is_archived() {
        return Ok(Sats::ZERO);
    }
    let total = i128::from(units_unfulfilled.to_sats().get());
    let min = i128::from(order.min_units.to_sats().get());
    let mut whole = total.checked_div(min).ok_or(UnitError::Overflow("minimum match of zero units"))?;
    let mut rest = 0;
    if whole * min < total {
        whole -= 1;
        rest = total - whole * min;
    }
    let chain = i128::from(chain_fee(1, order.max_batch_fee_rate, version)?.get());
    let per_match = |sat: i128| -> Result<i128, UnitError> {
        let sat = u64::try_from(sat).map_err(|_| OVERFLOW)?;
        Ok(i128::from(order_delta(order, Sats::new(sat)?, fee)?.get()) - chain)
    };
    // At most 2^32 matches of less than 2^63 satoshi each.
    let mut delta = if whole == 0 { 0 } else { whole * per_match(min)? };
    if rest > 0 {
        delta += per_match(rest)?;
    }
    Sats::new(u64::try_from((-delta).max(0)).map_err(|_| OVERFLOW)?)
}

/// Change of the owner's balance if `amount` of the order is filled at its own rate.
fn order_delta(order: &Order, amount: Sats, fee: &ExecutionFee) -> Result<SatsDelta, UnitError> {
    let terms = MatchTerms {
        // An ask's reserve leaves out the self balance of a bid that it does not know.
        auction: order.auction,
        filled: amount,
        self_balance: order.self_balance(),
        price: order.rate,
        duration: order.duration,
    };
    if order.is_ask() { terms.maker_delta(fee) } else { terms.taker_delta(fee) }
}

/// [`reserved_value`] of an order of ours.
///
/// # Errors
/// [`UnitError`] on overflow.
pub fn reserved_for(own: &OwnOrder, fee: &ExecutionFee, version: AccountVersion) -> Result<Sats, UnitError> {
    reserved_value(&own.order, own.units_unfulfilled, own.state, fee, version)
}

/// Confirmations that an account output needs: `clamp(6·value / max_value, 3, 6)`, the quotient rounded down.
///
/// # Source
/// Protocol notes, accounts §2.
pub fn confirmations_needed(value: Sats, max_value: Sats) -> u32 {
    // 6 times 21 million bitcoin fit 64 bits; without a maximum the answer is the careful one.
    let share = (6 * value.get()).checked_div(max_value.get()).unwrap_or(6);
    u32::try_from(share.clamp(3, 6)).expect("at most 6")
}

/// What an order would cost if it is filled at its own rate: for humans, before they submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Premium paid or received.
    pub premium: Sats,
    /// Execution fee, were the order filled at once.
    pub execution_fee: Sats,
    /// Chain fee, were the order filled in as many batches as it has smallest matches.
    pub worst_chain_fee: Sats,
}

/// The quote of an order of `amount` in matches of at least `min_match`.
///
/// # Errors
/// [`UnitError`] on overflow, or for a smallest match of zero.
///
/// # Source
/// Protocol notes, batch §2.
pub fn quote(
    amount: Sats,
    min_match: Sats,
    rate: RatePerBillion,
    duration: BlockCount,
    max_fee_rate: SatPerKw,
    fee: &ExecutionFee,
) -> Result<Quote, UnitError> {
    let matches = amount.get().checked_div(min_match.get()).ok_or(UnitError::Overflow("smallest match of zero"))?;
    let chain = chain_fee(1, max_fee_rate, AccountVersion::V0)?.get();
    let worst = matches.checked_mul(chain).ok_or(UnitError::Overflow("chain fee"))?;
    Ok(Quote {
        premium: reference_premium(amount, rate, duration)?,
        execution_fee: fee.on(amount)?,
        worst_chain_fee: Sats::new(worst)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn premium_repeats_the_doubles_where_integers_are_one_satoshi_high() {
        let premium = reference_premium(
            Sats::constant(crate::units::SATS_PER_UNIT),
            RatePerBillion::new(725),
            BlockCount::new(50_400),
        );
        assert_eq!(premium, Ok(Sats::constant(3_653)));
    }

    #[test]
    fn premium_beyond_all_bitcoin_is_refused() {
        let premium = reference_premium(Sats::MAX, RatePerBillion::new(u32::MAX), BlockCount::new(u32::MAX));
        assert_eq!(premium, Err(UnitError::TooManySats(u64::MAX)));
    }
}
