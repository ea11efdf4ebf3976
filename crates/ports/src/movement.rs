//! What moved money of an account: plain facts, from which a ledger follows.

use crate::Timestamp;
use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::units::{BlockHeight, Sats};

/// Why money of an account moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MovementKind {
    /// The wallet funded the account.
    Funding,
    /// The owner added to it.
    Deposit,
    /// The owner was paid from it.
    Withdraw,
    /// The owner moved its expiry.
    Renew,
    /// The owner ended it.
    Close,
    /// A batch.
    Batch,
    /// An account that was there before its movements were recorded, e.g. one that was recovered.
    Opening,
    /// A transaction that is none of ours: where the money went is not known.
    Foreign,
}

/// The money of one match of ours in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchMoney {
    /// Funding output of the channel.
    pub channel: OutPoint,
    /// We are the maker.
    pub maker: bool,
    /// Our coins in the channel: a maker's principal, a taker's own balance.
    pub principal: Sats,
    /// Premium: received by a maker, paid by a taker.
    pub premium: Sats,
    /// Execution fee that we paid.
    pub execution_fee: Sats,
    /// Chain fee that we paid.
    pub chain_fee: Sats,
}

/// One transaction, as far as it moves money of one account. It is written once, in the commit that makes it true here,
/// and never changed. That it is written does not say that it confirmed: another spend of the same output may. Which
/// movements count follows from the account's current output, back along [`Movement::spent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// Account.
    pub account: AccountKey,
    /// The transaction.
    pub txid: Txid,
    /// Why.
    pub kind: MovementKind,
    /// The account's output that it spends; none of a funding.
    pub spent: Option<OutPoint>,
    /// The account's output that it makes; none when the account ends.
    pub next: Option<OutPoint>,
    /// Value of the account before.
    pub before: Sats,
    /// Value of the account afterwards.
    pub after: Sats,
    /// Chain fee of a transaction of the owner's, and what is too little to go on with after a batch. The fee of a
    /// funding is paid by the wallet and not known here: 0.
    pub fee: Sats,
    /// Our matches; none but of a batch.
    pub matches: Vec<MatchMoney>,
    /// When it became true here, as far as that is known.
    pub at: Option<Timestamp>,
    /// Height from which to look for the transaction.
    pub height: BlockHeight,
}
