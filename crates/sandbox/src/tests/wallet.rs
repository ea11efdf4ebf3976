//! Payments of a node's wallet.

use super::{anyone, funded, now, sats};
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use tidegate_ports::{AddressKind, NodeError, Wallet};
use tidegate_protocol::units::{SatPerKw, Sats};

fn output(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: anyone().0 }
}

#[test]
fn pays_from_many_coins_of_both_kinds_and_keeps_the_change() {
    let (world, node) = funded(300_000);
    for (kind, sat) in [(AddressKind::Taproot, 200_000), (AddressKind::WitnessPubkeyHash, 100_000)] {
        let script = now(node.new_address(kind)).expect("an address");
        world.pay(script, sats(sat)).expect("paid");
    }
    assert_eq!(now(node.confirmed_balance()), Ok(sats(300_000)), "unconfirmed coins do not count");
    world.mine(1);
    assert_eq!(now(node.confirmed_balance()), Ok(sats(600_000)));
    let rate = SatPerKw::new(1_000);
    let tx = now(node.send_outputs(&[output(550_000)], rate, "account")).expect("sent");
    assert_eq!(tx.input.len(), 3);
    assert_eq!(now(node.confirmed_balance()), Ok(Sats::ZERO), "all coins are spent, the change is unconfirmed");
    world.mine(1);
    let fee = 600_000 - tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    assert_eq!(now(node.confirmed_balance()), Ok(sats(50_000 - fee)));
    let weight = tx.weight().to_wu();
    assert!(
        (weight..weight + 8).contains(&fee),
        "1 sat per weight unit, signatures may be a little smaller: {fee} {weight}"
    );
}

#[test]
fn change_below_dust_goes_to_the_fee() {
    let (world, node) = funded(100_000);
    let tx = now(node.send_outputs(&[output(99_600)], SatPerKw::FLOOR, "x")).expect("sent");
    assert_eq!(tx.output, [output(99_600)]);
    world.mine(1);
    assert_eq!(now(node.confirmed_balance()), Ok(Sats::ZERO));
}

#[test]
fn refuses_what_it_can_not_pay() {
    let (_, node) = funded(100_000);
    let too_much = now(node.send_outputs(&[output(100_000)], SatPerKw::FLOOR, "x"));
    assert!(matches!(too_much, Err(NodeError::InsufficientFunds { .. })), "{too_much:?}");
    for (name, outputs, rate) in [
        ("nothing to pay", vec![], SatPerKw::FLOOR),
        ("rate below floor", vec![output(1_000)], SatPerKw::new(252)),
        ("dust", vec![output(100)], SatPerKw::FLOOR),
        ("more than exists", vec![output(u64::MAX / 2)], SatPerKw::FLOOR),
    ] {
        let refused = now(node.send_outputs(&outputs, rate, "x"));
        assert!(matches!(refused, Err(NodeError::Refused { .. })), "{name}: {refused:?}");
    }
    assert_eq!(now(node.confirmed_balance()), Ok(sats(100_000)));
}

#[test]
fn finds_its_payment_by_script_and_value() {
    let (world, node) = funded(1_000_000);
    let paid = output(200_000);
    assert_eq!(now(node.find_payment(&paid)), Ok(None));
    let tx = now(node.send_outputs(core::slice::from_ref(&paid), SatPerKw::FLOOR, "account")).expect("sent");
    let vout = if tx.output[0] == paid { 0 } else { 1 };
    let found = Ok(Some((tx.clone(), OutPoint { txid: tx.compute_txid(), vout })));
    assert_eq!(now(node.find_payment(&paid)), found, "unconfirmed");
    world.mine(1);
    assert_eq!(now(node.find_payment(&paid)), found, "confirmed");
    assert_eq!(now(node.find_payment(&output(200_001))), Ok(None), "another value");
    let other = TxOut { script_pubkey: ScriptBuf::new_op_return([1]), ..paid.clone() };
    assert_eq!(now(node.find_payment(&other)), Ok(None), "another script");
    let stranger = world.add_node("bob");
    assert_eq!(now(stranger.find_payment(&paid)), Ok(None), "not the stranger's");
}

#[test]
fn publishing_twice_is_success_and_a_bad_transaction_is_refused() {
    let (world, node) = funded(1_000_000);
    let tx = now(node.send_outputs(&[output(200_000)], SatPerKw::FLOOR, "x")).expect("sent");
    assert_eq!(now(node.publish(&tx, "again")), Ok(()));
    world.mine(1);
    assert_eq!(now(node.publish(&tx, "again")), Ok(()));
    let mut bad = tx;
    bad.output[0].value -= Amount::from_sat(1);
    assert!(matches!(now(node.publish(&bad, "x")), Err(NodeError::Refused { call: "publish", .. })));
}

#[test]
fn fee_estimate_follows_the_world_but_not_below_the_floor() {
    let (world, node) = funded(1_000_000);
    assert_eq!(now(node.estimate_fee(6)), Ok(SatPerKw::FLOOR));
    world.set_fee_rate(SatPerKw::new(12_500));
    assert_eq!(now(node.estimate_fee(6)), Ok(SatPerKw::new(12_500)));
    world.set_fee_rate(SatPerKw::new(1));
    assert_eq!(now(node.estimate_fee(6)), Ok(SatPerKw::FLOOR));
    assert!(matches!(now(node.estimate_fee(0)), Err(NodeError::Refused { .. })));
}
