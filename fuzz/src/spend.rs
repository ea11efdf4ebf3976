//! Transactions that spend an account outside of batches, to any outputs.

use crate::bytes::Bytes;
use crate::material::{point, sats};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, KeyLocator, SharedSecret};
use tidegate_protocol::spend::{ClosePath, WalletInput, close_to_script, remaining_value, spend_to_outputs};
use tidegate_protocol::units::{BlockHeight, SatPerKw};

/// Closes, deposits and withdrawals: they refuse, or pay no more than there is.
pub fn account_spend(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let account = account(&mut bytes);
    let fee_rate = SatPerKw::new(bytes.near(253));
    let path = if bytes.flag() {
        ClosePath::Cooperative
    } else {
        ClosePath::Expiry(BlockHeight::new(bytes.near32(account.terms.expiry.get())))
    };
    let mut inputs = Vec::new();
    for number in 0..bytes.u8() % 4 {
        let outpoint = OutPoint { txid: Txid::from_byte_array([bytes.u8(); 32]), vout: number.into() };
        inputs.push(WalletInput { outpoint, prev_output: output(&mut bytes), script_sig: ScriptBuf::new() });
    }
    let outputs: Vec<TxOut> = (0..bytes.u8() % 5).map(|_| output(&mut bytes)).collect();
    let wallet: u128 = inputs.iter().map(|input| u128::from(input.prev_output.value.to_sat())).sum();
    let available = u128::from(account.value.get());

    if let Ok(transaction) = close_to_script(&account, output(&mut bytes).script_pubkey, fee_rate, path) {
        check(&account, &transaction, available);
        assert!(transaction.input.len() == 1 && transaction.output.len() == 1);
    }
    if let Ok(transaction) = spend_to_outputs(&account, &inputs, outputs.clone(), path) {
        check(&account, &transaction, available + wallet);
        assert_eq!(transaction.input.len(), 1 + inputs.len());
    }
    if let Ok(left) = remaining_value(&account, &outputs, fee_rate) {
        let withdrawn: u128 = outputs.iter().map(|output| u128::from(output.value.to_sat())).sum();
        assert!(u128::from(left.get()) + withdrawn < available);
    }
}

fn check(account: &Account, transaction: &Transaction, available: u128) {
    let spent: u128 = transaction.output.iter().map(|output| u128::from(output.value.to_sat())).sum();
    assert!(spent < available, "{spent} of {available} sat spent, and no fee");
    let own = transaction.input.iter().filter(|input| Some(input.previous_output) == account.outpoint);
    assert!(own.count() >= 1, "the account is not spent");
}

/// An account of any version.
pub(crate) fn account(bytes: &mut Bytes<'_>) -> Account {
    let version = bytes.pick(&[AccountVersion::V0, AccountVersion::V1, AccountVersion::V2]);
    let terms = AccountTerms {
        version,
        trader: AccountKey::new(point(0)),
        auctioneer: AuctioneerKey::new(point(1)),
        batch: BatchKey::new(point(2)),
        secret: SharedSecret::new([3; 32]),
        expiry: BlockHeight::new(bytes.near32(100_000)),
    };
    Account {
        terms,
        locator: KeyLocator { family: 220, index: 0 },
        value: sats(bytes.near(1_000_000)),
        state: AccountState::Open,
        height_hint: BlockHeight::new(1),
        outpoint: (bytes.u8() != 1).then_some(OutPoint { txid: Txid::from_byte_array([200; 32]), vout: 0 }),
        latest_tx: None,
    }
}

/// An output of any kind.
pub(crate) fn output(bytes: &mut Bytes<'_>) -> TxOut {
    let key = bitcoin::PublicKey::new(point(5));
    let script_pubkey = match bytes.u8() % 6 {
        0 => ScriptBuf::new_p2wpkh(&key.wpubkey_hash().expect("compressed")),
        1 => ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash()),
        2 => ScriptBuf::from_bytes([&[0x51, 0x20][..], &[6; 32]].concat()),
        3 => ScriptBuf::new_p2sh(&ScriptBuf::new().script_hash()),
        4 => ScriptBuf::new(),
        _ => {
            let length = usize::from(bytes.u8());
            ScriptBuf::from_bytes(bytes.take(length).to_vec())
        }
    };
    TxOut { value: Amount::from_sat(bytes.near(500_000)), script_pubkey }
}
