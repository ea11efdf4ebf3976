//! What is asked of a trader, on its way from a handle to the one task.

use crate::config::{
    AccountQuote, BumpAccount, CloseAccount, DepositAccount, Modified, NewOrder, OpenAccount, QuoteAccount,
    RenewAccount, WithdrawAccount,
};
use crate::desk::Write;
use crate::error::{BumpError, CancelError, CloseError, ModifyError, OpenError, QuoteError, ReplaceError, SubmitError};
use bitcoin::Txid;
use futures_channel::{mpsc, oneshot};
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::OrderNonce;

/// A request with the way back for its answer.
pub(crate) enum Command {
    Open(OpenAccount, oneshot::Sender<Result<Account, OpenError>>),
    Quote(QuoteAccount, oneshot::Sender<Result<AccountQuote, QuoteError>>),
    Deposit(DepositAccount, oneshot::Sender<Result<Modified, ModifyError>>),
    Withdraw(WithdrawAccount, oneshot::Sender<Result<Modified, ModifyError>>),
    Renew(RenewAccount, oneshot::Sender<Result<Modified, ModifyError>>),
    Bump(BumpAccount, oneshot::Sender<Result<(), BumpError>>),
    Close(CloseAccount, oneshot::Sender<Result<Txid, CloseError>>),
    Submit(Box<NewOrder>, oneshot::Sender<Result<OrderNonce, SubmitError>>),
    Cancel(OrderNonce, oneshot::Sender<Result<(), CancelError>>),
    Replace(OrderNonce, Box<NewOrder>, oneshot::Sender<Result<OrderNonce, ReplaceError>>),
}

/// What [`crate::Trader::run`] consumes.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: mpsc::Receiver<()>,
    pub(crate) writes: mpsc::Receiver<Write>,
}
