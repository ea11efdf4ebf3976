//! What the people behind the traders do: open accounts, place and cancel orders, close at the end. They are not part of
//! the processes and survive their crashes, as a person does; an answer that never comes is no answer.

use crate::plan::{PlannedOrder, PlannedTrader};
use crate::process::TraderHandle;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidegate_ports::{Clock, Timestamp};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::SimClock;
use tidegate_trader::{CloseAccount, Handle, NewOrder, OpenAccount, Status};

/// Lease duration of every order.
const DURATION: BlockCount = BlockCount::new(2016);
/// Blocks until an account expires.
const EXPIRY: BlockCount = BlockCount::new(4_000);
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
}

impl Script {
    /// Somebody with this plan.
    pub(crate) fn new(plan: PlannedTrader, handle: TraderHandle, clock: SimClock, stage: Rc<Stage>) -> Script {
        let (began, count) = (clock.now(), plan.orders.len());
        Script { plan, handle, clock, stage, began, placed: vec![None; count], tried: vec![false; count] }
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
            let request = OpenAccount { value: *value, expiry_blocks: EXPIRY, version: *version, fee_rate: None };
            // Tried again at the next look.
            drop(handle.open_account(request).await);
        }
        for index in 0..self.plan.orders.len() {
            self.place(handle, status, index).await;
            self.cancel(handle, index).await;
        }
    }

    async fn place(&mut self, handle: &Handle, status: &Status, index: usize) {
        let now = self.passed_ms();
        let Some(planned) = self.plan.orders.get(index).copied() else { return };
        // Accounts are told apart by the order in which they were opened: that of their keys in the wallet.
        let mut accounts: Vec<&Account> = status.accounts.iter().collect();
        accounts.sort_by_key(|account| account.locator.index);
        let Some(account) = accounts.get(planned.account).filter(|account| account.state == AccountState::Open) else {
            return;
        };
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
                let request = CloseAccount { account: account.key(), fee_rate: None, to: None };
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
        side: if planned.ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(bid) },
    }
}
