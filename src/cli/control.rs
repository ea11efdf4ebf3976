//! `tidegate stop`, `resume`, `decisions`, `limits` and `ledger`: whether the agent trades, why it did what it did, within
//! which limits, and its books.

use super::account::Yes;
use super::console::Console;
use super::exit::Failure;
use super::link::{Daemon, ask, change};
use super::shape::hex_of;
use super::show::{self, Align};
use serde::Serialize;
use tidegate_wire::tidegate::v1;

const WHO: &str = "tidegate";
const MS_PER_S: u64 = 1_000;

/// Whether the agent trades.
#[derive(Debug, Serialize)]
pub(super) struct Trading {
    stopped: bool,
    by: Option<String>,
    reason: Option<String>,
    since_ms: Option<u64>,
    halted: bool,
    dry_run: bool,
}

impl Trading {
    pub(super) fn of(trading: v1::Trading) -> Trading {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Trading {
            stopped: trading.stopped,
            by: said(trading.by),
            reason: said(trading.reason),
            since_ms: Some(trading.since_ms).filter(|ms| *ms > 0),
            halted: trading.halted,
            dry_run: trading.dry_run,
        }
    }

    /// In words.
    pub(super) fn sentence(&self) -> String {
        if self.halted {
            return "HALTED after a broken promise: find the cause in the log, then restart".to_owned();
        }
        let dry = if self.dry_run { " (dry run: nothing is placed)" } else { "" };
        if !self.stopped {
            return format!("on{dry}");
        }
        let by = self.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        let since = self.since_ms.map_or_else(String::new, |ms| format!(" since {}", show::time(ms / MS_PER_S)));
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("STOPPED{by}{since}{reason}{dry}")
    }
}

const STOP_EXAMPLES: &str = "\
Examples:
  tidegate stop --reason \"fees are mad\"       no new orders; the open ones are cancelled
  tidegate stop --yes                         the same from a script
  kill -USR1 PID                              the same without the API

It holds until `tidegate resume`, also over restarts. What was signed stays signed; accounts can still be changed and
closed by hand. The process goes on: to end it, send SIGTERM.";

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = STOP_EXAMPLES)]
pub(super) struct StopArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Why, in your words; kept in the journal.
    #[arg(long, default_value = "", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    yes: Yes,
}

fn reason(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= 200 && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("write one line of at most 200 characters".to_owned()) }
}

/// What `stop` answers.
#[derive(Debug, Serialize)]
struct Stopped {
    trading: Trading,
    cancelled: Vec<String>,
    still_open: Vec<StillOpen>,
}

#[derive(Debug, Serialize)]
struct StillOpen {
    nonce: String,
    reason: String,
}

pub(super) async fn stop(args: StopArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let quote = "Stop trading: no new orders from now on, and every open order is cancelled.";
    console.confirm(quote, args.yes.yes)?;
    let request = v1::StopRequest { reason: args.reason, initiator: WHO.to_owned() };
    let answer = change("tidegate status", agent.control.stop(request)).await?;
    let still_open = |order: v1::OpenOrder| StillOpen { nonce: hex_of(&order.order_nonce), reason: order.reason };
    let stopped = Stopped {
        trading: Trading::of(answer.trading.unwrap_or_default()),
        cancelled: answer.cancelled.iter().map(|nonce| hex_of(nonce)).collect(),
        still_open: answer.still_open.into_iter().map(still_open).collect(),
    };
    console.answer(args.daemon.json, &stopped, |stopped| {
        let mut text = format!("trading is {}", stopped.trading.sentence());
        for nonce in &stopped.cancelled {
            text.push_str(&format!("\norder {} is cancelled", show::short(nonce)));
        }
        for open in &stopped.still_open {
            text.push_str(&format!("\norder {} is still open: {}", show::short(&open.nonce), open.reason));
        }
        text
    })?;
    match stopped.still_open.len() {
        0 => Ok(()),
        open => {
            let sentence =
                format!("trading is stopped, but {open} orders could not be cancelled yet: the agent tries again");
            Err(Failure::Unknown(sentence).into())
        }
    }
}

const RESUME_EXAMPLES: &str = "\
Examples:
  tidegate resume                             undoes `tidegate stop`
  kill -USR2 PID                              the same without the API";

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLES)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn resume(args: ResumeArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let request = v1::ResumeRequest { initiator: WHO.to_owned() };
    let answer = change("tidegate status", agent.control.resume(request)).await?;
    let trading = Trading::of(answer.trading.unwrap_or_default());
    console.answer(args.daemon.json, &trading, |trading| format!("trading is {}", trading.sentence()))
}

const DECISIONS_EXAMPLES: &str = "\
Examples:
  tidegate decisions                          the last 10, with reasons and what the limits said
  tidegate decisions --count 1000 --json | jq '.decisions[] | select(.intents != [])'";

/// Arguments of `decisions`.
#[derive(Debug, clap::Args)]
#[command(after_help = DECISIONS_EXAMPLES)]
pub(super) struct DecisionsArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// How many.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Only entries with a lower number than this.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    before: u64,
}

/// Decisions, newest first.
#[derive(Debug, Serialize)]
struct Decisions {
    decisions: Vec<Decision>,
}

/// One entry of the journal.
#[derive(Debug, Serialize)]
struct Decision {
    number: u64,
    time_ms: u64,
    block_height: u32,
    strategy: Option<String>,
    reasons: Vec<String>,
    intents: Vec<Judged>,
}

#[derive(Debug, Serialize)]
struct Judged {
    intent: String,
    text: String,
    approved: bool,
    refusal: Option<String>,
}

impl Decision {
    fn of(decision: v1::Decision) -> Decision {
        let judged = |judged: v1::Judged| Judged {
            intent: judged.intent,
            text: judged.text,
            approved: judged.approved,
            refusal: Some(judged.refusal).filter(|refusal| !refusal.is_empty()),
        };
        Decision {
            number: decision.sequence,
            time_ms: decision.time_ms,
            block_height: decision.block_height,
            strategy: Some(decision.strategy).filter(|name| !name.is_empty()),
            reasons: decision.reasons,
            intents: decision.intents.into_iter().map(judged).collect(),
        }
    }

    fn text(&self) -> String {
        let strategy = self.strategy.as_deref().unwrap_or("asked by hand");
        let time = show::time(self.time_ms / MS_PER_S);
        let mut text = format!("#{} {time}, block {}, {strategy}", self.number, self.block_height);
        for reason in &self.reasons {
            text.push_str(&format!("\n  {reason}"));
        }
        for judged in &self.intents {
            let verdict = match &judged.refusal {
                _ if judged.approved => "approved".to_owned(),
                Some(refusal) => format!("refused: {refusal}"),
                None => "refused".to_owned(),
            };
            text.push_str(&format!("\n  -> {}: {verdict}", judged.text));
        }
        text
    }
}

pub(super) async fn decisions(args: DecisionsArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let request = v1::DecisionsRequest { count: args.count, before: args.before };
    let found = ask(agent.control.decisions(request)).await?.decisions;
    let decisions = Decisions { decisions: found.into_iter().map(Decision::of).collect() };
    console.answer(args.daemon.json, &decisions, |list| match list.decisions.as_slice() {
        [] => "the journal is empty".to_owned(),
        all => all.iter().map(Decision::text).collect::<Vec<_>>().join("\n\n"),
    })
}

const LIMITS_EXAMPLES: &str = "\
Examples:
  tidegate limits                             the limits in force, and what is used of them

Limits stand in [limits] of the agent's configuration; they hold for the strategy and for what is typed.";

/// Arguments of `limits`.
#[derive(Debug, clap::Args)]
#[command(after_help = LIMITS_EXAMPLES)]
pub(super) struct LimitsArgs {
    #[command(flatten)]
    daemon: Daemon,
}

/// The limits and their use.
#[derive(Debug, Serialize)]
struct Limits {
    dry_run: bool,
    max_order_sats: u64,
    max_leased_sats: u64,
    max_daily_cost_sats: u64,
    ask_rate_min_ppb: u32,
    bid_rate_max_ppb: u32,
    rate_max_ppb: u32,
    max_account_sats: u64,
    max_accounts_total_sats: u64,
    accounts_total_sats: u64,
    wallet_reserve_sats: u64,
    max_batch_fee_rate_sat_per_kw: u64,
    max_open_orders: u32,
    open_orders: u32,
    max_terms_age_s: u64,
}

pub(super) async fn limits(args: LimitsArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let found = ask(agent.control.limits(v1::LimitsRequest {})).await?;
    let limits = Limits {
        dry_run: found.dry_run,
        max_order_sats: found.max_order_sats,
        max_leased_sats: found.max_leased_sats,
        max_daily_cost_sats: found.max_daily_cost_sats,
        ask_rate_min_ppb: found.ask_rate_min_ppb,
        bid_rate_max_ppb: found.bid_rate_max_ppb,
        rate_max_ppb: found.rate_max_ppb,
        max_account_sats: found.max_account_sats,
        max_accounts_total_sats: found.max_accounts_total_sats,
        accounts_total_sats: found.accounts_total_sats,
        wallet_reserve_sats: found.wallet_reserve_sats,
        max_batch_fee_rate_sat_per_kw: found.max_batch_fee_rate_sat_per_kw,
        max_open_orders: found.max_open_orders,
        open_orders: found.open_orders,
        max_terms_age_s: found.max_terms_age_s,
    };
    console.answer(args.daemon.json, &limits, limits_text)
}

fn limits_text(limits: &Limits) -> String {
    let used = |used: u64, most: u64| format!("{} of {}", show::grouped(used), show::sats(most));
    let ppb = |rate: u32| format!("{} ppb", show::grouped(rate.into()));
    let title = if limits.dry_run { "Limits (dry run: nothing is placed)" } else { "Limits" };
    show::facts(
        title,
        &[
            ("one order", show::sats(limits.max_order_sats)),
            ("leased out", show::sats(limits.max_leased_sats)),
            ("cost in 24 hours", show::sats(limits.max_daily_cost_sats)),
            ("asks at least", ppb(limits.ask_rate_min_ppb)),
            ("bids at most", ppb(limits.bid_rate_max_ppb)),
            ("any rate at most", ppb(limits.rate_max_ppb)),
            ("one account", show::sats(limits.max_account_sats)),
            ("all accounts", used(limits.accounts_total_sats, limits.max_accounts_total_sats)),
            ("stays in the wallet", show::sats(limits.wallet_reserve_sats)),
            ("chain fee rate", show::fee_rate(limits.max_batch_fee_rate_sat_per_kw)),
            ("open orders", format!("{} of {}", limits.open_orders, limits.max_open_orders)),
            ("terms at most", format!("{} s old", show::grouped(limits.max_terms_age_s))),
        ],
    )
}

const LEDGER_EXAMPLES: &str = "\
Examples:
  tidegate ledger                             balances, and whether they agree with the chain
  tidegate ledger --entries 20                the newest entries too
  tidegate ledger --entries 10000 --json > books.json";

/// Arguments of `ledger`.
#[derive(Debug, clap::Args)]
#[command(after_help = LEDGER_EXAMPLES)]
pub(super) struct LedgerArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// How many of the newest entries.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    entries: u32,
}

/// The books.
#[derive(Debug, Serialize)]
struct Ledger {
    agrees: bool,
    difference: Option<String>,
    balances: Vec<Balance>,
    /// Newest first.
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Balance {
    name: String,
    balance_sats: i64,
}

#[derive(Debug, Serialize)]
struct Entry {
    key: String,
    time_ms: u64,
    text: String,
    postings: Vec<Posting>,
}

#[derive(Debug, Serialize)]
struct Posting {
    name: String,
    amount_sats: i64,
}

impl Ledger {
    fn of(answer: v1::LedgerResponse) -> Ledger {
        let posting = |posting: v1::Posting| Posting { name: posting.account, amount_sats: posting.amount_sat };
        let entry = |entry: v1::LedgerEntry| Entry {
            key: entry.key,
            time_ms: entry.time_ms,
            text: entry.text,
            postings: entry.postings.into_iter().map(posting).collect(),
        };
        let balance = |account: v1::LedgerAccount| Balance { name: account.name, balance_sats: account.balance_sat };
        Ledger {
            agrees: answer.agrees,
            difference: Some(answer.difference).filter(|text| !text.is_empty()),
            balances: answer.accounts.into_iter().map(balance).collect(),
            entries: answer.entries.into_iter().map(entry).collect(),
        }
    }
}

pub(super) async fn ledger(args: LedgerArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let answer = ask(agent.control.ledger(v1::LedgerRequest { entries: args.entries })).await?;
    let ledger = Ledger::of(answer);
    console.answer(args.daemon.json, &ledger, ledger_text)?;
    if ledger.agrees {
        Ok(())
    } else {
        Err(Failure::Refused("the books do not agree with the chain".to_owned()).into())
    }
}

/// A name that fits a column: keys in it are cut.
fn cut(name: &str) -> String {
    match name.split_once(':') {
        Some((kind, key)) if key.chars().count() > 20 => format!("{kind}:{}...", show::short(key)),
        _ => name.to_owned(),
    }
}

fn ledger_text(ledger: &Ledger) -> String {
    let columns = [("book", Align::Left), ("balance (sat)", Align::Right)];
    let row = |balance: &Balance| vec![cut(&balance.name), show::signed(balance.balance_sats.into())];
    let mut text = show::table(&columns, ledger.balances.iter().map(row).collect(), "nothing is booked yet");
    text.push_str("\n\n");
    text.push_str(match (&ledger.difference, ledger.agrees) {
        (_, true) => "the books agree with the outputs on the chain",
        (Some(difference), false) => difference,
        (None, false) => "the books do NOT agree with the outputs on the chain",
    });
    for entry in &ledger.entries {
        text.push_str(&format!("\n\n{}  {}", show::time(entry.time_ms / MS_PER_S), entry.text));
        for posting in &entry.postings {
            text.push_str(&format!("\n  {:>16}  {}", show::signed(posting.amount_sats.into()), cut(&posting.name)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_it_trades_is_one_sentence() {
        let plain = v1::Trading::default();
        let stopped = v1::Trading {
            stopped: true,
            by: "anna".to_owned(),
            reason: "fees".to_owned(),
            since_ms: 1_767_225_600_000,
            ..plain.clone()
        };
        let rows = [
            (plain.clone(), "on"),
            (v1::Trading { dry_run: true, ..plain.clone() }, "on (dry run: nothing is placed)"),
            (stopped.clone(), "STOPPED by anna since 2026-01-01 00:00 UTC: fees"),
            (v1::Trading { stopped: true, ..plain }, "STOPPED"),
            (
                v1::Trading { halted: true, ..stopped },
                "HALTED after a broken promise: find the cause in the log, then restart",
            ),
        ];
        for (trading, sentence) in rows {
            assert_eq!(Trading::of(trading).sentence(), sentence);
        }
    }

    #[test]
    fn a_decision_says_why_and_what_the_limits_said() {
        let judged = |approved, refusal: &str| v1::Judged {
            intent: "ask".to_owned(),
            text: "ask 500,000 sat at 1,488 ppb".to_owned(),
            approved,
            refusal: refusal.to_owned(),
        };
        let decision = Decision::of(v1::Decision {
            sequence: 7,
            time_ms: 1_767_225_600_000,
            block_height: 100,
            strategy: "seller".to_owned(),
            reasons: vec!["capital is idle".to_owned()],
            intents: vec![judged(true, ""), judged(false, "too large")],
            json: String::new(),
        });
        let expected = "\
#7 2026-01-01 00:00 UTC, block 100, seller
  capital is idle
  -> ask 500,000 sat at 1,488 ppb: approved
  -> ask 500,000 sat at 1,488 ppb: refused: too large";
        assert_eq!(decision.text(), expected);
    }

    #[test]
    fn books_that_disagree_say_so() {
        let answer = v1::LedgerResponse {
            accounts: vec![v1::LedgerAccount { name: format!("account:{}", "02".repeat(33)), balance_sat: -5_000 }],
            difference: "account 02… has 7 sat less on the chain".to_owned(),
            ..Default::default()
        };
        let text = ledger_text(&Ledger::of(answer));
        assert!(text.contains("account:020202020202...") && text.contains("-5,000"), "{text}");
        assert!(text.contains("7 sat less"), "{text}");
    }
}
