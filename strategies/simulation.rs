//! A toy market in which seller and buyer meet, to show that their presets converge. Matching is one ask against one
//! bid at the bid's rate; premiums, fees and reserves are the protocol's. The real matching is tested elsewhere.

use crate::AnyStrategy;
use crate::fixtures::{FEE, point, terms};
use serde_json::Value;
use tidegate_engine::driver::{Place, step};
use tidegate_engine::gate::{Limits, RiskGate};
use tidegate_engine::journal::JournalEntry;
use tidegate_engine::strategy::{Intent, Now, OrderIntent};
use tidegate_engine::view::{
    AccountView, ClearedPair, Clearing, LeaseView, MarketView, NodeView, OrderView, Seen, Side, Timestamp,
};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::fees::{chain_fee, reference_premium};
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{BlockHeight, RatePerBillion, SatPerKw, Sats};

const FEE_RATE: SatPerKw = SatPerKw::new(500);

fn limits() -> Limits {
    Limits {
        dry_run: false,
        max_order_sats: Sats::constant(50_000_000),
        max_leased_sats: Sats::constant(200_000_000),
        max_daily_cost_sats: Sats::constant(10_000_000),
        ask_rate_min_ppb: RatePerBillion::new(1),
        bid_rate_max_ppb: RatePerBillion::new(20_000),
        rate_max_ppb: RatePerBillion::new(50_000),
        max_account_sats: Sats::constant(200_000_000),
        max_accounts_total_sats: Sats::constant(200_000_000),
        wallet_reserve_sats: Sats::ZERO,
        max_batch_fee_rate_sat_per_kw: SatPerKw::new(50_000),
        max_open_orders: 10,
        max_terms_age_s: 60,
    }
}

/// One participant with everything he knows.
struct Agent {
    strategy: AnyStrategy,
    state: Value,
    view: MarketView,
    accounts: Vec<AccountView>,
    orders: Vec<OrderView>,
    leases: Vec<LeaseView>,
    wallet: u64,
    journal: Vec<JournalEntry>,
    number: u32,
}

impl Agent {
    fn new(preset: &str, number: u32, wallet: u64) -> Agent {
        Agent {
            strategy: AnyStrategy::from_toml(preset).unwrap(),
            state: Value::Null,
            view: MarketView::default(),
            accounts: vec![],
            orders: vec![],
            leases: vec![],
            wallet,
            journal: vec![],
            number,
        }
    }

    fn reserved(&self, key: AccountKey) -> Sats {
        let live = self.orders.iter().filter(|order| order.account == key && order.is_live());
        Sats::checked_sum(live.map(|order| order.reserved)).unwrap()
    }

    fn refresh(&mut self, at: Timestamp, height: u32, clearings: &[Clearing], open: (u32, u32)) {
        let mut terms = terms();
        terms.next_clear_time = 0;
        let mut accounts = self.accounts.clone();
        for account in &mut accounts {
            account.reserved = self.reserved(account.key);
        }
        let node = NodeView {
            id: NodeId::new(point(self.number)),
            wallet_confirmed: Sats::new(self.wallet).unwrap(),
            synced: true,
        };
        self.view = MarketView {
            at,
            observed_since: Timestamp(1_000_000),
            clearings: clearings.to_vec().into(),
            interest: vec![
                Seen::now(at, crate::fixtures::interest(open.1, 0)),
                Seen::now(at, {
                    let mut interest = crate::fixtures::interest(open.1, 0);
                    for market in interest.values_mut() {
                        market.asks.units_tier0 = open.0;
                    }
                    interest
                }),
            ],
            terms: vec![Seen::now(at, terms)],
            ratings: vec![],
            accounts: accounts.into_iter().map(|account| Seen::now(at, account)).collect(),
            orders: self.orders.iter().cloned().map(|order| Seen::now(at, order)).collect(),
            leases: self.leases.iter().cloned().map(|lease| Seen::now(at, lease)).collect(),
            node: vec![Seen::now(at, node)],
            fee_rates: vec![Seen::now(at, FEE_RATE)],
            heights: vec![Seen::now(at, BlockHeight::new(height))],
        };
    }

    fn act(&mut self, at: Timestamp, height: u32) {
        let now = Now { time: at, height: BlockHeight::new(height) };
        let sequence = u64::try_from(self.journal.len()).unwrap();
        let place = Place { journal_sequence: sequence, store_sequence: sequence };
        let done = step(&self.strategy, &mut self.state, &RiskGate::new(limits()), &self.view, now, place);
        self.journal.push(done.entry);
        for approved in done.approved {
            self.carry_out(approved.into_inner(), at, height);
        }
    }

    fn carry_out(&mut self, intent: Intent, at: Timestamp, height: u32) {
        let reserved = intent.reserve(&FEE, AccountVersion::V2).unwrap();
        match intent {
            Intent::PlaceAsk { order, .. } => self.place(&order, Side::Ask, reserved, at),
            Intent::PlaceBid { order, .. } => self.place(&order, Side::Bid, reserved, at),
            Intent::Cancel { nonce } => {
                self.orders
                    .iter_mut()
                    .filter(|order| order.nonce == nonce)
                    .for_each(|order| order.state = OrderState::Canceled);
            }
            Intent::OpenAccount { value, expiry_blocks, version } => {
                self.wallet -= value.get();
                let count = u32::try_from(self.accounts.len()).unwrap();
                self.accounts.push(AccountView {
                    key: AccountKey::new(point(self.number * 100 + count)),
                    version,
                    value,
                    reserved: Sats::ZERO,
                    expiry: BlockHeight::new(height + expiry_blocks.get()),
                    state: AccountState::Open,
                });
            }
            Intent::CloseAccount { .. } | Intent::Renew { .. } => panic!("nothing expires here"),
            Intent::Deposit { .. } | Intent::Withdraw { .. } | Intent::BumpFee { .. } => panic!("only persons do this"),
        }
    }

    fn place(&mut self, order: &OrderIntent, side: Side, reserved: Sats, at: Timestamp) {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&self.number.to_be_bytes());
        name[4..12].copy_from_slice(&u64::try_from(self.orders.len()).unwrap().to_be_bytes());
        self.orders.push(OrderView {
            nonce: OrderNonce::new(name),
            account: order.account,
            side,
            rate: order.rate,
            units: order.units,
            units_unfulfilled: order.units,
            min_units: order.min_units,
            duration: order.duration,
            max_batch_fee_rate: order.max_batch_fee_rate,
            self_balance: Sats::ZERO,
            min_node_tier: NodeTier::Tier0,
            state: OrderState::Submitted,
            reserved,
            placed_at: at,
        });
    }

    fn live(&self) -> Option<OrderView> {
        self.orders.iter().find(|order| order.is_live() && order.max_batch_fee_rate >= FEE_RATE).cloned()
    }

    /// Books `filled` and settles the account to the satoshi.
    fn book(&mut self, order: &OrderView, lease: LeaseView) {
        let account = self.accounts.iter_mut().find(|account| account.key == order.account).unwrap();
        let fees = lease.execution_fee.get() + lease.chain_fee.get();
        let value = match lease.side {
            Side::Ask => account.value.get() + lease.premium.get() - lease.units.to_sats().get() - fees,
            Side::Bid => account.value.get() - lease.premium.get() - fees,
        };
        account.value = Sats::new(value).unwrap();
        let stored = self.orders.iter_mut().find(|known| known.nonce == order.nonce).unwrap();
        stored.units_unfulfilled = stored.units_unfulfilled.checked_sub(lease.units).unwrap();
        let rest = stored.units_unfulfilled;
        stored.state = if rest < stored.min_units { OrderState::Executed } else { OrderState::PartiallyFilled };
        // What is left reserves its share; exactness does not matter to the toy.
        stored.reserved =
            Sats::new(stored.reserved.get() * u64::from(rest.get()) / u64::from(stored.units.get())).unwrap();
        self.leases.push(lease);
    }
}

/// Clears one pair, if the two agree.
fn clear(seller: &mut Agent, buyer: &mut Agent, at: Timestamp, height: u32, number: u32) -> Option<Clearing> {
    let (ask, bid) = (seller.live()?, buyer.live()?);
    let units = ask.units_unfulfilled.min(bid.units_unfulfilled);
    if ask.rate > bid.rate || ask.duration != bid.duration || units < ask.min_units.max(bid.min_units) {
        return None;
    }
    let batch_id = BatchId::new(point(10_000 + number));
    for (agent, order) in [(&mut *seller, &ask), (&mut *buyer, &bid)] {
        let lease = LeaseView {
            batch_id,
            account: order.account,
            nonce: order.nonce,
            side: order.side,
            limit_rate: order.rate,
            units,
            self_balance: Sats::ZERO,
            duration: order.duration,
            clearing_rate: bid.rate,
            premium: reference_premium(units.to_sats(), bid.rate, order.duration).unwrap(),
            execution_fee: FEE.on(units.to_sats()).unwrap(),
            chain_fee: chain_fee(1, FEE_RATE, AccountVersion::V2).unwrap(),
            start: BlockHeight::new(height),
            booked_at: at,
        };
        agent.book(order, lease);
    }
    Some(Clearing {
        batch_id,
        event_at: at,
        seen_at: at,
        duration: ask.duration,
        price: bid.rate,
        pairs: vec![ClearedPair { ask_rate: ask.rate, bid_rate: bid.rate, units }],
        batch_fee_rate: FEE_RATE,
    })
}

/// How far apart two clearings are.
#[derive(Clone, Copy)]
struct Tick {
    ms: u64,
    blocks: u32,
}

/// As in the live market.
const TEN_MINUTES: Tick = Tick { ms: 600_000, blocks: 1 };
/// As in the sandbox.
const DAY: Tick = Tick { ms: 86_400_000, blocks: 144 };

/// Runs `ticks` ticks; returns the agents and the ticks at which something cleared.
fn run(presets: (&str, &str), ticks: u32, pace: Tick) -> (Agent, Agent, Vec<u32>) {
    let mut seller = Agent::new(presets.0, 1, 150_000_000);
    let mut buyer = Agent::new(presets.1, 2, 20_000_000);
    let (mut clearings, mut cleared) = (Vec::new(), Vec::new());
    for tick in 0..ticks {
        let at = Timestamp(1_000_000 + u64::from(tick) * pace.ms);
        let height = 500 + tick * pace.blocks;
        let open = |agent: &Agent| agent.live().map_or(0, |order| order.units_unfulfilled.get());
        let open = (open(&seller), open(&buyer));
        for agent in [&mut seller, &mut buyer] {
            agent.refresh(at, height, &clearings, open);
            agent.act(at, height);
        }
        if let Some(clearing) = clear(&mut seller, &mut buyer, at, height, tick) {
            clearings.push(clearing);
            cleared.push(tick);
        }
    }
    (seller, buyer, cleared)
}

#[test]
fn sandbox_presets_trade_within_a_few_ticks_and_keep_trading() {
    let presets = (crate::seller::SANDBOX_PRESET, crate::buyer::SANDBOX_PRESET);
    let (seller, buyer, cleared) = run(presets, 50, DAY);
    assert!(cleared.first().is_some_and(|tick| *tick <= 4), "first trade at {cleared:?}");
    assert!(cleared.len() >= 10, "{} trades at {cleared:?}", cleared.len());
    let premium = |agent: &Agent| agent.leases.iter().map(|lease| lease.premium.get()).sum::<u64>();
    assert_eq!(premium(&seller), premium(&buyer));
    for lease in &seller.leases {
        assert!(lease.clearing_rate >= lease.limit_rate);
    }
    for agent in [&seller, &buyer] {
        assert!(agent.journal.iter().all(|entry| !entry.reasons.is_empty()));
        let refused = agent
            .journal
            .iter()
            .flat_map(|entry| &entry.intents)
            .filter(|judged| matches!(judged.verdict, tidegate_engine::journal::Verdict::Refused(_)));
        assert_eq!(refused.count(), 0);
    }
}

#[test]
fn live_presets_trade_before_the_buyers_deadline() {
    let presets = (crate::seller::PRESET, crate::buyer::PRESET);
    // Ticks of ten minutes and blocks alike, until shortly before the first lease's successor would be bought.
    let (_, buyer, cleared) = run(presets, 2_016 - 288, TEN_MINUTES);
    assert!(!cleared.is_empty());
    let bought: u32 = buyer.leases.iter().map(|lease| lease.units.get()).sum();
    // Less than a smallest match may be left over.
    assert!((41..=50).contains(&bought), "{bought} units at {cleared:?}");
}

#[test]
fn the_same_market_gives_the_same_journal() {
    let journal = || {
        let presets = (crate::seller::SANDBOX_PRESET, crate::buyer::SANDBOX_PRESET);
        let (seller, buyer, _) = run(presets, 40, DAY);
        serde_json::to_string(&(seller.journal, buyer.journal)).unwrap()
    };
    let first = journal();
    assert!(first == journal(), "two runs differ");
    let parsed: (Vec<JournalEntry>, Vec<JournalEntry>) = serde_json::from_str(&first).unwrap();
    assert!(serde_json::to_string(&parsed).unwrap() == first, "the journal does not survive its own text");
}
