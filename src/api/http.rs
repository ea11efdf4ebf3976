//! A small HTTP listener: `/metrics`, `/healthz`, `/v1/status`, and for a venue the operator's `/v1/tick`.

use crate::runtime::Shutdown;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use core::future::Future;
use core::pin::Pin;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpListener;

/// The listener cannot be had.
#[derive(Debug, Error)]
#[error(
    "can not listen on {address} ({key}): {source}. Is another program using the port? Choose another in the configuration"
)]
pub struct HttpError {
    /// Address.
    pub address: SocketAddr,
    /// Configuration key.
    pub key: &'static str,
    /// Why.
    pub source: std::io::Error,
}

/// A text that is computed when asked for, boxed so that pages of any source fit one router.
pub type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// The pages of one process.
pub trait Page: Send + Sync + 'static {
    /// Prometheus text.
    fn metrics(&self) -> Answer;
    /// JSON.
    fn status(&self) -> Answer;
    /// Runs one clearing attempt (venue only) and tells its outcome as JSON.
    fn tick(&self) -> Answer;
}

/// A bound listener that does not serve yet.
pub struct BoundHttp {
    listener: TcpListener,
}

/// Binds, so that a port in use is found before anything else starts.
///
/// # Errors
/// [`HttpError`].
pub async fn bind(address: SocketAddr, key: &'static str) -> Result<BoundHttp, HttpError> {
    let listener = TcpListener::bind(address).await.map_err(|source| HttpError { address, key, source })?;
    Ok(BoundHttp { listener })
}

impl BoundHttp {
    /// The address that was bound (its port may have been chosen by the system).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, page: Arc<dyn Page>, shutdown: Shutdown) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .route("/v1/status", get(status))
            .route("/v1/tick", post(tick))
            .with_state(page);
        let stop = async move { shutdown.wanted().await };
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

async fn metrics(State(page): State<Arc<dyn Page>>) -> Response {
    answer(page.metrics().await, "text/plain; version=0.0.4")
}

async fn status(State(page): State<Arc<dyn Page>>) -> Response {
    answer(page.status().await, "application/json")
}

async fn tick(State(page): State<Arc<dyn Page>>) -> Response {
    answer(page.tick().await, "application/json")
}

fn answer(result: Result<String, String>, content_type: &'static str) -> Response {
    match result {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
