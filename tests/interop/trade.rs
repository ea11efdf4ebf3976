//! One lease, from two fresh accounts to an active channel, whoever plays the seller and the buyer.
//!
//! Every amount is seen three times: in the trader's own report, on the chain, and computed here from the batch's
//! published price and fee rate.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::audit::Audit;
use crate::btcd::{outputs, spent};
use crate::failure::{Failure, Outcome};
use crate::lnd::{Channel, Lnd};
use crate::money::{Settlement, rate_of_percent};
use crate::ours::{Agent, AgentSetup, Venue};
use crate::pool::{AccountVersion, BatchView, Order};
use crate::poold::Poold;
use crate::process::{Stages, Wait};
use crate::regtest::Network;

/// Value of an account of the deployed client, and the limit of an agent's.
pub(crate) const ACCOUNT_SAT: u64 = 20_000_000;
/// Large enough that premiums within the two limits cover fixed fees at this chain's fee estimates.
pub(crate) const LEASE_SAT: u64 = 10_000_000;
pub(crate) const LEASE_BLOCKS: u64 = 2_016;
/// Blocks until an account expires that no case wants to see expire.
pub(crate) const ACCOUNT_BLOCKS: u64 = 8_064;
/// Over the whole lease: what the seller wants at least, and the buyer pays at most.
pub(crate) const ASK_PERCENT: f64 = 0.2;
pub(crate) const BID_PERCENT: f64 = 0.6;
/// Enough for accounts and channels of this size, and short enough for the batch's height check.
pub(crate) const CONFIRMATIONS: u64 = 6;
/// A native taproot output: version 1, 32 bytes.
const P2TR_PREFIX: &str = "5120";

/// Who plays a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// The deployed client.
    Poold,
    /// `tidegate run`.
    Agent,
}

/// Which side of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Seller,
    Buyer,
}

/// An order for one whole channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderTerms {
    pub(crate) amount_sat: u64,
    pub(crate) blocks: u64,
    /// Total price in percent over the whole lease.
    pub(crate) percent: f64,
}

impl OrderTerms {
    /// What each side of every case wants.
    pub(crate) fn of(side: Side) -> Self {
        Self {
            amount_sat: LEASE_SAT,
            blocks: LEASE_BLOCKS,
            percent: match side {
                Side::Seller => ASK_PERCENT,
                Side::Buyer => BID_PERCENT,
            },
        }
    }

    /// The same price as a rate, parts per billion and block.
    pub(crate) fn rate_ppb(&self) -> u64 {
        rate_of_percent(self.percent, self.blocks)
    }
}

/// An account as a trader reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountView {
    pub(crate) trader_key: String,
    /// `txid:index`.
    pub(crate) outpoint: String,
    pub(crate) value_sat: u64,
    pub(crate) open: bool,
}

/// A lease as a trader reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseView {
    pub(crate) channel_point: String,
    pub(crate) amount_sat: u64,
    pub(crate) premium_sat: u64,
    pub(crate) execution_fee_sat: u64,
    pub(crate) clearing_rate_ppb: u64,
    pub(crate) purchased: bool,
}

/// A side of the trade and the program that plays it.
struct Trader {
    side: Side,
    terms: OrderTerms,
    program: Running,
}

enum Running {
    Poold(Poold),
    Agent(Agent),
}

impl Trader {
    fn start(network: &Network, venue: &str, side: Side, program: Program, folder: &Path) -> Outcome<Self> {
        let (lnd, dir) = match side {
            Side::Seller => (&network.alice, folder.join("seller")),
            Side::Buyer => (&network.bob, folder.join("buyer")),
        };
        let terms = OrderTerms::of(side);
        let program = match program {
            Program::Poold => {
                let mut poold = Poold::start(&network.programs, lnd, venue, &dir)?;
                poold.wait_ready()?;
                Running::Poold(poold)
            }
            Program::Agent => Running::Agent(Agent::start(
                &AgentSetup { lnd, venue, side, account_sat: ACCOUNT_SAT, terms: &terms },
                &dir,
            )?),
        };
        Ok(Self { side, terms, program })
    }

    fn log(&self) -> &Path {
        match &self.program {
            Running::Poold(poold) => poold.log(),
            Running::Agent(agent) => agent.log(),
        }
    }

    /// Opens the account (an agent does so by itself) and returns it with the outpoint that funds it.
    fn open_account(&self) -> Outcome<AccountView> {
        if let Running::Poold(poold) = &self.program {
            poold.cli.open_account(ACCOUNT_SAT, AccountVersion::V2, ACCOUNT_BLOCKS)?;
        }
        Wait::new(format!("{:?} has published its account", self.side)).log(self.log()).until(|| {
            let account = self.account()?;
            // The deployed client shows zeros until the funding transaction exists, an agent nothing.
            match account.outpoint.is_empty() || account.outpoint.starts_with(&"0".repeat(64)) {
                true => Err(Failure::new(format!("not funded yet: {account:?}"))),
                false => Ok(account),
            }
        })
    }

    /// Waits until the account is open.
    fn wait_open(&self) -> Outcome<AccountView> {
        Wait::new(format!("account of the {:?} open", self.side)).log(self.log()).until(|| {
            let account = self.account()?;
            match account.open {
                true => Ok(account),
                false => Err(Failure::new(format!("{account:?}"))),
            }
        })
    }

    /// The one account of this trader.
    fn account(&self) -> Outcome<AccountView> {
        let mut accounts = match &self.program {
            Running::Poold(poold) => poold.cli.account_views()?,
            Running::Agent(agent) => agent.accounts()?,
        };
        match (accounts.pop(), accounts.pop()) {
            (Some(account), None) => Ok(account),
            (one, two) => Err(Failure::new(format!("expected one account: {one:?}, {two:?}"))),
        }
    }

    /// Places the order; an agent does so by itself.
    fn place_order(&self, account: &AccountView) -> Outcome<()> {
        match &self.program {
            Running::Poold(poold) => {
                poold.cli.submit(&Order::whole(self.side, &account.trader_key, &self.terms)).map(|_| ())
            }
            Running::Agent(_) => Ok(()),
        }
    }

    /// Waits for the one lease in this trader's report.
    fn lease(&self) -> Outcome<LeaseView> {
        Wait::new(format!("lease in the report of the {:?}", self.side)).log(self.log()).until(|| {
            let mut leases = match &self.program {
                Running::Poold(poold) => poold.cli.lease_views()?,
                Running::Agent(agent) => agent.leases()?,
            };
            match (leases.pop(), leases.pop()) {
                (Some(lease), None) => Ok(lease),
                (one, two) => Err(Failure::new(format!("{one:?}, {two:?}"))),
            }
        })
    }
}

/// The whole story of one lease.
pub(crate) fn trade(
    network: &Network,
    folder: &Path,
    stages: &mut Stages,
    seller: Program,
    buyer: Program,
) -> Outcome<()> {
    let venue = Venue::start(&network.venue, &folder.join("venue"))?;
    let audit = Audit::start(network, venue.address())?;
    let start = |side, program| Trader::start(network, &audit.address(side), side, program, folder);
    let traders = [start(Side::Seller, seller)?, start(Side::Buyer, buyer)?];
    stages.done("venue and traders started");

    let before = known_channels(&network.alice)?;
    let funded = open_accounts(network, &traders)?;
    stages.done("accounts open");
    for (trader, account) in traders.iter().zip(&funded) {
        trader.place_order(account)?;
    }
    let logs = [venue.log(), traders[0].log(), traders[1].log()];
    let nodes = [&network.alice, &network.bob];
    let point = wait_new_channel(network, nodes, &before, &logs)?;
    stages.done("batch executed, channel pending at both nodes");

    network.confirm(txid_of(&point)?, CONFIRMATIONS)?;
    let channel = check_channel(network, &point)?;
    stages.done(&format!("channel active ({})", channel.commitment_type));

    let batch = published_batch(network, &venue, &traders, folder)?;
    assert_eq!(batch.txid, txid_of(&point)?, "snapshot of another batch");
    let settlement = check_price(&traders, &batch, &point)?;
    check_balances(network, &traders, &funded, &batch, &settlement)?;
    stages.done("balances agree to the satoshi");
    let closings = close_deployed_accounts(network, &traders)?;
    stages.done("accounts of the deployed client closed");
    for account in &funded {
        audit.transaction(&network.chain.transaction(txid_of(&account.outpoint)?)?)?;
    }
    audit.transaction(&network.chain.transaction(&batch.txid)?)?;
    closings.iter().try_for_each(|closing| audit.transaction(closing))?;
    check_audit(&audit, closings.len())?;
    stages.done("an independent auditor has seen everything and found nothing");
    Ok(())
}

/// Opens both accounts, checks them while they are still unconfirmed, and confirms them with the same blocks. (An
/// agent trades as soon as its account is open; a look at it after these blocks might come too late.)
fn open_accounts(network: &Network, traders: &[Trader; 2]) -> Outcome<Vec<AccountView>> {
    let mut funded = Vec::new();
    for trader in traders {
        let account = trader.open_account()?;
        network.chain.wait_for_transaction(txid_of(&account.outpoint)?)?;
        // The deployed client was told the value, an agent chooses its own within its limit.
        let expected_sat = match trader.program {
            Running::Poold(_) => ACCOUNT_SAT,
            Running::Agent(_) => account.value_sat.min(ACCOUNT_SAT),
        };
        check_account(network, trader.side, &account, expected_sat)?;
        funded.push(account);
    }
    network.mine(CONFIRMATIONS)?;
    for (trader, account) in traders.iter().zip(&funded) {
        if let Running::Poold(_) = trader.program {
            assert_eq!(trader.wait_open()?.outpoint, account.outpoint);
        }
    }
    Ok(funded)
}

/// The batch spends both accounts and makes them anew, each with what it must have after this settlement.
fn check_balances(
    network: &Network,
    traders: &[Trader; 2],
    funded: &[AccountView],
    batch: &BatchView,
    settlement: &Settlement,
) -> Outcome<()> {
    let transaction = network.chain.transaction(&batch.txid)?;
    let (inputs, paid) = (spent(&transaction)?, outputs(&transaction)?);
    for (trader, before) in traders.iter().zip(funded) {
        assert!(inputs.contains(&before.outpoint), "spends {inputs:?}");
        let expected_sat = match trader.side {
            Side::Seller => settlement.seller_after(before.value_sat, LEASE_SAT),
            Side::Buyer => settlement.buyer_after(before.value_sat),
        };
        let account = trader.wait_open()?;
        assert_eq!(txid_of(&account.outpoint)?, batch.txid);
        assert!(
            paid.iter().any(|(value_sat, _)| *value_sat == expected_sat),
            "no output of {expected_sat} sat in {paid:?}"
        );
        check_account(network, trader.side, &account, expected_sat)?;
        check_metric(trader, expected_sat)?;
    }
    Ok(())
}

/// Report, chain and expectation agree on an account.
fn check_account(network: &Network, side: Side, account: &AccountView, expected_sat: u64) -> Outcome<()> {
    assert_eq!(account.value_sat, expected_sat, "report of the {side:?}");
    let output = network.chain.unspent(&account.outpoint)?;
    assert_eq!(output.value_sat, expected_sat, "chain, {side:?}");
    assert!(output.script_hex.starts_with(P2TR_PREFIX), "{output:?}");
    Ok(())
}

/// The metrics of an agent tell the same balance, and so does its ledger. A scrape may lag behind the status by a moment.
fn check_metric(trader: &Trader, expected_sat: u64) -> Outcome<()> {
    let Running::Agent(agent) = &trader.program else {
        return Ok(());
    };
    let what = format!("metrics of the {:?} say {expected_sat} sat", trader.side);
    Wait::new(what).log(agent.log()).until(|| {
        let (balance, ledger) = (agent.balance_metric_sat()?, agent.ledger_metric_sat()?);
        match (balance, ledger) == (expected_sat, expected_sat) {
            true => Ok(()),
            false => Err(Failure::new(format!("{balance} sat, {ledger} sat by its ledger"))),
        }
    })
}

/// The channel is active on both sides, the seller put the coins in, and the chain holds its capacity.
fn check_channel(network: &Network, point: &str) -> Outcome<Channel> {
    let (sold, bought) = (network.alice.wait_active(point)?, network.bob.wait_active(point)?);
    assert_eq!((sold.capacity_sat, bought.capacity_sat), (LEASE_SAT, LEASE_SAT));
    assert!(sold.initiator && !bought.initiator, "{sold:?} {bought:?}");
    assert_eq!(sold.peer, network.bob.identity()?);
    assert_eq!(bought.peer, network.alice.identity()?);
    assert_eq!(network.chain.unspent(point)?.value_sat, LEASE_SAT);
    Ok(sold)
}

/// The batch's price lies between the two limits, and both reports agree with what it must have cost.
fn check_price(traders: &[Trader; 2], batch: &BatchView, point: &str) -> Outcome<Settlement> {
    let rate_ppb = batch.clearing_rate_ppb;
    let [lowest_ppb, highest_ppb] = traders.each_ref().map(|one| one.terms.rate_ppb());
    assert!((lowest_ppb..=highest_ppb).contains(&rate_ppb), "{batch:?} is outside the limits");
    let settlement = Settlement::of(LEASE_SAT, LEASE_BLOCKS, rate_ppb, batch.fee_rate_sat_per_kw);
    for trader in traders {
        let expected = LeaseView {
            channel_point: point.to_owned(),
            amount_sat: LEASE_SAT,
            premium_sat: settlement.premium_sat,
            execution_fee_sat: settlement.execution_fee_sat,
            clearing_rate_ppb: rate_ppb,
            purchased: trader.side == Side::Buyer,
        };
        assert_eq!(trader.lease()?, expected, "report of the {:?}", trader.side);
    }
    Ok(settlement)
}

/// What the venue publishes about its batch, read by the deployed client: one of the traders, or else an observer
/// without account.
fn published_batch(network: &Network, venue: &Venue, traders: &[Trader; 2], folder: &Path) -> Outcome<BatchView> {
    for trader in traders {
        if let Running::Poold(poold) = &trader.program {
            return poold.cli.latest_batch(LEASE_BLOCKS);
        }
    }
    let mut observer = Poold::start(&network.programs, &network.venue, venue.address(), &folder.join("observer"))?;
    observer.wait_ready()?;
    observer.cli.latest_batch(LEASE_BLOCKS)
}

/// The venue lets the deployed client have its money back, and the chain sees it leave.
fn close_deployed_accounts(network: &Network, traders: &[Trader]) -> Outcome<Vec<Value>> {
    let mut closings = Vec::new();
    for trader in traders {
        let Running::Poold(poold) = &trader.program else {
            continue;
        };
        let account = trader.account()?;
        let txid = poold.cli.close_account(&account.trader_key)?;
        let closing = network.chain.wait_for_transaction(&txid)?;
        assert_eq!(spent(&closing)?, std::slice::from_ref(&account.outpoint));
        network.mine(CONFIRMATIONS)?;
        assert!(network.chain.unspent(&account.outpoint).is_err());
        closings.push(closing);
    }
    Ok(closings)
}

/// No findings; and what was seen is the whole case, so that this says something.
fn check_audit(audit: &Audit, closings: usize) -> Outcome<()> {
    let counts = audit.finish()?;
    let closings = u64::try_from(closings).expect("two at most");
    assert_eq!((counts.accounts, counts.secrets, counts.orders >= 2), (2, 2, true), "{counts:?}");
    // Two signatures for the batch of the chain, and two for each round that was repeated; each was valid.
    assert_eq!(counts.account_signatures, counts.account_signatures_verified, "{counts:?}");
    assert_eq!(counts.account_signatures, 2 + counts.repeated_rounds + counts.superseded, "{counts:?}");
    assert_eq!((counts.batches_conserved, counts.channels), (1, 1), "{counts:?}");
    assert_eq!((counts.modifications, counts.modifications_verified), (closings, closings), "{counts:?}");
    assert_eq!((counts.witnesses_verified, counts.witnesses_unjudged), (2 + closings, 0), "{counts:?}");
    Ok(())
}

/// All channels of a node, pending ones too.
pub(crate) fn known_channels(lnd: &Lnd) -> Outcome<BTreeSet<String>> {
    let mut known: BTreeSet<String> = lnd.pending_open()?.into_iter().collect();
    known.extend(lnd.channels()?.into_iter().map(|one| one.point));
    Ok(known)
}

/// Waits until both nodes have one and the same pending channel that was not there before.
pub(crate) fn wait_new_channel(
    network: &Network,
    [seller, buyer]: [&Lnd; 2],
    before: &BTreeSet<String>,
    logs: &[&Path],
) -> Outcome<String> {
    let fresh = |lnd: &Lnd| -> Outcome<BTreeSet<String>> {
        // A channel that needs no confirmation is not pending for long.
        Ok(known_channels(lnd)?.into_iter().filter(|point| !before.contains(point)).collect())
    };
    let wait = Wait::new("a new channel at both nodes, and its batch at btcd");
    logs.iter().fold(wait, |wait, log| wait.log(log)).limit(Duration::from_secs(120)).until(|| {
        let (sold, bought) = (fresh(seller)?, fresh(buyer)?);
        let mut common = sold.intersection(&bought);
        match (common.next(), common.next()) {
            // A batch may still be given up and made anew; only the published one counts.
            (Some(point), None) => network.chain.transaction(txid_of(point)?).map(|_| point.clone()),
            _ => Err(Failure::new(format!("seller {sold:?}, buyer {bought:?}"))),
        }
    })
}

pub(crate) fn txid_of(outpoint: &str) -> Outcome<&str> {
    match outpoint.split_once(':') {
        Some((txid, _)) => Ok(txid),
        None => Err(Failure::new(format!("'{outpoint}' is not txid:index"))),
    }
}
