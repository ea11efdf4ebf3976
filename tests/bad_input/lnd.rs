//! A node that says what a test wants it to say, over lnd's own interface: TLS, gRPC, macaroon not looked at.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use prost::Message;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tidegate_wire::lnd::chainrpc::BlockEpoch;
use tidegate_wire::lnd::lnrpc::{
    Chain, CheckMacPermResponse, GetInfoResponse, GetStateResponse, WalletBalanceResponse, WalletState,
};
use tidegate_wire::lnd::verrpc::Version;
use tidegate_wire::lnd::walletrpc::EstimateFeeResponse;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::StreamingService;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
/// What lnd answers while its wallet is locked.
const LOCKED: &str = "wallet locked, unlock it to enable full RPC access";

/// What the node says about itself.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) locked: bool,
    pub(crate) network: &'static str,
    pub(crate) synced: bool,
    pub(crate) height: u32,
}

/// A listening node; ends when dropped.
pub(crate) struct FakeLnd {
    pub(crate) address: SocketAddr,
    /// Its certificate as PEM.
    pub(crate) certificate: String,
    state: watch::Sender<State>,
    _runtime: Runtime,
}

impl FakeLnd {
    /// A node on regtest, synced and unlocked, but for what a test wants otherwise.
    pub(crate) fn start(edit: impl FnOnce(&mut State)) -> FakeLnd {
        let mut state = State { locked: false, network: "regtest", synced: true, height: 700 };
        edit(&mut state);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be had");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a key can be made");
        let certificate = made.cert.pem();
        let identity = Identity::from_pem(&certificate, made.signing_key.serialize_pem());
        let (sender, receiver) = watch::channel(state);
        let address = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let address = listener.local_addr().expect("it is bound");
            let router = axum::Router::new().fallback_service(Answers(receiver));
            let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).expect("a key pair");
            let mut server = server;
            let serving = server.add_routes(Routes::from(router)).serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(async move { drop(serving.await) });
            address
        });
        FakeLnd { address, certificate, state: sender, _runtime: runtime }
    }

    /// Says something else from now on.
    pub(crate) fn set(&self, edit: impl FnOnce(&mut State)) {
        self.state.send_modify(edit);
    }
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

#[derive(Clone)]
struct Answers(watch::Receiver<State>);

impl Service<http::Request<axum::body::Body>> for Answers {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let call = Call { path: request.uri().path().to_owned(), state: self.0.clone() };
        // Unary calls look the same on the wire as streams of one message.
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(call, request).await) })
    }
}

struct Call {
    path: String,
    state: watch::Receiver<State>,
}

impl StreamingService<Bytes> for Call {
    type Response = Vec<u8>;
    type ResponseStream = ReceiverStream<Result<Vec<u8>, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<Streaming<Bytes>>) -> Self::Future {
        let (path, state) = (self.path.clone(), self.state.clone());
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(4);
            if state.borrow().locked && path != "/lnrpc.State/GetState" {
                return Err(Status::unknown(LOCKED));
            }
            let answered = answer(&path, &state.borrow());
            match answered {
                Some(message) => sender.try_send(Ok(message)).expect("there is room"),
                None => drop(tokio::spawn(events(path, sender, state))),
            }
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// The answer of a unary call; nothing for streams.
fn answer(path: &str, state: &State) -> Option<Vec<u8>> {
    let wallet = if state.locked { WalletState::Locked } else { WalletState::ServerActive };
    Some(match path {
        "/lnrpc.State/GetState" => GetStateResponse { state: wallet.into() }.encode_to_vec(),
        "/lnrpc.Lightning/CheckMacaroonPermissions" => CheckMacPermResponse { valid: true }.encode_to_vec(),
        "/lnrpc.Lightning/GetInfo" => GetInfoResponse {
            identity_pubkey: KEY.to_owned(),
            block_height: state.height,
            synced_to_chain: state.synced,
            chains: vec![Chain { network: state.network.to_owned() }],
            ..GetInfoResponse::default()
        }
        .encode_to_vec(),
        "/lnrpc.Lightning/WalletBalance" => {
            WalletBalanceResponse { confirmed_balance: 10_000_000, ..WalletBalanceResponse::default() }.encode_to_vec()
        }
        "/verrpc.Versioner/GetVersion" => Version {
            version: "0.20.1-beta".to_owned(),
            app_minor: 20,
            app_patch: 1,
            build_tags: ["chainrpc", "signrpc", "walletrpc"].map(str::to_owned).to_vec(),
            ..Version::default()
        }
        .encode_to_vec(),
        "/walletrpc.WalletKit/EstimateFee" => {
            EstimateFeeResponse { sat_per_kw: 1_000, ..EstimateFeeResponse::default() }.encode_to_vec()
        }
        _ => return None,
    })
}

/// Blocks as they come; any other stream is silent. Both end when the wallet is locked, for lnd restarts then.
async fn events(path: String, sender: mpsc::Sender<Result<Vec<u8>, Status>>, mut state: watch::Receiver<State>) {
    let mut told = 0;
    loop {
        let now = state.borrow_and_update().clone();
        if now.locked {
            return drop(sender.send(Err(Status::unavailable("the node restarts"))).await);
        }
        if path.ends_with("/RegisterBlockEpochNtfn") && now.height > told {
            told = now.height;
            let hash = vec![1; 32];
            let block = BlockEpoch { hash, height: told }.encode_to_vec();
            if sender.send(Ok(block)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}
