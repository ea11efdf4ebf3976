//! The deployed command line. It drives the deployed daemon and ours alike, so both are asked the same questions in
//! the same words.

use std::path::PathBuf;

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::go::Programs;
use crate::json;
use crate::process::{args, run_json};
use crate::trade::{AccountView, LeaseView, OrderTerms, Side};

/// Fee rate of everything that the harness asks for, satoshi per vbyte.
pub(crate) const FEE_SAT_PER_VBYTE: u64 = 2;

/// The command line, pointed at one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    program: PathBuf,
    /// Base folder: certificate and macaroon are in `regtest` below it.
    dir: PathBuf,
    rpc_port: u16,
}

/// Version of an account, as the protocol numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccountVersion {
    /// P2WSH.
    V0,
    /// P2TR, MuSig2 draft 0.4.0.
    V1,
    /// P2TR, MuSig2 1.0.0.
    V2,
}

impl AccountVersion {
    pub(crate) const ALL: [Self; 3] = [Self::V0, Self::V1, Self::V2];

    /// The command line counts from one; zero lets the daemon choose.
    fn arg(self) -> u64 {
        match self {
            Self::V0 => 1,
            Self::V1 => 2,
            Self::V2 => 3,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "ACCOUNT_VERSION_LEGACY" => Some(Self::V0),
            "ACCOUNT_VERSION_TAPROOT" => Some(Self::V1),
            "ACCOUNT_VERSION_TAPROOT_V2" => Some(Self::V2),
            _ => None,
        }
    }

    /// How the script of such an account's output begins: witness version and length.
    pub(crate) fn script_prefix(self) -> &'static str {
        match self {
            Self::V0 => "0020",
            Self::V1 | Self::V2 => "5120",
        }
    }

    /// Place in [`AccountVersion::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// An account as `accounts list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolAccount {
    pub(crate) trader_key: String,
    /// `txid:index`; zeros while there is no funding transaction.
    pub(crate) outpoint: String,
    pub(crate) value_sat: u64,
    pub(crate) available_sat: u64,
    pub(crate) expires_at: u64,
    /// For example `OPEN` or `PENDING_UPDATE`.
    pub(crate) state: String,
    pub(crate) latest_txid: String,
    pub(crate) version: AccountVersion,
}

/// An order in all its parts. Its price is in `terms`.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) side: Side,
    pub(crate) account: String,
    pub(crate) terms: OrderTerms,
    /// Smallest channel, satoshi.
    pub(crate) min_sat: u64,
    /// As the command line names it; nothing lets the peers decide.
    pub(crate) channel_type: Option<&'static str>,
    pub(crate) outbound: bool,
    /// Bids: the buyer's own balance in the channel.
    pub(crate) own_sat: u64,
    /// Bids want such a channel, asks sell no other.
    pub(crate) unannounced: bool,
    /// Bids want such a channel, asks sell no other.
    pub(crate) zero_conf: bool,
}

impl Order {
    /// An order with the command line's defaults that can only be filled as a whole.
    pub(crate) fn whole(side: Side, account: &str, terms: &OrderTerms) -> Self {
        Self {
            side,
            account: account.to_owned(),
            terms: *terms,
            min_sat: terms.amount_sat,
            channel_type: None,
            outbound: false,
            own_sat: 0,
            unannounced: false,
            zero_conf: false,
        }
    }

    fn args(&self) -> Vec<String> {
        let kind = match self.side {
            Side::Seller => "ask",
            Side::Buyer => "bid",
        };
        let mut all = args([
            "orders",
            "submit",
            kind,
            "--force",
            &format!("--acct_key={}", self.account),
            &format!("--amt={}", self.terms.amount_sat),
            &format!("--min_chan_amt={}", self.min_sat),
            &format!("--lease_duration_blocks={}", self.terms.blocks),
            &format!("--interest_rate_percent={}", self.terms.percent),
        ]);
        all.extend(self.channel_type.map(|channel| format!("--channel_type={channel}")));
        if self.outbound {
            all.push("--auction_type=outbound".into());
        }
        match self.side {
            Side::Seller => {
                // One: not such channels. Two: only such channels.
                let only = |wanted: bool| if wanted { 2 } else { 1 };
                all.push(format!("--announcement_constraints={}", only(self.unannounced)));
                all.push(format!("--confirmation_constraints={}", only(self.zero_conf)));
            }
            Side::Buyer => {
                all.extend((self.own_sat > 0).then(|| format!("--self_chan_balance={}", self.own_sat)));
                all.extend(self.unannounced.then(|| "--unannounced_channel".to_owned()));
                all.extend(self.zero_conf.then(|| "--zero_conf_channel".to_owned()));
            }
        }
        all
    }
}

/// A lease as `auction leases` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolLease {
    pub(crate) view: LeaseView,
    pub(crate) blocks: u64,
    pub(crate) order_nonce: String,
    pub(crate) matched_nonce: String,
    /// Identity of the other node.
    pub(crate) node: String,
    pub(crate) own_sat: u64,
}

/// A batch as the venue's snapshot tells it.
#[derive(Debug, Clone)]
pub(crate) struct BatchView {
    pub(crate) id: String,
    pub(crate) txid: String,
    pub(crate) fee_rate_sat_per_kw: u64,
    pub(crate) clearing_rate_ppb: u64,
}

impl Cli {
    /// The command line for the daemon at `rpc_port` whose base folder is `dir`.
    pub(crate) fn new(programs: &Programs, dir: PathBuf, rpc_port: u16) -> Self {
        Self { program: programs.pool.clone(), dir, rpc_port }
    }

    /// Opens an account and returns its trader key; the funding transaction is published when this returns.
    pub(crate) fn open_account(&self, amount_sat: u64, version: AccountVersion, blocks: u64) -> Outcome<String> {
        let opened = self.call(&[
            "accounts",
            "new",
            "--force",
            &format!("--sat_per_vbyte={FEE_SAT_PER_VBYTE}"),
            &format!("--version={}", version.arg()),
            &format!("--amt={amount_sat}"),
            &format!("--expiry_blocks={blocks}"),
        ])?;
        json::text(&opened, "/trader_key")
    }

    /// All accounts, closed ones too.
    pub(crate) fn accounts(&self) -> Outcome<Vec<PoolAccount>> {
        let answer = self.call(&["accounts", "list", "--show_archived"])?;
        json::list(&answer, "/accounts")?.iter().map(account).collect()
    }

    /// The account with this key.
    pub(crate) fn account(&self, trader_key: &str) -> Outcome<PoolAccount> {
        let mut all = self.accounts()?.into_iter();
        let found = all.find(|account| account.trader_key == trader_key);
        found.ok_or_else(|| Failure::new(format!("account {trader_key} is not listed")))
    }

    /// All accounts, in the words of the trade's own cases.
    pub(crate) fn account_views(&self) -> Outcome<Vec<AccountView>> {
        let views = self.accounts()?.into_iter().map(|account| AccountView {
            trader_key: account.trader_key,
            outpoint: account.outpoint,
            value_sat: account.value_sat,
            open: account.state == "OPEN",
        });
        Ok(views.collect())
    }

    /// Closes an account to the node's wallet; returns the transaction id.
    pub(crate) fn close_account(&self, trader_key: &str) -> Outcome<String> {
        let closed = self.call(&["accounts", "close", &key_arg(trader_key), &fee_arg()])?;
        json::text(&closed, "/close_txid")
    }

    /// Adds coins of the wallet to an account; returns the transaction id. Without a version the account is upgraded
    /// to the newest.
    pub(crate) fn deposit(
        &self,
        trader_key: &str,
        amount_sat: u64,
        version: Option<AccountVersion>,
        expiry: Option<u64>,
    ) -> Outcome<String> {
        let amount = format!("--amt={amount_sat}");
        let answer = self.modify("deposit", trader_key, &[amount], version, expiry)?;
        json::text(&answer, "/deposit_txid")
    }

    /// Sends coins of an account to an address; returns the transaction id.
    pub(crate) fn withdraw(
        &self,
        trader_key: &str,
        amount_sat: u64,
        address: &str,
        version: Option<AccountVersion>,
        expiry: Option<u64>,
    ) -> Outcome<String> {
        let own = [format!("--amt={amount_sat}"), format!("--addr={address}")];
        let answer = self.modify("withdraw", trader_key, &own, version, expiry)?;
        json::text(&answer, "/withdraw_txid")
    }

    /// Moves the expiry of an account to `blocks` from now; returns the transaction id.
    pub(crate) fn renew(&self, trader_key: &str, version: Option<AccountVersion>, blocks: u64) -> Outcome<String> {
        let answer = self.modify("renew", trader_key, &[], version, Some(blocks))?;
        json::text(&answer, "/renewal_txid")
    }

    /// Raises the fee of an account's pending transaction by a child.
    pub(crate) fn bump_fee(&self, trader_key: &str, sat_per_vbyte: u64) -> Outcome<()> {
        let fee = format!("--sat_per_vbyte={sat_per_vbyte}");
        self.call(&["accounts", "bumpfee", &key_arg(trader_key), &fee]).map(|_| ())
    }

    fn modify(
        &self,
        verb: &str,
        trader_key: &str,
        own: &[String],
        version: Option<AccountVersion>,
        expiry: Option<u64>,
    ) -> Outcome<Value> {
        let mut all = args(["accounts", verb, &key_arg(trader_key), &fee_arg()]);
        all.extend(own.iter().cloned());
        all.extend(version.map(|version| format!("--new_version={}", version.arg())));
        all.extend(expiry.map(|blocks| format!("--expiry_blocks={blocks}")));
        self.call_args(&all)
    }

    /// Submits an order; returns its nonce.
    pub(crate) fn submit(&self, order: &Order) -> Outcome<String> {
        let answer = self.call_args(&order.args())?;
        json::text(&answer, "/accepted_order_nonce")
            .map_err(|_| Failure::new(format!("{:?} order refused: {answer}", order.side)))
    }

    /// Takes an order back.
    pub(crate) fn cancel(&self, nonce: &str) -> Outcome<()> {
        self.call(&["orders", "cancel", &format!("--order_nonce={nonce}")]).map(|_| ())
    }

    /// Asks and bids as listed, archived ones too.
    pub(crate) fn orders(&self) -> Outcome<Value> {
        self.call(&["orders", "list", "--show_archived"])
    }

    /// State and open units of an order.
    pub(crate) fn order_state(&self, nonce: &str) -> Outcome<(String, u64)> {
        let orders = self.orders()?;
        for side in ["/asks", "/bids"] {
            for order in json::list(&orders, side)? {
                if json::text(order, "/details/order_nonce")? == nonce {
                    let units = json::number(order, "/details/units_unfulfilled")?;
                    return Ok((json::text(order, "/details/state")?, units));
                }
            }
        }
        Err(Failure::new(format!("order {nonce} is not in {orders}")))
    }

    /// Leases bought and sold, of one batch or of all.
    pub(crate) fn leases(&self, batch: Option<&str>) -> Outcome<Vec<PoolLease>> {
        let mut all = args(["auction", "leases"]);
        all.extend(batch.map(|id| format!("--batch_ids={id}")));
        json::list(&self.call_args(&all)?, "/leases")?.iter().map(lease).collect()
    }

    /// The leases in the words of the trade's own cases.
    pub(crate) fn lease_views(&self) -> Outcome<Vec<LeaseView>> {
        Ok(self.leases(None)?.into_iter().map(|lease| lease.view).collect())
    }

    /// What the venue publishes about its latest batch, as this client reads it. The answer is a bare list.
    pub(crate) fn latest_batch(&self, lease_blocks: u64) -> Outcome<BatchView> {
        let answer = self.call(&["auction", "snapshot"])?;
        let market = format!("/0/matched_markets/{lease_blocks}/clearing_price_rate");
        Ok(BatchView {
            id: json::text(&answer, "/0/batch_id")?,
            txid: json::text(&answer, "/0/batch_tx_id")?,
            fee_rate_sat_per_kw: json::number(&answer, "/0/batch_tx_fee_rate_sat_per_kw")?,
            clearing_rate_ppb: json::number(&answer, &market)?,
        })
    }

    /// One command.
    pub(crate) fn call(&self, call: &[&str]) -> Outcome<Value> {
        self.call_args(&call.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>())
    }

    fn call_args(&self, call: &[String]) -> Outcome<Value> {
        let mut all = args([
            "--network=regtest",
            &format!("--rpcserver=127.0.0.1:{}", self.rpc_port),
            &format!("--basedir={}", self.dir.display()),
        ]);
        all.extend(call.iter().cloned());
        run_json(&self.program, &all)
    }
}

fn key_arg(trader_key: &str) -> String {
    format!("--trader_key={trader_key}")
}

fn fee_arg() -> String {
    format!("--sat_per_vbyte={FEE_SAT_PER_VBYTE}")
}

fn account(listed: &Value) -> Outcome<PoolAccount> {
    let version = json::text(listed, "/version")?;
    Ok(PoolAccount {
        trader_key: json::text(listed, "/trader_key")?,
        outpoint: json::text(listed, "/outpoint")?,
        value_sat: json::number(listed, "/value")?,
        available_sat: json::number(listed, "/available_balance")?,
        expires_at: json::number(listed, "/expiration_height")?,
        state: json::text(listed, "/state")?,
        latest_txid: json::text(listed, "/latest_txid")?,
        version: AccountVersion::named(&version)
            .ok_or_else(|| Failure::fatal(format!("version '{version}' of {listed}")))?,
    })
}

fn lease(listed: &Value) -> Outcome<PoolLease> {
    let view = LeaseView {
        channel_point: json::text(listed, "/channel_point")?,
        amount_sat: json::number(listed, "/channel_amt_sat")?,
        premium_sat: json::number(listed, "/premium_sat")?,
        execution_fee_sat: json::number(listed, "/execution_fee_sat")?,
        clearing_rate_ppb: json::number(listed, "/clearing_rate_price")?,
        purchased: json::flag(listed, "/purchased")?,
    };
    Ok(PoolLease {
        view,
        blocks: json::number(listed, "/channel_duration_blocks")?,
        order_nonce: json::text(listed, "/order_nonce")?,
        matched_nonce: json::text(listed, "/matched_order_nonce")?,
        node: json::text(listed, "/channel_node_key")?,
        own_sat: json::number(listed, "/self_chan_balance")?,
    })
}
