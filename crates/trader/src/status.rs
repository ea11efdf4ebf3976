//! What a trader says of itself.

use crate::book::{ChangeKind, Lease};
use crate::tally::BatchTally;
use bitcoin::Txid;
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Movement, Sequence, Terms, Timestamp};
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::OwnOrder;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

/// What a trader has and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// All accounts, closed ones too.
    pub accounts: Vec<Account>,
    /// All orders, archived ones too.
    pub orders: Vec<OwnOrder>,
    /// All leases, by channel.
    pub leases: Vec<Lease>,
    /// Account → value that its active orders could cost at worst.
    pub reserved: BTreeMap<AccountKey, Sats>,
    /// At least one account takes part in batches.
    pub subscribed: bool,
    /// Accounts that take part in batches.
    pub subscribed_accounts: BTreeSet<AccountKey>,
    /// The batch stream is open.
    pub connected: bool,
    /// Signed batches that are not settled.
    pub pending_batches: Vec<BatchId>,
    /// Orders whose state at the venue is not known.
    pub unsure_orders: usize,
    /// Transactions that are unconfirmed for too long, with what is known about them.
    pub stuck: Vec<Stuck>,
    /// Orders that were ended or signed anew since the start, because the venue's fee rose above what they agreed to.
    pub outgrown_orders: u64,
    /// Our node, once known.
    pub node: Option<NodeId>,
    /// The venue's terms when last asked.
    pub terms: Option<Terms>,
    /// Best height, once known.
    pub best_height: Option<BlockHeight>,
    /// When each order was made, as far as it is known.
    pub placed_at: BTreeMap<OrderNonce, Timestamp>,
    /// Entries of the order log.
    pub events_count: u64,
    /// What moved money of accounts, by account and transaction.
    pub movements: Vec<Movement>,
    /// What became of proposals since the start.
    pub batches: BatchTally,
    /// Final batches that we took part in, ever.
    pub final_batches: usize,
    /// Number of the store's last commit that this status was read from.
    pub sequence: Sequence,
}

/// What a transaction does to its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Funds it.
    Funding,
    /// A change or the close by its owner.
    Change(ChangeKind),
    /// A batch: the venue publishes it.
    Batch,
    /// It is not known what: the account was recovered or its store restored.
    Unknown,
}

/// A transaction of an account that is unconfirmed for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Account.
    pub account: AccountKey,
    /// Transaction.
    pub txid: Txid,
    /// What it does.
    pub waiting: Waiting,
    /// Best height when it was made.
    pub since: BlockHeight,
    /// Blocks since then.
    pub blocks: BlockCount,
    /// Its fee, when it is known.
    pub fee: Option<Sats>,
    /// Why the node refused it when it was published last, if it did.
    pub refusal: Option<String>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.waiting {
            Waiting::Funding => "funding",
            Waiting::Change(ChangeKind::Deposit) => "deposit",
            Waiting::Change(ChangeKind::Withdraw) => "withdrawal",
            Waiting::Change(ChangeKind::Renew) => "renewal",
            Waiting::Change(ChangeKind::Close) => "close",
            Waiting::Batch => "batch",
            Waiting::Unknown => "last transaction",
        };
        write!(f, "the {what} {} of account {} is unconfirmed for {}", self.txid, self.account, self.blocks)?;
        if let Some(fee) = self.fee {
            write!(f, ", with a fee of {fee}")?;
        }
        match (&self.refusal, self.waiting) {
            (Some(reason), _) => write!(f, "; the node refuses it: {reason}; it is offered again"),
            (None, Waiting::Batch) => f.write_str("; the venue publishes it and can raise its fee"),
            (None, Waiting::Change(ChangeKind::Renew)) => {
                f.write_str("; it is published again; no output of it is the wallet's, so its fee cannot be raised")
            }
            (None, Waiting::Funding | Waiting::Change(_) | Waiting::Unknown) => {
                f.write_str("; it is published again, and its fee can be raised by a child")
            }
        }
    }
}
