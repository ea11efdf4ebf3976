//! Runs by seed.

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_sim::{Plan, Report, run};

/// Seeds of faulty runs in a plain test run; `TIDEGATE_SIM_SEEDS` sets another number.
const SEEDS: u64 = 500;

/// Seeds that found something once.
const REGRESSIONS: &[u64] = &[];

/// Runs a seed; a failure of any kind becomes a text that says how to run it again.
fn attempt(plan: &Plan) -> Result<Report, String> {
    let seed = plan.seed;
    match catch_unwind(AssertUnwindSafe(|| run(plan))) {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(format!(
                "seed {seed} panics: {text}\nrerun: TIDEGATE_SIM_SEED={seed} cargo test -p tidegate-sim --test sim -- rerun --nocapture"
            ))
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

/// Runs all plans, and says of every one that failed how to run it again.
fn all(plans: impl Iterator<Item = Plan>) -> Vec<Report> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for plan in plans {
        match attempt(&plan) {
            Ok(report) => reports.push(report),
            Err(failure) => {
                println!("{failure}");
                failures.push(plan.seed);
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} seeds fail: {failures:?}", failures.len(), failures.len() + reports.len());
    reports
}

fn summary(what: &str, reports: &[Report]) -> (usize, usize) {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let (batches, leases) = (sum(|report| report.batches), sum(|report| report.leases));
    let lives: u64 = reports.iter().map(|report| report.lives).sum();
    let hours = reports.iter().map(|report| report.duration_ms).sum::<u64>() / 3_600_000;
    println!(
        "{what}: {} runs, {batches} batches, {leases} leases, {lives} process starts, {hours} virtual hours",
        reports.len()
    );
    (batches, leases)
}

#[test]
fn honest_runs_trade_and_come_to_rest() {
    let reports = all((0..20).map(Plan::honest));
    let (batches, leases) = summary("honest", &reports);
    assert!(batches > 10 && leases > 10, "{batches} batches and {leases} leases");
}

#[test]
fn faulty_runs_lose_nothing_and_come_to_rest() {
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let reports = all(REGRESSIONS.iter().copied().chain(0..seeds).map(Plan::faulty));
    let (batches, _) = summary("faulty", &reports);
    let trading = reports.iter().filter(|report| report.batches > 0).count();
    assert!(trading * 3 > reports.len(), "faults leave too little trade to be of use: {batches} batches");
}

#[test]
fn a_fresh_seed_loses_nothing_and_comes_to_rest() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_nanos();
    let seed = u64::try_from(now % u128::from(u64::MAX)).expect("it is below the largest number");
    println!("fresh seed {seed}");
    all([Plan::faulty(seed)].into_iter());
}

/// The seed of `TIDEGATE_SIM_SEED`, with its log; the first seed otherwise.
#[test]
fn rerun() {
    let seed = number("TIDEGATE_SIM_SEED").unwrap_or(0);
    if env::var_os("TIDEGATE_SIM_SEED").is_some() {
        let log =
            tracing_subscriber::fmt().with_env_filter("tidegate_trader=debug,tidegate_venue=debug").without_time();
        log.with_ansi(false).init();
    }
    println!("{:#?}", Plan::faulty(seed));
    all([Plan::faulty(seed)].into_iter());
}

#[test]
fn one_seed_is_one_run() {
    let reports: Vec<Report> = all([7, 7, 8].into_iter().map(Plan::faulty));
    assert_eq!(reports[0], reports[1], "the same seed is the same run, poll by poll");
    assert_ne!(reports[0], reports[2]);
    let polls: BTreeSet<u64> =
        (0..5).map(|seed| attempt(&Plan::faulty(seed)).map_or(0, |report| report.polls)).collect();
    assert!(polls.len() > 3, "seeds differ: {polls:?}");
}
