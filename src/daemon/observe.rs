//! What the agent knows: gathers venue, node and own state into one view, each datum with the time it became known.

use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_engine::view::{AccountView, LeaseView, MarketView, NodeView, OrderView, Rating, Seen, Side};
use tidegate_ports::{
    BatchSnapshot, Clock as _, LinkError, MarketInterest, NodeData as _, NodeError, Terms, Timestamp, TraderEnv,
    VenueLink as _, Wallet as _,
};
use tidegate_protocol::account::Account;
use tidegate_protocol::fees::reserved_for;
use tidegate_protocol::keys::{AccountKey, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OwnOrder};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats};
use tidegate_trader::{Gone, Handle, Lease, Status};

/// Past batches asked for at each look.
const SNAPSHOTS: u32 = 100;
/// Fee samples kept: two weeks of ten-minute ticks.
const FEE_SAMPLES: usize = 2016;
/// Confirmation target of the fee samples, as of batches.
const FEE_TARGET_BLOCKS: u32 = 6;

/// Something without which nothing can be decided could not be asked.
#[derive(Debug, Error)]
pub(crate) enum ObserveError {
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The trader ended.
    #[error(transparent)]
    Trader(#[from] Gone),
}

/// What one look saw, beside the [view](Observer::view).
pub(crate) struct Look {
    /// The trader's own state.
    pub(crate) status: Status,
    /// Why the venue's data are as old as they are; nothing when they are fresh.
    pub(crate) venue_silent: Option<LinkError>,
}

/// What the venue was asked in one look.
struct VenueData {
    terms: Terms,
    snapshots: Vec<BatchSnapshot>,
    interest: BTreeMap<BlockCount, MarketInterest>,
    ratings: Vec<(NodeId, NodeTier)>,
}

/// Remembers what must outlive one look: clearings, fee samples, when an order was first seen.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    view: MarketView,
    placed: BTreeMap<OrderNonce, Timestamp>,
}

impl Observer {
    /// Looks at everything once. A silent venue leaves its data as they were: the gate refuses new orders on old terms,
    /// while an expired account can still be closed.
    ///
    /// # Errors
    /// [`ObserveError`] when node or trader do not answer.
    pub(crate) async fn look<E: TraderEnv>(&mut self, env: &E, trader: &Handle) -> Result<Look, ObserveError> {
        let info = env.node().info().await?;
        let fee_rate = env.wallet().estimate_fee(FEE_TARGET_BLOCKS).await?;
        let wallet = env.wallet().confirmed_balance().await?;
        let venue = ask_venue(env, info.id).await;
        let status = trader.status().await?;
        let now = env.clock().now();

        let view = &mut self.view;
        view.at = now;
        view.fee_rates.push(Seen::now(now, fee_rate));
        let excess = view.fee_rates.len().saturating_sub(FEE_SAMPLES);
        view.fee_rates.drain(..excess);
        view.heights = vec![Seen::now(now, info.best_height)];
        view.node = vec![Seen::now(now, NodeView { id: info.id, wallet_confirmed: wallet, synced: info.synced })];
        let venue_silent = match venue {
            Ok(data) => {
                self.add_venue(data, now);
                None
            }
            Err(error) => Some(error),
        };
        self.add_own(&status, now);
        Ok(Look { status, venue_silent })
    }

    /// Everything known at the last look, each datum with the time it became known. It is lent, never copied: the
    /// history grows with the years.
    pub(crate) fn view(&self) -> &MarketView {
        &self.view
    }

    fn add_venue(&mut self, data: VenueData, now: Timestamp) {
        let view = &mut self.view;
        if view.observed_since == Timestamp::default() {
            // Before our first look, what the venue still tells of its past is known without gap.
            view.observed_since = data.snapshots.last().map_or(now, |oldest| Timestamp(oldest.created_ns / 1_000_000));
        }
        // The venue tells the newest first; in the order of their times each is appended.
        for snapshot in data.snapshots.iter().rev() {
            view.add_snapshot(snapshot, now);
        }
        view.terms = vec![Seen::now(now, data.terms)];
        view.interest = vec![Seen::now(now, data.interest)];
        let rated = data.ratings.into_iter().map(|(node, tier)| Seen::now(now, Rating { node, tier }));
        view.ratings = rated.collect();
    }

    /// The latest clearing rate of each duration; clearings are kept oldest first.
    pub(crate) fn clearing_rates(&self) -> BTreeMap<BlockCount, RatePerBillion> {
        self.view.clearings.iter().map(|clearing| (clearing.duration, clearing.price)).collect()
    }

    fn add_own(&mut self, status: &Status, now: Timestamp) {
        let accounts: BTreeMap<_, &Account> = status.accounts.iter().map(|account| (account.key(), account)).collect();
        let reserved = |account: &Account| status.reserved.get(&account.key()).copied().unwrap_or(Sats::ZERO);
        self.view.accounts = status
            .accounts
            .iter()
            .map(|account| Seen::now(now, AccountView::new(account, reserved(account))))
            .collect();
        let placed = &mut self.placed;
        self.view.orders = status
            .orders
            .iter()
            .map(|own| {
                let placed_at = *placed.entry(own.order.nonce).or_insert(now);
                Seen::now(now, OrderView::new(own, order_reserve(own, &accounts), placed_at))
            })
            .collect();
        let limits: BTreeMap<OrderNonce, RatePerBillion> =
            status.orders.iter().map(|own| (own.order.nonce, own.order.rate)).collect();
        let limit = |lease: &Lease| limits.get(&lease.ours).copied().unwrap_or(lease.clearing_price);
        self.view.leases =
            status.leases.iter().map(|lease| Seen::now(lease.booked_at, lease_view(lease, limit(lease)))).collect();
    }
}

async fn ask_venue<E: TraderEnv>(env: &E, node: NodeId) -> Result<VenueData, LinkError> {
    Ok(VenueData {
        terms: env.link().terms().await?,
        snapshots: env.link().snapshots(SNAPSHOTS).await?,
        interest: env.link().market_info().await?,
        ratings: env.link().ratings(&[node]).await?,
    })
}

/// What one order reserves; the whole account when that cannot be computed, which is the careful answer.
fn order_reserve(own: &OwnOrder, accounts: &BTreeMap<AccountKey, &Account>) -> Sats {
    let Some(account) = accounts.get(&own.order.account) else { return Sats::ZERO };
    reserved_for(own, &own.fee_ceiling, account.terms.version).unwrap_or(account.value)
}

/// A lease as the engine sees it; `limit_rate` is the limit of our order.
pub(crate) fn lease_view(lease: &Lease, limit_rate: RatePerBillion) -> LeaseView {
    LeaseView {
        batch_id: lease.batch_id,
        account: lease.account,
        nonce: lease.ours,
        side: if lease.maker { Side::Ask } else { Side::Bid },
        limit_rate,
        units: lease.units,
        self_balance: lease.self_balance,
        duration: lease.duration,
        clearing_rate: lease.clearing_price,
        premium: lease.premium,
        execution_fee: lease.execution_fee,
        chain_fee: lease.chain_fee,
        start: lease.height,
        booked_at: lease.booked_at,
    }
}
