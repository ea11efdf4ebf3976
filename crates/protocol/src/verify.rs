//! Judging a proposed batch against what we asked for.
//!
//! Every claim of the messages is recomputed from what we stored: prices, balances, outputs, keys. Nothing here signs,
//! and nothing here trusts a number because two places of a message agree on it.
//!
//! Order of the checks and the reject reasons: protocol notes, batch §7. The checks that only a strict client makes stand
//! where their data is at hand, and never before a check whose reason differs.

mod accounts;
mod error;
mod matches;
mod sign;
mod transaction;

pub use error::VerifyError;
pub use sign::{verify_finalize, verify_sign};

use crate::account::Account;
use crate::batch::{BatchVersion, Prepare};
use crate::channel::{AcceptorRule, FundingShim, OpenChannel};
use crate::keys::{AccountKey, NodeId, OrderNonce};
use crate::order::{NodeTier, OrderState, OwnOrder};
use crate::units::{BlockCount, BlockHeight, RatePerBillion, Sats, UnitCount};
use std::collections::BTreeMap;

/// How far the venue's height may be from ours, in blocks, either way.
///
/// # Source
/// Protocol notes, batch §7 step 2.
const HEIGHT_TOLERANCE: BlockCount = BlockCount::new(3);

/// A rating that is a day old or older counts as unknown.
pub const MAX_RATING_AGE_SECONDS: u64 = 24 * 60 * 60;

/// What we know, against which a batch is judged.
#[derive(Clone, Copy, Debug)]
pub struct LocalView<'a> {
    /// Our node.
    pub node: NodeId,
    /// Best height.
    pub best_height: BlockHeight,
    /// Batch version that we committed to.
    pub batch_version: BatchVersion,
    /// Our accounts.
    pub accounts: &'a BTreeMap<AccountKey, Account>,
    /// Our orders.
    pub orders: &'a BTreeMap<OrderNonce, OwnOrder>,
    /// Blocks by which the venue says now that it extends the expiry of a matched account; 0 when it said nothing yet.
    pub extension_now: BlockCount,
    /// What the venue said about other nodes.
    pub ratings: &'a BTreeMap<NodeId, NodeRating>,
    /// Refuse nodes whose tier matters to a bid of ours and is not known; otherwise they are reported.
    pub reject_unrated: bool,
}

/// A node's rating, as the venue told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRating {
    /// Tier.
    pub tier: NodeTier,
    /// Seconds since the venue told it. From [`MAX_RATING_AGE_SECONDS`] on it counts as unknown.
    pub age_seconds: u64,
}

impl NodeRating {
    /// The tier, while it is young enough to be relied on.
    pub fn known(&self) -> Option<NodeTier> {
        (self.age_seconds < MAX_RATING_AGE_SECONDS).then_some(self.tier)
    }
}

/// A node on the other side of a bid of ours whose tier we could not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnverifiedTier {
    /// Our bid.
    pub order: OrderNonce,
    /// The other node.
    pub node: NodeId,
}

/// One of our matches, verified: one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedMatch {
    /// Our order.
    pub ours: OrderNonce,
    /// Their order.
    pub theirs: OrderNonce,
    /// Our account.
    pub account: AccountKey,
    /// Their node.
    pub node: NodeId,
    /// Where their node can be reached.
    pub addresses: Vec<crate::order::NodeAddress>,
    /// Units.
    pub units: UnitCount,
    /// Price.
    pub clearing_price: RatePerBillion,
    /// Duration.
    pub duration: BlockCount,
    /// We are the maker (our order is the ask).
    pub maker: bool,
    /// The taker's self balance.
    pub self_balance: Sats,
    /// Premium of the match, received by the maker.
    pub premium: Sats,
    /// Our execution fee.
    pub execution_fee: Sats,
    /// Funding output. Of a sidecar bid the recipient's: the provider's node registers nothing unless it is the recipient.
    pub shim: FundingShim,
    /// What a maker opens.
    pub open: OpenChannel,
    /// Under which rule a taker accepts.
    pub acceptor: AcceptorRule,
}

/// An account of ours after the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingAccount {
    /// Account as it will be stored when the batch is complete.
    pub after: Account,
    /// Index of the batch transaction's input that spends it.
    pub input: usize,
    /// Our share of the chain fee.
    pub chain_fee: Sats,
    /// Whether a new output exists.
    pub recreated: bool,
}

/// An order of ours after the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingOrder {
    /// Order.
    pub nonce: OrderNonce,
    /// State.
    pub state: OrderState,
    /// Units left.
    pub units_unfulfilled: UnitCount,
}

/// A batch whose every claim was checked. Made by [`verify_prepare`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBatch {
    prepare: Prepare,
    matches: Vec<VerifiedMatch>,
    accounts: BTreeMap<AccountKey, EndingAccount>,
    orders: Vec<EndingOrder>,
    unverified_tiers: Vec<UnverifiedTier>,
}

impl VerifiedBatch {
    /// The proposal.
    pub fn prepare(&self) -> &Prepare {
        &self.prepare
    }
    /// Our matches, in order of our nonces, then of the message.
    pub fn matches(&self) -> &[VerifiedMatch] {
        &self.matches
    }
    /// Our accounts afterwards.
    pub fn accounts(&self) -> &BTreeMap<AccountKey, EndingAccount> {
        &self.accounts
    }
    /// Our orders afterwards.
    pub fn orders(&self) -> &[EndingOrder] {
        &self.orders
    }
    /// Nodes whose tier matters to a bid of ours and is not known: to be journaled. In the order of [`Self::matches`].
    pub fn unverified_tiers(&self) -> &[UnverifiedTier] {
        &self.unverified_tiers
    }
}

/// Judges a proposed batch.
///
/// # Errors
/// The first check that fails.
///
/// # Source
/// Protocol notes, batch §7: steps 1 to 5, and what a strict client checks as well. Step 6 needs the network and is the
/// caller's.
pub fn verify_prepare(view: &LocalView<'_>, prepare: &Prepare) -> Result<VerifiedBatch, VerifyError> {
    if prepare.batch_version != view.batch_version {
        return Err(VerifyError::BatchVersion { expected: view.batch_version, found: prepare.batch_version });
    }
    if prepare.height_hint.distance(view.best_height) > HEIGHT_TOLERANCE {
        return Err(VerifyError::Height { best: view.best_height, found: prepare.height_hint });
    }
    let judged = matches::judge(view, prepare)?;
    let accounts = accounts::judge(view, prepare, &judged.tallies)?;
    transaction::judge(view, prepare, &accounts)?;
    matches::check_node_lists(view, &judged.matches)?;
    let unverified_tiers = matches::check_node_tiers(view, &judged.matches)?;
    Ok(VerifiedBatch {
        prepare: prepare.clone(),
        matches: judged.matches,
        accounts,
        orders: judged.orders,
        unverified_tiers,
    })
}
