//! A run: builds everything from a plan, lets faults happen, heals, and waits until everything rests.

use crate::audit;
use crate::hub::{Hub, WireRates};
use crate::plan::{NatureRates, Plan, PlannedOperator};
use crate::process::{Party, TraderHandle, Watched, run_trader, run_venue};
use crate::record::Violations;
use crate::script::{Script, Stage};
use crate::tally::{self, Counts, Element, Tally};
use bitcoin::TxOut;
use futures_util::FutureExt;
use futures_util::future::join;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use tidegate_auditor::{Auditor, Rule};
use tidegate_ports::{AddressKind, Clock, Sequence, Signer, Store, Timestamp, Wallet};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::{FAMILY_AUCTIONEER, KeyLocator};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};
use tidegate_sandbox::{Cut, Executor, GENESIS_HEIGHT, Gate, Random, Rates, SimClock, World};
use tidegate_trader::{Book, ChangeKind, OwnChange, TraderConfig};
use tidegate_venue::{OperatorWish, VenueConfig};

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
    tally: Tally,
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
    /// What happened, and how often.
    pub happened: Counts,
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
    findings.extend(run.judged(plan.operator.fee_rise.is_some()));
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
        sweep: plan.operator.sweep,
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
        let tally = Tally::default();
        let party = |name: &str, plant| {
            let gate = Gate::new(seed, name, clock.clone());
            let watched = Watched { violations: violations.clone(), tally: tally.clone() };
            Rc::new(Party::new(name, world.add_node(name), gate, watched, plant))
        };
        let venue = party("venue", plan.venue_plant);
        let config = Rc::new(RefCell::new(venue_config(plan)));
        executor.spawn("venue", run_venue(Rc::clone(&venue), Rc::clone(&config), hub.clone(), clock.clone()));
        let stage = Rc::new(Stage::new(tally.clone()));
        let operator = Operator { party: Rc::clone(&venue), config, hub: hub.clone(), clock: clock.clone() };
        executor.spawn("operator", operator.run(plan.operator.clone(), tally.clone()));
        let mut traders = Vec::new();
        for planned in &plan.traders {
            let party = party(&planned.name, planned.plant);
            for _ in 0..COINS {
                world.fund(&party.node, COIN).expect("the miner pays");
            }
            let handle = TraderHandle::default();
            let config = TraderConfig {
                on_fee_rise: planned.on_fee_rise,
                new_nodes_only: planned.new_nodes_only,
                ..TraderConfig::default()
            };
            let life = run_trader(Rc::clone(&party), config, Rc::clone(&handle), hub.clone(), clock.clone());
            executor.spawn(&planned.name, life);
            let script = Script::new(planned.clone(), handle, clock.clone(), Rc::clone(&stage), party.node.clone());
            executor.spawn(&format!("owner of {}", planned.name), script.run());
            traders.push(TraderParty { party, closes: planned.closes, accounts: planned.accounts.len() });
        }
        show_blocks(&hub, &world, GENESIS_HEIGHT + 1);
        let funds = Sats::new(COIN.get() * COINS).expect("an amount");
        let calm = Rc::new(Cell::new(false));
        let audited = Vec::new();
        Run { world, venue, traders, funds, violations, executor, clock, hub, stage, calm, tally, seed, audited }
    }

    /// What the independent auditor finds, at most a few. A venue whose fee rises does not know which fee an order in its
    /// book agreed to, and proposes a match that its trader refuses: no fault of either.
    fn judged(&self, fee_rises: bool) -> Vec<String> {
        let counts = |rule: Rule| !(fee_rises && rule == Rule::ExecutionFee);
        self.hub.audit(|auditor| {
            let findings = auditor.findings().iter().filter(|finding| counts(finding.rule)).take(5);
            findings.map(|finding| format!("auditor: {finding}")).collect()
        })
    }

    /// The wire of this run.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
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
            tally: self.tally.clone(),
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
                // An account that no coins ever reached is given up when its expiry is too near.
                let ended = matches!(account.state, AccountState::Closed | AccountState::CanceledAfterRecovery);
                let rests = ended || (!closes && left);
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
            happened: tally::counts(self),
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
    tally: Tally,
}

impl Nature {
    async fn run(mut self) {
        loop {
            let wait = self.random.between(self.block_ms / 2, self.block_ms * 3 / 2);
            self.clock.sleep(wait).await;
            let rates = if self.calm.get() { NatureRates::default() } else { self.rates };
            self.befall(rates);
            if self.random.chance(rates.undo_waiting) {
                self.undo_deposit(false);
            }
            if self.random.chance(rates.undo_deposit) {
                self.undo_deposit(true);
            }
            let before = self.world.height().get();
            let mut depth = 0;
            if self.random.chance(rates.reorganisation) {
                depth = u32::try_from(self.random.between(1, rates.max_depth)).unwrap_or(1);
                let empty = u32::try_from(self.random.between(0, u64::from(depth) + 1)).unwrap_or(0);
                self.world.reorganise(depth, empty);
                self.tally.count(Element::Reorganisation);
            } else if self.random.chance(rates.storm) {
                self.world.mine(STORM);
                self.tally.count(Element::Storm);
            } else {
                self.world.mine(1);
            }
            show_blocks(&self.hub, &self.world, before.saturating_sub(depth) + 1);
        }
    }

    /// Spends a coin of a deposit elsewhere: of one that waits for its first block, or of one in the last block, after
    /// taking that back.
    fn undo_deposit(&self, mined: bool) {
        for party in &self.parties {
            let book = party.record.book();
            let deposits = book.changes.values().filter(|change| change.kind == ChangeKind::Deposit && !change.void);
            for txid in deposits.map(OwnChange::txid) {
                let best = self.world.height();
                match self.world.transaction(txid) {
                    Some((_, Some(height))) if mined && height == best => {
                        self.world.reorganise(1, 2);
                        show_blocks(&self.hub, &self.world, best.get());
                    }
                    Some((_, None)) if !mined => {}
                    Some(_) | None => continue,
                }
                if let Some(payment) = self.world.double_spend(txid, SatPerKw::new(2_000)) {
                    party.record.pays(&payment);
                    self.tally.count(Element::DepositUndone);
                    return;
                }
            }
        }
    }

    fn befall(&mut self, rates: NatureRates) {
        let Nature { random, parties, world, tally, .. } = self;
        if random.chance(rates.node_restart) {
            random.pick(parties).node.restart();
            tally.count(Element::NodeRestart);
        }
        if random.chance(rates.kill) {
            random.pick(parties).gate.kill();
            tally.count(Element::Kill);
        }
        if random.chance(rates.disconnect) {
            world.disconnect(&random.pick(parties).node, &random.pick(parties).node);
            tally.count(Element::Disconnection);
        }
        if random.chance(rates.fee_change) {
            world.set_fee_rate(SatPerKw::new(random.between(253, 1_500)));
        }
        if random.chance(rates.lose) {
            let waiting = world.mempool();
            let lost = (!waiting.is_empty()).then(|| random.pick(&waiting).compute_txid());
            lost.filter(|txid| world.lose(*txid)).into_iter().for_each(|txid| tally.lost(txid));
        }
    }
}

/// Who runs the venue. Not part of its process.
struct Operator {
    party: Rc<Party>,
    config: Rc<RefCell<VenueConfig>>,
    hub: Hub,
    clock: SimClock,
}

impl Operator {
    async fn run(self, plan: PlannedOperator, tally: Tally) {
        let began = self.clock.now();
        let rise = async {
            let Some((at_ms, rate_ppm)) = plan.fee_rise else { return };
            self.clock.sleep_until(began.plus_ms(at_ms)).await;
            self.config.borrow_mut().execution_fee.rate_ppm = u64::from(rate_ppm);
            self.party.gate.kill();
        };
        let withdraw = async {
            for (at_ms, sat) in &plan.withdrawals {
                self.clock.sleep_until(began.plus_ms(*at_ms)).await;
                let Ok(script_pubkey) = self.party.node.new_address(AddressKind::Taproot).await else { continue };
                tally.wanted(&script_pubkey);
                let output = TxOut { value: bitcoin::Amount::from_sat(*sat), script_pubkey };
                let wish = OperatorWish { withdrawals: vec![output], rate: None };
                while !self.asked(&wish).await {
                    self.clock.sleep(5_000).await;
                }
            }
        };
        join(rise, withdraw).await;
    }

    /// Whether the venue took the wish.
    async fn asked(&self, wish: &OperatorWish) -> bool {
        match self.hub.venue() {
            Some(venue) => venue.wish(wish.clone()).await.is_ok(),
            None => false,
        }
    }
}

/// Cuts at the same call of two lives in a row.
pub fn twice(cut: Cut) -> Vec<Cut> {
    vec![cut, Cut { calls: cut.calls.min(12), ..cut }]
}
