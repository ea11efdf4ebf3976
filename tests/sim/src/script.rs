//! What the people behind the traders do: open accounts, place and cancel orders, close at the end. They are not part of
//! the processes and survive their crashes, as a person does; an answer that never comes is no answer.

use crate::plan::{AccountChange, NAMES, PlannedChange, PlannedOrder, PlannedTrader};
use crate::process::TraderHandle;
use crate::tally::{Element, Tally};
use bitcoin::{OutPoint, TxOut, Txid};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidegate_ports::{AddressKind, Clock, Timestamp, Wallet};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{AnnouncementConstraint, AskTerms, BidTerms, ConfirmationConstraint, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::{SandboxNode, SimClock};
use tidegate_trader::{
    BumpAccount, CancelError, CloseAccount, DepositAccount, Handle, NewOrder, OpenAccount, RenewAccount, Status,
    WithdrawAccount,
};

/// Lease duration of every order.
const DURATION: BlockCount = BlockCount::new(2016);
/// Milliseconds from look to look.
const LOOK_MS: u64 = 5_000;

/// What all scripts know.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The end: cancel and close.
    pub(crate) closing: Cell<bool>,
    /// Why an account could not be closed when it was tried last.
    pub(crate) refusals: RefCell<BTreeMap<AccountKey, String>>,
    tally: Tally,
}

impl Stage {
    /// The beginning.
    pub(crate) fn new(tally: Tally) -> Stage {
        Stage { closing: Cell::new(false), refusals: RefCell::default(), tally }
    }
}

/// One person.
pub(crate) struct Script {
    plan: PlannedTrader,
    handle: TraderHandle,
    clock: SimClock,
    stage: Rc<Stage>,
    began: Timestamp,
    /// Order of the plan → its name, once placed.
    placed: Vec<Option<OrderNonce>>,
    /// Orders of the plan that were tried.
    tried: Vec<bool>,
    /// Its node, which tells addresses.
    node: SandboxNode,
    /// Changes of accounts that were made.
    changed: usize,
    /// Where the account was when the next change was tried first.
    before: Option<OutPoint>,
    /// Orders of the plan that another one was to take the place of.
    replaced: Vec<bool>,
    /// Raises of fees that were made.
    bumped: usize,
    /// What was raised last.
    raised: Option<Txid>,
    /// Orders that a risen fee ended, as the process told last.
    outgrown: u64,
}

impl Script {
    /// Somebody with this plan.
    pub(crate) fn new(
        plan: PlannedTrader,
        handle: TraderHandle,
        clock: SimClock,
        stage: Rc<Stage>,
        node: SandboxNode,
    ) -> Script {
        let (began, count) = (clock.now(), plan.orders.len());
        let (placed, tried, replaced) = (vec![None; count], vec![false; count], vec![false; count]);
        let (changed, before, bumped, raised, outgrown) = (0, None, 0, None, 0);
        Script {
            plan,
            handle,
            clock,
            stage,
            began,
            placed,
            tried,
            node,
            changed,
            before,
            replaced,
            bumped,
            raised,
            outgrown,
        }
    }

    /// Follows the plan for ever.
    pub(crate) async fn run(mut self) {
        loop {
            self.clock.sleep(LOOK_MS).await;
            let Some(handle) = self.handle.borrow().clone() else { continue };
            let Ok(status) = handle.status().await else { continue };
            self.watch_fees(&status);
            if self.stage.closing.get() {
                if self.plan.closes {
                    self.close(&handle, &status).await;
                }
            } else {
                self.trade(&handle, &status).await;
            }
        }
    }

    fn passed_ms(&self) -> u64 {
        self.clock.now().0.saturating_sub(self.began.0)
    }

    async fn trade(&mut self, handle: &Handle, status: &Status) {
        let unfinished = status.accounts.iter().any(|account| account.state == AccountState::Initiated);
        if let (false, Some((value, version))) = (unfinished, self.plan.accounts.get(status.accounts.len())) {
            let expiry_blocks = BlockCount::new(self.plan.expiry_blocks);
            let request = OpenAccount { value: *value, expiry_blocks, version: *version, fee_rate: None };
            // Tried again at the next look.
            drop(handle.open_account(request).await);
        }
        for index in 0..self.plan.orders.len() {
            self.place(handle, status, index).await;
            self.replace(handle, status, index).await;
            self.cancel(handle, index).await;
        }
        self.change(handle, status).await;
        self.bump(handle, status).await;
    }

    /// Counts the orders that a risen fee ended; the process counts from its start.
    fn watch_fees(&mut self, status: &Status) {
        if status.outgrown_orders > self.outgrown {
            self.stage.tally.count(Element::OrderEndedByFeeRise);
        }
        self.outgrown = status.outgrown_orders;
    }

    /// The account of this number. Accounts are told apart by the order in which they were opened: that of their keys in
    /// the wallet.
    fn account(status: &Status, number: usize, expired: bool) -> Option<&Account> {
        let usable = |state| state == AccountState::Open || (expired && state == AccountState::Expired);
        Script::numbered(status, number).filter(|account| usable(account.state))
    }

    /// As [`Script::account`], in whatever state.
    fn numbered(status: &Status, number: usize) -> Option<&Account> {
        let mut accounts: Vec<&Account> = status.accounts.iter().collect();
        accounts.sort_by_key(|account| account.locator.index);
        accounts.get(number).copied()
    }

    /// Makes the next change of an account, again and again until the account moved.
    async fn change(&mut self, handle: &Handle, status: &Status) {
        let now = self.passed_ms();
        let next = self.plan.changes.get(self.changed).filter(|planned| planned.at_ms <= now).copied();
        let Some(planned) = next else { return };
        // What has expired can be renewed.
        let expired = planned.change == AccountChange::Renew;
        let Some(account) = Script::account(status, planned.account, expired) else { return };
        let before = *self.before.get_or_insert(account.outpoint.unwrap_or_default());
        let moved = account.outpoint != Some(before);
        if moved || self.make(handle, status, account, &planned).await {
            self.changed += 1;
            self.before = None;
        }
    }

    /// Asks for a change; whether nothing is left to be asked for.
    async fn make(&self, handle: &Handle, status: &Status, own: &Account, planned: &PlannedChange) -> bool {
        let (account, fee_rate, version) = (own.key(), SatPerKw::new(planned.fee_rate), planned.version);
        let expiry = planned.expiry_blocks.zip(status.best_height);
        let expiry = expiry.and_then(|(blocks, height)| height.checked_add(BlockCount::new(blocks)));
        let made = match planned.change {
            AccountChange::Deposit(amount) => {
                let amount = Sats::new(amount).unwrap_or(Sats::ZERO);
                handle.deposit(DepositAccount { account, amount, fee_rate, expiry, version }).await
            }
            AccountChange::Withdraw(amount) => {
                let Ok(script_pubkey) = self.node.new_address(AddressKind::Taproot).await else { return true };
                let outputs = vec![TxOut { value: bitcoin::Amount::from_sat(amount), script_pubkey }];
                handle.withdraw(WithdrawAccount { account, outputs, fee_rate, expiry, version }).await
            }
            AccountChange::Renew => {
                let Some(expiry) = expiry else { return true };
                handle.renew(RenewAccount { account, fee_rate, expiry, version }).await
            }
        };
        made.is_ok()
    }

    /// Raises the fee of what is unconfirmed of an account, as soon as something is.
    async fn bump(&mut self, handle: &Handle, status: &Status) {
        let now = self.passed_ms();
        let Some(planned) = self.plan.bumps.get(self.bumped).filter(|planned| planned.at_ms <= now).copied() else {
            return;
        };
        let Some(account) = Script::numbered(status, planned.account) else { return };
        let request = BumpAccount { account: account.key(), fee_rate: SatPerKw::new(planned.fee_rate) };
        if handle.bump(request).await.is_ok() {
            self.bumped += 1;
            let raised = account.latest_tx.as_ref().map(|transaction| transaction.compute_txid());
            let again = raised.is_some() && raised == self.raised;
            self.stage.tally.count(if again { Element::FeeRaisedAgain } else { Element::FeeRaised });
            self.raised = raised;
        }
    }

    /// Puts another order in the place of one that was placed.
    async fn replace(&mut self, handle: &Handle, status: &Status, index: usize) {
        let now = self.passed_ms();
        let Some(planned) = self.plan.orders.get(index).copied() else { return };
        let due = planned.replaced.filter(|(at_ms, _)| *at_ms <= now);
        let (Some((_, rate)), Some(Some(old))) = (due, self.placed.get(index).copied()) else { return };
        let Some(account) = Script::account(status, planned.account, false) else { return };
        let Some(tried) = self.replaced.get_mut(index).filter(|tried| !**tried) else { return };
        *tried = true;
        let request = self.order(&PlannedOrder { rate, ..planned }, account);
        if let (Ok(new), Some(place)) = (handle.replace_order(old, request).await, self.placed.get_mut(index)) {
            *place = Some(new);
            self.stage.tally.count(Element::OrderReplaced);
        }
    }

    async fn place(&mut self, handle: &Handle, status: &Status, index: usize) {
        let now = self.passed_ms();
        let Some(planned) = self.plan.orders.get(index).copied() else { return };
        let Some(account) = Script::account(status, planned.account, false) else { return };
        let Some(tried) = self.tried.get_mut(index).filter(|tried| !**tried && planned.at_ms <= now) else { return };
        *tried = true;
        let request = self.order(&planned, account);
        let placed = handle.submit_order(request).await.ok();
        if let Some(place) = self.placed.get_mut(index) {
            *place = placed;
        }
    }

    async fn cancel(&mut self, handle: &Handle, index: usize) {
        let now = self.passed_ms();
        let due = self.plan.orders.get(index).and_then(|order| order.cancel_at_ms).is_some_and(|at| at <= now);
        if let (true, Some(Some(nonce))) = (due, self.placed.get(index).copied()) {
            // An order that is filled or gone can not be cancelled, and need not be.
            let cancelled = handle.cancel_order(nonce).await;
            if cancelled.is_ok() {
                self.stage.tally.count(Element::OrderCancelled);
            }
            if !matches!(cancelled, Err(CancelError::Gone(_)))
                && let Some(place) = self.placed.get_mut(index)
            {
                *place = None;
            }
        }
    }

    async fn close(&mut self, handle: &Handle, status: &Status) {
        for own in status.orders.iter().filter(|own| !own.state.is_archived()) {
            drop(handle.cancel_order(own.order.nonce).await);
        }
        for account in &status.accounts {
            if matches!(account.state, AccountState::Open | AccountState::Expired) {
                let request = CloseAccount::to_wallet(account.key());
                if let Err(error) = handle.close_account(request).await {
                    self.stage.refusals.borrow_mut().insert(account.key(), error.to_string());
                }
            }
        }
    }

    /// A planned order for an account.
    fn order(&self, planned: &PlannedOrder, account: &Account) -> NewOrder {
        let world = self.node.world();
        let denied = planned.denies.and_then(|number| NAMES.get(number)).and_then(|name| world.node(name));
        NewOrder {
            account: account.key(),
            rate: RatePerBillion::new(planned.rate),
            units: UnitCount::new(planned.units),
            min_units: UnitCount::new(planned.min_units),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(planned.max_fee_rate),
            channel_type: planned.channel_type,
            auction: planned.auction,
            allowed_nodes: Vec::new(),
            denied_nodes: denied.map(|node| node.id()).filter(|id| *id != self.node.id()).into_iter().collect(),
            public: false,
            side: side(planned),
        }
    }
}

fn side(planned: &PlannedOrder) -> OrderSide {
    let PlannedOrder { announcement, confirmation, .. } = *planned;
    if planned.ask {
        return OrderSide::Ask(AskTerms { announcement, confirmation });
    }
    OrderSide::Bid(BidTerms {
        self_balance: Sats::new(planned.self_balance).unwrap_or(Sats::ZERO),
        unannounced: announcement == AnnouncementConstraint::OnlyUnannounced,
        zero_conf: confirmation == ConfirmationConstraint::OnlyZeroConf,
        ..BidTerms::default()
    })
}
