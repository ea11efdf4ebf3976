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
}

/// Judges a proposed batch.
///
/// # Errors
/// The first check that fails.
///
/// # Source
/// Protocol notes, batch §7: steps 1 to 5, and what a strict client checks as well. Step 6 needs the network and is the
/// caller's; the node tier needs ratings, see [`verify_node_tiers`].
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
    Ok(VerifiedBatch { prepare: prepare.clone(), matches: judged.matches, accounts, orders: judged.orders })
}

/// Judges the nodes on the other side of our bids by their ratings. A node without rating is not objected to.
///
/// # Errors
/// [`VerifyError::NodeTier`].
///
/// # Source
/// Protocol notes, batch §7: "node tier as far as a rating is known".
pub fn verify_node_tiers(
    view: &LocalView<'_>,
    batch: &VerifiedBatch,
    ratings: &BTreeMap<NodeId, NodeTier>,
) -> Result<(), VerifyError> {
    for matched in &batch.matches {
        let Some(bid) = view.orders.get(&matched.ours).and_then(|own| own.order.bid()) else { continue };
        match ratings.get(&matched.node) {
            Some(found) if *found < bid.min_node_tier => {
                let (order, node, expected, found) = (matched.ours, matched.node, bid.min_node_tier, *found);
                return Err(VerifyError::NodeTier { order, node, expected, found });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}
