//! The world: one chain and its nodes behind one lock.

use crate::chain::{Acceptance, ChainState, TxRefusal};
use crate::entropy::SandboxEntropy;
use crate::keys::{KeyRing, WalletPath};
use crate::node::{NodeState, SandboxNode, refused};
use crate::traffic::ChannelUse;
use crate::wakers::{Wakers, lock};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use core::fmt;
use core::task::Waker;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate_ports::{AddressKind, NodeError};
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// Name of the node that earns the block rewards.
pub(crate) const MINER: &str = "miner";
/// Port of the first node.
const FIRST_PORT: u32 = 9735;

/// A seeded chain with nodes. Clones are the same world.
///
/// Everything but the order in which callers arrive follows from the seed. One lock guards it all; it is never held
/// across an await, and waiting tasks are woken after it is released.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<State>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|state| {
            f.debug_struct("World")
                .field("seed", &state.seed)
                .field("height", &state.chain.height())
                .field("nodes", &state.nodes.len())
                .finish()
        })
    }
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) seed: u64,
    /// How often this world was started from saved data.
    pub(crate) start: u64,
    /// Of the nodes' signing sessions.
    pub(crate) entropy: SandboxEntropy,
    /// Of participants, by name.
    entropies: BTreeMap<String, SandboxEntropy>,
    pub(crate) chain: ChainState,
    pub(crate) nodes: BTreeMap<NodeId, NodeState>,
    pub(crate) miner: NodeId,
    pub(crate) miner_script: ScriptBuf,
    pub(crate) fee_rate: SatPerKw,
    /// Nodes in the order in which they were added.
    pub(crate) order: Vec<NodeId>,
    /// Channels that are not closed, with their openers.
    pub(crate) running: BTreeMap<OutPoint, NodeId>,
    /// How channels were used.
    pub(crate) uses: BTreeMap<OutPoint, ChannelUse>,
    wakers: Wakers,
}

impl State {
    pub(crate) fn new(seed: u64, start: u64) -> State {
        let path = WalletPath { taproot: false, change: false, index: 0 };
        let miner_script = KeyRing::new(seed, MINER).wallet_script(path).expect("index 0 is in range");
        let chain = ChainState::new(&miner_script);
        let mut miner = NodeState::new(seed, MINER, NodeAddress(format!("127.0.0.1:{FIRST_PORT}")), chain.height());
        miner.listening = false;
        miner.wallet.reveal(&miner.ring, path);
        let id = miner.id;
        State {
            seed,
            start,
            entropy: SandboxEntropy::new(seed, start),
            entropies: BTreeMap::new(),
            chain,
            nodes: BTreeMap::from([(id, miner)]),
            miner: id,
            miner_script,
            fee_rate: SatPerKw::FLOOR,
            order: vec![id],
            running: BTreeMap::new(),
            uses: BTreeMap::new(),
            wakers: Wakers::default(),
        }
    }

    pub(crate) fn node(&self, id: &NodeId) -> &NodeState {
        self.nodes.get(id).expect("handles are made for nodes that exist, and nodes are never removed")
    }

    pub(crate) fn node_and_chain(&mut self, id: &NodeId) -> (&mut NodeState, &mut ChainState) {
        let node = self.nodes.get_mut(id);
        (node.expect("handles are made for nodes that exist, and nodes are never removed"), &mut self.chain)
    }

    /// The node of this name.
    pub(crate) fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.values().find(|node| node.name == name).map(|node| node.id)
    }

    /// The node of this name, made when there is none.
    pub(crate) fn add(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let number = u32::try_from(self.order.len()).expect("fewer than 2^32 nodes fit in memory");
        // Ports beyond 65,535 do no harm: addresses are names here, nobody opens a socket.
        let address = NodeAddress(format!("127.0.0.1:{}", FIRST_PORT.saturating_add(number)));
        let node = NodeState::new(self.seed, name, address, self.chain.height());
        let id = node.id;
        self.order.push(id);
        self.nodes.insert(id, node);
        id
    }

    pub(crate) fn mine(&mut self) -> u32 {
        self.chain.mine(&self.miner_script)
    }
}

impl World {
    /// A new world at height [`GENESIS_HEIGHT`](crate::GENESIS_HEIGHT) whose miner owns mature block rewards.
    pub fn new(seed: u64) -> World {
        World::from_state(State::new(seed, 0))
    }

    pub(crate) fn from_state(state: State) -> World {
        World { inner: Arc::new(Mutex::new(state)) }
    }

    /// The node of this name, made when there is none. Keys follow from the world's seed and the name; the name
    /// `miner` is the node that earns the block rewards.
    pub fn add_node(&self, name: &str) -> SandboxNode {
        let id = self.change(|state| state.add(name));
        SandboxNode::new(self.clone(), id)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<SandboxNode> {
        self.read(|state| state.find(name)).map(|id| SandboxNode::new(self.clone(), id))
    }

    /// All nodes but the miner, in the order in which they were added.
    pub fn nodes(&self) -> Vec<SandboxNode> {
        let ids: Vec<NodeId> = self.read(|state| state.order.iter().copied().filter(|id| *id != state.miner).collect());
        ids.into_iter().map(|id| SandboxNode::new(self.clone(), id)).collect()
    }

    /// Gives a node's wallet `amount` in one P2WPKH output, and mines a block that confirms it.
    ///
    /// # Errors
    /// As of [`World::pay`].
    pub fn fund(&self, node: &SandboxNode, amount: Sats) -> Result<OutPoint, NodeError> {
        let script = node.change(|state, _| state.wallet.fresh(&state.ring, AddressKind::WitnessPubkeyHash))?;
        let outpoint = self.pay(script, amount)?;
        self.mine(1);
        Ok(outpoint)
    }

    /// Pays `amount` to a script from the miner's wallet; unconfirmed until the next block.
    ///
    /// # Errors
    /// [`NodeError::InsufficientFunds`] when the miner has no confirmed coins left (mine), [`NodeError::Refused`] when
    /// the payment is dust.
    pub fn pay(&self, script: ScriptBuf, amount: Sats) -> Result<OutPoint, NodeError> {
        let output = TxOut { value: amount.into(), script_pubkey: script };
        self.change(|state| {
            let (miner, fee_rate) = (state.miner, state.fee_rate);
            let (node, chain) = state.node_and_chain(&miner);
            let transaction = node.wallet.send(&node.ring, chain, core::slice::from_ref(&output), fee_rate, "fund")?;
            let vout = (0_u32..).zip(&transaction.output).find(|(_, made)| **made == output).map(|(vout, _)| vout);
            let vout = vout.ok_or_else(|| refused("pay", "the wallet dropped the output"))?;
            Ok(OutPoint { txid: transaction.compute_txid(), vout })
        })
    }

    /// Mines `count` blocks with what the mempool holds, and wakes watchers. Returns the new height.
    pub fn mine(&self, count: u32) -> BlockHeight {
        self.change(|state| {
            for _ in 0..count {
                state.mine();
            }
            BlockHeight::new(state.chain.height())
        })
    }

    /// A reorganisation: takes the last `depth` blocks back (none of the first
    /// [`GENESIS_HEIGHT`](crate::GENESIS_HEIGHT)) and mines a branch that is one block longer. Its first `empty` blocks
    /// hold nothing, the others what the mempool holds, to which the old blocks' transactions returned. Watchers are
    /// told the new branch, and again what was undone. Returns the new height.
    pub fn reorganise(&self, depth: u32, empty: u32) -> BlockHeight {
        self.change(|state| {
            let before = state.chain.height();
            let fork = state.chain.disconnect(depth);
            state.nodes.values_mut().for_each(|node| node.watcher.rewind(fork));
            for number in fork..=before {
                state.chain.mine_from(&state.miner_script, number - fork >= empty);
            }
            BlockHeight::new(state.chain.height())
        })
    }

    /// The network loses an unconfirmed transaction that nothing spends from, as full nodes drop what pays least. Its
    /// wallet remembers it and keeps its coins; somebody has to publish it again. A child that only raises a fee is
    /// remembered by nobody. What was in a block once is kept: false then, and for all that is not there. Saved worlds
    /// do not know what is lost.
    pub fn lose(&self, txid: Txid) -> bool {
        self.change(|state| {
            if state.nodes.values().any(|node| node.wallet.bumps.values().any(|child| *child == txid)) {
                state.chain.evict(&txid)
            } else {
                state.chain.lose(&txid)
            }
        })
    }

    /// The owner of a wallet spends a coin of it once more, with another program and a higher fee: an unconfirmed
    /// transaction that spends the coin, and from which nothing spends, can never confirm then. Returns what took its
    /// place; nothing when there is no such transaction or coin.
    pub fn double_spend(&self, txid: Txid, rate: SatPerKw) -> Option<Transaction> {
        self.change(|state| {
            let (transaction, _) = state.chain.transaction(&txid).filter(|(_, height)| height.is_none())?;
            let spent: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
            let script = |outpoint| state.chain.coin(outpoint).map(|coin| coin.output.script_pubkey.clone());
            let (coin, owner) = spent.iter().find_map(|outpoint| {
                let script = script(outpoint)?;
                let owner = state.nodes.values().find(|node| node.wallet.scripts.contains_key(&script))?;
                Some((*outpoint, owner.id))
            })?;
            if !state.chain.evict(&txid) {
                return None;
            }
            let (node, chain) = state.node_and_chain(&owner);
            node.wallet.spend_alone(&node.ring, chain, coin, rate)
        })
    }

    /// Satoshi in unspent confirmed outputs, and satoshi that were ever mined (rewards without fees): always equal,
    /// since the miner earns every fee.
    pub fn satoshi(&self) -> (u64, u64) {
        self.read(|state| (state.chain.circulating(), state.chain.subsidies()))
    }

    /// Hands a transaction to the network.
    ///
    /// # Errors
    /// [`TxRefusal`] by variant.
    pub fn publish(&self, transaction: &Transaction) -> Result<Acceptance, TxRefusal> {
        self.change(|state| state.chain.accept(transaction))
    }

    /// Height of the best block.
    pub fn height(&self) -> BlockHeight {
        self.read(|state| BlockHeight::new(state.chain.height()))
    }

    /// A transaction with the height of its block; no height while it is in the mempool.
    pub fn transaction(&self, txid: Txid) -> Option<(Transaction, Option<BlockHeight>)> {
        self.read(|state| {
            let (transaction, height) = state.chain.transaction(&txid)?;
            Some((transaction.clone(), height.map(BlockHeight::new)))
        })
    }

    /// An output that exists, confirmed or not, and that nothing in blocks or mempool spends.
    pub fn utxo(&self, outpoint: OutPoint) -> Option<TxOut> {
        self.read(|state| {
            let coin = state.chain.coin(&outpoint)?;
            state.chain.spender(&outpoint).is_none().then(|| coin.output.clone())
        })
    }

    /// The spender of an output, with the height of its block; no height while it is in the mempool.
    pub fn spender(&self, outpoint: OutPoint) -> Option<(Transaction, Option<BlockHeight>)> {
        self.read(|state| {
            let (transaction, height) = state.chain.spender(&outpoint)?;
            Some((transaction.clone(), height.map(BlockHeight::new)))
        })
    }

    /// The transactions of a block, reward first.
    pub fn block(&self, height: BlockHeight) -> Option<Vec<Transaction>> {
        self.read(|state| Some(state.chain.block(height.get())?.into_iter().cloned().collect()))
    }

    /// Unconfirmed transactions, parents first.
    pub fn mempool(&self) -> Vec<Transaction> {
        self.read(|state| state.chain.mempool().cloned().collect())
    }

    /// Sets what every node estimates as fee rate, for any target; at least [`SatPerKw::FLOOR`].
    pub fn set_fee_rate(&self, rate: SatPerKw) {
        self.change(|state| state.fee_rate = rate.max(SatPerKw::FLOOR));
    }

    /// What every node estimates as fee rate.
    pub fn fee_rate(&self) -> SatPerKw {
        self.read(|state| state.fee_rate)
    }

    /// Whether a node accepts connections; a new node does. Existing connections stay.
    pub fn set_listening(&self, node: &SandboxNode, listening: bool) {
        node.change(|state, _| state.listening = listening);
    }

    /// Whether a node opens channels; a new node does. A real one that was started just now says that it is not ready for
    /// that, and answers other calls.
    pub fn set_opening(&self, node: &SandboxNode, opening: bool) {
        node.change(|state, _| state.opening = opening);
    }

    /// Ends the connection of two nodes; not connected is no error.
    pub fn disconnect(&self, one: &SandboxNode, other: &SandboxNode) {
        self.change(|state| {
            state.node_and_chain(&one.id()).0.peers.remove(&other.id());
            state.node_and_chain(&other.id()).0.peers.remove(&one.id());
        });
    }

    /// Randomness of this world and start, for the flows of one participant. Each name has its own draws; asking
    /// again for a name goes on with them.
    pub fn entropy(&self, name: &str) -> SandboxEntropy {
        self.change(|state| {
            let (seed, start) = (state.seed, state.start);
            let made = || SandboxEntropy::named(seed, name, start);
            state.entropies.entry(name.to_owned()).or_insert_with(made).clone()
        })
    }

    pub(crate) fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&lock(&self.inner))
    }

    /// Changes the state, and wakes every waiting task after the lock is released.
    pub(crate) fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let (result, woken) = {
            let mut state = lock(&self.inner);
            let result = f(&mut state);
            (result, state.wakers.take())
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Looks for something; when it is not there, `waker` is woken by the next change.
    pub(crate) fn wait<R>(&self, waker: &Waker, look: impl FnOnce(&mut State) -> Option<R>) -> Option<R> {
        let mut state = lock(&self.inner);
        let found = look(&mut state);
        if found.is_none() {
            state.wakers.add(waker);
        }
        found
    }
}
