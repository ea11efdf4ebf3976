//! A node: its state, and what it says about itself.

use crate::chain::ChainState;
use crate::keys::{FAMILY_IDENTITY, KeyRing};
use crate::signer::Session;
use crate::snapshot::ChannelRecord;
use crate::wallet::WalletState;
use crate::watch::Watcher;
use crate::world::World;
use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use core::fmt;
use core::task::Waker;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Chain, NodeData, NodeError, NodeInfo, SessionId};
use tidegate_protocol::channel::{AcceptorRule, FundingShim};
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, NodeId, PendingChannelId};
use tidegate_protocol::order::NodeAddress;

/// A refusal of the node, for callers of a port.
pub(crate) fn refused(call: &'static str, reason: impl ToString) -> NodeError {
    NodeError::Refused { call, reason: reason.to_string() }
}

/// Everything that one node knows.
#[derive(Debug)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) address: NodeAddress,
    pub(crate) ring: KeyRing,
    /// Family → index of its next unused key.
    pub(crate) families: BTreeMap<u32, u32>,
    pub(crate) wallet: WalletState,
    pub(crate) channels: BTreeMap<OutPoint, ChannelRecord>,
    /// How often a channel was given up since the start.
    pub(crate) abandoned: u32,
    /// Accepts connections from others.
    pub(crate) listening: bool,
    /// Opens channels: a node that was started just now answers other calls before.
    pub(crate) opening: bool,
    /// How often the node was restarted.
    pub(crate) starts: u64,
    /// Lost when the node restarts: everything from here on.
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) watcher: Watcher,
    pub(crate) peers: BTreeSet<NodeId>,
    pub(crate) shims: BTreeMap<PendingChannelId, FundingShim>,
    pub(crate) rules: BTreeMap<PendingChannelId, AcceptorRule>,
}

impl NodeState {
    /// The node `name` of the world of `seed`, unused, at this height.
    pub(crate) fn new(seed: u64, name: &str, address: NodeAddress, height: u32) -> NodeState {
        let ring = KeyRing::new(seed, name);
        let identity = KeyLocator { family: FAMILY_IDENTITY, index: 0 };
        let point = ring.family_point(identity).expect("the identity's place is in range");
        NodeState {
            name: name.to_owned(),
            id: NodeId::new(point),
            address,
            ring,
            families: BTreeMap::new(),
            wallet: WalletState::default(),
            channels: BTreeMap::new(),
            abandoned: 0,
            listening: true,
            opening: true,
            starts: 0,
            sessions: BTreeMap::new(),
            watcher: Watcher::new(height),
            peers: BTreeSet::new(),
            shims: BTreeMap::new(),
            rules: BTreeMap::new(),
        }
    }

    /// Forgets what does not survive a restart. Connections are dropped by the caller, on both sides.
    pub(crate) fn forget_volatile(&mut self, height: u32) {
        self.sessions.clear();
        self.watcher = Watcher::new(height);
        self.shims.clear();
        self.rules.clear();
    }

    /// The next unused key of a family.
    pub(crate) fn next_key(&mut self, family: u32) -> Result<KeyDescriptor, NodeError> {
        let index = self.families.get(&family).copied().unwrap_or(0);
        let descriptor = self.key(KeyLocator { family, index }, "derive_next_key")?;
        // A derivable index is below 2^31.
        self.families.insert(family, index + 1);
        Ok(descriptor)
    }

    /// The key at a place.
    pub(crate) fn key(&self, locator: KeyLocator, call: &'static str) -> Result<KeyDescriptor, NodeError> {
        let point: PublicKey =
            self.ring.family_point(locator).ok_or_else(|| refused(call, "key family or index is out of range"))?;
        Ok(KeyDescriptor { point, locator })
    }
}

/// A node of a [`World`]; implements the ports Wallet, Signer, Chain, Channels and NodeData. Clones are the same node.
#[derive(Clone)]
pub struct SandboxNode {
    world: World,
    id: NodeId,
}

impl fmt::Debug for SandboxNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SandboxNode").field(&self.id).finish()
    }
}

impl SandboxNode {
    pub(crate) fn new(world: World, id: NodeId) -> SandboxNode {
        SandboxNode { world, id }
    }

    /// The world that the node lives in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Identity.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Name under which the node was added.
    pub fn name(&self) -> String {
        self.read(|node, _| node.name.clone())
    }

    /// The address that others connect to.
    pub fn address(&self) -> NodeAddress {
        self.read(|node, _| node.address.clone())
    }

    /// Restarts the node: connections, watches with unread events, signing sessions, shims and acceptor rules are
    /// gone; keys, coins and channels stay.
    pub fn restart(&self) {
        self.world.change(|state| {
            let height = state.chain.height();
            for (id, node) in &mut state.nodes {
                if *id == self.id {
                    node.forget_volatile(height);
                    node.starts = node.starts.saturating_add(1);
                    node.peers.clear();
                } else {
                    node.peers.remove(&self.id);
                }
            }
        });
    }

    /// How often the node was restarted: whoever was connected before sees from this that its streams ended.
    pub fn starts(&self) -> u64 {
        self.read(|node, _| node.starts)
    }

    /// Reads the node's state.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&NodeState, &ChainState) -> R) -> R {
        self.world.read(|state| f(state.node(&self.id), &state.chain))
    }

    /// Changes the node's state and wakes who waits.
    pub(crate) fn change<R>(&self, f: impl FnOnce(&mut NodeState, &ChainState) -> R) -> R {
        self.world.change(|state| {
            let (node, chain) = state.node_and_chain(&self.id);
            f(node, chain)
        })
    }

    /// Looks for something; when it is not there, `waker` is woken by the next change.
    pub(crate) fn wait<R>(
        &self,
        waker: &Waker,
        look: impl FnOnce(&mut NodeState, &ChainState) -> Option<R>,
    ) -> Option<R> {
        self.world.wait(waker, |state| {
            let (node, chain) = state.node_and_chain(&self.id);
            look(node, chain)
        })
    }
}

impl NodeData for SandboxNode {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let best_height = self.best_height().await?;
        Ok(NodeInfo {
            id: self.id,
            addresses: vec![self.address()],
            network: "regtest".to_owned(),
            best_height,
            synced: true,
            zero_conf: true,
            taproot_channels: true,
            large_channels: true,
            version: concat!("sandbox ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    async fn channel_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        Ok(self.read(|node, chain| {
            let held = node.channels.values().filter(|channel| channel.is_held(chain));
            let peers: BTreeSet<NodeId> = held.map(|channel| channel.peer).collect();
            peers.into_iter().collect()
        }))
    }
}
