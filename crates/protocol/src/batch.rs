//! The messages of one batch, as plain types. Decoding from the wire is `tidegate-wire`'s, judging is [`crate::verify`]'s.

use crate::account::AccountVersion;
use crate::fees::ExecutionFee;
use crate::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use crate::musig2::{PartialSignature, PublicNonce};
use crate::order::SubmittedOrder;
use crate::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Number of the batch conversation that a trader speaks; must be equal on both sides.
///
/// # Source
/// Protocol notes, batch §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchVersion(pub u32);

/// One of our orders' counterparts and how much of it we get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The other side's order.
    pub order: SubmittedOrder,
    /// Units matched: one channel.
    pub units: UnitCount,
}

/// Our matches in the market of one lease duration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedMarket {
    /// Uniform price of the duration.
    pub clearing_price: RatePerBillion,
    /// Our order → its matches.
    pub orders: BTreeMap<OrderNonce, Vec<Match>>,
}

/// What becomes of an account's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum EndingState {
    /// A new output exists.
    Recreated = 0,
    /// Below dust, kept by the venue off chain.
    DustExtendedOffchain = 1,
    /// Below dust, added to the fees.
    DustAddedToFees = 2,
    /// Nothing left.
    FullySpent = 3,
}

/// What a batch does to one account of ours, as claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDiff {
    /// The account.
    pub account: AccountKey,
    /// Value afterwards.
    pub ending_balance: Sats,
    /// Fate of the output.
    pub ending_state: EndingState,
    /// Index of the new output; nothing when the wire's number is negative.
    pub output_index: Option<u32>,
    /// New expiry; nothing when the wire's number is 0.
    pub new_expiry: Option<BlockHeight>,
    /// New version as claimed by number; 0 when unchanged.
    pub new_version: u32,
}

/// The venue's proposal of a batch to one trader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Name of the batch.
    pub batch_id: BatchId,
    /// Version of the conversation.
    pub batch_version: BatchVersion,
    /// The venue's best height when it made the batch.
    pub height_hint: BlockHeight,
    /// Chain fee rate charged.
    pub fee_rate: SatPerKw,
    /// Execution fee charged.
    pub execution_fee: ExecutionFee,
    /// The batch transaction without witnesses.
    pub transaction: Transaction,
    /// Lease duration → our matches there.
    pub markets: BTreeMap<BlockCount, MatchedMarket>,
    /// Changes of our accounts.
    pub accounts: Vec<AccountDiff>,
}

/// The venue's request to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignBegin {
    /// Name of the batch, as sent.
    pub batch_id: Vec<u8>,
    /// Taproot account → the venue's nonces.
    pub server_nonces: BTreeMap<AccountKey, PublicNonce>,
    /// Output spent by each input of the batch transaction, in order.
    pub prev_outputs: Vec<TxOut>,
}

/// The venue's word that the batch is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finalize {
    /// Name of the batch, as sent.
    pub batch_id: Vec<u8>,
    /// Its transaction.
    pub txid: Txid,
}

/// Our signature of one account's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSignature {
    /// Version 0: ECDSA, DER, without sighash byte.
    Ecdsa(Vec<u8>),
    /// Versions 1 and 2: our half, and our nonces.
    Musig2 {
        /// Our partial signature.
        partial: PartialSignature,
        /// Our nonces.
        nonce: PublicNonce,
    },
}

/// Channel type as reported after funding. Numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ReportedChannelType {
    /// Static remote key.
    Tweakless = 0,
    /// Anchors.
    Anchors = 1,
    /// Script-enforced lease.
    ScriptEnforcedLease = 2,
    /// Simple taproot.
    SimpleTaproot = 3,
}

/// What each side reports of a funded channel, so that its life time can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Type.
    pub channel_type: ReportedChannelType,
    /// Reporter's node.
    pub local_node: NodeId,
    /// The other node.
    pub remote_node: NodeId,
    /// Reporter's payment base point.
    pub local_payment_point: PublicKey,
    /// The other side's payment base point.
    pub remote_payment_point: PublicKey,
}

/// A trader's answer to [`SignBegin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSignatures {
    /// Name of the batch.
    pub batch_id: BatchId,
    /// Account → signature.
    pub accounts: BTreeMap<AccountKey, AccountSignature>,
    /// Channel point → report.
    pub channels: BTreeMap<OutPoint, ChannelInfo>,
}

/// Why a single match is refused. Numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum MatchRejectCode {
    /// There is a channel with that peer already.
    DuplicatePeer = 0,
    /// The peer was not reached, or the channel could not be opened.
    ChannelFundingFailed = 1,
}

/// Why a batch is refused, with what the wire carries for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// 0: a failure of our own, or a claim that we cannot judge.
    Unknown,
    /// 1: our verification contradicts the venue.
    ServerMisbehavior,
    /// 2: batch versions differ.
    BatchVersionMismatch,
    /// 3: only these matches, by the *other* side's nonce.
    Partial(BTreeMap<OrderNonce, (MatchRejectCode, String)>),
}

/// A trader's refusal of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Name of the batch, raw as received (it may not parse).
    pub batch_id: Vec<u8>,
    /// Sentence for humans.
    pub message: String,
    /// Class.
    pub reason: RejectReason,
}

impl AccountDiff {
    /// The new version when the number names one.
    pub fn known_version(&self) -> Option<AccountVersion> {
        match self.new_version {
            0 => Some(AccountVersion::V0),
            1 => Some(AccountVersion::V1),
            2 => Some(AccountVersion::V2),
            _ => None,
        }
    }
}

impl BatchVersion {
    /// Traders may have their accounts' expiry extended.
    pub fn extends_accounts(self) -> bool {
        self.0 & 0xF >= 1
    }
    /// Announcement wishes are honoured.
    pub fn unannounced_channels(self) -> bool {
        self.0 & 0xF >= 2
    }
    /// Accounts may be upgraded to taproot.
    pub fn upgrades_taproot(self) -> bool {
        self.0 & 0xF >= 10
    }
    /// Zero-conf channels are possible.
    pub fn zero_conf(self) -> bool {
        self.0 & 0xF >= 11 || self.0 & 0x10 != 0
    }
    /// Accounts may be upgraded to version 2.
    pub fn upgrades_taproot_v2(self) -> bool {
        self.0 & 0x20 != 0
    }
}
