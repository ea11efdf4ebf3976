//! In front of the service: no call passes without a macaroon that allows it.

use super::macaroon::{AccessError, Keyring, needed};
use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;
use tidegate_ports::Clock;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// A service that is reached only with a macaroon.
#[derive(Clone, Debug)]
pub(super) struct Guard<S, C> {
    inner: S,
    keyring: Arc<Keyring>,
    clock: C,
}

impl<S, C: Clock> Guard<S, C> {
    pub(super) fn new(inner: S, keyring: Arc<Keyring>, clock: C) -> Guard<S, C> {
        Guard { inner, keyring, clock }
    }

    fn judge(&self, request: &http::Request<Body>) -> Result<(), Status> {
        let path = request.uri().path();
        let operations = needed(path).ok_or_else(|| Status::unimplemented("this program does not serve that call"))?;
        let sent: Vec<&http::HeaderValue> = request.headers().get_all("macaroon").iter().collect();
        let outcome = match sent.as_slice() {
            [] => Err(AccessError::Missing),
            [one] => {
                let text = one.to_str().map_err(|_| AccessError::NotHex);
                text.and_then(|text| self.keyring.check(text, operations, self.clock.now().seconds(), peer(request)))
            }
            several => Err(AccessError::Several(several.len())),
        };
        outcome.map_err(|error| match error {
            AccessError::Lacks(..) => Status::permission_denied(error.to_string()),
            error => Status::unauthenticated(error.to_string()),
        })
    }
}

/// Address of a caller that did not come by gRPC's own listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Address of the caller.
fn peer(request: &http::Request<Body>) -> Option<IpAddr> {
    if let Some(Peer(address)) = request.extensions().get::<Peer>() {
        return Some(*address);
    }
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    connection.get_ref().remote_addr().map(|address| address.ip())
}

impl<S, C> Service<http::Request<Body>> for Guard<S, C>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    C: Clock,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.judge(&request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: NamedService, C> NamedService for Guard<S, C> {
    const NAME: &'static str = S::NAME;
}
