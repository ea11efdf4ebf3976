//! What an operator decides about a venue.

use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::DurationState;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};

/// Settings of a venue.
#[derive(Clone, Debug)]
pub struct VenueConfig {
    /// Largest account, in satoshi.
    pub max_account_value: Sats,
    /// Fee of each side on each match.
    pub execution_fee: ExecutionFee,
    /// Other fee schedules, by the token of the trader. Orders are signed for a ceiling of the fee: a dearer schedule than
    /// the one that a trader was told makes its client refuse.
    pub custom_fees: BTreeMap<[u8; 32], ExecutionFee>,
    /// When the income goes to the node's wallet; nothing: only when the operator asks for it.
    pub sweep: Option<Sweep>,
    /// Markets by lease duration.
    pub durations: BTreeMap<BlockCount, DurationState>,
    /// Milliseconds between two attempts to clear; nothing: only when asked to.
    pub tick_ms: Option<u64>,
    /// How long a trader may take for one step of a batch, in milliseconds.
    pub step_timeout_ms: u64,
    /// Blocks within which a batch shall confirm.
    pub fee_conf_target: u32,
    /// Ratings of nodes.
    pub ratings: Ratings,
    /// A batch pays at least this chain fee rate.
    pub min_batch_fee_rate: SatPerKw,
    /// Matched accounts closer than this to their expiry get an expiry this far ahead.
    pub auto_renew: BlockCount,
    /// Accounts closer than this to their expiry are not matched.
    pub expiry_cutoff: BlockCount,
    /// How long two nodes are kept apart after one reported a failed channel with the other, in milliseconds.
    pub funding_conflict_ms: u64,
    /// How long two nodes are kept apart after one wanted new peers only, in milliseconds.
    pub duplicate_peer_conflict_ms: u64,
    /// Work that one tick may spend on clearing, over all its attempts, as `tidegate_market` counts it.
    pub clearing_work: u64,
    /// Name of the network, as shown in the status.
    pub network: String,
}

impl VenueConfig {
    /// The usual settings: one market of 2,016 blocks, 1 sat + 1,000 ppm, a batch every ten minutes. Unrated nodes are
    /// rated good on regtest only.
    ///
    /// # Source
    /// Protocol notes, auctioneer §2.
    pub fn usual(network: &str) -> VenueConfig {
        let default = if network == "regtest" { NodeTier::Tier1 } else { NodeTier::Tier0 };
        VenueConfig {
            max_account_value: Sats::constant(1_000_000_000),
            execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 },
            custom_fees: BTreeMap::new(),
            sweep: None,
            durations: BTreeMap::from([(BlockCount::new(2016), DurationState::Open)]),
            tick_ms: Some(600_000),
            step_timeout_ms: 30_000,
            fee_conf_target: 6,
            ratings: Ratings { default, ..Ratings::default() },
            min_batch_fee_rate: SatPerKw::FLOOR,
            auto_renew: BlockCount::new(3024),
            expiry_cutoff: BlockCount::new(432),
            funding_conflict_ms: 3_600_000,
            duplicate_peer_conflict_ms: 86_400_000,
            clearing_work: tidegate_market::TICK_WORK,
            network: network.to_owned(),
        }
    }
}

/// Payments of the income to the node's wallet, along with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Only when the venue's own coin is worth more than this.
    pub above: Sats,
    /// What stays in it: it pays for batches that have to lift others.
    pub keep: Sats,
}

/// Ratings of nodes: who is on the list is rated good.
#[derive(Clone, Debug)]
pub struct Ratings {
    /// Whether ratings count; when not, every node is rated good.
    pub enabled: bool,
    /// Nodes rated good.
    pub listed: BTreeSet<NodeId>,
    /// Tier of all others.
    pub default: NodeTier,
}

impl Default for Ratings {
    fn default() -> Ratings {
        Ratings { enabled: true, listed: BTreeSet::new(), default: NodeTier::Tier0 }
    }
}

impl Ratings {
    /// The tier of a node.
    pub fn tier(&self, node: NodeId) -> NodeTier {
        if !self.enabled || self.listed.contains(&node) { NodeTier::Tier1 } else { self.default }
    }
}
