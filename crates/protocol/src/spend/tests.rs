use super::*;
use crate::account::{AccountState, AccountTerms};
use crate::keys::{AccountKey, AuctioneerKey, BatchKey, KeyLocator, SharedSecret};
use crate::script::INITIAL_BATCH_KEY;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, Txid};

const BEST: BlockHeight = BlockHeight::new(850_000);

fn account(version: AccountVersion) -> Account {
    let point = |seed: u8| SecretKey::from_slice(&[seed; 32]).unwrap().public_key(&Secp256k1::new());
    let terms = AccountTerms {
        version,
        trader: AccountKey::new(point(1)),
        auctioneer: AuctioneerKey::new(point(2)),
        batch: INITIAL_BATCH_KEY.parse::<BatchKey>().unwrap(),
        secret: SharedSecret::new([3; 32]),
        expiry: BEST,
    };
    let outpoint = Some(OutPoint { txid: Txid::from_byte_array([4; 32]), vout: 1 });
    let initiated = Account::initiated(terms, KeyLocator { family: 220, index: 0 }, Sats::constant(1_000_000), BEST);
    Account { state: AccountState::Open, outpoint, ..initiated }
}

/// The script around a hash of sevens.
fn script(head: &[u8], hash: usize, tail: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes([head, &vec![7; hash], tail].concat())
}

fn p2wkh() -> ScriptBuf {
    script(&[0x00, 0x14], 20, &[])
}

fn p2sh() -> ScriptBuf {
    script(&[0xa9, 0x14], 20, &[0x87])
}

fn p2tr() -> ScriptBuf {
    script(&[0x51, 0x20], 32, &[])
}

fn output(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

fn coin(prev_script: ScriptBuf, script_sig: usize) -> WalletInput {
    let outpoint = OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 0 };
    let script_sig = ScriptBuf::from_bytes(vec![0x16; script_sig]);
    WalletInput { outpoint, prev_output: output(200_000, prev_script), script_sig }
}

#[test]
fn outputs_are_worth_their_spending() {
    for (what, script, limit) in [
        ("P2WKH", p2wkh(), 294),
        ("P2WSH", script(&[0x00, 0x20], 32, &[]), 330),
        ("P2TR", p2tr(), 330),
        ("a later witness version", script(&[0x60, 0x02], 2, &[]), 240),
        ("P2SH", p2sh(), 540),
        ("P2PKH", script(&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac]), 546),
    ] {
        let spend = |sat| cooperative_transaction(&account(AccountVersion::V2), vec![output(sat, script.clone())]);
        assert!(spend(limit).is_ok(), "{what}");
        let (value, limit) = (Sats::new(limit - 1).unwrap(), Sats::new(limit).unwrap());
        assert_eq!(spend(value.get()), Err(SpendError::Dust { value, limit }), "{what}");
    }
}

#[test]
fn the_fee_reaches_the_floor_for_the_whole_weight() {
    use ClosePath::Cooperative;
    // Stripped: 4·(8 + 1 + inputs + 1 + 31); then 2, the account's witness and the wallet's.
    for (what, version, coins, path, weight) in [
        ("version 0", AccountVersion::V0, vec![], Cooperative, 328 + 2 + 229),
        ("version 1", AccountVersion::V1, vec![], Cooperative, 328 + 2 + 66),
        ("version 0, expired", AccountVersion::V0, vec![], ClosePath::Expiry(BEST), 328 + 2 + 155),
        ("version 2, expired", AccountVersion::V2, vec![], ClosePath::Expiry(BEST), 328 + 2 + 140),
        ("with P2WKH", AccountVersion::V2, vec![coin(p2wkh(), 0)], Cooperative, 492 + 2 + 66 + 109),
        ("with P2TR", AccountVersion::V2, vec![coin(p2tr(), 0)], Cooperative, 492 + 2 + 66 + 66),
        ("with nested P2WKH", AccountVersion::V2, vec![coin(p2sh(), 23)], Cooperative, 584 + 2 + 66 + 109),
    ] {
        let total = if coins.is_empty() { 1_000_000 } else { 1_200_000 };
        let floor = 253 * weight / 1_000;
        let spend =
            |fee| spend_to_outputs(&account(version), &coins, vec![output(total - fee, p2wkh())], path).map(|_| ());
        assert_eq!(spend(floor), Ok(()), "{what}");
        let fee = Sats::new(floor - 1).unwrap();
        assert_eq!(spend(fee.get()), Err(SpendError::FeeTooLow { fee }), "{what}");
    }
}

#[test]
fn nothing_is_spent_that_is_not_there_or_not_known() {
    let account = account(AccountVersion::V2);
    let spend = |coins: &[WalletInput], sat, path| {
        spend_to_outputs(&account, coins, vec![output(sat, p2wkh())], path).map(|_| ())
    };
    assert_eq!(spend(&[], 1_000_001, ClosePath::Cooperative), Err(SpendError::Overspent));
    let strange = [coin(script(&[0x00, 0x20], 32, &[]), 0)];
    assert_eq!(spend(&strange, 1_000, ClosePath::Cooperative), Err(SpendError::UnknownInput));
    let best = BlockHeight::new(BEST.get() - 1);
    let early = Err(SpendError::NotExpired { expiry: BEST, best });
    assert_eq!(spend(&[], 1_000, ClosePath::Expiry(best)), early);
}
