//! `tidegate account open`.

use super::{Changed, FeeArgs, Version, Yes, expiry, fees, sats};
use crate::cli::console::Console;
use crate::cli::link::{Agent, ask, change};
use crate::cli::shape;
use crate::cli::show;
use crate::cli::units;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};
use tidegate_wire::poolrpc as rpc;

const EXAMPLES: &str = "\
Examples:
  tidegate account open 5M                          5,000,000 sat for 30 days
  tidegate account open 0.05btc --expires 60d --conf-target 3
  tidegate account open 500k --fee-rate 2 --yes --json

An account is coins that you and the venue hold together, so that orders can settle at once. After its expiry your node
takes them back alone; before, `tidegate account close` does it with the venue.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What is paid in: 5000000, 5_000_000sat, 500k, 5M, 0.05btc.
    #[arg(value_parser = units::amount)]
    amount: Sats,
    /// When it expires, in blocks or days from now.
    #[arg(long, default_value = "30d", value_parser = units::duration, value_name = "DURATION")]
    expires: BlockCount,
    /// Script version [default: the newest that the node can sign for].
    #[arg(long)]
    script: Option<Version>,
    #[command(flatten)]
    fees: FeeArgs,
    #[command(flatten)]
    yes: Yes,
}

pub(super) async fn execute(
    args: Args,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let height = ask(agent.trader.get_info(rpc::GetInfoRequest {})).await?.current_block_height;
    let (rate, fee, how) = match args.fees.fee_rate {
        Some(rate) => {
            // One coin of the wallet pays, the rest comes back.
            let fee = fees::fee(rate, AccountVersion::V2, 0, 1, 2);
            (rate, fee, "with one coin of the wallet; each more adds to it")
        }
        None => {
            let quote = fees::quote(agent, args.amount.get(), args.fees.conf_target).await?;
            let fee = Sats::new(quote.miner_fee_total).unwrap_or(Sats::MAX);
            (SatPerKw::new(quote.miner_fee_rate_sat_per_kw), fee, "as the node's wallet would pay now")
        }
    };
    let total = args.amount.get().saturating_add(fee.get());
    let quote = show::facts(
        "Open an account",
        &[
            ("value", sats(args.amount)),
            ("expires in", expiry(args.expires)),
            ("chain fee", fees::told(fee, rate, args.amount.get())),
            ("", how.to_owned()),
            ("leaves the wallet", show::sats(total)),
        ],
    );
    console.confirm(&quote, args.yes.yes)?;
    let request = rpc::InitAccountRequest {
        account_value: args.amount.get(),
        initiator: "tidegate".to_owned(),
        version: args.script.map_or(0, Version::wire),
        account_expiry: Some(rpc::init_account_request::AccountExpiry::RelativeHeight(args.expires.get())),
        // The rate that was shown, not another estimate.
        fees: Some(rpc::init_account_request::Fees::FeeRateSatPerKw(rate.get())),
    };
    let opened = change("tidegate account list", agent.trader.init_account(request)).await?;
    let account = shape::Account::of(&opened, height);
    let txid = account.latest_txid.clone();
    console.answer(json, &Changed { account, txid }, |changed| {
        let account = &changed.account;
        format!(
            "account {} is opened with {}; it trades once this is confirmed:\n{}",
            show::short(&account.account),
            show::sats(account.value_sats),
            changed.txid.as_deref().unwrap_or("(not yet published)")
        )
    })
}
