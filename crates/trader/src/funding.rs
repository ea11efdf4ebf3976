//! Channels of a batch: reaching the peers, registering what is expected, opening, waiting, cleaning up.

use crate::book::Remains;
use bitcoin::OutPoint;
use futures_util::future::{Either, join_all, select};
use futures_util::{FutureExt, pin_mut, select_biased};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Channels, Clock, NodeData, NodeError, NodeInfo, Timestamp, TraderEnv};
use tidegate_protocol::batch::{ChannelInfo, MatchRejectCode, RejectReason};
use tidegate_protocol::keys::{NodeId, OrderNonce};
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::verify::{VerifiedBatch, VerifiedMatch};

/// Pause before a call is repeated that the node was not ready for, in milliseconds.
const STARTING_PAUSE_MS: u64 = 500;

/// Repeats a call that the node is not ready for, until shortly before the deadline: a node that was started just now answers
/// some calls before others, and has done nothing of what it was not ready for.
///
/// # Errors
/// [`NodeError`]: any other at once, the last one when it is late.
async fn when_ready<E: TraderEnv, T, F: Future<Output = Result<T, NodeError>>>(
    env: &E,
    deadline: Timestamp,
    call: impl Fn() -> F,
) -> Result<T, NodeError> {
    loop {
        let answer = call().await;
        let again = env.clock().now().plus_ms(STARTING_PAUSE_MS);
        match answer {
            Err(error @ NodeError::NotReady { .. }) if again < deadline => {
                tracing::info!(%error, "waiting for the node");
                env.clock().sleep_until(again).await;
            }
            answer => return answer,
        }
    }
}

/// Why a batch is refused, with the sentence for the venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) reason: RejectReason,
}

impl Refusal {
    /// A failure of our own.
    pub(crate) fn unknown(message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), reason: RejectReason::Unknown }
    }

    /// These matches could not be funded; all others could.
    pub(crate) fn partial(failed: BTreeMap<OrderNonce, String>) -> Refusal {
        let message = format!("{} channels could not be funded", failed.len());
        Refusal::matches(message, MatchRejectCode::ChannelFundingFailed, failed)
    }

    fn matches(message: String, code: MatchRejectCode, failed: BTreeMap<OrderNonce, String>) -> Refusal {
        let matches = failed.into_iter().map(|(theirs, text)| (theirs, (code, text)));
        Refusal { message, reason: RejectReason::Partial(matches.collect()) }
    }
}

/// Cancels what was registered for our bids. Failures are logged only: an unused shim does no harm.
///
/// # Source
/// Protocol notes, channels §8.
pub(crate) async fn cancel_shims<E: TraderEnv>(env: &E, remains: &Remains) {
    for id in &remains.pending {
        if let Err(error) = env.channels().cancel_shim(*id).await {
            tracing::warn!(pending = %id, %error, "a shim was not cancelled");
        }
        if let Err(error) = env.channels().unexpect(*id).await {
            tracing::warn!(pending = %id, %error, "an acceptor rule was not removed");
        }
    }
}

/// Cancels shims and gives up channels of a batch that does not happen.
///
/// # Errors
/// [`NodeError`] when a channel could not be given up.
pub(crate) async fn clean_up<E: TraderEnv>(env: &E, remains: &Remains) -> Result<(), NodeError> {
    cancel_shims(env, remains).await;
    for channel in &remains.channels {
        env.channels().abandon(*channel).await?;
    }
    Ok(())
}

/// Whether this node can reach a peer behind the onion network, so that makers dial too.
fn is_onion(node: &NodeInfo) -> bool {
    let onion = |address: &NodeAddress| {
        let host = address.0.rsplit_once(':').map_or(address.0.as_str(), |(host, _)| host);
        host.ends_with(".onion")
    };
    node.addresses.iter().any(onion)
}

/// Refuses the matches with nodes with whom our node has a channel already, when only new ones are wanted.
///
/// # Errors
/// [`Refusal`]: partial for those matches, else a failure of our own.
///
/// # Source
/// Protocol notes, channels §4 step 2.
pub(crate) async fn check_new<E: TraderEnv>(env: &E, batch: &VerifiedBatch) -> Result<(), Refusal> {
    let peers = env.node().channel_peers().await;
    let peers = peers.map_err(|error| Refusal::unknown(format!("peers with channels: {error}")))?;
    let known = batch.matches().iter().filter(|matched| peers.contains(&matched.node));
    let known: BTreeMap<_, _> =
        known.map(|matched| (matched.theirs, "there is a channel with this node already".to_owned())).collect();
    if known.is_empty() {
        return Ok(());
    }
    let message = format!("{} matches are with nodes that we have channels with", known.len());
    Err(Refusal::matches(message, MatchRejectCode::DuplicatePeer, known))
}

/// First phase: registers shims and rules of our bids, and reaches every maker that we take from.
///
/// # Errors
/// [`Refusal`]: partial for peers that were not reached in time, else a failure of our own.
///
/// # Source
/// Protocol notes, channels §4.
pub(crate) async fn prepare<E: TraderEnv>(
    env: &E,
    node: &NodeInfo,
    batch: &VerifiedBatch,
    deadline: Timestamp,
) -> Result<(), Refusal> {
    let onion = is_onion(node);
    let dialed: Vec<&VerifiedMatch> = batch.matches().iter().filter(|matched| !matched.maker || onion).collect();
    for matched in dialed.iter().filter(|matched| !matched.maker) {
        let registered = when_ready(env, deadline, || register(env, matched)).await;
        registered.map_err(|error| Refusal::unknown(format!("shim registration: {error}")))?;
    }
    let mut peers: BTreeMap<NodeId, &[NodeAddress]> = BTreeMap::new();
    for matched in &dialed {
        peers.entry(matched.node).or_insert(&matched.addresses);
    }
    let reached = join_all(peers.into_iter().map(|(peer, addresses)| reach(env, peer, addresses, deadline))).await;
    let mut missing = BTreeSet::new();
    for (peer, outcome) in reached {
        match outcome {
            Ok(true) => {}
            Ok(false) => missing.extend([peer]),
            Err(error) => return Err(Refusal::unknown(format!("peer events: {error}"))),
        }
    }
    let failed: BTreeMap<_, _> = dialed
        .iter()
        .filter(|matched| missing.contains(&matched.node))
        .map(|matched| (matched.theirs, "the peer was not online in time".to_owned()))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(Refusal::partial(failed)) }
}

async fn register<E: TraderEnv>(env: &E, matched: &VerifiedMatch) -> Result<(), NodeError> {
    env.channels().expect(matched.shim.pending_id, matched.acceptor).await?;
    env.channels().register_shim(&matched.shim).await
}

/// Whether the peer is online before the deadline. Dialing may fail: the peer may dial us.
async fn reach<E: TraderEnv>(
    env: &E,
    peer: NodeId,
    addresses: &[NodeAddress],
    deadline: Timestamp,
) -> (NodeId, Result<bool, NodeError>) {
    let online = env.channels().wait_online(peer).fuse();
    let dial = env.channels().connect(peer, addresses).fuse();
    let late = env.clock().sleep_until(deadline).fuse();
    pin_mut!(online, dial, late);
    loop {
        select_biased! {
            outcome = online => return (peer, outcome.map(|()| true)),
            outcome = dial => if let Err(error) = outcome {
                tracing::debug!(%peer, %error, "the peer was not dialed");
            },
            () = late => return (peer, Ok(false)),
        }
    }
}

/// How one match ended: its channel and report, or why it failed.
enum Funded {
    Yes(OutPoint, Box<ChannelInfo>),
    Failed(OrderNonce, String),
    Broken(String),
}

/// Second phase: opens our asks' channels, waits until the node holds every channel, and gathers the reports.
///
/// # Errors
/// [`Refusal`]: partial for every match that failed or was late, also when all of them did; else a failure of our own.
///
/// # Source
/// Protocol notes, channels §5.
pub(crate) async fn open<E: TraderEnv>(
    env: &E,
    node: &NodeInfo,
    batch: &VerifiedBatch,
    deadline: Timestamp,
) -> Result<BTreeMap<OutPoint, ChannelInfo>, Refusal> {
    let funded = join_all(batch.matches().iter().map(|matched| fund(env, node.id, matched, deadline))).await;
    let (mut infos, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for outcome in funded {
        match outcome {
            Funded::Yes(channel, info) => infos.extend([(channel, *info)]),
            Funded::Failed(theirs, text) => failed.extend([(theirs, text)]),
            Funded::Broken(message) => return Err(Refusal::unknown(message)),
        }
    }
    if failed.is_empty() { Ok(infos) } else { Err(Refusal::partial(failed)) }
}

async fn fund<E: TraderEnv>(env: &E, us: NodeId, matched: &VerifiedMatch, deadline: Timestamp) -> Funded {
    let pending = pending(env, matched, deadline);
    let late = env.clock().sleep_until(deadline);
    pin_mut!(pending, late);
    let outcome = match select(pending, late).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(((), _)) => return Funded::Failed(matched.theirs, "the channel was not pending in time".into()),
    };
    match outcome {
        Ok(()) => {}
        // The counterpart has nothing to do with that, and shall not be kept apart from us for it.
        Err(error @ (NodeError::Unreachable { .. } | NodeError::NotReady { .. })) => {
            return Funded::Broken(format!("our node: {error}"));
        }
        Err(error) => return Funded::Failed(matched.theirs, error.to_string()),
    }
    let channel = matched.shim.channel_point;
    match when_ready(env, deadline, || env.channels().report(channel)).await {
        Ok(info) if info.local_node == us && info.remote_node == matched.node => Funded::Yes(channel, Box::new(info)),
        Ok(_) => Funded::Broken(format!("channel {channel} is with another node")),
        Err(error) => Funded::Broken(format!("report of channel {channel}: {error}")),
    }
}

/// The channel is pending at our node.
async fn pending<E: TraderEnv>(env: &E, matched: &VerifiedMatch, deadline: Timestamp) -> Result<(), NodeError> {
    if matched.maker {
        when_ready(env, deadline, || env.channels().open(&matched.open)).await?;
    }
    env.channels().wait_pending(matched.shim.channel_point).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_node_with_an_onion_address_dials() {
        let node = |addresses: &[&str]| NodeInfo {
            id: fixtures::node(1),
            addresses: addresses.iter().map(|text| NodeAddress((*text).into())).collect(),
            network: "regtest".into(),
            best_height: Default::default(),
            synced: true,
            zero_conf: false,
            taproot_channels: false,
            large_channels: false,
            version: String::new(),
        };
        assert!(!is_onion(&node(&[])));
        assert!(!is_onion(&node(&["127.0.0.1:9735", "onion.example:9735"])));
        assert!(is_onion(&node(&["127.0.0.1:9735", "abcdefghij.onion:9735"])));
    }

    #[test]
    fn only_bids_leave_shims_but_every_channel_is_given_up() {
        let mut staged = fixtures::staged_batch();
        let (txid, channels) = (staged.txid(), vec![staged.matches[0].lease.channel]);
        let expected = Remains { txid, pending: Vec::new(), channels: channels.clone() };
        assert_eq!(Remains::of_staged(&staged), expected);
        staged.matches[0].lease.maker = false;
        let pending = vec![staged.matches[0].pending_id];
        assert_eq!(Remains::of_staged(&staged), Remains { txid, pending, channels });
    }

    #[test]
    fn failed_matches_are_named_by_the_other_sides_order() {
        let refusal = Refusal::partial(BTreeMap::from([(fixtures::nonce(2), "late".to_owned())]));
        let expected =
            BTreeMap::from([(fixtures::nonce(2), (MatchRejectCode::ChannelFundingFailed, "late".to_owned()))]);
        assert_eq!(refusal.reason, RejectReason::Partial(expected));
    }
}
