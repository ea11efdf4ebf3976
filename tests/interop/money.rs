//! What a trade must cost, computed by the test itself, so that neither side's arithmetic is its own witness.
//!
//! Formulas: protocol notes, batch §2.

use crate::pool::AccountVersion;

/// Satoshi in one unit of supply.
pub(crate) const UNIT_SAT: u64 = 100_000;
/// Execution fee of the test venue: fixed part, satoshi.
pub(crate) const EXECUTION_BASE_SAT: u64 = 1;
/// Execution fee of the test venue: parts per million of the amount.
pub(crate) const EXECUTION_PPM: u64 = 1_000;

/// Premium in satoshi for `amount_sat` leased over `blocks` at `rate_ppb` parts per billion and block.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the deployed clients compute premiums in doubles, in this order, and truncate"
)]
pub(crate) fn premium(amount_sat: u64, rate_ppb: u64, blocks: u64) -> u64 {
    ((amount_sat as f64 * rate_ppb as f64) / 1e9 * blocks as f64) as u64
}

/// Execution fee in satoshi of one match.
pub(crate) fn execution_fee(amount_sat: u64) -> u64 {
    EXECUTION_BASE_SAT + amount_sat * EXECUTION_PPM / 1_000_000
}

/// Share of the chain fee in satoshi of a version 1 or 2 account with `channels` new channels.
pub(crate) fn chain_fee_taproot(channels: u64, fee_rate_sat_per_kw: u64) -> u64 {
    let bytes = 43 + 41 + (43 * channels).div_ceil(2);
    fee_rate_sat_per_kw * (4 * bytes + 66) / 1_000
}

/// The rate that the deployed command line makes of a percentage over the whole lease.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the deployed command line computes it so"
)]
pub(crate) fn rate_of_percent(percent: f64, blocks: u64) -> u64 {
    (percent / 100.0 * 1e9 / blocks as f64) as u64
}

/// Satoshi from the decimal bitcoins of the chain's JSON answers; exact for every amount that can exist.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a double holds 21M BTC in satoshi exactly, so rounding undoes the decimal form"
)]
pub(crate) fn sat_of_btc(btc: f64) -> u64 {
    (btc * 1e8).round() as u64
}

/// What one side of a single full match pays and gets; all in satoshi.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settlement {
    pub(crate) premium_sat: u64,
    pub(crate) execution_fee_sat: u64,
    pub(crate) chain_fee_sat: u64,
}

impl Settlement {
    /// One channel of `amount_sat` for `blocks`, cleared at `rate_ppb`, account version 2 on both sides.
    pub(crate) fn of(amount_sat: u64, blocks: u64, rate_ppb: u64, fee_rate_sat_per_kw: u64) -> Self {
        Self {
            premium_sat: premium(amount_sat, rate_ppb, blocks),
            execution_fee_sat: execution_fee(amount_sat),
            chain_fee_sat: chain_fee_taproot(1, fee_rate_sat_per_kw),
        }
    }

    /// The seller's balance after the batch.
    pub(crate) fn seller_after(&self, before_sat: u64, amount_sat: u64) -> u64 {
        before_sat + self.premium_sat - amount_sat - self.execution_fee_sat - self.chain_fee_sat
    }

    /// The buyer's balance after the batch, without a balance of its own in the channel.
    pub(crate) fn buyer_after(&self, before_sat: u64) -> u64 {
        before_sat - self.premium_sat - self.execution_fee_sat - self.chain_fee_sat
    }
}

/// Share of the chain fee in satoshi of an account with `channels` new channels. Version 0 has the longer witness.
pub(crate) fn chain_fee(version: AccountVersion, channels: u64, fee_rate_sat_per_kw: u64) -> u64 {
    let bytes = 43 + 41 + (43 * channels).div_ceil(2);
    let witness = match version {
        AccountVersion::V0 => 229,
        AccountVersion::V1 | AccountVersion::V2 => 66,
    };
    fee_rate_sat_per_kw * (4 * bytes + witness) / 1_000
}

/// One full match, in whatever market.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deal {
    /// What the seller puts in, satoshi.
    pub(crate) amount_sat: u64,
    /// What the buyer puts in, satoshi.
    pub(crate) own_sat: u64,
    pub(crate) outbound: bool,
    pub(crate) blocks: u64,
    pub(crate) rate_ppb: u64,
}

impl Deal {
    /// What the price and the buyer's execution fee are computed on: in the outbound market the buyer's coins too.
    fn base_sat(&self) -> u64 {
        self.amount_sat + if self.outbound { self.own_sat } else { 0 }
    }

    /// What the buyer pays the seller, in satoshi.
    pub(crate) fn premium_sat(&self) -> u64 {
        premium(self.base_sat(), self.rate_ppb, self.blocks)
    }

    /// What the premium would be without the buyer's coins.
    pub(crate) fn premium_on_amount_sat(&self) -> u64 {
        premium(self.amount_sat, self.rate_ppb, self.blocks)
    }

    /// The seller's execution fee in satoshi.
    pub(crate) fn seller_fee_sat(&self) -> u64 {
        execution_fee(self.amount_sat)
    }

    /// The buyer's execution fee in satoshi.
    pub(crate) fn buyer_fee_sat(&self) -> u64 {
        execution_fee(self.base_sat())
    }

    /// Satoshi in the channel.
    pub(crate) fn capacity_sat(&self) -> u64 {
        self.amount_sat + self.own_sat
    }

    /// The seller's balance before its share of the chain fee.
    pub(crate) fn seller_after(&self, before_sat: u64) -> u64 {
        before_sat + self.premium_sat() - self.amount_sat - self.seller_fee_sat()
    }

    /// The buyer's balance before its share of the chain fee.
    pub(crate) fn buyer_after(&self, before_sat: u64) -> u64 {
        before_sat - self.premium_sat() - self.own_sat - self.buyer_fee_sat()
    }
}

#[test]
fn premium_keeps_the_float_steps_of_the_network() {
    // Exact arithmetic says 3,654; the doubles fall just short of it.
    assert_eq!(premium(UNIT_SAT, 725, 50_400), 3_653);
}

#[test]
fn chain_fee_agrees_with_the_fee_seen_on_a_real_batch() {
    assert_eq!(chain_fee_taproot(1, 1_000), 490);
    let fees = AccountVersion::ALL.map(|version| chain_fee(version, 1, 1_000));
    assert_eq!(fees, [653, 490, 490]);
}

#[test]
fn percentage_becomes_the_rate_seen_on_the_wire() {
    assert_eq!(rate_of_percent(0.3, 2_016), 1_488);
}

#[test]
fn decimal_bitcoins_become_exact_satoshi() {
    assert_eq!(sat_of_btc(0.000_000_01), 1);
    assert_eq!(sat_of_btc(20_999_999.976_9), 2_099_999_997_690_000);
}
