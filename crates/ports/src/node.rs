//! A Lightning node as wallet, signer, watcher of the chain and source of data.

use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use core::future::Future;
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, NodeId, SharedSecret};
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce};
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// A call to the node that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// No connection, or it broke: try again later. The effect of the call is unknown.
    #[error("the node at {address} can not be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The wallet is locked or the node is still starting.
    #[error("the node is not ready: {reason}")]
    NotReady {
        /// What it says.
        reason: String,
    },
    /// The macaroon lacks a permission.
    #[error("the node refuses {call}: missing permission ({reason})")]
    Permission {
        /// The call.
        call: &'static str,
        /// What it says.
        reason: String,
    },
    /// The wallet lacks confirmed coins.
    #[error("the node's wallet has not enough confirmed coins: {reason}")]
    InsufficientFunds {
        /// What it says.
        reason: String,
    },
    /// The node refused the call.
    #[error("the node refused {call}: {reason}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it says.
        reason: String,
    },
    /// The answer can not be understood.
    #[error("the node's answer to {call} makes no sense: {reason}")]
    BadAnswer {
        /// The call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Kind of address that the wallet makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// P2WPKH.
    WitnessPubkeyHash,
    /// P2TR.
    Taproot,
}

/// A coin that the wallet keeps for one transaction, for some minutes or until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinLock {
    /// Whose lock.
    pub id: [u8; 32],
    /// The coin.
    pub outpoint: OutPoint,
}

/// What the wallet made of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundedPsbt {
    /// The template with inputs, each described, and perhaps a change output; its outputs may have moved.
    pub psbt: Psbt,
    /// Index of the change output, when there is one.
    pub change: Option<usize>,
    /// The coins that it took.
    pub locks: Vec<CoinLock>,
}

/// What became of a wish to raise the fee of an unconfirmed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bump {
    /// A child pays for it, in place of an earlier child.
    Bumped,
    /// The output does not belong to the wallet.
    NotOurs,
}

/// A transaction that the wallet made, was paid by, or published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletTransaction {
    /// The transaction.
    pub transaction: Transaction,
    /// What the wallet notes beside it.
    pub label: String,
    /// Its block, once it is in one.
    pub height: Option<BlockHeight>,
    /// When the wallet saw it first or in a block, Unix seconds.
    pub seen_s: u64,
}

/// The node's on-chain wallet.
pub trait Wallet: Send + Sync {
    /// Makes and publishes a transaction paying `outputs`. Not idempotent: look with [`Wallet::find_payment`] first.
    fn send_outputs(
        &self,
        outputs: &[TxOut],
        fee_rate: SatPerKw,
        label: &str,
    ) -> impl Future<Output = Result<Transaction, NodeError>> + Send;
    /// A transaction of the wallet that pays exactly `output` (script and value), if there is one.
    fn find_payment(
        &self,
        output: &TxOut,
    ) -> impl Future<Output = Result<Option<(Transaction, OutPoint)>, NodeError>> + Send;
    /// A fresh address of the wallet, as its script.
    fn new_address(&self, kind: AddressKind) -> impl Future<Output = Result<ScriptBuf, NodeError>> + Send;
    /// Confirmed balance, in satoshi.
    fn confirmed_balance(&self) -> impl Future<Output = Result<Sats, NodeError>> + Send;
    /// Hands a finished transaction to the network. Already known counts as success.
    fn publish(&self, transaction: &Transaction, label: &str) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Fee rate expected to confirm within `conf_target` blocks, at least [`SatPerKw::FLOOR`].
    fn estimate_fee(&self, conf_target: u32) -> impl Future<Output = Result<SatPerKw, NodeError>> + Send;
    /// Fee of a transaction of the wallet that pays `output` and shall confirm within `conf_target` blocks; made, but
    /// neither signed nor published, and no coin is kept.
    ///
    /// # Source
    /// Protocol notes, accounts §5 "Quote".
    fn estimate_payment(
        &self,
        output: &TxOut,
        conf_target: u32,
    ) -> impl Future<Output = Result<Sats, NodeError>> + Send;
    /// Adds confirmed coins and change to a template of outputs, and keeps the coins. Nothing is signed.
    ///
    /// # Source
    /// Protocol notes, accounts §6 "Deposit".
    fn fund_psbt(
        &self,
        template: &Psbt,
        sat_per_vbyte: u64,
    ) -> impl Future<Output = Result<FundedPsbt, NodeError>> + Send;
    /// Lets go of a coin that was kept; one that is not kept is no error.
    fn release(&self, lock: &CoinLock) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Signs the wallet's inputs; all others carry their final witness already. Not published.
    fn finalize_psbt(&self, psbt: &Psbt) -> impl Future<Output = Result<Transaction, NodeError>> + Send;
    /// Pays for an unconfirmed transaction by a child that spends this output of it. Repeating replaces the child.
    ///
    /// # Source
    /// Protocol notes, accounts §8.
    fn bump_fee(&self, outpoint: OutPoint, sat_per_vbyte: u64) -> impl Future<Output = Result<Bump, NodeError>> + Send;
    /// All transactions of the wallet with what it notes beside them, unconfirmed ones too, in any order.
    ///
    /// # Source
    /// Protocol notes, accounts §9: fee history is rebuilt from them.
    fn wallet_transactions(&self) -> impl Future<Output = Result<Vec<WalletTransaction>, NodeError>> + Send;
}

/// Name of a MuSig2 session in the node: a nonce pair that signs one message at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 32]);

/// What a MuSig2 session needs to know when it starts.
#[derive(Clone, Debug)]
pub struct Musig2Request {
    /// Our key's place.
    pub signer: KeyLocator,
    /// All signers' untweaked keys; the node sorts them.
    pub keys: [PublicKey; 2],
    /// Draft.
    pub version: Musig2Version,
    /// Merkle root of the taproot tweak: hash of the expiry leaf.
    pub merkle_root: [u8; 32],
    /// The other side's nonces, when already known.
    pub other_nonce: Option<PublicNonce>,
}

/// How an account's script-path or P2WSH input is signed by one of its single keys.
#[derive(Clone, Debug)]
pub enum ScriptSpend {
    /// P2WSH, SIGHASH_ALL; result is DER without sighash byte.
    SegwitV0 {
        /// Witness script.
        script: ScriptBuf,
    },
    /// Tapscript leaf, SIGHASH_DEFAULT; result is a 64-byte Schnorr signature.
    Tapscript {
        /// Leaf script.
        leaf: ScriptBuf,
    },
}

/// One input to sign with a tweaked key of the wallet.
#[derive(Clone, Debug)]
pub struct SignInput {
    /// The complete transaction.
    pub transaction: Transaction,
    /// Index of the input.
    pub input: usize,
    /// Output spent by each input, in order.
    pub prev_outputs: Vec<TxOut>,
    /// Untweaked key and its place.
    pub key: KeyDescriptor,
    /// Scalar added to the private key.
    pub tweak: [u8; 32],
    /// Script that is satisfied.
    pub spend: ScriptSpend,
}

/// The node's keys. Private keys never leave it.
pub trait Signer: Send + Sync {
    /// The next unused key of a family.
    fn derive_next_key(&self, family: u32) -> impl Future<Output = Result<KeyDescriptor, NodeError>> + Send;
    /// The key at a place.
    fn derive_key(&self, locator: KeyLocator) -> impl Future<Output = Result<KeyDescriptor, NodeError>> + Send;
    /// `SHA256(ser33(k*P))` for the key `k` at `locator` and the point `other`.
    fn shared_secret(
        &self,
        other: &PublicKey,
        locator: KeyLocator,
    ) -> impl Future<Output = Result<SharedSecret, NodeError>> + Send;
    /// ECDSA over `SHA256(message)`, DER.
    fn sign_message(
        &self,
        message: &[u8],
        locator: KeyLocator,
    ) -> impl Future<Output = Result<Vec<u8>, NodeError>> + Send;
    /// Signs one input with a single key.
    fn sign_input(&self, request: &SignInput) -> impl Future<Output = Result<Vec<u8>, NodeError>> + Send;
    /// Starts a session: fresh nonces, for one message. Returns its name and our public nonces.
    fn musig2_begin(
        &self,
        request: &Musig2Request,
    ) -> impl Future<Output = Result<(SessionId, PublicNonce), NodeError>> + Send;
    /// Tells a session the other side's nonces.
    fn musig2_register(
        &self,
        session: SessionId,
        other: &PublicNonce,
    ) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Our partial signature; a second call on one session is refused. `last` forgets the session.
    fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> impl Future<Output = Result<PartialSignature, NodeError>> + Send;
    /// The final 64-byte signature from our partial and the other's; forgets the session.
    fn musig2_combine(
        &self,
        session: SessionId,
        other: &PartialSignature,
    ) -> impl Future<Output = Result<[u8; 64], NodeError>> + Send;
    /// Forgets a session.
    fn musig2_cleanup(&self, session: SessionId) -> impl Future<Output = Result<(), NodeError>> + Send;
}

/// What to watch on the chain. `name` identifies the watch: a new one of the same name replaces the old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Tell when the transaction has `confirmations` (≥ 1).
    Confirmation {
        /// Transaction.
        txid: Txid,
        /// Script of one of its outputs.
        script: ScriptBuf,
        /// Depth.
        confirmations: u32,
        /// Height to look from.
        height_hint: BlockHeight,
    },
    /// Tell when the output is spent in a block.
    Spend {
        /// Output.
        outpoint: OutPoint,
        /// Its script.
        script: ScriptBuf,
        /// Height to look from.
        height_hint: BlockHeight,
    },
}

/// Something that happened on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// A new best block.
    Block {
        /// Its height.
        height: BlockHeight,
    },
    /// The watched transaction reached its depth.
    Confirmed {
        /// Name of the watch.
        name: String,
        /// Height of the block that holds it.
        height: BlockHeight,
        /// The transaction, as in the block.
        transaction: Transaction,
    },
    /// The watched output was spent.
    Spent {
        /// Name of the watch.
        name: String,
        /// Height of the block with the spender.
        height: BlockHeight,
        /// The spender, with witnesses.
        transaction: Transaction,
    },
}

/// The chain as the node sees it.
pub trait Chain: Send + Sync {
    /// Height of the best block.
    fn best_height(&self) -> impl Future<Output = Result<BlockHeight, NodeError>> + Send;
    /// Watches; events arrive from [`Chain::next_event`]. Watches do not survive a restart.
    fn watch(&self, name: &str, watch: Watch) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Ends a watch; an unknown name is no error.
    fn unwatch(&self, name: &str) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// The next event, in the order of the chain. One consumer. After a reorganisation the blocks of the new branch are
    /// told, also at heights that were told before, and a watch that is not ended tells again what was undone, perhaps
    /// with another height or transaction. An error means that the watches are lost.
    fn next_event(&self) -> impl Future<Output = Result<ChainEvent, NodeError>> + Send;
}

/// What the node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Identity.
    pub id: NodeId,
    /// Advertised addresses, `host:port`.
    pub addresses: Vec<NodeAddress>,
    /// Network, e.g. `regtest`.
    pub network: String,
    /// Best height.
    pub best_height: BlockHeight,
    /// The node follows the chain.
    pub synced: bool,
    /// Advertises zero-conf and scid-alias.
    pub zero_conf: bool,
    /// Advertises simple taproot channels.
    pub taproot_channels: bool,
    /// Advertises channels above 16,777,215 sat.
    pub large_channels: bool,
    /// Version text.
    pub version: String,
}

/// Facts about the node that strategies and checks read.
pub trait NodeData: Send + Sync {
    /// Identity and state.
    fn info(&self) -> impl Future<Output = Result<NodeInfo, NodeError>> + Send;
    /// Peers with whom a channel is open or pending.
    fn channel_peers(&self) -> impl Future<Output = Result<Vec<NodeId>, NodeError>> + Send;
    /// For each open channel that may not be closed cooperatively yet, until when: a height, or below 500,000 a number
    /// of blocks from its confirmation. A node that keeps no such notes tells none.
    ///
    /// # Source
    /// Protocol notes, rpc §13.5.
    fn thaw_heights(&self) -> impl Future<Output = Result<BTreeMap<OutPoint, u32>, NodeError>> + Send {
        async { Ok(BTreeMap::new()) }
    }
}
