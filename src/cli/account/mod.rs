//! `tidegate account`: open, list, deposit, withdraw, renew, bump, close.

mod change;
mod fees;
mod open;

use super::console::Console;
use super::exit::Failure;
use super::link::{Agent, Daemon, ask};
use super::shape::{self, hex_of};
use super::show::{self, Align};
use super::units;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};
use tidegate_wire::poolrpc as rpc;

/// Fewest digits by which an account or order may be named.
const MIN_DIGITS: usize = 4;

const EXAMPLES: &str = "\
Examples:
  tidegate account list                       every account that is not closed
  tidegate account open 5M --expires 60d      asks before it pays; --yes does not ask
  tidegate account deposit 500k               into the one account, or --account KEY";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Pays coins of the node's wallet into a new account.
    Open(open::Args),
    /// Lists accounts.
    List(ListArgs),
    /// Adds coins of the node's wallet to an account.
    Deposit(change::DepositArgs),
    /// Pays coins of an account to an address.
    Withdraw(change::WithdrawArgs),
    /// Moves the expiry of an account.
    Renew(change::RenewArgs),
    /// Raises the fee of an account's unconfirmed transaction.
    Bump(change::BumpArgs),
    /// Closes an account: all its coins go to the node's wallet, or to an address.
    Close(change::CloseArgs),
}

/// Script version of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    /// P2WSH, for old nodes.
    Legacy,
    /// Taproot with the older MuSig2.
    Taproot,
    /// Taproot with MuSig2 as standardised.
    Musig2,
}

impl Version {
    fn wire(self) -> i32 {
        match self {
            Version::Legacy => rpc::AccountVersion::Legacy.into(),
            Version::Taproot => rpc::AccountVersion::Taproot.into(),
            Version::Musig2 => rpc::AccountVersion::TaprootV2.into(),
        }
    }
}

/// What a transaction may cost.
#[derive(Clone, Copy, Debug, clap::Args)]
struct FeeArgs {
    /// Chain fee rate in sat per vbyte, e.g. 10 [default: an estimate for --conf-target].
    #[arg(long, value_parser = units::fee_rate, conflicts_with = "conf_target", value_name = "RATE")]
    fee_rate: Option<SatPerKw>,
    /// Blocks until it should confirm; the node estimates the fee rate.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1008), value_name = "BLOCKS")]
    conf_target: u32,
}

/// Agreed beforehand.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Yes {
    /// Does not ask before it acts; what it costs is shown all the same.
    #[arg(long, short, global = true)]
    pub(super) yes: bool,
}

/// Which account.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Which {
    /// The account's key, or the first digits of it [default: the only account there is].
    #[arg(long, value_parser = digits, value_name = "KEY")]
    pub(super) account: Option<String>,
}

/// The beginning of a name in hexadecimal.
pub(super) fn digits(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.len() < MIN_DIGITS || text.len() > 66 || !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(format!("write at least {MIN_DIGITS} hexadecimal digits of it, as the list shows them"));
    }
    Ok(text)
}

const LIST_EXAMPLES: &str = "\
Examples:
  tidegate account list
  tidegate account list --all --json | jq '.accounts[].account'";

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// Closed accounts too.
    #[arg(long)]
    all: bool,
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let Args { daemon, verb } = args;
    let mut agent = daemon.connect().await?;
    let json = daemon.json;
    match verb {
        Verb::Open(args) => open::execute(args, &mut agent, json, console).await,
        Verb::List(args) => list(&args, &mut agent, json, console).await,
        Verb::Deposit(args) => change::deposit(args, &mut agent, json, console).await,
        Verb::Withdraw(args) => change::withdraw(args, &mut agent, json, console).await,
        Verb::Renew(args) => change::renew(args, &mut agent, json, console).await,
        Verb::Bump(args) => change::bump(args, &mut agent, json, console).await,
        Verb::Close(args) => change::close(args, &mut agent, json, console).await,
    }
}

/// Accounts, and the height against which their expiry is told.
#[derive(Debug, Serialize)]
pub(super) struct List {
    block_height: u32,
    pub(super) accounts: Vec<shape::Account>,
}

async fn list(args: &ListArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let list = accounts(agent, !args.all).await?;
    console
        .answer(json, &list, |list| table(&list.accounts, "no account: open one with `tidegate account open AMOUNT`"))
}

/// The accounts as they are shown.
pub(super) async fn accounts(agent: &mut Agent, active_only: bool) -> Result<List, Failure> {
    let height = ask(agent.trader.get_info(rpc::GetInfoRequest {})).await?.current_block_height;
    let found = fetch(agent, active_only).await?;
    Ok(List { block_height: height, accounts: found.iter().map(|known| shape::Account::of(known, height)).collect() })
}

async fn fetch(agent: &mut Agent, active_only: bool) -> Result<Vec<rpc::Account>, Failure> {
    Ok(ask(agent.trader.list_accounts(rpc::ListAccountsRequest { active_only })).await?.accounts)
}

/// Accounts as a table.
pub(super) fn table(accounts: &[shape::Account], empty: &str) -> String {
    let columns = [
        ("account", Align::Left),
        ("state", Align::Left),
        ("value (sat)", Align::Right),
        ("free (sat)", Align::Right),
        ("expires in", Align::Left),
        ("version", Align::Left),
    ];
    let row = |account: &shape::Account| {
        vec![
            show::short(&account.account),
            account.state.clone(),
            show::grouped(account.value_sats),
            show::grouped(account.available_sats),
            account.blocks_left.map_or_else(|| format!("at {}", account.expiry_height), show::days),
            account.version.clone(),
        ]
    };
    show::table(&columns, accounts.iter().map(row).collect(), empty)
}

/// The account that is meant: by its key's first digits, or the only one that is not closed.
pub(super) async fn pick(agent: &mut Agent, which: &Which) -> Result<rpc::Account, Failure> {
    let mut found = fetch(agent, true).await?;
    if let Some(digits) = &which.account {
        found.retain(|account| hex_of(&account.trader_key).starts_with(digits.as_str()));
    }
    let all = found.iter().map(|account| show::short(&hex_of(&account.trader_key))).collect::<Vec<_>>().join(", ");
    match (found.len(), &which.account) {
        (1, _) => Ok(found.remove(0)),
        (0, None) => {
            let sentence = "there is no account yet: open one with `tidegate account open AMOUNT`";
            Err(Failure::Refused(sentence.to_owned()))
        }
        (0, Some(digits)) => {
            Err(Failure::Refused(format!("no open account begins with {digits}: `tidegate account list` shows them")))
        }
        (_, None) => Err(Failure::Usage(format!("which account? There are {all}: choose with --account"))),
        (_, Some(digits)) => Err(Failure::Usage(format!("{digits} could be {all}: write more digits"))),
    }
}

/// An account and the transaction that changes it.
#[derive(Debug, Serialize)]
struct Changed {
    account: shape::Account,
    txid: Option<String>,
}

fn expiry(blocks: BlockCount) -> String {
    show::blocks(blocks.get())
}

fn sats(amount: Sats) -> String {
    show::sats(amount.get())
}
