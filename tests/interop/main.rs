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
//!
//! A plain run trades three rows of the matrix for each pairing of programs, and leaves out what takes long or mirrors
//! another case. `TIDEGATE_INTEROP=all` runs everything and writes `docs/interop.md`.

mod audit;
mod bad_input;
mod btcd;
mod client;
mod company;
mod failure;
mod go;
mod group;
mod json;
mod kills;
mod lifecycle;
mod link;
mod lnd;
mod matrix;
mod money;
mod ours;
mod pool;
mod poold;
mod process;
mod regtest;
mod results;
mod several;
mod trade;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use failure::{Failure, Outcome};
use group::Group;
use kills::Victim;
use matrix::Pairing;
use poold::Poold;
use process::{Stages, Wait, free_port, report};
use regtest::Network;
use results::Ending;
use trade::{Program, Side, trade};

/// Runs one case on the shared network and reports its seconds. How it ends is noted for the report.
fn case(name: &str, body: impl FnOnce(&Network, &Path, &mut Stages) -> Outcome<()>) {
    assert!(results::knows(name), "{name} is not in the report's list of cases");
    let run = || {
        regtest::network().and_then(|network| match network {
            None => Ok(false),
            Some(network) => {
                network.heal()?;
                let mut stages = Stages::new(name);
                body(&network, &network.folder(name)?, &mut stages).map(|()| true)
            }
        })
    };
    let caught = catch_unwind(AssertUnwindSafe(run));
    let noted = match &caught {
        // Skipped.
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => results::record(name, None, Ending::Passed),
        Ok(Err(_)) | Err(_) => results::record(name, None, Ending::Failed),
    };
    match caught {
        Ok(outcome) => {
            if let Err(failure) = outcome.map(|_| ()).and(noted) {
                panic!("{name}: {failure}");
            }
        }
        Err(panic) => resume_unwind(panic),
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
        let refusal = match poold.cli.open_account(1_000_000, pool::AccountVersion::V2, trade::ACCOUNT_BLOCKS) {
            Ok(key) => return Err(Failure::new(format!("opened {key} with no auctioneer"))),
            Err(failure) => failure.to_string(),
        };
        assert!(refusal.contains("connection refused"), "{refusal}");
        poold.crash_and_restart()?;
        stages.done("poold killed and back");
        Wait::new("no account was stored").until(|| poold.cli.orders()).map(|_| ())?;
        poold.stop()
    });
}

/// The rows of the matrix for one pairing of programs, one market for all of them.
fn matrix_of(pairing: Pairing) {
    let name = results::matrix_name(pairing);
    case(&name, |network, folder, stages| {
        let mut group = Group::open(network, pairing, folder)?;
        stages.done("market open, an account of each version on both sides");
        for (row, setting) in matrix::settings_of(pairing, results::all()).iter().enumerate() {
            group.lease(setting)?;
            results::record(&name, Some(row), Ending::Passed)?;
            stages.done(&setting.describe());
        }
        group.close()?;
        stages.done("all accounts closed");
        Ok(())
    });
}

#[test]
fn matrix_poold_sells_to_poold() {
    matrix_of(matrix::PAIRINGS[0]);
}

/// Deposit, withdrawal, renewal, upgrades and close, with a lease in between, for one pairing of programs.
fn lifecycle_of(name: &str, pairing: Pairing) {
    use lifecycle::{Change, Wish, change_all, refusals};
    case(name, |network, folder, stages| {
        let mut group = Group::open(network, pairing, folder)?;
        stages.done("market open, an account of each version on both sides");
        let wish = |change, expiry_blocks, upgrade| Wish { change, expiry_blocks, upgrade };
        let kept = [
            wish(Change::Deposit, None, false),
            wish(Change::Withdraw, None, false),
            wish(Change::Renew, Some(9_000), false),
        ];
        for wish in kept {
            change_all(&mut group, wish)?;
            stages.done(&wish.describe());
        }
        refusals(&group)?;
        stages.done("refusals");
        if !results::all() {
            return group.close();
        }
        for setting in matrix::settings_of(pairing, false) {
            group.lease(&setting)?;
            stages.done(&setting.describe());
        }
        for wish in [wish(Change::Withdraw, Some(10_000), false), wish(Change::Deposit, Some(11_000), true)] {
            change_all(&mut group, wish)?;
            stages.done(&wish.describe());
        }
        group.close()?;
        stages.done("all accounts closed");
        Ok(())
    });
}

#[test]
fn lifecycle_of_poold_accounts() {
    lifecycle_of("lifecycle_of_poold_accounts", matrix::PAIRINGS[0]);
}

#[test]
fn matrix_poold_sells_to_agent() {
    matrix_of(matrix::PAIRINGS[1]);
}

#[test]
fn matrix_agent_sells_to_poold() {
    matrix_of(matrix::PAIRINGS[2]);
}

#[test]
fn matrix_agent_sells_to_agent() {
    matrix_of(matrix::PAIRINGS[3]);
}

#[test]
fn lifecycle_of_our_accounts() {
    lifecycle_of("lifecycle_of_our_accounts", matrix::PAIRINGS[3]);
}

/// Several leases at once, batches in a row and a reorganisation, for one pairing of programs.
fn several_of(name: &str, pairing: Pairing) {
    case(name, |network, folder, stages| {
        let mut group = Group::open(network, pairing, folder)?;
        stages.done("market open, an account of each version on both sides");
        several::several_matches(&mut group)?;
        stages.done("three matches between two nodes in one batch, one partial, its rest cancelled");
        several::unconfirmed_batches(&mut group)?;
        stages.done("three batches before a block");
        several::reorganisation(&mut group)?;
        stages.done("a reorganisation of a batch's block");
        group.close()?;
        stages.done("all accounts closed");
        Ok(())
    });
}

#[test]
fn several_poold_sells_to_agent() {
    if !results::all() {
        return report("several_poold_sells_to_agent: its mirror image is enough here; run with TIDEGATE_INTEROP=all");
    }
    several_of("several_poold_sells_to_agent", matrix::PAIRINGS[1]);
}

#[test]
fn several_agent_sells_to_poold() {
    several_of("several_agent_sells_to_poold", matrix::PAIRINGS[2]);
}

/// Our trader and its node killed at every moment of a batch, then the venue, for one pairing of programs.
fn kills_of(name: &str, pairing: Pairing, ours: Side) {
    case(name, |network, folder, stages| {
        let mut group = Group::open(network, pairing, folder)?;
        stages.done("market open, an account of each version on both sides");
        // A node takes long to come back.
        let moments = kills::MOMENTS.into_iter().filter(|moment| results::all() || moment.victim == Victim::Trader);
        let (traders, nodes): (Vec<_>, Vec<_>) = moments.partition(|moment| moment.victim == Victim::Trader);
        let lease = |group: &mut Group<'_>, stages: &mut Stages, round, moment: kills::Moment| -> Outcome<()> {
            kills::lease_with_a_kill(group, ours, moment, round)
                .map_err(|failure| Failure::new(format!("{}: {failure}", moment.words)))?;
            stages.done(moment.words);
            Ok(())
        };
        for (round, moment) in traders.into_iter().enumerate() {
            lease(&mut group, stages, round, moment)?;
        }
        kills::venue_dies_before_it_publishes(&mut group)?;
        stages.done("the venue killed between storing and publishing");
        group.close()?;
        stages.done("all accounts closed");
        if nodes.is_empty() {
            return Ok(());
        }
        // On a market of their own: a deployed client that was cut off in a batch refuses the next one once.
        let mut group = Group::open(network, pairing, &folder.join("nodes"))?;
        stages.done("a second market open");
        for (round, moment) in nodes.into_iter().enumerate() {
            lease(&mut group, stages, round, moment)?;
        }
        group.close()?;
        stages.done("all accounts closed");
        Ok(())
    });
}

#[test]
fn kills_our_buyer() {
    kills_of("kills_our_buyer", matrix::PAIRINGS[1], Side::Buyer);
}

#[test]
fn kills_our_seller() {
    kills_of("kills_our_seller", matrix::PAIRINGS[2], Side::Seller);
}

#[test]
fn expired_accounts_leave_without_a_venue() {
    case("expired_accounts_leave_without_a_venue", |network, folder, stages| {
        let blocks = company::SHORT_ACCOUNT_BLOCKS;
        let mut group = Group::open_for(network, matrix::PAIRINGS[3], folder, blocks)?;
        stages.done("market open, an account of each version on both sides");
        company::leave_after_expiry(&mut group)?;
        stages.done("the venue is gone, all accounts expired and taken home");
        Ok(())
    });
}

#[test]
fn expired_accounts_are_renewed() {
    case("expired_accounts_are_renewed", |network, folder, stages| {
        let blocks = company::SHORT_ACCOUNT_BLOCKS;
        let mut group = Group::open_for(network, matrix::PAIRINGS[1], folder, blocks)?;
        stages.done("market open, an account of each version on both sides");
        company::renew_expired(&mut group)?;
        stages.done("all accounts expired, renewed, and one pair traded");
        group.close()
    });
}

#[test]
fn leases_close_at_maturity_and_not_before() {
    case("leases_close_at_maturity_and_not_before", |network, folder, stages| {
        let mut group = Group::open(network, matrix::PAIRINGS[2], folder)?;
        stages.done("market open, an account of each version on both sides");
        company::close_at_maturity(&mut group)?;
        stages.done("two leases, refused a close before their end, closed after it");
        group.close()
    });
}

#[test]
fn nodes_are_shared_with_other_programs() {
    case("nodes_are_shared_with_other_programs", |network, folder, stages| {
        let mut group = Group::open(network, matrix::PAIRINGS[3], folder)?;
        stages.done("market open, an account of each version on both sides");
        company::share_the_node(&mut group, folder)?;
        stages.done("channel, locks and acceptor of other programs beside a batch and a deposit");
        group.close()
    });
}
