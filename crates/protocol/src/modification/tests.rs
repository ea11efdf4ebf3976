use super::*;
use crate::keys::{AccountKey, AuctioneerKey, BatchKey, KeyLocator, SharedSecret};
use crate::script::INITIAL_BATCH_KEY;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, Sequence, TxIn, Txid, WPubkeyHash, Witness};

const BEST: BlockHeight = BlockHeight::new(849_000);
const RATE: SatPerKw = SatPerKw::new(1_000);

fn account(version: AccountVersion) -> Account {
    let point = |seed: u8| SecretKey::from_slice(&[seed; 32]).unwrap().public_key(&Secp256k1::new());
    let terms = AccountTerms {
        version,
        trader: AccountKey::new(point(1)),
        auctioneer: AuctioneerKey::new(point(2)),
        batch: INITIAL_BATCH_KEY.parse::<BatchKey>().unwrap(),
        secret: SharedSecret::new([3; 32]),
        expiry: BlockHeight::new(850_000),
    };
    let outpoint = Some(OutPoint { txid: Txid::from_byte_array([4; 32]), vout: 1 });
    let initiated = Account::initiated(terms, KeyLocator { family: 220, index: 0 }, Sats::constant(1_000_000), BEST);
    Account { state: AccountState::Open, outpoint, ..initiated }
}

fn p2wkh(seed: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([seed; 20]))
}

fn pays(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: p2wkh(9) }
}

fn renewed(account: &Account, change: TermsChange) -> Result<Account, ModificationError> {
    Modification::renew(account, change, RATE, BEST).map(|built| built.after)
}

#[test]
fn a_new_expiry_lies_within_the_markets_bounds() {
    let ahead = |blocks: u32| {
        let expiry = Some(BlockHeight::new(BEST.get() + blocks));
        renewed(&account(AccountVersion::V1), TermsChange { expiry, version: None })
    };
    for (blocks, allowed) in [(143, false), (144, true), (52_560, true), (52_561, false)] {
        assert_eq!(matches!(ahead(blocks), Err(ModificationError::Expiry { .. })), !allowed, "{blocks}");
        assert_eq!(ahead(blocks).is_ok(), allowed, "{blocks}");
    }
}

#[test]
fn versions_only_rise() {
    let versions = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
    for from in versions {
        for to in versions {
            let found = renewed(&account(from), TermsChange { expiry: None, version: Some(to) });
            match to >= from {
                true => assert_eq!(found.map(|after| after.terms.version), Ok(to)),
                false => assert_eq!(found, Err(ModificationError::Downgrade { from, to })),
            }
        }
    }
}

#[test]
fn every_state_allows_what_it_may() {
    let states = [
        (AccountState::Initiated, false, false, false),
        (AccountState::PendingOpen, false, false, true),
        (AccountState::PendingUpdate, false, false, true),
        (AccountState::Open, true, true, true),
        (AccountState::Expired, true, false, true),
        (AccountState::PendingClosed, false, false, false),
        (AccountState::Closed, false, false, false),
        (AccountState::CanceledAfterRecovery, false, false, false),
        (AccountState::PendingBatch, false, false, true),
        (AccountState::ExpiredPendingUpdate, false, false, true),
    ];
    for (state, renew, withdraw, close) in states {
        let mut account = Account { state, ..account(AccountVersion::V0) };
        if state == AccountState::Expired {
            account.terms.expiry = BEST;
        }
        let change = TermsChange::default();
        assert_eq!(renewed(&account, change).is_ok(), renew, "{state:?}");
        let withdrawn = Modification::withdraw(&account, &[pays(200_000)], change, RATE, BEST);
        assert_eq!(withdrawn.is_ok(), withdraw, "{state:?}");
        let deposited = Deposit::new(&account, Sats::constant(1), change, RATE, Sats::MAX, BEST);
        assert_eq!(deposited.is_ok(), withdraw, "{state:?}");
        assert_eq!(Modification::close(&account, p2wkh(1), RATE, BEST).is_ok(), close, "{state:?}");
    }
}

#[test]
fn past_its_expiry_an_account_is_renewed_or_closed_only() {
    let (account, change) = (account(AccountVersion::V2), TermsChange::default());
    let best = account.terms.expiry;
    let expired = ModificationError::Expired { expiry: best, best };
    let withdrawn = Modification::withdraw(&account, &[pays(200_000)], change, RATE, best).map(drop);
    assert_eq!(withdrawn, Err(expired.clone()));
    assert_eq!(Deposit::new(&account, Sats::constant(1), change, RATE, Sats::MAX, best).map(drop), Err(expired));
    assert!(Modification::renew(&account, change, RATE, best).is_ok());
    let closed = Modification::close_to_outputs(&account, vec![pays(900_000)], best).unwrap();
    assert_eq!((closed.path, closed.transaction.lock_time.to_consensus_u32()), (ClosePath::Expiry(best), best.get()));
    let earlier = BlockHeight::new(best.get() - 1);
    let closed = Modification::close_to_outputs(&account, vec![pays(900_000)], earlier).unwrap();
    assert_eq!((closed.path, closed.fee.get()), (ClosePath::Cooperative, 100_000));
    assert_eq!((closed.new_params(), closed.after.value), (None, Sats::ZERO));
    // Once expired, an account is closed alone, even where the chain went back a block.
    let expired = Account { state: AccountState::Expired, ..account.clone() };
    let closed = Modification::close_to_outputs(&expired, vec![pays(900_000)], earlier).map(drop);
    assert_eq!(closed, Err(SpendError::NotExpired { expiry: best, best: earlier }.into()));
}

#[test]
fn an_account_never_holds_less_than_the_minimum_nor_more_than_the_maximum() {
    let (account, change) = (account(AccountVersion::V0), TermsChange::default());
    let withdraw = |sat| Modification::withdraw(&account, &[pays(sat)], change, SatPerKw::FLOOR, BEST);
    let most = withdraw(899_000).map(|built| built.after.value.get() - 100_000).unwrap() + 899_000;
    assert_eq!(withdraw(most).map(|built| built.after.value), Ok(MIN_ACCOUNT_VALUE));
    let below = SpendError::BelowMinimum { value: Sats::constant(99_999), limit: MIN_ACCOUNT_VALUE };
    assert_eq!(withdraw(most + 1).map(drop), Err(below.into()));
    assert_eq!(withdraw(1_000_000).map(drop), Err(SpendError::Overspent.into()));
    assert_eq!(Modification::withdraw(&account, &[], change, RATE, BEST).map(drop), Err(ModificationError::Nothing));
    assert_eq!(Modification::close_to_outputs(&account, vec![], BEST).map(drop), Err(ModificationError::Nothing));
    let low = Modification::renew(&account, change, SatPerKw::new(252), BEST);
    assert!(matches!(low, Err(ModificationError::Spend(SpendError::FeeTooLow { .. }))));
    let deposit =
        |sat, rate| Deposit::new(&account, Sats::constant(sat), change, rate, Sats::constant(1_500_000), BEST);
    assert!(deposit(500_000, RATE).is_ok());
    let (limit, found) = (Sats::constant(1_500_000), Sats::constant(1_500_001));
    assert_eq!(deposit(500_001, RATE), Err(ModificationError::AboveMaximum { limit, found }));
    assert_eq!(deposit(0, RATE), Err(ModificationError::Nothing));
    let low = deposit(1, SatPerKw::new(252));
    assert!(matches!(low, Err(ModificationError::Spend(SpendError::FeeTooLow { .. }))));
}

/// What an honest wallet makes of a template: one coin, change behind the account's output.
fn funded(deposit: &Deposit) -> Psbt {
    let mut transaction = deposit.template().unsigned_tx;
    transaction.input.push(TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    });
    transaction.output.push(TxOut { value: Amount::from_sat(400_000), script_pubkey: p2wkh(8) });
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    psbt.inputs[0].witness_utxo = Some(TxOut { value: Amount::from_sat(1_000_000), script_pubkey: p2wkh(7) });
    psbt
}

fn deposit() -> Deposit {
    let (account, amount) = (account(AccountVersion::V2), Sats::constant(500_000));
    Deposit::new(&account, amount, TermsChange::default(), RATE, Sats::MAX, BEST).unwrap()
}

#[test]
fn a_deposit_keeps_the_wallets_change_and_sorts_and_silences_the_inputs() {
    let built = deposit().complete(funded(&deposit()), Some(1)).unwrap();
    assert_eq!(built.after.value, Sats::constant(1_500_000));
    assert_eq!(built.new_outputs(), [TxOut { value: Amount::from_sat(400_000), script_pubkey: p2wkh(8) }]);
    assert!(built.transaction.input.iter().all(|input| input.sequence == Sequence::ZERO));
    assert_eq!(built.fee, Sats::constant(100_000));
    assert_eq!(built.own_input(), 0);
    assert_eq!(built.prev_outputs().unwrap()[0], built.before.terms.output(built.before.value).unwrap());
}

#[test]
fn a_wallet_that_does_something_else_is_refused() {
    type Change = fn(&mut Psbt);
    let rows: [(&str, Option<usize>, Change); 13] = [
        ("neither ours nor change", None, |_| {}),
        ("neither ours nor change", Some(0), |_| {}),
        ("change does not exist", Some(2), |psbt| drop(psbt.unsigned_tx.output.pop())),
        ("not paid exactly once", Some(1), |psbt| psbt.unsigned_tx.output.push(psbt.unsigned_tx.output[0].clone())),
        ("not paid exactly once", Some(0), |psbt| drop(psbt.unsigned_tx.output.remove(0))),
        ("neither ours nor change", Some(1), |psbt| psbt.unsigned_tx.output[0].value += Amount::ONE_SAT),
        ("not paid exactly once", Some(1), |psbt| {
            psbt.unsigned_tx.output[1].script_pubkey = psbt.unsigned_tx.output[0].script_pubkey.clone();
        }),
        ("no inputs", Some(1), |psbt| psbt.unsigned_tx.input.clear()),
        ("no inputs", Some(1), |psbt| {
            psbt.unsigned_tx.input.clear();
            psbt.inputs.clear();
        }),
        ("no inputs", Some(1), |psbt| psbt.inputs.push(psbt.inputs[0].clone())),
        ("spends the account", Some(1), |psbt| {
            psbt.unsigned_tx.input[0].previous_output = account(AccountVersion::V2).outpoint.unwrap();
        }),
        ("not described", Some(1), |psbt| psbt.inputs[0].witness_utxo = None),
        ("a coin is another", Some(1), |psbt| {
            psbt.inputs[0].non_witness_utxo = Some(psbt.unsigned_tx.clone());
        }),
    ];
    for (expected, change, spoil) in rows {
        let mut psbt = funded(&deposit());
        spoil(&mut psbt);
        let refused = deposit().complete(psbt, change).unwrap_err();
        let ModificationError::Funding(reason) = refused else { panic!("{expected}: {refused}") };
        assert!(reason.contains(expected), "{reason}, not {expected}");
    }
}

#[test]
fn a_coin_may_be_told_by_its_whole_transaction() {
    let told = |spoil: fn(&mut psbt::Input)| {
        let mut psbt = funded(&deposit());
        let coin = psbt.inputs[0].witness_utxo.clone().unwrap();
        let whole = Transaction { output: vec![coin], ..psbt.unsigned_tx.clone() };
        psbt.unsigned_tx.input[0].previous_output = OutPoint { txid: whole.compute_txid(), vout: 0 };
        psbt.inputs[0].non_witness_utxo = Some(whole);
        spoil(&mut psbt.inputs[0]);
        deposit().complete(psbt, Some(1)).map(|built| built.others[0].prev_output.value.to_sat())
    };
    assert_eq!(told(|_| {}), Ok(1_000_000));
    assert_eq!(told(|known| known.witness_utxo = None), Ok(1_000_000));
    let two = told(|known| known.witness_utxo.as_mut().unwrap().value += Amount::ONE_SAT);
    assert_eq!(two, Err(ModificationError::Funding("a coin has two values")));
}

#[test]
fn only_coins_whose_size_is_known_are_taken() {
    let with = |script: ScriptBuf, redeem: Option<ScriptBuf>| {
        let mut psbt = funded(&deposit());
        psbt.inputs[0].witness_utxo.as_mut().unwrap().script_pubkey = script;
        psbt.inputs[0].redeem_script = redeem;
        deposit().complete(psbt, Some(1)).map(|built| built.new_inputs()[0].1.clone())
    };
    let nested = p2wkh(5);
    let pushed =
        bitcoin::script::Builder::new().push_slice(<&bitcoin::script::PushBytes>::try_from(nested.as_bytes()).unwrap());
    assert_eq!(with(nested.to_p2sh(), Some(nested.clone())), Ok(pushed.into_script()));
    let unknown = Err(ModificationError::Spend(SpendError::UnknownInput));
    assert_eq!(with(nested.to_p2sh(), None), unknown);
    assert_eq!(with(nested.to_p2sh(), Some(p2wkh(6))), unknown);
    assert_eq!(with(nested.to_p2wsh(), None), unknown);
    let script = ScriptBuf::from_bytes(vec![0x51]);
    assert_eq!(with(script.to_p2sh(), Some(script)), unknown);
}
