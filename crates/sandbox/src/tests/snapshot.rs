//! Saving and restoring.

use super::{anyone, funded, now};
use crate::{RestoreError, TxRefusal, World, WorldSnapshot};
use bitcoin::{Amount, TxOut};
use tidegate_ports::{AddressKind, Entropy, Signer, Wallet};
use tidegate_protocol::units::SatPerKw;

fn used() -> (World, crate::SandboxNode) {
    let (world, node) = funded(1_000_000);
    for sat in [10_000, 20_000] {
        let output = TxOut { value: Amount::from_sat(sat), script_pubkey: anyone().0 };
        now(node.send_outputs(&[output], SatPerKw::FLOOR, "x")).expect("sent");
        if sat == 10_000 {
            world.mine(1);
        }
    }
    now(node.derive_next_key(220)).expect("a key");
    now(node.new_address(AddressKind::Taproot)).expect("an address");
    (world, node)
}

#[test]
fn restored_world_is_the_same_but_one_start_later() {
    let (world, node) = used();
    world.set_fee_rate(SatPerKw::new(777));
    let saved = world.save();
    let text = serde_json::to_string(&saved).expect("JSON");
    let read: WorldSnapshot = serde_json::from_str(&text).expect("JSON");
    assert_eq!(read, saved);
    let restored = World::restore(&read).expect("restored");
    assert_eq!(restored.save(), WorldSnapshot { start: saved.start + 1, ..saved });
    let again = restored.node("alice").expect("the node is back");
    assert_eq!(now(again.confirmed_balance()), now(node.confirmed_balance()));
    assert_eq!(now(again.derive_next_key(220)), now(node.derive_next_key(220)), "counters go on");
    restored.mine(1);
    world.mine(1);
    assert_eq!(restored.block(restored.height()), world.block(world.height()));
    assert_ne!(restored.entropy("a").draw(), world.entropy("a").draw(), "no draw repeats after a restart");
}

#[test]
fn damaged_snapshots_are_refused() {
    let (world, _) = used();
    let honest = world.save();
    let mut twice = honest.clone();
    twice.mempool[0].input[0].previous_output = twice.blocks[1][0].input[0].previous_output;
    let refusal = World::restore(&twice).expect_err("a double spend");
    assert!(matches!(refusal, RestoreError::Transaction { refusal: TxRefusal::DoubleSpend { .. }, .. }), "{refusal:?}");
    let late = WorldSnapshot { start: u64::MAX, ..honest };
    assert_eq!(World::restore(&late).expect_err("too many starts"), RestoreError::Starts);
}
