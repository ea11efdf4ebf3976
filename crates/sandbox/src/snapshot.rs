//! The world as data: what is saved per block, and how a world comes back from it.

use crate::chain::{GENESIS_HEIGHT, TxRefusal};
use crate::keys::WalletPath;
use crate::node::NodeState;
use crate::traffic::ChannelUse;
use crate::world::{State, World};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{KeyLocator, NodeId};
use tidegate_protocol::units::{SatPerKw, Sats};

/// A channel as one of its nodes holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// Funding output.
    pub channel_point: OutPoint,
    /// The other node.
    pub peer: NodeId,
    /// This node opened it.
    pub initiator: bool,
    /// Value that the funding output must have.
    pub capacity: Sats,
    /// Given to the acceptor at the start.
    pub push: Sats,
    /// Script that the funding output must have.
    pub script: ScriptBuf,
    /// Commitment type.
    pub commitment: CommitmentType,
    /// Not announced.
    pub private: bool,
    /// Usable before it confirms.
    pub zero_conf: bool,
    /// Thaw height of the shim.
    pub thaw_height: u32,
    /// Where this node's funding key lives.
    pub funding_key: KeyLocator,
    /// This node's payment base point.
    pub local_payment_point: PublicKey,
    /// The other node's payment base point.
    pub remote_payment_point: PublicKey,
    /// Given up by this node; the channel point is never opened again.
    pub abandoned: bool,
}

/// How many addresses of each branch were handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletCounters {
    /// P2WPKH addresses.
    pub segwit: u32,
    /// P2WPKH change.
    pub segwit_change: u32,
    /// P2TR addresses.
    pub taproot: u32,
    /// P2TR change.
    pub taproot_change: u32,
}

impl WalletCounters {
    pub(crate) fn of(&mut self, taproot: bool, change: bool) -> &mut u32 {
        match (taproot, change) {
            (false, false) => &mut self.segwit,
            (false, true) => &mut self.segwit_change,
            (true, false) => &mut self.taproot,
            (true, true) => &mut self.taproot_change,
        }
    }
}

/// A node's durable state. Keys are not in it: they follow from the world's seed and the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSnapshot {
    /// Name.
    pub name: String,
    /// Accepts connections.
    pub listening: bool,
    /// Family → index of its next unused key.
    pub families: BTreeMap<u32, u32>,
    /// Addresses.
    pub wallet: WalletCounters,
    /// What was sent.
    pub labels: Vec<(Txid, String)>,
    /// Channels, also abandoned ones.
    pub channels: Vec<ChannelRecord>,
}

/// A world's durable state. Connections, watches, signing sessions, shims and acceptor rules are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldSnapshot {
    /// Seed; contains every key.
    pub seed: u64,
    /// How often the world was started before.
    pub start: u64,
    /// What every node estimates as fee rate.
    pub fee_rate: SatPerKw,
    /// Transactions of each block after [`GENESIS_HEIGHT`], without the reward, which follows from them.
    pub blocks: Vec<Vec<Transaction>>,
    /// Unconfirmed transactions, parents first.
    pub mempool: Vec<Transaction>,
    /// Nodes in the order in which they were added; the miner is the first.
    pub nodes: Vec<NodeSnapshot>,
    /// How channels were used.
    #[serde(default)]
    pub uses: Vec<(OutPoint, ChannelUse)>,
}

/// A saved world that is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A saved transaction is refused.
    #[error("saved transaction {txid} is refused: {refusal}")]
    Transaction {
        /// Which.
        txid: Txid,
        /// Why.
        refusal: TxRefusal,
    },
    /// A saved counter is out of range.
    #[error("the saved address counters of node {name} are out of range")]
    Counters {
        /// Whose.
        name: String,
    },
    /// The start counter is exhausted.
    #[error("the world was started too often")]
    Starts,
}

impl World {
    /// The durable state. Whoever keeps data of a participant saves this with it: keys and coins that the data names
    /// must exist after a restart.
    pub fn save(&self) -> WorldSnapshot {
        self.read(|state| {
            let heights = GENESIS_HEIGHT + 1..=state.chain.height();
            let block = |height| {
                let transactions = state.chain.block(height).unwrap_or_default();
                transactions.into_iter().skip(1).cloned().collect()
            };
            WorldSnapshot {
                seed: state.seed,
                start: state.start,
                fee_rate: state.fee_rate,
                blocks: heights.map(block).collect(),
                mempool: state.chain.mempool().cloned().collect(),
                nodes: state.order.iter().map(|id| save_node(state.node(id))).collect(),
                uses: state.uses.iter().map(|(channel, usage)| (*channel, *usage)).collect(),
            }
        })
    }

    /// The world of a snapshot, started once more: every block is made and checked again. Nonces and draws differ
    /// from those of all earlier starts, provided that each restored snapshot is of the latest start: save right after
    /// restoring.
    ///
    /// # Errors
    /// [`RestoreError`] by variant.
    pub fn restore(snapshot: &WorldSnapshot) -> Result<World, RestoreError> {
        let start = snapshot.start.checked_add(1).ok_or(RestoreError::Starts)?;
        let mut state = State::new(snapshot.seed, start);
        state.fee_rate = snapshot.fee_rate.max(SatPerKw::FLOOR);
        for block in &snapshot.blocks {
            accept_all(&mut state, block)?;
            state.mine();
        }
        accept_all(&mut state, &snapshot.mempool)?;
        for node in &snapshot.nodes {
            restore_node(&mut state, node)?;
        }
        state.uses = snapshot.uses.iter().copied().collect();
        state.find_running();
        Ok(World::from_state(state))
    }
}

fn accept_all(state: &mut State, transactions: &[Transaction]) -> Result<(), RestoreError> {
    for transaction in transactions {
        let refused = |refusal| RestoreError::Transaction { txid: transaction.compute_txid(), refusal };
        state.chain.accept(transaction).map_err(refused)?;
    }
    Ok(())
}

fn save_node(node: &NodeState) -> NodeSnapshot {
    NodeSnapshot {
        name: node.name.clone(),
        listening: node.listening,
        families: node.families.clone(),
        wallet: node.wallet.counters,
        labels: node.wallet.labels.iter().map(|(txid, label)| (*txid, label.clone())).collect(),
        channels: node.channels.values().cloned().collect(),
    }
}

fn restore_node(state: &mut State, saved: &NodeSnapshot) -> Result<(), RestoreError> {
    let id = state.add(&saved.name);
    let (node, chain) = state.node_and_chain(&id);
    node.forget_volatile(chain.height());
    node.listening = saved.listening;
    node.families = saved.families.clone();
    node.wallet.labels = saved.labels.iter().cloned().collect();
    node.channels = saved.channels.iter().map(|channel| (channel.channel_point, channel.clone())).collect();
    let mut counters = saved.wallet;
    for (taproot, change) in [(false, false), (false, true), (true, false), (true, true)] {
        for index in 0..*counters.of(taproot, change) {
            let revealed = node.wallet.reveal(&node.ring, WalletPath { taproot, change, index });
            revealed.ok_or_else(|| RestoreError::Counters { name: saved.name.clone() })?;
        }
    }
    Ok(())
}
