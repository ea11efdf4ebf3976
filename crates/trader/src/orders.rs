//! Orders: placing, cancelling, and finding out what became of them.
//!
//! An order is stored before it is sent. When the venue's answer does not arrive, the order stays submitted and its
//! state is asked for until it is known: a second order in its place would be a second commitment.

use crate::book::{Book, Update};
use crate::config::NewOrder;
use crate::desk::Desk;
use crate::error::{CancelError, SubmitError};
use tidegate_ports::{Entropy, LinkError, NodeData, NodeInfo, Signer, Submission, Terms, TraderEnv, VenueLink};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::fees::reserved_for;
use tidegate_protocol::keys::{FAMILY_MULTISIG, KeyDescriptor, MultisigKey, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{
    ConfirmationConstraint, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder, SubmittedOrder,
};
use tidegate_protocol::units::UnitError;

/// Places an order: validate, derive its key, sign, store, submit.
///
/// # Errors
/// [`SubmitError`] by variant.
///
/// # Source
/// Protocol notes, batch §1.
pub(crate) async fn submit<E: TraderEnv>(env: &E, desk: &Desk, request: NewOrder) -> Result<OrderNonce, SubmitError> {
    let account = desk.account(request.account).ok_or(SubmitError::UnknownAccount(request.account))?;
    let terms = env.link().terms().await?;
    desk.note(|moment| moment.terms = Some(terms.clone()));
    if !terms.durations.contains_key(&request.duration) {
        return Err(SubmitError::UnknownDuration(request.duration));
    }
    check_zero_conf(&request, desk.batch_version())?;
    let node = env.node().info().await?;
    let preimage = OrderPreimage::new(env.entropy().draw());
    let order = order(request, preimage.nonce());
    let multisig = env.signer().derive_next_key(FAMILY_MULTISIG).await?;
    let unsigned = submitted(&order, &node, multisig);
    unsigned.validate()?;
    let own = own(order, preimage, multisig, &terms)?;
    desk.read(|book| fits(book, &own))?;
    let signature = env.signer().sign_message(&own.order.digest(), account.locator).await?;
    let submitted = SubmittedOrder { signature, ..unsigned };
    let stored = own.clone();
    desk.commit(move |book| fits(book, &stored).map(|()| (vec![Update::Order(Box::new(stored.clone()))], ()))).await?;
    send(env, desk, &submitted).await
}

/// Submits a stored order.
async fn send<E: TraderEnv>(env: &E, desk: &Desk, submitted: &SubmittedOrder) -> Result<OrderNonce, SubmitError> {
    let nonce = submitted.order.nonce;
    let reason = match env.link().submit(submitted).await {
        Ok(Submission::Accepted) => {
            tracing::info!(%nonce, account = %submitted.order.account, rate = %submitted.order.rate, "order in the book");
            return Ok(nonce);
        }
        Ok(Submission::Invalid { reason }) | Err(LinkError::Refused { reason, .. }) => reason,
        Err(source @ (LinkError::Unreachable { .. } | LinkError::BadAnswer { .. })) => {
            return Err(unknown(desk, nonce, source));
        }
        Err(source @ (LinkError::NoOrder | LinkError::NoSnapshot)) => return Err(unknown(desk, nonce, source)),
    };
    set_state(desk, nonce, OrderState::Failed).await;
    Err(SubmitError::Refused { nonce, reason })
}

fn unknown(desk: &Desk, nonce: OrderNonce, source: LinkError) -> SubmitError {
    desk.note(|moment| moment.unsure.insert(nonce));
    desk.ring();
    SubmitError::OutcomeUnknown { nonce, source }
}

/// An unconfirmed channel needs the batch version that knows it, and a channel type with anchors.
fn check_zero_conf(request: &NewOrder, version: BatchVersion) -> Result<(), SubmitError> {
    let wanted = match &request.side {
        OrderSide::Ask(ask) => ask.confirmation == ConfirmationConstraint::OnlyZeroConf,
        OrderSide::Bid(bid) => bid.zero_conf,
    };
    let anchors = match request.channel_type {
        OrderChannelType::PeerDependent => false,
        OrderChannelType::ScriptEnforced | OrderChannelType::SimpleTaproot => true,
    };
    if wanted && !(version.zero_conf() && anchors) { Err(SubmitError::ZeroConf) } else { Ok(()) }
}

fn order(request: NewOrder, nonce: OrderNonce) -> Order {
    Order {
        nonce,
        version: OrderVersion::V5,
        account: request.account,
        auction: request.auction,
        rate: request.rate,
        amount: request.units.to_sats(),
        min_units: request.min_units,
        duration: request.duration,
        max_batch_fee_rate: request.max_batch_fee_rate,
        channel_type: request.channel_type,
        allowed_nodes: request.allowed_nodes,
        denied_nodes: request.denied_nodes,
        public: false,
        side: request.side,
    }
}

fn submitted(order: &Order, node: &NodeInfo, multisig: KeyDescriptor) -> SubmittedOrder {
    SubmittedOrder {
        order: order.clone(),
        signature: Vec::new(),
        multisig: MultisigKey::new(multisig.point),
        node: node.id,
        addresses: node.addresses.clone(),
    }
}

fn own(order: Order, preimage: OrderPreimage, multisig: KeyDescriptor, terms: &Terms) -> Result<OwnOrder, UnitError> {
    let units_unfulfilled = order.units()?;
    let (state, fee_ceiling) = (OrderState::Submitted, terms.execution_fee);
    let extension_quoted = terms.auto_renew_blocks;
    Ok(OwnOrder { order, preimage: Some(preimage), state, units_unfulfilled, multisig, fee_ceiling, extension_quoted })
}

/// Whether the account takes orders and covers this one besides those that it backs already.
fn fits(book: &Book, own: &OwnOrder) -> Result<(), SubmitError> {
    let key = own.order.account;
    let account = book.accounts.get(&key).ok_or(SubmitError::UnknownAccount(key))?;
    match account.state {
        AccountState::Open | AccountState::PendingUpdate | AccountState::PendingBatch => {}
        AccountState::Initiated | AccountState::PendingOpen | AccountState::Expired | AccountState::PendingClosed => {
            return Err(SubmitError::AccountState(account.state));
        }
        AccountState::Closed | AccountState::CanceledAfterRecovery | AccountState::ExpiredPendingUpdate => {
            return Err(SubmitError::AccountState(account.state));
        }
    }
    let needed = needed(book, account, own)?;
    if needed > account.value { Err(SubmitError::Funds { needed, available: account.value }) } else { Ok(()) }
}

fn needed(book: &Book, account: &Account, own: &OwnOrder) -> Result<tidegate_protocol::units::Sats, UnitError> {
    let mine = reserved_for(own, &own.fee_ceiling, account.terms.version)?;
    book.reserved(account)?.checked_add(mine).ok_or(UnitError::Overflow("reserved value"))
}

/// Cancels an order at the venue, then here.
///
/// # Errors
/// [`CancelError`] by variant.
///
/// # Source
/// Protocol notes, batch §1 "Cancel".
pub(crate) async fn cancel<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), CancelError> {
    let own = desk.read(|book| book.orders.get(&nonce).cloned()).ok_or(CancelError::Unknown(nonce))?;
    match own.state {
        OrderState::Canceled => return Ok(()),
        OrderState::Executed | OrderState::Expired | OrderState::Failed => {
            return Err(CancelError::Archived(own.state));
        }
        OrderState::Submitted | OrderState::Cleared | OrderState::PartiallyFilled => {}
    }
    let preimage = own.preimage.ok_or(CancelError::NoPreimage)?;
    match env.link().cancel(preimage).await {
        Ok(()) => {
            set_state(desk, nonce, OrderState::Canceled).await;
            tracing::info!(%nonce, "order cancelled");
            Ok(())
        }
        Err(error) => {
            // Cancelled or not: the venue will tell.
            desk.note(|moment| moment.unsure.insert(nonce));
            desk.ring();
            Err(error.into())
        }
    }
}

/// Sets the state of an order that is not archived yet.
async fn set_state(desk: &Desk, nonce: OrderNonce, state: OrderState) {
    let edit = move |book: &Book| match book.orders.get(&nonce).filter(|own| !own.state.is_archived()) {
        Some(own) => vec![Update::Order(Box::new(OwnOrder { state, ..own.clone() }))],
        None => Vec::new(),
    };
    desk.update(edit).await;
}

/// Asks the venue for the state of an order, and adopts what is decided: unknown there means failed, cancelled means
/// cancelled. Other differences are the batches' to settle.
///
/// # Errors
/// [`LinkError`] when the venue does not tell.
///
/// # Source
/// Protocol notes, batch §1 "Start-up synchronisation".
pub(crate) async fn reconcile<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), LinkError> {
    let active = |book: &Book| book.orders.get(&nonce).is_some_and(|own| !own.state.is_archived());
    if desk.read(active) {
        match env.link().order_state(nonce).await {
            Err(LinkError::NoOrder) => {
                tracing::warn!(%nonce, "the venue does not know the order");
                set_state(desk, nonce, OrderState::Failed).await;
            }
            Ok((OrderState::Canceled, _)) => set_state(desk, nonce, OrderState::Canceled).await,
            Ok((state, units)) => compare(desk, nonce, state, units),
            Err(error) => return Err(error),
        }
    }
    desk.note(|moment| moment.unsure.remove(&nonce));
    Ok(())
}

fn compare(desk: &Desk, nonce: OrderNonce, state: OrderState, units: tidegate_protocol::units::UnitCount) {
    let own = desk.read(|book| book.orders.get(&nonce).cloned());
    if let Some(own) = own.filter(|own| (own.state, own.units_unfulfilled) != (state, units)) {
        tracing::warn!(%nonce, ours = ?own.state, venue = ?state, "the venue has the order in another state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use tidegate_protocol::units::{Sats, UnitCount};

    fn book(account: Account) -> Book {
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(account)));
        book
    }

    #[test]
    fn only_live_accounts_take_orders() {
        use AccountState as S;
        let takes = |state| fits(&book(Account { state, ..fixtures::account(1) }), &fixtures::own_ask(1));
        for state in [S::Open, S::PendingUpdate, S::PendingBatch] {
            assert_eq!(takes(state), Ok(()), "{state:?}");
        }
        let refused = [S::Initiated, S::PendingOpen, S::Expired, S::PendingClosed, S::Closed];
        for state in refused.into_iter().chain([S::CanceledAfterRecovery, S::ExpiredPendingUpdate]) {
            assert_eq!(takes(state), Err(SubmitError::AccountState(state)));
        }
        assert!(matches!(fits(&Book::default(), &fixtures::own_ask(1)), Err(SubmitError::UnknownAccount(_))));
    }

    #[test]
    fn the_orders_of_an_account_never_cost_more_than_it_holds() {
        let mut book = book(fixtures::account(1));
        let first = fixtures::own_ask(1);
        let one = needed(&book, &fixtures::account(1), &first).unwrap();
        assert!(one >= Sats::constant(500_000), "an ask locks its units: {one}");
        book.apply(Update::Order(Box::new(first)));
        let mut second = fixtures::own_ask(2);
        second.order.account = fixtures::account_key(1);
        let found = fits(&book, &second);
        assert!(matches!(found, Err(SubmitError::Funds { needed, .. }) if needed > one), "{found:?}");
        second.order.amount = Sats::constant(100_000);
        second.units_unfulfilled = UnitCount::new(1);
        assert_eq!(fits(&book, &second), Ok(()));
    }

    #[test]
    fn zero_conf_needs_the_flag_and_an_anchor_type() {
        let request = |channel_type, zero_conf| NewOrder {
            account: fixtures::account_key(1),
            rate: tidegate_protocol::units::RatePerBillion::new(1),
            units: UnitCount::new(1),
            min_units: UnitCount::new(1),
            duration: tidegate_protocol::units::BlockCount::new(2016),
            max_batch_fee_rate: tidegate_protocol::units::SatPerKw::FLOOR,
            channel_type,
            auction: tidegate_protocol::order::AuctionType::Inbound,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            side: OrderSide::Bid(tidegate_protocol::order::BidTerms { zero_conf, ..Default::default() }),
        };
        let (with, without) = (BatchVersion(58), BatchVersion(42));
        assert_eq!(check_zero_conf(&request(OrderChannelType::PeerDependent, false), without), Ok(()));
        assert_eq!(check_zero_conf(&request(OrderChannelType::ScriptEnforced, true), with), Ok(()));
        assert_eq!(check_zero_conf(&request(OrderChannelType::PeerDependent, true), with), Err(SubmitError::ZeroConf));
        assert_eq!(
            check_zero_conf(&request(OrderChannelType::ScriptEnforced, true), without),
            Err(SubmitError::ZeroConf)
        );
    }
}
