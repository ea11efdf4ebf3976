//! Leased channels that end before their maturity.

use super::bench::Bench;
use super::trader::TestTrader;
use crate::TickReason;
use crate::book::LeaseRecord;
use crate::leases::{Ending, LEASE, LeaseSide, Maturity};
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use tidegate_ports::ChainEvent;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::units::{BlockCount, BlockHeight};

/// A spend of the channel: a commitment when marked as one.
fn spend(channel: OutPoint, commitment: bool, scripts: &[ScriptBuf]) -> Transaction {
    let (sequence, lock_time) = if commitment { (0x80ab_cdef, 0x20fe_dcba) } else { (0xffff_fffd, 0) };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: vec![TxIn {
            previous_output: channel,
            script_sig: ScriptBuf::new(),
            sequence: Sequence(sequence),
            witness: Witness::new(),
        }],
        output: scripts
            .iter()
            .map(|script| TxOut { value: Amount::from_sat(9_000), script_pubkey: script.clone() })
            .collect(),
    }
}

/// Pays the counterpart after one block, as anchor channels do: `<key> CHECKSIGVERIFY 1 CSV`.
fn anchors(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::from_bytes([&[33], &key.serialize()[..], &[0xad, 0x51, 0xb2]].concat()).to_p2wsh()
}

/// The same with the lease's lock, for the initiator of a script-enforced lease: `.. <height> CLTV DROP 1 CSV`.
fn leased(key: &PublicKey, height: u16) -> ScriptBuf {
    let lock = [&[2], &height.to_le_bytes()[..], &[0xb1, 0x75]].concat();
    ScriptBuf::from_bytes([&[33], &key.serialize()[..], &[0xad], &lock, &[0x51, 0xb2]].concat()).to_p2wsh()
}

fn plain(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(*key).wpubkey_hash())
}

fn sides() -> [LeaseSide; 2] {
    [1, 2].map(|number| {
        let order = super::orders::submitted(number, true);
        LeaseSide { account: order.order.account, node: order.node, payment: *order.multisig.point() }
    })
}

#[test]
fn the_outputs_of_a_commitment_tell_whose_it_is() {
    let [seller, buyer] = sides();
    let channel = OutPoint { txid: bitcoin::hashes::Hash::from_byte_array([3; 32]), vout: 1 };
    let lease = |maturity| LeaseRecord {
        channel,
        script: ScriptBuf::new(),
        height_hint: BlockHeight::new(1000),
        maturity,
        confirmed: Some(BlockHeight::new(1000)),
        seller,
        buyer,
    };
    let after = || lease(Maturity::After(BlockCount::new(2016)));
    let at = || lease(Maturity::At(BlockHeight::new(3016)));
    let foreign = || ScriptBuf::from_bytes([vec![0, 32], vec![9; 32]].concat());
    let (s, b) = (&seller.payment, &buyer.payment);
    use Ending::{ByBuyer, BySeller, Matured, Together};
    let rows = [
        ("anchors, pays the buyer", after(), true, vec![foreign(), anchors(b)], 2000, BySeller),
        ("anchors, pays the seller", after(), true, vec![foreign(), anchors(s)], 2000, ByBuyer),
        ("static remote key, pays the buyer", after(), true, vec![foreign(), plain(b)], 2000, BySeller),
        ("static remote key, pays the seller", after(), true, vec![foreign(), plain(s)], 2000, ByBuyer),
        ("lease, pays the buyer", at(), true, vec![foreign(), anchors(b)], 2000, BySeller),
        ("lease, pays the seller", at(), true, vec![foreign(), leased(s, 3016)], 2000, ByBuyer),
        ("pays neither", after(), true, vec![foreign()], 2000, BySeller),
        ("at maturity", after(), true, vec![anchors(b)], 3016, Matured),
        ("one block before", after(), true, vec![anchors(b)], 3015, BySeller),
        ("at the lock", at(), true, vec![anchors(b)], 3016, Matured),
        ("together", after(), false, vec![plain(b), plain(s)], 2000, Together),
        ("not confirmed before", LeaseRecord { confirmed: None, ..after() }, true, vec![anchors(b)], 9000, BySeller),
    ];
    for (name, lease, commitment, scripts, height, expected) in rows {
        let transaction = spend(channel, commitment, &scripts);
        assert_eq!(lease.ending(&transaction, BlockHeight::new(height)), expected, "{name}");
    }
}

/// One batch; the funding output of its channel.
fn batch(bench: &mut Bench, seller: &mut TestTrader, buyer: &mut TestTrader) -> OutPoint {
    seller.ask(bench, 500, 1);
    buyer.bid(bench, 1000, 1);
    assert_eq!(bench.tick(&mut [&mut *seller, &mut *buyer]).reason, TickReason::Cleared);
    seller.answer_all(bench);
    buyer.answer_all(bench);
    let leases = bench.book().leases;
    let (channel, lease) = leases.last_key_value().unwrap();
    assert_eq!((lease.seller.account, lease.buyer.account), (seller.account.key(), buyer.account.key()));
    assert_eq!(lease.confirmed, None);
    bench.mine(6);
    assert_eq!(bench.world.utxo(*channel).unwrap().script_pubkey, lease.script);
    *channel
}

fn closed(bench: &mut Bench, channel: OutPoint, pays: &PublicKey) {
    let transaction = spend(channel, true, &[anchors(pays)]);
    let (name, height) = (format!("{LEASE}{channel}"), bench.world.height());
    bench.env.chain.extra.lock().unwrap().push_back(ChainEvent::Spent { name, height, transaction });
    bench.mine(1);
}

#[test]
fn a_seller_that_closes_early_is_banned_and_a_buyer_is_not() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    let handle = bench.handle.clone();
    let mut lengths = Vec::new();
    for (by_seller, wait) in [(false, 0), (true, 145), (true, 289)] {
        let channel = batch(&mut bench, &mut seller, &mut buyer);
        let lease = bench.book().leases[&channel].clone();
        let paid = if by_seller { lease.buyer.payment } else { lease.seller.payment };
        closed(&mut bench, channel, &paid);
        let status = bench.call(handle.status()).unwrap();
        assert_eq!((status.banned, status.leases), (if by_seller { 2 } else { 0 }, 0));
        lengths.extend(bench.book().bans.values().map(|ban| ban.length.get()));
        for _ in 0..wait {
            bench.mine(1);
        }
    }
    assert_eq!(lengths, [144, 144, 288, 288], "account and node, twice");
}

#[test]
fn a_lease_is_watched_until_it_matures_and_not_longer() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    let channel = batch(&mut bench, &mut seller, &mut buyer);
    let confirmed = bench.book().leases[&channel].confirmed.unwrap();
    let maturity = confirmed.checked_add(BlockCount::new(2016)).unwrap();
    bench.world.mine(maturity.blocks_since(bench.world.height()).get() - 1);
    for _ in 0..120 {
        bench.pump();
    }
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().leases, 1);
    bench.mine(1);
    for _ in 0..20 {
        bench.pump();
    }
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().leases, 0);
}
