//! Leased channels between nodes of one world.

use crate::chain::ChainState;
use crate::keys::FAMILY_PAYMENT;
use crate::node::{NodeState, SandboxNode, refused};
use crate::snapshot::ChannelRecord;
use crate::world::State;
use bitcoin::{OutPoint, ScriptBuf};
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::collections::btree_map::Entry;
use thiserror::Error;
use tidegate_ports::{Channels, NodeError};
use tidegate_protocol::batch::{ChannelInfo, ReportedChannelType};
use tidegate_protocol::channel::{
    AcceptorDecision, AcceptorRule, CommitmentType, FundingShim, IncomingChannel, OpenChannel, funding_script,
};
use tidegate_protocol::keys::{NodeId, PendingChannelId};
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::Sats;

/// Confirmations of the funding output from which a channel is usable.
pub const CHANNEL_CONFIRMATIONS: u32 = 3;
/// Smallest channel that a node opens.
const MIN_CAPACITY: Sats = Sats::constant(20_000);

/// Why a channel is not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenRefusal {
    /// The peer is not connected.
    #[error("peer {0} is not online")]
    NotConnected(NodeId),
    /// The maker's funding key is not the maker's.
    #[error("the funding key is not a key of this wallet")]
    ForeignKey,
    /// Below the smallest channel.
    #[error("a channel of {0} is too small")]
    TooSmall(Sats),
    /// More pushed than there is.
    #[error("{push} can not be pushed in a channel of {capacity}")]
    PushTooLarge {
        /// Pushed.
        push: Sats,
        /// Capacity.
        capacity: Sats,
    },
    /// Taproot funding and taproot commitment go together, and such channels are not announced.
    #[error("taproot channels are unannounced and have a taproot funding output, others have neither demand")]
    Taproot,
    /// This node or the peer knows the channel point, perhaps as abandoned.
    #[error("channel {0} already exists")]
    Exists(OutPoint),
    /// The peer expects no such channel.
    #[error("the peer has no shim for pending channel {0}")]
    NoShim(PendingChannelId),
    /// The peer's shim differs from the request.
    #[error("the peer's shim has another {0}")]
    ShimMismatch(&'static str),
    /// The peer's acceptor refused.
    #[error("the peer refuses: {0}")]
    Acceptor(String),
    /// Zero-conf was asked for and not granted.
    #[error("the peer does not grant zero-conf")]
    ZeroConf,
    /// The funding keys can not be aggregated.
    #[error("the funding keys make no funding output")]
    Keys,
}

impl ChannelRecord {
    /// The funding output is confirmed as agreed, at that height.
    pub(crate) fn funded_at(&self, chain: &ChainState) -> Option<u32> {
        let coin = chain.coin(&self.channel_point)?;
        let agreed = coin.output.script_pubkey == self.script && coin.output.value == self.capacity.into();
        coin.height.filter(|_| agreed)
    }

    /// The funding output is spent in a block.
    pub(crate) fn is_closed(&self, chain: &ChainState) -> bool {
        chain.spender(&self.channel_point).is_some_and(|(_, height)| height.is_some())
    }

    /// Pending or open.
    pub(crate) fn is_held(&self, chain: &ChainState) -> bool {
        !self.abandoned && !self.is_closed(chain)
    }

    /// Open, apart from the connection to the peer.
    pub(crate) fn is_usable(&self, chain: &ChainState) -> bool {
        let deep = |height: u32| chain.height() - height + 1 >= CHANNEL_CONFIRMATIONS;
        self.is_held(chain) && (self.zero_conf || self.funded_at(chain).is_some_and(deep))
    }
}

/// Judges a request with both nodes' knowledge; returns the funding script.
fn judge(maker: &NodeState, taker: &NodeState, request: &OpenChannel) -> Result<ScriptBuf, OpenRefusal> {
    let shim = &request.shim;
    if !maker.peers.contains(&taker.id) {
        return Err(OpenRefusal::NotConnected(taker.id));
    }
    if maker.ring.family_point(shim.local_key.locator) != Some(shim.local_key.point) {
        return Err(OpenRefusal::ForeignKey);
    }
    if shim.capacity < MIN_CAPACITY {
        return Err(OpenRefusal::TooSmall(shim.capacity));
    }
    if request.push > shim.capacity {
        return Err(OpenRefusal::PushTooLarge { push: request.push, capacity: shim.capacity });
    }
    let taproot = request.commitment == CommitmentType::SimpleTaproot;
    if taproot != shim.musig2 || (taproot && !request.private) {
        return Err(OpenRefusal::Taproot);
    }
    // Also an abandoned channel: a node keeps those as closed and never opens the point again.
    if maker.channels.contains_key(&shim.channel_point) || taker.channels.contains_key(&shim.channel_point) {
        return Err(OpenRefusal::Exists(shim.channel_point));
    }
    let theirs = taker.shims.get(&shim.pending_id).ok_or(OpenRefusal::NoShim(shim.pending_id))?;
    compare_shims(shim, theirs, request.commitment)?;
    judge_acceptor(taker, request)?;
    let ours = tidegate_protocol::keys::MultisigKey::new(shim.local_key.point);
    funding_script(ours, shim.remote_key, request.commitment).map_err(|_| OpenRefusal::Keys)
}

/// The two sides' shims describe one channel: keys crosswise, all else equal. A relative thaw height is private to
/// each node; the lease expiry is part of the scripts.
fn compare_shims(ours: &FundingShim, theirs: &FundingShim, commitment: CommitmentType) -> Result<(), OpenRefusal> {
    let leased = commitment == CommitmentType::ScriptEnforcedLease;
    let equal = [
        ("capacity", ours.capacity == theirs.capacity),
        ("channel point", ours.channel_point == theirs.channel_point),
        ("opener's key", ours.local_key.point == *theirs.remote_key.point()),
        ("acceptor's key", *ours.remote_key.point() == theirs.local_key.point),
        ("kind of funding output", ours.musig2 == theirs.musig2),
        ("lease expiry", !leased || ours.thaw_height == theirs.thaw_height),
    ];
    match equal.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(OpenRefusal::ShimMismatch(what)),
        None => Ok(()),
    }
}

/// Asks the taker's acceptor; an id without a rule is accepted, without zero-conf.
fn judge_acceptor(taker: &NodeState, request: &OpenChannel) -> Result<(), OpenRefusal> {
    let incoming = IncomingChannel {
        // 21 million bitcoin in millisatoshi fit 64 bits.
        push_msat: request.push.get().saturating_mul(1000),
        commitment: match request.commitment {
            CommitmentType::Negotiated => None,
            CommitmentType::ScriptEnforcedLease => Some(4),
            CommitmentType::SimpleTaproot => Some(5),
        },
        channel_flags: u32::from(!request.private),
        wants_zero_conf: request.zero_conf,
    };
    let granted = match taker.rules.get(&request.shim.pending_id).map(|rule| rule.decide(&incoming)) {
        None => false,
        Some(AcceptorDecision::Accept { zero_conf }) => zero_conf,
        Some(AcceptorDecision::Refuse(reason)) => return Err(OpenRefusal::Acceptor(reason)),
    };
    if request.zero_conf && !granted { Err(OpenRefusal::ZeroConf) } else { Ok(()) }
}

/// Opens a channel: after this both nodes hold it as pending, and the taker's shim is used up.
fn open(state: &mut State, maker: NodeId, request: &OpenChannel) -> Result<(), NodeError> {
    let refuse = |refusal: OpenRefusal| refused("open", refusal);
    let taker = request.node;
    if !state.node(&maker).opening {
        return Err(NodeError::NotReady { reason: "the server is still starting".to_owned() });
    }
    if taker == maker || !state.nodes.contains_key(&taker) {
        return Err(refuse(OpenRefusal::NotConnected(taker)));
    }
    let script = judge(state.node(&maker), state.node(&taker), request).map_err(refuse)?;
    let maker_point = state.node_and_chain(&maker).0.next_key(FAMILY_PAYMENT)?.point;
    let (taker_state, _) = state.node_and_chain(&taker);
    let taker_point = taker_state.next_key(FAMILY_PAYMENT)?.point;
    let theirs = taker_state.shims.remove(&request.shim.pending_id);
    let taker_key = theirs.ok_or_else(|| refuse(OpenRefusal::NoShim(request.shim.pending_id)))?.local_key.locator;
    let of_maker = ChannelRecord {
        channel_point: request.shim.channel_point,
        peer: taker,
        initiator: true,
        capacity: request.shim.capacity,
        push: request.push,
        script,
        commitment: request.commitment,
        private: request.private,
        zero_conf: request.zero_conf,
        thaw_height: request.shim.thaw_height,
        funding_key: request.shim.local_key.locator,
        local_payment_point: maker_point,
        remote_payment_point: taker_point,
        abandoned: false,
    };
    let of_taker = ChannelRecord {
        peer: maker,
        initiator: false,
        funding_key: taker_key,
        local_payment_point: taker_point,
        remote_payment_point: maker_point,
        ..of_maker.clone()
    };
    taker_state.channels.insert(of_taker.channel_point, of_taker);
    state.running.insert(of_maker.channel_point, maker);
    state.node_and_chain(&maker).0.channels.insert(of_maker.channel_point, of_maker);
    Ok(())
}

/// Connects two nodes when one of the addresses belongs to the wanted node and it listens.
pub(crate) fn connect(state: &mut State, from: NodeId, to: NodeId, addresses: &[NodeAddress]) -> Result<(), NodeError> {
    if state.node(&from).peers.contains(&to) {
        return Ok(());
    }
    if from == to {
        return Err(refused("connect", "a node does not connect to itself"));
    }
    let there = state.nodes.get(&to).is_some_and(|node| node.listening && addresses.contains(&node.address));
    if !there {
        let tried: Vec<&str> = addresses.iter().map(|address| address.0.as_str()).collect();
        return Err(refused("connect", format!("{to} does not answer at [{}]", tried.join(", "))));
    }
    state.node_and_chain(&from).0.peers.insert(to);
    state.node_and_chain(&to).0.peers.insert(from);
    Ok(())
}

impl NodeState {
    fn register_shim(&mut self, shim: &FundingShim) -> Result<(), NodeError> {
        let call = "register_shim";
        if self.ring.family_point(shim.local_key.locator) != Some(shim.local_key.point) {
            return Err(refused(call, OpenRefusal::ForeignKey));
        }
        match self.shims.entry(shim.pending_id) {
            Entry::Occupied(_) => {
                Err(refused(call, format!("pending channel {} is registered already", shim.pending_id)))
            }
            Entry::Vacant(place) => {
                place.insert(shim.clone());
                Ok(())
            }
        }
    }

    fn abandon(&mut self, channel: OutPoint, chain: &ChainState) -> Result<(), NodeError> {
        match self.channels.get_mut(&channel) {
            Some(record) if record.funded_at(chain).is_some() => {
                Err(refused("abandon", format!("the funding output of {channel} is confirmed")))
            }
            Some(record) => {
                record.abandoned = true;
                self.abandoned = self.abandoned.saturating_add(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn report(&self, channel: OutPoint) -> Result<ChannelInfo, NodeError> {
        let record = self.channels.get(&channel).filter(|record| !record.abandoned);
        let record = record.ok_or_else(|| refused("report", format!("there is no channel {channel}")))?;
        Ok(ChannelInfo {
            channel_type: match record.commitment {
                CommitmentType::Negotiated => ReportedChannelType::Anchors,
                CommitmentType::ScriptEnforcedLease => ReportedChannelType::ScriptEnforcedLease,
                CommitmentType::SimpleTaproot => ReportedChannelType::SimpleTaproot,
            },
            local_node: self.id,
            remote_node: record.peer,
            local_payment_point: record.local_payment_point,
            remote_payment_point: record.remote_payment_point,
        })
    }
}

impl SandboxNode {
    /// Every channel that the node ever held, also abandoned and closed ones, by channel point.
    pub fn channel_records(&self) -> Vec<ChannelRecord> {
        self.read(|node, _| node.channels.values().cloned().collect())
    }

    /// Returns once the condition holds; looks again after each change of the world.
    fn until(&self, holds: impl Fn(&NodeState) -> bool + Send) -> impl Future<Output = Result<(), NodeError>> + Send {
        poll_fn(move |context| match self.wait(context.waker(), |node, _| holds(node).then_some(())) {
            Some(()) => Poll::Ready(Ok(())),
            None => Poll::Pending,
        })
    }
}

impl Channels for SandboxNode {
    async fn connect(&self, node: NodeId, addresses: &[NodeAddress]) -> Result<(), NodeError> {
        self.world().change(|state| connect(state, self.id(), node, addresses))
    }

    async fn online_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        Ok(self.read(|node, _| node.peers.iter().copied().collect()))
    }

    async fn wait_online(&self, node: NodeId) -> Result<(), NodeError> {
        self.until(move |state| state.peers.contains(&node)).await
    }

    async fn register_shim(&self, shim: &FundingShim) -> Result<(), NodeError> {
        self.change(|node, _| node.register_shim(shim))
    }

    async fn cancel_shim(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.change(|node, _| node.shims.remove(&id));
        Ok(())
    }

    async fn expect(&self, id: PendingChannelId, rule: AcceptorRule) -> Result<(), NodeError> {
        self.change(|node, _| node.rules.insert(id, rule));
        Ok(())
    }

    async fn unexpect(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.change(|node, _| node.rules.remove(&id));
        Ok(())
    }

    async fn open(&self, request: &OpenChannel) -> Result<(), NodeError> {
        self.world().change(|state| open(state, self.id(), request))
    }

    async fn wait_pending(&self, channel: OutPoint) -> Result<(), NodeError> {
        self.until(move |state| state.channels.get(&channel).is_some_and(|record| !record.abandoned)).await
    }

    async fn report(&self, channel: OutPoint) -> Result<ChannelInfo, NodeError> {
        self.read(|node, _| node.report(channel))
    }

    async fn abandon(&self, channel: OutPoint) -> Result<(), NodeError> {
        self.change(|node, chain| node.abandon(channel, chain))
    }

    async fn active_channels(&self) -> Result<Vec<(OutPoint, Sats)>, NodeError> {
        Ok(self.read(|node, chain| {
            let usable = |record: &&ChannelRecord| node.peers.contains(&record.peer) && record.is_usable(chain);
            let active = node.channels.values().filter(usable);
            active.map(|record| (record.channel_point, record.capacity)).collect()
        }))
    }
}
