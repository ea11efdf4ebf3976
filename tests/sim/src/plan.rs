//! What a seed means: who trades what and when, and how often everything goes wrong.

use crate::hub::WireRates;
use crate::plant::Plant;
use crate::widen::widen;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::order::{AnnouncementConstraint, AuctionType, ConfirmationConstraint, OrderChannelType};
use tidegate_protocol::units::Sats;
use tidegate_sandbox::{Cut, Random, Rates};
use tidegate_trader::FeeRise;
use tidegate_venue::Sweep;

/// An order that a trader means to place.
#[derive(Clone, Copy, Debug)]
pub struct PlannedOrder {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// Which of the trader's accounts.
    pub account: usize,
    /// Ask or bid.
    pub ask: bool,
    /// Limit.
    pub rate: u32,
    /// Units.
    pub units: u32,
    /// Smallest match.
    pub min_units: u32,
    /// Fee ceiling, in sat/kW.
    pub max_fee_rate: u64,
    /// Channel type.
    pub channel_type: OrderChannelType,
    /// The taker's own satoshi, for a bid.
    pub self_balance: u64,
    /// Milliseconds after the start at which it is cancelled.
    pub cancel_at_ms: Option<u64>,
    /// Market.
    pub auction: AuctionType,
    /// An ask's wish; a bid wants an unannounced channel when it says so, else an announced one.
    pub announcement: AnnouncementConstraint,
    /// An ask's wish; a bid wants a zero-conf channel when it says so, else a confirmed one.
    pub confirmation: ConfirmationConstraint,
    /// Milliseconds after the start at which another order takes its place, and the rate of that one.
    pub replaced: Option<(u64, u32)>,
    /// Number of the trader whose node it denies.
    pub denies: Option<usize>,
}

impl Default for PlannedOrder {
    /// A bid for one unit, as plain as can be.
    fn default() -> PlannedOrder {
        PlannedOrder {
            at_ms: 0,
            account: 0,
            ask: false,
            rate: 900,
            units: 1,
            min_units: 1,
            max_fee_rate: 2_000,
            channel_type: OrderChannelType::PeerDependent,
            self_balance: 0,
            cancel_at_ms: None,
            auction: AuctionType::Inbound,
            announcement: AnnouncementConstraint::None,
            confirmation: ConfirmationConstraint::None,
            replaced: None,
            denies: None,
        }
    }
}

/// A raise of the fee of whatever of an account is unconfirmed from then on.
#[derive(Clone, Copy, Debug)]
pub struct PlannedBump {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// Which of the trader's accounts.
    pub account: usize,
    /// Fee rate of both together, in sat/kW.
    pub fee_rate: u64,
}

/// What an owner means to do to an account besides trading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// Adds this much.
    Deposit(u64),
    /// Takes this much back to the wallet.
    Withdraw(u64),
    /// Nothing but the expiry.
    Renew,
}

/// A change of an account that its owner means to make.
#[derive(Clone, Copy, Debug)]
pub struct PlannedChange {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// Which of the trader's accounts.
    pub account: usize,
    /// What.
    pub change: AccountChange,
    /// Blocks from then until the account expires; nothing keeps the expiry. A renewal without does nothing.
    pub expiry_blocks: Option<u32>,
    /// Fee rate, in sat/kW.
    pub fee_rate: u64,
    /// Script version; nothing means the newest.
    pub version: Option<AccountVersion>,
}

/// What a trader does.
#[derive(Clone, Debug)]
pub struct PlannedTrader {
    /// Name.
    pub name: String,
    /// Accounts to open, one after the other.
    pub accounts: Vec<(Sats, AccountVersion)>,
    /// Blocks until an account expires.
    pub expiry_blocks: u32,
    /// Orders.
    pub orders: Vec<PlannedOrder>,
    /// Deposits, withdrawals, renewals; one after the other.
    pub changes: Vec<PlannedChange>,
    /// Raises of fees, one after the other.
    pub bumps: Vec<PlannedBump>,
    /// What becomes of its orders when the venue's fee rises.
    pub on_fee_rise: FeeRise,
    /// It wants channels with new peers only.
    pub new_nodes_only: bool,
    /// Cancels and closes everything at the end.
    pub closes: bool,
    /// Defect planted in it.
    pub plant: Option<Plant>,
    /// Calls at which its processes end, one after the other.
    pub cuts: Vec<Cut>,
}

impl Default for PlannedTrader {
    /// Somebody who does nothing.
    fn default() -> PlannedTrader {
        PlannedTrader {
            name: String::new(),
            accounts: Vec::new(),
            expiry_blocks: LONG_LIFE,
            orders: Vec::new(),
            changes: Vec::new(),
            bumps: Vec::new(),
            on_fee_rise: FeeRise::Cancel,
            new_nodes_only: false,
            closes: false,
            plant: None,
            cuts: Vec::new(),
        }
    }
}

/// What happens to chain and nodes, in parts of a million per block.
#[derive(Clone, Copy, Debug, Default)]
pub struct NatureRates {
    /// A reorganisation.
    pub reorganisation: u32,
    /// Its largest depth.
    pub max_depth: u64,
    /// A node restarts.
    pub node_restart: u32,
    /// A process is killed.
    pub kill: u32,
    /// Two nodes lose their connection.
    pub disconnect: u32,
    /// The fee rate changes.
    pub fee_change: u32,
    /// So many blocks come at once that short-lived accounts expire.
    pub storm: u32,
    /// The network loses an unconfirmed transaction.
    pub lose: u32,
    /// Somebody spends a coin of a deposit elsewhere that is in the last block: a reorganisation takes that back first.
    pub undo_deposit: u32,
    /// Somebody spends a coin of a deposit elsewhere that is in no block.
    pub undo_waiting: u32,
}

/// What the venue's operator does.
#[derive(Clone, Debug, Default)]
pub struct PlannedOperator {
    /// When the income goes to the node's wallet.
    pub sweep: Option<Sweep>,
    /// Milliseconds after the start, and satoshi that are then wanted from the venue's own coin.
    pub withdrawals: Vec<(u64, u64)>,
    /// Milliseconds after the start, and the rate of the execution fee from then on in parts of a million: the venue is
    /// started anew with it.
    pub fee_rise: Option<(u64, u32)>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed.
    pub seed: u64,
    /// Traders.
    pub traders: Vec<PlannedTrader>,
    /// Of the ports of every trader.
    pub trader_rates: Rates,
    /// Of the ports of the venue.
    pub venue_rates: Rates,
    /// Of the wire.
    pub wire_rates: WireRates,
    /// Of chain and nodes.
    pub nature: NatureRates,
    /// Duration of the phase in which faults happen, in milliseconds.
    pub faults_ms: u64,
    /// Time in which trading goes on without faults before everybody goes home, in milliseconds.
    pub calm_ms: u64,
    /// From block to block, in milliseconds.
    pub block_ms: u64,
    /// From batch to batch, in milliseconds.
    pub tick_ms: u64,
    /// What the venue's operator does.
    pub operator: PlannedOperator,
    /// Defect planted in the venue.
    pub venue_plant: Option<Plant>,
    /// Calls at which the venue's processes end.
    pub venue_cuts: Vec<Cut>,
    /// What a person types to run this plan again.
    pub rerun: String,
}

/// Blocks until an account expires that lives longer than any run.
const LONG_LIFE: u32 = 4_000;

/// Channel types of orders. Most orders of a run have the same, so that they meet.
const CHANNEL_TYPES: [OrderChannelType; 4] = [
    OrderChannelType::PeerDependent,
    OrderChannelType::PeerDependent,
    OrderChannelType::ScriptEnforced,
    OrderChannelType::SimpleTaproot,
];

/// Names of the traders.
pub(crate) const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// A calm minute's worth of a trade, for crash tests: how long accounts take to open, a batch to be made.
const SHORT_MS: u64 = 280_000;

impl Plan {
    /// The shortest life that holds everything: a seller and a buyer open an account each, trade twice (the second match
    /// partly fills an ask), replace and cancel an order, pay in and out, renew, raise a fee, and close. Without faults.
    pub fn short(version: AccountVersion) -> Plan {
        let order = |at_ms, ask, units| PlannedOrder {
            at_ms,
            ask,
            rate: if ask { 300 } else { 900 },
            units,
            ..PlannedOrder::default()
        };
        let change = |at_ms, change, expiry_blocks| PlannedChange {
            at_ms,
            account: 0,
            change,
            expiry_blocks,
            fee_rate: 300,
            version: Some(version),
        };
        let trader = |name: &str, value, orders, changes| PlannedTrader {
            name: name.to_owned(),
            accounts: vec![(value, version)],
            expiry_blocks: LONG_LIFE,
            orders,
            changes,
            bumps: vec![PlannedBump { at_ms: 140_000, account: 0, fee_rate: 2_000 }],
            closes: true,
            ..PlannedTrader::default()
        };
        // Nobody bids that much: it waits until it is replaced, and that one until the end.
        let waiting = PlannedOrder { rate: 1_000, replaced: Some((110_000, 1_100)), ..order(90_000, true, 1) };
        Plan {
            traders: vec![
                trader(
                    "alice",
                    Sats::constant(2_000_000),
                    vec![order(0, true, 7), waiting],
                    vec![change(150_000, AccountChange::Withdraw(150_000), Some(5_000))],
                ),
                trader(
                    "bob",
                    Sats::constant(500_000),
                    vec![order(0, false, 3), order(90_000, false, 2)],
                    vec![
                        change(150_000, AccountChange::Deposit(200_000), None),
                        change(160_000, AccountChange::Renew, Some(6_000)),
                    ],
                ),
            ],
            faults_ms: SHORT_MS,
            calm_ms: 0,
            block_ms: 12_000,
            tick_ms: 30_000,
            ..Plan::plain(1)
        }
    }

    /// The plan of a seed, without faults.
    pub fn honest(seed: u64) -> Plan {
        let mut plan = Plan::plain(seed);
        widen(&mut plan);
        plan
    }

    /// The plan of a seed with the orders and changes that everybody knows, without faults.
    fn plain(seed: u64) -> Plan {
        let mut random = Random::named(seed, "plan");
        let faults_ms = random.between(240_000, 600_000);
        let count = random.between(2, 4);
        let usual = *random.pick(&CHANNEL_TYPES);
        let names = NAMES.iter().take(usize::try_from(count).unwrap_or(2)).enumerate();
        let traders = names.map(|(index, name)| trader(&mut random, name, index % 2 == 0, faults_ms, usual)).collect();
        Plan {
            seed,
            traders,
            trader_rates: Rates::default(),
            venue_rates: Rates::default(),
            wire_rates: WireRates::default(),
            nature: NatureRates::default(),
            faults_ms,
            calm_ms: 300_000,
            block_ms: random.between(20_000, 60_000),
            tick_ms: random.between(20_000, 60_000),
            operator: PlannedOperator::default(),
            venue_plant: None,
            venue_cuts: Vec::new(),
            rerun: rerun(&format!("TIDEGATE_SIM_HONEST=1 TIDEGATE_SIM_SEED={seed}")),
        }
    }

    /// The plan of a seed, with the faults that it draws: some runs are calm in some respect.
    pub fn faulty(seed: u64) -> Plan {
        let mut plan = Plan::narrow(seed);
        widen(&mut plan);
        let mut random = Random::named(seed, "more faults");
        if random.chance(500_000) {
            plan.nature.lose = part(&mut random, 400_000);
        }
        if random.chance(300_000) {
            plan.nature.undo_deposit = part(&mut random, 600_000);
            plan.nature.undo_waiting = plan.nature.undo_deposit / 2;
        }
        if random.chance(150_000) {
            // Accounts that expire while they are used.
            plan.nature.storm = small(random.between(100_000, 300_000));
            let life = |trader: &mut PlannedTrader| trader.expiry_blocks = small(random.between(150, 250));
            plan.traders.iter_mut().for_each(life);
        }
        plan.rerun = rerun(&format!("TIDEGATE_SIM_SEED={seed}"));
        plan
    }

    /// What [`Plan::faulty`] was before plans became wider: seeds that found something then still mean the same.
    pub fn narrow(seed: u64) -> Plan {
        let mut random = Random::named(seed, "faults");
        let mut plan = Plan::plain(seed);
        plan.trader_rates = rates(&mut random);
        plan.venue_rates = rates(&mut random);
        let mut rate = |max| if random.chance(600_000) { part(&mut random, max) } else { 0 };
        plan.wire_rates = WireRates {
            drop: rate(30_000),
            repeat: rate(60_000),
            delay: rate(200_000),
            max_delay_ms: 0,
            cut: rate(30_000),
        };
        plan.nature = NatureRates {
            reorganisation: rate(300_000),
            max_depth: 1,
            node_restart: rate(200_000),
            kill: rate(200_000),
            disconnect: rate(200_000),
            fee_change: rate(500_000),
            storm: 0,
            lose: 0,
            undo_deposit: 0,
            undo_waiting: 0,
        };
        plan.wire_rates.max_delay_ms = random.between(1, 20_000);
        plan.nature.max_depth = random.between(1, 6);
        if random.chance(250_000) {
            plan.nature.storm = part(&mut random, 80_000);
            let life = |trader: &mut PlannedTrader| trader.expiry_blocks = small(random.between(150, 500));
            plan.traders.iter_mut().for_each(life);
        }
        plan.rerun = rerun(&format!("TIDEGATE_SIM_NARROW=1 TIDEGATE_SIM_SEED={seed}"));
        plan
    }
}

/// The command that runs something again which the environment names.
pub fn rerun(environment: &str) -> String {
    format!("{environment} cargo test -p tidegate-sim --test sim -- rerun --nocapture")
}

pub(crate) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(1)
}

fn part(random: &mut Random, max: u32) -> u32 {
    u32::try_from(random.below(u64::from(max))).unwrap_or(max)
}

fn rates(random: &mut Random) -> Rates {
    let mut rate = |max| if random.chance(600_000) { part(random, max) } else { 0 };
    Rates {
        fail_before: rate(20_000),
        fail_after: rate(20_000),
        delay_before: rate(50_000),
        delay_after: rate(50_000),
        cut: rate(3_000),
        max_delay_ms: random.between(1, 10_000),
    }
}

fn trader(random: &mut Random, name: &str, seller: bool, span_ms: u64, usual: OrderChannelType) -> PlannedTrader {
    let versions = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2, AccountVersion::V2];
    let accounts = (0..random.between(1, 2)).map(|_| {
        let value = if seller { random.between(1_000_000, 3_000_000) } else { random.between(150_000, 900_000) };
        (Sats::new(value).unwrap_or(Sats::constant(1_000_000)), *random.pick(&versions))
    });
    let accounts: Vec<_> = accounts.collect();
    let count = accounts.len();
    let orders = (0..random.between(1, 4)).map(|_| order(random, count, seller, span_ms, usual)).collect();
    let closes = random.chance(700_000);
    let changes = (0..random.between(0, 2)).map(|_| change(random, count, span_ms)).collect();
    PlannedTrader {
        name: name.to_owned(),
        accounts,
        expiry_blocks: LONG_LIFE,
        orders,
        changes,
        closes,
        ..PlannedTrader::default()
    }
}

fn change(random: &mut Random, accounts: usize, span_ms: u64) -> PlannedChange {
    let at_ms = random.between(span_ms / 6, span_ms);
    let changes = [
        AccountChange::Deposit(random.between(10_000, 2_000_000)),
        AccountChange::Withdraw(random.between(10_000, 400_000)),
        AccountChange::Renew,
    ];
    let change = *random.pick(&changes);
    let blocks = small(random.between(4_100, 20_000));
    let moved = change == AccountChange::Renew || random.chance(300_000);
    PlannedChange {
        at_ms,
        account: usize::try_from(random.below(u64::try_from(accounts).unwrap_or(1))).unwrap_or(0),
        change,
        expiry_blocks: moved.then_some(blocks),
        fee_rate: random.between(253, 2_000),
        version: random.chance(500_000).then_some(AccountVersion::V2),
    }
}

fn order(random: &mut Random, accounts: usize, seller: bool, span_ms: u64, usual: OrderChannelType) -> PlannedOrder {
    let ask = if random.chance(900_000) { seller } else { !seller };
    let units = random.between(1, 8);
    let self_balance = if !ask && random.chance(250_000) { random.between(1, 100_000) } else { 0 };
    let at_ms = random.between(0, span_ms * 3 / 4);
    PlannedOrder {
        at_ms,
        account: usize::try_from(random.below(u64::try_from(accounts).unwrap_or(1))).unwrap_or(0),
        ask,
        rate: small(if ask { random.between(50, 700) } else { random.between(400, 1_500) }),
        units: small(units),
        // Whoever brings a balance takes all or nothing.
        min_units: small(if self_balance > 0 { units } else { random.between(1, units) }),
        max_fee_rate: random.between(500, 5_000),
        channel_type: if random.chance(850_000) { usual } else { *random.pick(&CHANNEL_TYPES) },
        self_balance,
        cancel_at_ms: random.chance(200_000).then(|| at_ms + random.between(1_000, 120_000)),
        ..PlannedOrder::default()
    }
}
