//! Leased channels through the node: shims, opening, waiting, reports.

use crate::NodeError;
use bitcoin::OutPoint;
use core::future::Future;
use tidegate_protocol::batch::ChannelInfo;
use tidegate_protocol::channel::{AcceptorRule, FundingShim, OpenChannel};
use tidegate_protocol::keys::{NodeId, PendingChannelId};
use tidegate_protocol::order::NodeAddress;

/// Channel calls of the node. Sessions, shims and acceptors die with the node or the connection.
pub trait Channels: Send + Sync {
    /// Connects to a peer, trying the addresses in order; already connected is success.
    fn connect(&self, node: NodeId, addresses: &[NodeAddress]) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Peers that are connected now.
    fn online_peers(&self) -> impl Future<Output = Result<Vec<NodeId>, NodeError>> + Send;
    /// Returns once `node` is connected; the caller bounds the wait.
    fn wait_online(&self, node: NodeId) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Registers the funding output that an incoming channel will use.
    fn register_shim(&self, shim: &FundingShim) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Forgets a registered shim; unknown is no error.
    fn cancel_shim(&self, id: PendingChannelId) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Tells the acceptor under which rule an incoming channel is accepted; replaces an earlier rule of the same id.
    fn expect(&self, id: PendingChannelId, rule: AcceptorRule) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Forgets the rule.
    fn unexpect(&self, id: PendingChannelId) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Opens a channel on an external funding output; returns when both nodes hold it as pending.
    fn open(&self, request: &OpenChannel) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Returns once the node holds the channel as pending (or open); the caller bounds the wait. Channels that became
    /// pending before the call count.
    fn wait_pending(&self, channel: OutPoint) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// The report that the auctioneer demands.
    fn report(&self, channel: OutPoint) -> impl Future<Output = Result<ChannelInfo, NodeError>> + Send;
    /// Gives up a pending channel whose funding output will never exist; unknown is no error.
    fn abandon(&self, channel: OutPoint) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Channel points of channels that are open and usable, with their capacity in satoshi.
    fn active_channels(
        &self,
    ) -> impl Future<Output = Result<Vec<(OutPoint, tidegate_protocol::units::Sats)>, NodeError>> + Send;
}
