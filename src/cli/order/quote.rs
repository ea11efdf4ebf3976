//! What an order costs or brings, at best and at worst, before it is placed.

use crate::cli::exit::Failure;
use crate::cli::link::{Agent, ask};
use crate::cli::shape::annual_micro;
use crate::cli::show;
use crate::cli::units::Side;
use serde::Serialize;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats};
use tidegate_wire::poolrpc as rpc;

const SATS_PER_UNIT: u64 = 100_000;

/// The terms on which a quote depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) side: Side,
    pub(super) amount: Sats,
    /// What the premium is computed on: the amount, for outbound bids with the self balance.
    pub(super) premium_base: Sats,
    pub(super) min_match: Sats,
    pub(super) rate: RatePerBillion,
    pub(super) duration: BlockCount,
    pub(super) max_fee_rate: SatPerKw,
}

/// The quote. *Worst* is: filled in as many matches as the smallest match allows, each in a batch of its own at the
/// highest chain fee rate of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Quote {
    /// At the order's own rate: an ask earns at least this, a bid pays at most this, when all is filled.
    pub(super) premium_sats: u64,
    /// Filled at once.
    pub(super) execution_fee_sats: u64,
    pub(super) worst_matches: u64,
    pub(super) worst_execution_fee_sats: u64,
    pub(super) worst_chain_fee_sats: u64,
    /// Ask: premium less the worst fees, below zero is a loss. Bid: all that is paid, as a negative number.
    pub(super) worst_case_sats: i64,
    /// The same as a share of the amount, and per year, in millionths of a percent.
    pub(super) worst_case_micropercent: i64,
    pub(super) worst_case_apr_micropercent: i64,
}

/// Asks the agent, whose venue states the fees.
pub(super) async fn fetch(agent: &mut Agent, terms: &Terms) -> Result<Quote, Failure> {
    let fee = ask(agent.trader.auction_fee(rpc::AuctionFeeRequest {})).await?.execution_fee.unwrap_or_default();
    // As one match: the worst case is counted here, so that it holds for execution fees too.
    let request = rpc::QuoteOrderRequest {
        amt: terms.premium_base.get(),
        rate_fixed: terms.rate.get(),
        lease_duration_blocks: terms.duration.get(),
        max_batch_fee_rate_sat_per_kw: terms.max_fee_rate.get(),
        min_units_match: u32::try_from(terms.premium_base.get() / SATS_PER_UNIT).unwrap_or(u32::MAX),
    };
    let answer = ask(agent.trader.quote_order(request)).await?;
    worst(terms, &answer, fee.base_fee)
        .ok_or_else(|| Failure::Refused("the order can not be computed: it is too large".to_owned()))
}

fn worst(terms: &Terms, once: &rpc::QuoteOrderResponse, base_fee: u64) -> Option<Quote> {
    let matches = terms.amount.get().checked_div(terms.min_match.get())?.max(1);
    let more = matches.checked_sub(1)?.checked_mul(base_fee)?;
    let execution = once.total_execution_fee_sat.checked_add(more)?;
    let chain = once.worst_case_chain_fee_sat.checked_mul(matches)?;
    let fees = i64::try_from(execution.checked_add(chain)?).ok()?;
    let premium = i64::try_from(once.total_premium_sat).ok()?;
    let worst_case = match terms.side {
        Side::Sells => premium.checked_sub(fees)?,
        Side::Buys => premium.checked_add(fees)?.checked_neg()?,
    };
    let of = terms.premium_base.get();
    Some(Quote {
        premium_sats: once.total_premium_sat,
        execution_fee_sats: once.total_execution_fee_sat,
        worst_matches: matches,
        worst_execution_fee_sats: execution,
        worst_chain_fee_sats: chain,
        worst_case_sats: worst_case,
        worst_case_micropercent: i64::try_from(show::share_micro(worst_case.into(), of)?).ok()?,
        worst_case_apr_micropercent: annual_micro(worst_case.into(), of, terms.duration.get()),
    })
}

/// The quote for a person.
pub(super) fn text(title: &str, terms: &Terms, quote: &Quote) -> String {
    let of = terms.premium_base.get();
    let sells = terms.side == Side::Sells;
    let bound = |selling: &'static str, buying: &'static str| if sells { selling } else { buying };
    let with_share = |sats: u64| format!("{} ({})", show::sats(sats), show::share(sats.into(), of));
    let apr = show::percent_micro(annual_rate(terms.rate));
    let parts = match quote.worst_matches {
        1 => "in one match".to_owned(),
        many => format!("in up to {} matches", show::grouped(many)),
    };
    let amount_of = i128::from(quote.worst_case_sats);
    let outcome = match (sells, amount_of < 0) {
        (true, false) => "you earn",
        (true, true) => "you LOSE",
        (false, _) => "you pay",
    };
    let shown = show::signed(i128::try_from(amount_of.unsigned_abs()).unwrap_or(i128::MAX));
    let share = show::percent_micro(i128::from(quote.worst_case_micropercent.unsigned_abs()));
    let yearly = show::percent_micro(i128::from(quote.worst_case_apr_micropercent.unsigned_abs()));
    let mut text = show::facts(
        title,
        &[
            ("amount", format!("{} {parts}", show::sats(terms.amount.get()))),
            ("for", show::blocks(terms.duration.get())),
            (
                bound("rate at least", "rate at most"),
                format!("{} ppb per block ({apr} a year)", show::grouped(terms.rate.get().into())),
            ),
            (bound("premium at least", "premium at most"), with_share(quote.premium_sats)),
            ("execution fee", format!("{} when filled at once", show::sats(quote.execution_fee_sats))),
            (
                "chain fee at most",
                format!("{} at {}", with_share(quote.worst_chain_fee_sats), show::fee_rate(terms.max_fee_rate.get())),
            ),
            ("worst case", format!("{outcome} {shown} sat ({share} of the amount, {yearly} a year)")),
        ],
    );
    if sells && amount_of < 0 {
        text.push_str("\nIn the worst case the fees exceed the premium. A larger --min-match, a lower\n");
        text.push_str("--max-fee-rate or a higher rate avoids that.");
    }
    text
}

fn annual_rate(rate: RatePerBillion) -> i128 {
    i128::try_from(crate::cli::units::apr_micro(rate)).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(side: Side) -> Terms {
        Terms {
            side,
            amount: Sats::constant(1_000_000),
            premium_base: Sats::constant(1_000_000),
            min_match: Sats::constant(300_000),
            rate: RatePerBillion::new(1_488),
            duration: BlockCount::new(2_016),
            max_fee_rate: SatPerKw::new(2_500),
        }
    }

    fn once() -> rpc::QuoteOrderResponse {
        rpc::QuoteOrderResponse {
            total_premium_sat: 2_999,
            total_execution_fee_sat: 1_001,
            worst_case_chain_fee_sat: 700,
            ..Default::default()
        }
    }

    #[test]
    fn the_worst_case_counts_every_fee_of_every_match() {
        let quote = worst(&terms(Side::Buys), &once(), 1).expect("small");
        // Three matches: 1,001 + 2 base fees; three shares of chain fees.
        assert_eq!(
            (quote.worst_matches, quote.worst_execution_fee_sats, quote.worst_chain_fee_sats),
            (3, 1_003, 2_100)
        );
        assert_eq!(quote.worst_case_sats, -6_102);
        assert_eq!(quote.worst_case_micropercent, -610_200);
        let quote = worst(&terms(Side::Sells), &once(), 1).expect("small");
        assert_eq!(quote.worst_case_sats, -104);
        let whole = Terms { min_match: Sats::constant(1_000_000), ..terms(Side::Sells) };
        assert_eq!(worst(&whole, &once(), 1).expect("small").worst_case_sats, 1_298);
        let huge = rpc::QuoteOrderResponse { worst_case_chain_fee_sat: u64::MAX, ..once() };
        assert_eq!(worst(&terms(Side::Sells), &huge, 1), None);
    }

    #[test]
    fn a_quote_says_what_happens_in_the_worst_case() {
        let bid = terms(Side::Buys);
        let told = text("Buy capacity (bid)", &bid, &worst(&bid, &once(), 1).expect("small"));
        let expected = "\
Buy capacity (bid)
  amount             1,000,000 sat in up to 3 matches
  for                2,016 blocks (14 days)
  rate at most       1,488 ppb per block (7.82 % a year)
  premium at most    2,999 sat (0.30 %)
  execution fee      1,001 sat when filled at once
  chain fee at most  2,100 sat (0.21 %) at 10.0 sat/vB
  worst case         you pay 6,102 sat (0.61 % of the amount, 15.91 % a year)";
        assert_eq!(told, expected);
        let ask = terms(Side::Sells);
        let told = text("Sell capacity (ask)", &ask, &worst(&ask, &once(), 1).expect("small"));
        assert!(told.contains("you LOSE 104 sat") && told.contains("--min-match"), "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    }
}
