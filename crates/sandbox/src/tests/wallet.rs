//! Payments of a node's wallet.

use super::{anyone, funded, now, sats};
use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use tidegate_ports::{AddressKind, Bump, CoinLock, NodeError, Wallet};
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

fn template(sat: u64) -> Psbt {
    let output = vec![output(sat)];
    let unsigned = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output };
    Psbt::from_unsigned_tx(unsigned).expect("unsigned")
}

#[test]
fn funds_a_template_keeps_its_coins_and_signs_them() {
    let (world, node) = funded(300_000);
    let script = now(node.new_address(AddressKind::WitnessPubkeyHash)).expect("an address");
    world.pay(script, sats(100_000)).expect("paid");
    world.mine(1);
    let funded = now(node.fund_psbt(&template(350_000), 4)).expect("funded");
    assert_eq!((funded.locks.len(), funded.psbt.inputs.len()), (2, 2), "coins of both kinds");
    let change = funded.change.expect("there is change");
    let other = funded.psbt.unsigned_tx.output.get(1 - change);
    assert_eq!(other, Some(&output(350_000)), "the template's output is untouched");
    assert_eq!(now(node.confirmed_balance()), Ok(Sats::ZERO), "all coins are kept");
    let again = now(node.fund_psbt(&template(1_000), 4));
    assert!(matches!(again, Err(NodeError::InsufficientFunds { .. })), "{again:?}");
    let signed = now(node.finalize_psbt(&funded.psbt)).expect("signed");
    assert!(world.transaction(signed.compute_txid()).is_none(), "not published");
    now(node.publish(&signed, "deposit")).expect("valid");
    let known = now(node.wallet_transactions()).expect("told");
    let entry = known.iter().find(|known| known.transaction == signed).expect("it is the wallet's");
    assert_eq!((entry.label.as_str(), entry.height), ("deposit", None));
    let fee = 400_000 - signed.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    assert!(fee >= signed.vsize().try_into().map_or(0, |vsize: u64| vsize * 4), "4 sat/vB: {fee}");
}

#[test]
fn coins_that_are_kept_are_free_once_they_are_released_or_time_passes() {
    let (world, node) = funded(300_000);
    let fund = || now(node.fund_psbt(&template(100_000), 1));
    let first = fund().expect("funded");
    assert!(fund().is_err(), "kept");
    let stranger = CoinLock { id: [0; 32], ..first.locks[0] };
    now(node.release(&stranger)).expect("no error");
    assert!(fund().is_err(), "somebody else's lock");
    for lock in &first.locks {
        now(node.release(lock)).expect("released");
        now(node.release(lock)).expect("twice is no error");
    }
    fund().expect("free");
    world.mine(1);
    assert!(fund().is_err(), "still kept");
    world.mine(1);
    fund().expect("let go by itself");
}

#[test]
fn refuses_to_sign_what_is_not_its_own_and_not_final() {
    let (_, node) = funded(300_000);
    let funded = now(node.fund_psbt(&template(100_000), 1)).expect("funded");
    let mut foreign = funded.psbt.clone();
    foreign.inputs[0].witness_utxo = Some(output(300_000));
    assert!(matches!(now(node.finalize_psbt(&foreign)), Err(NodeError::Refused { .. })));
    foreign.inputs[0].witness_utxo = None;
    assert!(matches!(now(node.finalize_psbt(&foreign)), Err(NodeError::Refused { .. })), "not described");
    let refused = now(node.fund_psbt(&funded.psbt, 1));
    assert!(matches!(refused, Err(NodeError::Refused { .. })), "a template has no inputs: {refused:?}");
    assert!(matches!(now(node.fund_psbt(&template(1_000), 0)), Err(NodeError::Refused { .. })));
}

#[test]
fn a_child_raises_the_fee_and_a_second_one_replaces_it() {
    let (world, node) = funded(300_000);
    let parent = now(node.send_outputs(&[output(100_000)], SatPerKw::FLOOR, "x")).expect("sent");
    let txid = parent.compute_txid();
    let own = parent.output.iter().position(|paid| *paid != output(100_000)).expect("change");
    let outpoint = |index: usize| OutPoint { txid, vout: u32::try_from(index).expect("small") };
    assert_eq!(now(node.bump_fee(outpoint(1 - own), 10)), Ok(Bump::NotOurs));
    assert_eq!(now(node.bump_fee(outpoint(7), 10)), Ok(Bump::NotOurs));
    for rate in [10, 20] {
        assert_eq!(now(node.bump_fee(outpoint(own), rate)), Ok(Bump::Bumped));
        assert_eq!(world.mempool().len(), 2, "the parent and one child");
        let (child, _) = world.spender(outpoint(own)).expect("a child");
        let paid = 300_000 - 100_000 - child.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
        let weight = parent.weight().to_wu() + child.weight().to_wu();
        assert!(paid * 4 >= weight * rate, "{paid} sat for {weight} weight units at {rate} sat/vB");
    }
    let refused = now(node.bump_fee(outpoint(own), 1_000_000));
    assert!(matches!(refused, Err(NodeError::Refused { .. })), "more than it is worth: {refused:?}");
    world.mine(1);
    assert!(matches!(now(node.bump_fee(outpoint(own), 30)), Err(NodeError::Refused { .. })), "confirmed");
}

#[test]
fn an_estimate_is_what_a_payment_costs() {
    let (_, node) = funded(300_000);
    let estimate = now(node.estimate_payment(&output(100_000), 6)).expect("told");
    let rate = now(node.estimate_fee(6)).expect("told");
    let paid = now(node.send_outputs(&[output(100_000)], rate, "x")).expect("sent");
    let fee = 300_000 - paid.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    assert_eq!(estimate, sats(fee));
}

#[test]
fn a_wallet_remembers_what_the_network_lost() {
    let (world, node) = funded(300_000);
    let sent = now(node.send_outputs(&[output(100_000)], SatPerKw::FLOOR, "account")).expect("sent");
    let txid = sent.compute_txid();
    assert!(world.lose(txid) && !world.lose(txid));
    assert!(world.transaction(txid).is_none() && world.mempool().is_empty());
    assert_eq!(now(node.confirmed_balance()), Ok(Sats::ZERO), "its coin stays spent");
    let found = now(node.find_payment(&output(100_000))).expect("told").expect("remembered");
    assert_eq!(found.0, sent);
    let listed = now(node.wallet_transactions()).expect("told");
    let entry = listed.iter().find(|known| known.transaction == sent).expect("listed");
    assert_eq!((entry.label.as_str(), entry.height), ("account", None));
    world.mine(1);
    assert!(world.transaction(txid).is_none(), "nobody published it again");
    now(node.publish(&sent, "again")).expect("still valid");
    world.mine(1);
    assert!(!world.lose(txid), "in a block");
    let parent = sent.output.iter().find(|paid| **paid != output(100_000)).expect("change");
    assert_eq!(now(node.confirmed_balance()), Ok(sats(parent.value.to_sat())));
    world.reorganise(1, 2);
    assert_eq!(world.mempool().len(), 1);
    assert!(!world.lose(txid), "it was in a block once");
}

#[test]
fn a_child_that_only_raises_a_fee_is_lost_for_good() {
    let (world, node) = funded(300_000);
    let parent = now(node.send_outputs(&[output(100_000)], SatPerKw::FLOOR, "x")).expect("sent");
    let change = parent.output.iter().position(|paid| *paid != output(100_000)).expect("change");
    let own = OutPoint { txid: parent.compute_txid(), vout: u32::try_from(change).expect("small") };
    assert_eq!(now(node.bump_fee(own, 10)), Ok(Bump::Bumped));
    let (child, _) = world.spender(own).expect("a child");
    assert!(!world.lose(own.txid), "something spends from it");
    assert!(world.lose(child.compute_txid()));
    world.mine(1);
    assert_eq!(now(node.confirmed_balance()), Ok(sats(parent.output[change].value.to_sat())), "the coin is free");
}

#[test]
fn a_coin_that_is_spent_twice_confirms_once() {
    let (world, node) = funded(300_000);
    let first = now(node.send_outputs(&[output(100_000)], SatPerKw::FLOOR, "x")).expect("sent");
    let txid = first.compute_txid();
    world.mine(1);
    assert_eq!(world.double_spend(txid, SatPerKw::new(1_000)), None, "it is in a block");
    world.reorganise(1, 2);
    let second = world.double_spend(txid, SatPerKw::new(1_000)).expect("unconfirmed again");
    assert_eq!(second.input[0].previous_output, first.input[0].previous_output);
    assert!(matches!(now(node.publish(&first, "again")), Err(NodeError::Refused { .. })));
    world.mine(1);
    assert_eq!(now(node.confirmed_balance()), Ok(sats(second.output[0].value.to_sat())));
    let (unspent, mined) = world.satoshi();
    assert_eq!(unspent, mined);
}
