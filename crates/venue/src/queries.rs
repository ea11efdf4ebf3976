//! Answers that change nothing and never ask the node.

use crate::actor::Actor;
use crate::deposits::DepositRecord;
use crate::error::ServeError;
use crate::handle::Status;
use std::collections::BTreeMap;
use tidegate_ports::{BatchSnapshot, BoxClaim, BoxId, BoxOwner, Interest, MarketInterest, Terms, TraderId, VenueEnv};
use tidegate_protocol::auth::verify_message;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::ticket::Ticket;
use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

/// Batches of one answer, at most.
const MAX_SNAPSHOTS: u32 = 100;
/// Nodes of one rating request, at most.
const MAX_RATINGS: usize = 1000;

impl<E: VenueEnv> Actor<'_, E> {
    /// The fee schedule of a trader.
    pub(crate) fn fee_for(&self, trader: &[u8; 32]) -> ExecutionFee {
        self.config.custom_fees.get(trader).copied().unwrap_or(self.config.execution_fee)
    }

    /// The fee schedule of an account: that of the trader on whose stream it is subscribed, else of who announced it.
    pub(crate) fn fee_of(&self, account: AccountKey) -> ExecutionFee {
        let announced = || self.book.accounts.get(&account).map(|record| record.trader);
        let trader = self.streams.of_account(account).map(|(_, stream)| stream.trader.0).or_else(announced);
        trader.map_or(self.config.execution_fee, |trader| self.fee_for(&trader))
    }

    pub(crate) fn terms(&self, trader: Option<TraderId>) -> Terms {
        let next = self.next_tick.unwrap_or_else(|| self.now());
        Terms {
            max_account_value: self.config.max_account_value,
            execution_fee: trader.map_or(self.config.execution_fee, |trader| self.fee_for(&trader.0)),
            durations: self.config.durations.clone(),
            next_batch_fee_rate: self.estimate.max(self.config.min_batch_fee_rate),
            next_clear_time: next.seconds(),
            auto_renew_blocks: self.config.auto_renew,
        }
    }

    pub(crate) fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), ServeError> {
        self.book.orders.state(nonce).ok_or(ServeError::NoOrder)
    }

    /// Index of a batch; nothing names the latest.
    fn batch_index(&self, batch: Option<BatchId>) -> Option<usize> {
        match batch {
            Some(id) => self.book.batches.iter().position(|record| record.id == id),
            None => self.book.batches.len().checked_sub(1),
        }
    }

    pub(crate) fn snapshot(&self, batch: Option<BatchId>) -> Result<BatchSnapshot, ServeError> {
        self.batch_index(batch).and_then(|index| self.book.snapshot(index)).ok_or(ServeError::NoSnapshot)
    }

    pub(crate) fn snapshots(&self, start: Option<BatchId>, count: u32) -> Result<Vec<BatchSnapshot>, ServeError> {
        if !(1..=MAX_SNAPSHOTS).contains(&count) {
            return Err(ServeError::SnapshotCount(count));
        }
        let count = usize::try_from(count).expect("at most 100 fit");
        match (self.batch_index(start), start) {
            (Some(last), _) => Ok((0..=last).rev().take(count).filter_map(|index| self.book.snapshot(index)).collect()),
            (None, None) => Ok(Vec::new()),
            (None, Some(_)) => Err(ServeError::NoSnapshot),
        }
    }

    pub(crate) fn market_info(&self) -> BTreeMap<BlockCount, MarketInterest> {
        let mut markets: BTreeMap<BlockCount, MarketInterest> = BTreeMap::new();
        for record in self.book.orders.all_active() {
            let order = &record.submitted.order;
            let market = markets.entry(order.duration).or_default();
            match order.bid() {
                Some(bid) => count(&mut market.bids, bid.min_node_tier, record.open),
                None => count(&mut market.asks, self.config.ratings.tier(record.submitted.node), record.open),
            }
        }
        markets
    }

    pub(crate) fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, ServeError> {
        if nodes.len() > MAX_RATINGS {
            return Err(ServeError::TooMany { what: "nodes", found: nodes.len(), max: MAX_RATINGS });
        }
        Ok(nodes.iter().map(|node| (*node, self.config.ratings.tier(*node))).collect())
    }

    /// Whose mailbox this is, when the claim to it holds.
    ///
    /// # Source
    /// Protocol notes, rpc §11.
    pub(crate) fn box_owner(&self, id: BoxId, claim: &BoxClaim) -> Result<BoxOwner, ServeError> {
        let owner = match claim {
            BoxClaim::Account { account, signature } if verify_message(account.point(), &id.0, signature) => {
                BoxOwner::Account(*account)
            }
            BoxClaim::Account { .. } => return Err(ServeError::BoxClaim("the signature is not the account's")),
            BoxClaim::Ticket(ticket) => BoxOwner::Ticket(ticket_account(id, ticket)?),
        };
        let account = owner.account();
        let record = self.book.accounts.get(&account).ok_or(ServeError::NoAccount(account))?;
        if record.state.may_submit() {
            Ok(owner)
        } else {
            Err(ServeError::AccountState { account, state: record.state, what: "a mailbox" })
        }
    }

    pub(crate) fn status(&self) -> Status {
        let mut accounts = BTreeMap::new();
        for account in self.book.accounts.values() {
            *accounts.entry(account.state).or_default() += 1;
        }
        let asks = self.book.orders.all_active().filter(|record| record.submitted.order.is_ask()).count();
        Status {
            network: self.config.network.clone(),
            best_height: self.height,
            next_batch: self.book.batch_key,
            streams: self.streams.len(),
            subscribed: self.streams.subscribed(),
            accounts,
            reservations: self.book.reservations.len(),
            asks,
            bids: self.book.orders.all_active().count() - asks,
            batches: self.book.batches.len(),
            unconfirmed: self.book.batches.iter().filter(|batch| !batch.confirmed).count(),
            master: self.book.master.as_ref().map_or(Sats::ZERO, |master| master.value),
            deposits: self.book.deposits.values().map(DepositRecord::public).collect(),
            wish: self.book.wish.clone(),
            banned: self.book.bans.values().filter(|ban| self.height < ban.end()).count(),
            leases: self.book.leases.len(),
            executing: !self.running.is_empty(),
            last_tick: self.last_tick.clone(),
        }
    }
}

/// The account that offered the ticket, when the mailbox is one of the ticket's two.
fn ticket_account(id: BoxId, ticket: &Ticket) -> Result<AccountKey, ServeError> {
    let bad = |_| ServeError::BoxClaim("the ticket's offer is not signed");
    ticket.verify_offer().map_err(bad)?;
    let boxes = [ticket.provider_stream().map_err(bad)?, ticket.recipient_stream().map_err(bad)?];
    if !boxes.contains(&id.0) {
        return Err(ServeError::BoxClaim("the mailbox is not the ticket's"));
    }
    ticket.offer.signing_key.ok_or(ServeError::BoxClaim("the ticket's offer is not signed"))
}

fn count(interest: &mut Interest, tier: NodeTier, units: UnitCount) {
    let (orders, open) = match tier {
        NodeTier::Tier0 => (&mut interest.orders_tier0, &mut interest.units_tier0),
        NodeTier::Tier1 => (&mut interest.orders_tier1, &mut interest.units_tier1),
    };
    *orders = orders.saturating_add(1);
    *open = open.saturating_add(units.get());
}
