//! How long a trader takes from a proposal to its word, and from the request to sign to its signatures, with 1, 10 and 100
//! matches. A step may take 15 seconds. `cargo bench --bench latency`, with other numbers `… -- 1 50`.
//!
//! A seller with a SQLite file meets as many buyers, all of them in this process: what the buyers do at the same time counts
//! too, so that the figures are upper bounds.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it reports, and a measurement that cannot go on fails")]

#[path = "../tests/rig/mod.rs"]
#[allow(dead_code, reason = "shared with tests, which look at more")]
mod rig;

use std::time::Duration;

use rig::meddler::Told;
use rig::{Market, in_a_runtime};
use tidegate::store::SqliteStore;
use tidegate_protocol::account::AccountVersion;
use tidegate_wire::poolrpc::{
    ClientAuctionMessage, ServerAuctionMessage, client_auction_message, server_auction_message,
};

const SELLER: &str = "seller";
const ROUNDS: usize = 5;

/// Proposal to word, request to signatures.
type Times = (Duration, Duration);

fn times(said: &[Told<ClientAuctionMessage>], heard: &[Told<ServerAuctionMessage>]) -> Times {
    use client_auction_message::Msg as Said;
    use server_auction_message::Msg as Heard;
    let heard_at = |holds: fn(&Heard) -> bool| {
        let mut all = heard.iter().filter(|told| told.trader == SELLER);
        all.rfind(|told| told.message.msg.as_ref().is_some_and(holds)).expect("it was told").at
    };
    let said_at = |holds: fn(&Said) -> bool| {
        let mut all = said.iter().filter(|told| told.trader == SELLER);
        all.rfind(|told| told.message.msg.as_ref().is_some_and(holds)).expect("it answered").at
    };
    let accepted = said_at(|said| matches!(said, Said::Accept(_)));
    let signed = said_at(|said| matches!(said, Said::Sign(_)));
    let prepared = heard_at(|heard| matches!(heard, Heard::Prepare(_)));
    let asked = heard_at(|heard| matches!(heard, Heard::Sign(_)));
    (accepted.duration_since(prepared), signed.duration_since(asked))
}

/// One market; the times of each round, and the commits of the seller in each.
async fn measure(matches: u32) -> (Vec<Times>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let mut market = Market::open(u64::from(matches)).await;
    market.step_ms = 15_000;
    let buyers: Vec<String> = (0..matches).map(|number| format!("buyer{number}")).collect();
    let names: Vec<&str> = buyers.iter().map(String::as_str).collect();
    let store = SqliteStore::open(&folder.path().join("seller.sqlite"), "trader").await.unwrap();
    let link = market.link(SELLER);
    market.start_on(SELLER, link, store);
    market.open_accounts(&[SELLER], 200_000_000, AccountVersion::V2).await;
    market.join(&names, 5_000_000, AccountVersion::V2).await;
    let (mut all, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        market.ask(SELLER, 700, matches).await;
        for name in &names {
            market.bid(name, 900, 1).await;
        }
        drop(market.meddler.take());
        let before = market.status(SELLER).await;
        market.clear().await;
        let after = market.status(SELLER).await;
        assert_eq!(after.leases.len() - before.leases.len(), usize::try_from(matches).unwrap());
        let (said, heard) = market.meddler.take();
        all.push(times(&said, &heard));
        commits.push(after.sequence.0 - before.sequence.0);
    }
    (all, commits)
}

fn main() {
    println!(
        "{:>7}  {:>24}  {:>24}  commits per batch",
        "matches", "prepare to accept (ms)", "sign to signatures (ms)"
    );
    // Numbers after `--` take the place of the usual ones.
    let wanted: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![1, 10, 100] } else { wanted };
    for matches in wanted {
        let (times, commits) = in_a_runtime(measure(matches));
        let show = |of: fn(&Times) -> Duration| {
            let mut all: Vec<Duration> = times.iter().map(of).collect();
            all.sort();
            let (median, worst) = (all[all.len() / 2].as_secs_f64() * 1e3, all[all.len() - 1].as_secs_f64() * 1e3);
            format!("median {median:.1}, worst {worst:.1}")
        };
        println!("{matches:>7}  {:>24}  {:>24}  {commits:?}", show(|times| times.0), show(|times| times.1));
    }
}
