//! What a trader is told: its settings, and what its owner asks of it.

use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

use bitcoin::{ScriptBuf, TxOut, Txid};
use tidegate_protocol::account::{Account, AccountVersion};
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::order::{AuctionType, OrderChannelType, OrderSide};
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
    /// Refuse matches with nodes with whom our node has a channel already, or one that is being opened.
    pub new_nodes_only: bool,
    /// What becomes of an order when the venue's fee rises above what it agreed to: it would never be matched.
    pub on_fee_rise: FeeRise,
    /// Place the rest of a partly filled order again when the venue dropped it, e.g. because it lost its book.
    pub resubmit_remainders: bool,
    /// Pause between two looks at the venue's terms while connected, in milliseconds.
    pub terms_poll_ms: u64,
    /// Blocks after which a transaction of ours that is still unconfirmed is called stuck.
    pub stuck_blocks: BlockCount,
    /// Blocks after which an unconfirmed transaction of ours is handed to the network again.
    pub rebroadcast_blocks: BlockCount,
}

/// What becomes of an order whose fee ceiling the venue's terms have outgrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeeRise {
    /// It is cancelled.
    Cancel,
    /// It is replaced by one that agrees to the new fee, with the units that are left.
    Resign,
}

impl Default for TraderConfig {
    /// Batch version 58, phases of 15 s, pauses of 5 s to 60 s, 6 blocks, unrated and known nodes accepted; orders are cancelled
    /// when fees rise, remainders placed again, terms polled every minute; stuck after 12 blocks, published again every 6.
    fn default() -> TraderConfig {
        TraderConfig {
            batch_version: BatchVersion(58),
            step_timeout_ms: 15_000,
            reconnect_min_ms: 5_000,
            reconnect_max_ms: 60_000,
            fee_conf_target: 6,
            reject_unrated: false,
            new_nodes_only: false,
            on_fee_rise: FeeRise::Cancel,
            resubmit_remainders: true,
            terms_poll_ms: 60_000,
            stuck_blocks: BlockCount::new(12),
            rebroadcast_blocks: BlockCount::new(6),
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
    /// Where the money goes.
    pub to: CloseTo,
}

/// Where the money of a closed account goes.
///
/// # Source
/// Protocol notes, accounts §7 "Destination forms".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseTo {
    /// All of it to one output, which bears the fee.
    Output {
        /// Its script; a fresh address of the node's wallet when absent.
        script: Option<ScriptBuf>,
        /// Fee rate of the closing transaction; an estimate when absent.
        fee_rate: Option<SatPerKw>,
    },
    /// To these outputs, at least one; what they leave is the fee.
    Outputs(Vec<TxOut>),
}

impl CloseAccount {
    /// A close to a fresh address of the node's wallet at an estimated fee rate.
    pub fn to_wallet(account: AccountKey) -> CloseAccount {
        CloseAccount { account, to: CloseTo::Output { script: None, fee_rate: None } }
    }
}

/// More money for an account, from the node's wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepositAccount {
    /// Account; it must be open.
    pub account: AccountKey,
    /// What is added, in satoshi.
    pub amount: Sats,
    /// Fee rate, at least 253 sat/kW; rounded down to whole sat/vB for the wallet's part.
    pub fee_rate: SatPerKw,
    /// New expiry; nothing keeps the old.
    pub expiry: Option<BlockHeight>,
    /// New script version; nothing means the newest one that the node can sign for.
    pub version: Option<AccountVersion>,
}

/// Money out of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawAccount {
    /// Account; it must be open.
    pub account: AccountKey,
    /// Where the money goes, at least one output.
    pub outputs: Vec<TxOut>,
    /// Fee rate, at least 253 sat/kW; the account bears the fee.
    pub fee_rate: SatPerKw,
    /// New expiry; nothing keeps the old.
    pub expiry: Option<BlockHeight>,
    /// New script version; nothing means the newest one that the node can sign for.
    pub version: Option<AccountVersion>,
}

/// A later expiry for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewAccount {
    /// Account; it must be open or expired.
    pub account: AccountKey,
    /// Fee rate, at least 253 sat/kW; the account bears the fee.
    pub fee_rate: SatPerKw,
    /// New expiry.
    pub expiry: BlockHeight,
    /// New script version; nothing means the newest one that the node can sign for.
    pub version: Option<AccountVersion>,
}

/// A higher fee for the unconfirmed transaction of an account, paid by a child of the node's wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BumpAccount {
    /// Account; its funding, change or close must be unconfirmed.
    pub account: AccountKey,
    /// Fee rate of the transaction and its child together; rounded down to whole sat/vB.
    pub fee_rate: SatPerKw,
}

/// A question: what would it cost to fund an account?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteAccount {
    /// Value.
    pub value: Sats,
    /// Blocks within which the funding shall confirm, at least 1.
    pub conf_target: u32,
}

/// What it would cost to fund an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountQuote {
    /// Fee rate of the funding.
    pub fee_rate: SatPerKw,
    /// Its fee.
    pub fee: Sats,
}

/// A change of an account that was signed and stored. Its transaction is published until the chain knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modified {
    /// The account as it is now: pending.
    pub account: Account,
    /// The transaction.
    pub txid: Txid,
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
    /// The venue may tell others of it.
    pub public: bool,
    /// Ask or bid.
    pub side: OrderSide,
}
