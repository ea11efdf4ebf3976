//! The seller's decision: accounts first, then one ask per account and duration, best yield first.

use super::config::SellerConfig;
use super::pricing::{Pricing, Quote};
use crate::common::{ConfigProblem, spare_coins, usable_accounts, wind_up};
use crate::quoting::{Wanted, WantedSide, settle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_engine::strategy::{Decision, Intent, Now, OrderIntent, Reason, Strategy};
use tidegate_engine::view::{AccountView, MarketView, OrderView, Side, Timestamp};
use tidegate_protocol::account::{AccountVersion, MIN_ACCOUNT_VALUE};
use tidegate_protocol::order::OrderChannelType;
use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

/// Sells leases. See `notes.md` beside it for hypothesis, sources and failure modes.
#[derive(Clone, Debug, PartialEq)]
pub struct Seller {
    config: SellerConfig,
}

/// What the seller remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellerState {
    /// Since when the patient price of a duration has been falling; a fill of ours starts it anew.
    pub patient_since: BTreeMap<BlockCount, Timestamp>,
}

impl Seller {
    /// A seller with this configuration.
    ///
    /// # Errors
    /// [`ConfigProblem`] when a value makes no sense.
    pub fn new(config: SellerConfig) -> Result<Seller, ConfigProblem> {
        config.check()?;
        Ok(Seller { config })
    }

    /// The configuration in force.
    pub fn config(&self) -> &SellerConfig {
        &self.config
    }

    /// Opens an account with what is left of the capital, unless one exists or is being opened.
    fn open_account(&self, view: &MarketView, out: &mut Decision) {
        if view.accounts().any(|account| account.is_opening() || account.takes_orders()) {
            out.reasons.push(Reason::AccountPending);
            return;
        }
        let leased = view.running_leases().filter(|lease| lease.side == Side::Ask).map(|lease| lease.units.to_sats());
        let elsewhere = view.accounts().filter(|account| account.holds_coins()).map(|account| account.value);
        let used = Sats::checked_sum(leased.chain(elsewhere)).unwrap_or(Sats::MAX);
        let capital = self.config.capital_sats.checked_sub(used).unwrap_or(Sats::ZERO);
        let largest = view.terms().map_or(Sats::ZERO, |terms| terms.value.max_account_value);
        let value = capital.min(largest).min(spare_coins(&self.config.account, view));
        // One smallest match, and one unit for the fees around it.
        let needed = self.config.min_match_units.to_sats().checked_add(UnitCount::new(1).to_sats());
        let needed = needed.unwrap_or(Sats::MAX).max(MIN_ACCOUNT_VALUE);
        if value < needed {
            out.reasons.push(Reason::WalletTooSmall { free_sats: value, needed_sats: needed });
            return;
        }
        out.reasons.push(Reason::OpensAccount { value_sats: value });
        let expiry_blocks = self.config.account.expiry_blocks;
        out.intents.push(Intent::OpenAccount { value, expiry_blocks, version: AccountVersion::V2 });
    }

    /// Silent windows since the patient price started, or since our last fill. The first call starts it.
    fn patience(&self, view: &MarketView, state: &mut SellerState, duration: BlockCount, now: Now) -> u32 {
        let since = *state.patient_since.entry(duration).or_insert(now.time);
        let fills = view.leases().filter(|lease| lease.side == Side::Ask && lease.duration == duration);
        let start = fills.map(|lease| lease.booked_at).fold(since, Timestamp::max);
        self.config.windows.count(now.time.0.saturating_sub(start.0))
    }

    /// Prices all durations for one account and brings its asks to them.
    fn quote_account(
        &self,
        account: &AccountView,
        view: &MarketView,
        state: &mut SellerState,
        now: Now,
        out: &mut Decision,
    ) {
        let asks = live_asks(account, view);
        let mut free = account.free();
        for order in asks.values().flatten() {
            free = free.checked_add(order.reserved).unwrap_or(Sats::MAX);
        }
        let quotes = self.quotes(account, free, view, state, now, out);
        let mut served = Vec::new();
        for (duration, quote) in &quotes {
            let live = asks.get(duration).map_or(&[][..], Vec::as_slice);
            let wanted = self.wanted(account, *duration, quote, free, view, out);
            let reserve = wanted.as_ref().map_or(Sats::ZERO, |wanted| reserve_of(wanted, account, view));
            free = free.checked_sub(reserve).unwrap_or(Sats::ZERO);
            let refused = self.config.requote.failed_recently(view, Side::Ask, *duration, now);
            if !(live.is_empty() && refused) {
                settle(&self.config.requote, wanted, live, view, now, out);
            }
            served.push(*duration);
        }
        for (duration, live) in &asks {
            if !served.contains(duration) {
                settle(&self.config.requote, None, live, view, now, out);
            }
        }
    }

    /// Prices of all durations that the venue takes, best expected yield first.
    fn quotes(
        &self,
        account: &AccountView,
        free: Sats,
        view: &MarketView,
        state: &mut SellerState,
        now: Now,
        out: &mut Decision,
    ) -> Vec<(BlockCount, Quote)> {
        let mut quotes: Vec<(BlockCount, Quote)> = Vec::new();
        for duration in &self.config.durations_blocks {
            if !view.takes_orders(*duration) {
                out.reasons.push(Reason::MarketClosed { duration: *duration });
                continue;
            }
            let patience_windows = self.patience(view, state, *duration, now);
            let (config, version, duration) = (&self.config, account.version, *duration);
            let pricing = Pricing { config, view, version, duration, patience_windows };
            match pricing.quote(free) {
                Ok(mut quote) => {
                    out.reasons.append(&mut quote.reasons);
                    quotes.push((duration, quote));
                }
                Err(mut reasons) => out.reasons.append(&mut reasons),
            }
        }
        // Durations without an estimate keep their configured order behind those with one.
        quotes.sort_by(|(_, a), (_, b)| yield_of(b).total_cmp(&yield_of(a)));
        quotes
    }

    fn wanted(
        &self,
        account: &AccountView,
        duration: BlockCount,
        quote: &Quote,
        free: Sats,
        view: &MarketView,
        out: &mut Decision,
    ) -> Option<Wanted> {
        let order = OrderIntent {
            account: account.key,
            rate: quote.rate,
            units: self.config.max_order_units,
            min_units: quote.min_units,
            duration,
            max_batch_fee_rate: quote.fee_ceiling.min(self.config.fees.max_batch_sat_per_kw),
            channel_type: OrderChannelType::PeerDependent,
        };
        let whole = Wanted { order, side: WantedSide::Ask, limit: quote.reservation };
        let fee = view.execution_fee()?;
        let fitted = whole.fitted(free, &fee, account);
        if fitted.is_none() {
            out.reasons.push(Reason::AccountTooSmall { free_sats: free, units: quote.min_units });
        }
        fitted
    }
}

fn live_asks<'a>(account: &AccountView, view: &'a MarketView) -> BTreeMap<BlockCount, Vec<&'a OrderView>> {
    let mut asks: BTreeMap<BlockCount, Vec<&OrderView>> = BTreeMap::new();
    for order in view.live_orders().filter(|order| order.side == Side::Ask && order.account == account.key) {
        asks.entry(order.duration).or_default().push(order);
    }
    for orders in asks.values_mut() {
        orders.sort_by_key(|order| (order.placed_at, order.nonce));
    }
    asks
}

fn yield_of(quote: &Quote) -> f64 {
    quote.annual_net.unwrap_or(f64::NEG_INFINITY)
}

fn reserve_of(wanted: &Wanted, account: &AccountView, view: &MarketView) -> Sats {
    let fee = view.execution_fee().unwrap_or_default();
    wanted.intent().reserve(&fee, account.version).unwrap_or(Sats::MAX)
}

impl Strategy for Seller {
    type State = SellerState;

    fn name(&self) -> &str {
        "seller"
    }

    fn decide(&self, view: &MarketView, state: &mut SellerState, now: Now) -> Decision {
        let view = &view.as_of(now.time);
        let mut out = Decision::default();
        wind_up(&self.config.account, view, now, &mut out);
        if view.terms().is_none() {
            out.reasons.push(Reason::NoTerms);
            return out;
        }
        let accounts = usable_accounts(&self.config.account, view, now);
        if accounts.is_empty() {
            self.open_account(view, &mut out);
        }
        for account in accounts {
            self.quote_account(account, view, state, now, &mut out);
        }
        out
    }
}
