//! Facts about the node.

use super::LndNode;
use super::convert::{node_id, outpoint};
use super::error::bad_answer;
use super::permissions::{GET_INFO, LIST_CHANNELS, PENDING_CHANNELS};
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{NodeData, NodeError, NodeInfo};
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::BlockHeight;
use tidegate_wire::lnd::lnrpc::{
    GetInfoRequest, GetInfoResponse, ListChannelsRequest, ListChannelsResponse, PendingChannelsRequest,
    PendingChannelsResponse,
};

/// Feature bits, required and optional.
const ZERO_CONF: [u32; 2] = [50, 51];
const SCID_ALIAS: [u32; 2] = [46, 47];
/// Feature bits of simple taproot channels.
const TAPROOT_CHANNELS: [u32; 2] = [80, 81];
/// The same while they were being tried out.
const TAPROOT_CHANNELS_STAGING: [u32; 2] = [180, 181];
/// Feature bits of channels above 16,777,215 sat.
const LARGE_CHANNELS: [u32; 2] = [18, 19];

impl LndNode {
    pub(super) async fn get_info(&self) -> Result<GetInfoResponse, NodeError> {
        let link = &self.inner.link;
        link.ask(GET_INFO, link.lightning().get_info(GetInfoRequest {})).await
    }

    pub(super) async fn list_channels(&self, active_only: bool) -> Result<ListChannelsResponse, NodeError> {
        let link = &self.inner.link;
        let request = ListChannelsRequest { active_only, ..ListChannelsRequest::default() };
        link.ask(LIST_CHANNELS, link.lightning().list_channels(request)).await
    }

    pub(super) async fn pending_channels(&self) -> Result<PendingChannelsResponse, NodeError> {
        let link = &self.inner.link;
        link.ask(PENDING_CHANNELS, link.lightning().pending_channels(PendingChannelsRequest::default())).await
    }
}

impl NodeData for LndNode {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        read_info(self.get_info().await?)
    }

    async fn channel_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        let open = self.list_channels(false).await?;
        let pending = self.pending_channels().await?;
        let mut peers = BTreeSet::new();
        for channel in open.channels {
            peers.insert(node_id(LIST_CHANNELS, &channel.remote_pubkey)?);
        }
        for channel in pending.pending_open_channels.into_iter().filter_map(|pending| pending.channel) {
            peers.insert(node_id(PENDING_CHANNELS, &channel.remote_node_pub)?);
        }
        Ok(peers.into_iter().collect())
    }

    async fn thaw_heights(&self) -> Result<BTreeMap<OutPoint, u32>, NodeError> {
        let frozen = self.list_channels(false).await?.channels.into_iter().filter(|channel| channel.thaw_height > 0);
        frozen.map(|channel| Ok((outpoint(LIST_CHANNELS, &channel.channel_point)?, channel.thaw_height))).collect()
    }
}

pub(super) fn read_info(info: GetInfoResponse) -> Result<NodeInfo, NodeError> {
    let chain = info.chains.first().ok_or_else(|| bad_answer(GET_INFO, "no chain"))?;
    let advertises = |bits: [u32; 2]| bits.iter().any(|bit| info.features.contains_key(bit));
    // A URI is key@host:port; the key is known.
    let address = |uri: &String| NodeAddress(uri.split_once('@').map_or(uri.as_str(), |(_, host)| host).to_owned());
    Ok(NodeInfo {
        id: node_id(GET_INFO, &info.identity_pubkey)?,
        addresses: info.uris.iter().map(address).collect(),
        network: chain.network.clone(),
        best_height: BlockHeight::new(info.block_height),
        synced: info.synced_to_chain,
        zero_conf: advertises(ZERO_CONF) && advertises(SCID_ALIAS),
        taproot_channels: advertises(TAPROOT_CHANNELS) || advertises(TAPROOT_CHANNELS_STAGING),
        large_channels: advertises(LARGE_CHANNELS),
        version: info.version.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::lnd::lnrpc::{Chain, Feature};

    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn answer(bits: &[u32]) -> GetInfoResponse {
        GetInfoResponse {
            identity_pubkey: KEY.to_owned(),
            uris: vec![format!("{KEY}@127.0.0.1:9735"), format!("{KEY}@[::1]:9735")],
            chains: vec![Chain { network: "regtest".to_owned() }],
            features: bits.iter().map(|bit| (*bit, Feature::default())).collect(),
            ..GetInfoResponse::default()
        }
    }

    #[test]
    fn addresses_lose_their_key() {
        let info = read_info(answer(&[])).expect("complete");
        assert_eq!(info.addresses, [NodeAddress("127.0.0.1:9735".to_owned()), NodeAddress("[::1]:9735".to_owned())]);
        assert_eq!(info.id.to_string(), KEY);
    }

    #[test]
    fn zero_conf_needs_alias_too() {
        for (bits, expected) in [(&[50, 46][..], true), (&[51, 47], true), (&[51], false), (&[47], false), (&[], false)]
        {
            assert_eq!(read_info(answer(bits)).expect("complete").zero_conf, expected, "{bits:?}");
        }
    }

    #[test]
    fn channel_kinds_follow_from_feature_bits() {
        let kinds = |bits: &[u32]| read_info(answer(bits)).map(|info| (info.taproot_channels, info.large_channels));
        for bit in [80, 81, 180, 181] {
            assert_eq!(kinds(&[bit]), Ok((true, false)), "{bit}");
        }
        for bit in [18, 19] {
            assert_eq!(kinds(&[bit]), Ok((false, true)), "{bit}");
        }
        assert_eq!(kinds(&[17, 82, 182]), Ok((false, false)));
    }

    #[test]
    fn an_answer_without_chain_or_key_is_refused() {
        let nothing = GetInfoResponse { chains: vec![], ..answer(&[]) };
        assert!(matches!(read_info(nothing), Err(NodeError::BadAnswer { .. })));
        let keyless = GetInfoResponse { identity_pubkey: "02".to_owned(), ..answer(&[]) };
        assert!(matches!(read_info(keyless), Err(NodeError::BadAnswer { .. })));
    }
}
