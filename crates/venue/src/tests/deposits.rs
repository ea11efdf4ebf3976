//! Deposits of the operator: paid once, collected by a batch, and no coin forgotten.

use super::bench::{Bench, config, ready};
use super::invariants::Dice;
use super::master::{FIVE_PERCENT, batch, held, market};
use super::trader::TestTrader;
use crate::{Deposit, DepositState, OperatorWish, ServeClass, ServeError, TickReason, VenueConfig};
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use std::collections::BTreeMap;
use tidegate_ports::{NodeError, Wallet};
use tidegate_protocol::units::Sats;

fn deposits(bench: &mut Bench) -> Vec<Deposit> {
    bench.call(bench.handle.clone().status()).unwrap().deposits
}

fn states(bench: &mut Bench) -> Vec<DepositState> {
    deposits(bench).iter().map(|deposit| deposit.state).collect()
}

fn restart(bench: &mut Bench, traders: &mut [&mut TestTrader]) {
    bench.restart_with(VenueConfig { execution_fee: FIVE_PERCENT, ..config() });
    for trader in traders {
        trader.subscribe(bench);
    }
}

fn fund(bench: &mut Bench, sat: u64) {
    let node = bench.env.node.clone();
    bench.world.fund(&node, Sats::new(sat).unwrap()).unwrap();
    bench.pump();
}

fn deposit(bench: &mut Bench, sat: u64) -> Result<Deposit, ServeError> {
    let handle = bench.handle.clone();
    bench.call(handle.deposit(Sats::new(sat).unwrap(), None))
}

fn withdrawal(sat: u64) -> OperatorWish {
    let script_pubkey = ScriptBuf::from_bytes([vec![0x51, 0x20], vec![7; 32]].concat());
    OperatorWish { withdrawals: vec![TxOut { value: Amount::from_sat(sat), script_pubkey }], rate: None }
}

#[test]
fn a_deposit_becomes_part_of_the_venues_own_coin_with_the_next_batch() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    fund(&mut bench, 1_000_000);
    let made = deposit(&mut bench, 200_000).unwrap();
    assert_eq!((made.value.get(), made.state), (200_000, DepositState::Waiting));
    let early = batch(&mut bench, &mut seller, &mut buyer);
    assert!(early.input.iter().all(|input| input.previous_output != made.outpoint), "not before it is confirmed");
    bench.mine(3);
    assert_eq!(states(&mut bench), [DepositState::Confirmed]);
    let before = held(&mut bench);
    let collecting = batch(&mut bench, &mut seller, &mut buyer);
    assert!(collecting.input.iter().any(|input| input.previous_output == made.outpoint));
    assert!(held(&mut bench) > before + 200_000, "deposit and income");
    assert!(matches!(states(&mut bench)[..], [DepositState::Spent(_)]));
    bench.mine(1);
    assert_eq!(states(&mut bench), []);
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().unconfirmed, 0);
}

#[test]
fn a_deposit_that_the_network_lost_is_published_again_and_not_paid_twice() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    fund(&mut bench, 1_000_000);
    let made = deposit(&mut bench, 200_000).unwrap();
    assert!(bench.world.lose(made.outpoint.txid), "it is in no block yet");
    restart(&mut bench, &mut [&mut seller, &mut buyer]);
    assert_eq!(states(&mut bench), [DepositState::Waiting]);
    assert!(bench.world.transaction(made.outpoint.txid).is_some(), "published again");
    bench.mine(3);
    restart(&mut bench, &mut [&mut seller, &mut buyer]);
    assert_eq!(states(&mut bench), [DepositState::Confirmed]);
    let script = bench.world.utxo(made.outpoint).unwrap().script_pubkey;
    // The next one has a key of its own.
    let next = deposit(&mut bench, 200_000).unwrap();
    assert_ne!(bench.world.utxo(next.outpoint).unwrap().script_pubkey, script);
}

fn unsigned(mut transaction: Transaction) -> Psbt {
    transaction.input.iter_mut().for_each(|input| input.witness.clear());
    Psbt::from_unsigned_tx(transaction).unwrap()
}

#[test]
fn a_deposit_whose_coins_went_elsewhere_is_not_waited_for() {
    let (mut bench, ..) = market(FIVE_PERCENT);
    fund(&mut bench, 300_000);
    let made = deposit(&mut bench, 200_000).unwrap();
    let (paid, _) = bench.world.transaction(made.outpoint.txid).unwrap();
    assert!(bench.world.lose(made.outpoint.txid));
    // Whoever holds the wallet spends the same coin otherwise.
    let spent = paid.input[0].previous_output;
    let (parent, _) = bench.world.transaction(spent.txid).unwrap();
    let elsewhere = Transaction { input: vec![paid.input[0].clone()], output: withdrawal(250_000).withdrawals, ..paid };
    let mut elsewhere = unsigned(elsewhere);
    elsewhere.inputs[0].witness_utxo = Some(parent.output[usize::try_from(spent.vout).unwrap()].clone());
    let signed = ready(bench.env.node.finalize_psbt(&elsewhere)).unwrap();
    bench.world.publish(&signed).unwrap();
    bench.mine(1);
    assert_eq!(states(&mut bench), [DepositState::Replaced]);
}

#[test]
fn deposits_that_can_not_be_paid_are_refused_and_leave_nothing() {
    let (mut bench, ..) = market(FIVE_PERCENT);
    let refused = deposit(&mut bench, 9_999).unwrap_err();
    assert_eq!(refused.class(), ServeClass::InvalidArgument, "{refused}");
    let refused = deposit(&mut bench, 50_000).unwrap_err();
    assert!(matches!(refused, ServeError::Node(NodeError::InsufficientFunds { .. })), "{refused}");
    assert_eq!(deposits(&mut bench), []);
    fund(&mut bench, 10_000_000);
    for number in 1..=10 {
        // Each change has to confirm before it pays the next.
        deposit(&mut bench, 50_000).unwrap_or_else(|error| panic!("deposit {number}: {error}"));
        bench.mine(1);
    }
    let refused = deposit(&mut bench, 50_000).unwrap_err();
    assert!(matches!(refused, ServeError::TooMany { found: 11, max: 10, .. }), "{refused}");
    // A withdrawal alone collects them.
    bench.mine(3);
    let handle = bench.handle.clone();
    bench.call(handle.wish(withdrawal(400_000))).unwrap();
    assert_eq!(bench.tick(&mut []).reason, TickReason::Cleared);
    bench.mine(1);
    assert_eq!(deposits(&mut bench), []);
    assert!(held(&mut bench) > 95_000);
}

#[test]
fn a_wish_that_comes_while_a_batch_is_made_waits_for_the_next_one() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    batch(&mut bench, &mut seller, &mut buyer);
    seller.ask(&mut bench, 500, 1);
    buyer.bid(&mut bench, 1000, 1);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    bench.call(handle.wish(withdrawal(4_000))).unwrap();
    for _ in 0..6 {
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        bench.pump();
    }
    assert_eq!(bench.call(tick).unwrap().reason, TickReason::Cleared);
    assert_eq!(bench.call(handle.status()).unwrap().wish, withdrawal(4_000));
    assert_eq!(bench.tick(&mut []).reason, TickReason::Cleared, "an empty batch pays it");
    assert_eq!(bench.call(handle.status()).unwrap().wish, OperatorWish::default());
}

/// Every coin that was ever the venue's and is unspent is in its book, with its value; and the other way round.
fn check_coins(bench: &mut Bench, ever: &mut BTreeMap<OutPoint, u64>, seed: u64) {
    let book = bench.book();
    let deposits = book.deposits.values().map(|record| record.public());
    let waiting = deposits.filter(|deposit| !matches!(deposit.state, DepositState::Spent(_) | DepositState::Replaced));
    let mut coins: BTreeMap<OutPoint, u64> = waiting.map(|deposit| (deposit.outpoint, deposit.value.get())).collect();
    coins.extend(book.master.iter().map(|master| (master.outpoint, master.value.get())));
    ever.extend(&coins);
    for (outpoint, value) in ever.iter() {
        let unspent = bench.world.utxo(*outpoint).map(|output| output.value.to_sat());
        match coins.get(outpoint) {
            Some(known) => assert_eq!((unspent, known), (Some(*value), value), "seed {seed}: {outpoint}"),
            None => assert_eq!(unspent, None, "seed {seed}: {outpoint} is forgotten"),
        }
    }
}

#[test]
fn no_coin_of_the_venue_is_ever_forgotten() {
    let (mut collected, mut paid_out) = (0, 0);
    for seed in 0..16 {
        let mut dice = Dice(seed);
        let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
        fund(&mut bench, 3_000_000);
        let mut ever = BTreeMap::new();
        for _ in 0..10 {
            let handle = bench.handle.clone();
            match dice.below(6) {
                0 => drop(batch(&mut bench, &mut seller, &mut buyer)),
                1 => match deposit(&mut bench, 10_000 + dice.below(90_000)) {
                    // Its change waits for a block.
                    Ok(_) | Err(ServeError::Node(NodeError::InsufficientFunds { .. })) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                },
                2 => match bench.call(handle.wish(withdrawal(1_000 + dice.below(20_000)))) {
                    Ok(()) | Err(ServeError::WithdrawalTooLarge { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                },
                3 => restart(&mut bench, &mut [&mut seller, &mut buyer]),
                4 => match bench.tick(&mut []).reason {
                    TickReason::Cleared => paid_out += 1,
                    TickReason::NoMatch => {}
                    other => panic!("seed {seed}: {other}"),
                },
                _ => bench.mine(1 + u32::try_from(dice.below(3)).unwrap()),
            }
            check_coins(&mut bench, &mut ever, seed);
            let spent = |state: &DepositState| matches!(state, DepositState::Spent(_));
            collected += states(&mut bench).iter().filter(|state| spent(state)).count();
        }
        bench.mine(3);
        check_coins(&mut bench, &mut ever, seed);
        assert_eq!(bench.call(bench.handle.clone().status()).unwrap().unconfirmed, 0, "seed {seed}");
    }
    assert!(collected >= 5 && paid_out >= 3, "{collected} collected, {paid_out} empty batches");
}
