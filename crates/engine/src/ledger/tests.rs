use super::*;
use crate::view::fixtures::point;
use proptest::prelude::*;
use tidegate_protocol::account::{AccountTerms, AccountVersion};
use tidegate_protocol::bitcoin::absolute::LockTime;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::transaction::Version;
use tidegate_protocol::bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use tidegate_protocol::keys::{AuctioneerKey, BatchKey, KeyLocator, SharedSecret};

fn sats(sat: u64) -> Sats {
    Sats::new(sat).unwrap()
}

fn spend(spent: OutPoint, values: &[u64]) -> Transaction {
    let (script_sig, sequence, witness) = (ScriptBuf::new(), Sequence::ZERO, Witness::new());
    let output = |value: &u64| TxOut { value: Amount::from_sat(*value), script_pubkey: ScriptBuf::new() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, script_sig, sequence, witness }],
        output: values.iter().map(output).collect(),
    }
}

/// One market account, moved step by step as a trader's store would record it.
struct Story {
    account: Account,
    movements: Vec<Movement>,
    fees: BTreeMap<Txid, Sats>,
}

impl Story {
    /// An account of 1,000,000 sat, funded with a fee of 150 sat.
    fn funded() -> Story {
        Story::funded_with(1, 1_000_000, 150)
    }

    fn funded_with(seed: u8, value: u64, fee: u64) -> Story {
        let coin = OutPoint::new(Txid::from_byte_array([seed; 32]), 0);
        let transaction = spend(coin, &[value]);
        let txid = transaction.compute_txid();
        let account = Account {
            terms: AccountTerms {
                version: AccountVersion::V2,
                trader: AccountKey::new(point(seed)),
                auctioneer: AuctioneerKey::new(point(100)),
                batch: BatchKey::new(point(101)),
                secret: SharedSecret::new([seed; 32]),
                expiry: BlockHeight::new(5_000),
            },
            locator: KeyLocator { family: 220, index: 0 },
            value: sats(value),
            state: AccountState::Open,
            height_hint: BlockHeight::new(100),
            outpoint: Some(OutPoint::new(txid, 0)),
            latest_tx: Some(transaction),
        };
        let mut story = Story { account, movements: Vec::new(), fees: BTreeMap::from([(txid, sats(fee))]) };
        story.record(MovementKind::Funding, None, 0, value, 0, Vec::new());
        story
    }

    fn record(
        &mut self,
        kind: MovementKind,
        spent: Option<OutPoint>,
        before: u64,
        after: u64,
        fee: u64,
        matches: Vec<MatchMoney>,
    ) {
        let txid = self.account.latest_tx.as_ref().unwrap().compute_txid();
        let next = self.account.outpoint.filter(|outpoint| outpoint.txid == txid);
        let (account, height) = (self.account.key(), self.account.height_hint);
        let (before, after, fee) = (sats(before), sats(after), sats(fee));
        self.movements.push(Movement {
            account,
            txid,
            kind,
            spent,
            next,
            before,
            after,
            fee,
            matches,
            at: None,
            height,
        });
    }

    /// The account moves to a new output of this value, or ends with 0.
    fn step(&mut self, kind: MovementKind, after: u64, fee: u64, matches: Vec<MatchMoney>) {
        let (spent, before) = (self.account.outpoint.unwrap(), self.account.value.get());
        let transaction = spend(spent, &[after]);
        let txid = transaction.compute_txid();
        self.account.value = sats(after);
        self.account.latest_tx = Some(transaction);
        if after > 0 {
            self.account.outpoint = Some(OutPoint::new(txid, 0));
        } else {
            self.account.state = AccountState::Closed;
        }
        self.record(kind, Some(spent), before, after, fee, matches);
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(&self.movements, std::slice::from_ref(&self.account), &self.fees).unwrap()
    }

    fn totals(&self) -> BTreeMap<&'static str, i64> {
        let totals = self.ledger().totals().unwrap();
        totals.into_iter().filter(|(_, amount)| amount.get() != 0).map(|(kind, amount)| (kind, amount.get())).collect()
    }

    fn differences(&self) -> Vec<Difference> {
        self.ledger().differences(std::slice::from_ref(&self.account))
    }
}

fn matched(seed: u8, maker: bool, principal: u64, premium: u64) -> MatchMoney {
    MatchMoney {
        channel: OutPoint::new(Txid::from_byte_array([seed; 32]), 7),
        maker,
        principal: sats(principal),
        premium: sats(premium),
        execution_fee: sats(101),
        chain_fee: sats(50),
    }
}

#[test]
fn each_kind_of_movement_is_booked_where_it_belongs() {
    let mut story = Story::funded();
    assert_eq!(story.totals(), BTreeMap::from([("account", 1_000_000), ("chain_fees", 150), ("wallet", -1_000_150)]));
    story.step(MovementKind::Deposit, 1_500_000, 200, Vec::new());
    story.step(MovementKind::Withdraw, 1_400_000, 300, Vec::new());
    story.step(MovementKind::Renew, 1_399_900, 100, Vec::new());
    let wallet = -1_000_150 - 500_200 + 99_700;
    assert_eq!(story.totals(), BTreeMap::from([("account", 1_399_900), ("chain_fees", 750), ("wallet", wallet)]));
    // Sold 500,000 for 3,000, and bought with 20,000 of our own for 1,000, with fees of 151 each.
    let after = 1_399_900 - 500_000 + 3_000 - 20_000 - 1_000 - 302;
    story.step(MovementKind::Batch, after, 0, vec![matched(9, true, 500_000, 3_000), matched(8, false, 20_000, 1_000)]);
    let expected = BTreeMap::from([
        ("account", i64::try_from(after).unwrap()),
        ("chain_fees", 850),
        ("execution_fees", 202),
        ("premium_expense", 1_000),
        ("premium_income", -3_000),
        ("principal", 520_000),
        ("wallet", wallet),
    ]);
    assert_eq!(story.totals(), expected);
    let ledger = story.ledger();
    assert_eq!(ledger.result_of(matched(9, true, 0, 0).channel), Ok(SatsDelta::new(-3_000 + 151)));
    assert_eq!(ledger.result_of(matched(8, true, 0, 0).channel), Ok(SatsDelta::new(1_000 + 151)));
    assert_eq!(story.differences(), []);
    story.step(MovementKind::Close, 0, 400, Vec::new());
    let back = wallet + i64::try_from(after).unwrap() - 400;
    assert_eq!(story.totals().get("wallet"), Some(&back));
    assert_eq!(story.totals().get("account"), None);
}

#[test]
fn what_is_unconfirmed_is_pending() {
    let mut story = Story::funded();
    story.account.state = AccountState::PendingOpen;
    assert_eq!(story.totals(), BTreeMap::from([("pending", 1_000_000), ("chain_fees", 150), ("wallet", -1_000_150)]));
    assert_eq!(story.differences(), []);
    story.step(MovementKind::Close, 0, 400, Vec::new());
    story.account.state = AccountState::PendingClosed;
    assert_eq!(story.totals(), BTreeMap::from([("pending", 999_600), ("chain_fees", 550), ("wallet", -1_000_150)]));
    story.account.state = AccountState::Closed;
    assert_eq!(story.totals(), BTreeMap::from([("chain_fees", 550), ("wallet", -550)]));
}

#[test]
fn what_lost_on_the_chain_drops_out() {
    let mut story = Story::funded();
    let before = story.account.clone();
    story.step(MovementKind::Deposit, 1_500_000, 200, Vec::new());
    // A coin of the deposit was spent elsewhere: the account is as it was.
    story.account = before.clone();
    assert_eq!(story.totals(), Story::funded().totals());
    story.step(MovementKind::Withdraw, 900_000, 300, Vec::new());
    assert_eq!(story.totals(), BTreeMap::from([("account", 900_000), ("chain_fees", 450), ("wallet", -900_450)]));
    assert_eq!(story.differences(), []);
}

#[test]
fn money_that_nothing_explains_is_written_off() {
    let mut story = Story::funded();
    // A batch took 7 sat more than its match says.
    story.step(MovementKind::Batch, 1_000_000 - 500_000 + 3_000 - 151 - 7, 0, vec![matched(9, true, 500_000, 3_000)]);
    assert_eq!(story.totals().get("write_offs"), Some(&7));
    story.step(MovementKind::Foreign, 0, 0, Vec::new());
    assert_eq!(story.totals().get("write_offs"), Some(&(7 + 502_842)));
    assert_eq!(story.totals().get("account"), None);
}

#[test]
fn what_a_batch_leaves_of_an_account_that_ends_is_a_fee() {
    let mut story = Story::funded_with(1, 500_551, 150);
    let sold = MatchMoney { premium: Sats::ZERO, ..matched(9, true, 500_000, 0) };
    story.step(MovementKind::Batch, 0, 400, vec![sold]);
    let expected =
        BTreeMap::from([("principal", 500_000), ("chain_fees", 600), ("execution_fees", 101), ("wallet", -500_701)]);
    assert_eq!(story.totals(), expected);
}

#[test]
fn an_account_without_records_is_an_opening_balance() {
    let mut story = Story::funded();
    story.movements.clear();
    assert_eq!(story.totals(), BTreeMap::from([("account", 1_000_000), ("opening", -1_000_000)]));
    story.step(MovementKind::Renew, 999_900, 100, Vec::new());
    let expected = BTreeMap::from([("account", 999_900), ("chain_fees", 100), ("opening", -1_000_000)]);
    assert_eq!(story.totals(), expected);
    assert_eq!(story.differences(), []);
}

#[test]
fn a_value_that_is_not_the_ledgers_or_not_the_outputs_is_told() {
    let mut story = Story::funded();
    story.account.value = sats(1_000_003);
    let told = story.differences();
    assert_eq!(told.iter().map(Difference::sats).collect::<Vec<_>>(), [3]);
    let mut story = Story::funded();
    story.account.latest_tx.as_mut().unwrap().output[0].value = Amount::from_sat(999_990);
    assert_eq!(story.differences().iter().map(Difference::sats).collect::<Vec<_>>(), [10]);
    let mut story = Story::funded();
    story.account.latest_tx = None;
    let told = story.differences();
    assert_eq!(told.iter().map(|difference| difference.output).collect::<Vec<_>>(), [None]);
}

#[test]
fn the_wallets_fee_is_known_when_its_coins_are() {
    let coin = spend(OutPoint::null(), &[5_000, 7_000]);
    let paying = spend(OutPoint::new(coin.compute_txid(), 1), &[6_000, 800]);
    let noted = |transaction: &Transaction| WalletTransaction {
        transaction: transaction.clone(),
        label: String::new(),
        height: None,
        seen_s: 0,
    };
    let fees = wallet_fees(&[noted(&coin), noted(&paying)]);
    assert_eq!(fees, BTreeMap::from([(paying.compute_txid(), sats(200))]));
    let hostile = spend(OutPoint::new(coin.compute_txid(), 1), &[u64::MAX / 2, u64::MAX / 2, 9]);
    assert_eq!(wallet_fees(&[noted(&coin), noted(&hostile)]), BTreeMap::new());
}

#[test]
fn a_circle_of_records_ends() {
    let mut story = Story::funded();
    let spent = story.movements[0].next;
    story.movements[0].spent = spent;
    assert_eq!(story.ledger().entries().len(), 2);
}

proptest! {
    /// Whatever happens in whatever order: every entry and all balances sum to zero, the account is as the ledger says,
    /// the order of the rows and rows told twice do not matter, and a ledger read back is the same.
    #[test]
    fn books_balance_and_can_be_rebuilt(
        steps in proptest::collection::vec((0_u8..5, 1_u64..50_000, 1_u64..900), 0..12),
        turn in 0_usize..12,
    ) {
        let mut story = Story::funded_with(1, 50_000_000, 150);
        for (index, (what, amount, fee)) in (10_u8..).zip(steps) {
            let value = story.account.value.get();
            match what {
                0 => story.step(MovementKind::Deposit, value + amount, fee, Vec::new()),
                1 => story.step(MovementKind::Withdraw, value - amount - fee, fee, Vec::new()),
                2 => story.step(MovementKind::Renew, value - fee, fee, Vec::new()),
                3 => {
                    let sold = matched(index, true, amount, fee);
                    story.step(MovementKind::Batch, value - amount + fee - 151, 0, vec![sold]);
                }
                _ => {
                    let bought = matched(index, false, amount, fee);
                    story.step(MovementKind::Batch, value - amount - fee - 151, 0, vec![bought]);
                }
            }
        }
        let ledger = story.ledger();
        for entry in ledger.entries() {
            prop_assert_eq!(sum(entry.lines.iter().map(|line| line.amount)), Ok(SatsDelta::ZERO));
        }
        prop_assert_eq!(sum(ledger.balances().values().copied()), Ok(SatsDelta::ZERO));
        prop_assert_eq!(ledger.balance(Name::WriteOffs), SatsDelta::ZERO);
        prop_assert_eq!(story.differences(), []);
        let turn = turn % story.movements.len();
        story.movements.rotate_left(turn);
        story.movements.extend(story.movements.clone());
        prop_assert_eq!(&story.ledger(), &ledger);
        let text = serde_json::to_string(&ledger).unwrap();
        prop_assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }
}
