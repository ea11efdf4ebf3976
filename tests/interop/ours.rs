//! Our own programs: the `tidegate` binary as venue and as agent, and the two things that it tells the world over
//! HTTP: metrics and status.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::failure::{Context, Failure, Outcome};
use crate::go::Programs;
use crate::json;
use crate::lnd::Lnd;
use crate::money::{EXECUTION_BASE_SAT, EXECUTION_PPM};
use crate::pool::Cli;
use crate::process::{Daemon, Killer, Wait, args, free_port, run};
use crate::trade::{AccountView, LeaseView, OrderTerms, Side};

/// A clearing on demand takes as long as its batch.
const HTTP_LIMIT: Duration = Duration::from_secs(60);
/// Satoshi in one unit of supply.
const SATS_PER_UNIT: u64 = 100_000;
const STRATEGY_FILE: &str = "strategy.toml";

fn tidegate() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidegate"))
}

// ---------------------------------------------------------------------------------------------------------------
// Configuration files. The only place of the harness that knows their format.
// ---------------------------------------------------------------------------------------------------------------

/// The node section, the same for both roles.
fn node_section(lnd: &Lnd, macaroon: &Path) -> String {
    node_section_at(&lnd.rpc_host(), lnd, macaroon)
}

/// As [`node_section`], for a node that is reached at another address.
fn node_section_at(rpc: &str, lnd: &Lnd, macaroon: &Path) -> String {
    format!(
        r#"
[node]
address = "{rpc}"
tls_cert = "{certificate}"
macaroon = "{macaroon}"
"#,
        certificate = lnd.certificate().display(),
        macaroon = macaroon.display(),
    )
}

fn venue_config(dir: &Path, plan: &VenuePlan, http_port: u16, node: &str) -> String {
    let VenuePlan { grpc_port, tick_seconds, .. } = plan;
    format!(
        r#"network = "regtest"
data_dir = "{dir}"
listen = "127.0.0.1:{grpc_port}"
status_listen = "127.0.0.1:{http_port}"
tick_seconds = {tick_seconds}

[terms]
max_account_sats = 1000000000
base_fee_sats = {EXECUTION_BASE_SAT}
fee_rate_ppm = {EXECUTION_PPM}
durations_blocks = [144, 2016]
batch_conf_target_blocks = 6

[ratings]
tier1_nodes = []
unlisted_tier = 1
{node}"#,
        dir = dir.display(),
    )
}

fn agent_config(setup: &AgentSetup<'_>, dir: &Path, http_port: u16, node: &str) -> String {
    let AgentSetup { venue, side, account_sat, terms, .. } = setup;
    // The order's own limit, which the gate holds against the strategy.
    let (ask_min_ppb, bid_max_ppb) = match side {
        Side::Seller => (terms.rate_ppb(), 1),
        Side::Buyer => (20_000, terms.rate_ppb()),
    };
    format!(
        r#"network = "regtest"
data_dir = "{dir}/data"
status_listen = "127.0.0.1:{http_port}"
decide_every_seconds = 1
strategy_file = "{STRATEGY_FILE}"

[venue]
address = "{venue}"
insecure = true

[limits]
dry_run = false
max_order_sats = {amount_sat}
max_leased_sats = {amount_sat}
max_daily_cost_sats = 200000
ask_rate_min_ppb = {ask_min_ppb}
bid_rate_max_ppb = {bid_max_ppb}
rate_max_ppb = 20000
max_account_sats = {account_sat}
max_accounts_total_sats = {account_sat}
wallet_reserve_sats = 100000
max_batch_fee_rate_sat_per_kw = 25000
max_open_orders = 1
max_terms_age_s = 60
{node}"#,
        dir = dir.display(),
        amount_sat = terms.amount_sat,
    )
}

/// An agent that decides nothing and does what it is asked over its API. Its limits are beyond what any case asks.
fn manual_config(dir: &Path, venue: &str, http_port: u16, rpc_port: u16, node: &str) -> String {
    format!(
        r#"network = "regtest"
data_dir = "{dir}/data"
status_listen = "127.0.0.1:{http_port}"
decide_every_seconds = 1

[venue]
address = "{venue}"
insecure = true

[api]
rpc_listen = "127.0.0.1:{rpc_port}"

[limits]
dry_run = false
max_order_sats = 100000000
max_leased_sats = 500000000
max_daily_cost_sats = 20000000
ask_rate_min_ppb = 1
bid_rate_max_ppb = 100000
rate_max_ppb = 100000
max_account_sats = 500000000
max_accounts_total_sats = 1000000000
wallet_reserve_sats = 100000
max_batch_fee_rate_sat_per_kw = 25000
max_open_orders = 50
max_terms_age_s = 60
{node}"#,
        dir = dir.display(),
    )
}

/// The strategy's own file, beside the configuration. One lease of the whole amount, priced by the strategy itself.
fn strategy_config(setup: &AgentSetup<'_>) -> String {
    let AgentSetup { side, account_sat, terms, .. } = setup;
    let name = match side {
        Side::Seller => "seller",
        Side::Buyer => "buyer",
    };
    let units = terms.amount_sat / SATS_PER_UNIT;
    let own = match side {
        Side::Seller => format!(
            r#"capital_sats = {account_sat}
required_return_ppm_per_year = 30000
forwarding_income_ppm_per_year = 0
wait_blocks = 6
settle_blocks = 144
force_close_probability_ppm = 100000
anchor_markup_ppm = 200000
patience_ppm_per_window = 50000
caution_ratio = 0.25
quote_when_return_too_low = true"#
        ),
        Side::Buyer => format!(
            r#"target_inbound_units = {units}
require_rated_sellers = true
receipts_sats_per_block = 3000
margin_ppm = 30000
substitute_cost_ppm = 7000
usable_after_blocks = 18
renew_lead_blocks = 288
deadline_windows = 1
shortage_penalty_ppb = 1500
anchor_discount_ppm = 0
max_accounts_sats = {account_sat}"#
        ),
    };
    format!(
        r#"strategy = "{name}"

[{name}]
durations_blocks = [{blocks}]
max_order_units = {units}
min_match_units = {units}
{own}

[{name}.account]
wallet_reserve_sats = 500000
expiry_blocks = 8064
wind_up_blocks = 720

[{name}.fees]
quantile_ppm = 800000
fallback_sat_per_kw = 1000
max_batch_sat_per_kw = 25000

[{name}.windows]
length_s = 2
length_blocks = 1
half_life_windows = 14.0
max_windows = 70
min_cleared_windows = 3

[{name}.requote]
rate_tolerance_ppm = 50000
size_tolerance_ppm = 200000
interval_s = 3600
quiet_before_clearing_s = 0
"#,
        blocks = terms.blocks,
    )
}

// ---------------------------------------------------------------------------------------------------------------
// Status and metrics. The only place that knows their names.
// ---------------------------------------------------------------------------------------------------------------

const STATUS_PATH: &str = "/v1/status";
const BALANCE_METRIC: &str = "tidegate_account_balance_sats";

fn accounts_of(status: &Value) -> Outcome<Vec<AccountView>> {
    json::list(status, "/accounts")?
        .iter()
        .map(|account| {
            Ok(AccountView {
                trader_key: json::text(account, "/trader_key")?,
                outpoint: json::text(account, "/outpoint")?,
                value_sat: json::number(account, "/value_sats")?,
                open: json::text(account, "/state")? == "open",
            })
        })
        .collect()
}

fn leases_of(status: &Value) -> Outcome<Vec<LeaseView>> {
    json::list(status, "/leases")?
        .iter()
        .map(|lease| {
            Ok(LeaseView {
                channel_point: json::text(lease, "/channel_point")?,
                amount_sat: json::number(lease, "/amount_sats")?,
                premium_sat: json::number(lease, "/premium_sats")?,
                execution_fee_sat: json::number(lease, "/execution_fee_sats")?,
                clearing_rate_ppb: json::number(lease, "/clearing_rate_ppb")?,
                purchased: json::flag(lease, "/purchased")?,
            })
        })
        .collect()
}

// ---------------------------------------------------------------------------------------------------------------

/// How a venue is set up.
pub(crate) struct VenuePlan {
    /// Where traders will find it.
    pub(crate) grpc_port: u16,
    /// 0: it clears when asked to.
    pub(crate) tick_seconds: u64,
    /// `host:port` at which it reaches its node.
    pub(crate) node: String,
}

/// A running `tidegate venue`.
pub(crate) struct Venue {
    address: String,
    http_port: u16,
    config: PathBuf,
    dir: PathBuf,
    daemon: Daemon,
}

impl Venue {
    /// Starts a venue with `lnd` as its wallet and a fresh book in `dir`, and waits until it serves.
    pub(crate) fn start(lnd: &Lnd, dir: &Path) -> Outcome<Self> {
        Self::start_with(lnd, dir, &VenuePlan { grpc_port: free_port()?, tick_seconds: 3, node: lnd.rpc_host() })
    }

    /// As [`Venue::start`], as planned.
    pub(crate) fn start_with(lnd: &Lnd, dir: &Path, plan: &VenuePlan) -> Outcome<Self> {
        let http_port = free_port()?;
        let node = node_section_at(&plan.node, lnd, &exact_macaroon(lnd, "venue", dir)?);
        let config = write_config(dir, &venue_config(dir, plan, http_port, &node))?;
        let mut venue = Self {
            address: format!("127.0.0.1:{}", plan.grpc_port),
            http_port,
            daemon: spawn("tidegate-venue", "venue", &config, dir)?,
            config,
            dir: dir.to_owned(),
        };
        venue.wait_ready()?;
        Ok(venue)
    }

    /// Ends it without notice.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.daemon.kill()
    }

    /// Lets somebody else end it without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        self.daemon.killer()
    }

    /// Starts it again with the book that it left.
    pub(crate) fn start_again(&mut self) -> Outcome<()> {
        self.daemon = spawn("tidegate-venue", "venue", &self.config, &self.dir)?;
        self.wait_ready()
    }

    /// `host:port` of its gRPC interface, plaintext.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Log of the daemon, for failures.
    pub(crate) fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// What it reports about itself.
    pub(crate) fn status(&self) -> Outcome<Value> {
        let body = http_get(self.http_port, STATUS_PATH)?;
        serde_json::from_str(&body).context(|| format!("status of the venue ({body})"))
    }

    /// Clears the market now; the batch, if one was made, else the reason.
    pub(crate) fn tick(&self) -> Outcome<Value> {
        let body = http(self.http_port, "POST", "/v1/tick")?;
        serde_json::from_str(&body).context(|| format!("answer to the tick ({body})"))
    }

    fn wait_ready(&mut self) -> Outcome<()> {
        let log = self.daemon.log().to_owned();
        Wait::new("our venue serves").log(&log).until(|| {
            self.daemon.check_running()?;
            TcpStream::connect(&self.address).context(|| format!("connect {}", self.address))?;
            // Its pages answer while it still waits for its node; its status does not.
            self.status().map(|_| ())
        })
    }
}

/// What an agent is started with.
pub(crate) struct AgentSetup<'a> {
    pub(crate) lnd: &'a Lnd,
    /// `host:port` of the venue.
    pub(crate) venue: &'a str,
    pub(crate) side: Side,
    /// Value of the account that it opens.
    pub(crate) account_sat: u64,
    /// The one order that it places; the percentage is its own limit, not its price.
    pub(crate) terms: &'a OrderTerms,
}

/// A running `tidegate run`.
pub(crate) struct Agent {
    name: String,
    http_port: u16,
    config: PathBuf,
    dir: PathBuf,
    daemon: Daemon,
}

impl Agent {
    /// Starts an agent and waits until it reports its status.
    pub(crate) fn start(setup: &AgentSetup<'_>, dir: &Path) -> Outcome<Self> {
        let macaroon = exact_macaroon(setup.lnd, "trader", dir)?;
        let mut agent = Self::launch(setup, &macaroon, dir, |config| config)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts an agent with this macaroon and a changed configuration, and waits for nothing.
    pub(crate) fn launch(
        setup: &AgentSetup<'_>,
        macaroon: &Path,
        dir: &Path,
        change: impl FnOnce(String) -> String,
    ) -> Outcome<Self> {
        let http_port = free_port()?;
        let node = node_section(setup.lnd, macaroon);
        let config = write_config(dir, &change(agent_config(setup, dir, http_port, &node)))?;
        let strategy = dir.join(STRATEGY_FILE);
        fs::write(&strategy, strategy_config(setup)).context(|| format!("write {}", strategy.display()))?;
        let name = format!("tidegate-{}", setup.lnd.name());
        let daemon = spawn(&name, "run", &config, dir)?;
        Ok(Self { name, http_port, config, dir: dir.to_owned(), daemon })
    }

    /// Starts an agent without a strategy, and waits until its API answers; the command line for it comes along.
    pub(crate) fn start_manual(programs: &Programs, lnd: &Lnd, venue: &str, dir: &Path) -> Outcome<(Self, Cli)> {
        let (http_port, rpc_port) = (free_port()?, free_port()?);
        let node = node_section(lnd, &exact_macaroon(lnd, "trader", dir)?);
        let config = write_config(dir, &manual_config(dir, venue, http_port, rpc_port, &node))?;
        let name = format!("tidegate-{}", lnd.name());
        let daemon = spawn(&name, "run", &config, dir)?;
        let mut agent = Self { name, http_port, config, dir: dir.to_owned(), daemon };
        agent.wait_ready()?;
        let cli = Cli::new(programs, dir.join("data/api"), rpc_port);
        agent.wait_api(&cli)?;
        Ok((agent, cli))
    }

    /// Waits until the API answers.
    pub(crate) fn wait_api(&mut self, cli: &Cli) -> Outcome<()> {
        let log = self.log().to_owned();
        let wait = Wait::new(format!("the API of {} answers", self.name)).log(&log);
        wait.until(|| self.daemon.check_running().and_then(|()| cli.call(&["getinfo"]))).map(|_| ())
    }

    /// Lets somebody else end it without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        self.daemon.killer()
    }

    /// Ends it without notice.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.daemon.kill()
    }

    /// Starts it again with the data that it left.
    pub(crate) fn start_again(&mut self) -> Outcome<()> {
        self.daemon = spawn(&self.name, "run", &self.config, &self.dir)?;
        self.wait_ready()
    }

    /// It runs, says that it is well, and its ledger explains every satoshi.
    pub(crate) fn check_well(&mut self) -> Outcome<()> {
        self.daemon.check_running()?;
        let body = http_get(self.http_port, "/metrics")?;
        let strange = ["tidegate_ledger_difference_sats", r#"tidegate_ledger_balance_sats{kind="write_offs"}"#];
        for sample in strange.map(|name| format!("{name} ")) {
            let found = body.lines().find_map(|line| line.strip_prefix(&sample));
            if found != Some("0") {
                return Err(Failure::fatal(format!("{}: {sample}is {found:?}, not 0", self.name)));
            }
        }
        match http_get(self.http_port, "/healthz")?.as_str() {
            "ok\n" => Ok(()),
            other => Err(Failure::fatal(format!("{} is not well: {other}", self.name))),
        }
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub(crate) fn wait_exit_code(&mut self) -> Outcome<Option<i32>> {
        self.daemon.wait_exit_code()
    }

    /// Log of the daemon, for failures.
    pub(crate) fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Its accounts, from its status.
    pub(crate) fn accounts(&self) -> Outcome<Vec<AccountView>> {
        accounts_of(&self.status()?)
    }

    /// Its leases, from its status.
    pub(crate) fn leases(&self) -> Outcome<Vec<LeaseView>> {
        leases_of(&self.status()?)
    }

    /// Balance of all its accounts in satoshi as its metrics tell it.
    pub(crate) fn balance_metric_sat(&self) -> Outcome<u64> {
        let body = http_get(self.http_port, "/metrics")?;
        metric_sum(&body, BALANCE_METRIC)
            .ok_or_else(|| Failure::new(format!("no {BALANCE_METRIC} in the metrics:\n{body}")))
    }

    /// What its ledger has in accounts, confirmed or not, in satoshi; as of its last decision.
    pub(crate) fn ledger_metric_sat(&self) -> Outcome<u64> {
        let body = http_get(self.http_port, "/metrics")?;
        let of = |kind: &str| metric_sum(&body, &format!("tidegate_ledger_balance_sats{{kind=\"{kind}\"}}"));
        let sum = of("account").zip(of("pending")).map(|(confirmed, pending)| confirmed + pending);
        sum.ok_or_else(|| Failure::new(format!("no balances of the ledger in the metrics:\n{body}")))
    }

    /// What it reports about itself; a failure with its reason while it waits for its node.
    pub(crate) fn status(&self) -> Outcome<Value> {
        let body = http_get(self.http_port, STATUS_PATH)?;
        serde_json::from_str(&body).context(|| format!("status of {} ({body})", self.name))
    }

    /// Waits until it has reached its node.
    pub(crate) fn wait_ready(&mut self) -> Outcome<()> {
        let log = self.daemon.log().to_owned();
        Wait::new(format!("our agent {} answers", self.name)).log(&log).until(|| {
            self.daemon.check_running()?;
            self.status().map(|_| ())
        })
    }
}

fn spawn(name: &str, command: &str, config: &Path, dir: &Path) -> Outcome<Daemon> {
    let config = config.display().to_string();
    Daemon::spawn(name, &tidegate(), &args([command, "--config", &config]), dir)
}

fn write_config(dir: &Path, text: &str) -> Outcome<PathBuf> {
    fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))?;
    let path = dir.join("tidegate.toml");
    fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A macaroon with what `tidegate permissions` asks for and nothing else, so that a forgotten permission shows here.
pub(crate) fn exact_macaroon(lnd: &Lnd, role: &str, dir: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))?;
    let path = dir.join(format!("{role}.macaroon"));
    lnd.bake_macaroon(&printed_permissions(role)?, &path)?;
    Ok(path)
}

/// What `tidegate permissions` prints for the role.
pub(crate) fn printed_permissions(role: &str) -> Outcome<Vec<String>> {
    let printed = run(&tidegate(), &args(["permissions", "--role", role]))?;
    // It prints a whole `lncli bakemacaroon` command; the permissions are the words of this form.
    let permissions: Vec<String> =
        printed.split_whitespace().filter(|word| word.starts_with("uri:")).map(str::to_owned).collect();
    match permissions.is_empty() {
        true => Err(Failure::new(format!("no permissions printed for {role}"))),
        false => Ok(permissions),
    }
}

/// The body of a successful answer to a plain GET on loopback.
fn http_get(port: u16, path: &str) -> Outcome<String> {
    http(port, "GET", path)
}

/// The body of a successful answer to a plain request without a body on loopback.
fn http(port: u16, method: &str, path: &str) -> Outcome<String> {
    let what = || format!("{method} http://127.0.0.1:{port}{path}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context(what)?;
    stream.set_read_timeout(Some(HTTP_LIMIT)).context(what)?;
    // Version 1.0: the answer ends with the connection and is not chunked.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").context(what)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context(what)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Failure::new(format!("{}: not an HTTP answer: {answer}", what())))?;
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(Failure::new(format!("{}: {status}: {body}", what()))),
    }
}

/// Sum over all label sets of a metric whose samples are whole numbers; `None` if there is no sample.
fn metric_sum(exposition: &str, name: &str) -> Option<u64> {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            // A longer name that only begins the same is another metric.
            let of_this = rest.starts_with('{') || rest.starts_with(' ');
            let sample = rest.rsplit_once(' ').map(|(_, sample)| sample)?;
            sample.parse::<u64>().ok().filter(|_| of_this)
        })
        .reduce(|sum, sample| sum + sample)
}

#[test]
fn metric_sum_adds_label_sets_and_ignores_longer_names() {
    let text = "# TYPE a_sats gauge\na_sats{account=\"02\"} 5\na_sats{account=\"03\"} 7\na_sats_total 9\n";
    assert_eq!(metric_sum(text, "a_sats"), Some(12));
    assert_eq!(metric_sum(text, "b_sats"), None);
}
