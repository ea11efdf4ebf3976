//! What the auditor remembers of accounts, orders and batches.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};

use crate::finding::Caller;
use crate::script::{AccountKeys, AccountScripts, account_scripts};

/// A 33-byte key as it is written on the wire.
pub(crate) type Key = [u8; 33];
/// An order's nonce.
pub(crate) type Nonce = [u8; 32];

/// One output of an account, existing or agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) outpoint: OutPoint,
    pub(crate) value_sat: u64,
    pub(crate) script: ScriptBuf,
    pub(crate) expiry: u32,
    pub(crate) version: u32,
    pub(crate) batch_key: PublicKey,
}

/// An account and every output that it had or may get.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) owner: Caller,
    pub(crate) key: PublicKey,
    pub(crate) auctioneer: PublicKey,
    pub(crate) secret: Option<[u8; 32]>,
    /// Batch key, value, expiry and version at reservation.
    pub(crate) reserved: Reserved,
    pub(crate) outputs: Vec<Output>,
    /// The newest output that both sides hold for settled.
    pub(crate) current: Option<OutPoint>,
    /// Batch version of its subscription.
    pub(crate) batch_version: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    pub(crate) batch_key: PublicKey,
    pub(crate) value_sat: u64,
    pub(crate) expiry: u32,
    pub(crate) version: u32,
}

impl Account {
    pub(crate) fn output(&self, outpoint: &OutPoint) -> Option<&Output> {
        self.outputs.iter().find(|output| output.outpoint == *outpoint)
    }

    pub(crate) fn current(&self) -> Option<&Output> {
        self.current.as_ref().and_then(|outpoint| self.output(outpoint))
    }

    /// Remembers an output; an identical one is not doubled.
    pub(crate) fn learn(&mut self, output: Output) {
        match self.outputs.iter_mut().find(|known| known.outpoint == output.outpoint) {
            Some(known) => *known = output,
            None => self.outputs.push(output),
        }
    }

    /// The scripts of an output of this account; nothing while the shared secret is unknown.
    pub(crate) fn scripts(&self, version: u32, batch_key: &PublicKey, expiry: u32) -> Option<AccountScripts> {
        let secret = self.secret.as_ref()?;
        let keys = AccountKeys { trader: &self.key, auctioneer: &self.auctioneer, batch: batch_key, secret };
        account_scripts(version, keys, expiry)
    }

    pub(crate) fn scripts_of(&self, output: &Output) -> Option<AccountScripts> {
        self.scripts(output.version, &output.batch_key, output.expiry)
    }
}

/// An order as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Order nonce.
    pub nonce: [u8; 32],
    /// Key of the account that pays.
    pub account_key: [u8; 33],
    /// Whether it sells.
    pub is_ask: bool,
    /// Order version.
    pub version: u32,
    /// Whether it is in the outbound market.
    pub outbound: bool,
    /// Limit price, parts per billion per block.
    pub rate_ppb: u32,
    /// Amount.
    pub amount_sat: u64,
    /// Units that are not filled yet.
    pub units_open: u32,
    /// Smallest match.
    pub min_units: u32,
    /// Lease duration.
    pub blocks: u32,
    /// Highest chain fee rate of a batch.
    pub max_fee_rate_sat_per_kw: u64,
    /// Number in digests: 0 peer dependent, 1 script enforced, 2 simple taproot.
    pub channel_type: u8,
    /// Of an ask: 0 any, 1 only announced, 2 only unannounced.
    pub announcement: i32,
    /// Of an ask: 0 any, 1 only confirmed, 2 only zero-conf.
    pub confirmation: i32,
    /// Of a bid: number in digests.
    pub node_tier: u32,
    /// Of a bid.
    pub self_balance_sat: u64,
    /// Of a bid.
    pub sidecar: bool,
    /// Of a bid.
    pub unannounced: bool,
    /// Of a bid.
    pub zero_conf: bool,
    /// Key of this side in the funding output.
    pub multisig_key: [u8; 33],
    /// The node that gets or gives the channel.
    pub node_key: [u8; 33],
    /// Only these nodes, unless empty.
    pub allowed: Vec<Vec<u8>>,
    /// Not these nodes.
    pub denied: Vec<Vec<u8>>,
}

/// An order with what is known about its life.
#[derive(Clone, Debug)]
pub(crate) struct OrderRecord {
    pub(crate) order: Order,
    pub(crate) caller: Caller,
    /// Filled.
    pub(crate) closed: bool,
    /// Cancelled or refused: a batch may have been on its way when that was answered, so that only who accepts it breaks a rule.
    pub(crate) cancelled: bool,
    /// Execution fee quoted to the caller when it submitted.
    pub(crate) quoted: Option<(u64, u64)>,
}

/// Rules that the venue quoted to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Execution fee per match.
    pub base_fee_sat: u64,
    /// Execution fee, parts per million.
    pub fee_ppm: u64,
    /// Longest extension of an account by a batch.
    pub extension_blocks: u32,
}

/// What one account goes through in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountLine {
    pub(crate) key: Key,
    pub(crate) input: usize,
    pub(crate) before: Output,
    pub(crate) ending_sat: u64,
    /// The new output, if there is one.
    pub(crate) after: Option<Output>,
    pub(crate) chain_fee_sat: u64,
}

/// One match as one side was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchLine {
    pub(crate) ask: Nonce,
    pub(crate) bid: Nonce,
    pub(crate) units: u32,
    pub(crate) capacity_sat: u64,
    pub(crate) fee_sat: u64,
    /// The channel output, where it was found.
    pub(crate) vout: Option<u32>,
    /// Own order and units, to count down.
    pub(crate) own: Nonce,
}

/// What a batch message says to all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) id: Vec<u8>,
    pub(crate) prices: BTreeMap<u32, u32>,
    pub(crate) base_fee_sat: u64,
    pub(crate) fee_ppm: u64,
    pub(crate) fee_rate_sat_per_kw: u64,
    pub(crate) height_hint: u32,
}

impl Common {
    /// What all are told, not only those who trade in a market.
    pub(crate) fn terms(&self) -> Common {
        Common { prices: BTreeMap::new(), ..self.clone() }
    }
}

/// A batch as one trader was told, and how far it went with it.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) common: Common,
    pub(crate) txid: Txid,
    pub(crate) tx: Transaction,
    pub(crate) lines: Vec<AccountLine>,
    pub(crate) matches: Vec<MatchLine>,
    /// Rules that the proposal breaks.
    pub(crate) breaches: usize,
    pub(crate) accepted: bool,
    pub(crate) begun: Option<Begun>,
    pub(crate) signed: bool,
    pub(crate) settled: bool,
}

impl Proposal {
    /// Whether two prepare messages propose the same to the same trader.
    pub(crate) fn says_the_same(&self, other: &Proposal) -> bool {
        (&self.common, &self.tx, &self.lines, &self.matches) == (&other.common, &other.tx, &other.lines, &other.matches)
    }
}

/// What the venue sends when all have accepted.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) spent: Vec<TxOut>,
    pub(crate) nonces: BTreeMap<String, Vec<u8>>,
}

/// A batch transaction and what was said about it.
#[derive(Clone, Debug)]
pub(crate) struct BatchRecord {
    pub(crate) common: Common,
    /// Previous outputs of all inputs, as the venue told them.
    pub(crate) spent: Option<Vec<TxOut>>,
    /// What each trader was told.
    pub(crate) views: BTreeMap<Caller, Proposal>,
    /// Signatures that left, by account.
    pub(crate) signatures: BTreeMap<Key, Vec<u8>>,
    pub(crate) conserved: bool,
}

/// Why a transaction may spend an account output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Batch { id: Vec<u8>, caller: Caller },
    Modification,
}

/// A signature that exists for an account output.
#[derive(Clone, Debug)]
pub(crate) struct Spend {
    /// Unknown for modifications of accounts whose secret is unknown.
    pub(crate) txid: Option<Txid>,
    pub(crate) reason: Reason,
    pub(crate) superseded: bool,
}

/// A modification that the venue signed.
#[derive(Clone, Debug)]
pub(crate) struct Modification {
    pub(crate) account: Key,
    pub(crate) spends: OutPoint,
    pub(crate) inputs: BTreeSet<OutPoint>,
    pub(crate) outputs: Vec<TxOut>,
    /// Of the recreated output: value, expiry, version, batch key. Nothing for a close.
    pub(crate) recreated: Option<(u64, u32, u32, PublicKey)>,
    /// The whole transaction, if its scripts are known.
    pub(crate) tx: Option<Transaction>,
    pub(crate) spent: Vec<TxOut>,
}
