//! Orders: into the book and out of it.

use crate::actor::Actor;
use crate::book::{OrderRecord, Write};
use crate::error::ServeError;
use tidegate_ports::{DurationState, Submission, VenueEnv};
use tidegate_protocol::keys::OrderPreimage;
use tidegate_protocol::order::{OrderState, SubmittedOrder};
use tidegate_protocol::units::{Sats, UnitCount, UnitError};
use tracing::info;

/// Active orders of one account, at most.
const MAX_ORDERS: usize = 200;
/// Nodes in an order's lists, at most.
const MAX_LISTED_NODES: usize = 1000;
/// Addresses of an order's node, at most.
const MAX_ADDRESSES: usize = 20;
/// Bytes of one address, at most: longest host name, colon, port.
const MAX_ADDRESS_BYTES: usize = 260;

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), ServeError> {
    if found > max { Err(ServeError::TooMany { what, found, max }) } else { Ok(()) }
}

impl<E: VenueEnv> Actor<'_, E> {
    /// Takes an order into the book.
    ///
    /// # Source
    /// Protocol notes, auctioneer §5.2.
    pub(crate) async fn submit(&mut self, submitted: SubmittedOrder) -> Result<Submission, ServeError> {
        let nonce = submitted.order.nonce;
        if self.book.orders.active(nonce).is_some_and(|known| known.submitted == submitted) {
            return Ok(Submission::Accepted);
        }
        if self.book.orders.state(nonce).is_some() {
            return Err(ServeError::NonceUsed);
        }
        self.check_owner(&submitted)?;
        check_order(&submitted)?;
        self.check_market(&submitted)?;
        let record = OrderRecord {
            open: UnitCount::exactly_from(submitted.order.amount)?,
            submitted,
            state: OrderState::Submitted,
            arrival: self.book.orders.next_arrival(),
        };
        if let Some(reason) = self.uncovered(&record)? {
            return Ok(Submission::Invalid { reason });
        }
        let order = &record.submitted.order;
        info!(account = %order.account, nonce = %order.nonce, ask = order.is_ask(), rate = order.rate.get(), "order taken");
        self.commit(vec![Write::Order(record)]).await?;
        Ok(Submission::Accepted)
    }

    fn check_owner(&self, submitted: &SubmittedOrder) -> Result<(), ServeError> {
        let account = submitted.order.account;
        let record = self.book.accounts.get(&account).ok_or(ServeError::NoAccount(account))?;
        if !record.state.may_submit() {
            return Err(ServeError::AccountState { account, state: record.state, what: "an order" });
        }
        self.check_ban(account)?;
        if record.is_closing() {
            return Err(ServeError::AccountClosing(account));
        }
        at_most("active orders of one account", self.book.active_orders(account).count() + 1, MAX_ORDERS)
    }

    fn check_market(&self, submitted: &SubmittedOrder) -> Result<(), ServeError> {
        let duration = submitted.order.duration;
        match self.config.durations.get(&duration) {
            Some(DurationState::AcceptingOrders | DurationState::Open) => {}
            Some(DurationState::NoMarket | DurationState::Closed) | None => return Err(ServeError::NoMarket(duration)),
        }
        // Two channels of one batch with the same two funding keys could not be told apart.
        let used = self.book.orders.uses_funding_key(submitted.multisig);
        if used { Err(ServeError::FundingKeyUsed) } else { Ok(()) }
    }

    /// Why the account's value does not cover all its orders and this one.
    fn uncovered(&self, record: &OrderRecord) -> Result<Option<String>, ServeError> {
        let order = &record.submitted.order;
        let account = self.book.accounts.get(&order.account).ok_or(ServeError::NoAccount(order.account))?;
        let fee = &self.fee_of(order.account);
        let version = account.terms.version;
        let own = tidegate_protocol::fees::reserved_value(order, record.open, record.state, fee, version)?;
        let others = self.book.reserved(account, fee)?;
        let needed: Sats = own.checked_add(others).ok_or(UnitError::Overflow("reserved value"))?;
        let value = account.least_value();
        let covered = needed <= value;
        Ok((!covered).then(|| format!("the account's {value} do not cover {needed} reserved by its orders")))
    }

    /// Cancels an order. One of the batch under way is found cancelled when the batch is to be stored.
    pub(crate) async fn cancel(&mut self, preimage: OrderPreimage) -> Result<(), ServeError> {
        let nonce = preimage.nonce();
        let Some(mut record) = self.book.orders.active(nonce).cloned() else {
            let (state, _) = self.book.orders.state(nonce).ok_or(ServeError::NoOrder)?;
            return Err(ServeError::OrderArchived(state));
        };
        record.state = OrderState::Canceled;
        info!(account = %record.submitted.order.account, nonce = %record.nonce(), "order cancelled");
        self.commit(vec![Write::Order(record)]).await?;
        Ok(())
    }
}

/// The rules that need neither account nor book.
fn check_order(submitted: &SubmittedOrder) -> Result<(), ServeError> {
    let order = &submitted.order;
    at_most("listed nodes", order.allowed_nodes.len(), MAX_LISTED_NODES)?;
    at_most("listed nodes", order.denied_nodes.len(), MAX_LISTED_NODES)?;
    at_most("addresses", submitted.addresses.len(), MAX_ADDRESSES)?;
    for address in &submitted.addresses {
        at_most("bytes of an address", address.0.len(), MAX_ADDRESS_BYTES)?;
    }
    submitted.validate()?;
    if order.bid().is_some_and(|bid| bid.sidecar) {
        return Err(ServeError::Unsupported("sidecar channels"));
    }
    if submitted.signature_is_valid() { Ok(()) } else { Err(ServeError::OrderSignature) }
}
