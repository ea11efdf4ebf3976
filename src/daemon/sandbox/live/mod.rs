//! The market in one process, live: a venue behind its gRPC interface, a dozen simulated traders, our agent, and blocks
//! in a steady rhythm. It runs until it is told to stop, and goes on at the next start.

mod conductor;
mod crowd;
mod faults;
mod ground;
mod habits;
mod hostile;
mod ours;
mod scene;
#[cfg(test)]
mod tests;
mod unfilled;

pub use conductor::run_live;
pub use faults::Faults;
pub use scene::{AccountLine, ClearingLine, LeaseLine, NodeLine, OrderLine, Scene};

use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the agent does in the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sells leases.
    Seller,
    /// Buys leases.
    Buyer,
    /// Both, from one account.
    Both,
}

impl Role {
    fn sells(self) -> bool {
        matches!(self, Role::Seller | Role::Both)
    }

    fn buys(self) -> bool {
        matches!(self, Role::Buyer | Role::Both)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Seller => "seller",
            Role::Buyer => "buyer",
            Role::Both => "seller and buyer",
        })
    }
}

/// What a live run is asked for.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// Fixes keys, prices, payments and faults; nothing takes that of the data, or 1.
    pub seed: Option<u64>,
    /// Blocks per second, 0.01 to 200.
    pub speed: f64,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Loopback address of status and metrics; the API gets the port after it, the venue the one after that. Nothing, or
    /// port 0, lets the system choose all three.
    pub listen: Option<SocketAddr>,
    /// What the agent does.
    pub role: Role,
    /// What goes wrong.
    pub faults: Faults,
}

/// Where things are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Served {
    /// The agent's status, as JSON over HTTP.
    pub status: String,
    /// Its metrics, for Prometheus.
    pub metrics: String,
    /// Its gRPC API.
    pub rpc: String,
    /// Folder with the API's certificate and macaroons.
    pub folder: String,
    /// The venue's gRPC interface.
    pub venue: String,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The market is open: everybody has an account.
    Opened {
        /// Best block.
        height: u32,
        /// How often it was started before.
        start: u64,
        /// Where things are served.
        served: Served,
    },
    /// A batch was made.
    Batch(ClearingLine),
    /// An attempt to clear made none.
    NoBatch {
        /// Best block.
        height: u32,
        /// Why.
        reason: String,
    },
    /// The agent booked a lease.
    Lease(Box<LeaseLine>),
    /// The venue lied to the agent.
    Lied {
        /// What was changed.
        lie: String,
        /// The agent's own words: the rule that was broken. Nothing when it did not notice.
        refusal: Option<String>,
    },
    /// A fault began or ended.
    Fault {
        /// Best block.
        height: u32,
        /// What.
        what: String,
    },
    /// Everything stopped in order.
    Stopped {
        /// Best block.
        height: u32,
    },
}

/// What a run tells its user.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something happened.
    Event(Event),
    /// How everything looks now; told when a block changed it, a few times a second at most.
    Scene(Box<Scene>),
}

/// How often things happen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rhythm {
    /// Between two clearings.
    interval: Duration,
    /// Blocks between two clearings.
    every: u32,
}

/// Blocks between two clearings, at least: a batch and its accounts confirm in between.
const MIN_EVERY: u32 = 6;
/// Seconds between two clearings, at least: everybody has to decide.
const MIN_INTERVAL_S: f64 = 2.0;
/// Speeds that make sense, in blocks per second.
const SPEEDS: (f64, f64) = (0.01, 200.0);

impl Rhythm {
    /// The rhythm of so many blocks per second.
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "6 to 400 fit")]
    fn of(speed: f64) -> Rhythm {
        let speed = speed.clamp(SPEEDS.0, SPEEDS.1);
        let every = ((speed * MIN_INTERVAL_S).ceil() as u32).max(MIN_EVERY);
        Rhythm { interval: Duration::from_secs_f64(f64::from(every) / speed), every }
    }
}

/// Where listeners go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    status: SocketAddr,
    rpc: SocketAddr,
    venue: SocketAddr,
}

impl Ports {
    /// Three ports in a row, or what the system chooses.
    ///
    /// # Errors
    /// An address that is not loopback, and a port too close to the last one.
    fn of(listen: Option<SocketAddr>) -> anyhow::Result<Ports> {
        let first = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        anyhow::ensure!(
            first.ip().is_loopback(),
            "--listen {first} is not on this machine: status and venue have no password, use 127.0.0.1"
        );
        let port = |offset: u16| match first.port() {
            0 => Some(0),
            port => port.checked_add(offset),
        };
        let next = |offset| {
            let port = port(offset)
                .ok_or_else(|| anyhow::anyhow!("--listen {first}: the two ports after it are needed too"))?;
            anyhow::Ok(SocketAddr::new(first.ip(), port))
        };
        Ok(Ports { status: first, rpc: next(1)?, venue: next(2)? })
    }
}
