//! What the strategies share: parts of their configuration, and how they read accounts and chain fees.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidegate_engine::fill::FillModel;
use tidegate_engine::strategy::{Decision, Intent, Now, Reason};
use tidegate_engine::valuation::{ValuationError, chain_share};
use tidegate_engine::view::{AccountView, MarketView};
use tidegate_engine::windows::WindowSpec;
use tidegate_protocol::account::{AccountState, AccountVersion, MAX_EXPIRY_AHEAD, MIN_EXPIRY_AHEAD};
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

/// Parts per million in a whole.
pub(crate) const MILLION: u32 = 1_000_000;

/// A configured value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} = {value}: {rule}")]
pub struct ConfigProblem {
    /// The key, with its tables.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// A problem unless `holds`.
pub(crate) fn require(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    rule: &'static str,
) -> Result<(), ConfigProblem> {
    if holds { Ok(()) } else { Err(ConfigProblem { key, value: value.to_string(), rule }) }
}

/// How accounts are opened and wound up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// Coins that stay in the node's wallet, in satoshi.
    pub wallet_reserve_sats: Sats,
    /// Expiry of a new account, in blocks from its opening.
    pub expiry_blocks: BlockCount,
    /// With this many blocks left, an account takes no new orders and is closed.
    pub wind_up_blocks: BlockCount,
}

impl AccountConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigProblem> {
        let expiry = self.expiry_blocks;
        let range = expiry >= MIN_EXPIRY_AHEAD && expiry <= MAX_EXPIRY_AHEAD;
        require(range, "account.expiry_blocks", expiry.get(), "must be 144 to 52560")?;
        let wind_up = self.wind_up_blocks;
        require(wind_up < expiry, "account.wind_up_blocks", wind_up.get(), "must be below account.expiry_blocks")
    }
}

/// How chain fees are estimated and capped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeConfig {
    /// Quantile of the seen fee rates that costs are computed with, in parts per million.
    pub quantile_ppm: u32,
    /// Fee rate while none was seen, in sat/kW.
    pub fallback_sat_per_kw: SatPerKw,
    /// Highest fee rate of a batch that an order accepts, in sat/kW; the economic ceiling may be lower.
    pub max_batch_sat_per_kw: SatPerKw,
}

impl FeeConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigProblem> {
        require(self.quantile_ppm <= MILLION, "fees.quantile_ppm", self.quantile_ppm, "must be at most 1000000")?;
        let floor = SatPerKw::FLOOR;
        let fallback = self.fallback_sat_per_kw;
        require(fallback >= floor, "fees.fallback_sat_per_kw", fallback.get(), "must be at least 253")?;
        let max = self.max_batch_sat_per_kw;
        require(max >= floor, "fees.max_batch_sat_per_kw", max.get(), "must be at least 253")
    }

    /// The fee rate to reckon with.
    pub(crate) fn rate(&self, view: &MarketView) -> SatPerKw {
        view.fee_rate_quantile(self.quantile_ppm).unwrap_or(self.fallback_sat_per_kw).max(SatPerKw::FLOOR)
    }

    /// The chain share to reckon with: one satoshi more than the venue takes at that rate, so that an order at the very
    /// limit has a fee ceiling that still covers the rate it was computed with.
    pub(crate) fn share(&self, view: &MarketView, version: AccountVersion) -> Result<Sats, ValuationError> {
        let share = chain_share(self.rate(view), version)?;
        share.checked_add(Sats::constant(1)).ok_or(ValuationError::Range("chain share"))
    }
}

/// How the past is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// Length of a window in seconds; a day in a live market.
    pub length_s: u64,
    /// The same in blocks.
    pub length_blocks: BlockCount,
    /// Half-life of evidence, in windows.
    pub half_life_windows: f64,
    /// Windows at most.
    pub max_windows: u32,
    /// Windows with a clearing below which no estimate is made.
    pub min_cleared_windows: u32,
}

impl WindowConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigProblem> {
        require(self.length_s > 0, "windows.length_s", self.length_s, "must be positive")?;
        let half_life = self.half_life_windows;
        require(half_life > 0.0, "windows.half_life_windows", half_life, "must be positive")?;
        require(self.max_windows > 0, "windows.max_windows", self.max_windows, "must be positive")
    }

    /// The cut of time.
    pub(crate) fn spec(&self) -> WindowSpec {
        WindowSpec { length_ms: self.length_s.saturating_mul(1_000), max_windows: self.max_windows }
    }

    /// The fill model.
    pub(crate) fn model(&self) -> FillModel {
        FillModel { half_life_windows: self.half_life_windows, ..FillModel::default() }
    }

    /// Whole windows in `ms` milliseconds.
    pub(crate) fn count(&self, ms: u64) -> u32 {
        u32::try_from(ms / self.length_s.saturating_mul(1_000).max(1)).unwrap_or(u32::MAX)
    }
}

/// Checks a list of durations.
pub(crate) fn check_durations(durations: &[BlockCount]) -> Result<(), ConfigProblem> {
    let shown = || format!("{:?}", durations.iter().map(|duration| duration.get()).collect::<Vec<_>>());
    let sound = !durations.is_empty() && durations.iter().all(|duration| duration.get() > 0);
    require(sound, "durations_blocks", shown(), "must name at least one positive duration")
}

/// Checks the size of orders.
pub(crate) fn check_units(min: UnitCount, max: UnitCount) -> Result<(), ConfigProblem> {
    require(min.get() > 0, "min_match_units", min.get(), "must be at least 1")?;
    require(max >= min, "max_order_units", max.get(), "must not be below min_match_units")?;
    require(max.get() <= 100_000, "max_order_units", max.get(), "must be at most 100000")
}

/// Units as plain numbers, as people write them.
pub(crate) mod unit_number {
    use serde::{Deserialize, Deserializer, Serializer};
    use tidegate_protocol::units::UnitCount;

    pub(crate) fn serialize<S: Serializer>(units: &UnitCount, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(units.get())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnitCount, D::Error> {
        u32::deserialize(deserializer).map(UnitCount::new)
    }
}

/// Cancels orders on accounts that are about to expire, and closes those accounts once nothing is open on them.
pub(crate) fn wind_up(config: &AccountConfig, view: &MarketView, now: Now, out: &mut Decision) {
    for account in view.accounts().filter(|account| expires(config, account, now)) {
        let blocks_left = BlockCount::new(account.expiry.get().saturating_sub(now.height.get()));
        out.reasons.push(Reason::AccountExpires { account: account.key, blocks_left });
        let mut busy = false;
        for order in view.live_orders().filter(|order| order.account == account.key) {
            busy = true;
            if order.state != OrderState::Cleared {
                out.reasons.push(Reason::CancelsOrder { nonce: order.nonce });
                out.intents.push(Intent::Cancel { nonce: order.nonce });
            }
        }
        if !busy {
            out.intents.push(Intent::CloseAccount { account: account.key });
        }
    }
}

fn expires(config: &AccountConfig, account: &AccountView, now: Now) -> bool {
    let closable = matches!(account.state, AccountState::Open | AccountState::Expired);
    closable && account.expiry.get() <= now.height.get().saturating_add(config.wind_up_blocks.get())
}

/// Accounts that orders can be placed on.
pub(crate) fn usable_accounts<'a>(config: &AccountConfig, view: &'a MarketView, now: Now) -> Vec<&'a AccountView> {
    view.accounts().filter(|account| account.takes_orders() && !expires(config, account, now)).collect()
}

/// Coins of the wallet that may go into accounts, in satoshi.
pub(crate) fn spare_coins(config: &AccountConfig, view: &MarketView) -> Sats {
    let wallet = view.node().map_or(Sats::ZERO, |node| node.wallet_confirmed);
    wallet.checked_sub(config.wallet_reserve_sats).unwrap_or(Sats::ZERO)
}

/// `rate` plus `ppm` parts per million of it, rounded down; the largest rate when that does not fit.
pub(crate) fn raised(rate: RatePerBillion, ppm: u32) -> RatePerBillion {
    let wide = u64::from(rate.get()) * (u64::from(MILLION) + u64::from(ppm)) / u64::from(MILLION);
    RatePerBillion::new(u32::try_from(wide).unwrap_or(u32::MAX))
}

/// The rate of which `rate` is `ppm` parts per million more, rounded down: the inverse of [`raised`].
pub(crate) fn lowered(rate: RatePerBillion, ppm: u32) -> RatePerBillion {
    let wide = u64::from(rate.get()) * u64::from(MILLION) / (u64::from(MILLION) + u64::from(ppm));
    RatePerBillion::new(u32::try_from(wide).unwrap_or(u32::MAX))
}

/// Nearest-rank quantile of rates that each count as often as they have units; nothing without units.
pub(crate) fn weighted_quantile(mut rates: Vec<(RatePerBillion, UnitCount)>, ppm: u32) -> Option<RatePerBillion> {
    rates.sort_unstable();
    let all: u64 = rates.iter().map(|(_, units)| u64::from(units.get())).sum();
    let rank = (u128::from(all) * u128::from(ppm)).div_ceil(u128::from(MILLION)).max(1);
    let mut seen = 0_u128;
    rates.into_iter().find_map(|(rate, units)| {
        seen += u128::from(units.get());
        (seen >= rank).then_some(rate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_units() {
        let rates = vec![(RatePerBillion::new(300), UnitCount::new(1)), (RatePerBillion::new(100), UnitCount::new(9))];
        assert_eq!(weighted_quantile(rates.clone(), 800_000), Some(RatePerBillion::new(100)));
        assert_eq!(weighted_quantile(rates, 950_000), Some(RatePerBillion::new(300)));
        assert_eq!(weighted_quantile(vec![], 500_000), None);
    }

    #[test]
    fn raising_and_lowering_are_inverse_up_to_rounding() {
        let rate = RatePerBillion::new(3_001);
        assert_eq!(raised(rate, 500_000).get(), 4_501);
        assert_eq!(lowered(raised(rate, 500_000), 500_000).get(), 3_000);
        assert_eq!(raised(RatePerBillion::new(u32::MAX), 500_000).get(), u32::MAX);
    }
}
