//! The buyer's decision: what is missing, by when, at which price, on which account.

use super::config::BuyerConfig;
use super::pricing::{Deadline, Pricing, Quote};
use crate::common::{ConfigProblem, spare_coins, usable_accounts, wind_up};
use crate::quoting::{Wanted, WantedSide, settle};
use serde::{Deserialize, Serialize};
use tidegate_engine::exposure::Exposure;
use tidegate_engine::strategy::{Decision, Intent, Now, OrderIntent, Reason, Strategy};
use tidegate_engine::view::{AccountView, LeaseView, MarketView, OrderView, Side, Timestamp};
use tidegate_protocol::account::{AccountVersion, MIN_ACCOUNT_VALUE};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::{NodeTier, OrderChannelType};
use tidegate_protocol::units::{SatPerKw, Sats, UnitCount};

/// Buys leases. See `notes.md` beside it for hypothesis, sources and failure modes.
#[derive(Clone, Debug, PartialEq)]
pub struct Buyer {
    config: BuyerConfig,
}

/// What the buyer remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuyerState {
    /// Since when capacity has been missing; nothing while the target is held.
    pub short_since: Option<Timestamp>,
}

impl Buyer {
    /// A buyer with this configuration.
    ///
    /// # Errors
    /// [`ConfigProblem`] when a value makes no sense.
    pub fn new(config: BuyerConfig) -> Result<Buyer, ConfigProblem> {
        config.check()?;
        Ok(Buyer { config })
    }

    /// The configuration in force.
    pub fn config(&self) -> &BuyerConfig {
        &self.config
    }

    /// Units of bought leases that run long enough to count.
    fn held(&self, view: &MarketView, now: Now) -> UnitCount {
        let lead = self.config.renew_lead_blocks.get();
        let lasting = |lease: &&LeaseView| lease.maturity().get() > now.height.get().saturating_add(lead);
        let bought = view.leases().filter(|lease| lease.side == Side::Bid).filter(lasting);
        UnitCount::new(bought.fold(0_u32, |sum, lease| sum.saturating_add(lease.units.get())))
    }

    /// Time left for the next order: it counts from when capacity went missing, and anew from each fill.
    fn deadline(&self, view: &MarketView, state: &mut BuyerState, now: Now) -> Deadline {
        let since = *state.short_since.get_or_insert(now.time);
        let fills = view.leases().filter(|lease| lease.side == Side::Bid).map(|lease| lease.booked_at);
        let start = fills.fold(since, Timestamp::max);
        let elapsed_ms = now.time.0.saturating_sub(start.0);
        let total = self.config.deadline_windows;
        let length_ms = self.config.windows.length_s.saturating_mul(1_000);
        Deadline {
            elapsed_ms,
            allowed_ms: length_ms.saturating_mul(u64::from(total)),
            windows_left: total.saturating_sub(self.config.windows.count(elapsed_ms)),
        }
    }

    /// The cheapest acceptable bid, by cost per usable block of the smallest match.
    fn quote(
        &self,
        units: UnitCount,
        version: AccountVersion,
        time: Deadline,
        view: &MarketView,
        out: &mut Decision,
    ) -> Option<Quote> {
        let mut quotes = Vec::new();
        for duration in &self.config.durations_blocks {
            if !view.takes_orders(*duration) {
                out.reasons.push(Reason::MarketClosed { duration: *duration });
                continue;
            }
            let pricing = Pricing { config: &self.config, view, version, duration: *duration, deadline: time, units };
            match pricing.quote() {
                Ok(quote) => quotes.push(quote),
                Err(mut reasons) => out.reasons.append(&mut reasons),
            }
        }
        let usable = |quote: &Quote| {
            u128::from(quote.duration.get().saturating_sub(self.config.usable_after_blocks.get()).max(1))
        };
        let cheapest = quotes
            .into_iter()
            .min_by(|a, b| (u128::from(a.cost.get()) * usable(b)).cmp(&(u128::from(b.cost.get()) * usable(a))))?;
        out.reasons.extend(cheapest.reasons.iter().cloned());
        Some(cheapest)
    }

    fn fee_cap(&self, quote: &Quote) -> SatPerKw {
        quote.fee_ceiling.min(self.config.fees.max_batch_sat_per_kw)
    }

    fn wanted(&self, account: AccountKey, quote: &Quote, units: UnitCount) -> Wanted {
        let tier = if self.config.require_rated_sellers { NodeTier::Tier1 } else { NodeTier::Tier0 };
        let order = OrderIntent {
            account,
            rate: quote.rate,
            units,
            min_units: quote.min_units,
            duration: quote.duration,
            max_batch_fee_rate: self.fee_cap(quote),
            channel_type: OrderChannelType::PeerDependent,
        };
        Wanted { order, side: WantedSide::Bid(tier), limit: quote.willingness }
    }

    /// Opens an account for everything that is missing, at the highest price that would be paid, unless one comes up.
    fn open_account(&self, quote: &Quote, missing: UnitCount, view: &MarketView, out: &mut Decision) {
        if view.accounts().any(AccountView::is_opening) {
            out.reasons.push(Reason::AccountPending);
            return;
        }
        let fee = view.execution_fee().unwrap_or_default();
        let cost = |units: UnitCount| {
            let exposure = Exposure {
                side: Side::Bid,
                rate: quote.willingness,
                units,
                min_units: quote.min_units,
                duration: quote.duration,
                max_batch_fee_rate: self.fee_cap(quote),
            };
            exposure.worst_cost(&fee, AccountVersion::V2).unwrap_or(Sats::MAX)
        };
        // A tenth more: fee rates move, and what a batch leaves must stay above dust.
        let whole = cost(missing).get();
        let roomy = Sats::new(whole.saturating_add(whole / 10)).unwrap_or(Sats::MAX);
        let existing = view.accounts().filter(|account| account.holds_coins()).map(|account| account.value);
        let existing = Sats::checked_sum(existing).unwrap_or(Sats::MAX);
        let allowed = self.config.max_accounts_sats.checked_sub(existing).unwrap_or(Sats::ZERO);
        let largest = view.terms().map_or(Sats::ZERO, |terms| terms.value.max_account_value);
        let most = allowed.min(largest).min(spare_coins(&self.config.account, view));
        let value = roomy.max(MIN_ACCOUNT_VALUE).min(most);
        let needed_sats = cost(quote.min_units).max(MIN_ACCOUNT_VALUE);
        if value < needed_sats {
            out.reasons.push(Reason::WalletTooSmall { free_sats: most, needed_sats });
            return;
        }
        out.reasons.push(Reason::OpensAccount { value_sats: value });
        let expiry_blocks = self.config.account.expiry_blocks;
        out.intents.push(Intent::OpenAccount { value, expiry_blocks, version: AccountVersion::V2 });
    }

    /// The bid on the first account that backs it, with as many units as fit.
    fn backed(
        &self,
        quote: &Quote,
        units: UnitCount,
        accounts: &[&AccountView],
        live: &[&OrderView],
        view: &MarketView,
    ) -> Option<Wanted> {
        let fee = view.execution_fee()?;
        // The live bid stays on its account; elsewhere its units would be bought twice while both stand.
        let home = live.first().map(|order| order.account);
        let candidates = accounts.iter().filter(|account| home.is_none_or(|home| home == account.key));
        candidates.into_iter().find_map(|account| {
            let own = live.iter().filter(|order| order.account == account.key).map(|order| order.reserved);
            let free = Sats::checked_sum(own.chain([account.free()]))?;
            self.wanted(account.key, quote, units).fitted(free, &fee, account)
        })
    }
}

fn live_bids(view: &MarketView) -> Vec<&OrderView> {
    let mut bids: Vec<&OrderView> = view.live_orders().filter(|order| order.side == Side::Bid).collect();
    bids.sort_by_key(|order| (order.placed_at, order.nonce));
    bids
}

impl Strategy for Buyer {
    type State = BuyerState;

    fn name(&self) -> &str {
        "buyer"
    }

    fn decide(&self, view: &MarketView, state: &mut BuyerState, now: Now) -> Decision {
        let view = &view.as_of(now.time);
        let mut out = Decision::default();
        wind_up(&self.config.account, view, now, &mut out);
        if view.terms().is_none() {
            out.reasons.push(Reason::NoTerms);
            return out;
        }
        let accounts = usable_accounts(&self.config.account, view, now);
        let usable = |order: &&OrderView| accounts.iter().any(|account| account.key == order.account);
        let (live, leaving): (Vec<&OrderView>, Vec<&OrderView>) = live_bids(view).into_iter().partition(usable);
        // Bids on accounts that are wound up may still fill: they count until they are gone.
        let on_order = leaving.iter().fold(0_u32, |sum, order| sum.saturating_add(order.units_unfulfilled.get()));
        let (on_order, running) = (UnitCount::new(on_order), self.held(view, now));
        let target = self.config.target_inbound_units;
        let covered = running.checked_add(on_order).unwrap_or(target);
        let missing = target.checked_sub(covered).unwrap_or(UnitCount::ZERO);
        if missing < self.config.min_match_units {
            state.short_since = None;
            out.reasons.push(Reason::TargetReached { target, running, on_order });
            settle(&self.config.requote, None, &live, view, now, &mut out);
            return out;
        }
        let time = self.deadline(view, state, now);
        let units = missing.min(self.config.max_order_units);
        let version = accounts.first().map_or(AccountVersion::V2, |account| account.version);
        let Some(quote) = self.quote(units, version, time, view, &mut out) else {
            settle(&self.config.requote, None, &live, view, now, &mut out);
            return out;
        };
        let wanted = self.backed(&quote, units, &accounts, &live, view);
        if wanted.is_none() && live.is_empty() {
            self.open_account(&quote, missing, view, &mut out);
            return out;
        }
        let refused = self.config.requote.failed_recently(view, Side::Bid, quote.duration, now);
        if !(live.is_empty() && refused) {
            settle(&self.config.requote, wanted, &live, view, now, &mut out);
        }
        out
    }
}
