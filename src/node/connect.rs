//! Connecting, and everything that is checked before the first use.

use super::background::Background;
use super::chain::ChainHub;
use super::error::is_temporary;
use super::events::ChannelEvents;
use super::link::{Gate, Link};
use super::permissions::{self, Role};
use super::signer::Sessions;
use super::tls::{PIN_MISMATCH, PinnedCertificate};
use super::{Inner, LndNode};
use bitcoin::Network;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tidegate_ports::{NodeData, NodeError, NodeInfo};
use tidegate_wire::lnd::lnrpc::{CheckMacPermRequest, GetInfoRequest, GetStateRequest, WalletState};
use tidegate_wire::lnd::verrpc::{Version, VersionRequest};
use tonic::transport::{ClientTlsConfig, Endpoint};

/// Oldest lnd that is supported.
///
/// # Source
/// Protocol notes, accounts §13.
const OLDEST: (u32, u32, u32) = (0, 18, 5);
/// Sub-servers that lnd must have been built with.
const SUB_SERVERS: [&str; 3] = ["chainrpc", "signrpc", "walletrpc"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is probed this often; lnd allows no less than 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How to reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LndConfig {
    /// `host:port` of lnd's gRPC interface (its `rpclisten`).
    pub address: String,
    /// lnd's `tls.cert`: the only certificate that is accepted.
    pub tls_cert_path: PathBuf,
    /// Macaroon with the permissions of [`permissions`].
    pub macaroon_path: PathBuf,
    /// The network that the node must be on, as lnd names it: `mainnet`, `testnet`, `testnet4`, `signet`, `regtest`.
    pub network: String,
}

/// What [`LndNode::look`] finds.
#[derive(Clone, Debug)]
pub struct Look {
    /// The node.
    pub info: NodeInfo,
    /// Time of its best header, Unix seconds.
    pub best_header_s: u64,
}

/// The node can not be used. Each says what, where, and what to do.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A file can not be read.
    #[error("cannot read the node's {what} {}: {source}; copy it from the node or correct the path", path.display())]
    File {
        /// `certificate` or `macaroon`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate file holds none.
    #[error("{} is not a certificate: {reason}; it must be lnd's tls.cert", path.display())]
    NotACertificate {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not `host:port`.
    #[error("'{address}' is not an address: {reason}; write host:port, e.g. 127.0.0.1:10009")]
    BadAddress {
        /// As configured.
        address: String,
        /// Why.
        reason: String,
    },
    /// No such network.
    #[error("'{name}' is no network; write mainnet, testnet, testnet4, signet or regtest")]
    UnknownNetwork {
        /// As configured.
        name: String,
    },
    /// Nobody answers there.
    #[error("cannot reach lnd at {address}: {reason}; is it running, and is this the address of its gRPC interface?")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// Somebody else, or lnd made a new certificate.
    #[error("the server at {address} shows another certificate than {}: copy lnd's tls.cert again if lnd renewed it", path.display())]
    WrongCertificate {
        /// Where.
        address: String,
        /// The pinned one.
        path: PathBuf,
    },
    /// No wallet yet.
    #[error("lnd at {address} has no wallet: make one with `lncli create`")]
    NoWallet {
        /// Where.
        address: String,
    },
    /// The wallet is locked.
    #[error("the wallet of lnd at {address} is locked: unlock it with `lncli unlock`")]
    Locked {
        /// Where.
        address: String,
    },
    /// lnd is starting.
    #[error("lnd at {address} is still starting ({state}): try again in a while")]
    Starting {
        /// Where.
        address: String,
        /// What it says.
        state: String,
    },
    /// The macaroon is of another node, or revoked, or restricted to another place or time.
    #[error("lnd at {address} does not accept the macaroon {}: {reason}; copy or bake it again", path.display())]
    BadMacaroon {
        /// Where.
        address: String,
        /// The macaroon.
        path: PathBuf,
        /// What lnd says.
        reason: String,
    },
    /// The macaroon does not allow all that we do.
    #[error("the macaroon {} does not allow {}; bake another with the command that `tidegate permissions --role {role}` prints", path.display(), missing.join(", "))]
    MissingPermissions {
        /// The macaroon.
        path: PathBuf,
        /// For whom, as the command line names it.
        role: &'static str,
        /// Methods that are not allowed.
        missing: Vec<&'static str>,
    },
    /// lnd is too old.
    #[error("lnd at {address} is version {found}, at least {}.{}.{} is needed: update it", OLDEST.0, OLDEST.1, OLDEST.2)]
    TooOld {
        /// Where.
        address: String,
        /// Its version.
        found: String,
    },
    /// lnd was built without a part that we need.
    #[error("lnd at {address} was built without {missing}: use a release binary or these build tags")]
    MissingSubServer {
        /// Where.
        address: String,
        /// Build tags.
        missing: String,
    },
    /// lnd follows another chain.
    #[error("lnd at {address} is on {found}, but {expected} is configured: correct the address or the network")]
    WrongNetwork {
        /// Where.
        address: String,
        /// As configured.
        expected: String,
        /// What lnd says.
        found: String,
    },
    /// lnd has not caught up with the chain.
    #[error(
        "lnd at {address} is not synced to the chain (at height {height}): wait until `lncli getinfo` says synced_to_chain"
    )]
    NotSynced {
        /// Where.
        address: String,
        /// Its best height.
        height: u32,
    },
    /// Another failure of a call.
    #[error(transparent)]
    Node(NodeError),
}

impl ConnectError {
    /// Whether trying again later may succeed without a change of the configuration.
    pub fn is_temporary(&self) -> bool {
        match self {
            ConnectError::Unreachable { .. }
            | ConnectError::Locked { .. }
            | ConnectError::Starting { .. }
            | ConnectError::NotSynced { .. } => true,
            ConnectError::Node(error) => is_temporary(error),
            ConnectError::File { .. }
            | ConnectError::NotACertificate { .. }
            | ConnectError::BadAddress { .. }
            | ConnectError::UnknownNetwork { .. }
            | ConnectError::WrongCertificate { .. }
            | ConnectError::NoWallet { .. }
            | ConnectError::BadMacaroon { .. }
            | ConnectError::MissingPermissions { .. }
            | ConnectError::TooOld { .. }
            | ConnectError::MissingSubServer { .. }
            | ConnectError::WrongNetwork { .. } => false,
        }
    }
}

impl LndNode {
    /// Makes the checks of [`LndNode::connect`] and nothing else: no task is started and nothing registered, so that it does
    /// not disturb an agent that works with the node.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn look(config: &LndConfig, role: Role) -> Result<Look, ConnectError> {
        let macaroon = read("macaroon", &config.macaroon_path)?;
        let link = open_link(config, &macaroon, role)?;
        let check = Check { config, link: &link };
        check.state().await?;
        check.permissions(&macaroon, role).await?;
        check.version().await?;
        let answer = link.ask(permissions::GET_INFO, link.lightning().get_info(GetInfoRequest {})).await;
        let answer = answer.map_err(|error| check.failed(error))?;
        let best_header_s = u64::try_from(answer.best_header_timestamp).unwrap_or(0);
        let info = super::data::read_info(answer).map_err(ConnectError::Node)?;
        check.info(&info)?;
        Ok(Look { info, best_header_s })
    }

    /// Connects and checks: certificate, wallet, macaroon, version, network, chain. Then starts the background tasks
    /// of the role; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`]; see [`ConnectError::is_temporary`] for what may be tried again.
    pub async fn connect(config: &LndConfig, role: Role) -> Result<LndNode, ConnectError> {
        let network = network_of(&config.network)?;
        let macaroon = read("macaroon", &config.macaroon_path)?;
        let link = open_link(config, &macaroon, role)?;
        let check = Check { config, link: &link };
        check.state().await?;
        check.permissions(&macaroon, role).await?;
        check.version().await?;
        let node = LndNode::start(link.clone(), network, role);
        let info = node.info().await.map_err(|error| check.failed(error))?;
        check.info(&info)?;
        Ok(node)
    }

    fn start(link: Link, network: Network, role: Role) -> LndNode {
        let background = Background::default();
        let chain = ChainHub::start(&link, &background);
        let channels = match role {
            Role::Trader => ChannelEvents::start(&link, &background),
            Role::Venue => ChannelEvents::idle(),
        };
        let sessions = Sessions::default();
        LndNode { inner: Arc::new(Inner { link, network, sessions, chain, channels, _background: background }) }
    }
}

/// The network of that name in lnd.
fn network_of(name: &str) -> Result<Network, ConnectError> {
    match name {
        "mainnet" => Ok(Network::Bitcoin),
        "testnet" => Ok(Network::Testnet),
        "testnet4" => Ok(Network::Testnet4),
        "signet" => Ok(Network::Signet),
        "regtest" => Ok(Network::Regtest),
        name => Err(ConnectError::UnknownNetwork { name: name.to_owned() }),
    }
}

fn read(what: &'static str, path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { what, path: path.clone(), source })
}

fn open_link(config: &LndConfig, macaroon: &[u8], role: Role) -> Result<Link, ConnectError> {
    let bad = |reason: String| ConnectError::BadAddress { address: config.address.clone(), reason };
    let pem = read("certificate", &config.tls_cert_path)?;
    let pinned = PinnedCertificate::from_pem(&pem)
        .map_err(|reason| ConnectError::NotACertificate { path: config.tls_cert_path.clone(), reason })?;
    let endpoint =
        Endpoint::from_shared(format!("https://{}", config.address)).map_err(|error| bad(error.to_string()))?;
    if endpoint.uri().port().is_none() || endpoint.uri().path().len() > 1 {
        return Err(bad("no port, or more than host and port".to_owned()));
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .http2_adaptive_window(true)
        .tls_config_with_verifier(ClientTlsConfig::new(), Arc::new(pinned))
        .map_err(|error| bad(error.to_string()))?;
    Ok(Link::new(endpoint.connect_lazy(), Gate::new(macaroon, role), &config.address))
}

/// The checks of one connection.
struct Check<'a> {
    config: &'a LndConfig,
    link: &'a Link,
}

impl Check<'_> {
    /// The error as a sentence for the operator.
    fn failed(&self, error: NodeError) -> ConnectError {
        let address = self.config.address.clone();
        match error {
            NodeError::Unreachable { reason, .. } if reason.contains(PIN_MISMATCH) => {
                ConnectError::WrongCertificate { address, path: self.config.tls_cert_path.clone() }
            }
            NodeError::Unreachable { reason, .. } => ConnectError::Unreachable { address, reason },
            NodeError::NotReady { reason } => ConnectError::Starting { address, state: reason },
            NodeError::Permission { reason, .. } => {
                ConnectError::BadMacaroon { address, path: self.config.macaroon_path.clone(), reason }
            }
            other => ConnectError::Node(other),
        }
    }

    fn info(&self, info: &NodeInfo) -> Result<(), ConnectError> {
        let address = self.config.address.clone();
        if info.network != self.config.network {
            let (expected, found) = (self.config.network.clone(), info.network.clone());
            return Err(ConnectError::WrongNetwork { address, expected, found });
        }
        if !info.synced {
            return Err(ConnectError::NotSynced { address, height: info.best_height.get() });
        }
        Ok(())
    }

    async fn state(&self) -> Result<(), ConnectError> {
        let mut client = self.link.state();
        let answer = self.link.ask(permissions::GET_STATE, client.get_state(GetStateRequest {})).await;
        let state = answer.map_err(|error| self.failed(error))?.state();
        let address = self.config.address.clone();
        match state {
            WalletState::ServerActive => Ok(()),
            WalletState::NonExisting => Err(ConnectError::NoWallet { address }),
            WalletState::Locked => Err(ConnectError::Locked { address }),
            WalletState::Unlocked | WalletState::RpcActive | WalletState::WaitingToStart => {
                Err(ConnectError::Starting { address, state: state.as_str_name().to_lowercase() })
            }
        }
    }

    async fn permissions(&self, macaroon: &[u8], role: Role) -> Result<(), ConnectError> {
        let mut client = self.link.lightning();
        let mut missing = Vec::new();
        for method in permissions::methods(role) {
            let request = CheckMacPermRequest {
                macaroon: macaroon.to_vec(),
                permissions: Vec::new(),
                full_method: method.to_owned(),
                check_default_perms_from_full_method: true,
            };
            let answer =
                self.link.ask(permissions::CHECK_PERMISSIONS, client.check_macaroon_permissions(request)).await;
            match answer {
                Ok(answer) if answer.valid => {}
                Ok(_) => missing.push(method),
                Err(error) if denies(&error) && method == permissions::CHECK_PERMISSIONS => {
                    // Without this one the others can not be asked for.
                    missing.push(method);
                    break;
                }
                Err(error) if denies(&error) => missing.push(method),
                Err(error) => return Err(self.failed(error)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let role = role.name();
        Err(ConnectError::MissingPermissions { path: self.config.macaroon_path.clone(), role, missing })
    }

    async fn version(&self) -> Result<(), ConnectError> {
        let mut client = self.link.versioner();
        let answer = self.link.ask(permissions::GET_VERSION, client.get_version(VersionRequest {})).await;
        let version = answer.map_err(|error| self.failed(error))?;
        let address = self.config.address.clone();
        if (version.app_major, version.app_minor, version.app_patch) < OLDEST {
            return Err(ConnectError::TooOld { address, found: version.version });
        }
        let missing = missing_sub_servers(&version);
        if missing.is_empty() { Ok(()) } else { Err(ConnectError::MissingSubServer { address, missing }) }
    }
}

fn missing_sub_servers(version: &Version) -> String {
    let absent = |tag: &&str| !version.build_tags.iter().any(|built| built == tag);
    SUB_SERVERS.into_iter().filter(absent).collect::<Vec<_>>().join(", ")
}

/// Whether the answer says that the macaroon is genuine but too narrow.
fn denies(error: &NodeError) -> bool {
    match error {
        NodeError::Permission { reason, .. } | NodeError::Refused { reason, .. } => {
            reason.contains("permission denied")
        }
        _ => false,
    }
}
