//! What a person asks for: on its way to the risk gate, and back.

use bitcoin::Txid;
use thiserror::Error;
use tidegate_engine::gate::RiskRefusal;
use tidegate_ports::{NodeError, StoreError};
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::OrderNonce;
use tidegate_trader::{
    BumpAccount, BumpError, CancelError, CloseAccount, CloseError, DepositAccount, Gone, Modified, ModifyError,
    NewOrder, OpenAccount, OpenError, Reaction, RenewAccount, ReplaceError, SubmitError, WithdrawAccount,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};

/// Wishes that wait at most; callers wait beyond that.
const WAITING: usize = 16;

/// Something that a person wants done.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Open an account.
    Open(OpenAccount),
    /// Close one.
    Close(CloseAccount),
    /// Pay into one.
    Deposit(DepositAccount),
    /// Pay out of one.
    Withdraw(WithdrawAccount),
    /// Move its expiry.
    Renew(RenewAccount),
    /// Raise the fee of its unconfirmed transaction.
    Bump(BumpAccount),
    /// Place an order.
    Submit(Box<NewOrder>),
    /// Cancel one.
    Cancel(OrderNonce),
    /// Place an order in the place of an open one.
    Replace(OrderNonce, Box<NewOrder>),
    /// Do what the switch says: journal how it was turned and, when trading is stopped, cancel what is open.
    Obey,
}

/// What came of a wish.
#[derive(Clone, Debug)]
pub enum Done {
    /// An account, opened or changed.
    Account(Box<Account>),
    /// A change of an account, and its transaction.
    Modified(Box<Modified>),
    /// The closing transaction.
    Closed(Txid),
    /// The name of a new order.
    Placed(OrderNonce),
    /// What became of the open orders when trading was stopped; nothing when it was resumed.
    Obeyed(Cancelled),
    /// Nothing to tell.
    Nothing,
}

/// What became of the open orders when all of them were to be cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// They are in no book any more.
    pub cancelled: Vec<OrderNonce>,
    /// Not yet, and why.
    pub left: Vec<(OrderNonce, String)>,
}

/// Why a wish was not carried out.
#[derive(Clone, Debug, Error)]
pub enum WishError {
    /// The risk gate refused it.
    #[error("refused by the limits of this agent: {0}")]
    Refused(#[from] RiskRefusal),
    /// A promise was broken before: nothing is placed until a restart.
    #[error("trading is halted after a broken promise: find the cause in the log, then restart the agent")]
    Halted,
    /// An operator stopped trading.
    #[error("trading is stopped by {by}{}: resume it first", because(.why))]
    Stopped {
        /// Who.
        by: String,
        /// Why, in their own words.
        why: String,
    },
    /// What the gate must know could not be asked.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The journal could not be written, so nothing was done.
    #[error("the journal can not be written: {0}")]
    Journal(#[from] StoreError),
    /// As the trader says.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// As the trader says.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// As the trader says.
    #[error(transparent)]
    Modify(#[from] ModifyError),
    /// As the trader says.
    #[error(transparent)]
    Bump(#[from] BumpError),
    /// As the trader says.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// As the trader says.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// As the trader says.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The agent ends.
    #[error(transparent)]
    Gone(#[from] Gone),
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

impl WishError {
    /// What follows from it.
    pub fn reaction(&self) -> Reaction {
        match self {
            WishError::Refused(_) | WishError::Halted | WishError::Stopped { .. } => Reaction::DropIntent,
            WishError::Node(_) => Reaction::Retry,
            WishError::Journal(_) => Reaction::Exit,
            WishError::Open(error) => error.reaction(),
            WishError::Close(error) => error.reaction(),
            WishError::Modify(error) => error.reaction(),
            WishError::Bump(error) => error.reaction(),
            WishError::Submit(error) => error.reaction(),
            WishError::Cancel(error) => error.reaction(),
            WishError::Replace(error) => error.reaction(),
            WishError::Gone(error) => error.reaction(),
        }
    }
}

impl From<WishError> for Status {
    fn from(error: WishError) -> Status {
        let code = match error.reaction() {
            Reaction::Retry | Reaction::Exit => Code::Unavailable,
            Reaction::DropIntent => Code::FailedPrecondition,
            Reaction::HaltTrading => Code::Internal,
        };
        Status::new(code, harmless(&error.to_string()))
    }
}

/// Longest sentence that a client is told.
const MAX_SENTENCE: usize = 1_000;

/// A sentence without control characters: part of it may be another's words, and it is shown on a terminal.
pub(super) fn harmless(sentence: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    sentence.chars().take(MAX_SENTENCE).map(shown).collect()
}

/// A wish with the way back for its answer.
#[derive(Debug)]
pub struct Asked {
    /// The wish.
    pub wish: Wish,
    /// Who asks, in their own words: printable and short.
    pub by: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Done, WishError>>,
}

/// Where wishes are handed in. They are carried out one after the other, between two decisions of the strategy, and
/// also when the one who asked has gone meanwhile.
#[derive(Clone, Debug)]
pub struct Wishes(mpsc::Sender<Asked>);

impl Wishes {
    /// A place for wishes, and the end from which they are taken.
    pub fn new() -> (Wishes, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Wishes(sender), receiver)
    }

    /// Hands a wish in and waits until it is carried out or refused.
    ///
    /// # Errors
    /// [`WishError`] by variant.
    pub async fn ask(&self, wish: Wish, by: &str) -> Result<Done, WishError> {
        let (answer, answered) = oneshot::channel();
        let by: String = harmless(by).chars().take(64).collect();
        let by = if by.is_empty() { "a client".to_owned() } else { by };
        self.0.send(Asked { wish, by, answer }).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ports::LinkError;

    #[test]
    fn words_of_a_venue_do_no_harm_on_a_terminal() {
        let reason = format!("\u{1b}]0;owned\u{7}\r\nok {}", "x".repeat(5_000));
        let error = WishError::Cancel(CancelError::Venue(LinkError::Refused { call: "CancelOrder", reason }));
        let status = Status::from(error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().starts_with("the venue refused CancelOrder: \u{fffd}]0;owned"), "{status:?}");
        assert!(!status.message().chars().any(char::is_control));
        assert_eq!(status.message().chars().count(), MAX_SENTENCE);
    }
}
