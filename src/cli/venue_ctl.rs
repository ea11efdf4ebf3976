//! `tidegate venue-ctl`: what the operator of a venue asks of it while it runs.

use super::account::Yes;
use super::console::Console;
use super::exit::Failure;
use super::show;
use super::units;
use crate::config::VenueConfigFile;
use crate::venue::admin::{
    AdminClient, AdminError, BanRequest, BanTold, Bans, BumpRequest, Cleared, DepositRequest, DepositTold, Done,
    Offender, Payout, TOKEN_FILE, VenueTold, WithdrawRequest, paths,
};
use anyhow::Context as _;
use std::path::PathBuf;
use tidegate_protocol::units::{SatPerKw, Sats};

const EXAMPLES: &str = "\
Examples:
  tidegate venue-ctl --config venue.toml status
  tidegate venue-ctl --config venue.toml deposit 500k             from the node's wallet into the venue's own coin
  tidegate venue-ctl --config venue.toml withdraw bc1q... 200k    with the next batch, or an empty one
  tidegate venue-ctl --config venue.toml bump 12                  the next batch pays 12 sat/vB and lifts the ones before
  tidegate venue-ctl --config venue.toml ban --node 02ab... --blocks 144
  tidegate venue-ctl --config venue.toml clear                    try to clear the market now

The venue must run with a section [api] in its configuration; the token is read from its data_dir. A deposit also needs
a macaroon that lets the venue spend the wallet's coins (FundPsbt, FinalizePsbt, ReleaseOutput), which the usual one does not.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file of the venue (TOML).
    #[arg(long, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    yes: Yes,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The venue's own coin, deposits, wishes, orders, batches.
    Status,
    /// Pays coins of the node's wallet into the venue's own coin.
    Deposit {
        /// How much, e.g. 500k or 0.005btc.
        #[arg(value_parser = units::amount)]
        amount: Sats,
        /// Chain fee rate, e.g. 10 (sat per vbyte); without it, the estimated one.
        #[arg(long, value_parser = units::fee_rate)]
        fee_rate: Option<SatPerKw>,
    },
    /// Has the next batch pay an address from the venue's own coin; replaces an earlier withdrawal.
    Withdraw {
        /// Where to.
        address: String,
        /// How much, e.g. 200k.
        #[arg(value_parser = units::amount)]
        amount: Sats,
    },
    /// Sets the chain fee rate of the next batch, which is made for stuck ones even without a trade.
    Bump {
        /// The rate, e.g. 12 (sat per vbyte).
        #[arg(value_parser = units::fee_rate)]
        fee_rate: SatPerKw,
    },
    /// Takes back what was asked of the next batch: withdrawal and fee rate.
    Forget,
    /// Bans an account or a node.
    Ban {
        #[command(flatten)]
        who: Who,
        /// How long, in blocks from now.
        #[arg(long)]
        blocks: u32,
    },
    /// Ends a ban.
    Unban {
        #[command(flatten)]
        who: Who,
    },
    /// The bans in force.
    Bans,
    /// Tries to clear the market now, and waits for the outcome.
    Clear,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// Account key, 66 hexadecimal digits.
    #[arg(long)]
    account: Option<String>,
    /// Node key, 66 hexadecimal digits.
    #[arg(long)]
    node: Option<String>,
}

impl Who {
    fn words(&self) -> String {
        match (&self.account, &self.node) {
            (Some(account), _) => format!("account {account}"),
            (None, node) => format!("node {}", node.as_deref().unwrap_or_default()),
        }
    }
}

fn failed(error: AdminError) -> anyhow::Error {
    let text = error.to_string();
    let failure = match error {
        AdminError::Unreachable { .. } => Failure::Unreachable(text),
        AdminError::Refused { status: 503, .. } => Failure::Unreachable(text),
        AdminError::Refused { .. } => Failure::Refused(text),
        AdminError::Unknown { .. } => Failure::Unknown(text),
    };
    failure.into()
}

fn client(args: &Args) -> anyhow::Result<AdminClient> {
    let config = VenueConfigFile::load(&args.config)?;
    let Some(api) = &config.api else {
        let path = args.config.display();
        return Err(Failure::Usage(format!(
            "{path} has no section [api]: write [api] and admin_listen = \"127.0.0.1:12083\" there, and restart the venue"
        ))
        .into());
    };
    let path = config.data_dir.join(TOKEN_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        let path = path.display();
        format!(
            "can not read the token {path}: the venue makes it when it starts; run this as the user that it runs as"
        )
    })?;
    let token: Result<[u8; 32], _> = hex::FromHex::from_hex(text.trim());
    let token =
        token.map_err(|_| anyhow::anyhow!("{} is damaged: it must hold 64 hexadecimal digits", path.display()))?;
    Ok(AdminClient::new(api.admin_listen, token))
}

/// Asks, and says the answer.
///
/// # Errors
/// [`Failure`] by variant.
pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let client = client(&args)?;
    if let Some(quote) = quote(&args.verb) {
        console.confirm(&quote, args.yes.yes)?;
    }
    let json = args.json;
    let done = match args.verb {
        Verb::Status => {
            let told: VenueTold = client.get(paths::STATUS).await.map_err(failed)?;
            return console.answer(json, &told, status);
        }
        Verb::Bans => {
            let told: Bans = client.get(paths::BANS).await.map_err(failed)?;
            return console.answer(json, &told, bans);
        }
        Verb::Clear => {
            let told: Cleared = client.post(paths::CLEAR, &serde_json::json!({})).await.map_err(failed)?;
            return console.answer(json, &told, cleared);
        }
        Verb::Deposit { amount, fee_rate } => {
            let request = DepositRequest { value_sats: amount.get(), sat_per_kw: fee_rate.map(SatPerKw::get) };
            let told: DepositTold = client.post(paths::DEPOSIT, &request).await.map_err(failed)?;
            let text = |told: &DepositTold| format!("{} on its way: {}", show::sats(told.value_sats), told.outpoint);
            return console.answer(json, &told, text);
        }
        Verb::Withdraw { address, amount } => {
            let outputs = vec![Payout { address, value_sats: amount.get() }];
            client.post(paths::WITHDRAW, &WithdrawRequest { outputs }).await
        }
        Verb::Bump { fee_rate } => client.post(paths::BUMP, &BumpRequest { sat_per_kw: fee_rate.get() }).await,
        Verb::Forget => client.post(paths::FORGET, &serde_json::json!({})).await,
        Verb::Ban { who: Who { account, node }, blocks } => {
            client.post(paths::BAN, &BanRequest { account, node, blocks }).await
        }
        Verb::Unban { who: Who { account, node } } => client.post(paths::UNBAN, &Offender { account, node }).await,
    };
    let done: Done = done.map_err(failed)?;
    console.answer(json, &done, |done| done.done.clone())
}

/// What a verb costs or does to others, for those that ask before they act.
fn quote(verb: &Verb) -> Option<String> {
    match verb {
        Verb::Status | Verb::Bans | Verb::Clear | Verb::Forget | Verb::Unban { .. } => None,
        Verb::Deposit { amount, fee_rate } => Some(format!(
            "The node's wallet pays {} and a chain fee ({}) to the venue.",
            show::sats(amount.get()),
            fee_rate.map_or_else(|| "estimated".to_owned(), |rate| show::fee_rate(rate.get()))
        )),
        Verb::Withdraw { address, amount } => Some(format!(
            "The next batch pays {} to {address}; earlier withdrawals that were not paid yet are replaced.",
            show::sats(amount.get())
        )),
        Verb::Bump { fee_rate } => Some(format!(
            "The next batch pays {}; the venue bears what its traders do not.",
            show::fee_rate(fee_rate.get())
        )),
        Verb::Ban { who, blocks } => {
            Some(format!("Bans {} for {}: no new orders, no changes, no matches.", who.words(), show::blocks(*blocks)))
        }
    }
}

fn cleared(told: &Cleared) -> String {
    let cut = if told.cut { " (the book took too much work: the rest waits for the next attempt)" } else { "" };
    match &told.batch {
        Some(batch) => format!("{}: {batch}{cut}", told.reason),
        None => format!("no batch: {}{cut}", told.reason),
    }
}

fn status(told: &VenueTold) -> String {
    let deposits: Vec<String> =
        told.deposits.iter().map(|one| format!("{} {}", show::sats(one.value_sats), one.state)).collect();
    let wanted = told.withdrawals.iter().map(|one| format!("{} to {}", show::sats(one.value_sats), one.address));
    let wanted: Vec<String> = wanted.chain(told.wished_sat_per_kw.map(show::fee_rate)).collect();
    let or_nothing = |words: Vec<String>| if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    show::facts(
        &format!("Venue on {} at height {}", told.network, told.best_height),
        &[
            ("own coin", show::sats(told.coin_sats)),
            ("deposits", or_nothing(deposits)),
            ("asked of the next batch", or_nothing(wanted)),
            ("traders", show::grouped(told.traders)),
            ("orders", format!("{} asks, {} bids", show::grouped(told.open_asks), show::grouped(told.open_bids))),
            ("batches", format!("{}, {} unconfirmed", show::grouped(told.batches), told.unconfirmed_batches)),
            ("bans", show::grouped(told.bans)),
            ("last attempt to clear", told.last_tick.clone().unwrap_or_else(|| "none yet".to_owned())),
        ],
    )
}

fn bans(told: &Bans) -> String {
    let line = |ban: &BanTold| {
        let (kind, key) = match (&ban.account, &ban.node) {
            (Some(account), _) => ("account", account.as_str()),
            (None, node) => ("node", node.as_deref().unwrap_or_default()),
        };
        format!("{kind} {key}\n  until height {}, ban number {}", ban.until_height, ban.times)
    };
    let lines: Vec<String> = told.bans.iter().map(line).collect();
    if lines.is_empty() { "nobody is banned".to_owned() } else { lines.join("\n") }
}
