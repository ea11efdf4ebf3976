//! What a process has and a flow must not: the clock and the randomness of the operating system.

mod clock;
mod entropy;
mod shutdown;

pub use clock::{SteppedClock, SystemClock};
pub use entropy::OsEntropy;
pub use shutdown::Shutdown;
