//! The chain: one btcd on regtest, driven through btcctl.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Outcome};
use crate::go::Programs;
use crate::json;
use crate::money::sat_of_btc;
use crate::process::{Daemon, Wait, args, free_port, run_json};

/// Name and password of the chain's RPC; it listens on loopback and lives for one test run.
pub(crate) const RPC_LOGIN: &str = "interop";

/// A running btcd.
pub(crate) struct Btcd {
    program: PathBuf,
    btcctl: PathBuf,
    dir: PathBuf,
    rpc_port: u16,
    listen_port: u16,
    daemon: Daemon,
}

impl Btcd {
    /// Starts btcd without blocks and waits until it answers.
    pub(crate) fn start(programs: &Programs, dir: &Path) -> Outcome<Self> {
        fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))?;
        // Without a named file btcd looks for one in the home folder.
        let config = dir.join("empty.conf");
        fs::write(&config, "").context(|| format!("write {}", config.display()))?;
        let (rpc_port, listen_port) = (free_port()?, free_port()?);
        let daemon = spawn(&programs.btcd, dir, rpc_port, listen_port, None)?;
        let mut btcd = Self {
            program: programs.btcd.clone(),
            btcctl: programs.btcctl.clone(),
            dir: dir.to_owned(),
            rpc_port,
            listen_port,
            daemon,
        };
        btcd.wait_ready()?;
        Ok(btcd)
    }

    /// Restarts with an address that mined coins go to. Waits for the end first: a start beside a dying btcd loses
    /// the blocks.
    pub(crate) fn restart_mining_to(&mut self, address: &str) -> Outcome<()> {
        self.daemon.stop()?;
        self.daemon = spawn(&self.program, &self.dir, self.rpc_port, self.listen_port, Some(address))?;
        self.wait_ready()
    }

    /// `host:port` of the RPC, for the nodes.
    pub(crate) fn rpc_host(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    /// The RPC's certificate, for the nodes.
    pub(crate) fn rpc_certificate(&self) -> PathBuf {
        self.dir.join("rpc.cert")
    }

    /// Height of the best block.
    pub(crate) fn height(&self) -> Outcome<u64> {
        json::number(&self.call(&["getblockcount"])?, "")
    }

    /// Mines `count` blocks with what is in the mempool and returns the new height. The nodes may lag behind.
    pub(crate) fn generate(&self, count: u64) -> Outcome<u64> {
        self.call(&["generate", &count.to_string()])?;
        self.height()
    }

    /// Transactions that wait for a block, in a fixed order.
    pub(crate) fn mempool(&self) -> Outcome<BTreeSet<String>> {
        let answer = self.call(&["getrawmempool"])?;
        Ok(json::list(&answer, "")?.iter().filter_map(|txid| txid.as_str().map(str::to_owned)).collect())
    }

    /// Takes the best block back.
    pub(crate) fn invalidate_best(&self) -> Outcome<()> {
        let best = self.call(&["getbestblockhash"])?;
        let best = best.as_str().ok_or_else(|| Failure::new(format!("no block hash: {best}")))?;
        self.call(&["invalidateblock", best]).map(|_| ())
    }

    /// A transaction of the chain or the mempool, decoded.
    pub(crate) fn transaction(&self, txid: &str) -> Outcome<Value> {
        self.call(&["getrawtransaction", txid, "1"])
    }

    /// Waits until the chain's mempool, or the chain, has the transaction.
    pub(crate) fn wait_for_transaction(&self, txid: &str) -> Outcome<Value> {
        Wait::new(format!("transaction {txid} at btcd")).log(self.daemon.log()).until(|| self.transaction(txid))
    }

    /// The unspent output at `txid:index`; a failure if it does not exist or is spent.
    pub(crate) fn unspent(&self, outpoint: &str) -> Outcome<Unspent> {
        let (txid, index) =
            outpoint.split_once(':').ok_or_else(|| Failure::new(format!("'{outpoint}' is not txid:index")))?;
        let answer = self.call(&["gettxout", txid, index, "true"])?;
        let btc = answer
            .get("value")
            .and_then(Value::as_f64)
            .ok_or_else(|| Failure::new(format!("{outpoint} is spent or unknown at btcd: {answer}")))?;
        Ok(Unspent {
            value_sat: sat_of_btc(btc),
            script_hex: json::text(&answer, "/scriptPubKey/hex")?,
            confirmations: json::number(&answer, "/confirmations")?,
        })
    }

    fn call(&self, call: &[&str]) -> Outcome<Value> {
        let mut all = self.control_args();
        all.extend(call.iter().map(|part| (*part).to_owned()));
        run_json(&self.btcctl, &all)
    }

    fn control_args(&self) -> Vec<String> {
        let mut all = args([
            "--regtest",
            &format!("--configfile={}", self.dir.join("empty.conf").display()),
            &format!("--rpcserver={}", self.rpc_host()),
            &format!("--rpccert={}", self.rpc_certificate().display()),
        ]);
        all.extend(login_args());
        all
    }

    fn wait_ready(&mut self) -> Outcome<()> {
        let log = self.daemon.log().to_owned();
        Wait::new("btcd answers")
            .limit(Duration::from_secs(60))
            .log(&log)
            .until(|| {
                self.daemon.check_running()?;
                self.height()
            })
            .map(|_| ())
    }
}

/// An unspent output.
#[derive(Debug, Clone)]
pub(crate) struct Unspent {
    pub(crate) value_sat: u64,
    pub(crate) script_hex: String,
    pub(crate) confirmations: u64,
}

/// Value in satoshi and script of each output of a decoded transaction.
pub(crate) fn outputs(transaction: &Value) -> Outcome<Vec<(u64, String)>> {
    json::list(transaction, "/vout")?
        .iter()
        .map(|output| {
            let btc = output
                .get("value")
                .and_then(Value::as_f64)
                .ok_or_else(|| Failure::new(format!("output without value in {transaction}")))?;
            Ok((sat_of_btc(btc), json::text(output, "/scriptPubKey/hex")?))
        })
        .collect()
}

/// The outpoints that a decoded transaction spends, as `txid:index`.
pub(crate) fn spent(transaction: &Value) -> Outcome<Vec<String>> {
    json::list(transaction, "/vin")?
        .iter()
        .map(|input| {
            let txid = json::text(input, "/txid")?;
            Ok(format!("{txid}:{}", json::number(input, "/vout")?))
        })
        .collect()
}

fn login_args() -> Vec<String> {
    args([&format!("--rpcuser={RPC_LOGIN}"), &format!("--rpcpass={RPC_LOGIN}")])
}

fn spawn(program: &Path, dir: &Path, rpc_port: u16, listen_port: u16, mine_to: Option<&str>) -> Outcome<Daemon> {
    let mut all = args([
        "--regtest",
        "--txindex",
        &format!("--configfile={}", dir.join("empty.conf").display()),
        &format!("--datadir={}", dir.join("data").display()),
        &format!("--logdir={}", dir.join("logs").display()),
        &format!("--rpclisten=127.0.0.1:{rpc_port}"),
        &format!("--listen=127.0.0.1:{listen_port}"),
        &format!("--rpccert={}", dir.join("rpc.cert").display()),
        &format!("--rpckey={}", dir.join("rpc.key").display()),
    ]);
    all.extend(login_args());
    all.extend(mine_to.map(|address| format!("--miningaddr={address}")));
    Daemon::spawn("btcd", program, &all, dir)
}
