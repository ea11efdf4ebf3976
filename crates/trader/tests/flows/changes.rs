//! Deposits, withdrawals, renewals and their fees: all versions, every failure, and what the chain makes of them.

use crate::trade::{ALICE, Stage, batch_id};
use crate::venue::Manners;
use bitcoin::{OutPoint, TxOut, Txid};
use tidegate_ports::*;
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::modification::ModificationError;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats};
use tidegate_trader::*;

const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
const AMOUNT: Sats = Sats::constant(700_000);
const RATE: SatPerKw = SatPerKw::new(1_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Deposit,
    Withdraw,
    Renew,
}

const ALL: [What; 3] = [What::Deposit, What::Withdraw, What::Renew];

impl Stage {
    fn account(&mut self) -> Account {
        self.status("alice").accounts.remove(0)
    }

    /// A fresh output of alice's wallet.
    fn output(&mut self, amount: Sats) -> TxOut {
        let node = self.alice.node.clone();
        let script_pubkey = self.sim.wait(node.new_address(AddressKind::Taproot)).unwrap();
        TxOut { value: amount.into(), script_pubkey }
    }

    /// Tries a change with these options. Nothing when alice is cut on the way.
    fn try_change(
        &mut self,
        what: What,
        expiry: Option<BlockHeight>,
        version: Option<AccountVersion>,
    ) -> Option<Result<Modified, ModifyError>> {
        let (account, handle) = (self.account().key(), self.alice.handle.clone());
        let (amount, fee_rate) = (AMOUNT, RATE);
        match what {
            What::Deposit => {
                let request = DepositAccount { account, amount, fee_rate, expiry, version };
                self.sim.try_wait(async move { handle.deposit(request).await })
            }
            What::Withdraw => {
                let outputs = vec![self.output(amount)];
                let request = WithdrawAccount { account, outputs, fee_rate, expiry, version };
                self.sim.try_wait(async move { handle.withdraw(request).await })
            }
            What::Renew => {
                let later = self.world.height().checked_add(BlockCount::new(8_000)).unwrap();
                let request = RenewAccount { account, fee_rate, expiry: expiry.unwrap_or(later), version };
                self.sim.try_wait(async move { handle.renew(request).await })
            }
        }
    }

    fn change(&mut self, what: What) -> Result<Modified, ModifyError> {
        self.try_change(what, None, None).expect("answered")
    }

    fn free_coins(&mut self) -> Sats {
        let node = self.alice.node.clone();
        self.sim.wait(node.confirmed_balance()).unwrap()
    }

    fn bump(&mut self, rate: u64) -> Result<(), BumpError> {
        let (account, handle) = (self.account().key(), self.alice.handle.clone());
        let request = BumpAccount { account, fee_rate: SatPerKw::new(rate) };
        self.sim.wait(async move { handle.bump(request).await })
    }

    /// The account's output is on the chain with the account's script and value.
    fn assert_backed(&mut self) {
        let account = self.account();
        let output = self.world.utxo(account.outpoint.unwrap());
        assert_eq!(output, Some(account.terms.output(account.value).unwrap()));
    }
}

fn label_of(stage: &mut Stage, txid: Txid) -> String {
    let node = stage.alice.node.clone();
    let all = stage.sim.wait(node.wallet_transactions()).unwrap();
    all.into_iter().find(|known| known.transaction.compute_txid() == txid).unwrap().label
}

fn fee_of(stage: &Stage, txid: Txid) -> u64 {
    let (transaction, _) = stage.world.transaction(txid).unwrap();
    let value = |outpoint: OutPoint| {
        let (parent, _) = stage.world.transaction(outpoint.txid).unwrap();
        parent.output[usize::try_from(outpoint.vout).unwrap()].value.to_sat()
    };
    let paid: u64 = transaction.input.iter().map(|input| value(input.previous_output)).sum();
    paid - transaction.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
}

fn whole_change(version: AccountVersion, what: What) {
    let mut stage = Stage::with_accounts(version);
    let before = stage.account();
    let modified = stage.change(what).unwrap();
    assert_eq!(modified.account.state, AccountState::PendingUpdate);
    assert_eq!(stage.account(), modified.account, "{version:?} {what:?}");
    assert!(stage.world.transaction(modified.txid).is_some(), "published");
    stage.sim.settle();
    assert!(!stage.status("alice").subscribed, "no batch until it is confirmed");
    let fee = fee_of(&stage, modified.txid);
    let (value, action) = match what {
        What::Deposit => (before.value.get() + AMOUNT.get(), "deposit"),
        What::Withdraw => (before.value.get() - AMOUNT.get() - fee, "withdraw"),
        What::Renew => (before.value.get() - fee, "renew"),
    };
    stage.mine(2);
    assert_eq!(stage.state("alice"), AccountState::PendingUpdate);
    stage.mine(1);
    let after = stage.account();
    assert_eq!((after.state, after.value.get()), (AccountState::Open, value), "{version:?} {what:?}");
    assert_eq!(after.terms.version, AccountVersion::V2, "upgraded silently");
    assert_eq!(after.terms.batch, before.terms.next().unwrap().batch);
    let expiry = if what == What::Renew { after.terms.expiry } else { before.terms.expiry };
    assert_eq!(after.terms.expiry, expiry);
    stage.assert_backed();
    assert!(stage.status("alice").subscribed);
    let difference = i64::try_from(value).unwrap() - i64::try_from(before.value.get()).unwrap();
    let label = label_of(&mut stage, modified.txid);
    assert_eq!(
        label,
        format!(
            "poold -- {{\"account\":{{\"key\":\"{}\",\"action\":\"{action}\",\"expiry_height\":{},\"output_index\":{},\
             \"expiry_spend\":false,\"tx_fee\":{fee},\"balance_diff\":{difference}}}}}",
            after.key(),
            after.terms.expiry.get(),
            after.outpoint.unwrap().vout
        )
    );
    // It takes part in batches and closes as any other.
    stage.close("alice").unwrap();
    stage.mine(1);
    assert_eq!(stage.state("alice"), AccountState::Closed);
    let (paid, kept) = stage.world.satoshi();
    assert_eq!(paid, kept, "no satoshi is made or lost");
    assert!(stage.sim.ended.is_empty(), "{:?}", stage.sim.ended);
}

#[test]
fn accounts_of_every_version_are_deposited_to_withdrawn_from_and_renewed() {
    for version in VERSIONS {
        for what in ALL {
            whole_change(version, what);
        }
    }
}

#[test]
fn a_change_keeps_the_version_and_moves_the_expiry_that_it_is_told() {
    for version in VERSIONS {
        for what in [What::Deposit, What::Withdraw] {
            let mut stage = Stage::with_accounts(version);
            let expiry = stage.account().terms.expiry.checked_add(BlockCount::new(1_000)).unwrap();
            let modified = stage.try_change(what, Some(expiry), Some(version)).unwrap().unwrap();
            stage.mine(3);
            let after = stage.account();
            assert_eq!((after.state, after.terms.version), (AccountState::Open, version), "{what:?}");
            assert_eq!(after.terms.expiry, expiry, "one transaction {}", modified.txid);
            stage.assert_backed();
            if version > AccountVersion::V0 {
                let found = stage.try_change(what, None, Some(AccountVersion::V0)).unwrap();
                let expected = ModificationError::Downgrade { from: version, to: AccountVersion::V0 };
                assert_eq!(found, Err(ModifyError::Change(expected)));
            }
        }
    }
}

#[test]
fn an_expired_account_is_renewed_and_trades_again() {
    for version in VERSIONS {
        let mut stage = Stage::with_accounts(version);
        let order = stage.order("alice", 700, 5).unwrap();
        stage.mine(4_000);
        assert_eq!(stage.state("alice"), AccountState::Expired);
        assert_eq!(stage.status("alice").orders[0].state, OrderState::Expired);
        for what in [What::Deposit, What::Withdraw] {
            let found = stage.change(what);
            assert!(matches!(found, Err(ModifyError::Change(ModificationError::State { .. }))), "{found:?}");
        }
        stage.change(What::Renew).unwrap();
        assert_eq!(stage.venue.order(order).1, OrderState::Canceled, "what ended here ends there too");
        stage.mine(3);
        assert_eq!(stage.state("alice"), AccountState::Open, "{version:?}");
        stage.assert_backed();
        stage.order("alice", 700, 5).unwrap();
    }
}

#[test]
fn an_account_may_expire_while_its_change_is_unconfirmed() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.mine(3_990);
    let store = stage.alice.store.clone();
    store.stop_made_after(0);
    assert_eq!(stage.try_change(What::Withdraw, None, None), None, "cut before it was published");
    stage.mine(10);
    stage.restart("alice");
    assert_eq!(stage.state("alice"), AccountState::ExpiredPendingUpdate);
    stage.sim.advance(6_000);
    stage.mine(3);
    assert_eq!(stage.state("alice"), AccountState::Expired);
    stage.assert_backed();
}

#[test]
fn coins_are_free_again_whatever_fails() {
    let bad = [Manners::BadSignature, Manners::Short, Manners::Empty, Manners::Bare];
    for manners in [Manners::Refuse, Manners::LoseAnswer].into_iter().chain(bad) {
        for version in VERSIONS {
            let mut stage = Stage::with_accounts(version);
            let (before, coins) = (stage.account(), stage.free_coins());
            stage.venue.set_manners(manners);
            for what in ALL {
                let found = stage.change(what);
                match manners {
                    Manners::Short | Manners::Empty | Manners::Bare => {
                        assert_eq!(found, Err(ModifyError::BadSignature), "{manners:?}");
                    }
                    // A node may find out when it combines.
                    Manners::BadSignature => assert!(
                        matches!(found, Err(ModifyError::BadSignature | ModifyError::Node(NodeError::Refused { .. }))),
                        "{found:?}"
                    ),
                    Manners::Good | Manners::Refuse | Manners::LoseAnswer => {
                        assert!(matches!(found, Err(ModifyError::Venue(_))), "{found:?}");
                    }
                }
            }
            assert_eq!(stage.account(), before, "{manners:?}");
            assert_eq!(stage.free_coins(), coins, "{manners:?}");
            stage.venue.set_manners(Manners::Good);
            stage.change(What::Deposit).unwrap();
            stage.mine(3);
            assert_eq!(stage.state("alice"), AccountState::Open);
            stage.assert_backed();
            let nonces: Vec<_> = stage.venue.modifications().into_iter().filter_map(|m| m.trader_nonce).collect();
            let distinct: std::collections::BTreeSet<_> = nonces.iter().map(|nonce| nonce.0.to_vec()).collect();
            assert_eq!(distinct.len(), nonces.len(), "every attempt has its own nonce");
        }
    }
}

#[test]
fn a_change_that_cannot_be_is_refused_with_the_reason() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let (account, handle) = (stage.account().key(), stage.alice.handle.clone());
    let coins = stage.free_coins();
    let deposit = |amount, fee_rate| DepositAccount { account, amount, fee_rate, expiry: None, version: None };
    let mut ask = |request| {
        let handle = handle.clone();
        stage.sim.wait(async move { handle.deposit(request).await }).unwrap_err()
    };
    assert_eq!(ask(deposit(AMOUNT, SatPerKw::new(252))), ModifyError::FeeRate(SatPerKw::new(252)));
    assert_eq!(ask(deposit(Sats::ZERO, RATE)), ModifyError::Change(ModificationError::Nothing));
    let found = ask(deposit(Sats::constant(2_000_000_000), RATE));
    assert!(matches!(found, ModifyError::Change(ModificationError::AboveMaximum { .. })), "{found:?}");
    let found = ask(deposit(Sats::constant(500_000_000), RATE));
    assert!(matches!(found, ModifyError::Node(NodeError::InsufficientFunds { .. })), "{found:?}");
    let stranger = stage.status("bob").accounts[0].key();
    let unknown = DepositAccount { account: stranger, ..deposit(AMOUNT, RATE) };
    let alice = stage.alice.handle.clone();
    assert_eq!(stage.sim.wait(async move { alice.deposit(unknown).await }), Err(ModifyError::Unknown(stranger)));
    stage.order("alice", 700, 15).unwrap();
    let found = stage.change(What::Withdraw);
    assert!(matches!(found, Err(ModifyError::Reserved { .. })), "{found:?}");
    assert_eq!(stage.venue.calls("modify"), 0, "nobody was asked to sign");
    assert_eq!(stage.free_coins(), coins);
    stage.change(What::Deposit).unwrap();
    let found = stage.change(What::Deposit);
    let state = AccountState::PendingUpdate;
    assert_eq!(found, Err(ModifyError::Change(ModificationError::State { found: state })), "one after the other");
}

#[test]
fn a_change_that_was_stored_is_published_after_a_restart() {
    for what in ALL {
        let mut stage = Stage::with_accounts(AccountVersion::V1);
        stage.alice.store.stop_made_after(0);
        assert_eq!(stage.try_change(what, None, None), None, "cut between store and network");
        assert!(stage.world.mempool().is_empty());
        stage.restart("alice");
        stage.sim.settle();
        let account = stage.account();
        assert_eq!(account.state, AccountState::PendingUpdate);
        assert_eq!(stage.world.mempool().len(), 1, "{what:?}");
        assert!(label_of(&mut stage, account.outpoint.unwrap().txid).contains("balance_diff"));
        stage.mine(3);
        assert_eq!(stage.state("alice"), AccountState::Open);
        stage.assert_backed();
    }
}

#[test]
fn a_change_that_was_not_stored_never_happened() {
    for what in ALL {
        let mut stage = Stage::with_accounts(AccountVersion::V2);
        let before = stage.account();
        stage.alice.store.stop_after(0);
        assert_eq!(stage.try_change(what, None, None), None, "cut before the store");
        stage.restart("alice");
        stage.sim.advance(10_000);
        stage.mine(3);
        assert_eq!(stage.account(), before, "{what:?}");
        assert!(stage.world.mempool().is_empty());
        // The wallet lets its coins go by itself.
        stage.change(what).unwrap();
        stage.mine(3);
        assert_eq!(stage.state("alice"), AccountState::Open);
        stage.assert_backed();
    }
}

#[test]
fn a_deposit_whose_coins_were_spent_elsewhere_is_void_and_the_account_is_as_it_was() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let before = stage.account();
    stage.alice.store.stop_made_after(0);
    assert_eq!(stage.try_change(What::Deposit, None, None), None);
    stage.sim.kill("alice");
    stage.mine(2);
    let everything = stage.free_coins().checked_sub(Sats::constant(100_000)).unwrap();
    let (output, node) = (stage.output(everything), stage.alice.node.clone());
    stage.sim.wait(node.send_outputs(&[output], RATE, "another program")).unwrap();
    stage.restart("alice");
    assert_eq!(stage.state("alice"), AccountState::PendingUpdate, "not decided yet");
    stage.mine(1);
    assert_eq!(stage.account(), before, "as before");
    assert!(stage.status("alice").subscribed);
    stage.sim.advance(120_000);
    assert!(stage.world.mempool().is_empty());
    stage.restart("alice");
    stage.change(What::Deposit).unwrap();
    stage.mine(3);
    assert_eq!(stage.account().value.get(), before.value.get() + AMOUNT.get());
    stage.assert_backed();
}

/// Alice signed a batch that is not final, and has a stored withdrawal of the same output that is not published.
fn batch_and_withdrawal() -> (Stage, bitcoin::Transaction, crate::venue::Made, Txid) {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let batch = stage.signed(&mut made);
    stage.alice.store.stop_made_after(0);
    assert_eq!(stage.try_change(What::Withdraw, None, None), None);
    stage.sim.kill("alice");
    let (_, rows) = {
        let store = stage.alice.store.clone();
        stage.sim.wait(async move { store.load(&TABLES).await }).unwrap()
    };
    let book = Book::from_rows(&rows).unwrap();
    assert_eq!(book.staged[&made.transaction.compute_txid()].standing, Standing::Superseded);
    let txid = *book.changes.keys().next().unwrap();
    (stage, batch, made, txid)
}

#[test]
fn a_signed_batch_that_confirms_instead_of_a_later_change_is_booked() {
    let (mut stage, batch, made, withdrawal) = batch_and_withdrawal();
    stage.venue.book(&made);
    stage.venue.finalize_for("bob", &made);
    stage.world.publish(&batch).unwrap();
    stage.mine(1);
    stage.restart("alice");
    stage.sim.settle();
    stage.mine(3);
    stage.assert_traded(&made);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert!(stage.world.transaction(withdrawal).is_none());
    stage.assert_backed();
}

#[test]
fn a_change_that_confirms_instead_of_a_signed_batch_gives_its_channels_up() {
    let (mut stage, batch, _made, withdrawal) = batch_and_withdrawal();
    stage.restart("alice");
    stage.sim.settle();
    assert!(stage.world.transaction(withdrawal).is_some(), "published from the store");
    assert!(stage.world.publish(&batch).is_err());
    stage.mine(4);
    let status = stage.status("alice");
    assert_eq!((status.accounts[0].state, status.leases.len()), (AccountState::Open, 0));
    assert!(status.pending_batches.is_empty());
    stage.assert_backed();
    let node = stage.alice.node.clone();
    assert!(stage.sim.wait(node.active_channels()).unwrap().is_empty());
}

#[test]
fn a_change_survives_a_reorganisation() {
    for what in ALL {
        let mut stage = Stage::with_accounts(AccountVersion::V2);
        let modified = stage.change(what).unwrap();
        stage.mine(1);
        stage.world.reorganise(2, 2);
        stage.sim.settle();
        assert_eq!(stage.state("alice"), AccountState::PendingUpdate, "{what:?}");
        stage.mine(4);
        assert_eq!(stage.state("alice"), AccountState::Open, "{what:?}");
        assert!(stage.world.transaction(modified.txid).unwrap().1.is_some());
        stage.assert_backed();
    }
}

#[test]
fn fees_are_raised_where_an_output_is_ours() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    assert_eq!(stage.bump(5_000), Err(BumpError::State(AccountState::Open)));
    let deposit = stage.change(What::Deposit).unwrap();
    assert_eq!(stage.bump(249), Err(BumpError::FeeRate(SatPerKw::new(249))));
    stage.bump(5_000).unwrap();
    stage.bump(9_000).unwrap();
    let children = || {
        let spends = |tx: &bitcoin::Transaction| tx.input.iter().any(|i| i.previous_output.txid == deposit.txid);
        stage.world.mempool().into_iter().filter(spends).collect::<Vec<_>>()
    };
    let children = children();
    assert_eq!(children.len(), 1, "the second child replaced the first");
    let child = children[0].compute_txid();
    let weight = children[0].weight().to_wu() + stage.world.transaction(deposit.txid).unwrap().0.weight().to_wu();
    let fees = fee_of(&stage, child) + fee_of(&stage, deposit.txid);
    assert!(fees * 1000 / weight >= 9_000, "{fees} sat for {weight} weight units");
    stage.mine(3);
    assert_eq!(stage.state("alice"), AccountState::Open);
    let renewal = stage.change(What::Renew).unwrap();
    assert_eq!(stage.bump(5_000), Err(BumpError::NoOutput(renewal.txid)));
    stage.mine(3);
    let withdrawal = stage.change(What::Withdraw).unwrap();
    stage.bump(5_000).unwrap();
    stage.mine(3);
    assert!(stage.world.transaction(withdrawal.txid).unwrap().1.is_some());
    let txid = stage.close("alice").unwrap();
    stage.bump(5_000).unwrap();
    stage.mine(1);
    assert!(stage.world.transaction(txid).unwrap().1.is_some());
    assert_eq!(stage.state("alice"), AccountState::Closed);
}

#[test]
fn an_account_is_closed_to_the_outputs_that_are_named() {
    for version in VERSIONS {
        let mut stage = Stage::with_accounts(version);
        let (account, handle) = (stage.account().key(), stage.alice.handle.clone());
        let outputs = vec![stage.output(Sats::constant(1_500_000)), stage.output(Sats::constant(498_000))];
        let close = |outputs| CloseAccount { account, to: CloseTo::Outputs(outputs) };
        let (nothing, alice) = (close(Vec::new()), handle.clone());
        let found = stage.sim.wait(async move { alice.close_account(nothing).await });
        assert_eq!(found, Err(CloseError::Change(ModificationError::Nothing)));
        let request = close(outputs.clone());
        let txid = stage.sim.wait(async move { handle.close_account(request).await }).unwrap();
        let (transaction, _) = stage.world.transaction(txid).unwrap();
        assert!(outputs.iter().all(|output| transaction.output.contains(output)));
        assert_eq!(fee_of(&stage, txid), ALICE.get() - 1_998_000);
        stage.mine(1);
        assert_eq!(stage.state("alice"), AccountState::Closed);
    }
}

#[test]
fn a_quote_says_what_a_funding_would_cost() {
    let mut stage = Stage::new();
    let handle = stage.alice.handle.clone();
    let mut ask = |value, conf_target| {
        let (request, handle) = (QuoteAccount { value: Sats::constant(value), conf_target }, handle.clone());
        stage.sim.wait(async move { handle.quote_account(request).await })
    };
    let quote = ask(1_000_000, 6).unwrap();
    assert!(quote.fee_rate >= SatPerKw::FLOOR && quote.fee > Sats::ZERO);
    assert_eq!(ask(1_000_000, 0), Err(QuoteError::Target));
    assert!(matches!(ask(99_999, 6), Err(QuoteError::Value { .. })));
    assert!(matches!(ask(500_000_000, 6), Err(QuoteError::Node(NodeError::InsufficientFunds { .. }))));
    let account = stage.open(stage.alice.handle.clone(), Sats::constant(1_000_000), AccountVersion::V2).unwrap();
    assert_eq!(fee_of(&stage, account.outpoint.unwrap().txid), quote.fee.get());
}
