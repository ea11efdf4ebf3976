//! Configuration files: TOML, unknown keys are errors, units stand in key names, limits have no unlimited default.

mod agent;
mod error;
mod strategy;
mod venue;

pub use agent::{AgentConfig, ApiConfig, VenueLinkConfig};
pub use error::{ConfigError, File};
pub use strategy::load_strategy;
pub use venue::{CustomTermsConfig, IncomeConfig, RatingsConfig, TermsConfig, VenueApiConfig, VenueConfigFile};

use crate::node::LndConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// How to reach the Lightning node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// gRPC address, `host:port`.
    pub address: String,
    /// The node's certificate, pinned byte by byte.
    pub tls_cert: PathBuf,
    /// Macaroon with exactly the permissions that `tidegate permissions` prints.
    pub macaroon: PathBuf,
}

/// Reads and parses a configuration.
///
/// # Errors
/// [`ConfigError::Read`] or [`ConfigError::Parse`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = File::Configuration.read(path)?;
    toml::from_str(&text).map_err(|error| File::Configuration.unparsed(path, &text, &error))
}

fn require(path: &Path, key: &'static str, holds: bool, rule: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Rule { file: File::Configuration, path: path.into(), key, rule: rule.to_owned() })
}

fn require_between(path: &Path, key: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
    let rule = format!("is {value}: must be at least {} and at most {}", range.start(), range.end());
    require(path, key, range.contains(&value), &rule)
}

fn require_loopback(path: &Path, key: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    let rule =
        format!("is {address}: only a loopback address is served in this version, e.g. 127.0.0.1:{}", address.port());
    require(path, key, address.ip().is_loopback(), &rule)
}

/// Networks, as lnd names them.
pub const NETWORKS: [&str; 5] = ["mainnet", "testnet", "testnet4", "signet", "regtest"];

fn require_network(path: &Path, network: &str) -> Result<(), ConfigError> {
    let rule = format!("is {network:?}: must be one of {}", NETWORKS.join(", "));
    require(path, "network", NETWORKS.contains(&network), &rule)
}

impl NodeConfig {
    /// The same as the node adapter wants it.
    pub fn lnd(&self, network: &str) -> LndConfig {
        LndConfig {
            address: self.address.clone(),
            tls_cert_path: self.tls_cert.clone(),
            macaroon_path: self.macaroon.clone(),
            network: network.to_owned(),
        }
    }
}
