//! The network that all cases share: btcd, a node for the venue, and two funded nodes for traders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::btcd::Btcd;
use crate::failure::{Context, Failure, Outcome};
use crate::go::{self, Programs};
use crate::lnd::Lnd;
use crate::process::{Stages, Wait, report};

/// Below about height 432 segwit and taproot are not active on btcd's regtest; coinbases mature after 100 more.
const FIRST_BLOCKS: u64 = 560;
/// Until the next block after the catch-up an lnd wallet answers "insufficient funds".
const BLOCKS_AFTER_CATCH_UP: u64 = 2;
/// Coins of each trader, in several outputs so that unconfirmed change never stands in the way.
const COINS_PER_TRADER: u64 = 6;
const COIN_SAT: u64 = 200_000_000;

/// Chain and nodes.
pub(crate) struct Network {
    pub(crate) programs: Programs,
    pub(crate) chain: Btcd,
    /// Wallet and notifier of the venue.
    pub(crate) venue: Lnd,
    /// Node of the selling side.
    pub(crate) alice: Lnd,
    /// Node of the buying side.
    pub(crate) bob: Lnd,
    dir: PathBuf,
}

impl Network {
    fn start(programs: Programs, dir: &Path) -> Outcome<Self> {
        let mut stages = Stages::new("network");
        let mut chain = Btcd::start(&programs, &dir.join("btcd"))?;
        stages.done("btcd answers");
        let node = |name: &str| Lnd::start(&programs, &chain, name, &dir.join(name));
        let (venue, alice, bob) = (node("venue")?, node("alice")?, node("bob")?);
        for lnd in [&venue, &alice, &bob] {
            lnd.wait_rpc()?;
        }
        stages.done("three lnds answer at height 0");
        chain.restart_mining_to(&venue.new_address()?)?;
        let network = Self { programs, chain, venue, alice, bob, dir: dir.to_owned() };
        network.mine(FIRST_BLOCKS)?;
        network.mine(BLOCKS_AFTER_CATCH_UP)?;
        stages.done("562 blocks mined and seen by all nodes");
        network.fund_traders()?;
        network.alice.connect(&network.bob)?;
        stages.done("traders funded and connected");
        Ok(network)
    }

    /// Mines `count` blocks and waits until every node has processed them; returns the height.
    pub(crate) fn mine(&self, count: u64) -> Outcome<u64> {
        let height = self.chain.generate(count)?;
        for lnd in [&self.venue, &self.alice, &self.bob] {
            lnd.wait_synced(height)?;
        }
        Ok(height)
    }

    /// Waits for the transaction, then buries it under `count` blocks.
    pub(crate) fn confirm(&self, txid: &str, count: u64) -> Outcome<u64> {
        self.chain.wait_for_transaction(txid)?;
        self.mine(count)
    }

    /// Brings back what a failed case left dead.
    pub(crate) fn heal(&self) -> Outcome<()> {
        let height = self.chain.height()?;
        [&self.venue, &self.alice, &self.bob].into_iter().try_for_each(|lnd| lnd.heal(height))?;
        self.alice.connect(&self.bob)
    }

    /// A fresh folder for one case.
    pub(crate) fn folder(&self, case: &str) -> Outcome<PathBuf> {
        let folder = self.dir.join(case);
        fs::create_dir_all(&folder).context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    fn fund_traders(&self) -> Outcome<()> {
        let mut last = String::new();
        for _ in 0..COINS_PER_TRADER {
            for trader in [&self.alice, &self.bob] {
                last = self.venue.send_coins(&trader.new_address()?, COIN_SAT)?;
            }
        }
        self.confirm(&last, 1)?;
        for trader in [&self.alice, &self.bob] {
            Wait::new(format!("coins of {}", trader.name())).until(|| match trader.confirmed_balance()? {
                balance if balance >= COINS_PER_TRADER * COIN_SAT => Ok(()),
                balance => Err(Failure::new(format!("{balance} sat"))),
            })?;
        }
        Ok(())
    }
}

/// The shared network, for one case at a time: cases mine blocks, which others would see. It is started by the first
/// case that asks; `None` where the programs cannot be had (see [`go::programs`]).
///
/// It is never dropped. Its daemons end with the test process, and the next run removes its folder.
pub(crate) fn network() -> Outcome<Option<MutexGuard<'static, Network>>> {
    static NETWORK: OnceLock<Result<Option<Mutex<Network>>, String>> = OnceLock::new();
    let started = NETWORK.get_or_init(|| {
        let start = || -> Outcome<Option<Mutex<Network>>> {
            let Some(programs) = go::programs()? else {
                return Ok(None);
            };
            Network::start(programs, &run_folder()?).map(|network| Some(Mutex::new(network)))
        };
        start().map_err(|failure| failure.to_string())
    });
    match started {
        Ok(None) => Ok(None),
        // A case that failed leaves the network usable: each has its own venue, traders and accounts.
        Ok(Some(shared)) => Ok(Some(shared.lock().unwrap_or_else(PoisonError::into_inner))),
        Err(text) => Err(Failure::new(format!("the shared network did not start: {text}"))),
    }
}

/// A folder for this run, named by process id. Folders of runs that have ended are removed, so that the logs of the
/// last run can be read until the next.
fn run_folder() -> Outcome<PathBuf> {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-runs");
    fs::create_dir_all(&all).context(|| format!("create {}", all.display()))?;
    let own = std::process::id().to_string();
    let processes = Path::new("/proc");
    for entry in fs::read_dir(&all).context(|| format!("list {}", all.display()))? {
        let name = entry.context(|| format!("list {}", all.display()))?.file_name();
        let ended = processes.is_dir() && !processes.join(&name).exists();
        // A folder with our own number is left from a process that had it before.
        if ended || name.to_str() == Some(&own) {
            let path = all.join(&name);
            fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
        }
    }
    let folder = all.join(own);
    report(&format!("logs and data in {}", folder.display()));
    Ok(folder)
}
