//! Orders: placing, cancelling, and finding out what became of them.
//!
//! An order is stored before it is sent. When the venue's answer does not arrive, the order stays submitted and its
//! state is asked for until it is known: a second order in its place would be a second commitment.

use crate::book::{Book, Update};
use crate::config::{FeeRise, NewOrder};
use crate::desk::Desk;
use crate::error::{CancelError, Reaction, ReplaceError, SubmitError};
use crate::machine::OrderFate;
use tidegate_ports::{
    Clock, Entropy, LinkError, NodeData, NodeInfo, Signer, Submission, Terms, Timestamp, TraderEnv, VenueLink,
};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::fees::{ExecutionFee, reserved_for};
use tidegate_protocol::keys::{AccountKey, FAMILY_MULTISIG, KeyDescriptor, MultisigKey, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{
    ConfirmationConstraint, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder, SubmittedOrder,
};
use tidegate_protocol::units::{Sats, UnitError};

/// Places an order: validate, derive its key, sign, store, submit.
///
/// # Errors
/// [`SubmitError`] by variant.
///
/// # Source
/// Protocol notes, batch §1.
pub(crate) async fn submit<E: TraderEnv>(env: &E, desk: &Desk, request: NewOrder) -> Result<OrderNonce, SubmitError> {
    let Signed { own, submitted, at } = make(env, desk, request, None).await?;
    let nonce = submitted.order.nonce;
    desk.note(|moment| moment.sending.insert(nonce));
    let edit = move |book: &Book| {
        let updates = || vec![Update::Order(Box::new(own.clone())), Update::Placed(nonce, at)];
        fits(book, &own, None).map(|()| (updates(), ()))
    };
    let stored = desk.commit(edit).await;
    if stored.is_err() {
        desk.note(|moment| moment.sending.remove(&nonce));
    }
    stored?;
    send(env, desk, &submitted).await
}

/// An order that is signed and neither stored nor sent.
struct Signed {
    own: OwnOrder,
    submitted: SubmittedOrder,
    at: Timestamp,
}

/// Validates and signs an order; what is reserved for the one that it replaces counts as free.
async fn make<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    request: NewOrder,
    replaced: Option<OrderNonce>,
) -> Result<Signed, SubmitError> {
    let account = desk.account(request.account).ok_or(SubmitError::UnknownAccount(request.account))?;
    let terms = env.link().terms().await?;
    desk.note(|moment| moment.terms = Some(terms.clone()));
    if !terms.durations.contains_key(&request.duration) {
        return Err(SubmitError::UnknownDuration(request.duration));
    }
    check_zero_conf(&request, desk.batch_version())?;
    let node = env.node().info().await?;
    check_features(&request, &node)?;
    let preimage = OrderPreimage::new(env.entropy().draw());
    let order = order(request, preimage.nonce());
    let multisig = env.signer().derive_next_key(FAMILY_MULTISIG).await?;
    let unsigned = submitted(&order, &node, multisig);
    unsigned.validate()?;
    let own = own(order, preimage, multisig, &terms)?;
    desk.read(|book| fits(book, &own, replaced))?;
    let signature = env.signer().sign_message(&own.order.digest(), account.locator).await?;
    Ok(Signed { own, submitted: SubmittedOrder { signature, ..unsigned }, at: env.clock().now() })
}

/// Puts an order in the place of another one: the old one is cancelled at the venue, then one commit ends it and stores
/// the new one, which is sent. A new one that cannot be placed leaves the old one alone.
///
/// # Errors
/// [`ReplaceError`] by variant. When it is unknown whether the old one was cancelled, nothing is placed.
pub(crate) async fn replace<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    old: OrderNonce,
    request: NewOrder,
) -> Result<OrderNonce, ReplaceError> {
    // Told twice, it would otherwise place two.
    cancellable(desk, old)?.ok_or(CancelError::Archived(OrderState::Canceled))?;
    let signed = make(env, desk, request, Some(old)).await?;
    cancel_at_venue(env, desk, old).await?;
    Ok(exchange(env, desk, old, OrderFate::Cancelled, signed).await?)
}

/// Ends an order that the venue does not hold any more, and places another one in the same commit.
async fn exchange<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    old: OrderNonce,
    fate: OrderFate,
    signed: Signed,
) -> Result<OrderNonce, SubmitError> {
    let Signed { own, submitted, at } = signed;
    let edit = move |book: &Book| {
        let mut updates = ended(book, old, fate);
        let verdict = fits(book, &own, Some(old));
        if verdict.is_ok() {
            updates.push(Update::Placed(own.order.nonce, at));
            updates.push(Update::Order(Box::new(own)));
        }
        Ok::<_, SubmitError>((updates, verdict))
    };
    let nonce = submitted.order.nonce;
    desk.note(|moment| moment.sending.insert(nonce));
    let stored = desk.commit(edit).await.and_then(|(verdict, _)| verdict);
    if stored.is_err() {
        desk.note(|moment| moment.sending.remove(&nonce));
    }
    stored?;
    tracing::info!(%old, new = %submitted.order.nonce, "order replaced");
    send(env, desk, &submitted).await
}

/// What is left of an order, as a new one.
fn again(own: &OwnOrder) -> NewOrder {
    let order = own.order.clone();
    NewOrder {
        account: order.account,
        rate: order.rate,
        units: own.units_unfulfilled,
        min_units: order.min_units,
        duration: order.duration,
        max_batch_fee_rate: order.max_batch_fee_rate,
        channel_type: order.channel_type,
        auction: order.auction,
        allowed_nodes: order.allowed_nodes,
        denied_nodes: order.denied_nodes,
        public: order.public,
        side: order.side,
    }
}

/// Whether what is left of a partly filled order may be placed again.
fn is_remainder(own: &OwnOrder) -> bool {
    own.state == OrderState::PartiallyFilled && own.units_unfulfilled >= own.order.min_units
}

/// Places what is left of an order that the venue dropped. When that cannot be, the order has failed.
///
/// # Errors
/// [`SubmitError`] for what may succeed later.
pub(crate) async fn resubmit<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), SubmitError> {
    let done = || desk.note(|moment| moment.dropped.remove(&nonce));
    let dropped = desk.read(|book| book.orders.get(&nonce).filter(|own| is_remainder(own)).cloned());
    let Some(own) = dropped else {
        done();
        return Ok(());
    };
    let placed = match make(env, desk, again(&own), Some(nonce)).await {
        Ok(signed) => exchange(env, desk, nonce, OrderFate::Dropped, signed).await,
        Err(error) => Err(error),
    };
    match placed {
        Err(error) if error.reaction() == Reaction::Retry => return Err(error),
        Err(error) => {
            tracing::warn!(%nonce, %error, "what the venue dropped of the order is not placed again");
            end(desk, nonce, OrderFate::Dropped).await;
        }
        Ok(new) => tracing::info!(%nonce, %new, units = own.units_unfulfilled.get(), "the remainder is placed again"),
    }
    done();
    Ok(())
}

/// Whether the venue's fee may exceed what an order agreed to: such an order is never matched.
pub(crate) fn is_outgrown(own: &OwnOrder, fee: &ExecutionFee) -> bool {
    !own.state.is_archived() && (fee.base > own.fee_ceiling.base || fee.rate_ppm > own.fee_ceiling.rate_ppm)
}

/// Ends an order whose fee ceiling the venue's terms have outgrown, or signs it anew with the new fee, as configured.
///
/// # Errors
/// [`ReplaceError`]; tried again later.
pub(crate) async fn outgrown<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), ReplaceError> {
    let Some(own) = desk.read(|book| book.orders.get(&nonce).cloned()) else { return Ok(()) };
    tracing::warn!(%nonce, base = %own.fee_ceiling.base, ppm = own.fee_ceiling.rate_ppm, action = ?desk.config.on_fee_rise,
        "the venue's fee rose above what the order agreed to");
    match desk.config.on_fee_rise {
        FeeRise::Cancel => cancel(env, desk, nonce).await?,
        FeeRise::Resign => match replace(env, desk, nonce, again(&own)).await {
            Ok(new) => tracing::info!(%nonce, %new, "signed anew with the new fee"),
            // What cannot be signed anew must not stay in the book either: its matches would be refused.
            Err(ReplaceError::Submit(error)) if error.reaction() != Reaction::Retry => {
                tracing::warn!(%nonce, %error, "the order is not signed anew");
                cancel(env, desk, nonce).await?;
            }
            Err(error) => return Err(error),
        },
    }
    desk.note(|moment| moment.outgrown = moment.outgrown.saturating_add(1));
    Ok(())
}

/// How long after an account's confirmation a refusal of its order is not believed: the venue's node may see the block
/// later than ours.
const VENUE_CATCHES_UP_MS: u64 = 20_000;
/// Between two such attempts.
const ONCE_MORE_MS: u64 = 2_000;

/// Hands the order to the venue, again while it may not have heard that the account is open.
async fn hand_over<E: TraderEnv>(env: &E, desk: &Desk, order: &SubmittedOrder) -> Result<Submission, LinkError> {
    loop {
        let sent = env.link().submit(order).await;
        let confirmed = desk.note(|moment| moment.confirmed.get(&order.order.account).copied());
        let behind = confirmed.is_some_and(|at| env.clock().now() < at.plus_ms(VENUE_CATCHES_UP_MS));
        match sent {
            Err(LinkError::Refused { reason, .. }) if behind => {
                tracing::info!(nonce = %order.order.nonce, reason, "refused just after the account confirmed; once more");
                env.clock().sleep_until(env.clock().now().plus_ms(ONCE_MORE_MS)).await;
            }
            sent => return sent,
        }
    }
}

/// Submits a stored order.
async fn send<E: TraderEnv>(env: &E, desk: &Desk, submitted: &SubmittedOrder) -> Result<OrderNonce, SubmitError> {
    let nonce = submitted.order.nonce;
    let sent = hand_over(env, desk, submitted).await;
    desk.note(|moment| moment.sending.remove(&nonce));
    let refusal = match sent {
        Ok(Submission::Accepted) => {
            tracing::info!(%nonce, account = %submitted.order.account, rate = %submitted.order.rate, "order in the book");
            return Ok(nonce);
        }
        Ok(Submission::Invalid { reason }) => SubmitError::Invalid { nonce, reason },
        Err(LinkError::Refused { reason, .. }) => SubmitError::Refused { nonce, reason },
        Err(source @ (LinkError::Unreachable { .. } | LinkError::BadAnswer { .. })) => {
            return Err(unknown(desk, nonce, source));
        }
        Err(source @ (LinkError::NoOrder | LinkError::NoSnapshot)) => return Err(unknown(desk, nonce, source)),
    };
    end(desk, nonce, OrderFate::Dropped).await;
    Err(refusal)
}

fn unknown(desk: &Desk, nonce: OrderNonce, source: LinkError) -> SubmitError {
    desk.note(|moment| moment.doubt(nonce));
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

/// Largest channel that every node takes.
const LARGEST_USUAL_CHANNEL: Sats = Sats::constant(16_777_215);

/// What the order asks of channels the node must offer.
///
/// # Source
/// Protocol notes, batch §1 "Feature checks".
fn check_features(request: &NewOrder, node: &NodeInfo) -> Result<(), SubmitError> {
    if request.channel_type == OrderChannelType::SimpleTaproot && !node.taproot_channels {
        return Err(SubmitError::Taproot);
    }
    let (max, found) = (LARGEST_USUAL_CHANNEL, request.units.to_sats());
    if found > max && !node.large_channels { Err(SubmitError::LargeChannel { max, found }) } else { Ok(()) }
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
        public: request.public,
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
fn fits(book: &Book, own: &OwnOrder, replaced: Option<OrderNonce>) -> Result<(), SubmitError> {
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
    let needed = needed(book, account, own, replaced)?;
    if needed > account.value { Err(SubmitError::Funds { needed, available: account.value }) } else { Ok(()) }
}

fn needed(book: &Book, account: &Account, own: &OwnOrder, replaced: Option<OrderNonce>) -> Result<Sats, UnitError> {
    let mine = reserved_for(own, &own.fee_ceiling, account.terms.version)?;
    book.reserved_without(account, replaced)?.checked_add(mine).ok_or(UnitError::Overflow("reserved value"))
}

/// The order, when it can be cancelled; nothing when it is cancelled already.
fn cancellable(desk: &Desk, nonce: OrderNonce) -> Result<Option<OwnOrder>, CancelError> {
    let own = desk.read(|book| book.orders.get(&nonce).cloned()).ok_or(CancelError::Unknown(nonce))?;
    match own.state {
        OrderState::Canceled => Ok(None),
        OrderState::Executed | OrderState::Expired | OrderState::Failed => Err(CancelError::Archived(own.state)),
        OrderState::Submitted | OrderState::Cleared | OrderState::PartiallyFilled => Ok(Some(own)),
    }
}

/// Cancels an order at the venue, then here.
///
/// # Errors
/// [`CancelError`] by variant.
///
/// # Source
/// Protocol notes, batch §1 "Cancel".
pub(crate) async fn cancel<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), CancelError> {
    if let Some(fate) = cancel_at_venue(env, desk, nonce).await? {
        end(desk, nonce, fate).await;
        tracing::info!(%nonce, ?fate, "order cancelled");
    }
    Ok(())
}

/// Takes an order out of the venue's book. Returns what happened to it; nothing when it was cancelled before.
async fn cancel_at_venue<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    nonce: OrderNonce,
) -> Result<Option<OrderFate>, CancelError> {
    let Some(own) = cancellable(desk, nonce)? else { return Ok(None) };
    let preimage = own.preimage.ok_or(CancelError::NoPreimage)?;
    match env.link().cancel(preimage).await {
        Ok(()) => Ok(Some(OrderFate::Cancelled)),
        // It is in no book: what was wanted.
        Err(LinkError::NoOrder) => Ok(Some(OrderFate::Dropped)),
        Err(error) => {
            // Cancelled or not: the venue will tell.
            desk.note(|moment| moment.doubt(nonce));
            desk.ring();
            Err(error.into())
        }
    }
}

/// Takes orders that ended with the expiry of their account out of the venue's book, before the account is renewed: a
/// venue may keep them there, and match them again, although nothing is reserved for them here.
///
/// # Errors
/// [`LinkError`] when the venue is not reached; what it refuses to cancel is in no book.
///
/// # Source
/// Protocol notes, auctioneer §4.6: orders of expired accounts are not cancelled automatically.
pub(crate) async fn withdraw_expired<E: TraderEnv>(env: &E, desk: &Desk, key: AccountKey) -> Result<(), LinkError> {
    let expired: Vec<OrderPreimage> = desk.read(|book| {
        let own = book.orders.values().filter(|own| own.order.account == key && own.state == OrderState::Expired);
        own.filter_map(|own| own.preimage).collect()
    });
    for preimage in expired {
        match env.link().cancel(preimage).await {
            Ok(()) => tracing::info!(nonce = %preimage.nonce(), "an expired order is cancelled at the venue"),
            Err(error @ LinkError::Unreachable { .. }) => return Err(error),
            Err(error) => tracing::debug!(nonce = %preimage.nonce(), %error, "an expired order is not in the book"),
        }
    }
    Ok(())
}

fn ended(book: &Book, nonce: OrderNonce, fate: OrderFate) -> Vec<Update> {
    book.order_after(nonce, fate).map(Box::new).map(Update::Order).into_iter().collect()
}

/// Stores what happened to an order, when that changes it.
pub(crate) async fn end(desk: &Desk, nonce: OrderNonce, fate: OrderFate) {
    desk.update(move |book| ended(book, nonce, fate)).await;
}

/// Asks the venue for the state of an order, and adopts what is decided: unknown there means failed, cancelled means
/// cancelled. What is left of a partly filled order that the venue dropped is placed again. Other differences are the
/// batches' to settle.
///
/// # Errors
/// [`LinkError`] when the venue does not tell.
///
/// # Source
/// Protocol notes, batch §1 "Start-up synchronisation".
pub(crate) async fn reconcile<E: TraderEnv>(env: &E, desk: &Desk, nonce: OrderNonce) -> Result<(), LinkError> {
    let active = |book: &Book| book.orders.get(&nonce).is_some_and(|own| !own.state.is_archived());
    let doubt = desk.note(|moment| moment.unsure.get(&nonce).copied());
    if desk.read(active) && !desk.note(|moment| moment.sending.contains(&nonce)) {
        match env.link().order_state(nonce).await {
            Err(LinkError::NoOrder) => {
                tracing::warn!(%nonce, "the venue does not know the order");
                dropped(desk, nonce).await;
            }
            Ok((OrderState::Canceled, _)) => end(desk, nonce, OrderFate::Cancelled).await,
            Ok((state @ (OrderState::Failed | OrderState::Expired), _)) => {
                tracing::warn!(%nonce, ?state, "the venue dropped the order");
                dropped(desk, nonce).await;
            }
            Ok((state, units)) => compare(desk, nonce, state, units),
            Err(error) => return Err(error),
        }
    }
    desk.note(|moment| moment.resolve(nonce, doubt));
    Ok(())
}

/// The venue does not hold the order any more: it has failed, unless what is left of it is placed again by upkeep, or a
/// signed batch may still fill it.
async fn dropped(desk: &Desk, nonce: OrderNonce) {
    let (remainder, in_batch) = desk.read(|book| {
        let own = book.orders.get(&nonce);
        (own.is_some_and(is_remainder), own.is_some_and(|own| book.active_stage(own.order.account).is_some()))
    });
    if remainder && desk.config.resubmit_remainders && !in_batch {
        desk.note(|moment| moment.dropped.insert(nonce));
        desk.ring();
    } else {
        end(desk, nonce, OrderFate::Dropped).await;
    }
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
    use tidegate_protocol::units::UnitCount;

    fn book(account: Account) -> Book {
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(account)));
        book
    }

    #[test]
    fn only_live_accounts_take_orders() {
        use AccountState as S;
        let takes = |state| fits(&book(Account { state, ..fixtures::account(1) }), &fixtures::own_ask(1), None);
        for state in [S::Open, S::PendingUpdate, S::PendingBatch] {
            assert_eq!(takes(state), Ok(()), "{state:?}");
        }
        let refused = [S::Initiated, S::PendingOpen, S::Expired, S::PendingClosed, S::Closed];
        for state in refused.into_iter().chain([S::CanceledAfterRecovery, S::ExpiredPendingUpdate]) {
            assert_eq!(takes(state), Err(SubmitError::AccountState(state)));
        }
        assert!(matches!(fits(&Book::default(), &fixtures::own_ask(1), None), Err(SubmitError::UnknownAccount(_))));
    }

    #[test]
    fn the_orders_of_an_account_never_cost_more_than_it_holds() {
        let mut book = book(fixtures::account(1));
        let first = fixtures::own_ask(1);
        let one = needed(&book, &fixtures::account(1), &first, None).unwrap();
        assert!(one >= Sats::constant(500_000), "an ask locks its units: {one}");
        book.apply(Update::Order(Box::new(first)));
        let mut second = fixtures::own_ask(2);
        second.order.account = fixtures::account_key(1);
        let found = fits(&book, &second, None);
        assert!(matches!(found, Err(SubmitError::Funds { needed, .. }) if needed > one), "{found:?}");
        assert_eq!(fits(&book, &second, Some(fixtures::nonce(1))), Ok(()), "in place of the first");
        second.order.amount = Sats::constant(100_000);
        second.units_unfulfilled = UnitCount::new(1);
        assert_eq!(fits(&book, &second, None), Ok(()));
    }

    #[test]
    fn an_order_is_outgrown_when_either_part_of_the_fee_rose() {
        let own = fixtures::own_ask(1);
        let ExecutionFee { base, rate_ppm } = own.fee_ceiling;
        let more = base.checked_add(Sats::constant(1)).unwrap();
        for (fee, expected) in [
            (ExecutionFee { base, rate_ppm }, false),
            (ExecutionFee { base: Sats::ZERO, rate_ppm: 0 }, false),
            (ExecutionFee { base: more, rate_ppm: 0 }, true),
            (ExecutionFee { base: Sats::ZERO, rate_ppm: rate_ppm + 1 }, true),
        ] {
            assert_eq!(is_outgrown(&own, &fee), expected, "{fee:?}");
            let archived = OwnOrder { state: OrderState::Canceled, ..own.clone() };
            assert!(!is_outgrown(&archived, &fee));
        }
    }

    #[test]
    fn only_what_is_left_of_a_partly_filled_order_and_large_enough_is_placed_again() {
        let own = |state, left| OwnOrder { state, units_unfulfilled: UnitCount::new(left), ..fixtures::own_ask(1) };
        assert!(is_remainder(&own(OrderState::PartiallyFilled, 1)));
        assert!(!is_remainder(&own(OrderState::PartiallyFilled, 0)), "below the minimum");
        assert!(!is_remainder(&own(OrderState::Submitted, 5)), "the venue never had it");
        let left = own(OrderState::PartiallyFilled, 3);
        assert_eq!((again(&left).units, again(&left).rate), (UnitCount::new(3), left.order.rate));
    }

    fn request(channel_type: OrderChannelType, zero_conf: bool) -> NewOrder {
        NewOrder {
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
            public: false,
            side: OrderSide::Bid(tidegate_protocol::order::BidTerms { zero_conf, ..Default::default() }),
        }
    }

    #[test]
    fn channels_that_the_node_does_not_offer_are_not_ordered() {
        let node = |taproot_channels, large_channels| NodeInfo {
            id: fixtures::node(1),
            addresses: Vec::new(),
            network: "regtest".into(),
            best_height: Default::default(),
            synced: true,
            zero_conf: false,
            taproot_channels,
            large_channels,
            version: String::new(),
        };
        let taproot = request(OrderChannelType::SimpleTaproot, false);
        assert_eq!(check_features(&taproot, &node(false, true)), Err(SubmitError::Taproot));
        assert_eq!(check_features(&taproot, &node(true, false)), Ok(()));
        let of = |units| NewOrder { units: UnitCount::new(units), ..request(OrderChannelType::PeerDependent, false) };
        assert_eq!(check_features(&of(167), &node(false, false)), Ok(()));
        let (max, found) = (LARGEST_USUAL_CHANNEL, Sats::constant(16_800_000));
        assert_eq!(check_features(&of(168), &node(false, false)), Err(SubmitError::LargeChannel { max, found }));
        assert_eq!(check_features(&of(168), &node(false, true)), Ok(()));
    }

    #[test]
    fn zero_conf_needs_the_flag_and_an_anchor_type() {
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
