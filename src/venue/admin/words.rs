//! Requests and answers, as both ends know them. Units stand in the names; unknown fields of a request are refused.

use serde::{Deserialize, Serialize};

/// Coins of the node's wallet for the venue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepositRequest {
    /// How much.
    pub value_sats: u64,
    /// Chain fee rate of the payment; without it, the estimated one.
    pub sat_per_kw: Option<u64>,
}

/// One output that the venue pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    /// Address on the venue's network; in answers the script in hexadecimal digits when it has none.
    pub address: String,
    /// How much.
    pub value_sats: u64,
}

/// What the next batch shall pay from the venue's own coin. Replaces what was asked for before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// The outputs.
    pub outputs: Vec<Payout>,
}

/// The chain fee rate of the next batch, which is made for the sake of unconfirmed ones even when no two orders meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BumpRequest {
    /// The rate.
    pub sat_per_kw: u64,
}

/// Who is meant: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offender {
    /// Account key, 66 hexadecimal digits.
    pub account: Option<String>,
    /// Node key, 66 hexadecimal digits.
    pub node: Option<String>,
}

/// A ban by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// Account key, 66 hexadecimal digits.
    pub account: Option<String>,
    /// Node key, 66 hexadecimal digits.
    pub node: Option<String>,
    /// How long, from now.
    pub blocks: u32,
}

/// It was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What, as a sentence.
    pub done: String,
}

/// A deposit that is not part of the venue's own coin for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositTold {
    /// Its coin.
    pub outpoint: String,
    /// Value of the coin.
    pub value_sats: u64,
    /// `waiting`, `confirmed`, `spent` (by a batch that is not confirmed) or `replaced` (its coins went elsewhere).
    pub state: String,
}

/// A ban in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanTold {
    /// Account key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Node key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// First height at which it is over.
    pub until_height: u32,
    /// Bans so far, this one included.
    pub times: u32,
}

/// All bans in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {
    /// The bans.
    pub bans: Vec<BanTold>,
}

/// The venue as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenueTold {
    /// Network.
    pub network: String,
    /// Best height.
    pub best_height: u32,
    /// Name of the next batch.
    pub next_batch: String,
    /// A batch is being made.
    pub executing: bool,
    /// How the last attempt to clear ended.
    pub last_tick: Option<String>,
    /// Traders with an open stream.
    pub traders: u64,
    /// Open asks.
    pub open_asks: u64,
    /// Open bids.
    pub open_bids: u64,
    /// Batches made.
    pub batches: u64,
    /// Batches that are not confirmed.
    pub unconfirmed_batches: u64,
    /// Bans in force.
    pub bans: u64,
    /// Value of the venue's own coin.
    pub coin_sats: u64,
    /// Deposits that are not part of it for good.
    pub deposits: Vec<DepositTold>,
    /// What the next batch pays.
    pub withdrawals: Vec<Payout>,
    /// Chain fee rate that the operator wants of the next batch.
    pub wished_sat_per_kw: Option<u64>,
}

/// The end of an attempt to clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// The batch that was made.
    pub batch: Option<String>,
    /// How it ended.
    pub reason: String,
    /// The book took more work than an attempt may spend.
    pub cut: bool,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
}
