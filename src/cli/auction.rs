//! `tidegate auction`: rates, snapshot, ratings, next. What the venue tells everybody.

use super::account::digits;
use super::console::Console;
use super::exit::Failure;
use super::link::{Agent, Daemon, ask};
use super::shape::hex_of;
use super::show::{self, Align};
use super::units::apr_micro;
use clap::Subcommand;
use hex::FromHex as _;
use serde::Serialize;
use std::collections::BTreeMap;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::RatePerBillion;
use tidegate_wire::poolrpc as rpc;

const NS_PER_S: u64 = 1_000_000_000;

const EXAMPLES: &str = "\
Examples:
  tidegate auction next                       the next batch, fees, and which markets are open
  tidegate auction rates --batches 20         clearing rates of the last batches, per duration";

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
    /// Clearing rates of the last batches.
    Rates(RatesArgs),
    /// One batch: its transaction, and the matches of each duration.
    Snapshot(SnapshotArgs),
    /// How the venue rates nodes.
    Ratings(RatingsArgs),
    /// The next batch, the venue's fees, and the durations whose markets are open.
    Next(NextArgs),
}

const RATES_EXAMPLES: &str = "\
Examples:
  tidegate auction rates
  tidegate auction rates --batches 50 --json | jq '.batches[].markets[].clearing_rate_ppb'";

#[derive(Debug, clap::Args)]
#[command(after_help = RATES_EXAMPLES)]
struct RatesArgs {
    /// How many batches back.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    batches: u32,
}

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  tidegate auction snapshot                   the last batch
  tidegate auction snapshot 02ab34...         the batch with this name, all 66 digits";

#[derive(Debug, clap::Args)]
#[command(after_help = SNAPSHOT_EXAMPLES)]
struct SnapshotArgs {
    /// The batch's name, 66 hexadecimal digits [default: the last batch].
    #[arg(value_parser = whole_key)]
    batch: Option<String>,
}

const RATINGS_EXAMPLES: &str = "\
Examples:
  tidegate auction ratings                    of our own node
  tidegate auction ratings 02ab34... 03cd56...";

#[derive(Debug, clap::Args)]
#[command(after_help = RATINGS_EXAMPLES)]
struct RatingsArgs {
    /// Nodes' keys, 66 hexadecimal digits each [default: our own node].
    #[arg(value_parser = node)]
    nodes: Vec<NodeId>,
}

const NEXT_EXAMPLES: &str = "\
Examples:
  tidegate auction next
  tidegate auction next --json | jq .clear_time_s";

#[derive(Debug, clap::Args)]
#[command(after_help = NEXT_EXAMPLES)]
struct NextArgs {}

fn whole_key(text: &str) -> Result<String, String> {
    let text = digits(text)?;
    if text.len() == 66 { Ok(text) } else { Err("write all 66 digits of it".to_owned()) }
}

fn node(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| "write a node's key: 66 hexadecimal digits".to_owned())
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let Args { daemon, verb } = args;
    let mut agent = daemon.connect().await?;
    let json = daemon.json;
    match verb {
        Verb::Rates(args) => rates(&args, &mut agent, json, console).await,
        Verb::Snapshot(args) => snapshot(&args, &mut agent, json, console).await,
        Verb::Ratings(args) => ratings(&args, &mut agent, json, console).await,
        Verb::Next(NextArgs {}) => {
            let next = next(&mut agent).await?;
            console.answer(json, &next, next_text)
        }
    }
}

/// A batch as everybody may see it.
#[derive(Debug, Serialize)]
struct Batch {
    batch: String,
    /// Nothing for the first one.
    previous: Option<String>,
    txid: String,
    fee_rate_sat_per_kw: u64,
    created_s: u64,
    markets: Vec<Market>,
}

/// The matches of one duration.
#[derive(Debug, Serialize)]
struct Market {
    duration_blocks: u32,
    clearing_rate_ppb: u32,
    apr_micropercent: u64,
    traded_sats: u64,
    matches: Vec<Match>,
}

#[derive(Debug, Serialize)]
struct Match {
    amount_sats: u64,
    ask_rate_ppb: u32,
    bid_rate_ppb: u32,
}

impl Batch {
    fn of(batch: &rpc::BatchSnapshotResponse) -> Batch {
        let first = batch.prev_batch_id.iter().all(|byte| *byte == 0);
        Batch {
            batch: hex_of(&batch.batch_id),
            previous: (!first).then(|| hex_of(&batch.prev_batch_id)),
            txid: batch.batch_tx_id.clone(),
            fee_rate_sat_per_kw: batch.batch_tx_fee_rate_sat_per_kw,
            created_s: batch.creation_timestamp_ns / NS_PER_S,
            markets: batch.matched_markets.iter().map(|(blocks, market)| Market::of(*blocks, market)).collect(),
        }
    }
}

impl Market {
    fn of(duration_blocks: u32, market: &rpc::MatchedMarketSnapshot) -> Market {
        let rate = |rate: u32| u64::try_from(apr_micro(RatePerBillion::new(rate))).unwrap_or(u64::MAX);
        let matches: Vec<Match> = market.matched_orders.iter().map(Match::of).collect();
        Market {
            duration_blocks,
            clearing_rate_ppb: market.clearing_price_rate,
            apr_micropercent: rate(market.clearing_price_rate),
            traded_sats: matches.iter().fold(0, |sum, matched| sum.saturating_add(matched.amount_sats)),
            matches,
        }
    }
}

impl Match {
    fn of(matched: &rpc::MatchedOrderSnapshot) -> Match {
        Match {
            amount_sats: matched.total_sats_cleared,
            ask_rate_ppb: matched.ask.as_ref().map_or(0, |ask| ask.rate_fixed),
            bid_rate_ppb: matched.bid.as_ref().map_or(0, |bid| bid.rate_fixed),
        }
    }
}

/// Batches, newest first.
#[derive(Debug, Serialize)]
struct Batches {
    batches: Vec<Batch>,
}

async fn rates(args: &RatesArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let request = rpc::BatchSnapshotsRequest { start_batch_id: Vec::new(), num_batches_back: args.batches };
    let found = match ask(agent.trader.batch_snapshots(request)).await {
        Ok(found) => found.batches,
        Err(failure) if no_batch_yet(&failure) => Vec::new(),
        Err(failure) => return Err(failure.into()),
    };
    let batches = Batches { batches: found.iter().map(Batch::of).collect() };
    console.answer(json, &batches, rates_text)
}

/// A venue without a batch answers that there is none.
fn no_batch_yet(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(reason) if reason.contains("no final batch"))
}

fn rates_text(batches: &Batches) -> String {
    let columns = [
        ("time", Align::Left),
        ("batch", Align::Left),
        ("for", Align::Left),
        ("ppb", Align::Right),
        ("a year", Align::Right),
        ("traded (sat)", Align::Right),
        ("matches", Align::Right),
    ];
    let mut rows = Vec::new();
    for batch in &batches.batches {
        for market in &batch.markets {
            rows.push(vec![
                show::time(batch.created_s),
                show::short(&batch.batch),
                show::days(market.duration_blocks),
                show::grouped(market.clearing_rate_ppb.into()),
                show::percent_micro(market.apr_micropercent.into()),
                show::grouped(market.traded_sats),
                market.matches.len().to_string(),
            ]);
        }
    }
    show::table(&columns, rows, "no batch has cleared yet")
}

async fn snapshot(args: &SnapshotArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let batch_id = match &args.batch {
        None => Vec::new(),
        Some(digits) => Vec::<u8>::from_hex(digits).map_err(|error| Failure::Usage(error.to_string()))?,
    };
    let found = ask(agent.trader.batch_snapshot(rpc::BatchSnapshotRequest { batch_id })).await?;
    console.answer(json, &Batch::of(&found), |batch| {
        let mut text = show::facts(
            "Batch",
            &[
                ("name", batch.batch.clone()),
                ("previous", batch.previous.clone().unwrap_or_else(|| "none, it is the first".to_owned())),
                ("txid", batch.txid.clone()),
                ("fee rate", show::fee_rate(batch.fee_rate_sat_per_kw)),
                ("time", show::time(batch.created_s)),
            ],
        );
        for market in &batch.markets {
            let rate = show::percent_micro(market.apr_micropercent.into());
            let (days, ppb) = (show::blocks(market.duration_blocks), show::grouped(market.clearing_rate_ppb.into()));
            text.push_str(&format!("\n\n{days} at {ppb} ppb ({rate} a year)\n"));
            let columns = [("amount (sat)", Align::Right), ("ask (ppb)", Align::Right), ("bid (ppb)", Align::Right)];
            let row = |matched: &Match| {
                let rate = |rate: u32| show::grouped(rate.into());
                vec![show::grouped(matched.amount_sats), rate(matched.ask_rate_ppb), rate(matched.bid_rate_ppb)]
            };
            text.push_str(&show::table(&columns, market.matches.iter().map(row).collect(), "no match"));
        }
        text
    })
}

#[derive(Debug, Serialize)]
struct Ratings {
    ratings: Vec<Rating>,
}

#[derive(Debug, Serialize)]
struct Rating {
    node: String,
    /// 0 or 1; nothing when the venue does not say.
    tier: Option<u8>,
}

async fn ratings(args: &RatingsArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let found = if args.nodes.is_empty() {
        let own = ask(agent.trader.get_info(rpc::GetInfoRequest {})).await?.node_rating;
        let silent = || Failure::Unreachable("the venue does not answer, so our own rating is not known".to_owned());
        vec![own.ok_or_else(silent)?]
    } else {
        let node_pubkeys = args.nodes.iter().map(|node| node.serialize().to_vec()).collect();
        ask(agent.trader.node_ratings(rpc::NodeRatingRequest { node_pubkeys })).await?.node_ratings
    };
    let rating = |rating: &rpc::NodeRating| Rating {
        node: hex_of(&rating.node_pubkey),
        tier: match rpc::NodeTier::try_from(rating.node_tier) {
            Ok(rpc::NodeTier::Tier0) => Some(0),
            Ok(rpc::NodeTier::Tier1) => Some(1),
            Ok(rpc::NodeTier::TierDefault) | Err(_) => None,
        },
    };
    console.answer(json, &Ratings { ratings: found.iter().map(rating).collect() }, |ratings| {
        let columns = [("node", Align::Left), ("tier", Align::Right)];
        let row =
            |rating: &Rating| vec![rating.node.clone(), rating.tier.map_or("-".to_owned(), |tier| tier.to_string())];
        show::table(&columns, ratings.ratings.iter().map(row).collect(), "no rating")
    })
}

/// What is known of the next batch.
#[derive(Debug, Serialize)]
pub(super) struct Next {
    /// Unix seconds; nothing when the venue clears on request only.
    pub(super) clear_time_s: Option<u64>,
    pub(super) conf_target_blocks: u32,
    pub(super) fee_rate_sat_per_kw: u64,
    /// Per match.
    pub(super) base_fee_sats: u64,
    /// Of the amount, in parts per million.
    pub(super) fee_rate_ppm: u64,
    pub(super) auto_renew_blocks: u32,
    pub(super) durations: Vec<Duration>,
}

/// The market of one duration.
#[derive(Debug, Serialize)]
pub(super) struct Duration {
    pub(super) duration_blocks: u32,
    pub(super) state: &'static str,
    pub(super) asks: u32,
    pub(super) ask_sats: u64,
    pub(super) bids: u32,
    pub(super) bid_sats: u64,
}

/// Asks for it.
pub(super) async fn next(agent: &mut Agent) -> Result<Next, Failure> {
    let next = ask(agent.trader.next_batch_info(rpc::NextBatchInfoRequest {})).await?;
    let fee = ask(agent.trader.auction_fee(rpc::AuctionFeeRequest {})).await?.execution_fee.unwrap_or_default();
    let durations = ask(agent.trader.lease_durations(rpc::LeaseDurationRequest {})).await?.lease_duration_buckets;
    let book = ask(agent.trader.get_info(rpc::GetInfoRequest {})).await?.market_info;
    Ok(Next {
        clear_time_s: Some(next.clear_timestamp).filter(|time| *time > 0),
        conf_target_blocks: next.conf_target,
        fee_rate_sat_per_kw: next.fee_rate_sat_per_kw,
        base_fee_sats: fee.base_fee,
        fee_rate_ppm: fee.fee_rate,
        auto_renew_blocks: next.auto_renew_extension_blocks,
        durations: durations_of(&durations, &book),
    })
}

fn durations_of(states: &BTreeMap<u32, i32>, book: &BTreeMap<u32, rpc::MarketInfo>) -> Vec<Duration> {
    type Values = [rpc::market_info::TierValue];
    let sum = |values: &Values| values.iter().fold(0u32, |sum, tier| sum.saturating_add(tier.value));
    let sats = |values: &Values| u64::from(sum(values)) * 100_000;
    let row = |(blocks, state): (&u32, &i32)| {
        let market = book.get(blocks).cloned().unwrap_or_default();
        Duration {
            duration_blocks: *blocks,
            state: match rpc::DurationBucketState::try_from(*state) {
                Ok(rpc::DurationBucketState::MarketOpen) => "open",
                Ok(rpc::DurationBucketState::AcceptingOrders) => "takes orders",
                Ok(rpc::DurationBucketState::MarketClosed) => "closed",
                Ok(rpc::DurationBucketState::NoMarket) => "none",
                Err(_) => "unknown",
            },
            asks: sum(&market.num_asks),
            ask_sats: sats(&market.ask_open_interest_units),
            bids: sum(&market.num_bids),
            bid_sats: sats(&market.bid_open_interest_units),
        }
    };
    states.iter().map(row).collect()
}

/// Fees and time of the next batch, as facts.
pub(super) fn next_facts(next: &Next) -> String {
    show::facts(
        "Next batch",
        &[
            ("clears at", next.clear_time_s.map_or_else(|| "when the venue decides".to_owned(), show::time)),
            ("chain fee rate", show::fee_rate(next.fee_rate_sat_per_kw)),
            ("confirmation target", format!("{} blocks", next.conf_target_blocks)),
            ("execution fee", format!("{} and {} ppm per match", show::sats(next.base_fee_sats), next.fee_rate_ppm)),
        ],
    )
}

fn next_text(next: &Next) -> String {
    let columns = [
        ("duration", Align::Left),
        ("market", Align::Left),
        ("asks", Align::Right),
        ("asked (sat)", Align::Right),
        ("bids", Align::Right),
        ("bid (sat)", Align::Right),
    ];
    let row = |duration: &Duration| {
        vec![
            show::blocks(duration.duration_blocks),
            duration.state.to_owned(),
            duration.asks.to_string(),
            show::grouped(duration.ask_sats),
            duration.bids.to_string(),
            show::grouped(duration.bid_sats),
        ]
    };
    let durations = next.durations.iter().map(row).collect();
    format!("{}\n\n{}", next_facts(next), show::table(&columns, durations, "no market is open"))
}
