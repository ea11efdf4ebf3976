//! A run: builds everything from a plan, lets faults happen, heals, and waits until everything rests.

use crate::audit;
use crate::hub::{Hub, WireRates};
use crate::plan::{NatureRates, Plan};
use crate::process::{Party, TraderHandle, run_trader, run_venue};
use crate::record::Violations;
use crate::script::{Script, Stage};
use futures_util::FutureExt;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use tidegate_auditor::Auditor;
use tidegate_ports::{Clock, Sequence, Signer, Store, Timestamp};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::{FAMILY_AUCTIONEER, KeyLocator};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};
use tidegate_sandbox::{Cut, Executor, GENESIS_HEIGHT, Gate, Random, Rates, SimClock, World};
use tidegate_trader::Book;
use tidegate_venue::VenueConfig;

/// When every run begins.
const START: Timestamp = Timestamp(1_700_000_000_000);
/// What every trader's node owns at the start, in three outputs.
const COIN: Sats = Sats::constant(5_000_000);
const COINS: u64 = 3;
/// From look to look while waiting for rest, in milliseconds.
const REST_STEP_MS: u64 = 60_000;
/// Longest time until everything rests after the faults stopped.
const REST_MS: u64 = 4 * 3_600_000;

/// Blocks that come at once in a storm.
const STORM: u32 = 120;

/// A trader of a run.
pub struct TraderParty {
    /// What its processes share.
    pub party: Rc<Party>,
    /// It closes everything at the end.
    pub closes: bool,
    /// Accounts that it opens.
    pub accounts: usize,
}

/// Everything of one run.
pub struct Run {
    /// The chain and its nodes.
    pub world: World,
    /// The venue.
    pub venue: Rc<Party>,
    /// The traders.
    pub traders: Vec<TraderParty>,
    /// What each trader's node was given.
    pub funds: Sats,
    violations: Violations,
    executor: Executor,
    clock: SimClock,
    hub: Hub,
    stage: Rc<Stage>,
    calm: Rc<Cell<bool>>,
    seed: u64,
    /// Commits of all stores at the last audit.
    audited: Vec<Option<Sequence>>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Batches that the venue made.
    pub batches: usize,
    /// Channels that were leased.
    pub leases: usize,
    /// Deposits, withdrawals and renewals that were published.
    pub changes: usize,
    /// Starts of processes.
    pub lives: u64,
    /// Polls of the executor: two runs of one seed have the same.
    pub polls: u64,
    /// Height of the chain.
    pub height: u32,
    /// Virtual milliseconds.
    pub duration_ms: u64,
    /// Calls of each process through its gate: the venue's, then the traders'.
    pub calls: Vec<u64>,
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong, in sentences.
    pub findings: Vec<String>,
    /// Its seed.
    pub seed: u64,
    /// What a person types to see it again.
    pub rerun: String,
    /// What it came to nevertheless.
    pub report: Box<Report>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails:", self.seed)?;
        for finding in &self.findings {
            writeln!(f, "  {finding}")?;
        }
        write!(f, "rerun: {}", self.rerun)
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// [`Failure`] with everything that was found.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    run_with(plan, |_| {})
}

/// As [`run`]; `plant` may spoil the run before it begins.
///
/// # Errors
/// [`Failure`].
pub fn run_with(plan: &Plan, plant: impl FnOnce(&Run)) -> Result<Report, Failure> {
    let mut run = Run::new(plan);
    plant(&run);
    let result = run.live(plan);
    let mut findings: Vec<String> = result.err().into_iter().flatten().collect();
    findings.extend(run.violations.list());
    findings.extend(run.judged());
    let report = run.report();
    if findings.is_empty() {
        Ok(report)
    } else {
        Err(Failure { findings, seed: plan.seed, rerun: plan.rerun.clone(), report: Box::new(report) })
    }
}

fn venue_config(plan: &Plan) -> VenueConfig {
    VenueConfig {
        tick_ms: Some(plan.tick_ms),
        step_timeout_ms: 15_000,
        funding_conflict_ms: 30_000,
        duplicate_peer_conflict_ms: 30_000,
        ..VenueConfig::usual("regtest")
    }
}

/// The independent auditor of this world. It is told the accounts' secrets, so that it judges every script.
fn auditor(world: &World) -> Auditor {
    let venue = world.add_node("venue");
    let place = KeyLocator { family: FAMILY_AUCTIONEER, index: 0 };
    Auditor::with_secrets(Box::new(move |trader, auctioneer| {
        let key = venue.derive_key(place).now_or_never()?.ok()?;
        let secret = venue.shared_secret(trader, place).now_or_never()?.ok()?;
        (key.point == *auctioneer).then_some(*secret.as_bytes())
    }))
}

/// Shows the auditor what blocks hold from this height on.
fn show_blocks(hub: &Hub, world: &World, from: u32) {
    for block in (from..=world.height().get()).filter_map(|height| world.block(BlockHeight::new(height))) {
        hub.audit(|auditor| block.iter().for_each(|transaction| auditor.transaction(transaction)));
    }
}

impl Run {
    fn new(plan: &Plan) -> Run {
        let seed = plan.seed;
        let world = World::new(seed);
        let mut executor = Executor::new(seed, START);
        let clock = executor.clock();
        let hub = Hub::new(seed, clock.clone(), auditor(&world));
        let violations = Violations::default();
        let party = |name: &str, plant| {
            let gate = Gate::new(seed, name, clock.clone());
            Rc::new(Party::new(name, world.add_node(name), gate, violations.clone(), plant))
        };
        let venue = party("venue", plan.venue_plant);
        executor.spawn("venue", run_venue(Rc::clone(&venue), venue_config(plan), hub.clone(), clock.clone()));
        let stage = Rc::new(Stage::default());
        let mut traders = Vec::new();
        for planned in &plan.traders {
            let party = party(&planned.name, planned.plant);
            for _ in 0..COINS {
                world.fund(&party.node, COIN).expect("the miner pays");
            }
            let handle = TraderHandle::default();
            let life = run_trader(Rc::clone(&party), Rc::clone(&handle), hub.clone(), clock.clone());
            executor.spawn(&planned.name, life);
            let script = Script::new(planned.clone(), handle, clock.clone(), Rc::clone(&stage), party.node.clone());
            executor.spawn(&format!("owner of {}", planned.name), script.run());
            traders.push(TraderParty { party, closes: planned.closes, accounts: planned.accounts.len() });
        }
        show_blocks(&hub, &world, GENESIS_HEIGHT + 1);
        let funds = Sats::new(COIN.get() * COINS).expect("an amount");
        let calm = Rc::new(Cell::new(false));
        Run { world, venue, traders, funds, violations, executor, clock, hub, stage, calm, seed, audited: Vec::new() }
    }

    /// What the independent auditor finds, at most a few.
    fn judged(&self) -> Vec<String> {
        self.hub
            .audit(|auditor| auditor.findings().iter().take(5).map(|finding| format!("auditor: {finding}")).collect())
    }

    /// The wire of this run.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    fn nodes(&self) -> Vec<Rc<Party>> {
        let traders = self.traders.iter().map(|trader| Rc::clone(&trader.party));
        traders.chain([Rc::clone(&self.venue)]).collect()
    }

    fn live(&mut self, plan: &Plan) -> Result<(), Vec<String>> {
        self.set_faults(plan);
        let nature = Nature {
            world: self.world.clone(),
            parties: self.nodes(),
            random: Random::named(self.seed, "nature"),
            rates: plan.nature,
            block_ms: plan.block_ms,
            clock: self.clock.clone(),
            hub: self.hub.clone(),
            calm: Rc::clone(&self.calm),
        };
        self.executor.spawn("nature", nature.run());
        self.pass(plan.faults_ms)?;
        self.heal();
        self.pass(plan.calm_ms)?;
        self.stage.closing.set(true);
        let deadline = self.clock.now().plus_ms(REST_MS);
        let mut last = audit::Findings::default();
        while self.clock.now() < deadline {
            self.pass(REST_STEP_MS)?;
            if !self.violations.list().is_empty() {
                return Ok(());
            }
            if self.restless().is_empty() {
                last = audit::at_rest(self);
                if last.0.is_empty() {
                    return Ok(());
                }
            }
        }
        let findings = if last.0.is_empty() { audit::at_rest(self) } else { last };
        let stuck = "no rest within bounded time:".to_owned();
        Err([stuck].into_iter().chain(self.restless()).chain(findings.0).collect())
    }

    /// Lets time pass in steps of a minute, and audits after each.
    fn pass(&mut self, ms: u64) -> Result<(), Vec<String>> {
        let until = self.clock.now().plus_ms(ms);
        while self.clock.now() < until {
            let next = self.clock.now().plus_ms(60_000).min(until);
            self.executor.run_until(next).map_err(|stuck| vec![stuck.to_string()])?;
            self.audit()?;
        }
        Ok(())
    }

    /// Audits whatever changed since the last audit.
    fn audit(&mut self) -> Result<(), Vec<String>> {
        let commits = |party: &Rc<Party>| party.rows.load(&[]).now_or_never().and_then(Result::ok).map(|(at, _)| at);
        let commits: Vec<Option<Sequence>> = self.nodes().iter().map(commits).collect();
        if self.audited == commits {
            return Ok(());
        }
        self.audited = commits;
        let findings = audit::always(self);
        if findings.0.is_empty() { Ok(()) } else { Err(findings.0) }
    }

    fn set_faults(&self, plan: &Plan) {
        self.venue.gate.set_rates(plan.venue_rates);
        self.venue.gate.set_cuts(&plan.venue_cuts);
        for (trader, planned) in self.traders.iter().zip(&plan.traders) {
            trader.party.gate.set_rates(plan.trader_rates);
            trader.party.gate.set_cuts(&planned.cuts);
        }
        self.hub.set_rates(plan.wire_rates);
    }

    /// Faults stop. Planned cuts stay: they name their calls.
    fn heal(&self) {
        for party in self.nodes() {
            party.gate.set_rates(Rates::default());
        }
        self.hub.set_rates(WireRates::default());
        self.calm.set(true);
        self.world.set_fee_rate(SatPerKw::FLOOR);
    }

    /// Accounts that are not where their owners want them.
    fn restless(&self) -> Vec<String> {
        let mut restless = Vec::new();
        for TraderParty { party, closes, accounts } in &self.traders {
            let book: Book = party.record.book();
            if book.accounts.len() != *accounts {
                restless.push(format!("{}: opened {} of {accounts} accounts", party.name, book.accounts.len()));
            }
            for account in book.accounts.values() {
                let left = matches!(account.state, AccountState::Open | AccountState::Expired);
                let rests = account.state == AccountState::Closed || (!closes && left);
                if !rests {
                    let why = self.stage.refusals.borrow().get(&account.key()).cloned().unwrap_or_default();
                    restless.push(format!("{}: {} stays {:?}: {why}", party.name, account.key(), account.state));
                }
            }
        }
        restless
    }

    fn report(&self) -> Report {
        let parties = self.nodes();
        let books = self.traders.iter().map(|trader| trader.party.record.book());
        Report {
            batches: audit::VenueBook::read(&self.venue).batches(),
            leases: books.map(|book| book.leases.values().filter(|lease| lease.maker).count()).sum(),
            changes: self.traders.iter().map(|trader| trader.party.record.recreations()).sum(),
            lives: parties.iter().map(|party| party.lives.get()).sum(),
            polls: self.executor.polls(),
            height: self.world.height().get(),
            duration_ms: self.clock.now().0 - START.0,
            calls: parties.iter().rev().map(|party| party.gate.calls()).collect(),
        }
    }
}

/// Blocks, and what befalls chain and nodes with them.
struct Nature {
    world: World,
    parties: Vec<Rc<Party>>,
    random: Random,
    rates: NatureRates,
    block_ms: u64,
    clock: SimClock,
    hub: Hub,
    calm: Rc<Cell<bool>>,
}

impl Nature {
    async fn run(mut self) {
        loop {
            let wait = self.random.between(self.block_ms / 2, self.block_ms * 3 / 2);
            self.clock.sleep(wait).await;
            let rates = if self.calm.get() { NatureRates::default() } else { self.rates };
            self.befall(rates);
            let before = self.world.height().get();
            let mut depth = 0;
            if self.random.chance(rates.reorganisation) {
                depth = u32::try_from(self.random.between(1, rates.max_depth)).unwrap_or(1);
                let empty = u32::try_from(self.random.between(0, u64::from(depth) + 1)).unwrap_or(0);
                self.world.reorganise(depth, empty);
            } else if self.random.chance(rates.storm) {
                self.world.mine(STORM);
            } else {
                self.world.mine(1);
            }
            show_blocks(&self.hub, &self.world, before.saturating_sub(depth) + 1);
        }
    }

    fn befall(&mut self, rates: NatureRates) {
        let Nature { random, parties, world, .. } = self;
        if random.chance(rates.node_restart) {
            random.pick(parties).node.restart();
        }
        if random.chance(rates.kill) {
            random.pick(parties).gate.kill();
        }
        if random.chance(rates.disconnect) {
            world.disconnect(&random.pick(parties).node, &random.pick(parties).node);
        }
        if random.chance(rates.fee_change) {
            world.set_fee_rate(SatPerKw::new(random.between(253, 1_500)));
        }
    }
}

/// Cuts at the same call of two lives in a row.
pub fn twice(cut: Cut) -> Vec<Cut> {
    vec![cut, Cut { calls: cut.calls.min(12), ..cut }]
}
