//! Leased channels through lnd.

use super::LndNode;
use super::convert::{channel_point, funding_descriptor, node_id, outpoint, sats, unsendable};
use super::error::{bad_answer, is_temporary, refused_with};
use super::permissions::{
    ABANDON_CHANNEL, CONNECT_PEER, EXPORT_CHANNEL_BACKUP, FUNDING_STATE_STEP, LIST_CHANNELS, LIST_PEERS, OPEN_CHANNEL,
    PENDING_CHANNELS,
};
use bitcoin::OutPoint;
use std::time::Duration;
use tidegate_ports::{Channels, NodeData, NodeError, Signer};
use tidegate_protocol::backup;
use tidegate_protocol::batch::ChannelInfo;
use tidegate_protocol::channel::{AcceptorRule, FundingShim, OpenChannel};
use tidegate_protocol::keys::{FAMILY_BACKUP, KeyLocator, NodeId, PendingChannelId};
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::Sats;
use tidegate_wire::lnd::lnrpc::funding_transition_msg::Trigger;
use tidegate_wire::lnd::lnrpc::open_status_update::Update;
use tidegate_wire::lnd::lnrpc::{
    self, AbandonChannelRequest, ChanPointShim, ConnectPeerRequest, ExportChannelBackupRequest, FundingShimCancel,
    FundingTransitionMsg, LightningAddress, ListPeersRequest, OpenChannelRequest, funding_shim,
};

/// Seconds that lnd tries one address of a peer.
const CONNECT_SECONDS: u64 = 10;
/// What we wait for lnd's word on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

impl Channels for LndNode {
    async fn connect(&self, node: NodeId, addresses: &[NodeAddress]) -> Result<(), NodeError> {
        let mut last = None;
        for address in addresses {
            match self.connect_at(node, address).await {
                Ok(()) => return Ok(()),
                Err(error) if refused_with(&error, "already connected") => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None if self.online_peers().await?.contains(&node) => Ok(()),
            None => Err(unsendable(CONNECT_PEER, format!("no address of {node} is known"))),
        }
    }

    async fn online_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        let link = &self.inner.link;
        let answer = link.ask(LIST_PEERS, link.lightning().list_peers(ListPeersRequest::default())).await?;
        answer.peers.iter().map(|peer| node_id(LIST_PEERS, &peer.pub_key)).collect()
    }

    async fn wait_online(&self, node: NodeId) -> Result<(), NodeError> {
        let mut news = self.inner.channels.peer_news();
        loop {
            match self.online_peers().await {
                Ok(peers) if peers.contains(&node) => return Ok(()),
                Err(error) if !is_temporary(&error) => return Err(error),
                Ok(_) | Err(_) => news.wait().await,
            }
        }
    }

    async fn register_shim(&self, shim: &FundingShim) -> Result<(), NodeError> {
        let trigger = Trigger::ShimRegister(funding_shim(FUNDING_STATE_STEP, shim)?);
        match self.funding_step(trigger.clone()).await {
            // Left from an attempt that was cut: ours is the newer one.
            Err(error) if refused_with(&error, "already") => {
                self.cancel_shim(shim.pending_id).await?;
                self.funding_step(trigger).await
            }
            answer => answer,
        }
    }

    async fn cancel_shim(&self, id: PendingChannelId) -> Result<(), NodeError> {
        let cancel = FundingShimCancel { pending_chan_id: id.as_bytes().to_vec() };
        match self.funding_step(Trigger::ShimCancel(cancel)).await {
            Err(error) if refused_with(&error, "no funding intent found") => Ok(()),
            answer => answer,
        }
    }

    async fn expect(&self, id: PendingChannelId, rule: AcceptorRule) -> Result<(), NodeError> {
        self.inner.channels.expect(id, rule);
        Ok(())
    }

    async fn unexpect(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.inner.channels.unexpect(id);
        Ok(())
    }

    async fn open(&self, request: &OpenChannel) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let answer = link.lightning().open_channel(open_request(request)?).await;
        let mut stream = answer.map_err(|status| link.error(OPEN_CHANNEL, &status))?.into_inner();
        loop {
            match link.next(OPEN_CHANNEL, &mut stream).await?.update {
                Some(Update::ChanPending(_) | Update::ChanOpen(_)) => return Ok(()),
                None => {}
            }
        }
    }

    async fn wait_pending(&self, channel: OutPoint) -> Result<(), NodeError> {
        let mut news = self.inner.channels.pending_news();
        loop {
            match self.is_pending(channel).await {
                Ok(true) => return Ok(()),
                Err(error) if !is_temporary(&error) => return Err(error),
                Ok(false) | Err(_) => news.wait().await,
            }
        }
    }

    async fn report(&self, channel: OutPoint) -> Result<ChannelInfo, NodeError> {
        let call = EXPORT_CHANNEL_BACKUP;
        let link = &self.inner.link;
        let local_node = self.info().await?.id;
        let key = self.derive_key(KeyLocator { family: FAMILY_BACKUP, index: 0 }).await?;
        let request = ExportChannelBackupRequest { chan_point: Some(channel_point(channel)) };
        let answer = link.ask(call, link.lightning().export_channel_backup(request)).await?;
        let found =
            backup::decrypt_and_parse(&key.point, &answer.chan_backup).map_err(|error| bad_answer(call, error))?;
        if found.funding != channel {
            return Err(bad_answer(call, format!("the backup of {} instead of {channel}", found.funding)));
        }
        let local = self.derive_key(found.local_payment).await?;
        Ok(ChannelInfo {
            channel_type: found.channel_type,
            local_node,
            remote_node: found.remote_node,
            local_payment_point: local.point,
            remote_payment_point: found.remote_payment,
        })
    }

    async fn abandon(&self, channel: OutPoint) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let request = AbandonChannelRequest {
            channel_point: Some(channel_point(channel)),
            pending_funding_shim_only: true,
            i_know_what_i_am_doing: false,
        };
        let answer = link.ask(ABANDON_CHANNEL, link.lightning().abandon_channel(request)).await;
        self.inner.channels.forget(channel);
        match answer {
            Err(error) if refused_with(&error, "unable to find closed channel") => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn active_channels(&self) -> Result<Vec<(OutPoint, Sats)>, NodeError> {
        let channel = |channel: &lnrpc::Channel| {
            Ok((outpoint(LIST_CHANNELS, &channel.channel_point)?, sats(LIST_CHANNELS, channel.capacity)?))
        };
        self.list_channels(true).await?.channels.iter().map(channel).collect()
    }
}

impl LndNode {
    async fn connect_at(&self, node: NodeId, address: &NodeAddress) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let request = ConnectPeerRequest {
            addr: Some(LightningAddress { pubkey: node.to_string(), host: address.0.clone() }),
            perm: false,
            timeout: CONNECT_SECONDS,
        };
        link.ask_within(CONNECT_TIMEOUT, CONNECT_PEER, link.lightning().connect_peer(request)).await.map(drop)
    }

    async fn funding_step(&self, trigger: Trigger) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let request = FundingTransitionMsg { trigger: Some(trigger) };
        link.ask(FUNDING_STATE_STEP, link.lightning().funding_state_step(request)).await.map(drop)
    }

    /// Whether the node holds the channel, as told by its events or as it lists it now.
    async fn is_pending(&self, channel: OutPoint) -> Result<bool, NodeError> {
        if self.inner.channels.was_pending(channel) {
            return Ok(true);
        }
        for pending in self.pending_channels().await?.pending_open_channels.into_iter().filter_map(|one| one.channel) {
            if outpoint(PENDING_CHANNELS, &pending.channel_point)? == channel {
                return Ok(true);
            }
        }
        for open in self.list_channels(false).await?.channels {
            if outpoint(LIST_CHANNELS, &open.channel_point)? == channel {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// # Source
/// Protocol notes, channels §3.
fn funding_shim(call: &'static str, shim: &FundingShim) -> Result<lnrpc::FundingShim, NodeError> {
    let shim = ChanPointShim {
        amt: amount(call, shim.capacity)?,
        chan_point: Some(channel_point(shim.channel_point)),
        local_key: Some(funding_descriptor(call, &shim.local_key)?),
        remote_key: shim.remote_key.serialize().to_vec(),
        pending_chan_id: shim.pending_id.as_bytes().to_vec(),
        thaw_height: shim.thaw_height,
        musig2: shim.musig2,
    };
    Ok(lnrpc::FundingShim { shim: Some(funding_shim::Shim::ChanPointShim(shim)) })
}

/// # Source
/// Protocol notes, channels §5: no fee fields, the batch transaction pays.
fn open_request(request: &OpenChannel) -> Result<OpenChannelRequest, NodeError> {
    Ok(OpenChannelRequest {
        node_pubkey: request.node.serialize().to_vec(),
        local_funding_amount: amount(OPEN_CHANNEL, request.shim.capacity)?,
        push_sat: amount(OPEN_CHANNEL, request.push)?,
        private: request.private,
        funding_shim: Some(funding_shim(OPEN_CHANNEL, &request.shim)?),
        commitment_type: commitment(request.commitment).into(),
        zero_conf: request.zero_conf,
        ..OpenChannelRequest::default()
    })
}

fn commitment(kind: tidegate_protocol::channel::CommitmentType) -> lnrpc::CommitmentType {
    use tidegate_protocol::channel::CommitmentType;
    match kind {
        CommitmentType::Negotiated => lnrpc::CommitmentType::UnknownCommitmentType,
        CommitmentType::ScriptEnforcedLease => lnrpc::CommitmentType::ScriptEnforcedLease,
        CommitmentType::SimpleTaproot => lnrpc::CommitmentType::SimpleTaproot,
    }
}

fn amount(call: &'static str, sats: Sats) -> Result<i64, NodeError> {
    i64::try_from(sats.get()).map_err(|_| unsendable(call, "an amount above 63 bits"))
}
