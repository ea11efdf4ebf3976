//! The simulated traders: the flows of a live agent each, on a node of their own, led by a habit instead of a strategy.

use super::ground::Ground;
use super::habits::{Cast, Habit, Sight, Wished, stays};
use crate::daemon::crew::Crew;
use crate::daemon::parts::TraderParts;
use crate::runtime::SystemClock;
use crate::store::SqliteStore;
use crate::venue::{GrpcLink, Token};
use anyhow::Context as _;
use futures_util::future::join_all;
use std::path::Path;
use std::sync::Arc;
use tidegate_ports::Wallet as _;
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::{AccountKey, NodeId, OrderNonce};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderChannelType, OrderSide, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::{Random, SandboxEntropy, SandboxNode};
use tidegate_trader::{
    CloseAccount, DepositAccount, Handle, NewOrder, OpenAccount, RenewAccount, Status, TraderConfig,
};

/// Duration of every lease here.
pub(super) const DURATION: BlockCount = BlockCount::new(2016);
/// Blocks that a new or renewed account lives.
const LIFETIME: BlockCount = BlockCount::new(12_000);
/// An account with fewer blocks left is renewed.
const RENEW_BELOW: u32 = 1_500;

type Env = TraderParts<SandboxNode, SqliteStore, SystemClock, SandboxEntropy>;

/// What everybody can see when the crowd decides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Board {
    /// Rate of the last clearing.
    pub(super) last_rate: Option<u32>,
}

/// One of them.
pub(super) struct Player {
    pub(super) name: &'static str,
    pub(super) node: SandboxNode,
    pub(super) trader: Handle,
    habit: Habit,
    account: Sats,
    random: Random,
    /// Leases when it looked last, and clearings since that number changed.
    leases: usize,
    silent: u32,
    round: u64,
    env: Arc<Env>,
}

/// What its account needs before it can trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    Open,
    Wait,
    Close(AccountKey),
    /// Cancel what is open: a change needs that.
    Clear,
    Renew(AccountKey),
    Deposit(AccountKey),
    Trade(AccountKey),
}

impl Player {
    /// Starts its flows.
    ///
    /// # Errors
    /// When its database can not be used.
    pub(super) async fn start(
        ground: &Ground,
        cast: &Cast,
        venue: &str,
        folder: &Path,
        crew: &mut Crew,
    ) -> anyhow::Result<Player> {
        let node = ground.node(cast.name);
        let store = SqliteStore::open(&folder.join(format!("{}.sqlite", cast.name)), "trader").await?;
        let link = GrpcLink::new(venue, Token::new(identity(cast.name)))?;
        let (trader, flows) = tidegate_trader::trader(config());
        let entropy = ground.world.entropy(cast.name);
        let env = Arc::new(TraderParts { node: node.clone(), link, store, clock: SystemClock, entropy });
        crew.spawn("a simulated trader", {
            let env = Arc::clone(&env);
            async move { flows.run(&*env).await }
        });
        // The habit is the same at every start, what it draws is not.
        let habit = cast.habit.drawn(&mut Random::named(ground.seed(), cast.name));
        let random = Random::named(ground.seed().wrapping_add(ground.start()), cast.name);
        let account = Sats::new(cast.account_sats).context("an account's value")?;
        let (name, leases, silent, round) = (cast.name, 0, 0, 0);
        Ok(Player { name, node, trader, habit, account, random, leases, silent, round, env })
    }

    /// Looks after its account, then brings its order to what it wishes. What fails is tried again at the next clearing.
    async fn act(&mut self, board: Board, inbound_sats: u64) {
        if let Err(error) = self.try_act(board, inbound_sats).await {
            tracing::debug!(trader = self.name, %error, "did nothing this time");
        }
    }

    async fn try_act(&mut self, board: Board, inbound_sats: u64) -> anyhow::Result<()> {
        let status = self.trader.status().await?;
        if status.leases.len() == self.leases {
            self.silent = self.silent.saturating_add(1);
        } else {
            (self.leases, self.silent) = (status.leases.len(), 0);
        }
        self.round = self.round.saturating_add(1);
        let wallet = self.env.node.confirmed_balance().await?;
        let fee_rate = self.env.node.estimate_fee(6).await?;
        let trader = &self.trader;
        match upkeep(&status, self.account, wallet, self.habit.sells()) {
            Upkeep::Wait => {}
            Upkeep::Open => {
                let (value, expiry_blocks) = (self.account, LIFETIME);
                let version = AccountVersion::V2;
                trader.open_account(OpenAccount { value, expiry_blocks, version, fee_rate: None }).await?;
            }
            Upkeep::Close(account) => {
                trader.close_account(CloseAccount::to_wallet(account)).await?;
            }
            Upkeep::Clear => {
                for order in live(&status) {
                    trader.cancel_order(order.order.nonce).await?;
                }
            }
            Upkeep::Renew(account) => {
                let height = status.best_height.context("no height yet")?;
                let expiry = height.checked_add(LIFETIME).context("the end of time")?;
                trader.renew(RenewAccount { account, fee_rate, expiry, version: None }).await?;
            }
            Upkeep::Deposit(account) => {
                let (amount, expiry, version) = (self.account, None, None);
                trader.deposit(DepositAccount { account, amount, fee_rate, expiry, version }).await?;
            }
            Upkeep::Trade(account) => self.trade(account, &status, board, inbound_sats).await?,
        }
        Ok(())
    }

    async fn trade(
        &mut self,
        account: AccountKey,
        status: &Status,
        board: Board,
        inbound_sats: u64,
    ) -> anyhow::Result<()> {
        let sight = Sight { last_rate: board.last_rate, silent: self.silent, round: self.round, inbound_sats };
        let wished = self.habit.wish(sight, &mut self.random);
        let mut standing = false;
        for own in live(status) {
            let (rate, open) = (own.order.rate.get(), own.units_unfulfilled.get());
            if !standing && wished.as_ref().is_some_and(|wished| stays(wished, rate, open)) {
                standing = true;
            } else {
                self.trader.cancel_order(own.order.nonce).await?;
            }
        }
        if let Some(wished) = wished.filter(|_| !standing) {
            self.place(account, wished).await?;
        }
        Ok(())
    }

    async fn place(&self, account: AccountKey, wished: Wished) -> anyhow::Result<OrderNonce> {
        let order = NewOrder {
            account,
            rate: RatePerBillion::new(wished.rate),
            units: UnitCount::new(wished.units),
            min_units: UnitCount::new(wished.min_units),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(wished.max_fee_rate),
            channel_type: OrderChannelType::PeerDependent,
            auction: AuctionType::Inbound,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side: if wished.ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(BidTerms::default()) },
        };
        Ok(self.trader.submit_order(order).await?)
    }

    /// Whether it takes part in batches.
    pub(super) async fn takes_part(&self) -> bool {
        self.trader.status().await.is_ok_and(|status| takes_part(&status))
    }
}

/// How the clients of the sandbox are set: as usual, but quick to come back, since blocks are quick here.
pub(super) fn config() -> TraderConfig {
    TraderConfig { reconnect_min_ms: 500, reconnect_max_ms: 4_000, step_timeout_ms: 8_000, ..TraderConfig::default() }
}

/// Whether an account of this trader takes part in batches.
pub(super) fn takes_part(status: &Status) -> bool {
    let open = |account: &Account| account.state == AccountState::Open;
    status.accounts.iter().any(|account| open(account) && status.subscribed_accounts.contains(&account.key()))
}

/// The name by which the venue knows a trader, the same at every start.
pub(super) fn identity(name: &str) -> [u8; 32] {
    let mut token = [0; 32];
    for (place, byte) in token.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    token
}

fn live(status: &Status) -> impl Iterator<Item = &OwnOrder> {
    status.orders.iter().filter(|own| !own.state.is_archived())
}

/// What comes first: an account that can trade, that will not expire soon, and that a seller has coins in.
fn upkeep(status: &Status, target: Sats, wallet: Sats, sells: bool) -> Upkeep {
    let held = status.accounts.iter().find(|account| {
        !matches!(
            account.state,
            AccountState::Closed | AccountState::CanceledAfterRecovery | AccountState::PendingClosed
        )
    });
    let Some(account) = held else { return Upkeep::Open };
    let key = account.key();
    let left = account.terms.expiry.get().saturating_sub(status.best_height.map_or(0, BlockHeight::get));
    let quarter = target.get() / 4;
    let change = match account.state {
        AccountState::Expired => return Upkeep::Close(key),
        AccountState::Open if left < RENEW_BELOW => Some(Upkeep::Renew(key)),
        AccountState::Open if sells && account.value.get() < quarter && wallet.get() > target.get() => {
            Some(Upkeep::Deposit(key))
        }
        AccountState::Open => None,
        _ => return Upkeep::Wait,
    };
    match change {
        Some(_) if live(status).next().is_some() => Upkeep::Clear,
        Some(change) => change,
        None => Upkeep::Trade(key),
    }
}

/// All of them.
pub(super) struct Crowd(pub(super) Vec<Player>);

impl Crowd {
    /// Everybody decides, side by side; what can be paid to a node through leased channels is told by `inbound`.
    pub(super) async fn act(&mut self, board: Board, inbound: impl Fn(NodeId) -> u64) {
        let acts = self.0.iter_mut().map(|player| {
            let inbound_sats = inbound(player.node.id());
            player.act(board, inbound_sats)
        });
        join_all(acts).await;
    }

    /// Whether everybody takes part in batches.
    pub(super) async fn takes_part(&self) -> bool {
        join_all(self.0.iter().map(Player::takes_part)).await.into_iter().all(|part| part)
    }
}
