//! The connection: TLS, macaroon, the gate in front of it, and calls with a deadline.

use super::error;
use super::permissions::{self, Role};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidegate_ports::NodeError;
use tidegate_wire::lnd::chainrpc::chain_notifier_client::ChainNotifierClient;
use tidegate_wire::lnd::lnrpc::lightning_client::LightningClient;
use tidegate_wire::lnd::lnrpc::state_client::StateClient;
use tidegate_wire::lnd::signrpc::signer_client::SignerClient;
use tidegate_wire::lnd::verrpc::versioner_client::VersionerClient;
use tidegate_wire::lnd::walletrpc::wallet_kit_client::WalletKitClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{GrpcMethod, Request, Response, Status, Streaming};

/// Answers of large nodes (all channels, all transactions of a wallet) exceed the usual 4 MiB.
const MAX_ANSWER_BYTES: usize = 200 * 1024 * 1024;
/// A node that takes longer for an ordinary call is treated as unreachable.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The service under every client.
pub(super) type Service = InterceptedService<Channel, Gate>;

/// Adds the macaroon, and lets through only what the role may call.
#[derive(Clone)]
pub(super) struct Gate {
    macaroon: MetadataValue<Ascii>,
    role: Role,
}

impl Gate {
    /// A gate with the macaroon's bytes.
    pub(super) fn new(macaroon: &[u8], role: Role) -> Gate {
        let text = hex::DisplayHex::to_lower_hex_string(macaroon);
        let mut macaroon = MetadataValue::try_from(text).expect("hexadecimal is ASCII");
        macaroon.set_sensitive(true);
        Gate { macaroon, role }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let method = request
            .extensions()
            .get::<GrpcMethod<'_>>()
            .map(|method| format!("/{}/{}", method.service(), method.method()));
        match method {
            Some(method) if permissions::allowed(self.role, &method) => {
                request.metadata_mut().insert("macaroon", self.macaroon.clone());
                Ok(request)
            }
            method => {
                let method = method.unwrap_or_else(|| "a call without name".to_owned());
                Err(Status::permission_denied(format!("{method} is not among the calls of role {:?}", self.role)))
            }
        }
    }
}

/// A shared connection to one lnd; it reconnects with the next call after a break.
#[derive(Clone)]
pub(super) struct Link {
    service: Service,
    address: Arc<str>,
}

impl Link {
    /// A link over `channel` to the node at `address`.
    pub(super) fn new(channel: Channel, gate: Gate, address: &str) -> Link {
        Link { service: InterceptedService::new(channel, gate), address: Arc::from(address) }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn lightning(&self) -> LightningClient<Service> {
        LightningClient::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn state(&self) -> StateClient<Service> {
        StateClient::new(self.service.clone())
    }

    pub(super) fn versioner(&self) -> VersionerClient<Service> {
        VersionerClient::new(self.service.clone())
    }

    pub(super) fn wallet(&self) -> WalletKitClient<Service> {
        WalletKitClient::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn signer(&self) -> SignerClient<Service> {
        SignerClient::new(self.service.clone())
    }

    pub(super) fn notifier(&self) -> ChainNotifierClient<Service> {
        ChainNotifierClient::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The answer of a unary call within [`CALL_TIMEOUT`].
    pub(super) async fn ask<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, NodeError> {
        self.ask_within(CALL_TIMEOUT, call, answer).await
    }

    /// The answer of a unary call within `limit`.
    pub(super) async fn ask_within<T>(
        &self,
        limit: Duration,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, NodeError> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(call, &status)),
            Err(_) => {
                let reason = format!("no answer to {call} within {} s", limit.as_secs());
                Err(NodeError::Unreachable { address: self.address.to_string(), reason })
            }
        }
    }

    /// The next message of a stream; its end counts as a broken connection.
    pub(super) async fn next<T>(&self, call: &'static str, stream: &mut Streaming<T>) -> Result<T, NodeError> {
        match stream.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                let reason = format!("the node ended {call}");
                Err(NodeError::Unreachable { address: self.address.to_string(), reason })
            }
            Err(status) => Err(self.error(call, &status)),
        }
    }

    pub(super) fn error(&self, call: &'static str, status: &Status) -> NodeError {
        error::of_status(call, &self.address, status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(service: &'static str, method: &'static str) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(GrpcMethod::new(service, method));
        request
    }

    #[test]
    fn the_gate_adds_the_macaroon_and_hides_it() {
        let mut gate = Gate::new(&[0xAB, 0x01], Role::Venue);
        let passed = gate.call(request("lnrpc.Lightning", "GetInfo")).expect("both roles call it");
        let macaroon = passed.metadata().get("macaroon").expect("added");
        assert_eq!(macaroon, "ab01");
        assert!(!format!("{:?}", passed.metadata()).contains("ab01"));
    }

    #[test]
    fn the_gate_refuses_what_the_role_does_not_call() {
        let mut gate = Gate::new(b"x", Role::Venue);
        for call in
            [request("lnrpc.Lightning", "OpenChannel"), request("lnrpc.Lightning", "StopDaemon"), Request::new(())]
        {
            let refused = gate.call(call).expect_err("not listed");
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        }
    }
}
