//! `tidegate account deposit`, `withdraw`, `renew`, `bump` and `close`.

use super::{Changed, FeeArgs, Version, Which, Yes, expiry, fees, pick, sats};
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::link::{Agent, ask, change};
use crate::cli::shape::{self, hex_of, txid_of};
use crate::cli::show;
use crate::cli::units;
use serde::Serialize;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};
use tidegate_wire::poolrpc as rpc;

/// The command that shows what became of a change.
const LOOK: &str = "tidegate account list";

const DEPOSIT_EXAMPLES: &str = "\
Examples:
  tidegate account deposit 500k
  tidegate account deposit 1M --account 02ab34cd --expires 60d --fee-rate 5";

/// Arguments of `deposit`.
#[derive(Debug, clap::Args)]
#[command(after_help = DEPOSIT_EXAMPLES)]
pub(super) struct DepositArgs {
    /// What is added: 500000, 500k, 1M, 0.01btc.
    #[arg(value_parser = units::amount)]
    amount: Sats,
    #[command(flatten)]
    which: Which,
    /// A new expiry, in blocks or days from now [default: it stays].
    #[arg(long, value_parser = units::duration, value_name = "DURATION")]
    expires: Option<BlockCount>,
    /// A new script version [default: it stays].
    #[arg(long)]
    script: Option<Version>,
    #[command(flatten)]
    fees: FeeArgs,
    #[command(flatten)]
    yes: Yes,
}

const WITHDRAW_EXAMPLES: &str = "\
Examples:
  tidegate account withdraw 500k --to bc1q...
  tidegate account withdraw 0.01btc --to bc1p... --account 02ab34cd --fee-rate 5 --yes";

/// Arguments of `withdraw`.
#[derive(Debug, clap::Args)]
#[command(after_help = WITHDRAW_EXAMPLES)]
pub(super) struct WithdrawArgs {
    /// What the address gets: 500000, 500k, 1M, 0.01btc. The fee comes on top, from the account.
    #[arg(value_parser = units::amount)]
    amount: Sats,
    /// Where it goes: an address of the node's network.
    #[arg(long, value_parser = address)]
    to: String,
    #[command(flatten)]
    which: Which,
    /// A new expiry, in blocks or days from now [default: it stays].
    #[arg(long, value_parser = units::duration, value_name = "DURATION")]
    expires: Option<BlockCount>,
    /// A new script version [default: it stays].
    #[arg(long)]
    script: Option<Version>,
    #[command(flatten)]
    fees: FeeArgs,
    #[command(flatten)]
    yes: Yes,
}

const RENEW_EXAMPLES: &str = "\
Examples:
  tidegate account renew                             30 more days, counted from now
  tidegate account renew --expires 90d --fee-rate 2";

/// Arguments of `renew`.
#[derive(Debug, clap::Args)]
#[command(after_help = RENEW_EXAMPLES)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    which: Which,
    /// When it expires from now on, in blocks or days.
    #[arg(long, default_value = "30d", value_parser = units::duration, value_name = "DURATION")]
    expires: BlockCount,
    /// A new script version [default: it stays].
    #[arg(long)]
    script: Option<Version>,
    #[command(flatten)]
    fees: FeeArgs,
    #[command(flatten)]
    yes: Yes,
}

const BUMP_EXAMPLES: &str = "\
Examples:
  tidegate account bump --fee-rate 20                of the one account
  tidegate account bump --account 02ab34cd --fee-rate 50 --yes";

/// Arguments of `bump`.
#[derive(Debug, clap::Args)]
#[command(after_help = BUMP_EXAMPLES)]
pub(super) struct BumpArgs {
    #[command(flatten)]
    which: Which,
    /// The fee rate that the unconfirmed transaction is brought to, in sat per vbyte.
    #[arg(long, value_parser = units::fee_rate, value_name = "RATE")]
    fee_rate: SatPerKw,
    #[command(flatten)]
    yes: Yes,
}

const CLOSE_EXAMPLES: &str = "\
Examples:
  tidegate account close                             to the node's wallet
  tidegate account close --account 02ab34cd --to bc1q... --fee-rate 3

Orders of the account must be cancelled before: `tidegate order cancel --all`. Leased channels are not touched.";

/// Arguments of `close`.
#[derive(Debug, clap::Args)]
#[command(after_help = CLOSE_EXAMPLES)]
pub(super) struct CloseArgs {
    #[command(flatten)]
    which: Which,
    /// Where the coins go [default: a fresh address of the node's wallet].
    #[arg(long, value_parser = address)]
    to: Option<String>,
    #[command(flatten)]
    fees: FeeArgs,
    #[command(flatten)]
    yes: Yes,
}

/// Whatever could be an address; the agent knows its network.
fn address(text: &str) -> Result<String, String> {
    let plausible = (14..=100).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric());
    if plausible { Ok(text.to_owned()) } else { Err("this is no Bitcoin address".to_owned()) }
}

fn name(account: &rpc::Account) -> String {
    let key = hex_of(&account.trader_key);
    format!("{} with {}", show::short(&key), show::sats(account.value))
}

/// An account keeps its script version unless another is asked for: the wire's zero would upgrade it silently.
fn version(account: &rpc::Account, wanted: Option<Version>) -> i32 {
    wanted.map_or(account.version, Version::wire)
}

fn new_expiry(expires: Option<BlockCount>) -> String {
    expires.map_or_else(|| "stays".to_owned(), expiry)
}

fn finish(
    account: Option<rpc::Account>,
    txid: &[u8],
    what: &str,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let account = shape::Account::of(&account.unwrap_or_default(), 0);
    console.answer(json, &Changed { account, txid: txid_of(txid) }, |changed| {
        format!(
            "{what}: account {} holds {} once transaction\n{} is confirmed",
            show::short(&changed.account.account),
            show::sats(changed.account.value_sats),
            changed.txid.as_deref().unwrap_or("-")
        )
    })
}

pub(super) async fn deposit(
    args: DepositArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    use rpc::deposit_account_request::AccountExpiry;
    let account = pick(agent, &args.which).await?;
    let rate = fees::rate(agent, &args.fees).await?;
    let fee = fees::fee(rate, fees::version_of(&account), 1, 1, 2);
    let after = account.value.saturating_add(args.amount.get());
    let quote = show::facts(
        "Deposit into an account",
        &[
            ("account", name(&account)),
            ("amount", sats(args.amount)),
            ("expires in", new_expiry(args.expires)),
            ("chain fee", fees::told(fee, rate, args.amount.get())),
            ("", "with one coin of the wallet; each more adds to it".to_owned()),
            ("holds then", show::sats(after)),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let request = rpc::DepositAccountRequest {
        new_version: version(&account, args.script),
        trader_key: account.trader_key,
        amount_sat: args.amount.get(),
        fee_rate_sat_per_kw: rate.get(),
        account_expiry: args.expires.map(|blocks| AccountExpiry::RelativeExpiry(blocks.get())),
    };
    let answer = change(LOOK, agent.trader.deposit_account(request)).await?;
    finish(answer.account, &answer.deposit_txid, "deposited", json, console)
}

pub(super) async fn withdraw(
    args: WithdrawArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    use rpc::withdraw_account_request::AccountExpiry;
    let account = pick(agent, &args.which).await?;
    let rate = fees::rate(agent, &args.fees).await?;
    let fee = fees::fee(rate, fees::version_of(&account), 1, 0, 2);
    let taken = args.amount.get().saturating_add(fee.get());
    let quote = show::facts(
        "Withdraw from an account",
        &[
            ("account", name(&account)),
            ("amount", sats(args.amount)),
            ("to", args.to.clone()),
            ("expires in", new_expiry(args.expires)),
            ("chain fee at most", fees::told(fee, rate, args.amount.get())),
            ("holds then", show::sats(account.value.saturating_sub(taken))),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let request = rpc::WithdrawAccountRequest {
        new_version: version(&account, args.script),
        trader_key: account.trader_key,
        outputs: vec![rpc::Output { value_sat: args.amount.get(), address: args.to }],
        fee_rate_sat_per_kw: rate.get(),
        account_expiry: args.expires.map(|blocks| AccountExpiry::RelativeExpiry(blocks.get())),
    };
    let answer = change(LOOK, agent.trader.withdraw_account(request)).await?;
    finish(answer.account, &answer.withdraw_txid, "withdrawn", json, console)
}

pub(super) async fn renew(
    args: RenewArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    use rpc::renew_account_request::AccountExpiry;
    let account = pick(agent, &args.which).await?;
    let rate = fees::rate(agent, &args.fees).await?;
    let fee = fees::fee(rate, fees::version_of(&account), 1, 0, 1);
    let quote = show::facts(
        "Renew an account",
        &[
            ("account", name(&account)),
            ("expires in", expiry(args.expires)),
            ("chain fee at most", fees::told(fee, rate, account.value)),
            ("holds then", show::sats(account.value.saturating_sub(fee.get()))),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let request = rpc::RenewAccountRequest {
        new_version: version(&account, args.script),
        account_key: account.trader_key,
        account_expiry: Some(AccountExpiry::RelativeExpiry(args.expires.get())),
        fee_rate_sat_per_kw: rate.get(),
    };
    let answer = change(LOOK, agent.trader.renew_account(request)).await?;
    finish(answer.account, &answer.renewal_txid, "renewed", json, console)
}

/// What `bump` answers.
#[derive(Debug, Serialize)]
struct Bumped {
    account: String,
    fee_rate_sat_per_kw: u64,
}

pub(super) async fn bump(
    args: BumpArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let account = pick(agent, &args.which).await?;
    let quote = show::facts(
        "Raise the fee of an unconfirmed transaction",
        &[
            ("account", name(&account)),
            ("transaction", txid_of(&account.latest_txid).unwrap_or_else(|| "-".to_owned())),
            ("fee rate", show::fee_rate(args.fee_rate.get())),
            ("", "a coin of ours pays for both; the node's wallet bears it".to_owned()),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let (key, rate) = (hex_of(&account.trader_key), args.fee_rate.get());
    let request = rpc::BumpAccountFeeRequest { trader_key: account.trader_key, fee_rate_sat_per_kw: rate };
    change("lncli wallet pendingsweeps", agent.trader.bump_account_fee(request)).await?;
    console.answer(json, &Bumped { account: key, fee_rate_sat_per_kw: rate }, |bumped| {
        let (key, rate) = (show::short(&bumped.account), show::fee_rate(bumped.fee_rate_sat_per_kw));
        format!("the transaction of account {key} is brought to {rate}")
    })
}

/// What `close` answers.
#[derive(Debug, Serialize)]
struct Closed {
    account: String,
    txid: Option<String>,
}

pub(super) async fn close(
    args: CloseArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    use rpc::close_account_request::FundsDestination;
    let account = pick(agent, &args.which).await?;
    let orders = rpc::ListOrdersRequest { verbose: false, active_only: true };
    let orders = ask(agent.trader.list_orders(orders)).await?;
    let asks = orders.asks.iter().filter_map(|ask| ask.details.as_ref());
    let of_account = asks.chain(orders.bids.iter().filter_map(|bid| bid.details.as_ref()));
    let open = of_account.filter(|order| order.trader_key == account.trader_key).count();
    if open > 0 {
        let sentence = format!(
            "the account still backs {open} open orders: cancel them first, e.g. with `tidegate order cancel --all`"
        );
        return Err(Failure::Refused(sentence).into());
    }
    let rate = fees::rate(agent, &args.fees).await?;
    let fee = fees::fee(rate, fees::version_of(&account), 1, 0, 1);
    let quote = show::facts(
        "Close an account",
        &[
            ("account", name(&account)),
            ("to", args.to.clone().unwrap_or_else(|| "a fresh address of the node's wallet".to_owned())),
            ("chain fee at most", fees::told(fee, rate, account.value)),
            ("comes back at least", show::sats(account.value.saturating_sub(fee.get()))),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let output = rpc::OutputWithFee {
        address: args.to.unwrap_or_default(),
        fees: Some(rpc::output_with_fee::Fees::FeeRateSatPerKw(rate.get())),
    };
    let key = hex_of(&account.trader_key);
    let request = rpc::CloseAccountRequest {
        trader_key: account.trader_key,
        funds_destination: Some(FundsDestination::OutputWithFee(output)),
    };
    let answer = change(LOOK, agent.trader.close_account(request)).await?;
    console.answer(json, &Closed { account: key, txid: txid_of(&answer.close_txid) }, |closed| {
        let txid = closed.txid.as_deref().unwrap_or("-");
        format!("account {} is closed once transaction\n{txid} is confirmed", show::short(&closed.account))
    })
}
