//! What the outside sees: metrics, health and status over HTTP, and the operator's gRPC interface, on loopback.

mod http;
mod metrics;
pub mod operator;

pub use http::{Answer, BoundHttp, HttpError, Page, bind};
pub use metrics::{
    AgentMetrics, BatchMetrics, LedgerMetrics, LinkMetrics, RiskMetrics, TimesCollector, VenueMetrics, raise_to, render,
};
