//! `tidegate order ask`, `bid` and `replace`.

use super::list::{Found, pick};
use super::quote::{self, Quote, Terms};
use crate::cli::account::{self, Which, Yes, digits};
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::link::{Agent, change};
use crate::cli::shape::hex_of;
use crate::cli::show;
use crate::cli::units::{self, Percent, Side};
use clap::ValueEnum;
use serde::Serialize;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_wire::poolrpc as rpc;
use tidegate_wire::tidegate::v1::{ReplaceOrderRequest, replace_order_response};

/// The version in which orders are sent.
const ORDER_VERSION: u32 = 5;
const LOOK: &str = "tidegate order list";
const WHO: &str = "tidegate";

/// The price; one of three ways to say it.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(multiple = false)]
struct Price {
    /// In parts per billion per block, e.g. 1488.
    #[arg(long, value_parser = units::rate, value_name = "PPB", help_heading = "Price (one of these)")]
    rate: Option<RatePerBillion>,
    /// In percent per year, e.g. 5%. Rounded up for an ask, down for a bid.
    #[arg(long, value_parser = units::percent, value_name = "PERCENT", help_heading = "Price (one of these)")]
    apr: Option<Percent>,
    /// In satoshi for the whole order and duration, e.g. 3000.
    #[arg(long, value_parser = units::amount, value_name = "AMOUNT", help_heading = "Price (one of these)")]
    premium: Option<Sats>,
}

impl Price {
    /// The rate per block, when a price was said.
    fn rate(&self, base: Sats, duration: BlockCount, side: Side) -> Result<Option<RatePerBillion>, Failure> {
        let wrong = |flag: &str, reason: String| Failure::Usage(format!("{flag}: {reason}"));
        match (self.rate, self.apr, self.premium) {
            (Some(rate), _, _) => Ok(Some(rate)),
            (_, Some(apr), _) => units::rate_of_apr(apr, side).map(Some).map_err(|reason| wrong("--apr", reason)),
            (_, _, Some(total)) => units::rate_of_premium(total, base, duration, side)
                .map(Some)
                .map_err(|reason| wrong("--premium", reason)),
            (None, None, None) => Ok(None),
        }
    }
}

fn no_price() -> Failure {
    Failure::Usage(
        "at which price? State --rate (ppb per block), --apr (percent per year) or --premium (sat in total)".to_owned(),
    )
}

/// Which market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Market {
    /// The buyer wants capacity of others towards it.
    Inbound,
    /// The buyer wants a channel in which its own coins are, so that it can send.
    Outbound,
}

/// Kind of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChannelKind {
    /// What the two nodes negotiate.
    Any,
    /// The lease's end is enforced by the channel's script.
    ScriptEnforced,
    /// Simple taproot.
    SimpleTaproot,
}

/// Which bids an ask accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// All of them.
    Any,
    /// Only the ordinary kind: announced, or confirmed.
    Yes,
    /// Only the other kind: unannounced, or zero-conf.
    No,
}

/// What asks and bids have in common.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How much: 2000000, 2M, 0.02btc; a multiple of 100,000 sat.
    #[arg(value_parser = whole_units)]
    amount: Sats,
    #[command(flatten)]
    price: Price,
    /// For how long, in blocks or days.
    #[arg(long = "for", default_value = "14d", value_parser = units::duration, value_name = "DURATION")]
    duration: BlockCount,
    /// Smallest match: 100,000 sat or a multiple [default: a tenth of the amount].
    #[arg(long, value_parser = whole_units, value_name = "AMOUNT")]
    min_match: Option<Sats>,
    /// Highest chain fee rate of a batch, in sat per vbyte.
    #[arg(long, default_value = "100", value_parser = units::fee_rate, value_name = "RATE")]
    max_fee_rate: SatPerKw,
    #[command(flatten)]
    which: Which,
    /// The market.
    #[arg(long, value_enum, default_value = "inbound")]
    market: Market,
    /// Kind of channel.
    #[arg(long, value_enum, default_value = "any")]
    channel_type: ChannelKind,
    /// Only this node as counterpart (66 hexadecimal digits); repeatable.
    #[arg(long, value_parser = node, value_name = "NODE", conflicts_with = "not_node")]
    only_node: Vec<NodeId>,
    /// Not this node as counterpart; repeatable.
    #[arg(long, value_parser = node, value_name = "NODE")]
    not_node: Vec<NodeId>,
    /// Keeps the order out of what the venue publishes about its book.
    #[arg(long)]
    private: bool,
    #[command(flatten)]
    yes: Yes,
}

const ASK_EXAMPLES: &str = "\
Examples:
  tidegate order ask 2M --apr 5%                  two million sat for 14 days, at 5 % a year or more
  tidegate order ask 5M --rate 1488 --for 30d --min-match 1M
  tidegate order ask 1M --premium 4000 --max-fee-rate 20 --yes --json

You are shown what it brings at least and what the fees take at most, and asked, before anything is placed.";

/// Arguments of `ask`.
#[derive(Debug, clap::Args)]
#[command(after_help = ASK_EXAMPLES)]
#[command(group = clap::ArgGroup::new("a price").required(true).args(["rate", "apr", "premium"]))]
pub(super) struct AskArgs {
    #[command(flatten)]
    common: Common,
    /// Accept bids for announced channels only (yes), unannounced only (no), or any.
    #[arg(long, value_enum, default_value = "any", value_name = "WHICH")]
    announced: Only,
    /// Accept bids for confirmed channels only (yes), zero-conf only (no), or any.
    #[arg(long, value_enum, default_value = "yes", value_name = "WHICH")]
    confirmed: Only,
}

const BID_EXAMPLES: &str = "\
Examples:
  tidegate order bid 1M --apr 10%                 a million sat for 14 days, for 10 % a year or less
  tidegate order bid 1M --premium 3000 --for 30d  the same for 30 days, for 3,000 sat or less
  tidegate order bid 1M --rate 2000 --min-match 1M --self-balance 200k

You are shown what it costs at most, all fees at their worst, and asked, before anything is placed.";

/// Arguments of `bid`.
#[derive(Debug, clap::Args)]
#[command(after_help = BID_EXAMPLES)]
#[command(group = clap::ArgGroup::new("a price").required(true).args(["rate", "apr", "premium"]))]
pub(super) struct BidArgs {
    #[command(flatten)]
    common: Common,
    /// What of the channel is yours at once; paid from the account.
    #[arg(long, default_value = "0", value_parser = units::amount_or_nothing, value_name = "AMOUNT")]
    self_balance: Sats,
    /// Sellers' nodes: 0 any, 1 only those that are rated good [default: as the venue does].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=1), value_name = "TIER")]
    min_tier: Option<u8>,
    /// The channel is not announced to the network.
    #[arg(long)]
    unannounced: bool,
    /// The channel can be used before the batch is confirmed.
    #[arg(long)]
    zero_conf: bool,
}

const REPLACE_EXAMPLES: &str = "\
Examples:
  tidegate order replace 5f3c2a --apr 6%            the same order at another price
  tidegate order replace 5f3c2a --amount 1M --min-match 500k

The venue has no call for this: the old order is cancelled, then the new one is placed. When the new one can not be
placed at all, the old one stays.";

/// Arguments of `replace`.
#[derive(Debug, clap::Args)]
#[command(after_help = REPLACE_EXAMPLES)]
pub(super) struct ReplaceArgs {
    /// The open order's nonce, or the first digits of it.
    #[arg(value_parser = digits)]
    nonce: String,
    /// The new amount [default: what is not filled yet].
    #[arg(long, value_parser = whole_units)]
    amount: Option<Sats>,
    #[command(flatten)]
    price: Price,
    /// The new duration, in blocks or days [default: it stays].
    #[arg(long = "for", value_parser = units::duration, value_name = "DURATION")]
    duration: Option<BlockCount>,
    /// The new smallest match [default: it stays, but is not above the amount].
    #[arg(long, value_parser = whole_units, value_name = "AMOUNT")]
    min_match: Option<Sats>,
    /// The new highest chain fee rate of a batch, in sat per vbyte [default: it stays].
    #[arg(long, value_parser = units::fee_rate, value_name = "RATE")]
    max_fee_rate: Option<SatPerKw>,
    #[command(flatten)]
    yes: Yes,
}

fn whole_units(text: &str) -> Result<Sats, String> {
    let sats = units::amount(text)?;
    let rule = "it must be a multiple of 100,000 sat, the market's unit";
    UnitCount::exactly_from(sats).map(|_| sats).map_err(|_| rule.to_owned())
}

fn node(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| "write a node's key: 66 hexadecimal digits".to_owned())
}

fn units_of(amount: Sats) -> Result<u32, Failure> {
    UnitCount::exactly_from(amount).map(UnitCount::get).map_err(|error| Failure::Usage(error.to_string()))
}

/// An order that is ready to be asked for, with the terms of its quote.
struct Draft {
    terms: Terms,
    title: &'static str,
    details: rpc::submit_order_request::Details,
}

impl Draft {
    fn submit(&self) -> rpc::SubmitOrderRequest {
        rpc::SubmitOrderRequest { initiator: WHO.to_owned(), details: Some(self.details.clone()) }
    }
}

/// What `ask`, `bid` and `replace` answer.
#[derive(Debug, Serialize)]
struct Placed {
    nonce: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    rate_ppb: u32,
    quote: Quote,
}

fn default_min_match(common: &Common) -> Result<Sats, Failure> {
    let tenth = Sats::new(common.amount.get().div_ceil(10)).and_then(UnitCount::ceil_from);
    match (common.min_match, common.market) {
        (Some(min), _) if min > common.amount => {
            Err(Failure::Usage("--min-match: the smallest match is not larger than the amount".to_owned()))
        }
        (Some(min), _) => Ok(min),
        (None, Market::Inbound) => Ok(tenth.map_err(|error| Failure::Usage(error.to_string()))?.to_sats()),
        (None, Market::Outbound) => Ok(UnitCount::new(1).to_sats()),
    }
}

/// The part of an order that both sides share.
async fn details(
    common: &Common,
    rate: RatePerBillion,
    min_match: Sats,
    agent: &mut Agent,
) -> anyhow::Result<rpc::Order> {
    let account = account::pick(agent, &common.which).await?;
    let kind = match common.channel_type {
        ChannelKind::Any => rpc::OrderChannelType::PeerDependent,
        ChannelKind::ScriptEnforced => rpc::OrderChannelType::ScriptEnforced,
        ChannelKind::SimpleTaproot => rpc::OrderChannelType::SimpleTaproot,
    };
    let market = match common.market {
        Market::Inbound => rpc::AuctionType::BtcInboundLiquidity,
        Market::Outbound => rpc::AuctionType::BtcOutboundLiquidity,
    };
    let keys = |nodes: &[NodeId]| nodes.iter().map(|node| node.serialize().to_vec()).collect();
    Ok(rpc::Order {
        trader_key: account.trader_key,
        rate_fixed: rate.get(),
        amt: common.amount.get(),
        max_batch_fee_rate_sat_per_kw: common.max_fee_rate.get(),
        min_units_match: units_of(min_match)?,
        channel_type: kind.into(),
        auction_type: market.into(),
        allowed_node_ids: keys(&common.only_node),
        not_allowed_node_ids: keys(&common.not_node),
        is_public: !common.private,
        ..rpc::Order::default()
    })
}

pub(super) async fn ask(args: AskArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let AskArgs { common, announced, confirmed } = args;
    let min_match = default_min_match(&common)?;
    let rate = common.price.rate(common.amount, common.duration, Side::Sells)?.ok_or_else(no_price)?;
    let announcement = match announced {
        Only::Any => rpc::ChannelAnnouncementConstraints::AnnouncementNoPreference,
        Only::Yes => rpc::ChannelAnnouncementConstraints::OnlyAnnounced,
        Only::No => rpc::ChannelAnnouncementConstraints::OnlyUnannounced,
    };
    let confirmation = match confirmed {
        Only::Any => rpc::ChannelConfirmationConstraints::ConfirmationNoPreference,
        Only::Yes => rpc::ChannelConfirmationConstraints::OnlyConfirmed,
        Only::No => rpc::ChannelConfirmationConstraints::OnlyZeroconf,
    };
    let ask = rpc::Ask {
        details: Some(details(&common, rate, min_match, agent).await?),
        lease_duration_blocks: common.duration.get(),
        version: ORDER_VERSION,
        announcement_constraints: announcement.into(),
        confirmation_constraints: confirmation.into(),
    };
    let terms = terms(Side::Sells, &common, common.amount, min_match, rate);
    let details = rpc::submit_order_request::Details::Ask(ask);
    submit(Draft { terms, title: "Sell capacity (ask)", details }, common.yes, agent, json, console).await
}

pub(super) async fn bid(args: BidArgs, agent: &mut Agent, json: bool, console: &mut Console<'_>) -> anyhow::Result<()> {
    let BidArgs { common, self_balance, min_tier, unannounced, zero_conf } = args;
    let min_match = default_min_match(&common)?;
    let base = match common.market {
        Market::Inbound => common.amount,
        Market::Outbound => {
            let rule = "--self-balance: an outbound bid needs one, a multiple of 100,000 sat";
            let whole = UnitCount::exactly_from(self_balance).is_ok() && self_balance > Sats::ZERO;
            let sum = common.amount.checked_add(self_balance).filter(|_| whole);
            sum.ok_or_else(|| Failure::Usage(rule.to_owned()))?
        }
    };
    let rate = common.price.rate(base, common.duration, Side::Buys)?.ok_or_else(no_price)?;
    let tier = match min_tier {
        None => rpc::NodeTier::TierDefault,
        Some(0) => rpc::NodeTier::Tier0,
        Some(_) => rpc::NodeTier::Tier1,
    };
    let bid = rpc::Bid {
        details: Some(details(&common, rate, min_match, agent).await?),
        lease_duration_blocks: common.duration.get(),
        version: ORDER_VERSION,
        min_node_tier: tier.into(),
        self_chan_balance: self_balance.get(),
        unannounced_channel: unannounced,
        zero_conf_channel: zero_conf,
        ..rpc::Bid::default()
    };
    let terms = terms(Side::Buys, &common, base, min_match, rate);
    let details = rpc::submit_order_request::Details::Bid(bid);
    submit(Draft { terms, title: "Buy capacity (bid)", details }, common.yes, agent, json, console).await
}

fn terms(side: Side, common: &Common, premium_base: Sats, min_match: Sats, rate: RatePerBillion) -> Terms {
    let Common { amount, duration, max_fee_rate, .. } = *common;
    Terms { side, amount, premium_base, min_match, rate, duration, max_fee_rate }
}

async fn submit(
    draft: Draft,
    yes: Yes,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    use rpc::submit_order_response::Details;
    let quote = quote::fetch(agent, &draft.terms).await?;
    console.confirm(&quote::text(draft.title, &draft.terms, &quote), yes.yes)?;
    let answer = change(LOOK, agent.trader.submit_order(draft.submit())).await?;
    let nonce = match answer.details {
        Some(Details::AcceptedOrderNonce(nonce)) => nonce,
        Some(Details::InvalidOrder(refused)) => return Err(Failure::Refused(invalid(&refused)).into()),
        None => return Err(no_word().into()),
    };
    let rate_ppb = draft.terms.rate.get();
    let placed = Placed { nonce: hex_of(&nonce), replaces: None, rate_ppb, quote };
    console.answer(json, &placed, |placed| format!("order {} is placed", show::short(&placed.nonce)))
}

fn invalid(refused: &rpc::InvalidOrder) -> String {
    format!("the venue refused the order: {}", refused.fail_string)
}

fn no_word() -> Failure {
    Failure::Unknown(format!("the agent's answer does not say what became of the order: look with `{LOOK}`"))
}

pub(super) async fn replace(
    args: ReplaceArgs,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let old = pick(agent, &args.nonce).await?;
    let (yes, draft) = (args.yes, redraft(&old, &args)?);
    let quote = quote::fetch(agent, &draft.terms).await?;
    let shown = old.shaped();
    let left = show::sats(shown.amount_sats.saturating_sub(shown.filled_sats));
    let title = format!(
        "Replace {} {} ({left} left at {} ppb) by",
        shown.side,
        show::short(&shown.nonce),
        show::grouped(shown.rate_ppb.into())
    );
    console.confirm(&quote::text(&title, &draft.terms, &quote), yes.yes)?;
    let request = ReplaceOrderRequest { order_nonce: old.nonce(), order: Some(draft.submit()) };
    let answer = change(LOOK, agent.control.replace_order(request)).await?;
    let nonce = match answer.details {
        Some(replace_order_response::Details::AcceptedOrderNonce(nonce)) => nonce,
        Some(replace_order_response::Details::InvalidOrder(refused)) => {
            let reason = invalid(&refused);
            let sentence = format!("{reason}. The old one may be cancelled already: look with `{LOOK}`");
            return Err(Failure::Unknown(sentence).into());
        }
        None => return Err(no_word().into()),
    };
    let placed = Placed { nonce: hex_of(&nonce), replaces: Some(shown.nonce), rate_ppb: draft.terms.rate.get(), quote };
    console.answer(json, &placed, |placed| {
        let old = placed.replaces.as_deref().map(show::short).unwrap_or_default();
        format!("order {} is placed instead of {old}", show::short(&placed.nonce))
    })
}

/// The old order with what is said anew, as if it had never been placed.
fn redraft(old: &Found, args: &ReplaceArgs) -> Result<Draft, Failure> {
    let (side, title) = match old {
        Found::Ask(_) => (Side::Sells, "Sell capacity (ask)"),
        Found::Bid(_) => (Side::Buys, "Buy capacity (bid)"),
    };
    let (details, blocks, self_balance) = match old {
        Found::Ask(ask) => (ask.details.clone(), ask.lease_duration_blocks, 0),
        Found::Bid(bid) => (bid.details.clone(), bid.lease_duration_blocks, bid.self_chan_balance),
    };
    let was = details.unwrap_or_default();
    let sats = |sats: u64| Sats::new(sats).map_err(|error| Failure::Refused(error.to_string()));
    let amount = args.amount.unwrap_or(UnitCount::new(was.units_unfulfilled).to_sats());
    let duration = args.duration.unwrap_or(BlockCount::new(blocks));
    let outbound = was.auction_type == i32::from(rpc::AuctionType::BtcOutboundLiquidity);
    let extra = if outbound && side == Side::Buys { sats(self_balance)? } else { Sats::ZERO };
    let base = amount.checked_add(extra).ok_or_else(|| Failure::Usage("--amount: too large".to_owned()))?;
    let rate = args.price.rate(base, duration, side)?.unwrap_or(RatePerBillion::new(was.rate_fixed));
    let min_match = match args.min_match {
        Some(min) if min > amount => {
            return Err(Failure::Usage("--min-match: the smallest match is not larger than the amount".to_owned()));
        }
        Some(min) => min,
        None => UnitCount::new(was.min_units_match).to_sats().min(amount),
    };
    let max_fee_rate = args.max_fee_rate.unwrap_or(SatPerKw::new(was.max_batch_fee_rate_sat_per_kw));
    let details = Some(rpc::Order {
        rate_fixed: rate.get(),
        amt: amount.get(),
        max_batch_fee_rate_sat_per_kw: max_fee_rate.get(),
        min_units_match: units_of(min_match)?,
        trader_key: was.trader_key,
        channel_type: was.channel_type,
        auction_type: was.auction_type,
        allowed_node_ids: was.allowed_node_ids,
        not_allowed_node_ids: was.not_allowed_node_ids,
        is_public: was.is_public,
        ..rpc::Order::default()
    });
    let lease_duration_blocks = duration.get();
    let details = match old {
        Found::Ask(ask) => rpc::submit_order_request::Details::Ask(rpc::Ask {
            details,
            lease_duration_blocks,
            version: ORDER_VERSION,
            ..*ask
        }),
        Found::Bid(bid) => rpc::submit_order_request::Details::Bid(rpc::Bid {
            details,
            lease_duration_blocks,
            version: ORDER_VERSION,
            ..bid.clone()
        }),
    };
    let terms = Terms { side, amount, premium_base: base, min_match, rate, duration, max_fee_rate };
    Ok(Draft { terms, title, details })
}
