//! Configuration of `tidegate run`.

use super::{ConfigError, NodeConfig, load, require, require_between, require_loopback, require_network};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidegate_engine::gate::Limits;
use tidegate_protocol::units::SatPerKw;

/// A strategy that looks less often than once a day misses too much.
const DAY_SECONDS: u64 = 86_400;

/// Everything an agent is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// `mainnet`, `testnet`, `testnet4`, `signet` or `regtest`; must be the node's.
    pub network: String,
    /// Folder for the database and the venue token; created with mode 0700.
    pub data_dir: PathBuf,
    /// Where metrics and status are served (HTTP, loopback only).
    pub status_listen: SocketAddr,
    /// Seconds between decisions.
    pub decide_every_seconds: u64,
    /// The node that trades.
    pub node: NodeConfig,
    /// The venue.
    pub venue: VenueLinkConfig,
    /// Hard limits; the strategy can not pass them. None has a default.
    pub limits: Limits,
    /// The strategy's own file.
    pub strategy_file: PathBuf,
}

/// How to reach the venue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueLinkConfig {
    /// gRPC address, `host:port`.
    pub address: String,
    /// Plaintext without TLS; only to a loopback address.
    pub insecure: bool,
}

impl AgentConfig {
    /// Reads, parses and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] by variant.
    pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
        let mut config: AgentConfig = load(path)?;
        require_network(path, &config.network)?;
        require_loopback(path, "status_listen", config.status_listen)?;
        require(
            path,
            "venue.insecure",
            config.venue.insecure,
            "must be true in this version: TLS to the venue is not supported yet",
        )?;
        let loopback = config.venue.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        require(
            path,
            "venue.address",
            loopback,
            "must be a loopback address and port (e.g. 127.0.0.1:12010) while venue.insecure is true",
        )?;
        require_between(path, "decide_every_seconds", config.decide_every_seconds, 1..=DAY_SECONDS)?;
        let fee_rate = config.limits.max_batch_fee_rate_sat_per_kw;
        require(path, "limits.max_batch_fee_rate_sat_per_kw", fee_rate >= SatPerKw::FLOOR, "must be at least 253")?;
        // The strategy's file is named relative to the configuration that names it.
        if let (true, Some(folder)) = (config.strategy_file.is_relative(), path.parent()) {
            config.strategy_file = folder.join(&config.strategy_file);
        }
        Ok(config)
    }
}
