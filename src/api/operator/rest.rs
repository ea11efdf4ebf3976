//! The same calls as JSON over HTTP/1.1: routes as deployed daemons have them, and those of `tidegate.v1`.
//!
//! Does: turn a request into the message of a call, hand it to the very service that gRPC clients reach, macaroon guard
//! included, and turn the answer into JSON. Never does: know what any call means.
//!
//! # Source
//! Protocol notes, rpc §13.1; routes in `wire.json`.

mod listener;

pub(super) use listener::{TlsListener, acceptor};

use super::MAX_REQUEST_BYTES;
use super::guard::Peer;
use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tidegate_wire::json::Interface;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::{Code, Request, Status};

/// Where the parameters of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    Query,
    Body,
}

/// A route: method, path (parameters in braces), call, and where the call's other fields are.
type Route = (&'static str, &'static str, &'static str, Fields);

const ROUTES: [Route; 35] = [
    ("GET", "/v1/pool/info", "/poolrpc.Trader/GetInfo", Fields::Query),
    ("POST", "/v1/pool/stop", "/poolrpc.Trader/StopDaemon", Fields::Body),
    ("POST", "/v1/pool/accounts/quote", "/poolrpc.Trader/QuoteAccount", Fields::Body),
    ("POST", "/v1/pool/accounts", "/poolrpc.Trader/InitAccount", Fields::Body),
    ("GET", "/v1/pool/accounts", "/poolrpc.Trader/ListAccounts", Fields::Query),
    ("DELETE", "/v1/pool/accounts", "/poolrpc.Trader/CloseAccount", Fields::Query),
    ("POST", "/v1/pool/accounts/withdraw", "/poolrpc.Trader/WithdrawAccount", Fields::Body),
    ("POST", "/v1/pool/accounts/deposit", "/poolrpc.Trader/DepositAccount", Fields::Body),
    ("POST", "/v1/pool/accounts/renew", "/poolrpc.Trader/RenewAccount", Fields::Body),
    ("POST", "/v1/pool/accounts/bump", "/poolrpc.Trader/BumpAccountFee", Fields::Body),
    ("POST", "/v1/pool/accounts/recover", "/poolrpc.Trader/RecoverAccounts", Fields::Body),
    ("POST", "/v1/pool/orders", "/poolrpc.Trader/SubmitOrder", Fields::Body),
    ("GET", "/v1/pool/orders", "/poolrpc.Trader/ListOrders", Fields::Query),
    ("DELETE", "/v1/pool/orders/{order_nonce}", "/poolrpc.Trader/CancelOrder", Fields::Query),
    ("POST", "/v1/pool/orders/quote", "/poolrpc.Trader/QuoteOrder", Fields::Body),
    ("GET", "/v1/pool/fee", "/poolrpc.Trader/AuctionFee", Fields::Query),
    ("GET", "/v1/pool/lease_durations", "/poolrpc.Trader/LeaseDurations", Fields::Query),
    ("GET", "/v1/pool/batch/next", "/poolrpc.Trader/NextBatchInfo", Fields::Query),
    ("GET", "/v1/pool/batch/snapshot", "/poolrpc.Trader/BatchSnapshot", Fields::Query),
    ("GET", "/v1/pool/lsat/tokens", "/poolrpc.Trader/GetLsatTokens", Fields::Query),
    ("GET", "/v1/pool/leases", "/poolrpc.Trader/Leases", Fields::Query),
    ("GET", "/v1/pool/node_ratings", "/poolrpc.Trader/NodeRatings", Fields::Query),
    ("GET", "/v1/pool/batch/snapshots", "/poolrpc.Trader/BatchSnapshots", Fields::Query),
    ("GET", "/v1/pool/batch/snapshots/{start_batch_id}", "/poolrpc.Trader/BatchSnapshots", Fields::Query),
    (
        "GET",
        "/v1/pool/batch/snapshots/{start_batch_id}/{num_batches_back}",
        "/poolrpc.Trader/BatchSnapshots",
        Fields::Query,
    ),
    ("POST", "/v1/pool/sidecar/offer", "/poolrpc.Trader/OfferSidecar", Fields::Body),
    ("POST", "/v1/pool/sidecar/register", "/poolrpc.Trader/RegisterSidecar", Fields::Body),
    ("POST", "/v1/pool/sidecar/expect", "/poolrpc.Trader/ExpectSidecarChannel", Fields::Body),
    ("GET", "/v1/tidegate/status", "/tidegate.v1.Agent/Status", Fields::Query),
    ("POST", "/v1/tidegate/stop", "/tidegate.v1.Agent/Stop", Fields::Body),
    ("POST", "/v1/tidegate/resume", "/tidegate.v1.Agent/Resume", Fields::Body),
    ("POST", "/v1/tidegate/orders/replace", "/tidegate.v1.Agent/ReplaceOrder", Fields::Body),
    ("GET", "/v1/tidegate/decisions", "/tidegate.v1.Agent/Decisions", Fields::Query),
    ("GET", "/v1/tidegate/ledger", "/tidegate.v1.Agent/Ledger", Fields::Query),
    ("GET", "/v1/tidegate/limits", "/tidegate.v1.Agent/Limits", Fields::Query),
];

/// Metadata of a call in the headers of a request.
const MACAROON: &str = "grpc-metadata-macaroon";

/// What the routes lead to.
pub(super) struct Gateway<T, A> {
    interface: Interface,
    trader: T,
    agent: A,
}

/// The routes, in front of both services.
pub(super) fn router<T, A>(trader: T, agent: A) -> Router
where
    T: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    T::Future: Send,
    A: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    A::Future: Send,
{
    let gateway = Arc::new(Gateway { interface: Interface::new(), trader, agent });
    let limit = DefaultBodyLimit::max(MAX_REQUEST_BYTES);
    Router::new().fallback(serve::<T, A>).layer(limit).with_state(gateway)
}

async fn serve<T, A>(
    State(gateway): State<Arc<Gateway<T, A>>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response
where
    T: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    A: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
{
    let asked = Asked { method: &method, uri: &uri, headers: &headers, body: &body, peer };
    match gateway.answer(asked).await {
        Ok(json) => reply(StatusCode::OK, &json),
        Err(status) => {
            let told = json!({ "code": i32::from(status.code()), "message": status.message(), "details": [] });
            reply(http_code(status.code()), &told)
        }
    }
}

fn reply(code: StatusCode, json: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
}

/// A request.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    body: &'a [u8],
    peer: Peer,
}

impl<T, A> Gateway<T, A>
where
    T: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    A: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
{
    async fn answer(&self, asked: Asked<'_>) -> Result<Value, Status> {
        let (call, from, parameters) = find(asked.method.as_str(), asked.uri.path())?;
        let method = self.interface.method(call).ok_or_else(|| Status::unimplemented("this call is not served"))?;
        let json = self.request_json(&method.request, from, parameters, asked)?;
        let message = self.interface.encode(&method.request, &json);
        let message = message.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut request = Request::new(message);
        request.extensions_mut().insert(asked.peer);
        for macaroon in asked.headers.get_all(MACAROON) {
            let text = macaroon.to_str().ok().and_then(|text| text.parse().ok());
            let text = text.ok_or_else(|| Status::unauthenticated("the macaroon is not hexadecimal"))?;
            request.metadata_mut().append("macaroon", text);
        }
        let path = http::uri::PathAndQuery::from_static(call);
        let answer = if call.starts_with("/tidegate.v1.") {
            tonic::client::Grpc::new(self.agent.clone()).unary(request, path, Raw).await?
        } else {
            tonic::client::Grpc::new(self.trader.clone()).unary(request, path, Raw).await?
        };
        let answer = self.interface.decode(&method.response, &answer.into_inner());
        answer.map_err(|error| Status::internal(error.to_string()))
    }

    /// The request's message as JSON: parameters of the path, and of query or body.
    fn request_json(
        &self,
        message: &str,
        from: Fields,
        path: Vec<(&'static str, String)>,
        asked: Asked<'_>,
    ) -> Result<Value, Status> {
        let mut parameters: Vec<(String, String)> =
            path.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        let malformed = |what: &str| Status::invalid_argument(what.to_owned());
        if from == Fields::Body {
            if asked.uri.query().is_some_and(|query| !query.is_empty()) {
                return Err(malformed(
                    "this call takes its parameters from the body, as JSON, and none after a question mark",
                ));
            }
            let body = if asked.body.is_empty() { &b"{}"[..] } else { asked.body };
            return serde_json::from_slice(body)
                .map_err(|error| Status::invalid_argument(format!("the body is not JSON: {error}")));
        }
        for pair in asked.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| unescape(text, true).ok_or_else(|| malformed("the query is not text"));
            parameters.push((read(name)?, read(text)?));
        }
        let pairs = parameters.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let json = self.interface.query(message, pairs);
        json.map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// What a path leads to: a call, where its fields are, and the parameters of the path.
type Found = (&'static str, Fields, Vec<(&'static str, String)>);

/// The route of a path.
fn find(method: &str, path: &str) -> Result<Found, Status> {
    let mut elsewhere = false;
    for (verb, pattern, call, from) in ROUTES {
        let Some(parameters) = matched(pattern, path) else { continue };
        if verb == method {
            return Ok((call, from, parameters));
        }
        elsewhere = true;
    }
    Err(if elsewhere {
        Status::unimplemented("this path takes another method")
    } else {
        Status::not_found("there is nothing at this path")
    })
}

/// The parameters of a path that fits the pattern.
fn matched(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(parameters),
            (Some(wanted), Some(found)) => match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) if !found.is_empty() => parameters.push((name, unescape(found, false)?)),
                None if wanted == found => {}
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Text of an address, `%xx` as the byte that it means and, in a query, `+` as a blank.
fn unescape(text: &str, query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        match first {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                // The parser would take a sign too.
                let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            b'+' if query => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// As deployed gateways translate it.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Messages as they are encoded.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
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

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use prost::bytes::Buf as _;
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

#[cfg(test)]
mod tests;
