//! Somebody between the traders and their venue: hears everything, and lies to traders when a test asks for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tidegate_ports::ServerMessage;
use tidegate_wire::poolrpc::channel_auctioneer_client::ChannelAuctioneerClient;
use tidegate_wire::poolrpc::channel_auctioneer_server::{ChannelAuctioneer, ChannelAuctioneerServer};
use tidegate_wire::poolrpc::{self as rpc, ClientAuctionMessage, ServerAuctionMessage, client_auction_message};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Messages under way in one direction.
const WINDOW: usize = 64;
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Changes a message of the venue to the trader of this name; several messages, or none, may take its place.
pub(crate) type Lie = Box<dyn FnMut(&str, ServerMessage) -> Vec<ServerMessage> + Send>;
/// Changes the venue's half of a signature.
pub(crate) type Forgery = Box<dyn FnMut(&mut rpc::ServerModifyAccountResponse) + Send>;

/// A message, who said or heard it, and when.
pub(crate) struct Told<M> {
    pub(crate) trader: String,
    pub(crate) message: M,
    pub(crate) at: Instant,
}

#[derive(Default)]
struct Notes {
    lie: Option<Lie>,
    forgery: Option<Forgery>,
    said: Vec<Told<ClientAuctionMessage>>,
    heard: Vec<Told<ServerAuctionMessage>>,
    submitted: Vec<(String, rpc::ServerSubmitOrderRequest)>,
}

/// A listening meddler. Clones are the same.
#[derive(Clone)]
pub(crate) struct Meddler {
    pub(crate) address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
}

/// The identity of a trader at the venue: its name.
pub(crate) fn identity(name: &str) -> [u8; 32] {
    let mut id = [0; 32];
    id[..name.len()].copy_from_slice(name.as_bytes());
    id
}

fn name_of<T>(request: &Request<T>) -> String {
    use hex::FromHex as _;
    let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = value.and_then(|text| text.strip_prefix("LSATID ")).unwrap_or_default();
    let bytes = Vec::from_hex(token).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

impl Meddler {
    /// Listens on a free port of loopback, in front of `venue`.
    pub(crate) async fn start(venue: SocketAddr) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let upstream = connection(venue);
        let notes = Arc::<Mutex<Notes>>::default();
        let service = ChannelAuctioneerServer::new(Relay { venue, upstream, notes: Arc::clone(&notes) })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { drop(serving.await) });
        Meddler { address, notes }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// Lies from now on.
    pub(crate) fn lie(&self, lie: impl FnMut(&str, ServerMessage) -> Vec<ServerMessage> + Send + 'static) {
        self.notes().lie = Some(Box::new(lie));
    }

    /// Forges the venue's halves of signatures outside of batches from now on.
    pub(crate) fn forge(&self, forgery: impl FnMut(&mut rpc::ServerModifyAccountResponse) + Send + 'static) {
        self.notes().forgery = Some(Box::new(forgery));
    }

    /// Tells the truth from now on.
    pub(crate) fn be_honest(&self) {
        let mut notes = self.notes();
        notes.lie = None;
        notes.forgery = None;
    }

    /// How many messages traders have said so far.
    pub(crate) fn mark(&self) -> usize {
        self.notes().said.len()
    }

    /// What `trader` said since a mark.
    pub(crate) fn said(&self, trader: &str, since: usize) -> Vec<client_auction_message::Msg> {
        let notes = self.notes();
        let own = notes.said.iter().skip(since).filter(|told| told.trader == trader);
        own.filter_map(|told| told.message.msg.clone()).collect()
    }

    /// Who said and heard what, so far; forgets it.
    pub(crate) fn take(&self) -> (Vec<Told<ClientAuctionMessage>>, Vec<Told<ServerAuctionMessage>>) {
        let mut notes = self.notes();
        (std::mem::take(&mut notes.said), std::mem::take(&mut notes.heard))
    }

    /// What `trader` heard so far, as it heard it, oldest first.
    pub(crate) fn heard(&self, trader: &str) -> Vec<ServerAuctionMessage> {
        let notes = self.notes();
        notes.heard.iter().filter(|told| told.trader == trader).map(|told| told.message.clone()).collect()
    }

    /// Orders that `trader` submitted, oldest first.
    pub(crate) fn submitted(&self, trader: &str) -> Vec<rpc::ServerSubmitOrderRequest> {
        let notes = self.notes();
        notes.submitted.iter().filter(|(who, _)| who == trader).map(|(_, order)| order.clone()).collect()
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to the venue, made when it is first used.
fn connection(venue: SocketAddr) -> ChannelAuctioneerClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{venue}")).expect("an address").connect_lazy();
    ChannelAuctioneerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

struct Relay {
    venue: SocketAddr,
    /// For calls; each stream has a connection of its own, as each trader has, since streams of one connection are few.
    upstream: ChannelAuctioneerClient<Channel>,
    notes: Arc<Mutex<Notes>>,
}

/// The same message with the same identity; all other metadata belongs to one connection.
fn pass_on<T>(request: Request<T>) -> Request<T> {
    let token = request.metadata().get("authorization").cloned();
    let mut onward = Request::new(request.into_inner());
    if let Some(token) = token {
        onward.metadata_mut().insert("authorization", token);
    }
    onward
}

/// What the lie makes of a message; messages that a lie cannot be told about pass as they are.
fn lied(notes: &Mutex<Notes>, trader: &str, message: ServerAuctionMessage) -> Vec<ServerAuctionMessage> {
    let mut notes = lock(notes);
    let told = match (notes.lie.as_mut(), tidegate_wire::stream::from_server_message(message.clone())) {
        (Some(lie), Ok(parsed)) => {
            let encode = |said: &ServerMessage| tidegate_wire::stream::to_server_message(said);
            lie(trader, parsed).iter().map(|said| encode(said).expect("a lie can be said")).collect()
        }
        _ => vec![message],
    };
    let heard = |message: &ServerAuctionMessage| Told {
        trader: trader.to_owned(),
        message: message.clone(),
        at: Instant::now(),
    };
    let all: Vec<_> = told.iter().map(heard).collect();
    notes.heard.extend(all);
    told
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ChannelAuctioneer for Relay {
    async fn reserve_account(
        &self,
        request: Request<rpc::ReserveAccountRequest>,
    ) -> Answer<rpc::ReserveAccountResponse> {
        self.upstream.clone().reserve_account(pass_on(request)).await
    }

    async fn init_account(
        &self,
        request: Request<rpc::ServerInitAccountRequest>,
    ) -> Answer<rpc::ServerInitAccountResponse> {
        self.upstream.clone().init_account(pass_on(request)).await
    }

    async fn modify_account(
        &self,
        request: Request<rpc::ServerModifyAccountRequest>,
    ) -> Answer<rpc::ServerModifyAccountResponse> {
        let mut answer = self.upstream.clone().modify_account(pass_on(request)).await?;
        if let Some(forge) = lock(&self.notes).forgery.as_mut() {
            forge(answer.get_mut());
        }
        Ok(answer)
    }

    async fn submit_order(
        &self,
        request: Request<rpc::ServerSubmitOrderRequest>,
    ) -> Answer<rpc::ServerSubmitOrderResponse> {
        lock(&self.notes).submitted.push((name_of(&request), request.get_ref().clone()));
        self.upstream.clone().submit_order(pass_on(request)).await
    }

    async fn cancel_order(
        &self,
        request: Request<rpc::ServerCancelOrderRequest>,
    ) -> Answer<rpc::ServerCancelOrderResponse> {
        self.upstream.clone().cancel_order(pass_on(request)).await
    }

    async fn order_state(
        &self,
        request: Request<rpc::ServerOrderStateRequest>,
    ) -> Answer<rpc::ServerOrderStateResponse> {
        self.upstream.clone().order_state(pass_on(request)).await
    }

    async fn terms(&self, request: Request<rpc::TermsRequest>) -> Answer<rpc::TermsResponse> {
        self.upstream.clone().terms(pass_on(request)).await
    }

    async fn batch_snapshot(&self, request: Request<rpc::BatchSnapshotRequest>) -> Answer<rpc::BatchSnapshotResponse> {
        self.upstream.clone().batch_snapshot(pass_on(request)).await
    }

    async fn batch_snapshots(
        &self,
        request: Request<rpc::BatchSnapshotsRequest>,
    ) -> Answer<rpc::BatchSnapshotsResponse> {
        self.upstream.clone().batch_snapshots(pass_on(request)).await
    }

    async fn node_rating(
        &self,
        request: Request<rpc::ServerNodeRatingRequest>,
    ) -> Answer<rpc::ServerNodeRatingResponse> {
        self.upstream.clone().node_rating(pass_on(request)).await
    }

    async fn market_info(&self, request: Request<rpc::MarketInfoRequest>) -> Answer<rpc::MarketInfoResponse> {
        self.upstream.clone().market_info(pass_on(request)).await
    }

    async fn subscribe_batch_auction(
        &self,
        request: Request<Streaming<ClientAuctionMessage>>,
    ) -> Answer<tonic::codegen::BoxStream<ServerAuctionMessage>> {
        let trader = name_of(&request);
        let (up, outgoing) = mpsc::channel(WINDOW);
        let onward = pass_on(request);
        let (metadata, extensions, mut incoming) = onward.into_parts();
        let (notes, who) = (Arc::clone(&self.notes), trader.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let told = Told { trader: who.clone(), message: message.clone(), at: Instant::now() };
                lock(&notes).said.push(told);
                if up.send(message).await.is_err() {
                    return;
                }
            }
        });
        let request = Request::from_parts(metadata, extensions, ReceiverStream::new(outgoing));
        let mut answers = connection(self.venue).subscribe_batch_auction(request).await?.into_inner();
        let (down, told) = mpsc::channel(WINDOW);
        let notes = Arc::clone(&self.notes);
        tokio::spawn(async move {
            loop {
                let messages = match answers.message().await {
                    Ok(Some(message)) => lied(&notes, &trader, message),
                    Ok(None) => return,
                    Err(status) => return drop(down.send(Err(status)).await),
                };
                for message in messages {
                    if down.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
