//! `tidegate run`: strategy and pool client on a real node.

use super::brain::{Brain, Round, RoundError};
use super::connect::{Waiting, connect};
use super::crew::Crew;
use super::data_dir;
use super::observe::ObserveError;
use super::parts::TraderParts;
use super::report::{StatusReport, seconds, update_figures, update_metrics};
use crate::api::operator::{self, About, Asked, BoundApi, Operator, Stage, Switch, Wish, WishError, Wishes};
use crate::api::{self, AgentMetrics, Answer, BoundHttp, Page, raise_to, render};
use crate::config::{AgentConfig, load_strategy};
use crate::node::{LndNode, Role};
use crate::runtime::{OsEntropy, Shutdown, SystemClock};
use crate::store::SqliteStore;
use crate::venue::{GrpcLink, Token};
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::gate::RiskGate;
use tidegate_engine::strategy::Strategy;
use tidegate_ports::{Clock as _, Store, TraderEnv};
use tidegate_strategies::AnyStrategy;
use tidegate_trader::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The ports of a live agent.
type AgentEnv = TraderParts<LndNode, SqliteStore, SystemClock, OsEntropy>;

/// What an agent has of its own, before it talks to anybody.
struct Local {
    store: SqliteStore,
    brain: Brain<AnyStrategy, SqliteStore>,
    about: About<SqliteStore>,
    link: GrpcLink,
    http: BoundHttp,
    api: Option<BoundApi>,
    metrics: AgentMetrics,
}

impl Local {
    /// Strategy, data folder and ports: whatever is wrong with them is told before anybody is waited for.
    async fn open(config: &AgentConfig) -> anyhow::Result<Local> {
        let strategy = config.strategy_file.as_deref().map(load_strategy).transpose()?;
        data_dir::create(&config.data_dir)?;
        let file = config.data_dir.join("agent.sqlite");
        // First: a second agent with the same configuration is told of the first one, not of its port.
        let store = SqliteStore::open(&file, "trader").await?;
        let journal = SqliteStore::open(&file, "journal").await?;
        let token = Token::new(data_dir::venue_token(&config.data_dir, &OsEntropy)?);
        let switch = Switch::load(SqliteStore::open(&file, "switch").await?).await?;
        let about = About {
            network: config.network.clone(),
            venue: config.venue.address.clone(),
            strategy: strategy.as_ref().map_or_else(String::new, |strategy| strategy.name().to_owned()),
            limits: config.limits.clone(),
            switch: switch.clone(),
            journal: journal.clone(),
        };
        if let Some(stopped) = Some(switch.position()).filter(|position| position.stopped) {
            tracing::warn!(
                by = stopped.by,
                why = stopped.why,
                "trading is stopped; `tidegate resume` or SIGUSR2 resumes it"
            );
        }
        let brain = Brain::load(strategy, RiskGate::new(config.limits.clone()), journal).await?.with_switch(switch);
        let link = GrpcLink::new(&config.venue.address, token)?;
        let http = api::bind(config.status_listen, "status_listen").await?;
        let api = match &config.api {
            Some(api) => {
                let folder = config.api_folder();
                let mut bound = operator::bind(api.rpc_listen, &folder, &SystemClock, &OsEntropy).await?;
                tracing::info!(rpc = %bound.address()?, folder = %folder.display(), "serving poolrpc.Trader and tidegate.v1.Agent");
                if let Some(address) = api.rest_listen {
                    let rest = bound.bind_rest(address).await?;
                    tracing::info!(%rest, "serving the same calls as JSON over HTTPS");
                }
                Some(bound)
            }
            None => None,
        };
        Ok(Local { store, brain, about, link, http, api, metrics: AgentMetrics::new()? })
    }
}

/// Runs an agent until a signal.
///
/// # Errors
/// When something it needs cannot be had at the start, or when its state cannot be trusted any more: a sentence that
/// says what, where and what to do. A node or venue that is away, at the start or later, is waited for.
pub async fn run_agent(config: AgentConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let turns = TurnSignals::hear()?;
    let network = config.bitcoin_network().context("network")?;
    let Local { store, brain, about, link, http, api, metrics } = Local::open(&config).await?;
    let (trader, flows) = tidegate_trader::trader(config.trading.trader());
    let waiting = Waiting::for_node(&config.node.address);
    let page = AgentPage { trader: trader.clone(), metrics: metrics.clone(), waiting: waiting.clone() };
    tracing::info!(status = %http.address()?, "serving /healthz, /metrics and /v1/status");
    let mut crew = Crew::new(shutdown.clone());
    crew.spawn("the status listener", http.serve(Arc::new(page), shutdown.clone()));
    let (wishes, asked) = Wishes::new();
    crew.spawn("the task that hears signals", turns.obey(about.switch.clone(), wishes.clone(), shutdown.clone()));
    let stage = Stage::<AgentEnv>::new({
        let waiting = waiting.clone();
        move || waiting.reason()
    });
    let stage = stage.with(about);
    if let Some(api) = api {
        crew.spawn("the API listener", api.serve(stage.clone(), SystemClock, shutdown.clone()));
    }
    let lnd = config.node.lnd(&config.network);
    let Some(node) = connect(&lnd, Role::Trader, &waiting, &shutdown).await? else { return crew.finish().await };
    let parts: Arc<AgentEnv> = Arc::new(TraderParts { node, link, store, clock: SystemClock, entropy: OsEntropy });
    let new_nodes_only = config.trading.new_nodes_only;
    stage.enter(Operator { env: Arc::clone(&parts), trader: trader.clone(), wishes, network, new_nodes_only });
    if config.limits.dry_run {
        tracing::warn!("dry run: decisions are journaled, nothing is placed; set limits.dry_run = false to trade");
    }
    tracing::info!(venue = %config.venue.address, network = %config.network, "the agent runs");
    let pause = Duration::from_secs(config.decide_every_seconds);
    let desk = Desk { trader: trader.clone(), metrics, asked };
    crew.spawn("the task that decides", decide(brain, Arc::clone(&parts), desk, pause, shutdown.clone()));
    crew.spawn("the shutdown", {
        let shutdown = shutdown.clone();
        async move {
            shutdown.wanted().await;
            trader.shutdown().await;
            anyhow::Ok(())
        }
    });
    let outcome = flows.run(&*parts).await;
    shutdown.trigger();
    let crew = crew.finish().await;
    outcome.context("the agent stopped: its state can not be trusted; nothing was lost that was stored")?;
    crew
}

/// Who turned the switch, when it was a signal.
const BY_STOP: &str = "signal SIGUSR1";
const BY_RESUME: &str = "signal SIGUSR2";

/// SIGUSR1 stops trading and SIGUSR2 resumes it, as the API's calls do.
struct TurnSignals {
    stop: Signal,
    resume: Signal,
}

impl TurnSignals {
    /// From now on they do not end the process any more.
    fn hear() -> std::io::Result<TurnSignals> {
        let (stop, resume) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
        Ok(TurnSignals { stop, resume })
    }

    /// Turns the switch at each signal until shutdown.
    async fn obey<S: Store>(mut self, switch: Switch<S>, wishes: Wishes, shutdown: Shutdown) -> anyhow::Result<()> {
        loop {
            let (stopped, by) = tokio::select! {
                _ = self.stop.recv() => (true, BY_STOP),
                _ = self.resume.recv() => (false, BY_RESUME),
                () = shutdown.wanted() => return Ok(()),
            };
            if let Err(error) = switch.turn(stopped, by, "", SystemClock.now()).await {
                tracing::error!(stopped, %error, "the switch can not be kept");
            }
            // Answered once the node was reached and the orders are cancelled; until then other signals are heard.
            let wishes = wishes.clone();
            tokio::spawn(async move {
                if let Err(error) = wishes.ask(Wish::Obey, by).await {
                    tracing::warn!(%error, "the switch is obeyed at the next round");
                }
            });
        }
    }
}

/// What the task that decides works with, besides the brain and the ports.
pub(super) struct Desk {
    pub(super) trader: Handle,
    pub(super) metrics: AgentMetrics,
    pub(super) asked: mpsc::Receiver<Asked>,
}

/// Decides at every pause until shutdown, and in between does what persons ask for. A failed round is told, counted,
/// and tried again at the next.
///
/// # Errors
/// When the journal cannot be written: there is no decision without one.
pub(super) async fn decide<S, J, E>(
    mut brain: Brain<S, J>,
    env: Arc<E>,
    desk: Desk,
    pause: Duration,
    shutdown: Shutdown,
) -> anyhow::Result<()>
where
    S: Strategy + Send,
    S::State: Send,
    J: Store,
    E: TraderEnv,
{
    let Desk { trader, metrics, mut asked } = desk;
    let mut beat = tokio::time::interval(pause);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            Some(Asked { wish, by, answer }) = asked.recv() => {
                let outcome = tokio::select! {
                    outcome = brain.asked(&*env, &trader, wish, &by) => outcome,
                    () = shutdown.wanted() => return Ok(()),
                };
                let journal = match &outcome {
                    Err(WishError::Journal(error)) => Some(error.clone()),
                    _ => None,
                };
                // Who asked may have gone.
                drop(answer.send(outcome));
                update_figures(&metrics, &brain.figures());
                if let Some(error) = journal {
                    return Err(error).context(NO_JOURNAL);
                }
                continue;
            }
            () = shutdown.wanted() => return Ok(()),
        }
        let outcome = tokio::select! {
            outcome = brain.round(&*env, &trader) => outcome,
            () = shutdown.wanted() => return Ok(()),
        };
        count_round(&metrics, &outcome);
        update_figures(&metrics, &brain.figures());
        metrics.last_decision_seconds.set(seconds(env.clock().now().seconds()));
        match outcome {
            Ok(_) => {}
            Err(RoundError::Journal(error)) => return Err(error).context(NO_JOURNAL),
            Err(error) => tracing::warn!(%error, "nothing decided in this round"),
        }
    }
}

const NO_JOURNAL: &str = "there is no decision without a journal, so the agent stops";

fn count_round(metrics: &AgentMetrics, outcome: &Result<Round, RoundError>) {
    let failed = |counterpart: &str| metrics.failures_total.with_label_values(&[counterpart]).inc();
    let add = |name: &str, count: u32| metrics.decisions_total.with_label_values(&[name]).inc_by(u64::from(count));
    match outcome {
        Ok(round) => {
            metrics.links.node_up.set(1);
            metrics.links.venue_up.set(i64::from(!round.venue_silent));
            add("placed", round.placed);
            add("refused", round.refused);
            add("failed", round.failed);
            add("nothing", u32::from(round.placed == 0 && round.refused == 0 && round.failed == 0));
            if round.venue_silent {
                failed("venue");
            }
        }
        Err(RoundError::Observe(ObserveError::Node(_))) => {
            metrics.links.node_up.set(0);
            failed("node");
        }
        Err(_) => failed("self"),
    }
}

/// The agent's HTTP pages.
pub(super) struct AgentPage {
    pub(super) trader: Handle,
    pub(super) metrics: AgentMetrics,
    pub(super) waiting: Waiting,
}

impl Page for AgentPage {
    fn metrics(&self) -> Answer {
        let (trader, metrics, waiting) = (self.trader.clone(), self.metrics.clone(), self.waiting.clone());
        Box::pin(async move {
            raise_to(&metrics.clock_jumps_total, SystemClock::jumps());
            if waiting.reason().is_none() {
                let status = trader.status().await.map_err(|gone| gone.to_string())?;
                update_metrics(&metrics, &status);
            }
            render(&metrics.registry)
        })
    }

    fn status(&self) -> Answer {
        let (trader, waiting) = (self.trader.clone(), self.waiting.clone());
        Box::pin(async move {
            if let Some(reason) = waiting.reason() {
                return Err(reason);
            }
            let status = trader.status().await.map_err(|gone| gone.to_string())?;
            serde_json::to_string_pretty(&StatusReport::from(&status)).map_err(|error| error.to_string())
        })
    }

    fn tick(&self) -> Answer {
        Box::pin(async { Err("an agent does not clear; ask its venue".to_owned()) })
    }
}
