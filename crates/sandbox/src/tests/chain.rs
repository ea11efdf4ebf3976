//! What enters the mempool, and what does not.

use super::{anyone, funded, now, sats, unsigned};
use crate::{Acceptance, COINBASE_MATURITY, GENESIS_HEIGHT, SandboxNode, ScriptRefusal, TxRefusal, World};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut};
use tidegate_ports::Wallet;
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// A confirmed output of 100,000 sat that anyone may spend.
fn open_output() -> (World, SandboxNode, OutPoint) {
    let world = World::new(3);
    let node = world.add_node("alice");
    let outpoint = world.pay(anyone().0, sats(100_000)).expect("the miner pays");
    world.mine(1);
    (world, node, outpoint)
}

fn spend(node: &SandboxNode, outpoint: OutPoint) -> Transaction {
    let mut tx = unsigned(node, outpoint, 1_000, 0);
    tx.input[0].witness = anyone().1;
    tx
}

#[test]
fn every_rule_of_the_mempool_refuses() {
    type Damage = fn(&mut Transaction);
    type Expected = fn(&TxRefusal) -> bool;
    let rows: [(&str, Damage, Expected); 15] = [
        ("no input", |tx| tx.input.clear(), |r| matches!(r, TxRefusal::Malformed(_))),
        ("no output", |tx| tx.output.clear(), |r| matches!(r, TxRefusal::Malformed(_))),
        ("input twice", |tx| tx.input.push(tx.input[0].clone()), |r| matches!(r, TxRefusal::Malformed(_))),
        ("block reward", |tx| tx.input[0].previous_output = OutPoint::null(), |r| matches!(r, TxRefusal::Malformed(_))),
        ("version 4", |tx| tx.version = Version(4), |r| *r == TxRefusal::Version(4)),
        (
            "too large",
            |tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 100_001]),
            |r| matches!(r, TxRefusal::TooLarge { .. }),
        ),
        ("unknown output", |tx| tx.input[0].previous_output.vout = 9, |r| matches!(r, TxRefusal::MissingInput(_))),
        (
            "lock time ahead",
            |tx| tx.lock_time = LockTime::from_consensus(502),
            |r| matches!(r, TxRefusal::NotFinal { next: 502, .. }),
        ),
        (
            "lock by time",
            |tx| tx.lock_time = LockTime::from_consensus(500_000_000),
            |r| matches!(r, TxRefusal::NotFinal { .. }),
        ),
        (
            "relative lock",
            |tx| tx.input[0].sequence = Sequence::from_height(2),
            |r| *r == TxRefusal::RelativeLock { input: 0 },
        ),
        (
            "overspent",
            |tx| tx.output[0].value = Amount::from_sat(100_001),
            |r| *r == TxRefusal::Overspent { inputs: sats(100_000), outputs: sats(100_001) },
        ),
        ("too many coins", |tx| tx.output[0].value = Amount::MAX, |r| *r == TxRefusal::Amounts),
        (
            "dust",
            |tx| tx.output[0].value = Amount::from_sat(329),
            |r| *r == TxRefusal::Dust { output: 0, value: sats(329), limit: sats(330) },
        ),
        (
            "no fee",
            |tx| tx.output[0].value = Amount::from_sat(100_000),
            |r| matches!(r, TxRefusal::FeeTooLow { fee: Sats::ZERO, .. }),
        ),
        (
            "no witness",
            |tx| tx.input[0].witness.clear(),
            |r| matches!(r, TxRefusal::Script(ScriptRefusal::Unsatisfied { input: 0, .. })),
        ),
    ];
    let (world, node, outpoint) = open_output();
    let honest = spend(&node, outpoint);
    for (name, damage, expected) in rows {
        let mut tx = honest.clone();
        damage(&mut tx);
        let refusal = world.publish(&tx).expect_err(name);
        assert!(expected(&refusal), "{name}: {refusal:?}");
    }
    assert!(world.mempool().is_empty());
    assert_eq!(world.publish(&honest), Ok(Acceptance::New));
}

#[test]
fn output_is_spent_once() {
    let (world, node, outpoint) = open_output();
    let (first, second) = (spend(&node, outpoint), spend(&node, outpoint));
    assert_ne!(first.compute_txid(), second.compute_txid());
    assert_eq!(world.publish(&first), Ok(Acceptance::New));
    let refusal = Err(TxRefusal::DoubleSpend { outpoint, by: first.compute_txid() });
    assert_eq!(world.publish(&second), refusal, "while unconfirmed");
    assert_eq!(world.publish(&first), Ok(Acceptance::InMempool));
    world.mine(1);
    assert_eq!(world.publish(&second), refusal, "when confirmed");
    assert_eq!(world.publish(&first), Ok(Acceptance::Confirmed));
    assert_eq!(world.utxo(outpoint), None);
    let spender = world.spender(outpoint).expect("spent");
    assert_eq!(spender, (first, Some(BlockHeight::new(502))));
}

#[test]
fn unconfirmed_parents_and_their_children_share_a_block() {
    let (world, node, outpoint) = open_output();
    let mut parent = spend(&node, outpoint);
    parent.output[0].script_pubkey = anyone().0;
    world.publish(&parent).expect("accepted");
    let child = spend(&node, OutPoint { txid: parent.compute_txid(), vout: 0 });
    assert_eq!(world.publish(&child), Ok(Acceptance::New));
    let height = world.mine(1);
    let block = world.block(height).expect("a block");
    assert_eq!(block[1..], [parent, child]);
    assert!(block[0].is_coinbase());
    assert_eq!(block[0].output[0].value, Amount::from_sat(5_000_002_000), "the reward includes both fees");
}

#[test]
fn lock_time_and_relative_lock_are_reached_with_their_block() {
    let (world, node, outpoint) = open_output();
    let mut absolute = spend(&node, outpoint);
    absolute.lock_time = LockTime::from_consensus(502);
    let mut relative = spend(&node, outpoint);
    relative.input[0].sequence = Sequence::from_height(2);
    for tx in [&absolute, &relative] {
        world.publish(tx).expect_err("one block early");
    }
    world.mine(1);
    for tx in [&absolute, &relative] {
        let copy = World::restore(&world.save()).expect("restored");
        assert_eq!(copy.publish(tx), Ok(Acceptance::New));
    }
}

#[test]
fn block_reward_matures() {
    let world = World::new(5);
    let reward = world.block(BlockHeight::new(GENESIS_HEIGHT)).expect("a block")[0].clone();
    let node = world.add_node("alice");
    let outpoint = OutPoint { txid: reward.compute_txid(), vout: 0 };
    let tx = unsigned(&node, outpoint, 1_000, 0);
    world.mine(COINBASE_MATURITY - 2);
    let from = GENESIS_HEIGHT + COINBASE_MATURITY;
    assert_eq!(world.publish(&tx), Err(TxRefusal::Immature { outpoint, from }));
    world.mine(1);
    let mature = world.publish(&tx);
    assert!(matches!(mature, Err(TxRefusal::Script(_))), "only the signature is missing now: {mature:?}");
}

#[test]
fn equal_seeds_make_equal_worlds_and_others_do_not() {
    let make = |seed| {
        let world = World::new(seed);
        let node = world.add_node("alice");
        world.fund(&node, sats(1_000_000)).expect("paid");
        let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: anyone().0 };
        now(node.send_outputs(&[output], SatPerKw::FLOOR, "x")).expect("sent").compute_txid()
    };
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn script_refuses_a_made_up_taproot_signature() {
    // Alarm: without the spent outputs the interpreter would skip taproot, and any 64 bytes would do.
    let (world, node) = funded(1_000_000);
    let taproot = now(node.new_address(tidegate_ports::AddressKind::Taproot)).expect("an address");
    let outpoint = world.pay(taproot, sats(50_000)).expect("paid");
    world.mine(1);
    let mut tx = unsigned(&node, outpoint, 1_000, 0);
    tx.input[0].witness = bitcoin::Witness::from_slice(&[[7_u8; 64]]);
    let refusal = world.publish(&tx);
    assert!(matches!(refusal, Err(TxRefusal::Script(ScriptRefusal::Unsatisfied { .. }))), "{refusal:?}");
}
