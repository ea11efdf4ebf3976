//! Both ends of the wire to a venue: the client's link, and the gRPC server around `tidegate-venue`.

pub mod admin;
mod hashmail;
mod link;
mod server;
mod streams;

pub use link::{GrpcLink, Token};
pub use server::{BoundServer, ServerError, bind};
pub use streams::GrpcTraders;
