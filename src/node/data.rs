//! Facts about the node.

use super::LndNode;
use super::convert::node_id;
use super::error::bad_answer;
use super::permissions::{GET_INFO, LIST_CHANNELS, PENDING_CHANNELS};
use std::collections::BTreeSet;
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
}

fn read_info(info: GetInfoResponse) -> Result<NodeInfo, NodeError> {
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
    fn an_answer_without_chain_or_key_is_refused() {
        let nothing = GetInfoResponse { chains: vec![], ..answer(&[]) };
        assert!(matches!(read_info(nothing), Err(NodeError::BadAnswer { .. })));
        let keyless = GetInfoResponse { identity_pubkey: "02".to_owned(), ..answer(&[]) };
        assert!(matches!(read_info(keyless), Err(NodeError::BadAnswer { .. })));
    }
}
