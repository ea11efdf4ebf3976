//! An independent auditor between the venue and its traders, whoever they are: every message of a case passes through
//! its proxy, every transaction of the case is told at the end, and nothing may be found.
//!
//! The secrets that accounts share with the auctioneer are asked of the traders' nodes, so that the auditor recomputes
//! every script.

use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, consensus};
use hex::FromHex as _;
use serde_json::Value;
use tidegate::node::{LndConfig, LndNode, Role};
use tidegate_auditor::proxy::{Proxy, SharedAuditor, Towards, Watcher, lock};
use tidegate_auditor::{Auditor, Counts};
use tidegate_ports::Signer as _;
use tidegate_protocol::keys::KeyLocator;
use tokio::runtime::Runtime;

use crate::failure::{Context as _, Failure, Outcome};
use crate::json;
use crate::lnd::Lnd;
use crate::regtest::Network;
use crate::trade::Side;

/// Key family of account keys.
const ACCOUNTS: u32 = 220;
/// Accounts that one node may have opened in all cases of a run.
const ACCOUNTS_PER_NODE: u32 = 256;

/// A message of the batch stream that a case may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Prepare,
    Accept,
    /// The venue wants signatures.
    SignBegin,
    /// A trader's signatures.
    Signatures,
    Finalize,
}

impl Said {
    /// By the number of the field that the message consists of.
    fn of(towards: Towards, message: &[u8]) -> Option<Self> {
        match (towards, message.first().map(|tag| tag >> 3)) {
            (Towards::Venue, Some(3)) => Some(Self::Accept),
            (Towards::Venue, Some(5)) => Some(Self::Signatures),
            (Towards::Trader, Some(4)) => Some(Self::Prepare),
            (Towards::Trader, Some(5)) => Some(Self::SignBegin),
            (Towards::Trader, Some(6)) => Some(Self::Finalize),
            _ => None,
        }
    }
}

/// What happens when the awaited message comes by. `false` loses the message.
type Action = Box<dyn FnMut() -> bool + Send>;

/// Springs once, at the message that it waits for, before that is passed on.
#[derive(Default)]
pub(crate) struct Trap {
    armed: Mutex<Option<(Side, Said, Action)>>,
}

impl Trap {
    /// Waits for a message on the stream of this side.
    pub(crate) fn arm(&self, side: Side, said: Said, action: impl FnMut() -> bool + Send + 'static) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some((side, said, Box::new(action)));
    }

    /// Whether it has sprung since it was armed.
    pub(crate) fn has_sprung(&self) -> bool {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn passes(&self, side: Side, towards: Towards, message: &[u8]) -> bool {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let said = Said::of(towards, message);
        match armed.take_if(|(at, expected, _)| *at == side && said == Some(*expected)) {
            Some((.., mut action)) => action(),
            None => true,
        }
    }
}

/// A recording proxy for each side in front of a venue, and their auditor.
pub(crate) struct Audit {
    auditor: SharedAuditor,
    /// Lets a case do something at a message.
    pub(crate) trap: Arc<Trap>,
    sellers: Proxy,
    buyers: Proxy,
    /// Last, so that it outlives what runs on it.
    _runtime: Runtime,
}

impl Audit {
    /// Stands between `venue` (`host:port`) and whoever comes.
    pub(crate) fn start(network: &Network, venue: &str) -> Outcome<Self> {
        let nodes: Vec<LndConfig> = [&network.alice, &network.bob].map(access).into();
        let secret = move |trader: &PublicKey, auctioneer: &PublicKey| {
            let (nodes, trader, auctioneer) = (nodes.clone(), *trader, *auctioneer);
            // A thread of its own: the proxy, on whose runtime this is asked, waits for the answer.
            let asked = std::thread::spawn(move || ask(&nodes, &trader, &auctioneer));
            asked.join().ok().flatten()
        };
        let auditor: SharedAuditor = Arc::new(Mutex::new(Auditor::with_secrets(Box::new(secret))));
        let runtime = Runtime::new().context(|| "start the auditor's runtime".to_owned())?;
        let trap = Arc::new(Trap::default());
        let proxy = |side| {
            let trap = Arc::clone(&trap);
            let watcher: Watcher = Arc::new(move |towards, message| trap.passes(side, towards, message));
            let started = runtime.block_on(Proxy::start_watched(venue, Arc::clone(&auditor), watcher));
            started.context(|| format!("start a proxy in front of {venue}"))
        };
        let (sellers, buyers) = (proxy(Side::Seller)?, proxy(Side::Buyer)?);
        Ok(Self { auditor, trap, sellers, buyers, _runtime: runtime })
    }

    /// `host:port` where traders of this side find the venue.
    pub(crate) fn address(&self, side: Side) -> String {
        match side {
            Side::Seller => self.sellers.address.to_string(),
            Side::Buyer => self.buyers.address.to_string(),
        }
    }

    /// Tells a transaction of the chain as btcd decoded it, parents first.
    pub(crate) fn transaction(&self, decoded: &Value) -> Outcome<()> {
        let bytes = Vec::from_hex(&json::text(decoded, "/hex")?).context(|| format!("read {decoded}"))?;
        let transaction: Transaction = consensus::deserialize(&bytes).context(|| format!("read {decoded}"))?;
        lock(&self.auditor).transaction(&transaction);
        Ok(())
    }

    /// What was seen; a failure if anything was found.
    pub(crate) fn finish(&self) -> Outcome<Counts> {
        let auditor = lock(&self.auditor);
        let findings: Vec<String> = auditor.findings().iter().map(ToString::to_string).collect();
        match findings.is_empty() {
            true => Ok(*auditor.counts()),
            false => Err(Failure::fatal(format!("the auditor found:\n{}", findings.join("\n")))),
        }
    }
}

fn access(lnd: &Lnd) -> LndConfig {
    LndConfig {
        address: lnd.rpc_host(),
        tls_cert_path: lnd.certificate(),
        macaroon_path: lnd.admin_macaroon(),
        network: "regtest".into(),
    }
}

/// Has the node that owns an account key compute the account's secret.
fn ask(nodes: &[LndConfig], trader: &PublicKey, auctioneer: &PublicKey) -> Option<[u8; 32]> {
    // Another case may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Runtime::new().ok()?.block_on(async {
        for config in nodes {
            // The role that answers no peers: a second channel acceptor would get in the trader's way.
            let node = LndNode::connect(config, Role::Venue).await.ok()?;
            for index in 0..ACCOUNTS_PER_NODE {
                let locator = KeyLocator { family: ACCOUNTS, index };
                if node.derive_key(locator).await.ok()?.point == *trader {
                    return node.shared_secret(auctioneer, locator).await.ok().map(|secret| *secret.as_bytes());
                }
            }
        }
        None
    })
}
