//! A real Lightning node, driven through lncli.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::btcd::{Btcd, RPC_LOGIN};
use crate::failure::{Failure, Outcome};
use crate::go::Programs;
use crate::json;
use crate::process::{Daemon, Killer, Wait, args, free_port, run, run_json};

/// A running lnd on regtest.
pub(crate) struct Lnd {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    lncli: PathBuf,
    dir: PathBuf,
    rpc_port: u16,
    listen_port: u16,
    log: PathBuf,
    /// Behind a lock, so that a case can kill a node that all share; it must bring it back.
    daemon: Mutex<Daemon>,
}

/// What lnd does about its wallet when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wallet {
    /// Makes or opens it by itself.
    Opened,
    /// Waits for somebody to make or unlock it.
    LeftAlone,
}

impl Wallet {
    fn arg(self) -> Option<String> {
        (self == Self::Opened).then(|| "--noseedbackup".to_owned())
    }
}

/// A channel as its node lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    /// Funding output, `txid:index`.
    pub(crate) point: String,
    /// Identity key of the other node, hex.
    pub(crate) peer: String,
    pub(crate) capacity_sat: u64,
    /// This node opened the channel, so its coins are in it.
    pub(crate) initiator: bool,
    pub(crate) active: bool,
    /// For example `ANCHORS` or `SCRIPT_ENFORCED_LEASE`.
    pub(crate) commitment_type: String,
    pub(crate) local_sat: u64,
    pub(crate) remote_sat: u64,
    /// Fee of the present commitment transaction; the opener pays it.
    pub(crate) commit_fee_sat: u64,
    /// Not told to the rest of the network.
    pub(crate) private: bool,
    /// Used before its funding transaction confirms.
    pub(crate) zero_conf: bool,
    /// The opener can not close it together with the other side before: an absolute height, or blocks from its
    /// confirmation.
    pub(crate) thaw_height: u64,
}

impl Lnd {
    /// Starts a node; use [`Lnd::wait_rpc`] before talking to it.
    pub(crate) fn start(programs: &Programs, chain: &Btcd, name: &str, dir: &Path) -> Outcome<Self> {
        Self::start_with(programs, chain, name, dir, Wallet::Opened)
    }

    /// As [`Lnd::start`], with or without opening the wallet.
    pub(crate) fn start_with(
        programs: &Programs,
        chain: &Btcd,
        name: &str,
        dir: &Path,
        wallet: Wallet,
    ) -> Outcome<Self> {
        let (rpc_port, listen_port, rest_port) = (free_port()?, free_port()?, free_port()?);
        let args = args([
            &format!("--lnddir={}", dir.display()),
            &format!("--alias={name}"),
            "--bitcoin.regtest",
            "--bitcoin.node=btcd",
            &format!("--btcd.rpchost={}", chain.rpc_host()),
            &format!("--btcd.rpcuser={RPC_LOGIN}"),
            &format!("--btcd.rpcpass={RPC_LOGIN}"),
            &format!("--btcd.rpccert={}", chain.rpc_certificate().display()),
            &format!("--rpclisten=127.0.0.1:{rpc_port}"),
            &format!("--listen=127.0.0.1:{listen_port}"),
            &format!("--restlisten=127.0.0.1:{rest_port}"),
            // Without an advertised address an ask from this node is refused.
            &format!("--externalip=127.0.0.1:{listen_port}"),
            "--protocol.wumbo-channels",
            "--protocol.simple-taproot-chans",
            "--protocol.zero-conf",
            "--protocol.option-scid-alias",
            "--trickledelay=50",
            // The default of one makes a second lease between the same peers fail.
            "--maxpendingchannels=50",
        ]);
        let program = programs.lnd.clone();
        let daemon = spawn(name, &program, &args, wallet, dir)?;
        Ok(Self {
            name: name.to_owned(),
            program,
            args,
            lncli: programs.lncli.clone(),
            dir: dir.to_owned(),
            rpc_port,
            listen_port,
            log: daemon.log().to_owned(),
            daemon: Mutex::new(daemon),
        })
    }

    /// Ends the node without notice.
    pub(crate) fn kill(&self) -> Outcome<()> {
        self.daemon().kill()
    }

    /// Lets somebody else end the node without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        self.daemon().killer()
    }

    /// Starts the node again if it does not run, and waits until it has processed the chain up to `height`.
    pub(crate) fn heal(&self, height: u64) -> Outcome<()> {
        if self.daemon().check_running().is_err() {
            self.restart(Wallet::Opened)?;
            self.wait_state("SERVER_ACTIVE")?;
            self.wait_synced(height)?;
        }
        Ok(())
    }

    fn daemon(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the node again, at the same place.
    pub(crate) fn restart(&self, wallet: Wallet) -> Outcome<()> {
        let mut daemon = self.daemon();
        daemon.stop()?;
        *daemon = spawn(&self.name, &self.program, &self.args, wallet, &self.dir)?;
        Ok(())
    }

    /// Waits until the node says how far it is, e.g. `LOCKED` while its wallet is, or `SERVER_ACTIVE` in the end.
    pub(crate) fn wait_state(&self, expected: &str) -> Outcome<()> {
        Wait::new(format!("{} is {expected}", self.name)).log(&self.log).until(|| {
            self.daemon().check_running()?;
            match json::text(&self.call(&["state"])?, "/state")? {
                state if state == expected => Ok(()),
                state => Err(Failure::new(state)),
            }
        })
    }

    /// Waits until the node answers, at whatever height.
    pub(crate) fn wait_rpc(&self) -> Outcome<()> {
        Wait::new(format!("lnd {} answers", self.name))
            .log(&self.log)
            .until(|| {
                self.daemon().check_running()?;
                self.info()
            })
            .map(|_| ())
    }

    /// Waits until the node has processed the chain up to `height`.
    pub(crate) fn wait_synced(&self, height: u64) -> Outcome<()> {
        Wait::new(format!("lnd {} at height {height}", self.name)).log(&self.log).until(|| {
            let info = self.info()?;
            let at = json::number(&info, "/block_height")?;
            match at >= height && json::flag(&info, "/synced_to_chain")? {
                true => Ok(()),
                false => Err(Failure::new(format!("at height {at}"))),
            }
        })
    }

    /// Name in logs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `host:port` of the gRPC interface.
    pub(crate) fn rpc_host(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    /// The node's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("tls.cert")
    }

    /// The macaroon that allows everything.
    pub(crate) fn admin_macaroon(&self) -> PathBuf {
        self.dir.join("data/chain/bitcoin/regtest").join("admin.macaroon")
    }

    /// Makes a macaroon that allows exactly `permissions` (`entity:action` or `uri:/…`) and saves it.
    pub(crate) fn bake_macaroon(&self, permissions: &[String], save_to: &Path) -> Outcome<()> {
        let mut all = self.control_args();
        all.push("bakemacaroon".into());
        all.push(format!("--save_to={}", save_to.display()));
        all.extend(permissions.iter().cloned());
        run(&self.lncli, &all).map(|_| ())
    }

    /// `getinfo`.
    pub(crate) fn info(&self) -> Outcome<Value> {
        self.call(&["getinfo"])
    }

    /// The node's identity key, hex.
    pub(crate) fn identity(&self) -> Outcome<String> {
        json::text(&self.info()?, "/identity_pubkey")
    }

    /// A fresh taproot address of the wallet.
    pub(crate) fn new_address(&self) -> Outcome<String> {
        json::text(&self.call(&["newaddress", "p2tr"])?, "/address")
    }

    /// Sends coins of the wallet; returns the transaction id.
    pub(crate) fn send_coins(&self, address: &str, amount_sat: u64) -> Outcome<String> {
        let amount = format!("--amt={amount_sat}");
        let address = format!("--addr={address}");
        let sent = self.call(&["sendcoins", "--force", "--sat_per_vbyte=2", &address, &amount])?;
        json::text(&sent, "/txid")
    }

    /// Confirmed coins of the wallet, in satoshi.
    pub(crate) fn confirmed_balance(&self) -> Outcome<u64> {
        json::number(&self.call(&["walletbalance"])?, "/confirmed_balance")
    }

    /// Connects to another node; being connected already is fine.
    pub(crate) fn connect(&self, other: &Self) -> Outcome<()> {
        let uri = format!("{}@127.0.0.1:{}", other.identity()?, other.listen_port);
        match self.call(&["connect", &uri]) {
            Err(failure) if failure.to_string().contains("already connected") => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Opens an ordinary channel; returns the funding transaction's id.
    pub(crate) fn open_channel(&self, peer: &str, amount_sat: u64) -> Outcome<String> {
        let node = format!("--node_key={peer}");
        let amount = format!("--local_amt={amount_sat}");
        let opened = self.call(&["openchannel", "--sat_per_vbyte=2", &node, &amount])?;
        json::text(&opened, "/funding_txid")
    }

    /// Closes a channel together with the other side; returns the closing transaction's id.
    pub(crate) fn close_channel(&self, point: &str) -> Outcome<String> {
        let (txid, index) =
            point.split_once(':').ok_or_else(|| Failure::new(format!("'{point}' is not txid:index")))?;
        let closed = self.call(&["closechannel", "--sat_per_vbyte=2", txid, index])?;
        json::text(&closed, "/closing_txid")
    }

    /// Has the wallet lock coins for a payment that is never made, as another program may; the locked outputs.
    pub(crate) fn lock_coins(&self, address: &str, amount_sat: u64) -> Outcome<BTreeSet<String>> {
        let outputs = format!("--outputs={{\"{address}\": {amount_sat}}}");
        self.call(&["wallet", "psbt", "fund", &outputs, "--sat_per_vbyte=2"])?;
        self.locked_coins()
    }

    /// Outputs of the wallet that somebody has locked.
    pub(crate) fn locked_coins(&self) -> Outcome<BTreeSet<String>> {
        let answer = self.call(&["wallet", "listleases"])?;
        json::list(&answer, "")?.iter().map(|lease| json::text(lease, "/outpoint")).collect()
    }

    /// Gives locked outputs back.
    pub(crate) fn unlock_coins(&self, locked: &BTreeSet<String>) -> Outcome<()> {
        locked.iter().try_for_each(|outpoint| self.call(&["wallet", "releaseoutput", outpoint]).map(|_| ()))
    }

    /// Confirmed channels, active or not.
    pub(crate) fn channels(&self) -> Outcome<Vec<Channel>> {
        json::list(&self.call(&["listchannels"])?, "/channels")?
            .iter()
            .map(|channel| {
                Ok(Channel {
                    point: json::text(channel, "/channel_point")?,
                    peer: json::text(channel, "/remote_pubkey")?,
                    capacity_sat: json::number(channel, "/capacity")?,
                    initiator: json::flag(channel, "/initiator")?,
                    active: json::flag(channel, "/active")?,
                    commitment_type: json::text(channel, "/commitment_type")?,
                    local_sat: json::number(channel, "/local_balance")?,
                    remote_sat: json::number(channel, "/remote_balance")?,
                    commit_fee_sat: json::number(channel, "/commit_fee")?,
                    private: json::flag(channel, "/private")?,
                    zero_conf: json::flag(channel, "/zero_conf")?,
                    thaw_height: json::number(channel, "/thaw_height")?,
                })
            })
            .collect()
    }

    /// Funding outputs of the channels that wait for confirmations.
    pub(crate) fn pending_open(&self) -> Outcome<Vec<String>> {
        json::list(&self.call(&["pendingchannels"])?, "/pending_open_channels")?
            .iter()
            .map(|pending| json::text(pending, "/channel/channel_point"))
            .collect()
    }

    /// Outputs that the wallet is about to spend on its own, with the fee rate that was asked for, satoshi per vbyte.
    pub(crate) fn pending_sweeps(&self) -> Outcome<Vec<(String, u64)>> {
        json::list(&self.call(&["wallet", "pendingsweeps"])?, "/pending_sweeps")?
            .iter()
            .map(|sweep| Ok((json::text(sweep, "/outpoint")?, json::number(sweep, "/requested_sat_per_vbyte")?)))
            .collect()
    }

    /// Waits until the channel is active here.
    pub(crate) fn wait_active(&self, point: &str) -> Outcome<Channel> {
        Wait::new(format!("channel {point} active at {}", self.name)).log(&self.log).until(|| {
            let found = self.channels()?.into_iter().find(|one| one.point == point);
            match found {
                Some(channel) if channel.active => Ok(channel),
                Some(channel) => Err(Failure::new(format!("{channel:?}"))),
                None => Err(Failure::new("not listed")),
            }
        })
    }

    fn call(&self, call: &[&str]) -> Outcome<Value> {
        let mut all = self.control_args();
        all.extend(call.iter().map(|part| (*part).to_owned()));
        run_json(&self.lncli, &all)
    }

    fn control_args(&self) -> Vec<String> {
        args([
            &format!("--lnddir={}", self.dir.display()),
            "--network=regtest",
            &format!("--rpcserver={}", self.rpc_host()),
        ])
    }
}

fn spawn(name: &str, program: &Path, args: &[String], wallet: Wallet, dir: &Path) -> Outcome<Daemon> {
    let all: Vec<String> = args.iter().cloned().chain(wallet.arg()).collect();
    Daemon::spawn(name, program, &all, dir)
}
