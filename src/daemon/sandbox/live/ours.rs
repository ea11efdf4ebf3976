//! Our agent in the market: the flows, brains, gate, journal, pages and API of a live one, on a simulated node.

use super::crowd::{config, identity};
use super::ground::Ground;
use super::{Ports, Rhythm, Role, Served};
use crate::api::operator::{self, About, Operator, Stage, Switch, Wishes};
use crate::api::{self, AgentMetrics};
use crate::daemon::agent::{AgentPage, Desk, decide};
use crate::daemon::brain::Brain;
use crate::daemon::connect::Waiting;
use crate::daemon::crew::Crew;
use crate::daemon::data_dir;
use crate::daemon::parts::TraderParts;
use crate::runtime::{OsEntropy, Shutdown, SystemClock};
use crate::store::SqliteStore;
use crate::venue::{GrpcLink, Token};
use anyhow::Context as _;
use bitcoin::Network;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::gate::{Limits, RiskGate};
use tidegate_ports::Timestamp;
use tidegate_protocol::units::{RatePerBillion, SatPerKw, Sats};
use tidegate_sandbox::{Executor, Gate, Gated, Rates, SandboxEntropy, SandboxNode};
use tidegate_strategies::{AnyStrategy, buyer, seller};
use tidegate_trader::Handle;
use tokio::sync::mpsc;

/// Name of our node and our folder.
pub(super) const NAME: &str = "tidegate";
/// Shortest pause between two decisions.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

type Env = TraderParts<Gated<SandboxNode>, SqliteStore, SystemClock, SandboxEntropy>;

/// The running agent.
pub(super) struct Ours {
    pub(super) node: SandboxNode,
    pub(super) trader: Handle,
    pub(super) served: Served,
    gate: Gate,
}

impl Ours {
    /// Starts everything that a live agent has, against the venue at `venue`.
    ///
    /// # Errors
    /// When a file or a port can not be used.
    pub(super) async fn start(
        ground: &Ground,
        (role, rhythm, ports): (Role, Rhythm, Ports),
        (venue, folder): (SocketAddr, &Path),
        crew: &mut Crew,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Ours> {
        let folder = folder.join(NAME);
        data_dir::create(&folder)?;
        let http = api::bind(ports.status, "--listen").await?;
        let rpc = operator::bind(ports.rpc, &folder.join("regtest"), &SystemClock, &OsEntropy).await?;
        let served = Served {
            status: format!("http://{}/v1/status", http.address()?),
            metrics: format!("http://{}/metrics", http.address()?),
            rpc: rpc.address()?.to_string(),
            folder: folder.join("regtest").display().to_string(),
            venue: String::new(),
        };
        let node = ground.node(NAME);
        let gate = Gate::new(ground.seed(), NAME, Executor::new(0, Timestamp(0)).clock());
        let file = folder.join("agent.sqlite");
        let store = SqliteStore::open(&file, "trader").await?;
        let env = Arc::new(TraderParts {
            node: Gated::new(gate.clone(), node.clone(), node.clone()),
            link: GrpcLink::new(&venue.to_string(), Token::new(identity(NAME)))?,
            store,
            clock: SystemClock,
            entropy: ground.world.entropy(NAME),
        });
        let (trader, flows) = tidegate_trader::trader(config());
        let waiting = Waiting::for_node(NAME);
        waiting.set(None);
        let metrics = AgentMetrics::new()?;
        let page = AgentPage { trader: trader.clone(), metrics: metrics.clone(), waiting };
        crew.spawn("the status listener", http.serve(Arc::new(page), shutdown.clone()));
        let switch = Switch::load(SqliteStore::open(&file, "switch").await?).await?;
        let (wishes, mut asked) = Wishes::new();
        let mut about = None;
        for (name, strategy) in strategies(role, rhythm)? {
            let journal = SqliteStore::open(&file, &format!("journal of the {name}")).await?;
            about.get_or_insert_with(|| About {
                network: "regtest".to_owned(),
                venue: venue.to_string(),
                strategy: role.to_string(),
                limits: limits(),
                switch: switch.clone(),
                journal: journal.clone(),
            });
            let brain =
                Brain::load(Some(strategy), RiskGate::new(limits()), journal).await?.with_switch(switch.clone());
            // Who asks over the API asks the first brain.
            let desk = Desk { trader: trader.clone(), metrics: metrics.clone(), asked };
            asked = mpsc::channel(1).1;
            let pause = (rhythm.interval / 2).max(SHORTEST_PAUSE);
            crew.spawn("the task that decides", decide(brain, Arc::clone(&env), desk, pause, shutdown.clone()));
        }
        let stage = Stage::<Env>::new(|| None).with(about.context("no role is played")?);
        stage.enter(Operator {
            env: Arc::clone(&env),
            trader: trader.clone(),
            wishes,
            network: Network::Regtest,
            new_nodes_only: false,
        });
        crew.spawn("the API listener", rpc.serve(stage, SystemClock, shutdown.clone()));
        crew.spawn("the agent", async move { flows.run(&*env).await });
        Ok(Ours { node, trader, served, gate })
    }

    /// The node dies, or comes back: while it is away every call to it fails.
    pub(super) fn set_node_up(&self, up: bool) {
        let fail_before = if up { 0 } else { 1_000_000 };
        self.gate.set_rates(Rates { fail_before, ..Rates::default() });
        self.node.set_up(up);
    }
}

/// The strategies of a role with their sandbox presets, set to the rhythm of this run.
fn strategies(role: Role, rhythm: Rhythm) -> anyhow::Result<Vec<(&'static str, AnyStrategy)>> {
    let wanted = [(role.sells(), "seller", seller::SANDBOX_PRESET), (role.buys(), "buyer", buyer::SANDBOX_PRESET)];
    let wanted = wanted.into_iter().filter(|(wanted, _, _)| *wanted);
    wanted.map(|(_, name, preset)| Ok((name, AnyStrategy::from_toml(&tuned(preset, name, rhythm)?)?))).collect()
}

/// The preset with windows as long as the pause between two clearings, and with coins that suit the sandbox. A window still
/// stands for a day of blocks, as in the preset: waiting for the next clearing would otherwise cost next to nothing, and a
/// seller would rightly hold out for the rare high price.
fn tuned(preset: &str, name: &str, rhythm: Rhythm) -> anyhow::Result<String> {
    let mut file: toml::Table = preset.parse().context("the preset is no TOML")?;
    let seconds = i64::try_from(rhythm.interval.as_secs().max(1))?;
    let changes: &[(&str, &str, i64)] = match name {
        "seller" => &[("", "capital_sats", 400_000_000)],
        _ => &[("", "target_inbound_units", 200), ("", "deadline_windows", 10)],
    };
    let common = [("windows", "length_s", seconds), ("requote", "interval_s", seconds / 2)];
    let own = file.get_mut(name).and_then(toml::Value::as_table_mut).context("the preset has no table of its name")?;
    for (table, key, value) in changes.iter().chain(&common) {
        let place =
            if table.is_empty() { Some(&mut *own) } else { own.get_mut(*table).and_then(toml::Value::as_table_mut) };
        let place = place.with_context(|| format!("the preset has no table {table}"))?;
        anyhow::ensure!(place.contains_key(*key), "the preset has no key {key}");
        place.insert((*key).to_owned(), toml::Value::Integer(*value));
    }
    Ok(toml::to_string(&file)?)
}

/// Limits of the agent: wide enough that its strategies decide, and finite.
fn limits() -> Limits {
    Limits {
        dry_run: false,
        max_order_sats: Sats::constant(50_000_000),
        max_leased_sats: Sats::constant(1_000_000_000),
        max_daily_cost_sats: Sats::constant(20_000_000),
        ask_rate_min_ppb: RatePerBillion::new(1),
        bid_rate_max_ppb: RatePerBillion::new(10_000),
        rate_max_ppb: RatePerBillion::new(50_000),
        max_account_sats: Sats::constant(500_000_000),
        max_accounts_total_sats: Sats::constant(1_000_000_000),
        wallet_reserve_sats: Sats::constant(1_000_000),
        max_batch_fee_rate_sat_per_kw: SatPerKw::new(25_000),
        max_open_orders: 10,
        max_terms_age_s: 600,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_strategies_in_the_rhythm_of_the_run() {
        let rhythm = Rhythm { interval: Duration::from_secs(12), every: 6 };
        let names = |role| {
            let all = strategies(role, rhythm).expect("the presets fit");
            all.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(Role::Seller), ["seller"]);
        assert_eq!(names(Role::Buyer), ["buyer"]);
        assert_eq!(names(Role::Both), ["seller", "buyer"]);
        let text = tuned(seller::SANDBOX_PRESET, "seller", rhythm).expect("it fits");
        let file: toml::Table = text.parse().expect("TOML");
        assert_eq!(file["seller"]["windows"]["length_s"].as_integer(), Some(12));
        assert_eq!(file["seller"]["windows"]["length_blocks"].as_integer(), Some(144));
        assert!(tuned("strategy = \"seller\"", "seller", rhythm).is_err());
    }
}
