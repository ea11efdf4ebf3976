//! The handle by which the rest of the program speaks to a trader.

use crate::command::Command;
use crate::config::{
    AccountQuote, BumpAccount, CloseAccount, DepositAccount, Modified, NewOrder, OpenAccount, QuoteAccount,
    RenewAccount, WithdrawAccount,
};
use crate::desk::Desk;
use crate::error::{
    BumpError, CancelError, CloseError, Gone, ModifyError, OpenError, QuoteError, ReplaceError, SubmitError,
};
use crate::status::Status;
use crate::stuck;
use crate::subscribe::subscribable;
use bitcoin::Txid;
use core::future::poll_fn;
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::units::Sats;

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

impl Handle {
    pub(crate) fn new(commands: mpsc::Sender<Command>, stop: mpsc::Sender<()>, desk: Arc<Desk>) -> Handle {
        Handle { commands, stop, desk }
    }

    /// Opens an account: reserves it, stores it, funds it. Returns it as pending.
    ///
    /// # Errors
    /// [`OpenError`] by variant.
    pub async fn open_account(&self, request: OpenAccount) -> Result<Account, OpenError> {
        self.ask(|answer| Command::Open(request, answer)).await?
    }

    /// What it would cost to fund an account. Nothing happens.
    ///
    /// # Errors
    /// [`QuoteError`] by variant.
    pub async fn quote_account(&self, request: QuoteAccount) -> Result<AccountQuote, QuoteError> {
        self.ask(|answer| Command::Quote(request, answer)).await?
    }

    /// Adds money of the node's wallet to an account, and renews it when asked to. Returns it as pending.
    ///
    /// # Errors
    /// [`ModifyError`] by variant.
    pub async fn deposit(&self, request: DepositAccount) -> Result<Modified, ModifyError> {
        self.ask(|answer| Command::Deposit(request, answer)).await?
    }

    /// Pays from an account, and renews it when asked to. Returns it as pending.
    ///
    /// # Errors
    /// [`ModifyError`] by variant.
    pub async fn withdraw(&self, request: WithdrawAccount) -> Result<Modified, ModifyError> {
        self.ask(|answer| Command::Withdraw(request, answer)).await?
    }

    /// Moves the expiry of an account, also of an expired one. Returns it as pending.
    ///
    /// # Errors
    /// [`ModifyError`] by variant.
    pub async fn renew(&self, request: RenewAccount) -> Result<Modified, ModifyError> {
        self.ask(|answer| Command::Renew(request, answer)).await?
    }

    /// Raises the fee of an account's unconfirmed transaction. Repeating replaces the earlier raise.
    ///
    /// # Errors
    /// [`BumpError`] by variant.
    pub async fn bump(&self, request: BumpAccount) -> Result<(), BumpError> {
        self.ask(|answer| Command::Bump(request, answer)).await?
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

    /// Puts a new order in the place of another one, which is cancelled. Value that is reserved for the old one counts
    /// as free for the new one.
    ///
    /// # Errors
    /// [`ReplaceError`] by variant; [`ReplaceError::Submit`] before the old one was cancelled leaves it alone.
    pub async fn replace_order(&self, old: OrderNonce, request: NewOrder) -> Result<OrderNonce, ReplaceError> {
        self.ask(|answer| Command::Replace(old, Box::new(request), answer)).await?
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

    /// Ends the trader: [`crate::Trader::run`] returns. What was begun goes on at the next start. A trader that is not
    /// running is left alone.
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
        // The stream keeps an account whose change is unconfirmed; it takes part again once it is confirmed.
        let subscribed: BTreeSet<AccountKey> = subscribable(book).intersection(&moment.subscribed).copied().collect();
        Status {
            accounts: book.accounts.values().cloned().collect(),
            orders: book.orders.values().cloned().collect(),
            leases: book.leases.values().cloned().collect(),
            reserved: book.accounts.values().map(reserved).collect::<std::collections::BTreeMap<AccountKey, Sats>>(),
            subscribed: !subscribed.is_empty(),
            subscribed_accounts: subscribed,
            connected: moment.connected,
            pending_batches: pending.map(|batch| batch.batch_id).collect(),
            unsure_orders: moment.unsure.len(),
            stuck: stuck::stuck(book, moment, desk.config.stuck_blocks),
            outgrown_orders: moment.outgrown,
            node: moment.node.as_ref().map(|node| node.id),
            terms: moment.terms.clone(),
            best_height: moment.best_height,
            placed_at: book.placed.clone(),
            events_count: book.events,
            movements: book.movements.values().cloned().collect(),
            batches: moment.tally.clone(),
            final_batches: book.batches.len(),
            sequence: moment.sequence,
        }
    })
}
