//! Configuration of `tidegate venue`.

use super::{ConfigError, NodeConfig, load, require, require_between, require_loopback, require_network};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::Sats;

const WEEK_SECONDS: u64 = 604_800;
/// Range of confirmation targets that lnd estimates a fee rate for.
const CONF_TARGETS: core::ops::RangeInclusive<u64> = 2..=1008;
/// One unit of supply.
const UNIT_SATS: u64 = 100_000;

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
    /// What becomes of the income. Without it, the income stays in the venue's own coin.
    pub income: Option<IncomeConfig>,
    /// Node ratings.
    pub ratings: RatingsConfig,
    /// The operator's calls. Without it, there are none but those of `status_listen`.
    pub api: Option<VenueApiConfig>,
}

/// The operator's calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueApiConfig {
    /// Where they are served (HTTP, loopback only), for whoever knows the token in `admin.token` of the data folder.
    pub admin_listen: SocketAddr,
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
    /// Other execution fees, by trader.
    #[serde(default)]
    pub custom: Vec<CustomTermsConfig>,
}

/// The execution fee of one trader.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomTermsConfig {
    /// The trader's token: 64 hex digits.
    pub token: String,
    /// Fixed execution fee per match.
    pub base_fee_sats: u64,
    /// Variable execution fee.
    pub fee_rate_ppm: u64,
}

/// What becomes of the venue's income.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomeConfig {
    /// Income above this goes to the node's wallet, along with a batch.
    pub sweep_above_sats: u64,
    /// What stays in the venue's own coin then.
    pub keep_sats: u64,
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
        if let Some(api) = &config.api {
            require_loopback(path, "api.admin_listen", api.admin_listen)?;
        }
        require_between(path, "tick_seconds", config.tick_seconds, 0..=WEEK_SECONDS)?;
        config.terms.check(path)?;
        if let Some(income) = &config.income {
            let all_coins = Sats::MAX.get();
            require_between(path, "income.sweep_above_sats", income.sweep_above_sats, 1_000..=all_coins)?;
            let rule = "must be at most income.sweep_above_sats - 1000";
            let fits = income.keep_sats <= income.sweep_above_sats.saturating_sub(1_000);
            require(path, "income.keep_sats", fits, rule)?;
        }
        require(path, "ratings.unlisted_tier", config.ratings.unlisted_tier <= 1, "must be 0 or 1")?;
        for node in &config.ratings.tier1_nodes {
            let rule = format!("names {node:?}, which is not a node key: write 66 hexadecimal digits");
            require(path, "ratings.tier1_nodes", node.parse::<NodeId>().is_ok(), &rule)?;
        }
        Ok(config)
    }
}

impl VenueConfigFile {
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

impl TermsConfig {
    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let durations = &self.durations_blocks;
        let some = "must name at least one duration, e.g. [2016]";
        require(path, "terms.durations_blocks", !durations.is_empty(), some)?;
        let whole_days = durations.iter().all(|blocks| *blocks > 0 && blocks % 144 == 0);
        require(path, "terms.durations_blocks", whole_days, "must be non-zero multiples of 144")?;
        let all_coins = Sats::MAX.get();
        require_between(path, "terms.max_account_sats", self.max_account_sats, UNIT_SATS..=all_coins)?;
        require_between(path, "terms.base_fee_sats", self.base_fee_sats, 0..=all_coins)?;
        require_between(path, "terms.fee_rate_ppm", self.fee_rate_ppm, 0..=1_000_000)?;
        for custom in &self.custom {
            let token: Result<[u8; 32], _> = hex::FromHex::from_hex(&custom.token);
            require(path, "terms.custom.token", token.is_ok(), "must be 64 hexadecimal digits")?;
            require_between(path, "terms.custom.base_fee_sats", custom.base_fee_sats, 0..=all_coins)?;
            require_between(path, "terms.custom.fee_rate_ppm", custom.fee_rate_ppm, 0..=1_000_000)?;
        }
        let target = u64::from(self.batch_conf_target_blocks);
        require_between(path, "terms.batch_conf_target_blocks", target, CONF_TARGETS)
    }
}
