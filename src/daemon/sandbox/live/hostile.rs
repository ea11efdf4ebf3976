//! A venue that lies, on request: everything between the agent and the venue passes through here, and now and then a
//! proposal is changed on its way. What the agent answers is told.
//!
//! Nothing else is touched: the venue behind it is honest, and all other traders speak to it directly.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tidegate_ports::ServerMessage;
use tidegate_protocol::batch::Prepare;
use tidegate_protocol::units::{BlockHeight, RatePerBillion, SatPerKw, Sats};
use tidegate_wire::poolrpc::channel_auctioneer_client::ChannelAuctioneerClient;
use tidegate_wire::poolrpc::channel_auctioneer_server::{ChannelAuctioneer, ChannelAuctioneerServer};
use tidegate_wire::poolrpc::{self as rpc, ClientAuctionMessage, ServerAuctionMessage, client_auction_message};
use tidegate_wire::stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::runtime::Shutdown;

/// Messages under way in one direction.
const WINDOW: usize = 64;
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Clearings of one turn: the first is told as it is, the second is lied about.
const TURN: usize = 2;

/// A lie, and what the agent said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caught {
    /// What was changed.
    pub(super) lie: &'static str,
    /// The agent's own words: the rule that was broken. Nothing when it accepted.
    pub(super) refusal: Option<String>,
}

/// Something that a venue might try.
struct Lie {
    what: &'static str,
    tell: fn(&mut Prepare),
}

const LIES: [Lie; 6] = [
    Lie { what: "the account ends with one satoshi less", tell: one_satoshi },
    Lie { what: "the lease clears beyond the order's limit", tell: price },
    Lie { what: "the venue's fee is ten times what was agreed", tell: fee },
    Lie { what: "the batch pays fifty times the chain fee", tell: chain_fee },
    Lie { what: "the account is extended by a hundred years", tell: expiry },
    Lie { what: "the account's new output is another one", tell: output },
];

fn one_satoshi(prepare: &mut Prepare) {
    for account in &mut prepare.accounts {
        account.ending_balance = account.ending_balance.checked_sub(Sats::constant(1)).unwrap_or(Sats::ZERO);
    }
}

/// A price that suits nobody: an ask gets next to nothing; a bid, which that would please, pays as much as there is.
fn price(prepare: &mut Prepare) {
    for market in prepare.markets.values_mut() {
        let theirs_are_bids = market.orders.values().flatten().any(|matched| !matched.order.order.is_ask());
        market.clearing_price = RatePerBillion::new(if theirs_are_bids { 1 } else { 1_000_000 });
    }
}

fn fee(prepare: &mut Prepare) {
    prepare.execution_fee.rate_ppm = prepare.execution_fee.rate_ppm.saturating_mul(10);
}

fn chain_fee(prepare: &mut Prepare) {
    prepare.fee_rate = SatPerKw::new(prepare.fee_rate.get().saturating_mul(50));
}

fn expiry(prepare: &mut Prepare) {
    for account in &mut prepare.accounts {
        account.new_expiry = Some(BlockHeight::new(prepare.height_hint.get().saturating_add(5_256_000)));
    }
}

fn output(prepare: &mut Prepare) {
    for account in &mut prepare.accounts {
        account.output_index = account.output_index.map(|index| if index == 0 { 1 } else { index.saturating_sub(1) });
    }
}

/// What the two directions of a stream know of each other.
struct Stage {
    /// The lie that waits for an answer.
    told: Mutex<Option<&'static str>>,
    caught: mpsc::Sender<Caught>,
    /// Proposals so far; those of one clearing count as one when the first was refused.
    proposals: AtomicUsize,
}

impl Stage {
    /// The message as it goes on to the agent.
    fn pass_down(&self, message: ServerAuctionMessage) -> ServerAuctionMessage {
        let Ok(ServerMessage::Prepare(mut prepare)) = stream::from_server_message(message.clone()) else {
            return message;
        };
        let number = self.proposals.fetch_add(1, Ordering::Relaxed);
        if number % TURN != TURN - 1 {
            return message;
        }
        let Some(lie) = LIES.get(number / TURN % LIES.len()) else { return message };
        (lie.tell)(&mut prepare);
        let Ok(changed) = stream::to_server_message(&ServerMessage::Prepare(prepare)) else { return message };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(lie.what);
        changed
    }

    /// Hears what the agent says.
    fn hear(&self, message: &ClientAuctionMessage) {
        let refusal = match &message.msg {
            Some(client_auction_message::Msg::Reject(reject)) => Some(reject.reason.clone()),
            Some(client_auction_message::Msg::Accept(_)) => None,
            _ => return,
        };
        if let Some(lie) = self.told.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody waits for what a full queue can not hold.
            drop(self.caught.try_send(Caught { lie, refusal }));
        }
    }
}

/// Listens in front of `venue`; what the agent makes of lies is sent to `caught`.
///
/// # Errors
/// When no port is free.
pub(super) async fn start(
    venue: SocketAddr,
    caught: mpsc::Sender<Caught>,
    shutdown: Shutdown,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free for the hostile venue")?;
    let address = listener.local_addr()?;
    let stage = Arc::new(Stage { told: Mutex::default(), caught, proposals: AtomicUsize::new(0) });
    let service = ChannelAuctioneerServer::new(Relay { venue: connection(venue)?, stage })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let stop = async move { shutdown.wanted().await };
        if let Err(error) = Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stop).await {
            tracing::error!(%error, "the hostile venue's listener failed");
        }
    });
    Ok(address)
}

fn connection(venue: SocketAddr) -> anyhow::Result<ChannelAuctioneerClient<Channel>> {
    let channel = Endpoint::from_shared(format!("http://{venue}"))?.connect_lazy();
    Ok(ChannelAuctioneerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

struct Relay {
    venue: ChannelAuctioneerClient<Channel>,
    stage: Arc<Stage>,
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

type Answer<T> = Result<Response<T>, Status>;

macro_rules! pass {
    ($($call:ident: $request:ty => $answer:ty;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<$request>,
            ) -> core::pin::Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                let mut venue = self.venue.clone();
                Box::pin(async move { venue.$call(pass_on(request)).await })
            }
        )*
    };
}

#[tonic::async_trait]
impl ChannelAuctioneer for Relay {
    pass! {
        reserve_account: rpc::ReserveAccountRequest => rpc::ReserveAccountResponse;
        init_account: rpc::ServerInitAccountRequest => rpc::ServerInitAccountResponse;
        modify_account: rpc::ServerModifyAccountRequest => rpc::ServerModifyAccountResponse;
        submit_order: rpc::ServerSubmitOrderRequest => rpc::ServerSubmitOrderResponse;
        cancel_order: rpc::ServerCancelOrderRequest => rpc::ServerCancelOrderResponse;
        order_state: rpc::ServerOrderStateRequest => rpc::ServerOrderStateResponse;
        terms: rpc::TermsRequest => rpc::TermsResponse;
        batch_snapshot: rpc::BatchSnapshotRequest => rpc::BatchSnapshotResponse;
        batch_snapshots: rpc::BatchSnapshotsRequest => rpc::BatchSnapshotsResponse;
        node_rating: rpc::ServerNodeRatingRequest => rpc::ServerNodeRatingResponse;
        market_info: rpc::MarketInfoRequest => rpc::MarketInfoResponse;
    }

    async fn subscribe_batch_auction(
        &self,
        request: Request<Streaming<ClientAuctionMessage>>,
    ) -> Answer<tonic::codegen::BoxStream<ServerAuctionMessage>> {
        let (up, outgoing) = mpsc::channel(WINDOW);
        let (metadata, extensions, mut incoming) = pass_on(request).into_parts();
        let stage = Arc::clone(&self.stage);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                stage.hear(&message);
                if up.send(message).await.is_err() {
                    return;
                }
            }
        });
        let request = Request::from_parts(metadata, extensions, ReceiverStream::new(outgoing));
        let mut answers = self.venue.clone().subscribe_batch_auction(request).await?.into_inner();
        let (down, told) = mpsc::channel(WINDOW);
        let stage = Arc::clone(&self.stage);
        tokio::spawn(async move {
            loop {
                let message = match answers.message().await {
                    Ok(Some(message)) => stage.pass_down(message),
                    Ok(None) => return,
                    Err(status) => return drop(down.send(Err(status)).await),
                };
                if down.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
