use super::*;
use crate::fixtures;
use bitcoin::Witness;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::UnitCount;

fn book() -> Book {
    let mut book = Book::default();
    for update in [Update::Account(Box::new(fixtures::account(1))), Update::Order(Box::new(fixtures::own_ask(1)))] {
        book.apply(update);
    }
    book
}

fn basis() -> Basis {
    let account = fixtures::account(1);
    Basis { accounts: BTreeMap::from([(account.key(), account)]), orders: vec![fixtures::own_ask(1)] }
}

fn settled(by: Settlement) -> Settled {
    Settled { by, at: Timestamp(5), height: BlockHeight::new(701) }
}

fn applied(mut book: Book, updates: Vec<Update>) -> Book {
    updates.into_iter().for_each(|update| book.apply(update));
    book
}

fn staged_book() -> (Book, Txid) {
    let updates = stage(&book(), fixtures::staged_batch(), &basis()).unwrap();
    (applied(book(), updates), fixtures::staged_batch().txid())
}

#[test]
fn a_fee_is_split_evenly_and_the_first_match_takes_the_remainder() {
    let (one, two) = (fixtures::account_key(1), fixtures::account_key(2));
    let fee = |key| if key == one { Sats::constant(100) } else { Sats::constant(7) };
    let found: Vec<u64> = shares(&[one, two, one, one], fee).into_iter().map(Sats::get).collect();
    assert_eq!(found, [34, 7, 33, 33]);
    assert!(shares(&[], fee).is_empty());
}

#[test]
fn a_batch_is_not_staged_when_the_book_moved() {
    let order = |state| Update::Order(Box::new(OwnOrder { state, ..fixtures::own_ask(1) }));
    let account = |edit: fn(&mut Account)| {
        let mut account = fixtures::account(1);
        edit(&mut account);
        Update::Account(Box::new(account))
    };
    let refused = [
        order(OrderState::Canceled),
        order(OrderState::PartiallyFilled),
        account(|account| account.state = AccountState::PendingClosed),
        account(|account| account.value = Sats::ZERO),
        account(|account| account.outpoint = Some(fixtures::outpoint(9))),
    ];
    for update in refused {
        let moved = applied(book(), vec![update.clone()]);
        assert!(stage(&moved, fixtures::staged_batch(), &basis()).is_err(), "{update:?}");
    }
    let confirmed = account(|account| account.height_hint = BlockHeight::new(699));
    assert!(stage(&applied(book(), vec![confirmed]), fixtures::staged_batch(), &basis()).is_ok());
}

#[test]
fn a_final_batch_changes_account_order_and_leases_once() {
    let (book, txid) = staged_book();
    assert_eq!(book.accounts[&fixtures::account_key(1)], fixtures::account(1), "staging changes nothing live");
    let after = applied(book.clone(), settle(&book, txid, settled(Settlement::Finalized)).unwrap());
    let expected = fixtures::staged_batch().accounts[0].after.clone();
    assert_eq!(after.accounts[&expected.key()], expected);
    assert_eq!(after.orders[&fixtures::nonce(1)].units_unfulfilled.get(), 3);
    let lease = after.leases.values().next().unwrap();
    assert_eq!((lease.booked_at, lease.height), (Timestamp(5), BlockHeight::new(701)));
    assert_eq!(after.batches.len(), 1);
    assert!(settle(&after, txid, settled(Settlement::Chain)).is_none(), "booked already");
}

#[test]
fn a_word_of_the_venue_changes_nothing_when_the_accounts_output_is_another() {
    let (book, txid) = staged_book();
    let moved = Account { outpoint: Some(fixtures::outpoint(9)), ..fixtures::account(1) };
    let book = applied(book, vec![Update::Account(Box::new(moved))]);
    for by in [Settlement::Finalized, Settlement::Snapshot] {
        assert!(settle(&book, txid, settled(by)).is_none(), "{by:?}");
    }
    assert!(settle(&book, txid, settled(Settlement::Chain)).is_some(), "the chain is always right");
}

#[test]
fn a_confirmation_ends_the_memory_of_the_batch_and_of_its_rivals() {
    let (book, txid) = staged_book();
    let mut rival = fixtures::staged_batch();
    rival.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
    rival.standing = Standing::Superseded;
    let book = applied(book, vec![Update::Stage(Box::new(rival))]);
    let book = applied(book.clone(), settle(&book, txid, settled(Settlement::Finalized)).unwrap());
    assert_eq!(book.staged.len(), 2);
    let (key, transaction) = (fixtures::account_key(1), fixtures::staged_batch().transaction);
    let stale = confirmed(&book, key, &fixtures::spend_of(fixtures::outpoint(8)), BlockHeight::new(702));
    assert!(stale.is_empty(), "another transaction");
    let after = applied(book.clone(), confirmed(&book, key, &transaction, BlockHeight::new(702)));
    assert!(after.staged.is_empty());
    let account = &after.accounts[&key];
    assert_eq!((account.state, account.height_hint), (AccountState::Open, BlockHeight::new(702)));
}

/// A booked batch of accounts 1 and 2, and the spend of account 1's new output.
fn batch_of_two() -> (Book, Txid, Transaction) {
    let mut batch = fixtures::staged_batch();
    let mut other = batch.accounts[0].clone();
    (other.spent, other.after.terms.trader) = (fixtures::outpoint(2), fixtures::account_key(2));
    batch.accounts.push(other);
    batch.standing = Standing::Booked;
    let mut book = Book::default();
    for staged in &batch.accounts {
        book.apply(Update::Account(Box::new(staged.after.clone())));
    }
    let mut spender = fixtures::spend_of(batch.accounts[0].after.outpoint.unwrap());
    spender.input[0].witness = Witness::from_slice(&[[1u8; 64]]);
    spender.output[0].value = bitcoin::Amount::from_sat(1_000);
    let txid = batch.txid();
    book.apply(Update::Stage(Box::new(batch)));
    (book, txid, spender)
}

#[test]
fn a_close_forgets_the_batch_before_it_unless_another_account_waits_for_it() {
    let (waiting, txid, spender) = batch_of_two();
    let close = |book: &Book| {
        let updates = spent(book, fixtures::account_key(1), &spender, Timestamp(5), BlockHeight::new(703));
        applied(book.clone(), updates)
    };
    let after = close(&waiting);
    assert_eq!(after.accounts[&fixtures::account_key(1)].state, AccountState::Closed);
    assert!(after.staged.contains_key(&txid), "account 2 may still see a rival confirm");
    let open = Account { state: AccountState::Open, ..waiting.accounts[&fixtures::account_key(2)].clone() };
    let confirmed = applied(waiting, vec![Update::Account(Box::new(open))]);
    assert!(close(&confirmed).staged.is_empty());
}

#[test]
fn a_batch_takes_the_place_of_those_only_that_spend_the_same_outputs() {
    let (mut book, _) = staged_book();
    let mut elsewhere = fixtures::staged_batch();
    elsewhere.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
    elsewhere.accounts[0].spent = fixtures::outpoint(9);
    book.apply(Update::Stage(Box::new(elsewhere.clone())));
    let mut next = fixtures::staged_batch();
    next.transaction.output[0].value += bitcoin::Amount::from_sat(2);
    let first = fixtures::staged_batch().txid();
    let after = applied(book.clone(), stage(&book, next.clone(), &basis()).unwrap());
    let standing = |txid| after.staged[&txid].standing;
    assert_eq!(standing(first), Standing::Superseded);
    assert_eq!(standing(elsewhere.txid()), Standing::Active);
    assert_eq!(standing(next.txid()), Standing::Active);
    assert_eq!(after.remains.keys().copied().collect::<Vec<_>>(), [first], "its channels are to be given up");
}

#[test]
fn channels_of_a_signed_batch_are_to_be_given_up_when_a_rival_confirms() {
    let (book, txid) = staged_book();
    let mut rival = fixtures::staged_batch();
    rival.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
    let rival_txid = rival.txid();
    let book = applied(book, vec![Update::Stage(Box::new(rival))]);
    let book = applied(book.clone(), settle(&book, txid, settled(Settlement::Chain)).unwrap());
    let transaction = fixtures::staged_batch().transaction;
    let updates = confirmed(&book, fixtures::account_key(1), &transaction, BlockHeight::new(702));
    let after = applied(book, updates);
    assert!(after.staged.is_empty());
    assert_eq!(after.remains.keys().copied().collect::<Vec<_>>(), [rival_txid]);
}

#[test]
fn an_order_that_is_at_rest_stays_so_but_knows_what_was_filled() {
    let staged = fixtures::staged_batch().orders[0];
    let all = StagedOrder { state: OrderState::Executed, units_unfulfilled: UnitCount::new(0), ..staged };
    let cases = [
        (OrderState::Submitted, staged, OrderState::PartiallyFilled),
        (OrderState::Canceled, staged, OrderState::Canceled),
        (OrderState::Expired, staged, OrderState::Expired),
        (OrderState::Canceled, all, OrderState::Executed),
    ];
    for (state, staged, expected) in cases {
        let after = settled_order(&OwnOrder { state, ..fixtures::own_ask(1) }, &staged);
        assert_eq!((after.state, after.units_unfulfilled), (expected, staged.units_unfulfilled), "{state:?}");
    }
}

fn spend_with(witness: Witness) -> Transaction {
    let mut spender = fixtures::spend_of(fixtures::outpoint(1));
    spender.input[0].witness = witness;
    spender
}

#[test]
fn a_foreign_spend_closes_the_account_its_orders_and_what_was_staged() {
    let (book, _) = staged_book();
    let key = fixtures::account_key(1);
    let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
    spender.output[0].value = bitcoin::Amount::from_sat(1_000);
    let at = |transaction: &Transaction| spent(&book, key, transaction, Timestamp(5), BlockHeight::new(703));
    let after = applied(book.clone(), at(&spender));
    assert_eq!(after.accounts[&key].state, AccountState::Closed);
    assert_eq!(after.orders[&fixtures::nonce(1)].state, OrderState::Expired);
    assert!(after.staged.is_empty());
    let elsewhere = fixtures::spend_of(fixtures::outpoint(7));
    assert!(at(&elsewhere).is_empty(), "an output that is not the account's");
}

#[test]
fn the_next_output_is_found_in_a_spend_that_the_book_does_not_know() {
    let key = fixtures::account_key(1);
    let next = fixtures::account(1).terms.next().unwrap();
    let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
    spender.output.push(next.output(Sats::constant(777_777)).unwrap());
    let after = applied(book(), spent(&book(), key, &spender, Timestamp(5), BlockHeight::new(703)));
    let account = &after.accounts[&key];
    assert_eq!((account.state, account.value), (AccountState::PendingBatch, Sats::constant(777_777)));
    assert_eq!(account.outpoint, Some(OutPoint::new(spender.compute_txid(), 1)));
    assert_eq!(account.terms, next);
}

#[test]
fn accounts_expire_at_their_height() {
    let at =
        |height| applied(book(), expired(&book(), BlockHeight::new(height))).accounts[&fixtures::account_key(1)].state;
    assert_eq!(at(4_999), AccountState::Open);
    assert_eq!(at(5_000), AccountState::Expired);
}

#[test]
fn an_upgrade_that_the_book_does_not_know_is_found_too() {
    let key = fixtures::account_key(1);
    let old = Account {
        terms: AccountTerms { version: AccountVersion::V0, ..fixtures::account(1).terms },
        ..fixtures::account(1)
    };
    let book = applied(Book::default(), vec![Update::Account(Box::new(old.clone()))]);
    let next = AccountTerms { version: AccountVersion::V2, ..old.terms.next().unwrap() };
    let script = old.terms.inner_script().unwrap();
    let mut spender = spend_with(Witness::from_slice(&[vec![1u8; 71], vec![2u8; 71], script.to_bytes()]));
    spender.output.push(next.output(Sats::constant(500_000)).unwrap());
    let after = applied(book.clone(), spent(&book, key, &spender, Timestamp(5), BlockHeight::new(703)));
    assert_eq!((after.accounts[&key].state, after.accounts[&key].terms), (AccountState::PendingBatch, next));
}

fn changed_book(kind: ChangeKind) -> (Book, OwnChange) {
    let change = fixtures::own_change(1, kind);
    let rows = vec![Update::Account(Box::new(change.after.clone())), Update::Change(Box::new(change.clone()))];
    (applied(Book::default(), rows), change)
}

#[test]
fn a_deposit_is_void_while_a_coin_of_it_is_spent_elsewhere() {
    let (book, deposit) = changed_book(ChangeKind::Deposit);
    let key = deposit.after.key();
    assert!(coin_spent(&book, key, deposit.transaction()).is_empty(), "the deposit itself");
    let stranger = fixtures::spend_of(fixtures::outpoint(201));
    assert!(coin_spent(&book, key, &stranger).is_empty(), "another coin");
    let thief = fixtures::spend_of(fixtures::outpoint(200));
    let void = applied(book.clone(), coin_spent(&book, key, &thief));
    assert_eq!(void.accounts[&key], deposit.before);
    assert!(void.changes[&deposit.txid()].void);
    assert!(coin_spent(&void, key, &thief).is_empty(), "known already");
    // A reorganisation may bring it back.
    let height = BlockHeight::new(705);
    let back = applied(void.clone(), spent(&void, key, deposit.transaction(), Timestamp(5), height));
    assert_eq!(back.accounts[&key], deposit.after);
    assert!(!back.changes[&deposit.txid()].void);
    let open = applied(back.clone(), confirmed(&back, key, deposit.transaction(), height));
    assert_eq!(open.accounts[&key].state, AccountState::Open);
    assert!(open.changes.is_empty());
}

#[test]
fn a_close_that_was_built_on_a_void_deposit_is_void_too() {
    let (book, deposit) = changed_book(ChangeKind::Deposit);
    let key = deposit.after.key();
    let mut close = fixtures::own_change(1, ChangeKind::Close);
    close.before = deposit.after.clone();
    let latest_tx = Some(fixtures::spend_of(deposit.after.outpoint.unwrap()));
    close.after = Account { latest_tx, state: AccountState::PendingClosed, ..deposit.after.clone() };
    let rows = vec![Update::Account(Box::new(close.after.clone())), Update::Change(Box::new(close.clone()))];
    let book = applied(book, rows);
    let thief = fixtures::spend_of(fixtures::outpoint(200));
    let void = applied(book.clone(), coin_spent(&book, key, &thief));
    assert_eq!(void.accounts[&key], deposit.before);
    assert!(void.changes.values().all(|change| change.void));
}

#[test]
fn what_a_change_decides_is_forgotten_when_it_confirms() {
    for kind in [ChangeKind::Deposit, ChangeKind::Withdraw, ChangeKind::Renew] {
        let (book, change) = changed_book(kind);
        let mut batch = fixtures::staged_batch();
        batch.standing = Standing::Superseded;
        let (key, txid) = (change.after.key(), batch.txid());
        let book = applied(book, vec![Update::Stage(Box::new(batch))]);
        let height = BlockHeight::new(703);
        let seen = spent(&book, key, change.transaction(), Timestamp(5), height);
        assert!(seen.is_empty(), "{kind:?}: its depth is waited for");
        let after = applied(book.clone(), confirmed(&book, key, change.transaction(), height));
        assert_eq!(after.accounts[&key].state, AccountState::Open);
        assert!(after.changes.is_empty() && after.staged.is_empty());
        assert!(after.remains.contains_key(&txid), "the channels of the batch are to be given up");
    }
}

#[test]
fn a_batch_that_confirms_instead_of_a_change_is_booked_and_the_change_forgotten() {
    for kind in [ChangeKind::Deposit, ChangeKind::Withdraw, ChangeKind::Renew, ChangeKind::Close] {
        let (book, change) = changed_book(kind);
        let mut batch = fixtures::staged_batch();
        batch.standing = Standing::Superseded;
        let (key, after) = (change.after.key(), batch.accounts[0].after.clone());
        let transaction = batch.transaction.clone();
        let book = applied(book, vec![Update::Stage(Box::new(batch))]);
        let updates = spent(&book, key, &transaction, Timestamp(5), BlockHeight::new(703));
        let found = applied(book, updates);
        assert_eq!(found.accounts[&key], after, "{kind:?}");
        assert!(found.changes.is_empty(), "{kind:?}");
        assert_eq!(found.leases.len(), 1, "{kind:?}");
    }
}

#[test]
fn an_unknown_spend_of_the_output_before_a_change_ends_the_account() {
    let (book, change) = changed_book(ChangeKind::Withdraw);
    let key = change.after.key();
    let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
    spender.output[0].value = bitcoin::Amount::from_sat(1_000);
    let after = applied(book.clone(), spent(&book, key, &spender, Timestamp(5), BlockHeight::new(703)));
    assert_eq!(after.accounts[&key].state, AccountState::Closed);
    assert_eq!(after.accounts[&key].outpoint, change.before.outpoint);
    assert!(after.changes.is_empty());
    // It may also be one that recreates the account: then it lives on.
    let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
    spender.output.push(change.before.terms.next().unwrap().output(Sats::constant(555_555)).unwrap());
    let after = applied(book.clone(), spent(&book, key, &spender, Timestamp(5), BlockHeight::new(703)));
    assert_eq!((after.accounts[&key].value, after.changes.len()), (Sats::constant(555_555), 0));
}
