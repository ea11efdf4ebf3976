//! Configuration of `tidegate run`.

use super::{ConfigError, NodeConfig, load, require, require_between, require_loopback, require_network};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidegate_engine::gate::Limits;
use tidegate_protocol::units::{BlockCount, SatPerKw};
use tidegate_trader::{FeeRise, TraderConfig};

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
    /// The strategy's own file; without one the agent does only what it is asked over the API.
    pub strategy_file: Option<PathBuf>,
    /// The operator's interface; without this section there is none.
    pub api: Option<ApiConfig>,
    /// How it trades; every key has a default.
    #[serde(default)]
    pub trading: TradingConfig,
}

/// How the agent takes part in the market, whatever its strategy.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TradingConfig {
    /// Refuse a batch that matches a bid which asks for a rated node with one whose rating is not known.
    pub reject_unrated: bool,
    /// Refuse matches with nodes with whom the node has a channel already, or one that is being opened.
    pub new_nodes_only: bool,
    /// When the venue's fee rises above what an order agreed to: sign it anew with the new fee, instead of cancelling it.
    pub resign_on_fee_rise: bool,
    /// Place the rest of a partly filled order again when the venue dropped it.
    pub resubmit_remainders: bool,
    /// Blocks after which an unconfirmed transaction is reported as stuck.
    pub stuck_blocks: u32,
}

impl Default for TradingConfig {
    fn default() -> TradingConfig {
        let TraderConfig { reject_unrated, new_nodes_only, resubmit_remainders, stuck_blocks, .. } =
            TraderConfig::default();
        let stuck_blocks = stuck_blocks.get();
        TradingConfig { reject_unrated, new_nodes_only, resign_on_fee_rise: false, resubmit_remainders, stuck_blocks }
    }
}

impl TradingConfig {
    /// What the pool client is told.
    pub fn trader(&self) -> TraderConfig {
        TraderConfig {
            reject_unrated: self.reject_unrated,
            new_nodes_only: self.new_nodes_only,
            on_fee_rise: if self.resign_on_fee_rise { FeeRise::Resign } else { FeeRise::Cancel },
            resubmit_remainders: self.resubmit_remainders,
            stuck_blocks: BlockCount::new(self.stuck_blocks),
            ..TraderConfig::default()
        }
    }
}

/// The interface that existing clients of the market speak.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it is served (gRPC, TLS, loopback only).
    #[serde(default = "usual_listen")]
    pub rpc_listen: SocketAddr,
    /// Where the same calls are served as JSON over HTTPS (loopback only); without this key they are not.
    pub rest_listen: Option<SocketAddr>,
}

/// Where deployed clients look for their daemon.
fn usual_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 12010))
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
            "must be a loopback address and port (e.g. 127.0.0.1:12009) while venue.insecure is true",
        )?;
        require_between(path, "decide_every_seconds", config.decide_every_seconds, 1..=DAY_SECONDS)?;
        let fee_rate = config.limits.max_batch_fee_rate_sat_per_kw;
        require(path, "limits.max_batch_fee_rate_sat_per_kw", fee_rate >= SatPerKw::FLOOR, "must be at least 253")?;
        match (&config.strategy_file, &config.api) {
            (None, None) => {
                let rule = "is missing, and there is no section [api] either: this agent could do nothing";
                require(path, "strategy_file", false, rule)?;
            }
            (_, Some(api)) => {
                require_loopback(path, "api.rpc_listen", api.rpc_listen)?;
                if let Some(rest) = api.rest_listen {
                    require_loopback(path, "api.rest_listen", rest)?;
                }
            }
            (Some(_), None) => {}
        }
        // The strategy's file is named relative to the configuration that names it.
        if let (Some(file), Some(folder)) = (&mut config.strategy_file, path.parent())
            && file.is_relative()
        {
            *file = folder.join(&file);
        }
        Ok(config)
    }

    /// Folder with what clients of the API need: `tls.cert` and `pool.macaroon`. The network's name is its last part, as
    /// the deployed client expects below its base folder.
    pub fn api_folder(&self) -> PathBuf {
        self.data_dir.join("api").join(&self.network)
    }

    /// The network as addresses know it.
    ///
    /// # Errors
    /// When it is none of [`super::NETWORKS`]; a loaded configuration's is.
    pub fn bitcoin_network(&self) -> Result<bitcoin::Network, bitcoin::network::ParseNetworkError> {
        match self.network.as_str() {
            "mainnet" => Ok(bitcoin::Network::Bitcoin),
            other => other.parse(),
        }
    }
}
