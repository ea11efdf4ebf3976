//! The deployed client, driven through its own command line. It recomputes every script and balance, so it is the
//! judge of both our venue and, through the venue, of our trader.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::go::Programs;
use crate::json;
use crate::lnd::Lnd;
use crate::process::{Daemon, Wait, args, free_port, run_json};
use crate::trade::{AccountView, LeaseView, OrderTerms, Side};

/// The command line numbers account versions from one; 3 is what the protocol calls version 2 (taproot, MuSig2 1.0).
const ACCOUNT_VERSION_2: &str = "--version=3";
/// The same version as the command line prints it.
const VERSION_2_NAME: &str = "ACCOUNT_VERSION_TAPROOT_V2";

/// A poold that works for one node.
pub(crate) struct Poold {
    name: String,
    poold: PathBuf,
    pool: PathBuf,
    dir: PathBuf,
    daemon_args: Vec<String>,
    rpc_port: u16,
    daemon: Daemon,
}

impl Poold {
    /// Starts a client of the auctioneer at `auctioneer` (`host:port`, plaintext) with its data in `dir`. An existing
    /// folder is continued.
    pub(crate) fn start(programs: &Programs, lnd: &Lnd, auctioneer: &str, dir: &Path) -> Outcome<Self> {
        let (rpc_port, rest_port) = (free_port()?, free_port()?);
        let daemon_args = args([
            "--network=regtest",
            "--insecure",
            "--fakeauth",
            "--debuglevel=trace",
            &format!("--auctionserver={auctioneer}"),
            &format!("--basedir={}", dir.display()),
            &format!("--lnd.host={}", lnd.rpc_host()),
            &format!("--lnd.macaroonpath={}", lnd.admin_macaroon().display()),
            &format!("--lnd.tlspath={}", lnd.certificate().display()),
            &format!("--rpclisten=127.0.0.1:{rpc_port}"),
            &format!("--restlisten=127.0.0.1:{rest_port}"),
        ]);
        let name = format!("poold-{}", lnd.name());
        let daemon = Daemon::spawn(&name, &programs.poold, &daemon_args, dir)?;
        Ok(Self {
            name,
            poold: programs.poold.clone(),
            pool: programs.pool.clone(),
            dir: dir.to_owned(),
            daemon_args,
            rpc_port,
            daemon,
        })
    }

    /// Waits until the command line gets an answer.
    pub(crate) fn wait_ready(&mut self) -> Outcome<()> {
        let log = self.daemon.log().to_owned();
        Wait::new(format!("{} answers", self.name))
            .log(&log)
            .until(|| {
                self.daemon.check_running()?;
                self.call(&["getinfo"])
            })
            .map(|_| ())
    }

    /// Ends the daemon as a crash would and starts it again on the same data.
    pub(crate) fn crash_and_restart(&mut self) -> Outcome<()> {
        self.daemon.kill()?;
        self.daemon = Daemon::spawn(&self.name, &self.poold, &self.daemon_args, &self.dir)?;
        self.wait_ready()
    }

    /// Log of the daemon, for failures.
    pub(crate) fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Ends the daemon in good order.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        self.daemon.stop()
    }

    /// Opens an account and returns its trader key; the funding transaction is published when this returns.
    pub(crate) fn open_account(&self, amount_sat: u64) -> Outcome<String> {
        let amount = format!("--amt={amount_sat}");
        let opened = self.call(&["accounts", "new", "--force", "--sat_per_vbyte=2", ACCOUNT_VERSION_2, &amount])?;
        json::text(&opened, "/trader_key")
    }

    /// All accounts, closed ones too.
    pub(crate) fn accounts(&self) -> Outcome<Vec<AccountView>> {
        let answer = self.call(&["accounts", "list", "--show_archived"])?;
        json::list(&answer, "/accounts")?
            .iter()
            .map(|account| {
                if json::text(account, "/version")? != VERSION_2_NAME {
                    return Err(Failure::fatal(format!("not of version 2: {account}")));
                }
                Ok(AccountView {
                    trader_key: json::text(account, "/trader_key")?,
                    outpoint: json::text(account, "/outpoint")?,
                    value_sat: json::number(account, "/value")?,
                    open: json::text(account, "/state")? == "OPEN",
                })
            })
            .collect()
    }

    /// Closes an account to the node's wallet; returns the transaction id.
    pub(crate) fn close_account(&self, trader_key: &str) -> Outcome<String> {
        let key = format!("--trader_key={trader_key}");
        let closed = self.call(&["accounts", "close", "--sat_per_vbyte=2", &key])?;
        json::text(&closed, "/close_txid")
    }

    /// Submits an order that can only be filled as a whole; returns its nonce.
    pub(crate) fn submit(&self, side: Side, trader_key: &str, terms: &OrderTerms) -> Outcome<String> {
        let kind = match side {
            Side::Seller => "ask",
            Side::Buyer => "bid",
        };
        let answer = self.call(&[
            "orders",
            "submit",
            kind,
            "--force",
            &format!("--acct_key={trader_key}"),
            &format!("--amt={}", terms.amount_sat),
            &format!("--min_chan_amt={}", terms.amount_sat),
            &format!("--lease_duration_blocks={}", terms.blocks),
            &format!("--interest_rate_percent={}", terms.percent),
        ])?;
        json::text(&answer, "/accepted_order_nonce")
            .map_err(|_| Failure::new(format!("{} refuses the {kind}: {answer}", self.name)))
    }

    /// Asks and bids as listed, archived ones too.
    pub(crate) fn orders(&self) -> Outcome<Value> {
        self.call(&["orders", "list", "--show_archived"])
    }

    /// Leases bought and sold.
    pub(crate) fn leases(&self) -> Outcome<Vec<LeaseView>> {
        json::list(&self.call(&["auction", "leases"])?, "/leases")?
            .iter()
            .map(|lease| {
                Ok(LeaseView {
                    channel_point: json::text(lease, "/channel_point")?,
                    amount_sat: json::number(lease, "/channel_amt_sat")?,
                    premium_sat: json::number(lease, "/premium_sat")?,
                    execution_fee_sat: json::number(lease, "/execution_fee_sat")?,
                    clearing_rate_ppb: json::number(lease, "/clearing_rate_price")?,
                    purchased: json::flag(lease, "/purchased")?,
                })
            })
            .collect()
    }

    /// What the venue publishes about its latest batch, as this client reads it. The answer is a bare list.
    pub(crate) fn latest_batch(&self, lease_blocks: u64) -> Outcome<BatchView> {
        let answer = self.call(&["auction", "snapshot"])?;
        let market = format!("/0/matched_markets/{lease_blocks}/clearing_price_rate");
        Ok(BatchView {
            txid: json::text(&answer, "/0/batch_tx_id")?,
            fee_rate_sat_per_kw: json::number(&answer, "/0/batch_tx_fee_rate_sat_per_kw")?,
            clearing_rate_ppb: json::number(&answer, &market)?,
        })
    }

    fn call(&self, call: &[&str]) -> Outcome<Value> {
        let mut all = args([
            "--network=regtest",
            &format!("--rpcserver=127.0.0.1:{}", self.rpc_port),
            &format!("--basedir={}", self.dir.display()),
        ]);
        all.extend(call.iter().map(|part| (*part).to_owned()));
        run_json(&self.pool, &all)
    }
}

/// A batch as the venue's snapshot tells it.
#[derive(Debug, Clone)]
pub(crate) struct BatchView {
    pub(crate) txid: String,
    pub(crate) fee_rate_sat_per_kw: u64,
    pub(crate) clearing_rate_ppb: u64,
}
