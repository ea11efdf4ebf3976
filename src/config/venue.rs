//! Configuration of `tidegate venue`.

use super::{ConfigError, NodeConfig, load, require, require_loopback, require_network};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything a venue is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueConfigFile {
    /// `mainnet`, `testnet`, `testnet4`, `signet` or `regtest`; must be the node's.
    pub network: String,
    /// Folder for the database; created with mode 0700.
    pub data_dir: PathBuf,
    /// Where traders connect (gRPC, plaintext, loopback only).
    pub listen: SocketAddr,
    /// Where metrics, status and the operator's tick are served (HTTP, loopback only).
    pub status_listen: SocketAddr,
    /// Seconds between attempts to clear; 0 clears only on the operator's request.
    pub tick_seconds: u64,
    /// The venue's own node.
    pub node: NodeConfig,
    /// Terms of trade.
    pub terms: TermsConfig,
    /// Node ratings.
    pub ratings: RatingsConfig,
}

/// Terms of trade.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermsConfig {
    /// Largest account.
    pub max_account_sats: u64,
    /// Fixed execution fee per match and side.
    pub base_fee_sats: u64,
    /// Variable execution fee.
    pub fee_rate_ppm: u64,
    /// Lease durations whose markets are open.
    pub durations_blocks: Vec<u32>,
    /// Confirmation target for the chain fee of a batch.
    pub batch_conf_target_blocks: u32,
}

/// Ratings from a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingsConfig {
    /// Identity keys (hex) of nodes of tier 1.
    pub tier1_nodes: Vec<String>,
    /// Tier of nodes that are not listed: 0 or 1.
    pub unlisted_tier: u8,
}

impl VenueConfigFile {
    /// Reads, parses and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] by variant.
    pub fn load(path: &Path) -> Result<VenueConfigFile, ConfigError> {
        let config: VenueConfigFile = load(path)?;
        require_network(path, &config.network)?;
        require_loopback(path, "listen", config.listen)?;
        require_loopback(path, "status_listen", config.status_listen)?;
        require(
            path,
            "terms.durations_blocks",
            !config.terms.durations_blocks.is_empty(),
            "must name at least one duration, e.g. [2016]",
        )?;
        let whole_days = config.terms.durations_blocks.iter().all(|blocks| *blocks > 0 && blocks % 144 == 0);
        require(path, "terms.durations_blocks", whole_days, "must be non-zero multiples of 144")?;
        require(path, "terms.max_account_sats", config.terms.max_account_sats >= 100_000, "must be at least 100000")?;
        require(path, "ratings.unlisted_tier", config.ratings.unlisted_tier <= 1, "must be 0 or 1")?;
        require(path, "terms.fee_rate_ppm", config.terms.fee_rate_ppm <= 1_000_000, "must be at most 1000000")?;
        Ok(config)
    }
}
