//! The proxy between a caller and a made-up venue: bytes, metadata and failures pass unchanged, the auditor hears of
//! each message.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::Auditor;
use crate::proxy::{Proxy, Raw, SharedAuditor, lock};

/// Answers each message with the caller's token and the message itself; refuses what begins with `no`.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "poolrpc.ChannelAuctioneer";
}

type Answers = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>;

#[derive(Clone)]
struct EchoCall;

impl tonic::server::StreamingService<Bytes> for EchoCall {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let token = request.metadata().get("authorization").map(|token| token.as_bytes().to_vec()).unwrap_or_default();
        let answers = request.into_inner().map(move |message| {
            let message = message?;
            if message.starts_with(b"no") {
                return Err(Status::failed_precondition("refused, says the venue"));
            }
            Ok(Bytes::from([token.as_slice(), &message].concat()))
        });
        Box::pin(async move {
            let answers: Answers = Box::pin(answers);
            let mut answer = Response::new(answers);
            answer.metadata_mut().insert("venue", "echo".parse().expect("ASCII"));
            Ok(answer)
        })
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(EchoCall, request).await) })
    }
}

async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// One call of a method with these messages; what came back until the end or a failure.
async fn call(channel: &Channel, method: &str, messages: &[&[u8]]) -> Result<Vec<Bytes>, Status> {
    let (sender, outgoing) = tokio::sync::mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", "LSATID 01".parse().unwrap());
    let path = PathAndQuery::try_from(format!("/poolrpc.ChannelAuctioneer/{method}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    for message in messages {
        sender.send(Bytes::copy_from_slice(message)).await.unwrap();
    }
    drop(sender);
    let answer = client.streaming(request, path, Raw).await?;
    assert_eq!(answer.metadata().get("venue").map(|value| value.as_bytes()), Some(&b"echo"[..]));
    answer.into_inner().collect::<Vec<_>>().await.into_iter().collect()
}

fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
fn messages_pass_unchanged_and_are_told() {
    in_a_runtime(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let venue = listener.local_addr().unwrap().to_string();
        tokio::spawn(Server::builder().add_service(Echo).serve_with_incoming(TcpListenerStream::new(listener)));
        let auditor: SharedAuditor = Arc::new(Mutex::new(Auditor::new()));
        let proxy = Proxy::start(&venue, Arc::clone(&auditor)).await.unwrap();
        let channel = channel(&proxy.address.to_string()).await;

        // Not a message that anybody knows: it has to survive.
        let strange = [0xfa, 0x7f, 3, 1, 2, 3];
        let answers = call(&channel, "Terms", &[&strange]).await.unwrap();
        assert_eq!(answers, [Bytes::from([b"LSATID 01".as_slice(), &strange].concat())]);
        assert_eq!(lock(&auditor).counts().unary_calls, 1);

        let answers = call(&channel, "SubscribeBatchAuction", &[&strange, &[], &strange]).await.unwrap();
        assert_eq!(answers.len(), 3);
        assert_eq!(lock(&auditor).counts().stream_messages, 6);

        let refusal = call(&channel, "InitAccount", &[b"no"]).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::FailedPrecondition, "refused, says the venue"));
        assert_eq!(lock(&auditor).counts().unary_calls, 2);
        assert_eq!(lock(&auditor).counts().accounts, 0);
    });
}

#[test]
fn a_venue_that_is_down_is_unavailable() {
    in_a_runtime(async {
        // A port that was free a moment ago.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let auditor: SharedAuditor = Arc::new(Mutex::new(Auditor::new()));
        let proxy = Proxy::start(&nobody, auditor).await.unwrap();
        let channel = channel(&proxy.address.to_string()).await;
        let refusal = call(&channel, "Terms", &[&[]]).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    });
}
