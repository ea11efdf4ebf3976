//! The calls of the service, each handed to the part that knows it.

use super::Done;
use super::agent::About;
use super::wish::{Wish, WishError, Wishes, harmless};
use crate::runtime::Shutdown;
use crate::venue::GrpcLink;
use bitcoin::Network;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tidegate_ports::{LinkError, NodeError, StoreError, TraderEnv};
use tidegate_trader::{Gone, Handle, QuoteError, Reaction};
use tidegate_wire::DecodeError;
use tidegate_wire::poolrpc::{self as rpc, trader_server::Trader};
use tonic::{Code, Request, Response, Status};

/// What the calls work on.
pub struct Operator<E> {
    /// Ports.
    pub env: Arc<E>,
    /// The trader.
    pub trader: Handle,
    /// Where wishes go.
    pub wishes: Wishes,
    /// Whose addresses are understood.
    pub network: Network,
    /// Matches with nodes that have a channel with ours are refused; told, not decided here.
    pub new_nodes_only: bool,
}

impl<E> fmt::Debug for Operator<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Says why calls have to wait, while they have to.
type Reason = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The place of the operator: empty until the node answers.
pub struct Stage<E: TraderEnv> {
    operator: Arc<OnceLock<Operator<E>>>,
    about: Option<Arc<About<E::Store>>>,
    waiting: Reason,
}

impl<E: TraderEnv> fmt::Debug for Stage<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("operator", &self.operator.get()).finish_non_exhaustive()
    }
}

impl<E: TraderEnv> Clone for Stage<E> {
    fn clone(&self) -> Self {
        Stage { operator: Arc::clone(&self.operator), about: self.about.clone(), waiting: Arc::clone(&self.waiting) }
    }
}

impl<E: TraderEnv> Stage<E> {
    /// An empty one; `waiting` tells for what callers wait.
    pub fn new(waiting: impl Fn() -> Option<String> + Send + Sync + 'static) -> Stage<E> {
        Stage { operator: Arc::default(), about: None, waiting: Arc::new(waiting) }
    }

    /// The same with what is known beforehand: without it `tidegate.v1` is not served.
    pub fn with(self, about: About<E::Store>) -> Stage<E> {
        Stage { about: Some(Arc::new(about)), ..self }
    }

    /// From now on calls are answered. A second operator is ignored.
    pub fn enter(&self, operator: Operator<E>) {
        let _ = self.operator.set(operator);
    }

    pub(super) fn about(&self) -> Result<&About<E::Store>, Status> {
        self.about.as_deref().ok_or_else(|| Status::unimplemented("this agent does not serve tidegate.v1"))
    }

    pub(super) fn operator(&self) -> Result<&Operator<E>, Status> {
        self.operator.get().ok_or_else(|| {
            let reason = (self.waiting)().unwrap_or_else(|| "the agent is starting".to_owned());
            Status::unavailable(harmless(&reason))
        })
    }
}

impl<E: TraderEnv> Operator<E> {
    /// Hands a wish to the gate.
    pub(super) async fn ask(&self, wish: Wish, by: &str) -> Result<Done, Status> {
        self.wishes.ask(wish, by).await.map_err(Status::from)
    }
}

/// The brain answered a wish with the outcome of another one.
pub(super) fn mixed_up() -> Status {
    Status::internal("the answer does not belong to the request: a defect of this program")
}

pub(super) fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn node_failed(error: NodeError) -> Status {
    Status::from(WishError::Node(error))
}

pub(super) fn gone(error: Gone) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn store_failed(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn link_failed(error: LinkError) -> Status {
    let code = match error {
        LinkError::Unreachable { .. } | LinkError::BadAnswer { .. } => Code::Unavailable,
        LinkError::NoOrder | LinkError::NoSnapshot => Code::NotFound,
        LinkError::Refused { .. } => Code::FailedPrecondition,
    };
    Status::new(code, harmless(&error.to_string()))
}

pub(super) fn quote_failed(error: QuoteError) -> Status {
    let code = match error.reaction() {
        Reaction::Retry | Reaction::Exit => Code::Unavailable,
        Reaction::DropIntent => Code::FailedPrecondition,
        Reaction::HaltTrading => Code::Internal,
    };
    Status::new(code, harmless(&error.to_string()))
}

/// The service.
pub(super) struct TraderService<E: TraderEnv> {
    stage: Stage<E>,
    shutdown: Shutdown,
}

impl<E: TraderEnv> TraderService<E> {
    pub(super) fn new(stage: Stage<E>, shutdown: Shutdown) -> TraderService<E> {
        TraderService { stage, shutdown }
    }
}

fn later<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{what} not served in this version of tidegate")))
}

const SIDECARS: &str = "sidecar channels are";

#[tonic::async_trait]
impl<E: TraderEnv<Link = GrpcLink> + 'static> Trader for TraderService<E> {
    async fn get_info(&self, _: Request<rpc::GetInfoRequest>) -> Result<Response<rpc::GetInfoResponse>, Status> {
        self.stage.operator()?.info().await.map(Response::new)
    }

    async fn stop_daemon(
        &self,
        _: Request<rpc::StopDaemonRequest>,
    ) -> Result<Response<rpc::StopDaemonResponse>, Status> {
        tracing::info!("stopping: asked for over the API");
        self.shutdown.trigger();
        Ok(Response::new(rpc::StopDaemonResponse {}))
    }

    async fn quote_account(
        &self,
        request: Request<rpc::QuoteAccountRequest>,
    ) -> Result<Response<rpc::QuoteAccountResponse>, Status> {
        self.stage.operator()?.quote_account(request.into_inner()).await.map(Response::new)
    }

    async fn init_account(&self, request: Request<rpc::InitAccountRequest>) -> Result<Response<rpc::Account>, Status> {
        self.stage.operator()?.init_account(request.into_inner()).await.map(Response::new)
    }

    async fn list_accounts(
        &self,
        request: Request<rpc::ListAccountsRequest>,
    ) -> Result<Response<rpc::ListAccountsResponse>, Status> {
        self.stage.operator()?.list_accounts(request.into_inner()).await.map(Response::new)
    }

    async fn close_account(
        &self,
        request: Request<rpc::CloseAccountRequest>,
    ) -> Result<Response<rpc::CloseAccountResponse>, Status> {
        self.stage.operator()?.close_account(request.into_inner()).await.map(Response::new)
    }

    async fn withdraw_account(
        &self,
        request: Request<rpc::WithdrawAccountRequest>,
    ) -> Result<Response<rpc::WithdrawAccountResponse>, Status> {
        self.stage.operator()?.withdraw_account(request.into_inner()).await.map(Response::new)
    }

    async fn deposit_account(
        &self,
        request: Request<rpc::DepositAccountRequest>,
    ) -> Result<Response<rpc::DepositAccountResponse>, Status> {
        self.stage.operator()?.deposit_account(request.into_inner()).await.map(Response::new)
    }

    async fn renew_account(
        &self,
        request: Request<rpc::RenewAccountRequest>,
    ) -> Result<Response<rpc::RenewAccountResponse>, Status> {
        self.stage.operator()?.renew_account(request.into_inner()).await.map(Response::new)
    }

    async fn bump_account_fee(
        &self,
        request: Request<rpc::BumpAccountFeeRequest>,
    ) -> Result<Response<rpc::BumpAccountFeeResponse>, Status> {
        self.stage.operator()?.bump_account_fee(request.into_inner()).await.map(Response::new)
    }

    async fn recover_accounts(
        &self,
        _: Request<rpc::RecoverAccountsRequest>,
    ) -> Result<Response<rpc::RecoverAccountsResponse>, Status> {
        later("the recovery of accounts is")
    }

    async fn account_modification_fees(
        &self,
        _: Request<rpc::AccountModificationFeesRequest>,
    ) -> Result<Response<rpc::AccountModificationFeesResponse>, Status> {
        self.stage.operator()?.modification_fees().await.map(Response::new)
    }

    async fn submit_order(
        &self,
        request: Request<rpc::SubmitOrderRequest>,
    ) -> Result<Response<rpc::SubmitOrderResponse>, Status> {
        self.stage.operator()?.submit_order(request.into_inner()).await.map(Response::new)
    }

    async fn list_orders(
        &self,
        request: Request<rpc::ListOrdersRequest>,
    ) -> Result<Response<rpc::ListOrdersResponse>, Status> {
        self.stage.operator()?.list_orders(request.into_inner()).await.map(Response::new)
    }

    async fn cancel_order(
        &self,
        request: Request<rpc::CancelOrderRequest>,
    ) -> Result<Response<rpc::CancelOrderResponse>, Status> {
        self.stage.operator()?.cancel_order(request.into_inner()).await.map(Response::new)
    }

    async fn quote_order(
        &self,
        request: Request<rpc::QuoteOrderRequest>,
    ) -> Result<Response<rpc::QuoteOrderResponse>, Status> {
        self.stage.operator()?.quote_order(request.into_inner()).await.map(Response::new)
    }

    async fn auction_fee(
        &self,
        _: Request<rpc::AuctionFeeRequest>,
    ) -> Result<Response<rpc::AuctionFeeResponse>, Status> {
        self.stage.operator()?.auction_fee().await.map(Response::new)
    }

    async fn lease_durations(
        &self,
        _: Request<rpc::LeaseDurationRequest>,
    ) -> Result<Response<rpc::LeaseDurationResponse>, Status> {
        self.stage.operator()?.lease_durations().await.map(Response::new)
    }

    async fn next_batch_info(
        &self,
        _: Request<rpc::NextBatchInfoRequest>,
    ) -> Result<Response<rpc::NextBatchInfoResponse>, Status> {
        self.stage.operator()?.next_batch_info().await.map(Response::new)
    }

    async fn batch_snapshot(
        &self,
        request: Request<rpc::BatchSnapshotRequest>,
    ) -> Result<Response<rpc::BatchSnapshotResponse>, Status> {
        self.stage.operator()?.batch_snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn get_lsat_tokens(&self, _: Request<rpc::TokensRequest>) -> Result<Response<rpc::TokensResponse>, Status> {
        // Venues of this version are not paid for their connection, so there is none.
        Ok(Response::new(rpc::TokensResponse::default()))
    }

    async fn leases(&self, request: Request<rpc::LeasesRequest>) -> Result<Response<rpc::LeasesResponse>, Status> {
        self.stage.operator()?.leases(request.into_inner()).await.map(Response::new)
    }

    async fn node_ratings(
        &self,
        request: Request<rpc::NodeRatingRequest>,
    ) -> Result<Response<rpc::NodeRatingResponse>, Status> {
        self.stage.operator()?.node_ratings(request.into_inner()).await.map(Response::new)
    }

    async fn batch_snapshots(
        &self,
        request: Request<rpc::BatchSnapshotsRequest>,
    ) -> Result<Response<rpc::BatchSnapshotsResponse>, Status> {
        self.stage.operator()?.batch_snapshots(request.into_inner()).await.map(Response::new)
    }

    async fn offer_sidecar(
        &self,
        _: Request<rpc::OfferSidecarRequest>,
    ) -> Result<Response<rpc::SidecarTicket>, Status> {
        later(SIDECARS)
    }

    async fn register_sidecar(
        &self,
        _: Request<rpc::RegisterSidecarRequest>,
    ) -> Result<Response<rpc::SidecarTicket>, Status> {
        later(SIDECARS)
    }

    async fn expect_sidecar_channel(
        &self,
        _: Request<rpc::ExpectSidecarChannelRequest>,
    ) -> Result<Response<rpc::ExpectSidecarChannelResponse>, Status> {
        later(SIDECARS)
    }

    async fn decode_sidecar_ticket(
        &self,
        _: Request<rpc::SidecarTicket>,
    ) -> Result<Response<rpc::DecodedSidecarTicket>, Status> {
        later(SIDECARS)
    }

    async fn list_sidecars(
        &self,
        _: Request<rpc::ListSidecarsRequest>,
    ) -> Result<Response<rpc::ListSidecarsResponse>, Status> {
        later(SIDECARS)
    }

    async fn cancel_sidecar(
        &self,
        _: Request<rpc::CancelSidecarRequest>,
    ) -> Result<Response<rpc::CancelSidecarResponse>, Status> {
        later(SIDECARS)
    }
}
