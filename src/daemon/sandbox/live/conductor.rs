//! Moves the live market: blocks in their rhythm, clearings every few of them, faults by their plan; and tells what
//! happens.

use super::crowd::{Board, Crowd, DURATION, Player, takes_part};
use super::faults::SPIKE;
use super::ground::Ground;
use super::habits::CAST;
use super::hostile::Caught;
use super::ours::{NAME, Ours};
use super::scene::{self, ClearingLine, NodeLine, Scene, Sources};
use super::{Event, LiveSettings, Ports, Rhythm, Told, hostile};
use crate::daemon::crew::Crew;
use crate::daemon::parts::VenueParts;
use crate::runtime::{Shutdown, SystemClock};
use crate::store::SqliteStore;
use crate::venue::{self, GrpcTraders};
use anyhow::Context as _;
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_ports::{AddressKind, BatchSnapshot, Wallet as _};
use tidegate_protocol::keys::{BatchId, NodeId};
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{SatPerKw, Sats};
use tidegate_sandbox::{Demand, SandboxNode};
use tidegate_trader::Handle;
use tidegate_venue::{Ratings, TickOutcome, VenueConfig};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Coins that everybody starts with.
const ENDOWMENT: Sats = Sats::constant(2_000_000_000);
/// Confirmation target shown in the terms.
const CONF_TARGET: u32 = 6;
/// Blocks of the opening, at most, and the pause between them: accounts need confirmations, and nobody wants to wait.
const OPENING_BLOCKS: u32 = 100;
const OPENING_PAUSE: Duration = Duration::from_millis(100);
/// Shortest pause between two scenes.
const SCENE_PAUSE: Duration = Duration::from_millis(200);
/// How far blocks may be behind before what is missing is given up, as after a suspended machine.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Longest wait for tasks at the end.
const GRACE: Duration = Duration::from_millis(1_200);
/// Clearings that are kept to be shown.
const SHOWN: u32 = 60;
/// What our customers pay our node through the channels that it bought, per block.
const OUR_RECEIPTS: u64 = 60_000;
/// Answers to lies that wait to be told.
const ANSWERS: usize = 64;

/// A clearing under way.
type Clearing = JoinHandle<(Crowd, Option<TickOutcome>)>;

/// Everything that runs.
struct Live {
    settings: LiveSettings,
    rhythm: Rhythm,
    ground: Ground,
    venue: tidegate_venue::Handle,
    ours: Ours,
    /// At home, or out in a clearing.
    crowd: Option<Crowd>,
    clearing: Option<Clearing>,
    handles: Vec<Handle>,
    names: BTreeMap<NodeId, String>,
    demand: Demand,
    caught: mpsc::Receiver<Caught>,
    crew: Crew,
    stop: Shutdown,
    /// Best block when the market opened.
    opened: u32,
    next_clearing: u32,
    node_down: bool,
    fees_high: bool,
    fee_rate: SatPerKw,
    snapshots: Vec<BatchSnapshot>,
    last_attempt: String,
    leases: BTreeSet<OutPoint>,
    behind: u64,
    given_up: u64,
    last_scene: Option<Instant>,
}

/// Runs the market until `wanted`; what happens is told on `tell`.
///
/// # Errors
/// When a part can not be started, or when its state can not be trusted any more.
pub async fn run_live(settings: &LiveSettings, wanted: &Shutdown, mut tell: impl FnMut(Told)) -> anyhow::Result<()> {
    let mut live = Live::start(settings.clone()).await?;
    let outcome = match live.open(wanted, &mut tell).await {
        Ok(()) => live.run(wanted, &mut tell).await,
        Err(error) => Err(error),
    };
    let height = live.ground.world.height().get();
    // A part that ended by itself says why; whoever missed it only knows that it is gone.
    live.close().await?;
    outcome?;
    tell(Told::Event(Event::Stopped { height }));
    Ok(())
}

impl Live {
    /// Starts everybody.
    async fn start(settings: LiveSettings) -> anyhow::Result<Live> {
        let (rhythm, ports) = (Rhythm::of(settings.speed), Ports::of(settings.listen)?);
        let mut ground = Ground::open(&settings.data_dir, settings.seed).await?;
        let stop = Shutdown::default();
        let mut crew = Crew::new(stop.clone());
        endow(&mut ground).await?;
        let folder = settings.data_dir.clone();
        let (venue, address) = start_venue(&ground, ports.venue, &folder, &mut crew, &stop).await?;
        let (caught_by, caught) = mpsc::channel(ANSWERS);
        let route = match settings.faults.hostile_venue {
            true => hostile::start(address, caught_by, stop.clone()).await?,
            false => address,
        };
        let mut players = Vec::new();
        let mut demand = Demand::new(ground.seed(), ground.start());
        for cast in &CAST {
            let player = Player::start(&ground, cast, &address.to_string(), &folder, &mut crew).await?;
            demand.set(player.node.id(), cast.habit.receipts());
            players.push(player);
        }
        let run = (settings.role, rhythm, ports);
        let mut ours = Ours::start(&ground, run, (route, &folder), &mut crew, &stop).await?;
        ours.served.venue = address.to_string();
        demand.set(ours.node.id(), OUR_RECEIPTS);
        let mut names: BTreeMap<NodeId, String> =
            players.iter().map(|player| (player.node.id(), player.name.to_owned())).collect();
        names.insert(ours.node.id(), NAME.to_owned());
        let handles = players.iter().map(|player| player.trader.clone()).chain([ours.trader.clone()]).collect();
        let fee_rate = SatPerKw::FLOOR;
        ground.world.set_fee_rate(fee_rate);
        ground.world.reconnect();
        Ok(Live {
            settings,
            rhythm,
            venue,
            ours,
            crowd: Some(Crowd(players)),
            clearing: None,
            handles,
            names,
            demand,
            caught,
            crew,
            stop,
            opened: ground.world.height().get(),
            next_clearing: 0,
            node_down: false,
            fees_high: false,
            fee_rate,
            snapshots: Vec::new(),
            last_attempt: "none yet".to_owned(),
            leases: BTreeSet::new(),
            behind: 0,
            given_up: 0,
            last_scene: None,
            ground,
        })
    }

    /// Quick blocks until everybody has an account that takes part.
    async fn open(&mut self, wanted: &Shutdown, tell: &mut impl FnMut(Told)) -> anyhow::Result<()> {
        for _ in 0..OPENING_BLOCKS {
            if wanted.is_wanted() || self.stop.is_wanted() || self.everybody_takes_part().await {
                break;
            }
            if let Some(crowd) = &mut self.crowd {
                crowd.act(Board::default(), |_| 0).await;
            }
            self.ground.block().await?;
            tokio::time::sleep(OPENING_PAUSE).await;
        }
        self.refresh_snapshots().await;
        let status = self.ours.trader.status().await?;
        self.leases = status.leases.iter().map(|lease| lease.channel).collect();
        self.opened = self.ground.world.height().get();
        self.next_clearing = self.opened;
        let (height, start, served) = (self.opened, self.ground.start(), self.ours.served.clone());
        tell(Told::Event(Event::Opened { height, start, served }));
        self.begin_clearing();
        self.show(tell, true).await;
        Ok(())
    }

    async fn everybody_takes_part(&self) -> bool {
        let Some(crowd) = &self.crowd else { return true };
        crowd.takes_part().await && self.ours.trader.status().await.is_ok_and(|status| takes_part(&status))
    }

    /// Blocks and clearings until somebody wants it to end.
    async fn run(&mut self, wanted: &Shutdown, tell: &mut impl FnMut(Told)) -> anyhow::Result<()> {
        let pause = Duration::from_secs_f64(1.0 / self.settings.speed.max(f64::MIN_POSITIVE));
        let mut due = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = wanted.wanted() => return Ok(()),
                // A task ended by itself; why is told when the crew is joined.
                () = self.stop.wanted() => return Ok(()),
                Some(caught) = self.caught.recv() => self.lied(caught, tell),
                ended = ended(&mut self.clearing) => {
                    self.cleared(ended?, tell).await;
                    self.show(tell, true).await;
                }
                () = tokio::time::sleep_until(due) => {
                    self.block(tell).await?;
                    due += pause;
                    let late = Instant::now().saturating_duration_since(due);
                    self.behind = missing(late, pause);
                    if late > GIVE_UP {
                        self.given_up = self.given_up.saturating_add(self.behind);
                        due = Instant::now() + pause;
                    }
                    self.show(tell, false).await;
                }
            }
        }
    }

    /// One block: payments, faults, the block itself, and perhaps the next clearing.
    async fn block(&mut self, tell: &mut impl FnMut(Told)) -> anyhow::Result<()> {
        self.ground.world.reconnect();
        let traffic = self.demand.step(&self.ground.world);
        if !traffic.closed.is_empty() {
            tracing::debug!(channels = traffic.closed.len(), "leases are over: channels closed");
        }
        let height = self.ground.block().await?.get();
        self.turn_faults(height, tell);
        if height >= self.next_clearing {
            self.begin_clearing();
        }
        Ok(())
    }

    fn turn_faults(&mut self, height: u32, tell: &mut impl FnMut(Told)) {
        let (blocks, every) = (height.saturating_sub(self.opened), self.rhythm.every);
        let down = self.settings.faults.node_is_down(blocks, every);
        let mut say = |what: &str| tell(Told::Event(Event::Fault { height, what: what.to_owned() }));
        if down != self.node_down {
            self.node_down = down;
            self.ours.set_node_up(!down);
            say(if down { "our node dies" } else { "our node is back" });
        }
        let high = self.settings.faults.fees_are_high(blocks, every);
        if high != self.fees_high {
            self.fees_high = high;
            let times = if high { SPIKE } else { 1 };
            self.ground.world.set_fee_rate(SatPerKw::new(self.fee_rate.get().saturating_mul(times)));
            say(if high { "chain fees are twenty times what they were" } else { "chain fees are as they were" });
        }
    }

    /// Sends the crowd to decide, then the venue to clear; unless they are at it.
    fn begin_clearing(&mut self) {
        let Some(mut crowd) = self.crowd.take() else { return };
        let last = self.snapshots.first().and_then(|snapshot| snapshot.markets.get(&DURATION));
        let board = Board { last_rate: last.map(|(rate, _)| rate.get()) };
        let mut inbound: BTreeMap<NodeId, u64> = BTreeMap::new();
        for lane in self.ground.world.lanes() {
            let sum = inbound.entry(lane.acceptor).or_default();
            *sum = sum.saturating_add(lane.inbound.get());
        }
        let venue = self.venue.clone();
        self.next_clearing = self.ground.world.height().get().saturating_add(self.rhythm.every);
        self.clearing = Some(tokio::spawn(async move {
            crowd.act(board, |node| inbound.get(&node).copied().unwrap_or(0)).await;
            let outcome = venue.tick().await.ok();
            (crowd, outcome)
        }));
    }

    /// The clearing is over.
    async fn cleared(&mut self, (crowd, outcome): (Crowd, Option<TickOutcome>), tell: &mut impl FnMut(Told)) {
        (self.crowd, self.clearing) = (Some(crowd), None);
        let height = self.ground.world.height().get();
        let Some(outcome) = outcome else { return };
        match outcome.cleared {
            Some(batch) => {
                self.refresh_snapshots().await;
                let line = self.clearing_line(batch);
                self.last_attempt = format!("batch of {} leases", line.as_ref().map_or(0, |line| line.leases));
                line.into_iter().for_each(|line| tell(Told::Event(Event::Batch(line))));
            }
            None => {
                let reason = outcome.reason.to_string();
                self.last_attempt.clone_from(&reason);
                tell(Told::Event(Event::NoBatch { height, reason }));
            }
        }
    }

    fn lied(&mut self, Caught { lie, refusal }: Caught, tell: &mut impl FnMut(Told)) {
        tell(Told::Event(Event::Lied { lie: lie.to_owned(), refusal }));
    }

    async fn refresh_snapshots(&mut self) {
        // A venue that stops has told what it knew.
        if let Ok(snapshots) = self.venue.snapshots(None, SHOWN).await {
            self.snapshots = snapshots;
        }
    }

    fn clearing_line(&self, batch: BatchId) -> Option<ClearingLine> {
        let name = batch.to_string();
        self.clearings(&self.snapshots).into_iter().find(|line| line.batch == name)
    }

    fn clearings(&self, snapshots: &[BatchSnapshot]) -> Vec<ClearingLine> {
        let height =
            |snapshot: &BatchSnapshot| self.ground.world.transaction(snapshot.txid())?.1.map(|height| height.get());
        scene::clearings(snapshots, height)
    }

    /// Tells the scene, and leases that are new in it; at most as often as anybody can look, unless it is `important`.
    async fn show(&mut self, tell: &mut impl FnMut(Told), important: bool) {
        let now = Instant::now();
        if !important && self.last_scene.is_some_and(|last| now.duration_since(last) < SCENE_PAUSE) {
            return;
        }
        self.last_scene = Some(now);
        // What stops has nothing to show any more.
        let Some(scene) = self.scene().await else { return };
        for lease in scene.leases.iter().rev() {
            if lease.channel_point.parse().is_ok_and(|point| self.leases.insert(point)) {
                tell(Told::Event(Event::Lease(Box::new(lease.clone()))));
            }
        }
        tell(Told::Scene(Box::new(scene)));
    }

    async fn scene(&self) -> Option<Scene> {
        let status = self.ours.trader.status().await.ok()?;
        let interest = self.venue.market_info().await.ok()?;
        let market = self.venue.status().await.ok()?;
        let height = self.ground.world.height().get();
        let (snapshots, names) = (&self.snapshots[..], &self.names);
        let sources = Sources { status: &status, snapshots, interest: &interest, names, height };
        let (gross_yield_ratio, net_yield_ratio) = scene::yields(&status);
        Some(Scene {
            seed: self.ground.seed(),
            start: self.ground.start(),
            role: self.settings.role,
            height,
            speed: self.settings.speed,
            blocks_behind: self.behind.saturating_add(self.given_up),
            next_clearing_blocks: self.next_clearing.saturating_sub(height),
            fee_rate_sat_per_kw: self.ground.world.fee_rate().get(),
            last_attempt: self.last_attempt.clone(),
            served: self.ours.served.clone(),
            faults: self.settings.faults.to_string(),
            trouble: self.trouble(),
            batches: market.batches,
            open_units: scene::open_units(&interest),
            clearings: self.clearings(snapshots),
            accounts: scene::accounts(&status),
            orders: scene::orders(&sources),
            leases: scene::leases(&sources),
            node: self.node_line().await,
            gross_yield_ratio,
            net_yield_ratio,
        })
    }

    fn trouble(&self) -> Vec<String> {
        let known = [
            (self.node_down, "our node is dead: the agent waits for it, its orders stay at the venue"),
            (self.fees_high, "chain fees are high: orders with a lower limit are left out of batches"),
            (self.behind > 0, "blocks are behind: this machine is too slow for --speed"),
        ];
        known.into_iter().filter(|(wrong, _)| *wrong).map(|(_, what)| what.to_owned()).collect()
    }

    async fn node_line(&self) -> NodeLine {
        let id = self.ours.node.id();
        let wallet = self.ours.node.confirmed_balance().await.unwrap_or(Sats::ZERO);
        let mut line = NodeLine { wallet_sats: wallet.get(), ..NodeLine::default() };
        for lane in self.ground.world.lanes().iter().filter(|lane| lane.opener == id || lane.acceptor == id) {
            line.payments = line.payments.saturating_add(lane.usage.payments);
            line.paid_sats = line.paid_sats.saturating_add(lane.usage.moved.get());
            if lane.opener == id {
                line.forwarding_fees_msat = line.forwarding_fees_msat.saturating_add(lane.usage.fees_msat);
            }
        }
        line
    }

    /// Stops everybody, then saves the world.
    async fn close(self) -> anyhow::Result<()> {
        self.stop.trigger();
        for handle in &self.handles {
            handle.shutdown().await;
        }
        self.venue.shutdown().await;
        let joined = async {
            if let Some(clearing) = self.clearing {
                // What it was doing goes on at the next start.
                drop(clearing.await);
            }
            self.crew.finish().await
        };
        let outcome = tokio::time::timeout(GRACE, joined).await;
        let crew = outcome.unwrap_or_else(|_| {
            tracing::warn!("somebody is still busy at the end: cut off");
            Ok(())
        });
        self.ground.close().await?;
        crew
    }
}

/// Waits for the clearing under way; for ever when there is none.
async fn ended(clearing: &mut Option<Clearing>) -> anyhow::Result<(Crowd, Option<TickOutcome>)> {
    match clearing {
        Some(running) => running.await.context("a clearing failed"),
        None => core::future::pending().await,
    }
}

/// Blocks that should have been mined in the time that they are late.
fn missing(late: Duration, pause: Duration) -> u64 {
    let blocks = late.as_nanos().checked_div(pause.as_nanos()).unwrap_or(0);
    u64::try_from(blocks).unwrap_or(u64::MAX)
}

/// Gives coins to everybody who has none yet: all at the first start, and nobody later, since an account never takes all.
async fn endow(ground: &mut Ground) -> anyhow::Result<()> {
    let names = CAST.iter().map(|cast| cast.name).chain([NAME]);
    let nodes: Vec<SandboxNode> = names.map(|name| ground.node(name)).collect();
    for node in &nodes {
        if node.confirmed_balance().await? > Sats::ZERO {
            continue;
        }
        let script = node.new_address(AddressKind::WitnessPubkeyHash).await?;
        ground.world.pay(script, ENDOWMENT)?;
        ground.block().await?;
    }
    Ok(())
}

async fn start_venue(
    ground: &Ground,
    listen: SocketAddr,
    folder: &std::path::Path,
    crew: &mut Crew,
    stop: &Shutdown,
) -> anyhow::Result<(tidegate_venue::Handle, SocketAddr)> {
    let server = venue::bind(listen).await?;
    let address = server.address()?;
    let store = SqliteStore::open(&folder.join("venue.sqlite"), "venue").await?;
    let traders = GrpcTraders::default();
    let (handle, flows) = tidegate_venue::venue(rules());
    let parts = VenueParts {
        node: ground.node("venue"),
        traders: traders.clone(),
        store,
        clock: SystemClock,
        entropy: ground.world.entropy("venue"),
    };
    crew.spawn("the venue", async move { flows.run(&parts).await });
    crew.spawn("the venue's listener", server.serve(handle.clone(), CONF_TARGET, traders, stop.clone()));
    Ok((handle, address))
}

fn rules() -> VenueConfig {
    // Nobody is listed; everybody counts as well rated, so that default bids reach every seller.
    let ratings = Ratings { default: NodeTier::Tier1, ..Ratings::default() };
    // Nodes come back soon here: who failed once is matched again at the next clearing but one.
    VenueConfig {
        tick_ms: None,
        step_timeout_ms: 6_000,
        fee_conf_target: CONF_TARGET,
        funding_conflict_ms: 20_000,
        ratings,
        ..VenueConfig::usual("regtest")
    }
}
