//! Configuration files: TOML, unknown keys are errors, units stand in key names, limits have no unlimited default.

mod agent;
mod venue;

pub use agent::{AgentConfig, VenueLinkConfig};
pub use venue::{RatingsConfig, TermsConfig, VenueConfigFile};

use crate::node::LndConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A configuration that cannot be used. Each says what, where, and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "can not read the configuration {path}: {source}. Give an existing file with --config; examples are in config/"
    )]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("the configuration {path} is not valid: {reason}. Compare it with the example in config/")]
    Parse {
        /// File.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A value that contradicts a rule.
    #[error("the configuration {path}: {key} {rule}")]
    Rule {
        /// File.
        path: PathBuf,
        /// Key.
        key: &'static str,
        /// What must hold.
        rule: String,
    },
}

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

/// Reads and parses a TOML file.
///
/// # Errors
/// [`ConfigError::Read`] or [`ConfigError::Parse`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.into(), reason: error.to_string() })
}

fn require(path: &Path, key: &'static str, holds: bool, rule: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Rule { path: path.into(), key, rule: rule.to_owned() }) }
}

fn require_loopback(path: &Path, key: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    let rule =
        format!("is {address}: without TLS only a loopback address is served, e.g. 127.0.0.1:{}", address.port());
    require(path, key, address.ip().is_loopback(), &rule)
}

const NETWORKS: [&str; 5] = ["mainnet", "testnet", "testnet4", "signet", "regtest"];

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
