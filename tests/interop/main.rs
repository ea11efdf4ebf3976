//! Interop: our venue and our agent against the real btcd, lnd and poold, on a regtest network of their own.
//!
//! Does: builds those programs from the Go module registry, runs them as child processes, trades, and compares three
//! accounts of every satoshi: the counterparty's report, ours, and the chain. Never does: talk to anything but
//! loopback (apart from the Go build), sleep blindly, or leave a process behind.
//!
//! Where Go is absent the cases say so loudly and pass; with `CI=true` they fail instead. `TIDEGATE_INTEROP_BIN` may
//! name a folder with ready programs. The cases share one network, so they run one after the other in any order; with
//! `-- --nocapture` or not, every stage is reported with its seconds. Logs and data of the last run stay in
//! `target/tmp/interop-runs`.

mod audit;
mod bad_input;
mod btcd;
mod failure;
mod go;
mod json;
mod lnd;
mod money;
mod ours;
mod poold;
mod process;
mod regtest;
mod trade;

use std::path::Path;

use failure::{Failure, Outcome};
use poold::Poold;
use process::{Stages, Wait, free_port};
use regtest::Network;
use trade::{Program, trade};

/// Runs one case on the shared network and reports its seconds.
fn case(name: &str, body: impl FnOnce(&Network, &Path, &mut Stages) -> Outcome<()>) {
    let outcome = regtest::network().and_then(|network| match network {
        None => Ok(()),
        Some(network) => {
            let mut stages = Stages::new(name);
            body(&network, &network.folder(name)?, &mut stages)
        }
    });
    if let Err(failure) = outcome {
        panic!("{name}: {failure}");
    }
}

#[test]
fn poold_sells_to_poold() {
    case("poold_sells_to_poold", |network, folder, stages| {
        trade(network, folder, stages, Program::Poold, Program::Poold)
    });
}

#[test]
fn poold_sells_to_agent() {
    case("poold_sells_to_agent", |network, folder, stages| {
        trade(network, folder, stages, Program::Poold, Program::Agent)
    });
}

#[test]
fn agent_sells_to_poold() {
    case("agent_sells_to_poold", |network, folder, stages| {
        trade(network, folder, stages, Program::Agent, Program::Poold)
    });
}

#[test]
fn agent_sells_to_agent() {
    case("agent_sells_to_agent", |network, folder, stages| {
        trade(network, folder, stages, Program::Agent, Program::Agent)
    });
}

/// The network itself works: a channel that no auction is involved in. If this fails, no other case says anything.
#[test]
fn nodes_open_an_ordinary_channel() {
    case("nodes_open_an_ordinary_channel", |network, _, stages| {
        let (alice, bob) = (&network.alice, &network.bob);
        let txid = alice.open_channel(&bob.identity()?, 500_000)?;
        stages.done("channel negotiated");
        network.confirm(&txid, 6)?;
        let found = alice
            .channels()?
            .into_iter()
            .find(|channel| channel.point.starts_with(&txid))
            .ok_or_else(|| Failure::new(format!("alice lists no channel of {txid}")))?;
        let (ours, theirs) = (alice.wait_active(&found.point)?, bob.wait_active(&found.point)?);
        assert_eq!((ours.capacity_sat, theirs.capacity_sat), (500_000, 500_000));
        assert!(ours.initiator && !theirs.initiator);
        let output = network.chain.unspent(&found.point)?;
        assert_eq!(output.value_sat, 500_000);
        assert!(output.confirmations >= 6);
        stages.done("channel active");
        Ok(())
    });
}

/// The deployed client starts with nobody at the auctioneer's address, and survives a crash there.
#[test]
fn poold_starts_without_an_auctioneer() {
    case("poold_starts_without_an_auctioneer", |network, folder, stages| {
        let nobody = format!("127.0.0.1:{}", free_port()?);
        let mut poold = Poold::start(&network.programs, &network.alice, &nobody, &folder.join("poold"))?;
        poold.wait_ready()?;
        stages.done("poold answers");
        let refusal = match poold.open_account(1_000_000) {
            Ok(key) => return Err(Failure::new(format!("opened {key} with no auctioneer"))),
            Err(failure) => failure.to_string(),
        };
        assert!(refusal.contains("connection refused"), "{refusal}");
        poold.crash_and_restart()?;
        stages.done("poold killed and back");
        Wait::new("no account was stored").until(|| poold.orders()).map(|_| ())?;
        poold.stop()
    });
}
