//! Configuration of the seller. Every key is required; unknown keys are errors.

use crate::common::{
    AccountConfig, ConfigProblem, FeeConfig, MILLION, WindowConfig, check_durations, check_units, require, unit_number,
};
use crate::quoting::RequoteConfig;
use serde::{Deserialize, Serialize};
use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

/// What a seller is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellerConfig {
    /// Coins that may be in accounts and running leases together, in satoshi.
    pub capital_sats: Sats,
    /// Lease durations to offer.
    pub durations_blocks: Vec<BlockCount>,
    /// Largest order, in units of 100,000 sat.
    #[serde(with = "unit_number")]
    pub max_order_units: UnitCount,
    /// Smallest match, in units. It decides the reservation rate: small fills need high rates.
    #[serde(with = "unit_number")]
    pub min_match_units: UnitCount,
    /// Required return on locked coins, in parts per million per year.
    pub required_return_ppm_per_year: u32,
    /// Expected forwarding income of leased coins, in parts per million per year.
    pub forwarding_income_ppm_per_year: u32,
    /// Wait before a lease starts, apart from the wait for a fill, in blocks.
    pub wait_blocks: BlockCount,
    /// Delay between maturity and spendable coins, in blocks.
    pub settle_blocks: BlockCount,
    /// Probability that a leased channel is force closed at our cost, in parts per million.
    pub force_close_probability_ppm: u32,
    /// Without any clearing, the first ask is the reservation rate plus this, in parts per million.
    pub anchor_markup_ppm: u32,
    /// In a thin market, each silent window lowers the ask by this, in parts per million.
    pub patience_ppm_per_window: u32,
    /// How far the estimate is moved toward its lower bound, 0 (not) to 1 (all the way).
    pub caution_ratio: f64,
    /// Whether an ask rests at the patient price when no rate promises the required return (its wait counted).
    /// A fill then still pays the required return from the batch on; only the waiting was for nothing.
    pub quote_when_return_too_low: bool,
    /// Accounts.
    pub account: AccountConfig,
    /// Chain fees.
    pub fees: FeeConfig,
    /// The past.
    pub windows: WindowConfig,
    /// Replacing orders.
    pub requote: RequoteConfig,
}

impl SellerConfig {
    /// Checks what types can not.
    ///
    /// # Errors
    /// [`ConfigProblem`] names the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        check_durations(&self.durations_blocks)?;
        check_units(self.min_match_units, self.max_order_units)?;
        let force = self.force_close_probability_ppm;
        require(force <= MILLION, "force_close_probability_ppm", force, "must be at most 1000000")?;
        let patience = self.patience_ppm_per_window;
        require(patience < MILLION, "patience_ppm_per_window", patience, "must be below 1000000")?;
        let caution = self.caution_ratio;
        require((0.0..=1.0).contains(&caution), "caution_ratio", caution, "must be 0 to 1")?;
        self.account.check()?;
        self.fees.check()?;
        self.windows.check()?;
        self.requote.check()
    }
}
