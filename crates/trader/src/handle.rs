//! The handle by which the rest of the program speaks to a trader.

use crate::config::{CloseAccount, NewOrder, OpenAccount, Status, TraderConfig};
use crate::desk::{Desk, Write};
use crate::error::{CancelError, CloseError, Gone, OpenError, SubmitError};
use crate::run::Trader;
use bitcoin::Txid;
use core::future::poll_fn;
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use std::sync::Arc;
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::units::Sats;

/// Commands that wait for the trader at most; callers wait beyond that.
const COMMANDS: usize = 64;

/// A request with the way back for its answer.
pub(crate) enum Command {
    Open(OpenAccount, oneshot::Sender<Result<Account, OpenError>>),
    Close(CloseAccount, oneshot::Sender<Result<Txid, CloseError>>),
    Submit(Box<NewOrder>, oneshot::Sender<Result<OrderNonce, SubmitError>>),
    Cancel(OrderNonce, oneshot::Sender<Result<(), CancelError>>),
}

/// Speaks to a trader. Clones speak to the same one.
///
/// Commands are carried out one after the other, in the order in which they arrive; batches go on meanwhile. A command
/// waits until the trader has read its store and reached its node.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    stop: mpsc::Sender<()>,
    desk: Arc<Desk>,
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Handle")
    }
}

/// What [`crate::Trader::run`] consumes.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: mpsc::Receiver<()>,
    pub(crate) writes: mpsc::Receiver<Write>,
}

/// A trader that is not running yet, and its handle. Nothing happens until [`Trader::run`] is polled.
pub fn trader(config: TraderConfig) -> (Handle, Trader) {
    let (desk, writes) = Desk::new(config);
    let desk = Arc::new(desk);
    let (commands, command_inbox) = mpsc::channel(COMMANDS);
    let (stop, stop_inbox) = mpsc::channel(1);
    let inbox = Inbox { commands: command_inbox, stop: stop_inbox, writes };
    (Handle { commands, stop, desk: Arc::clone(&desk) }, Trader::new(desk, inbox))
}

impl Handle {
    /// Opens an account: reserves it, stores it, funds it. Returns it as pending.
    ///
    /// # Errors
    /// [`OpenError`] by variant.
    pub async fn open_account(&self, request: OpenAccount) -> Result<Account, OpenError> {
        self.ask(|answer| Command::Open(request, answer)).await?
    }

    /// Closes an account, together with the venue or, once it is expired, alone.
    ///
    /// # Errors
    /// [`CloseError`] by variant.
    pub async fn close_account(&self, request: CloseAccount) -> Result<Txid, CloseError> {
        self.ask(|answer| Command::Close(request, answer)).await?
    }

    /// Places an order.
    ///
    /// # Errors
    /// [`SubmitError`] by variant.
    pub async fn submit_order(&self, request: NewOrder) -> Result<OrderNonce, SubmitError> {
        self.ask(|answer| Command::Submit(Box::new(request), answer)).await?
    }

    /// Cancels an order.
    ///
    /// # Errors
    /// [`CancelError`] by variant.
    pub async fn cancel_order(&self, nonce: OrderNonce) -> Result<(), CancelError> {
        self.ask(|answer| Command::Cancel(nonce, answer)).await?
    }

    /// What the trader has and does. Answers at once, also while commands wait; before the trader has read its store it
    /// waits for that, so that an empty answer means that there is nothing.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn status(&self) -> Result<Status, Gone> {
        let mut bell = self.desk.listen();
        loop {
            match self.desk.note(|moment| (moment.ended, moment.ready)) {
                (true, _) => return Err(Gone),
                (false, true) => return Ok(status(&self.desk)),
                (false, false) => bell.select_next_some().await,
            }
        }
    }

    /// Ends the trader: [`Trader::run`] returns. What was begun goes on at the next start. A trader that is not running
    /// is left alone.
    pub async fn shutdown(&self) {
        // Full means that a shutdown is on its way already; closed, that the trader ended.
        drop(self.stop.clone().try_send(()));
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        let mut commands = self.commands.clone();
        poll_fn(|context| commands.poll_ready(context)).await.map_err(|_| Gone)?;
        commands.start_send(command(answer)).map_err(|_| Gone)?;
        answered.await.map_err(|oneshot::Canceled| Gone)
    }
}

fn status(desk: &Desk) -> Status {
    desk.look(|book, moment| {
        let reserved = |account: &Account| (account.key(), book.reserved(account).unwrap_or(Sats::MAX));
        let pending = book.staged.values().filter(|batch| batch.standing == crate::book::Standing::Active);
        Status {
            accounts: book.accounts.values().cloned().collect(),
            orders: book.orders.values().cloned().collect(),
            leases: book.leases.values().cloned().collect(),
            reserved: book.accounts.values().map(reserved).collect::<std::collections::BTreeMap<AccountKey, Sats>>(),
            subscribed: !moment.subscribed.is_empty(),
            subscribed_accounts: moment.subscribed.clone(),
            connected: moment.connected,
            pending_batches: pending.map(|batch| batch.batch_id).collect(),
            unsure_orders: moment.unsure.len(),
            node: moment.node.as_ref().map(|node| node.id),
            terms: moment.terms.clone(),
            best_height: moment.best_height,
            events_count: book.events,
            sequence: moment.sequence,
        }
    })
}
