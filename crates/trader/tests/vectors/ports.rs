//! The ports of one conversation: keys from the entry, a chain that stands still, peers that always answer, a venue that
//! says what the entry says. Every use of a secret is written down.

use bitcoin::OutPoint;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Message, PublicKey, Scalar, Secp256k1, SecretKey};
use std::collections::{BTreeMap, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use tidegate_ports::*;
use tidegate_protocol::auth::AuthChallenge;
use tidegate_protocol::batch::{BatchVersion, ChannelInfo, ReportedChannelType};
use tidegate_protocol::channel::{AcceptorRule, FundingShim, OpenChannel};
use tidegate_protocol::keys::{
    KeyDescriptor, KeyLocator, NodeId, OrderNonce, OrderPreimage, PendingChannelId, SharedSecret,
};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SecretNonce, SigningContext, nonce_from};
use tidegate_protocol::order::{NodeAddress, NodeTier, OrderState, SubmittedOrder};
use tidegate_protocol::script::segwit_v0_sighash;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats, UnitCount};
use tidegate_sandbox::{ManualClock, MemoryStore, SandboxEntropy, SandboxNode};

/// A use of a secret.
#[derive(Clone, Debug)]
pub(crate) enum Used {
    /// This sighash was signed with a single key.
    Single { point: PublicKey, sighash: [u8; 32] },
    /// Nonces were drawn.
    Nonce { keys: [PublicKey; 2], other: Option<PublicNonce>, nonce: PublicNonce },
    /// This sighash was half signed.
    Half { nonce: PublicNonce, sighash: [u8; 32] },
    /// A call that no batch needs.
    Other,
}

struct Session {
    request: Musig2Request,
    public: PublicNonce,
    secret: Option<SecretNonce>,
}

/// What all ports of one client share.
pub(crate) struct Scene {
    pub(crate) info: NodeInfo,
    pub(crate) batch_version: BatchVersion,
    pub(crate) terms: Terms,
    pub(crate) ratings: BTreeMap<NodeId, NodeTier>,
    pub(crate) orders: BTreeMap<OrderNonce, (OrderState, UnitCount)>,
    pub(crate) secrets: BTreeMap<(u32, u32), SecretKey>,
    /// Whose node a funding key of the proposals belongs to.
    pub(crate) peers: BTreeMap<[u8; 33], NodeId>,
    /// What the venue says next.
    pub(crate) incoming: VecDeque<Result<ServerMessage, LinkError>>,
    /// What the client said about batches.
    pub(crate) said: Vec<ClientMessage>,
    pub(crate) used: Vec<Used>,
    pub(crate) shims: Vec<FundingShim>,
    pub(crate) opened: Vec<OpenChannel>,
    pub(crate) rules: BTreeMap<PendingChannelId, AcceptorRule>,
    sessions: BTreeMap<SessionId, Session>,
    drawn: u64,
    waker: Option<Waker>,
}

impl Scene {
    pub(crate) fn new(info: NodeInfo, batch_version: BatchVersion, terms: Terms) -> Scene {
        Scene {
            info,
            batch_version,
            terms,
            ratings: BTreeMap::new(),
            orders: BTreeMap::new(),
            secrets: BTreeMap::new(),
            peers: BTreeMap::new(),
            incoming: VecDeque::new(),
            said: Vec::new(),
            used: Vec::new(),
            shims: Vec::new(),
            opened: Vec::new(),
            rules: BTreeMap::new(),
            sessions: BTreeMap::new(),
            drawn: 0,
            waker: None,
        }
    }

    fn secret(&self, locator: KeyLocator) -> Result<SecretKey, NodeError> {
        let found = self.secrets.get(&(locator.family, locator.index));
        found.copied().ok_or_else(|| refused("secret", "no such key in the entry"))
    }
}

fn refused(call: &'static str, reason: impl std::fmt::Display) -> NodeError {
    NodeError::Refused { call, reason: reason.to_string() }
}

fn silent(call: &'static str) -> LinkError {
    LinkError::Refused { call, reason: "the entry says nothing about it".to_owned() }
}

/// All ports that are about the entry.
#[derive(Clone)]
pub(crate) struct Ports(Arc<Mutex<Scene>>);

impl Ports {
    pub(crate) fn new(scene: Scene) -> Ports {
        Ports(Arc::new(Mutex::new(scene)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap()
    }

    /// The venue says this next.
    pub(crate) fn say(&self, message: Result<ServerMessage, LinkError>) {
        let mut scene = self.lock();
        scene.incoming.push_back(message);
        if let Some(waker) = scene.waker.take() {
            waker.wake();
        }
    }

    fn local(&self, channel: OutPoint) -> Result<(NodeId, NodeId), NodeError> {
        let scene = self.lock();
        let opened = scene.opened.iter().find(|open| open.shim.channel_point == channel).map(|open| open.node);
        let awaited = scene.shims.iter().find(|shim| shim.channel_point == channel);
        let awaited = awaited.and_then(|shim| scene.peers.get(&shim.remote_key.serialize()).copied());
        let remote = opened.or(awaited).ok_or_else(|| refused("report", "no such channel was opened or awaited"))?;
        Ok((scene.info.id, remote))
    }
}

impl Signer for Ports {
    async fn derive_next_key(&self, _family: u32) -> Result<KeyDescriptor, NodeError> {
        self.lock().used.push(Used::Other);
        Err(refused("derive_next_key", "no batch needs a new key"))
    }
    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        let point = self.lock().secret(locator)?.public_key(&Secp256k1::new());
        Ok(KeyDescriptor { point, locator })
    }
    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        let secret = Scalar::from(self.lock().secret(locator)?);
        let shared = other.mul_tweak(&Secp256k1::new(), &secret).map_err(|error| refused("shared_secret", error))?;
        Ok(SharedSecret::new(sha256::Hash::hash(&shared.serialize()).to_byte_array()))
    }
    /// Only handshakes are signed so, and they spend nothing.
    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        let secret = self.lock().secret(locator)?;
        let digest = Message::from_digest(sha256::Hash::hash(message).to_byte_array());
        Ok(Secp256k1::new().sign_ecdsa(&digest, &secret).serialize_der().to_vec())
    }
    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        let mut scene = self.lock();
        let secp = Secp256k1::new();
        let secret = scene.secret(request.key.locator)?;
        assert_eq!(secret.public_key(&secp), request.key.point, "the key of the account");
        let ScriptSpend::SegwitV0 { script } = &request.spend else {
            scene.used.push(Used::Other);
            return Err(refused("sign_input", "a batch spends no leaf"));
        };
        let value = Sats::try_from(request.prev_outputs[request.input].value).unwrap();
        let sighash = segwit_v0_sighash(&request.transaction, request.input, value, script).unwrap();
        scene.used.push(Used::Single { point: request.key.point, sighash });
        let secret = secret.add_tweak(&Scalar::from_be_bytes(request.tweak).unwrap()).unwrap();
        Ok(secp.sign_ecdsa_low_r(&Message::from_digest(sighash), &secret).serialize_der().to_vec())
    }
    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        let mut scene = self.lock();
        let own = scene.secret(request.signer)?.public_key(&Secp256k1::new());
        assert!(request.keys.contains(&own), "our key is among the signers'");
        scene.drawn += 1;
        let random = sha256::Hash::hash(&[&own.serialize()[..], &scene.drawn.to_be_bytes()].concat()).to_byte_array();
        let (secret, public) =
            nonce_from(request.version, random, &own).map_err(|error| refused("musig2_begin", error))?;
        scene.used.push(Used::Nonce { keys: request.keys, other: request.other_nonce, nonce: public });
        let id = SessionId(sha256::Hash::hash(&public.0).to_byte_array());
        scene.sessions.insert(id, Session { request: request.clone(), public, secret: Some(secret) });
        Ok((id, public))
    }
    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        let mut scene = self.lock();
        scene.used.push(Used::Other);
        let session = scene.sessions.get_mut(&session).ok_or_else(|| refused("musig2_register", "no such session"))?;
        session.request.other_nonce = Some(*other);
        Ok(())
    }
    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        let call = "musig2_sign";
        let mut scene = self.lock();
        let mut found = scene.sessions.remove(&session).ok_or_else(|| refused(call, "no such session"))?;
        let secret = scene.secret(found.request.signer)?;
        let nonce = found.secret.take().ok_or_else(|| refused(call, "the session has signed already"))?;
        let other = found.request.other_nonce.ok_or_else(|| refused(call, "the other nonces are missing"))?;
        scene.used.push(Used::Half { nonce: found.public, sighash: message });
        let context = SigningContext {
            version: found.request.version,
            keys: found.request.keys,
            merkle_root: found.request.merkle_root,
            nonces: [found.public, other],
            message,
        };
        if !last {
            scene.sessions.insert(session, found);
        }
        context.partial_sign(&secret, nonce).map_err(|error| refused(call, error))
    }
    async fn musig2_combine(&self, _session: SessionId, _other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.lock().used.push(Used::Other);
        Err(refused("musig2_combine", "the venue combines batches"))
    }
    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.lock().sessions.remove(&session);
        Ok(())
    }
}

/// The chain stands still.
impl Chain for Ports {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        Ok(self.lock().info.best_height)
    }
    async fn watch(&self, _name: &str, _watch: Watch) -> Result<(), NodeError> {
        Ok(())
    }
    async fn unwatch(&self, _name: &str) -> Result<(), NodeError> {
        Ok(())
    }
    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        pending().await
    }
}

/// Peers are online and every channel is pending at once.
impl Channels for Ports {
    async fn connect(&self, _node: NodeId, _addresses: &[NodeAddress]) -> Result<(), NodeError> {
        Ok(())
    }
    async fn online_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        Ok(self.lock().peers.values().copied().collect())
    }
    async fn wait_online(&self, _node: NodeId) -> Result<(), NodeError> {
        Ok(())
    }
    async fn register_shim(&self, shim: &FundingShim) -> Result<(), NodeError> {
        self.lock().shims.push(shim.clone());
        Ok(())
    }
    async fn cancel_shim(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.lock().shims.retain(|shim| shim.pending_id != id);
        Ok(())
    }
    async fn expect(&self, id: PendingChannelId, rule: AcceptorRule) -> Result<(), NodeError> {
        self.lock().rules.insert(id, rule);
        Ok(())
    }
    async fn unexpect(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.lock().rules.remove(&id);
        Ok(())
    }
    async fn open(&self, request: &OpenChannel) -> Result<(), NodeError> {
        self.lock().opened.push(request.clone());
        Ok(())
    }
    async fn wait_pending(&self, _channel: OutPoint) -> Result<(), NodeError> {
        Ok(())
    }
    async fn report(&self, channel: OutPoint) -> Result<ChannelInfo, NodeError> {
        let (local_node, remote_node) = self.local(channel)?;
        Ok(ChannelInfo {
            channel_type: ReportedChannelType::Anchors,
            local_node,
            remote_node,
            local_payment_point: *local_node.point(),
            remote_payment_point: *remote_node.point(),
        })
    }
    async fn abandon(&self, channel: OutPoint) -> Result<(), NodeError> {
        self.lock().opened.retain(|open| open.shim.channel_point != channel);
        Ok(())
    }
    async fn active_channels(&self) -> Result<Vec<(OutPoint, Sats)>, NodeError> {
        Ok(Vec::new())
    }
}

impl NodeData for Ports {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(self.lock().info.clone())
    }
    async fn channel_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        Ok(Vec::new())
    }
}

impl VenueLink for Ports {
    async fn terms(&self) -> Result<Terms, LinkError> {
        Ok(self.lock().terms.clone())
    }
    async fn reserve(&self, _request: &Reservation) -> Result<ReservedKeys, LinkError> {
        Err(silent("reserve"))
    }
    async fn init(&self, _request: &InitAccount) -> Result<(), LinkError> {
        Err(silent("init"))
    }
    async fn modify(&self, _request: &ModifyAccount) -> Result<ModifySignature, LinkError> {
        Err(silent("modify"))
    }
    async fn submit(&self, _order: &SubmittedOrder) -> Result<Submission, LinkError> {
        Err(silent("submit"))
    }
    async fn cancel(&self, _preimage: OrderPreimage) -> Result<(), LinkError> {
        Err(silent("cancel"))
    }
    async fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), LinkError> {
        self.lock().orders.get(&nonce).copied().ok_or(LinkError::NoOrder)
    }
    async fn snapshot(&self, _batch: Option<tidegate_protocol::keys::BatchId>) -> Result<BatchSnapshot, LinkError> {
        Err(LinkError::NoSnapshot)
    }
    async fn snapshots(&self, _count: u32) -> Result<Vec<BatchSnapshot>, LinkError> {
        Ok(Vec::new())
    }
    async fn market_info(&self) -> Result<BTreeMap<BlockCount, MarketInterest>, LinkError> {
        Ok(BTreeMap::new())
    }
    async fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, LinkError> {
        let scene = self.lock();
        Ok(nodes.iter().filter_map(|node| Some((*node, *scene.ratings.get(node)?))).collect())
    }
    async fn connect(&self) -> Result<(), LinkError> {
        self.lock().incoming.clear();
        Ok(())
    }
    async fn send(&self, message: ClientMessage) -> Result<(), LinkError> {
        let answer = match message {
            ClientMessage::Commit { commit, version } => {
                assert_eq!(version, self.lock().batch_version, "the batch version of the handshake");
                ServerMessage::Challenge { challenge: AuthChallenge([7; 32]), commit }
            }
            ClientMessage::Subscribe { account, .. } => ServerMessage::Success { account },
            // Whatever else it says is judged by the test.
            other => {
                self.lock().said.push(other);
                return Ok(());
            }
        };
        self.say(Ok(answer));
        Ok(())
    }
    async fn receive(&self) -> Result<ServerMessage, LinkError> {
        poll_fn(|context| {
            let mut scene = self.lock();
            match scene.incoming.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    scene.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The ports of one trader.
pub(crate) struct Env {
    pub(crate) ports: Ports,
    /// The wallet, which no batch touches.
    pub(crate) wallet: SandboxNode,
    pub(crate) store: MemoryStore,
    pub(crate) clock: ManualClock,
    pub(crate) entropy: SandboxEntropy,
}

impl TraderEnv for Env {
    type Wallet = SandboxNode;
    type Signer = Ports;
    type Chain = Ports;
    type Channels = Ports;
    type NodeData = Ports;
    type Link = Ports;
    type Store = MemoryStore;
    type Clock = ManualClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &SandboxNode {
        &self.wallet
    }
    fn signer(&self) -> &Ports {
        &self.ports
    }
    fn chain(&self) -> &Ports {
        &self.ports
    }
    fn channels(&self) -> &Ports {
        &self.ports
    }
    fn node(&self) -> &Ports {
        &self.ports
    }
    fn link(&self) -> &Ports {
        &self.ports
    }
    fn store(&self) -> &MemoryStore {
        &self.store
    }
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn entropy(&self) -> &SandboxEntropy {
        &self.entropy
    }
}
