//! Configuration of the buyer. Every key is required, but `substitute_cost_ppm`; unknown keys are errors.

use crate::common::{
    AccountConfig, ConfigProblem, FeeConfig, WindowConfig, check_durations, check_units, require, unit_number,
};
use crate::quoting::RequoteConfig;
use serde::{Deserialize, Serialize};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};

/// What a buyer is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuyerConfig {
    /// Leased inbound capacity to hold, in units of 100,000 sat.
    #[serde(with = "unit_number")]
    pub target_inbound_units: UnitCount,
    /// Lease durations that are acceptable; the one with the least cost per usable block is bid for.
    pub durations_blocks: Vec<BlockCount>,
    /// Largest order, in units. The deadline is one per order.
    #[serde(with = "unit_number")]
    pub max_order_units: UnitCount,
    /// Smallest match, in units. It decides the willingness: small fills bear the fixed fees.
    #[serde(with = "unit_number")]
    pub min_match_units: UnitCount,
    /// Whether only sellers that the venue rates well are accepted.
    pub require_rated_sellers: bool,
    /// Expected receipts over the whole target, in satoshi per block.
    pub receipts_sats_per_block: Sats,
    /// What receipts are worth, in parts per million of them.
    pub margin_ppm: u32,
    /// Cost of the cheapest other way to the same capacity, in parts per million of the amount; absent: none.
    pub substitute_cost_ppm: Option<u32>,
    /// Blocks until a lease is usable.
    pub usable_after_blocks: BlockCount,
    /// A lease with fewer blocks left no longer counts as held: its successor is bought.
    pub renew_lead_blocks: BlockCount,
    /// Windows within which an order is to be filled.
    pub deadline_windows: u32,
    /// What missing the deadline costs, in parts per billion per block.
    pub shortage_penalty_ppb: RatePerBillion,
    /// Without clearings, the first bid is the willingness divided by one plus this, in parts per million.
    pub anchor_discount_ppm: u32,
    /// Coins that may be in accounts together, in satoshi.
    pub max_accounts_sats: Sats,
    /// Accounts.
    pub account: AccountConfig,
    /// Chain fees.
    pub fees: FeeConfig,
    /// The past.
    pub windows: WindowConfig,
    /// Replacing orders.
    pub requote: RequoteConfig,
}

impl BuyerConfig {
    /// Checks what types can not.
    ///
    /// # Errors
    /// [`ConfigProblem`] names the first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigProblem> {
        check_durations(&self.durations_blocks)?;
        check_units(self.min_match_units, self.max_order_units)?;
        let target = self.target_inbound_units;
        require(target.get() > 0, "target_inbound_units", target.get(), "must be at least 1")?;
        let fits = self.min_match_units <= target;
        require(fits, "min_match_units", self.min_match_units.get(), "must not exceed target_inbound_units")?;
        let deadline = self.deadline_windows;
        require((1..=1_000).contains(&deadline), "deadline_windows", deadline, "must be 1 to 1000")?;
        self.account.check()?;
        self.fees.check()?;
        self.windows.check()?;
        self.requote.check()
    }
}
