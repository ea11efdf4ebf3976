//! What a trader is told when it starts, and what it says of itself.

use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

use crate::book::Lease;
use bitcoin::ScriptBuf;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Sequence, Terms};
use tidegate_protocol::account::{Account, AccountVersion};
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId};
use tidegate_protocol::order::{AuctionType, OrderChannelType, OrderSide, OwnOrder};
use tidegate_protocol::units::BlockHeight;

/// Settings of a trader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraderConfig {
    /// Batch version to speak. The zero-conf flag (0x10) is taken away when the node does not advertise it.
    pub batch_version: BatchVersion,
    /// Longest duration of each of the two phases of a batch, in milliseconds.
    pub step_timeout_ms: u64,
    /// First pause before trying again what failed, in milliseconds; it doubles each time.
    pub reconnect_min_ms: u64,
    /// Longest pause, in milliseconds.
    pub reconnect_max_ms: u64,
    /// Blocks within which transactions of ours shall confirm, when no fee rate is given.
    pub fee_conf_target: u32,
    /// Refuse a batch that matches a bid which asks for a rated node with one whose rating is not known; otherwise the
    /// order log says so.
    pub reject_unrated: bool,
}

impl Default for TraderConfig {
    /// Batch version 58, phases of 15 s, pauses of 5 s to 60 s, 6 blocks, unrated nodes accepted.
    fn default() -> TraderConfig {
        TraderConfig {
            batch_version: BatchVersion(58),
            step_timeout_ms: 15_000,
            reconnect_min_ms: 5_000,
            reconnect_max_ms: 60_000,
            fee_conf_target: 6,
            reject_unrated: false,
        }
    }
}

/// A new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAccount {
    /// Value.
    pub value: Sats,
    /// Blocks from now until it expires.
    pub expiry_blocks: BlockCount,
    /// Script version.
    pub version: AccountVersion,
    /// Fee rate of the funding transaction; an estimate when absent.
    pub fee_rate: Option<SatPerKw>,
}

/// The end of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseAccount {
    /// Account.
    pub account: AccountKey,
    /// Fee rate of the closing transaction; an estimate when absent.
    pub fee_rate: Option<SatPerKw>,
    /// Where the money goes; a fresh address of the node's wallet when absent.
    pub to: Option<ScriptBuf>,
}

/// A new order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// Account that backs it.
    pub account: AccountKey,
    /// Limit price.
    pub rate: RatePerBillion,
    /// Units.
    pub units: UnitCount,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Highest chain fee rate of a batch that it may take part in.
    pub max_batch_fee_rate: SatPerKw,
    /// Channel type.
    pub channel_type: OrderChannelType,
    /// Market.
    pub auction: AuctionType,
    /// When not empty, the only nodes that may be matched.
    pub allowed_nodes: Vec<NodeId>,
    /// Nodes that may not be matched.
    pub denied_nodes: Vec<NodeId>,
    /// Ask or bid.
    pub side: OrderSide,
}

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
    /// Our node, once known.
    pub node: Option<NodeId>,
    /// The venue's terms when last asked.
    pub terms: Option<Terms>,
    /// Best height, once known.
    pub best_height: Option<BlockHeight>,
    /// Entries of the order log.
    pub events_count: u64,
    /// Number of the store's last commit that this status was read from.
    pub sequence: Sequence,
}
