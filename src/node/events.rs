//! What lnd tells about channels and peers, and the answers to incoming channels.
//!
//! Three streams that live as long as the connection and are opened again when they break: channel events (with a
//! memory of the channels that became pending), peer events, and the channel acceptor. lnd does not confirm that it
//! has registered a stream; whoever waits for an event therefore also looks now and then.

use super::background::{Background, Backoff};
use super::convert::{cut, outpoint_of_bytes};
use super::link::Link;
use super::permissions::{CHANNEL_ACCEPTOR, SUBSCRIBE_CHANNEL_EVENTS, SUBSCRIBE_PEER_EVENTS};
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_ports::NodeError;
use tidegate_protocol::channel::{AcceptorDecision, AcceptorRule, IncomingChannel};
use tidegate_protocol::keys::PendingChannelId;
use tidegate_wire::lnd::lnrpc::channel_event_update::Channel as ChannelEvent;
use tidegate_wire::lnd::lnrpc::{
    ChannelAcceptRequest, ChannelAcceptResponse, ChannelEventSubscription, ChannelEventUpdate, CommitmentType,
    PeerEventSubscription,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Channels that are remembered as pending; far more than one batch makes.
const MAX_REMEMBERED: usize = 10_000;
/// How often a wait looks for itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// lnd refuses longer texts for the opener.
const REFUSAL_BYTES: usize = 500;
/// Answers on their way to lnd; it asks for one channel at a time.
const ANSWERS: usize = 16;

/// The streams' memory.
pub(super) struct ChannelEvents {
    pending: watch::Sender<Remembered>,
    peers: watch::Sender<u64>,
    rules: Arc<Rules>,
}

/// Rules for expected incoming channels.
#[derive(Debug, Default)]
struct Rules(Mutex<BTreeMap<PendingChannelId, AcceptorRule>>);

impl Rules {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PendingChannelId, AcceptorRule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Channels that became pending, the latest [`MAX_REMEMBERED`].
#[derive(Debug, Default)]
struct Remembered {
    points: BTreeSet<OutPoint>,
    order: VecDeque<OutPoint>,
}

impl Remembered {
    fn add(&mut self, point: OutPoint) {
        if !self.points.insert(point) {
            return;
        }
        self.order.push_back(point);
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.points.remove(&oldest);
        }
    }

    fn forget(&mut self, point: OutPoint) {
        if self.points.remove(&point) {
            self.order.retain(|known| *known != point);
        }
    }
}

impl ChannelEvents {
    /// Memory without streams, for a role that has no channels.
    pub(super) fn idle() -> ChannelEvents {
        let (pending, peers) = (watch::Sender::new(Remembered::default()), watch::Sender::new(0));
        ChannelEvents { pending, peers, rules: Arc::default() }
    }

    /// Opens the three streams.
    pub(super) fn start(link: &Link, background: &Background) -> ChannelEvents {
        let events = ChannelEvents::idle();
        let (first, second, third) = (link.clone(), link.clone(), link.clone());
        let (pending, peers, rules) = (events.pending.clone(), events.peers.clone(), events.rules.clone());
        background.spawn(keep_alive("channel events", async move || follow_channels(&first, &pending).await));
        background.spawn(keep_alive("peer events", async move || follow_peers(&second, &peers).await));
        background.spawn(keep_alive("channel acceptor", async move || answer_openers(&third, &rules).await));
        events
    }

    pub(super) fn expect(&self, id: PendingChannelId, rule: AcceptorRule) {
        self.rules.lock().insert(id, rule);
    }

    pub(super) fn unexpect(&self, id: PendingChannelId) {
        self.rules.lock().remove(&id);
    }

    /// Whether the channel became pending since the start, and was not forgotten.
    pub(super) fn was_pending(&self, channel: OutPoint) -> bool {
        self.pending.borrow().points.contains(&channel)
    }

    pub(super) fn forget(&self, channel: OutPoint) {
        self.pending.send_modify(|pending| pending.forget(channel));
    }

    /// A place to wait for the next pending channel.
    pub(super) fn pending_news(&self) -> News<impl Sized + Send> {
        News(self.pending.subscribe())
    }

    /// A place to wait for the next change of the peers.
    pub(super) fn peer_news(&self) -> News<impl Sized + Send> {
        News(self.peers.subscribe())
    }
}

/// Tells that something happened since it was made or last asked.
pub(super) struct News<T>(watch::Receiver<T>);

impl<T> News<T> {
    /// Returns with the next event, or when it is time to look without one.
    pub(super) async fn wait(&mut self) {
        // A timeout is as good a reason to look as news; the sender ends only with the whole node.
        let _ = tokio::time::timeout(LOOK_EVERY, self.0.changed()).await;
    }
}

/// Runs `follow` again and again: it ends only with an error.
async fn keep_alive<F>(what: &'static str, mut follow: F)
where
    F: AsyncFnMut() -> Result<Infallible, NodeError>,
{
    let mut backoff = Backoff::new();
    loop {
        match follow().await {
            Ok(never) => match never {},
            Err(error) => backoff.pause(what, &error).await,
        }
    }
}

async fn follow_channels(link: &Link, pending: &watch::Sender<Remembered>) -> Result<Infallible, NodeError> {
    let call = SUBSCRIBE_CHANNEL_EVENTS;
    let answer = link.lightning().subscribe_channel_events(ChannelEventSubscription {}).await;
    let mut stream = answer.map_err(|status| link.error(call, &status))?.into_inner();
    loop {
        let event = link.next(call, &mut stream).await?;
        if let Some(point) = became_pending(&event)? {
            tracing::debug!(channel = %point, "pending");
            pending.send_modify(|pending| pending.add(point));
        }
    }
}

fn became_pending(event: &ChannelEventUpdate) -> Result<Option<OutPoint>, NodeError> {
    match &event.channel {
        Some(ChannelEvent::PendingOpenChannel(update)) => {
            outpoint_of_bytes(SUBSCRIBE_CHANNEL_EVENTS, &update.txid, update.output_index).map(Some)
        }
        _ => Ok(None),
    }
}

async fn follow_peers(link: &Link, peers: &watch::Sender<u64>) -> Result<Infallible, NodeError> {
    let call = SUBSCRIBE_PEER_EVENTS;
    let answer = link.lightning().subscribe_peer_events(PeerEventSubscription {}).await;
    let mut stream = answer.map_err(|status| link.error(call, &status))?.into_inner();
    loop {
        link.next(call, &mut stream).await?;
        peers.send_modify(|count| *count = count.wrapping_add(1));
    }
}

async fn answer_openers(link: &Link, rules: &Rules) -> Result<Infallible, NodeError> {
    let call = CHANNEL_ACCEPTOR;
    let (answers, outgoing) = mpsc::channel(ANSWERS);
    let answer = link.lightning().channel_acceptor(ReceiverStream::new(outgoing)).await;
    let mut stream = answer.map_err(|status| link.error(call, &status))?.into_inner();
    loop {
        let request = link.next(call, &mut stream).await?;
        let rule =
            PendingChannelId::from_slice(&request.pending_chan_id).ok().and_then(|id| rules.lock().get(&id).copied());
        if answers.send(judge(rule, request)).await.is_err() {
            let reason = "the node ended the stream".to_owned();
            return Err(NodeError::Unreachable { address: link.address().to_owned(), reason });
        }
    }
}

/// The answer to the opener of a channel. What we do not expect is none of our business: accepted without conditions,
/// as lnd would do without us.
fn judge(rule: Option<AcceptorRule>, request: ChannelAcceptRequest) -> ChannelAcceptResponse {
    let decision = rule.map(|rule| {
        let decision = rule.decide(&incoming(&request));
        tracing::info!(id = %hex::DisplayHex::to_lower_hex_string(&request.pending_chan_id[..]), ?decision, "leased channel");
        decision
    });
    let (accept, zero_conf, error) = match decision {
        None => (true, false, String::new()),
        Some(AcceptorDecision::Accept { zero_conf }) => (true, zero_conf, String::new()),
        Some(AcceptorDecision::Refuse(reason)) => (false, false, cut(&reason, REFUSAL_BYTES).to_owned()),
    };
    ChannelAcceptResponse {
        accept,
        pending_chan_id: request.pending_chan_id,
        error,
        zero_conf,
        // 0: with zero-conf no confirmation is waited for, without it lnd chooses.
        min_accept_depth: 0,
        ..ChannelAcceptResponse::default()
    }
}

fn incoming(request: &ChannelAcceptRequest) -> IncomingChannel {
    let unknown = i32::from(CommitmentType::UnknownCommitmentType);
    let commitment = u32::try_from(request.commitment_type).ok().filter(|_| request.commitment_type != unknown);
    IncomingChannel {
        push_msat: request.push_amt,
        commitment,
        channel_flags: request.channel_flags,
        wants_zero_conf: request.wants_zero_conf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use tidegate_protocol::order::OrderChannelType;
    use tidegate_protocol::units::Sats;

    fn request() -> ChannelAcceptRequest {
        ChannelAcceptRequest { pending_chan_id: vec![9; 32], channel_flags: 1, push_amt: 5_000, ..Default::default() }
    }

    fn rule(self_balance: u64, zero_conf: bool) -> AcceptorRule {
        let self_balance = Sats::new(self_balance).expect("small");
        AcceptorRule { self_balance, channel_type: OrderChannelType::PeerDependent, unannounced: false, zero_conf }
    }

    #[test]
    fn unknown_channels_are_accepted_without_conditions() {
        let answer = judge(None, ChannelAcceptRequest { wants_zero_conf: true, ..request() });
        let expected = ChannelAcceptResponse { accept: true, pending_chan_id: vec![9; 32], ..Default::default() };
        assert_eq!(answer, expected);
    }

    #[test]
    fn expected_channels_are_judged_by_their_rule() {
        assert!(judge(Some(rule(5, false)), request()).accept);
        let refused = judge(Some(rule(6, false)), request());
        assert!(!refused.accept && !refused.error.is_empty(), "{refused:?}");
        let zero_conf = judge(Some(rule(5, true)), ChannelAcceptRequest { wants_zero_conf: true, ..request() });
        assert!(zero_conf.accept && zero_conf.zero_conf && zero_conf.min_accept_depth == 0);
    }

    #[test]
    fn the_commitment_type_is_absent_when_it_is_left_to_the_features() {
        assert_eq!(incoming(&request()).commitment, None);
        let script_enforced = ChannelAcceptRequest { commitment_type: 4, ..request() };
        assert_eq!(incoming(&script_enforced).commitment, Some(4));
    }

    #[test]
    fn memory_is_bounded_and_forgets_on_demand() {
        let point = |vout| OutPoint { txid: Txid::from_byte_array([3; 32]), vout };
        let mut memory = Remembered::default();
        for vout in (0..u32::try_from(MAX_REMEMBERED).expect("small") + 2).chain([5]) {
            memory.add(point(vout));
        }
        assert_eq!((memory.points.len(), memory.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(!memory.points.contains(&point(1)) && memory.points.contains(&point(2)));
        memory.forget(point(2));
        assert!(!memory.points.contains(&point(2)) && memory.order.len() == MAX_REMEMBERED - 1);
    }
}
