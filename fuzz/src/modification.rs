//! Changes of an account by its owner, and the PSBT that the node's wallet answers a deposit with.

use crate::bytes::Bytes;
use crate::material::sats;
use crate::spend::{account, output};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::{Network, OutPoint, ScriptBuf, Sequence, TxIn, Txid, Witness};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::modification::{Deposit, Modification, ModificationError, TermsChange};
use tidegate_protocol::units::{BlockHeight, SatPerKw};

/// Renewals, withdrawals and closes: they refuse, or conserve every satoshi.
pub fn modification(data: &[u8]) {
    drop(changed(data));
}

/// What becomes of the change that these bytes ask for.
fn changed(data: &[u8]) -> Result<Modification, ModificationError> {
    let mut bytes = Bytes::new(data);
    let account = owned(&mut bytes);
    let (best, change, rate) = circumstances(&mut bytes, &account);
    let outputs: Vec<_> = (0..bytes.u8() % 4).map(|_| output(&mut bytes)).collect();
    let paid: u128 = outputs.iter().map(|output| u128::from(output.value.to_sat())).sum();
    let (made, paid) = match bytes.u8() % 4 {
        0 => (Modification::renew(&account, change, rate, best), 0),
        1 => (Modification::withdraw(&account, &outputs, change, rate, best), paid),
        2 => (Modification::close(&account, output(&mut bytes).script_pubkey, rate, best), 0),
        _ => (Modification::close_to_outputs(&account, outputs, best), paid),
    };
    match &made {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(made) => {
            assert!(made.others.is_empty());
            judge(&account, made);
            if made.recreated_index().is_some() {
                let kept = made.after.value.get() + made.fee.get();
                assert_eq!(u128::from(kept) + paid, u128::from(account.value.get()));
            }
        }
    }
    made
}

/// A deposit: the wallet's answer is either any bytes, or ours with some of it bent.
pub fn deposit(data: &[u8]) {
    drop(deposited(data));
}

/// What becomes of the deposit that these bytes ask for; nothing when the wallet's answer is no PSBT.
fn deposited(data: &[u8]) -> Option<Result<Modification, ModificationError>> {
    let mut bytes = Bytes::new(data);
    let account = owned(&mut bytes);
    let (best, change, rate) = circumstances(&mut bytes, &account);
    let (amount, limit) = (sats(bytes.near(200_000)), sats(bytes.near(10_000_000)));
    let wanted = match Deposit::new(&account, amount, change, rate, limit, best) {
        Ok(wanted) => wanted,
        Err(error) => return Some(Err(error)),
    };
    let place = bytes.flag().then(|| usize::from(bytes.u8() % 4));
    let funded = if bytes.flag() { Psbt::deserialize(bytes.rest()).ok()? } else { answer(&mut bytes, &wanted) };
    let coins = funded.unsigned_tx.input.len();
    let made = wanted.complete(funded, place);
    match &made {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(made) => {
            assert_eq!(made.others.len(), coins);
            judge(&account, made);
            assert_eq!(made.after.value.get(), account.value.get() + amount.get());
        }
    }
    Some(made)
}

/// What a wallet would say, but for what the bytes bend.
fn answer(bytes: &mut Bytes<'_>, wanted: &Deposit) -> Psbt {
    let mut transaction = wanted.template().unsigned_tx;
    let coins = bytes.u8() % 4;
    for number in 0..coins {
        let previous_output = OutPoint { txid: Txid::from_byte_array([bytes.u8(); 32]), vout: number.into() };
        let (script_sig, witness) = (ScriptBuf::new(), Witness::new());
        transaction.input.push(TxIn { previous_output, script_sig, sequence: Sequence::ZERO, witness });
    }
    for _ in 0..bytes.u8() % 3 {
        transaction.output.push(output(bytes));
    }
    let mut funded = Psbt::from_unsigned_tx(transaction).expect("no script signature and no witness");
    for known in &mut funded.inputs {
        known.witness_utxo = (bytes.u8() != 1).then(|| output(bytes));
        if bytes.flag() {
            known.redeem_script = Some(output(bytes).script_pubkey);
        }
    }
    funded
}

/// An account that often may be changed.
fn owned(bytes: &mut Bytes<'_>) -> Account {
    let state =
        bytes.pick(&[AccountState::Open, AccountState::Open, AccountState::Expired, AccountState::PendingBatch]);
    Account { state, ..account(bytes) }
}

/// Best height, what changes besides the value, and the fee rate.
fn circumstances(bytes: &mut Bytes<'_>, account: &Account) -> (BlockHeight, TermsChange, SatPerKw) {
    let best = BlockHeight::new(bytes.near32(account.terms.expiry.get().saturating_sub(1_000)));
    let expiry = bytes.flag().then(|| BlockHeight::new(bytes.near32(best.get().saturating_add(2_016))));
    let versions = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
    let version = bytes.flag().then(|| bytes.pick(&versions));
    (best, TermsChange { expiry, version }, SatPerKw::new(bytes.near(253)))
}

/// What holds for every change: the account is spent once, nothing comes from nowhere, and the node can be asked to sign.
fn judge(before: &Account, made: &Modification) {
    assert_eq!(made.before, *before);
    let own = made.transaction.input.iter().filter(|input| Some(input.previous_output) == before.outpoint);
    assert_eq!(own.count(), 1, "the account is not spent exactly once");
    let prev_outputs = made.prev_outputs().expect("honest keys");
    assert_eq!(prev_outputs.len(), made.transaction.input.len());
    assert_eq!(made.new_inputs().len(), made.others.len());
    let spent: u128 = prev_outputs.iter().map(|output| u128::from(output.value.to_sat())).sum();
    let paid: u128 = made.transaction.output.iter().map(|output| u128::from(output.value.to_sat())).sum();
    assert_eq!(spent, paid + u128::from(made.fee.get()), "satoshis appear or vanish");
    let kept = made.recreated_index().map(|index| &made.transaction.output[usize::try_from(index).expect("an index")]);
    assert_eq!(kept.is_some(), made.new_params().is_some());
    if let Some(kept) = kept {
        assert_eq!(kept.value.to_sat(), made.after.value.get());
        assert_eq!(kept.script_pubkey, made.after.terms.output_script().expect("honest keys"));
    }
    let psbt = made.psbt(Network::Regtest).expect("the key has a place in the wallet");
    assert_eq!(Psbt::deserialize(&psbt.serialize()).ok().as_ref(), Some(&psbt), "the node reads something else");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds that are refused at the first check would prove nothing.
    #[test]
    fn kept_changes_are_made() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let made = |target: &str, make: fn(&[u8]) -> bool| {
            let files = std::fs::read_dir(corpus.join(target)).expect("a folder of the corpus");
            files.filter(|file| make(&std::fs::read(file.as_ref().expect("a file").path()).expect("readable"))).count()
        };
        assert!(made("modification", |data| changed(data).is_ok()) >= 20);
        assert!(made("deposit", |data| deposited(data).is_some_and(|made| made.is_ok())) >= 10);
    }
}
