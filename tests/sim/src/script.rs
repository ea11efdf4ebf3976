//! What the people behind the traders do: open accounts, place and cancel orders, close at the end. They are not part of
//! the processes and survive their crashes, as a person does; an answer that never comes is no answer.

use crate::plan::{AccountChange, PlannedChange, PlannedOrder, PlannedTrader};
use crate::process::TraderHandle;
use bitcoin::{OutPoint, TxOut};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidegate_ports::{AddressKind, Clock, Timestamp, Wallet};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::{SandboxNode, SimClock};
use tidegate_trader::{
    CloseAccount, DepositAccount, Handle, NewOrder, OpenAccount, RenewAccount, Status, WithdrawAccount,
};

/// Lease duration of every order.
const DURATION: BlockCount = BlockCount::new(2016);
/// Milliseconds from look to look.
const LOOK_MS: u64 = 5_000;

/// What all scripts know.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// The end: cancel and close.
    pub(crate) closing: Cell<bool>,
    /// Why an account could not be closed when it was tried last.
    pub(crate) refusals: RefCell<BTreeMap<AccountKey, String>>,
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
        let (placed, tried) = (vec![None; count], vec![false; count]);
        Script { plan, handle, clock, stage, began, placed, tried, node, changed: 0, before: None }
    }

    /// Follows the plan for ever.
    pub(crate) async fn run(mut self) {
        loop {
            self.clock.sleep(LOOK_MS).await;
            let Some(handle) = self.handle.borrow().clone() else { continue };
            let Ok(status) = handle.status().await else { continue };
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
            self.cancel(handle, index).await;
        }
        self.change(handle, status).await;
    }

    /// The account of this number. Accounts are told apart by the order in which they were opened: that of their keys in
    /// the wallet.
    fn account(status: &Status, number: usize, expired: bool) -> Option<&Account> {
        let mut accounts: Vec<&Account> = status.accounts.iter().collect();
        accounts.sort_by_key(|account| account.locator.index);
        let usable = |state| state == AccountState::Open || (expired && state == AccountState::Expired);
        accounts.get(number).copied().filter(|account| usable(account.state))
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

    async fn place(&mut self, handle: &Handle, status: &Status, index: usize) {
        let now = self.passed_ms();
        let Some(planned) = self.plan.orders.get(index).copied() else { return };
        let Some(account) = Script::account(status, planned.account, false) else { return };
        let Some(tried) = self.tried.get_mut(index).filter(|tried| !**tried && planned.at_ms <= now) else { return };
        *tried = true;
        let placed = handle.submit_order(new_order(&planned, account)).await.ok();
        if let Some(place) = self.placed.get_mut(index) {
            *place = placed;
        }
    }

    async fn cancel(&mut self, handle: &Handle, index: usize) {
        let now = self.passed_ms();
        let due = self.plan.orders.get(index).and_then(|order| order.cancel_at_ms).is_some_and(|at| at <= now);
        if let (true, Some(Some(nonce))) = (due, self.placed.get(index).copied()) {
            // An order that is filled or gone can not be cancelled, and need not be.
            if !matches!(handle.cancel_order(nonce).await, Err(tidegate_trader::CancelError::Gone(_)))
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
}

fn new_order(planned: &PlannedOrder, account: &Account) -> NewOrder {
    let bid = BidTerms { self_balance: Sats::new(planned.self_balance).unwrap_or(Sats::ZERO), ..BidTerms::default() };
    NewOrder {
        account: account.key(),
        rate: RatePerBillion::new(planned.rate),
        units: UnitCount::new(planned.units),
        min_units: UnitCount::new(planned.min_units),
        duration: DURATION,
        max_batch_fee_rate: SatPerKw::new(planned.max_fee_rate),
        channel_type: planned.channel_type,
        auction: AuctionType::Inbound,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side: if planned.ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(bid) },
    }
}
