//! A world that is saved block by block: what a block changes, as rows that are only ever added or replaced.
//!
//! Who keeps a world saves what [`World::plan`] says *before* [`World::mine_plan`] shows the block to anybody: what others
//! store after they saw it then never names anything that a restart would not know.

use crate::node::NodeState;
use crate::snapshot::{ChannelRecord, NodeSnapshot, WalletCounters};
use crate::traffic::ChannelUse;
use crate::world::World;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::{BlockHeight, SatPerKw};

/// What was saved so far, so that a checkpoint holds only news. A new keeper finds everything new.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    nodes: BTreeMap<NodeId, Mark>,
    uses: BTreeMap<OutPoint, ChannelUse>,
}

#[derive(Clone, Debug, Default)]
struct Mark {
    seen: Option<Shape>,
    labels: BTreeSet<Txid>,
    /// Channel → whether it was given up.
    channels: BTreeMap<OutPoint, bool>,
}

/// As long as this is equal, a node has nothing to save.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    listening: bool,
    families: BTreeMap<u32, u32>,
    wallet: WalletCounters,
    labels: usize,
    channels: usize,
    abandoned: u32,
}

impl Shape {
    fn of(node: &NodeState) -> Shape {
        Shape {
            listening: node.listening,
            families: node.families.clone(),
            wallet: node.wallet.counters,
            labels: node.wallet.labels.len(),
            channels: node.channels.len(),
            abandoned: node.abandoned,
        }
    }
}

/// The next block as it was planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Its transactions without the reward, parents first.
    pub transactions: Vec<Transaction>,
    names: Vec<Txid>,
}

/// What is to be saved before a block is mined.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Height that the block will have.
    pub height: BlockHeight,
    /// The block.
    pub block: Planned,
    /// What every node estimates as fee rate.
    pub fee_rate: SatPerKw,
    /// Nodes that changed, with the labels and channels that are new or changed: the others stay as they were saved.
    pub nodes: Vec<(usize, NodeSnapshot)>,
    /// Channels whose use changed.
    pub uses: Vec<(OutPoint, ChannelUse)>,
}

impl Keeper {
    fn news(&mut self, node: &NodeState) -> Option<NodeSnapshot> {
        let mark = self.nodes.entry(node.id).or_default();
        let shape = Shape::of(node);
        if mark.seen.as_ref() == Some(&shape) {
            return None;
        }
        let labels = node.wallet.labels.iter().filter(|(txid, _)| mark.labels.insert(**txid));
        let labels = labels.map(|(txid, label)| (*txid, label.clone())).collect();
        let fresh = |record: &&ChannelRecord| {
            mark.channels.insert(record.channel_point, record.abandoned) != Some(record.abandoned)
        };
        let channels = node.channels.values().filter(fresh).cloned().collect();
        let saved = NodeSnapshot {
            name: node.name.clone(),
            listening: shape.listening,
            families: shape.families.clone(),
            wallet: shape.wallet,
            labels,
            channels,
        };
        mark.seen = Some(shape);
        Some(saved)
    }
}

impl World {
    /// What the next block would hold, and what changed since `keeper` was asked last.
    pub fn plan(&self, keeper: &mut Keeper) -> Checkpoint {
        self.change(|state| {
            let names = state.chain.plan();
            let known = |txid: &Txid| state.chain.transaction(txid).map(|(transaction, _)| transaction.clone());
            let transactions = names.iter().filter_map(known).collect();
            let nodes = state.order.iter().enumerate();
            let nodes = nodes.filter_map(|(place, id)| Some((place, keeper.news(state.node(id))?))).collect();
            let uses = state.running.keys().filter_map(|channel| Some((*channel, *state.uses.get(channel)?)));
            let uses = uses.filter(|(channel, usage)| keeper.uses.insert(*channel, *usage) != Some(*usage));
            Checkpoint {
                height: BlockHeight::new(state.chain.height().saturating_add(1)),
                block: Planned { transactions, names },
                fee_rate: state.fee_rate,
                uses: uses.collect(),
                nodes,
            }
        })
    }

    /// Mines the block that was planned, without what entered the mempool since, and wakes watchers. Returns the height.
    pub fn mine_plan(&self, planned: &Planned) -> BlockHeight {
        self.change(|state| {
            let miner = state.miner_script.clone();
            BlockHeight::new(state.chain.mine_planned(&miner, &planned.names))
        })
    }
}
