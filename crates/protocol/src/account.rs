//! Accounts: the 2-of-2 output of trader and auctioneer that backs orders.

use crate::keys::{AccountKey, AuctioneerKey, BatchKey, KeyError, KeyLocator, SharedSecret};
use crate::units::{BlockCount, BlockHeight, Sats};
use bitcoin::{OutPoint, Transaction};
use serde::{Deserialize, Serialize};

/// Version of an account's output script. Numbers are those of the auctioneer interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum AccountVersion {
    /// P2WSH 2-of-2 with time-lock.
    V0 = 0,
    /// P2TR, MuSig2 draft v0.4.0.
    V1 = 1,
    /// P2TR, MuSig2 draft v1.0.0-rc2.
    V2 = 2,
}

/// Everything that an account's output script depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountTerms {
    /// Script version.
    pub version: AccountVersion,
    /// Trader's untweaked key.
    pub trader: AccountKey,
    /// Auctioneer's untweaked key.
    pub auctioneer: AuctioneerKey,
    /// Key of the account's own sequence for this output.
    pub batch: BatchKey,
    /// Secret of the pair.
    pub secret: SharedSecret,
    /// Height from which the trader alone may spend.
    pub expiry: BlockHeight,
}

/// State of an account as the trader sees it. Numbers are the persisted ones.
///
/// # Source
/// Protocol notes, accounts §1 and §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum AccountState {
    /// Reserved; the funding transaction may or may not exist.
    Initiated = 0,
    /// Funding transaction known, unconfirmed.
    PendingOpen = 1,
    /// A change by the owner is unconfirmed.
    PendingUpdate = 2,
    /// Confirmed and usable.
    Open = 3,
    /// The expiry height was reached.
    Expired = 4,
    /// The closing transaction is unconfirmed.
    PendingClosed = 5,
    /// Final.
    Closed = 6,
    /// Recovered, but never funded.
    CanceledAfterRecovery = 7,
    /// Recreated by a batch that is unconfirmed.
    PendingBatch = 8,
    /// Expired while a change was unconfirmed.
    ExpiredPendingUpdate = 9,
}

/// An account of ours, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What the current output's script depends on.
    pub terms: AccountTerms,
    /// Place of the trader key in the node's wallet.
    pub locator: KeyLocator,
    /// Value of the current output, in satoshi; 0 when closing.
    pub value: Sats,
    /// State.
    pub state: AccountState,
    /// Height from which to look for the current output or its spend.
    pub height_hint: BlockHeight,
    /// The current output, once a transaction exists.
    pub outpoint: Option<OutPoint>,
    /// The transaction that made the current output (or closes the account); may lack witnesses.
    pub latest_tx: Option<Transaction>,
}

impl Account {
    /// The name of the account.
    pub fn key(&self) -> AccountKey {
        self.terms.trader
    }

    /// An account that is reserved at the venue and not funded yet.
    ///
    /// # Source
    /// Protocol notes, accounts §5.
    pub fn initiated(terms: AccountTerms, locator: KeyLocator, value: Sats, best: BlockHeight) -> Account {
        let state = AccountState::Initiated;
        Account { terms, locator, value, state, height_hint: best, outpoint: None, latest_tx: None }
    }

    /// The account once this transaction funds it: the first output with exactly its script and value. Nothing when the
    /// transaction does not pay it.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    ///
    /// # Source
    /// Protocol notes, accounts §4 "initiated".
    pub fn funded_by(&self, transaction: &Transaction) -> Result<Option<Account>, KeyError> {
        let output = self.terms.output(self.value)?;
        let place = transaction.output.iter().position(|other| *other == output);
        let Some(vout) = place.and_then(|place| u32::try_from(place).ok()) else { return Ok(None) };
        Ok(Some(Account {
            state: AccountState::PendingOpen,
            outpoint: Some(OutPoint { txid: transaction.compute_txid(), vout }),
            latest_tx: Some(transaction.clone()),
            ..self.clone()
        }))
    }
}

/// Smallest value of an account when opened or changed by its owner.
pub const MIN_ACCOUNT_VALUE: Sats = Sats::constant(100_000);
/// Smallest value of an account that a batch recreates.
pub const MIN_RECREATED_VALUE: Sats = Sats::constant(435);
/// An expiry lies at least this many blocks ahead.
pub const MIN_EXPIRY_AHEAD: BlockCount = BlockCount::new(144);
/// An expiry lies at most this many blocks ahead.
pub const MAX_EXPIRY_AHEAD: BlockCount = BlockCount::new(52_560);
