//! The traits that flows speak to, and their plain types.
//!
//! A flow is an async function over these ports: it knows no runtime, no socket and no file. The shell implements them
//! with a real node and SQLite, the sandbox in memory. Every method may be cut at its await and called again after a
//! restart; what must not happen twice says so.

mod channels;
mod clock;
mod env;
mod movement;
mod node;
mod store;
mod traders;
mod venue_link;

pub use channels::*;
pub use clock::*;
pub use env::*;
pub use movement::*;
pub use node::*;
pub use store::*;
pub use traders::*;
pub use venue_link::*;
