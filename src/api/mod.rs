//! What the outside sees: metrics, health and status over HTTP, on loopback.

mod http;
mod metrics;

pub use http::{Answer, BoundHttp, HttpError, Page, bind};
pub use metrics::{AgentMetrics, VenueMetrics, raise_to, render};
