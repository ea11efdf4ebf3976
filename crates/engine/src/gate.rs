//! The risk gate: the only maker of approved intents.
//!
//! Every wish, a strategy's or a person's, passes here before anything is signed. Limits have no defaults: a
//! configuration that leaves one out does not load.

use crate::exposure::Exposure;
use crate::strategy::{Intent, OrderIntent};
use crate::view::{MarketView, OrderView, Seen, Side};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidegate_ports::Terms;
use tidegate_protocol::account::{AccountState, AccountVersion, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats};

const DAY_MS: u64 = 86_400_000;

/// Limits of all trading. No limit has a default, none can be "unlimited".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Decide and journal, but refuse every intent.
    pub dry_run: bool,
    /// Largest single order, in satoshi.
    pub max_order_sats: Sats,
    /// Largest sum of principal in running sold leases and open asks, in satoshi.
    pub max_leased_sats: Sats,
    /// Largest sum of premium and fees paid in 24 hours, worst case of open orders included, in satoshi.
    pub max_daily_cost_sats: Sats,
    /// Lowest rate of an ask, in ppb per block.
    pub ask_rate_min_ppb: RatePerBillion,
    /// Highest rate of a bid, in ppb per block.
    pub bid_rate_max_ppb: RatePerBillion,
    /// Highest rate of any order, in ppb per block: beyond it somebody mistyped.
    pub rate_max_ppb: RatePerBillion,
    /// Largest account, in satoshi.
    pub max_account_sats: Sats,
    /// Largest sum of all accounts, in satoshi.
    pub max_accounts_total_sats: Sats,
    /// Coins that stay in the node's wallet when an account is opened, in satoshi.
    pub wallet_reserve_sats: Sats,
    /// Highest chain fee rate of a batch that an order may accept, in sat/kW.
    pub max_batch_fee_rate_sat_per_kw: SatPerKw,
    /// Open orders at most.
    pub max_open_orders: u32,
    /// Terms older than this forbid new orders and accounts, in seconds.
    pub max_terms_age_s: u64,
}

/// Why an intent is refused. Amounts in satoshi, rates in ppb.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant prints as a sentence that names its fields")]
pub enum RiskRefusal {
    /// Trading is off.
    #[error("dry run: nothing is placed")]
    DryRun,
    /// Without terms no limit can be computed.
    #[error("the venue's terms are not known")]
    NoTerms,
    /// The venue has been silent.
    #[error("the venue's terms are {age_s} s old, at most {max_s} s are allowed")]
    StaleTerms { age_s: u64, max_s: u64 },
    /// The node does not follow the chain.
    #[error("the node is not synced to the chain")]
    NotSynced,
    /// No such account.
    #[error("account {account} is not ours or not known")]
    UnknownAccount { account: AccountKey },
    /// The account's state forbids the action.
    #[error("account {account} is {state:?}")]
    AccountState { account: AccountKey, state: AccountState },
    /// The account still backs orders.
    #[error("account {account} still backs {orders} open orders")]
    AccountInUse { account: AccountKey, orders: u32 },
    /// No such order, or it is finished.
    #[error("order {nonce} is not ours or not open")]
    UnknownOrder { nonce: OrderNonce },
    /// The market does not exist or is closed.
    #[error("the venue takes no orders of {duration}")]
    MarketClosed { duration: BlockCount },
    /// Zero units, a minimum match of zero, or above the order's units.
    #[error("{units} units with at least {min_units} per match make no order")]
    Units { units: u32, min_units: u32 },
    /// Larger than one order may be.
    #[error("the order of {order} exceeds the limit of {max} per order")]
    OrderSize { order: Sats, max: Sats },
    /// Too many orders.
    #[error("{open} orders are open, the limit is {max}")]
    OpenOrders { open: u32, max: u32 },
    /// Outside the rate band.
    #[error("the rate {rate} is outside {min} to {max}")]
    RateBand { rate: RatePerBillion, min: RatePerBillion, max: RatePerBillion },
    /// Fee rate outside the network's floor and our limit.
    #[error("the batch fee rate {rate} is outside {min} to {max}")]
    FeeRate { rate: SatPerKw, min: SatPerKw, max: SatPerKw },
    /// Too much lent.
    #[error("{total} would be leased out, the limit is {max}")]
    Leased { total: Sats, max: Sats },
    /// Too much spent in a day.
    #[error("{total} could be spent within 24 hours, the limit is {max}")]
    DailyCost { total: Sats, max: Sats },
    /// The account does not cover the order's worst case.
    #[error("the order reserves {reserve}, account {account} has {free} free")]
    Reserve { account: AccountKey, reserve: Sats, free: Sats },
    /// Account value outside what venue and limits allow.
    #[error("an account of {value} is outside {min} to {max}")]
    AccountSize { value: Sats, min: Sats, max: Sats },
    /// Too much in accounts.
    #[error("{total} would be in accounts, the limit is {max}")]
    AccountsTotal { total: Sats, max: Sats },
    /// Account expiry outside the protocol's range.
    #[error("an account expiry {blocks} ahead is outside {min} to {max}")]
    AccountExpiry { blocks: BlockCount, min: BlockCount, max: BlockCount },
    /// The wallet must keep its reserve.
    #[error("the wallet has {wallet}: {value} and the reserve of {reserve} do not fit")]
    Wallet { wallet: Sats, value: Sats, reserve: Sats },
    /// An amount cannot be computed; the intent is absurd.
    #[error("{what} leaves the range of amounts")]
    Range { what: String },
}

/// What follows from a refusal.
///
/// # Source
/// Style notes §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReaction {
    /// The cause passes by itself: decide again at the next tick.
    Retry,
    /// The wish is dropped; deciding again gives the same until data or limits change.
    DropIntent,
}

impl RiskRefusal {
    /// The names of all limits, for counting.
    pub const NAMES: [&'static str; 20] = [
        "dry_run",
        "no_terms",
        "stale_terms",
        "not_synced",
        "unknown_account",
        "account_state",
        "account_in_use",
        "unknown_order",
        "market_closed",
        "units",
        "order_size",
        "open_orders",
        "rate_band",
        "fee_rate",
        "leased",
        "daily_cost",
        "reserve",
        "account_size",
        "accounts_total",
        "other",
    ];

    /// The limit that refused, as one of [`RiskRefusal::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            RiskRefusal::DryRun => "dry_run",
            RiskRefusal::NoTerms => "no_terms",
            RiskRefusal::StaleTerms { .. } => "stale_terms",
            RiskRefusal::NotSynced => "not_synced",
            RiskRefusal::UnknownAccount { .. } => "unknown_account",
            RiskRefusal::AccountState { .. } => "account_state",
            RiskRefusal::AccountInUse { .. } => "account_in_use",
            RiskRefusal::UnknownOrder { .. } => "unknown_order",
            RiskRefusal::MarketClosed { .. } => "market_closed",
            RiskRefusal::Units { .. } => "units",
            RiskRefusal::OrderSize { .. } => "order_size",
            RiskRefusal::OpenOrders { .. } => "open_orders",
            RiskRefusal::RateBand { .. } => "rate_band",
            RiskRefusal::FeeRate { .. } => "fee_rate",
            RiskRefusal::Leased { .. } => "leased",
            RiskRefusal::DailyCost { .. } => "daily_cost",
            RiskRefusal::Reserve { .. } => "reserve",
            RiskRefusal::AccountSize { .. } | RiskRefusal::AccountExpiry { .. } => "account_size",
            RiskRefusal::AccountsTotal { .. } | RiskRefusal::Wallet { .. } => "accounts_total",
            RiskRefusal::Range { .. } => "other",
        }
    }

    /// What to do about it.
    pub fn reaction(&self) -> RefusalReaction {
        match self {
            RiskRefusal::NoTerms
            | RiskRefusal::StaleTerms { .. }
            | RiskRefusal::NotSynced
            | RiskRefusal::AccountState { .. }
            | RiskRefusal::AccountInUse { .. }
            | RiskRefusal::MarketClosed { .. }
            | RiskRefusal::Reserve { .. } => RefusalReaction::Retry,
            RiskRefusal::DryRun
            | RiskRefusal::UnknownAccount { .. }
            | RiskRefusal::UnknownOrder { .. }
            | RiskRefusal::Units { .. }
            | RiskRefusal::OrderSize { .. }
            | RiskRefusal::OpenOrders { .. }
            | RiskRefusal::RateBand { .. }
            | RiskRefusal::FeeRate { .. }
            | RiskRefusal::Leased { .. }
            | RiskRefusal::DailyCost { .. }
            | RiskRefusal::AccountSize { .. }
            | RiskRefusal::AccountsTotal { .. }
            | RiskRefusal::AccountExpiry { .. }
            | RiskRefusal::Wallet { .. }
            | RiskRefusal::Range { .. } => RefusalReaction::DropIntent,
        }
    }
}

/// Something that passed the gate. Only [`RiskGate`] makes one, and it is used once: it can not be copied.
///
/// ```compile_fail
/// let forged = tidegate_engine::gate::Approved(1);
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Approved<T>(T);

impl<T> Approved<T> {
    /// What was approved.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What was approved, to be carried out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Checks intents against limits.
#[derive(Clone, Debug)]
pub struct RiskGate {
    limits: Limits,
}

impl RiskGate {
    /// A gate with these limits.
    pub fn new(limits: Limits) -> RiskGate {
        RiskGate { limits }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Approves one intent against what the view knows at its own time.
    ///
    /// # Errors
    /// [`RiskRefusal`], one variant per limit; always [`RiskRefusal::DryRun`] while trading is off.
    pub fn approve(&self, intent: Intent, view: &MarketView) -> Result<Approved<Intent>, RiskRefusal> {
        self.approve_beside(intent, view, Sats::ZERO)
    }

    /// [`RiskGate::approve`] when the same decision has already been allowed accounts worth `opened`.
    fn approve_beside(&self, intent: Intent, view: &MarketView, opened: Sats) -> Result<Approved<Intent>, RiskRefusal> {
        if self.limits.dry_run {
            return Err(RiskRefusal::DryRun);
        }
        match &intent {
            Intent::PlaceAsk { order, .. } => self.check_order(&intent, order, Side::Ask, view)?,
            Intent::PlaceBid { order, .. } => self.check_order(&intent, order, Side::Bid, view)?,
            Intent::Cancel { nonce } => {
                if !view.live_orders().any(|order| order.nonce == *nonce) {
                    return Err(RiskRefusal::UnknownOrder { nonce: *nonce });
                }
            }
            Intent::OpenAccount { value, expiry_blocks, .. } => {
                self.check_open(*value, *expiry_blocks, opened, view)?
            }
            Intent::CloseAccount { account } => check_close(*account, view)?,
            Intent::Deposit { account, amount } => self.check_deposit(*account, *amount, view)?,
            Intent::Withdraw { account, .. } => check_state(*account, view, &[AccountState::Open])?,
            Intent::Renew { account, .. } => {
                check_state(*account, view, &[AccountState::Open, AccountState::Expired])?;
            }
            Intent::BumpFee { account, .. } => check_state(*account, view, &UNCONFIRMED)?,
        }
        Ok(Approved(intent))
    }

    /// Approves the intents of one decision in order, each as if those approved before it were already done.
    pub fn approve_all(&self, intents: Vec<Intent>, view: &MarketView) -> Vec<Result<Approved<Intent>, RiskRefusal>> {
        let mut view = view.clone();
        let mut opened = Sats::ZERO;
        let mut answers = Vec::with_capacity(intents.len());
        for (index, intent) in (0_u64..).zip(intents) {
            let answer = self.approve_beside(intent, &view, opened);
            if let Ok(approved) = &answer {
                if let Intent::OpenAccount { value, .. } = approved.get() {
                    opened = opened.checked_add(*value).unwrap_or(Sats::MAX);
                }
                apply(&mut view, approved.get(), index);
            }
            answers.push(answer);
        }
        answers
    }

    fn fresh_terms<'v>(&self, view: &'v MarketView) -> Result<&'v Terms, RiskRefusal> {
        let terms = view.terms().ok_or(RiskRefusal::NoTerms)?;
        let age_s = view.at.0.saturating_sub(terms.seen_at.0) / 1_000;
        if age_s > self.limits.max_terms_age_s {
            return Err(RiskRefusal::StaleTerms { age_s, max_s: self.limits.max_terms_age_s });
        }
        if !view.node().is_none_or(|node| node.synced) {
            return Err(RiskRefusal::NotSynced);
        }
        Ok(&terms.value)
    }

    fn check_order(
        &self,
        intent: &Intent,
        order: &OrderIntent,
        side: Side,
        view: &MarketView,
    ) -> Result<(), RiskRefusal> {
        let terms = self.fresh_terms(view)?;
        let account = view.account(order.account).ok_or(RiskRefusal::UnknownAccount { account: order.account })?;
        if !account.takes_orders() {
            return Err(RiskRefusal::AccountState { account: account.key, state: account.state });
        }
        if !view.takes_orders(order.duration) {
            return Err(RiskRefusal::MarketClosed { duration: order.duration });
        }
        self.check_size(order, view)?;
        self.check_rates(order, side)?;
        if side == Side::Ask {
            self.check_leased(order, view)?;
        }
        let cost = Exposure::of(order, side).worst_cost(&terms.execution_fee, account.version);
        let cost = cost.map_err(|_| range("worst cost"))?;
        self.check_daily_cost(cost, &terms.execution_fee, view)?;
        let reserve = intent.reserve(&terms.execution_fee, account.version).map_err(|_| range("reserve"))?;
        let free = account.free();
        if reserve > free {
            return Err(RiskRefusal::Reserve { account: account.key, reserve, free });
        }
        Ok(())
    }

    fn check_size(&self, order: &OrderIntent, view: &MarketView) -> Result<(), RiskRefusal> {
        let (units, min_units) = (order.units.get(), order.min_units.get());
        if units == 0 || min_units == 0 || min_units > units {
            return Err(RiskRefusal::Units { units, min_units });
        }
        let (amount, max) = (order.units.to_sats(), self.limits.max_order_sats);
        if amount > max {
            return Err(RiskRefusal::OrderSize { order: amount, max });
        }
        let open = u32::try_from(view.live_orders().count()).unwrap_or(u32::MAX);
        if open >= self.limits.max_open_orders {
            return Err(RiskRefusal::OpenOrders { open, max: self.limits.max_open_orders });
        }
        Ok(())
    }

    fn check_rates(&self, order: &OrderIntent, side: Side) -> Result<(), RiskRefusal> {
        let limits = &self.limits;
        let (min, max) = match side {
            Side::Ask => (limits.ask_rate_min_ppb.max(RatePerBillion::new(1)), limits.rate_max_ppb),
            Side::Bid => (RatePerBillion::new(1), limits.bid_rate_max_ppb.min(limits.rate_max_ppb)),
        };
        if order.rate < min || order.rate > max {
            return Err(RiskRefusal::RateBand { rate: order.rate, min, max });
        }
        let (rate, max) = (order.max_batch_fee_rate, limits.max_batch_fee_rate_sat_per_kw);
        if rate < SatPerKw::FLOOR || rate > max {
            return Err(RiskRefusal::FeeRate { rate, min: SatPerKw::FLOOR, max });
        }
        Ok(())
    }

    fn check_leased(&self, order: &OrderIntent, view: &MarketView) -> Result<(), RiskRefusal> {
        let running = view.running_leases().filter(|lease| lease.side == Side::Ask).map(|lease| lease.units.to_sats());
        let open = view.live_orders().filter(|ask| ask.side == Side::Ask).map(|ask| ask.units_unfulfilled.to_sats());
        let all = running.chain(open).chain([order.units.to_sats()]);
        let total = Sats::checked_sum(all).ok_or_else(|| range("leased principal"))?;
        if total > self.limits.max_leased_sats {
            return Err(RiskRefusal::Leased { total, max: self.limits.max_leased_sats });
        }
        Ok(())
    }

    fn check_daily_cost(&self, cost: Sats, fee: &ExecutionFee, view: &MarketView) -> Result<(), RiskRefusal> {
        let total = daily_cost(fee, view)?.checked_add(cost).ok_or_else(|| range("daily cost"))?;
        if total > self.limits.max_daily_cost_sats {
            return Err(RiskRefusal::DailyCost { total, max: self.limits.max_daily_cost_sats });
        }
        Ok(())
    }

    /// What the last 24 hours cost, with the worst case of the orders that are open, in satoshi. Without the venue's terms
    /// the worst case is not known.
    pub fn daily_cost(&self, view: &MarketView) -> Option<Sats> {
        daily_cost(&view.execution_fee()?, view).ok()
    }

    fn check_open(&self, value: Sats, expiry: BlockCount, opened: Sats, view: &MarketView) -> Result<(), RiskRefusal> {
        let terms = self.fresh_terms(view)?;
        let max = self.limits.max_account_sats.min(terms.max_account_value);
        if value < MIN_ACCOUNT_VALUE || value > max {
            return Err(RiskRefusal::AccountSize { value, min: MIN_ACCOUNT_VALUE, max });
        }
        if expiry < MIN_EXPIRY_AHEAD || expiry > MAX_EXPIRY_AHEAD {
            return Err(RiskRefusal::AccountExpiry { blocks: expiry, min: MIN_EXPIRY_AHEAD, max: MAX_EXPIRY_AHEAD });
        }
        self.check_coins(value, opened, view)
    }

    fn check_deposit(&self, key: AccountKey, amount: Sats, view: &MarketView) -> Result<(), RiskRefusal> {
        let terms = self.fresh_terms(view)?;
        check_state(key, view, &[AccountState::Open])?;
        let account = view.account(key).ok_or(RiskRefusal::UnknownAccount { account: key })?;
        let value = account.value.checked_add(amount).ok_or_else(|| range("account value"))?;
        let max = self.limits.max_account_sats.min(terms.max_account_value);
        if value > max {
            return Err(RiskRefusal::AccountSize { value, min: MIN_ACCOUNT_VALUE, max });
        }
        self.check_coins(amount, Sats::ZERO, view)
    }

    /// Whether `value` may leave the wallet for an account, beside `opened` that is to leave too.
    fn check_coins(&self, value: Sats, opened: Sats, view: &MarketView) -> Result<(), RiskRefusal> {
        let existing = view.accounts().filter(|account| account.holds_coins()).map(|account| account.value);
        let total = Sats::checked_sum(existing.chain([opened, value])).ok_or_else(|| range("accounts"))?;
        if total > self.limits.max_accounts_total_sats {
            return Err(RiskRefusal::AccountsTotal { total, max: self.limits.max_accounts_total_sats });
        }
        let wallet = view.node().map_or(Sats::ZERO, |node| node.wallet_confirmed);
        let reserve = self.limits.wallet_reserve_sats;
        if value.checked_add(reserve).is_none_or(|needed| needed > wallet) {
            return Err(RiskRefusal::Wallet { wallet, value, reserve });
        }
        Ok(())
    }
}

/// Premium and fees of the last 24 hours, and what open orders can still cost.
fn daily_cost(fee: &ExecutionFee, view: &MarketView) -> Result<Sats, RiskRefusal> {
    let since = view.at.0.saturating_sub(DAY_MS);
    let mut parts = Vec::new();
    for lease in view.leases().filter(|lease| lease.booked_at.0 > since) {
        parts.extend([lease.execution_fee, lease.chain_fee]);
        if lease.side == Side::Bid {
            parts.push(lease.premium);
        }
    }
    for order in view.live_orders() {
        let version = view.account(order.account).map_or(AccountVersion::V0, |account| account.version);
        parts.push(Exposure::left_of(order).worst_cost(fee, version).map_err(|_| range("worst cost"))?);
    }
    Sats::checked_sum(parts).ok_or_else(|| range("daily cost"))
}

/// States with an unconfirmed transaction whose fee can be raised.
///
/// # Source
/// Protocol notes, accounts §8.
const UNCONFIRMED: [AccountState; 3] =
    [AccountState::PendingOpen, AccountState::PendingUpdate, AccountState::PendingClosed];

fn check_state(key: AccountKey, view: &MarketView, allowed: &[AccountState]) -> Result<(), RiskRefusal> {
    let account = view.account(key).ok_or(RiskRefusal::UnknownAccount { account: key })?;
    if allowed.contains(&account.state) {
        return Ok(());
    }
    Err(RiskRefusal::AccountState { account: key, state: account.state })
}

/// States from which an account can be closed.
///
/// # Source
/// Protocol notes, accounts §3.
const CLOSABLE: [AccountState; 6] = [
    AccountState::PendingOpen,
    AccountState::PendingUpdate,
    AccountState::Open,
    AccountState::Expired,
    AccountState::PendingBatch,
    AccountState::ExpiredPendingUpdate,
];

fn check_close(key: AccountKey, view: &MarketView) -> Result<(), RiskRefusal> {
    check_state(key, view, &CLOSABLE)?;
    let orders = view.live_orders().filter(|order| order.account == key).count();
    if orders > 0 {
        return Err(RiskRefusal::AccountInUse { account: key, orders: u32::try_from(orders).unwrap_or(u32::MAX) });
    }
    Ok(())
}

fn range(what: &str) -> RiskRefusal {
    RiskRefusal::Range { what: what.to_owned() }
}

/// Enters an approved intent into the view, so that the next intent of the same decision sees it as done.
fn apply(view: &mut MarketView, intent: &Intent, index: u64) {
    let at = view.at;
    match intent {
        Intent::PlaceAsk { order, .. } => place(view, intent, order, Side::Ask, index),
        Intent::PlaceBid { order, .. } => place(view, intent, order, Side::Bid, index),
        Intent::Cancel { nonce } => {
            let Some(mut order) = view.orders().find(|order| order.nonce == *nonce).cloned() else { return };
            release(view, order.account, order.reserved);
            order.state = OrderState::Canceled;
            view.orders.push(Seen::now(at, order));
        }
        Intent::OpenAccount { value, .. } => {
            // The account has no name yet: what matters to the next intent is the money that left the wallet.
            if let Some(mut node) = view.node().cloned() {
                node.wallet_confirmed = node.wallet_confirmed.checked_sub(*value).unwrap_or(Sats::ZERO);
                view.node.push(Seen::now(at, node));
            }
        }
        Intent::CloseAccount { account } => {
            let Some(mut account) = view.account(*account).cloned() else { return };
            account.state = AccountState::PendingClosed;
            view.accounts.push(Seen::now(at, account));
        }
        Intent::Deposit { account, amount } => {
            if let Some(mut node) = view.node().cloned() {
                node.wallet_confirmed = node.wallet_confirmed.checked_sub(*amount).unwrap_or(Sats::ZERO);
                view.node.push(Seen::now(at, node));
            }
            update(view, *account, |value| value.checked_add(*amount).unwrap_or(Sats::MAX));
        }
        Intent::Withdraw { account, amount } => {
            update(view, *account, |value| value.checked_sub(*amount).unwrap_or(Sats::ZERO));
        }
        Intent::Renew { account, .. } => update(view, *account, |value| value),
        Intent::BumpFee { .. } => {}
    }
}

/// An account whose new value is on its way.
fn update(view: &mut MarketView, key: AccountKey, value: impl FnOnce(Sats) -> Sats) {
    let Some(mut account) = view.account(key).cloned() else { return };
    account.value = value(account.value);
    account.state = AccountState::PendingUpdate;
    let at = view.at;
    view.accounts.push(Seen::now(at, account));
}

fn place(view: &mut MarketView, intent: &Intent, order: &OrderIntent, side: Side, index: u64) {
    let Some(account) = view.account(order.account).cloned() else { return };
    let fee = view.execution_fee().unwrap_or_default();
    // A name that no real order has: the counter in front, the rest zero.
    let mut name = [0_u8; 32];
    name[..8].copy_from_slice(&index.to_be_bytes());
    let nonce = OrderNonce::new(name);
    let Some(named) = intent.order(nonce) else { return };
    let reserved = intent.reserve(&fee, account.version).unwrap_or(account.free());
    let mut changed = account.clone();
    changed.reserved = account.reserved.checked_add(reserved).unwrap_or(account.value);
    let at = view.at;
    view.accounts.push(Seen::now(at, changed));
    view.orders.push(Seen::now(
        at,
        OrderView {
            nonce,
            account: order.account,
            side,
            rate: order.rate,
            units: order.units,
            units_unfulfilled: order.units,
            min_units: order.min_units,
            duration: order.duration,
            max_batch_fee_rate: order.max_batch_fee_rate,
            self_balance: named.self_balance(),
            min_node_tier: named.bid().map_or(NodeTier::default(), |terms| terms.min_node_tier),
            state: OrderState::Submitted,
            reserved,
            placed_at: at,
        },
    ));
}

fn release(view: &mut MarketView, key: AccountKey, amount: Sats) {
    let Some(mut account) = view.account(key).cloned() else { return };
    account.reserved = account.reserved.checked_sub(amount).unwrap_or(Sats::ZERO);
    let at = view.at;
    view.accounts.push(Seen::now(at, account));
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
