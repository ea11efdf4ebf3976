//! Tests of the world through its public face and the ports.

mod accounts;
mod chain;
mod channels;
mod executor;
mod faults;
mod ports;
mod reorganisation;
mod snapshot;
mod traffic;
mod wallet;
mod watch;

use crate::{SandboxNode, World};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use futures_util::FutureExt;
use tidegate_ports::{AddressKind, Wallet};
use tidegate_protocol::units::Sats;

/// The result of a future that does not have to wait.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

pub(crate) fn sats(sat: u64) -> Sats {
    Sats::new(sat).expect("an amount")
}

/// A world with one node that owns `amount`.
pub(crate) fn funded(amount: u64) -> (World, SandboxNode) {
    let world = World::new(7);
    let node = world.add_node("alice");
    world.fund(&node, sats(amount)).expect("the miner pays");
    (world, node)
}

/// A script that any witness-less input satisfies: P2WSH of OP_TRUE.
pub(crate) fn anyone() -> (ScriptBuf, Witness) {
    let script = bitcoin::script::Builder::new().push_opcode(bitcoin::opcodes::OP_TRUE).into_script();
    (script.to_p2wsh(), Witness::from_slice(&[script.as_bytes()]))
}

/// Spends an output to a fresh address of `node`, leaving `fee`; no witness yet.
pub(crate) fn unsigned(node: &SandboxNode, outpoint: OutPoint, fee: u64, lock_time: u32) -> Transaction {
    let value = node.world().utxo(outpoint).expect("the output is unspent").value;
    let script_pubkey = now(node.new_address(AddressKind::Taproot)).expect("an address");
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: value - Amount::from_sat(fee), script_pubkey }],
    }
}
