//! Deposits, withdrawals, renewals, upgrades and closes: what is signed, and what the chain makes of it.

use super::bench::{Bench, ready};
use super::trader::TestTrader;
use crate::changes::{Seen, seen};
use crate::{ServeClass, ServeError, TickReason, VenueAccountState};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use tidegate_ports::{
    AddressKind, ClientMessage, ModifyAccount, ModifySignature, Musig2Request, RecoveredAccount, RecoveredState,
    ScriptSpend, ServerMessage, SessionId, SignInput, Signer, Submission, TraderEvent, TraderId, Wallet,
};
use tidegate_protocol::account::{AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::order::{AskTerms, OrderSide, OrderState};
use tidegate_protocol::script::{SpendKind, find_output, key_spend_sighash};
use tidegate_protocol::spend::{ClosePath, SpendError, WalletInput, spend_to_outputs};
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

/// A change as a client asks for it.
#[derive(Clone, Default)]
pub(super) struct Wish {
    /// Coins that pay into the account, with the key of each.
    pub(super) coins: Vec<(WalletInput, SecretKey)>,
    pub(super) outputs: Vec<TxOut>,
    /// Value, expiry, version; nothing closes.
    pub(super) params: Option<(Sats, BlockHeight, AccountVersion)>,
}

/// A change with both halves of its signature.
pub(super) struct Changed {
    pub(super) transaction: Transaction,
    /// The account that it makes.
    pub(super) terms: AccountTerms,
    pub(super) value: Sats,
}

/// The request, the transaction and the outputs that it spends, as the client reckons them.
fn request(trader: &TestTrader, wish: &Wish, nonce: Option<PublicNonce>) -> (ModifyAccount, Changed, Vec<TxOut>) {
    let account = &trader.account;
    let mut terms = account.terms;
    let mut outputs = wish.outputs.clone();
    let mut value = Sats::ZERO;
    if let Some((new, expiry, version)) = wish.params {
        terms = AccountTerms { expiry, version, ..terms.next().unwrap() };
        value = new;
        outputs.push(terms.output(new).unwrap());
    }
    let others: Vec<WalletInput> = wish.coins.iter().map(|(coin, _)| coin.clone()).collect();
    let transaction = spend_to_outputs(account, &others, outputs, ClosePath::Cooperative).unwrap();
    let own = account.terms.output(account.value).unwrap();
    let spent = |input: &bitcoin::TxIn| {
        let coin = others.iter().find(|coin| coin.outpoint == input.previous_output);
        coin.map_or_else(|| own.clone(), |coin| coin.prev_output.clone())
    };
    let prev_outputs: Vec<TxOut> = transaction.input.iter().map(spent).collect();
    let request = ModifyAccount {
        account: account.key(),
        new_inputs: others.iter().map(|coin| (coin.outpoint, coin.script_sig.clone())).collect(),
        new_outputs: wish.outputs.clone(),
        new_params: wish.params,
        trader_nonce: nonce,
        prev_outputs: prev_outputs.clone(),
    };
    (request, Changed { transaction, terms, value }, prev_outputs)
}

fn begin(trader: &TestTrader) -> Option<(SessionId, PublicNonce)> {
    let terms = &trader.account.terms;
    let version = terms.version.musig2()?;
    let request = Musig2Request {
        signer: trader.key.locator,
        keys: [trader.key.point, *terms.auctioneer.point()],
        version,
        merkle_root: terms.merkle_root().unwrap(),
        other_nonce: None,
    };
    Some(ready(trader.node.musig2_begin(&request)).unwrap())
}

/// Asks for the venue's half and adds the trader's.
pub(super) fn change(bench: &mut Bench, trader: &TestTrader, wish: &Wish) -> Result<Changed, ServeError> {
    let session = begin(trader);
    let (request, mut changed, spent) = request(trader, wish, session.map(|(_, nonce)| nonce));
    let answer = bench.call(bench.handle.clone().modify(trader.id, request))?;
    complete(trader, wish, &mut changed.transaction, &spent, session, answer);
    Ok(changed)
}

fn complete(
    trader: &TestTrader,
    wish: &Wish,
    transaction: &mut Transaction,
    spent: &[TxOut],
    session: Option<(SessionId, PublicNonce)>,
    ModifySignature { signature, server_nonce }: ModifySignature,
) {
    let account = &trader.account;
    let own = transaction.input.iter().position(|input| Some(input.previous_output) == account.outpoint).unwrap();
    let witness = match session {
        Some((session, _)) => {
            ready(trader.node.musig2_register(session, &server_nonce.unwrap())).unwrap();
            let message = key_spend_sighash(transaction, own, spent).unwrap();
            ready(trader.node.musig2_sign(session, message, false)).unwrap();
            let theirs = PartialSignature(signature.try_into().unwrap());
            Witness::from_slice(&[ready(trader.node.musig2_combine(session, &theirs)).unwrap()])
        }
        None => {
            let (sighash, theirs) = signature.split_last().unwrap();
            assert_eq!((*sighash, server_nonce), (1, None));
            let sign = SignInput {
                transaction: transaction.clone(),
                input: own,
                prev_outputs: spent.to_vec(),
                key: trader.key,
                tweak: account.terms.trader_tweak(),
                spend: ScriptSpend::SegwitV0 { script: account.terms.inner_script().unwrap() },
            };
            account.terms.cooperative_witness_v0(theirs, &ready(trader.node.sign_input(&sign)).unwrap()).unwrap()
        }
    };
    transaction.input[own].witness = witness;
    for (coin, key) in &wish.coins {
        let at = transaction.input.iter().position(|input| input.previous_output == coin.outpoint).unwrap();
        transaction.input[at].witness = coin_witness(transaction, at, coin.prev_output.value, key);
    }
}

fn program(key: &SecretKey) -> ScriptBuf {
    let point = CompressedPublicKey(PublicKey::from_secret_key(&Secp256k1::new(), key));
    ScriptBuf::new_p2wpkh(&point.wpubkey_hash())
}

fn coin_witness(transaction: &Transaction, at: usize, value: Amount, key: &SecretKey) -> Witness {
    let secp = Secp256k1::new();
    let mut cache = SighashCache::new(transaction);
    let hash = cache.p2wpkh_signature_hash(at, &program(key), value, EcdsaSighashType::All).unwrap();
    let signature = bitcoin::ecdsa::Signature::sighash_all(secp.sign_ecdsa(&Message::from(hash), key));
    Witness::p2wpkh(&signature, &PublicKey::from_secret_key(&secp, key))
}

/// A coin of the trader's own, native or nested.
fn coin(bench: &Bench, number: u8, value: u64, nested: bool) -> (WalletInput, SecretKey) {
    let key = SecretKey::from_slice(&[number; 32]).unwrap();
    let native = program(&key);
    let mut script_sig = ScriptBuf::new();
    let mut script = native.clone();
    if nested {
        script = native.to_p2sh();
        script_sig = ScriptBuf::from_bytes([&[22], native.as_bytes()].concat());
    }
    let value = Sats::new(value).unwrap();
    let outpoint = bench.world.pay(script.clone(), value).unwrap();
    let prev_output = TxOut { value: value.into(), script_pubkey: script };
    (WalletInput { outpoint, prev_output, script_sig }, key)
}

pub(super) fn pay_out(trader: &TestTrader, value: u64) -> TxOut {
    let script_pubkey = ready(trader.node.new_address(AddressKind::Taproot)).unwrap();
    TxOut { value: Amount::from_sat(value), script_pubkey }
}

impl TestTrader {
    /// The account as the published change leaves it.
    fn adopt(&mut self, changed: &Changed) {
        let vout = find_output(&changed.transaction, &changed.terms.output_script().unwrap()).unwrap();
        self.account.outpoint = Some(OutPoint { txid: changed.transaction.compute_txid(), vout });
        self.account.terms = changed.terms;
        self.account.value = changed.value;
        self.account.state = AccountState::Open;
    }
}

fn state(bench: &mut Bench) -> VenueAccountState {
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!(status.accounts.len(), 1);
    *status.accounts.keys().next().unwrap()
}

fn withdrawal(trader: &TestTrader, amount: u64) -> Wish {
    let account = &trader.account;
    let rest = account.value.get() - amount - 1000;
    let terms = &account.terms;
    Wish {
        outputs: vec![pay_out(trader, amount)],
        params: Some((Sats::new(rest).unwrap(), terms.expiry, terms.version)),
        ..Wish::default()
    }
}

#[test]
fn an_account_is_changed_in_every_way_and_upgraded_to_every_later_version() {
    use AccountVersion::{V0, V1, V2};
    for (from, to) in [(V0, V0), (V0, V1), (V0, V2), (V1, V1), (V1, V2), (V2, V2)] {
        let mut bench = Bench::new();
        let mut trader = bench.trader("trader", from, 500_000);
        let late = bench.world.height().checked_add(BlockCount::new(3000)).unwrap();
        let (expiry, value) = (trader.account.terms.expiry, trader.account.value.get());
        let coins = vec![coin(&bench, 1, 60_000, false), coin(&bench, 2, 50_000, true)];
        let sats = |value| Sats::new(value).unwrap();
        // Deposit together with a renewal; withdrawal; upgrade with a renewal.
        let wishes = [
            Wish { coins, outputs: vec![pay_out(&trader, 8_000)], params: Some((sats(value + 100_000), late, from)) },
            Wish {
                outputs: vec![pay_out(&trader, 250_000)],
                params: Some((sats(value + 100_000 - 251_000), expiry, from)),
                ..Wish::default()
            },
            Wish { params: Some((sats(value + 100_000 - 252_000), late, to)), ..Wish::default() },
        ];
        for (number, wish) in wishes.iter().enumerate() {
            let changed = change(&mut bench, &trader, wish).unwrap();
            assert_eq!(state(&mut bench), VenueAccountState::Open, "signed is not published");
            bench.world.publish(&changed.transaction).expect("the chain accepts the change");
            bench.mine(1);
            assert_eq!(state(&mut bench), VenueAccountState::PendingUpdate, "{from:?} {to:?} {number}");
            trader.adopt(&changed);
            bench.mine(2);
            assert_eq!(state(&mut bench), VenueAccountState::Open, "{from:?} {to:?} {number}: three confirmations");
        }
        assert_eq!((trader.account.terms.version, trader.account.terms.expiry), (to, late));
        // What the venue thinks of the account shows in a batch.
        let mut seller = bench.trader("seller", V2, 5_000_000);
        seller.ask(&mut bench, 500, 1);
        trader.bid(&mut bench, 1000, 1);
        assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::Cleared, "{from:?} {to:?}");
    }
}

#[test]
fn a_change_that_is_never_published_keeps_the_account_out_of_batches_until_another_is_seen() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 1_000_000);
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    seller.ask(&mut bench, 500, 2);
    trader.bid(&mut bench, 1000, 2);
    change(&mut bench, &trader, &withdrawal(&trader, 100_000)).unwrap();
    // Signed: it may be published at any moment, so nothing else may spend the output; a restart forgets nothing.
    assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::NoMatch);
    bench.restart();
    trader.subscribe(&mut bench);
    seller.subscribe(&mut bench);
    assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::NoMatch);
    // The owner lost it and asks for another one.
    let second = change(&mut bench, &trader, &withdrawal(&trader, 120_000)).unwrap();
    bench.world.publish(&second.transaction).unwrap();
    bench.mine(2);
    assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::NoMatch, "unconfirmed");
    bench.mine(1);
    trader.adopt(&second);
    assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::Cleared);
}

#[test]
fn a_change_that_a_reorganisation_undoes_comes_back() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 1_000_000);
    let first = change(&mut bench, &trader, &withdrawal(&trader, 100_000)).unwrap();
    change(&mut bench, &trader, &withdrawal(&trader, 120_000)).unwrap();
    bench.world.publish(&first.transaction).unwrap();
    bench.mine(1);
    assert_eq!(state(&mut bench), VenueAccountState::PendingUpdate);
    bench.world.reorganise(1, 2);
    bench.pump();
    assert_eq!(state(&mut bench), VenueAccountState::PendingUpdate);
    bench.mine(3);
    trader.adopt(&first);
    assert_eq!(state(&mut bench), VenueAccountState::Open);
    assert!(bench.world.utxo(trader.account.outpoint.unwrap()).is_some());
}

#[test]
fn of_several_signed_changes_the_one_in_the_block_counts() {
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V2, 1_000_000);
    let withdrawn = [100_000, 120_000].map(|amount| change(&mut bench, &trader, &withdrawal(&trader, amount)).unwrap());
    let close = Wish { outputs: vec![pay_out(&trader, 999_000)], ..Wish::default() };
    let closed = change(&mut bench, &trader, &close).unwrap();
    // The record as it is stored, and as it is once the first change was seen in a block.
    let signed = bench.stored_account(trader.account.key());
    bench.world.publish(&withdrawn[0].transaction).unwrap();
    bench.mine(1);
    let changed = bench.stored_account(trader.account.key());
    let after = |number: usize| Some(Seen::Changed(Box::new(signed.changes[number].after.unwrap())));
    let mut expired = closed.transaction.clone();
    expired.input[0].witness =
        Witness::from_slice(&[&[1; 64][..], &[&[0x20][..], &[7; 36], &[0xb1]].concat(), &[0xc0; 33]]);
    let mut foreign = closed.transaction.clone();
    foreign.output[0].value = Amount::from_sat(1);
    let rows = [
        ("the first", &signed, &withdrawn[0].transaction, after(0)),
        ("the second", &signed, &withdrawn[1].transaction, after(1)),
        ("the close", &signed, &closed.transaction, Some(Seen::Ended(SpendKind::Cooperative))),
        ("the owner alone", &signed, &expired, Some(Seen::Ended(SpendKind::Expiry))),
        ("one that was never signed", &signed, &foreign, Some(Seen::Ended(SpendKind::Cooperative))),
        ("told again", &changed, &withdrawn[0].transaction, None),
        ("another after a reorganisation", &changed, &withdrawn[1].transaction, after(1)),
        ("the close after a reorganisation", &changed, &closed.transaction, Some(Seen::Ended(SpendKind::Cooperative))),
    ];
    for (name, record, transaction, expected) in rows {
        assert_eq!(seen(record, transaction), expected, "{name}");
    }
}

#[test]
fn a_repeated_request_gets_a_fresh_signature_of_the_same_change() {
    for version in [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2] {
        let mut bench = Bench::new();
        let trader = bench.trader("trader", version, 1_000_000);
        let wish = withdrawal(&trader, 100_000);
        let nonces = [begin(&trader), begin(&trader)].map(|session| session.map(|(_, nonce)| nonce));
        let answers = nonces.map(|nonce| {
            let (request, _, _) = request(&trader, &wish, nonce);
            bench.call(bench.handle.clone().modify(trader.id, request)).unwrap()
        });
        if version != AccountVersion::V0 {
            assert_ne!(answers[0].server_nonce, answers[1].server_nonce, "a nonce signs once");
        }
        let last = change(&mut bench, &trader, &wish).unwrap();
        bench.world.publish(&last.transaction).unwrap();
        bench.mine(3);
        assert_eq!(state(&mut bench), VenueAccountState::Open);
    }
}

#[test]
fn a_close_may_spend_a_change_that_the_venue_has_not_seen_yet() {
    for version in [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2] {
        let mut bench = Bench::new();
        let mut trader = bench.trader("trader", version, 1_000_000);
        let first = change(&mut bench, &trader, &withdrawal(&trader, 100_000)).unwrap();
        bench.world.publish(&first.transaction).unwrap();
        trader.adopt(&first);
        let close = Wish { outputs: vec![pay_out(&trader, trader.account.value.get() - 1000)], ..Wish::default() };
        let close = change(&mut bench, &trader, &close).unwrap();
        bench.world.publish(&close.transaction).unwrap();
        bench.mine(3);
        bench.mine(1);
        assert_eq!(state(&mut bench), VenueAccountState::Closed, "{version:?}");
    }
}

#[test]
fn an_expired_account_is_renewed_but_not_left_expired() {
    for version in [AccountVersion::V0, AccountVersion::V2] {
        let mut bench = Bench::new();
        let mut trader = bench.trader("trader", version, 1_000_000);
        bench.world.mine(2000);
        bench.mine(1);
        for _ in 0..100 {
            bench.pump();
        }
        assert_eq!(state(&mut bench), VenueAccountState::Expired);
        let (height, terms) = (bench.world.height(), trader.account.terms);
        let value = Sats::constant(999_000);
        let renewal = |expiry| Wish { params: Some((value, expiry, version)), ..Wish::default() };
        for bad in [terms.expiry, height, height.checked_add(BlockCount::new(143)).unwrap()] {
            let refused = change(&mut bench, &trader, &renewal(bad)).err().unwrap();
            assert!(matches!(refused, ServeError::AccountExpiry { .. }), "{refused}");
        }
        let late = height.checked_add(BlockCount::new(144)).unwrap();
        let changed = change(&mut bench, &trader, &renewal(late)).unwrap();
        bench.world.publish(&changed.transaction).unwrap();
        bench.mine(3);
        trader.adopt(&changed);
        assert_eq!(state(&mut bench), VenueAccountState::Open);
        bench.mine(144);
        for _ in 0..10 {
            bench.pump();
        }
        assert_eq!(state(&mut bench), VenueAccountState::Expired, "the new expiry counts");
    }
}

#[test]
fn a_change_beyond_the_limits_is_refused() {
    type Refusal = fn(&ServeError) -> bool;
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V1, 1_000_000);
    let terms = trader.account.terms;
    let ask = trader.ask(&mut bench, 500, 3);
    let height = bench.world.height();
    let later = |blocks| height.checked_add(BlockCount::new(blocks)).unwrap();
    let params = |value, expiry, version| Wish {
        params: Some((Sats::new(value).unwrap(), expiry, version)),
        outputs: Vec::new(),
        coins: Vec::new(),
    };
    let rich = coin(&bench, 9, 2_000_000_000, false);
    let large = Wish { coins: vec![rich], ..params(1_000_000_001, terms.expiry, AccountVersion::V1) };
    let rows: [(&str, Wish, Refusal); 6] = [
        ("too large", large, |e| matches!(e, ServeError::AccountValue { .. })),
        ("too small", params(99_999, terms.expiry, AccountVersion::V1), |e| {
            matches!(e, ServeError::AccountValue { .. })
        }),
        ("reserved by orders", params(300_000, terms.expiry, AccountVersion::V1), |e| {
            matches!(e, ServeError::ValueReserved { .. })
        }),
        ("too soon", params(990_000, later(143), AccountVersion::V1), |e| {
            matches!(e, ServeError::AccountExpiry { .. })
        }),
        ("too late", params(990_000, later(52_561), AccountVersion::V1), |e| {
            matches!(e, ServeError::AccountExpiry { .. })
        }),
        (
            "a close in the presence of orders",
            Wish { outputs: vec![pay_out(&trader, 990_000)], ..Wish::default() },
            |e| matches!(e, ServeError::OrdersOpen(_)),
        ),
    ];
    for (name, wish, expected) in rows {
        let refused = change(&mut bench, &trader, &wish).err().unwrap();
        assert!(expected(&refused), "{name}: {refused}");
    }
    let small = params(315_000, terms.expiry, AccountVersion::V1);
    let needed = change(&mut bench, &trader, &small);
    assert!(needed.is_ok(), "what the orders reserve may remain: {:?}", needed.err());
    // A withdrawal that is signed counts against the next order, whether it is published or not.
    let (more, _) = trader.order(500, 1, OrderSide::Ask(AskTerms::default()));
    let answer = bench.call(bench.handle.clone().submit(more)).unwrap();
    assert!(matches!(answer, Submission::Invalid { .. }), "{answer:?}");
    bench.call(bench.handle.clone().cancel(trader.preimages[&ask])).unwrap();
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    type Spoil = fn(&mut ModifyAccount);
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let terms = trader.account.terms;
    let coins = vec![coin(&bench, 1, 60_000, false), coin(&bench, 2, 50_000, true)];
    let value = Sats::constant(600_000);
    let wish = Wish { coins, outputs: Vec::new(), params: Some((value, terms.expiry, terms.version)) };
    let (good, _, _) = request(&trader, &wish, begin(&trader).map(|(_, nonce)| nonce));
    let handle = bench.handle.clone();
    let rows: [(&str, Spoil); 13] = [
        ("scripts without end", |r| {
            let script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 9_000]);
            r.new_outputs = vec![TxOut { value: Amount::from_sat(30_000), script_pubkey }; 3];
            r.new_params.as_mut().unwrap().0 = Sats::constant(480_000);
        }),
        ("no nonces", |r| r.trader_nonce = None),
        ("no previous outputs", |r| r.prev_outputs.clear()),
        ("one previous output too few", |r| drop(r.prev_outputs.pop())),
        ("one previous output too many", |r| r.prev_outputs.push(r.prev_outputs[0].clone())),
        ("an input twice", |r| r.new_inputs.push(r.new_inputs[0].clone())),
        ("another account output", |r| {
            for output in r.prev_outputs.iter_mut().filter(|output| output.value.to_sat() == 500_000) {
                output.value = Amount::from_sat(500_001);
            }
        }),
        ("a signature script without need", |r| {
            for (_, script) in &mut r.new_inputs {
                *script = ScriptBuf::from_bytes(vec![0x51]);
            }
        }),
        ("a nested input without its script", |r| {
            for (_, script) in &mut r.new_inputs {
                *script = ScriptBuf::new();
            }
        }),
        ("an output below dust", |r| {
            let script_pubkey = r.prev_outputs[0].script_pubkey.clone();
            r.new_outputs = vec![TxOut { value: Amount::from_sat(100), script_pubkey }];
        }),
        ("outputs above the inputs", |r| r.new_params.as_mut().unwrap().0 = Sats::constant(700_000)),
        ("a fee below the floor", |r| r.new_params.as_mut().unwrap().0 = Sats::constant(609_990)),
        ("a lower version", |r| r.new_params.as_mut().unwrap().2 = AccountVersion::V1),
    ];
    for (name, spoil) in rows {
        let mut request = good.clone();
        spoil(&mut request);
        let refused = bench.call(handle.modify(trader.id, request)).unwrap_err();
        assert_eq!(refused.class(), ServeClass::InvalidArgument, "{name}: {refused}");
    }
    let mut twice = good.clone();
    let next = AccountTerms { ..terms.next().unwrap() };
    twice.new_outputs = vec![next.output(Sats::constant(1_000)).unwrap()];
    let paid_twice = ServeError::PrevOutputs("the new account is paid twice");
    assert_eq!(bench.call(handle.modify(trader.id, twice)), Err(paid_twice));
    let mut close = good.clone();
    close.new_params = None;
    let with_inputs = ServeError::PrevOutputs("a close takes no further inputs");
    assert_eq!(bench.call(handle.modify(trader.id, close)), Err(with_inputs));
    let mut foreign = good.clone();
    foreign.new_inputs[0].0 = OutPoint { txid: Hash::from_byte_array([0xff; 32]), vout: 0 };
    foreign.new_inputs.truncate(1);
    let own = terms.output(trader.account.value).unwrap();
    let strange = TxOut { script_pubkey: ScriptBuf::from_bytes([&[0, 32], &[5; 32][..]].concat()), ..own.clone() };
    foreign.prev_outputs = vec![own, strange];
    let unknown = bench.call(handle.modify(trader.id, foreign)).unwrap_err();
    assert_eq!(unknown, ServeError::Spend(SpendError::UnknownInput));
    assert!(bench.call(handle.modify(trader.id, good)).is_ok());
}

#[test]
fn zero_among_the_new_numbers_means_unchanged() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let terms = trader.account.terms;
    let wish = Wish { params: Some((Sats::constant(499_000), terms.expiry, terms.version)), ..Wish::default() };
    let session = begin(&trader);
    let (mut wanted, mut changed, spent) = request(&trader, &wish, session.map(|(_, nonce)| nonce));
    wanted.new_params = Some((Sats::constant(499_000), BlockHeight::new(0), AccountVersion::V0));
    let answer = bench.call(bench.handle.clone().modify(trader.id, wanted)).unwrap();
    complete(&trader, &wish, &mut changed.transaction, &spent, session, answer);
    bench.world.publish(&changed.transaction).expect("both build the same transaction");
    bench.mine(3);
    trader.adopt(&changed);
    assert_eq!(state(&mut bench), VenueAccountState::Open);
}

#[test]
fn an_account_of_the_batch_under_way_is_not_changed() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    let other = bench.trader("other", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    let busy = change(&mut bench, &buyer, &withdrawal(&buyer, 100_000)).err();
    assert_eq!(busy, Some(ServeError::AccountBusy(buyer.account.key())));
    assert!(busy.unwrap().to_string().starts_with("modification not allowed"));
    assert!(change(&mut bench, &other, &withdrawal(&other, 100_000)).is_ok(), "the others may");
    for _ in 0..6 {
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        bench.pump();
    }
    assert_eq!(bench.call(tick).unwrap().reason, TickReason::Cleared);
    // The batch is unconfirmed: only a close may spend its output outside of batches.
    let pending = change(&mut bench, &buyer, &withdrawal(&buyer, 100_000)).err();
    assert!(matches!(pending, Some(ServeError::AccountState { state: VenueAccountState::PendingBatch, .. })));
}

/// What the venue tells the owner of the account on its stream.
fn recovered(bench: &mut Bench, trader: &TestTrader) -> RecoveredAccount {
    trader.say(bench, ClientMessage::Recover { account: trader.account.key() });
    bench.pump();
    let Some(ServerMessage::Account(told)) = bench.read(trader.stream) else { panic!("no account") };
    *told
}

#[test]
fn an_owner_who_lost_everything_is_told_the_account_and_its_orders_end() {
    let mut bench = Bench::new();
    let mut trader = TestTrader::open_account(&mut bench, "trader", AccountVersion::V1, 1_000_000);
    trader.subscribe(&mut bench);
    let told = recovered(&mut bench, &trader);
    assert_eq!((told.state, told.latest_tx), (RecoveredState::PendingOpen, None));
    bench.mine(6);
    let ask = trader.ask(&mut bench, 500, 2);
    let told = recovered(&mut bench, &trader);
    let terms = trader.account.terms;
    assert_eq!((told.state, Some(told.outpoint)), (RecoveredState::Open, trader.account.outpoint));
    assert_eq!((told.reservation.value, told.reservation.expiry), (trader.account.value, terms.expiry));
    assert_eq!((told.reservation.version, told.keys.batch), (terms.version, terms.batch));
    assert_eq!(told.latest_tx.map(|tx| tx.compute_txid()), trader.account.outpoint.map(|outpoint| outpoint.txid));
    let state = bench.call(bench.handle.clone().order_state(ask)).unwrap().0;
    assert_eq!(state, OrderState::Canceled);
    // A change that is signed is told as pending, before and after it is seen.
    let changed = change(&mut bench, &trader, &withdrawal(&trader, 100_000)).unwrap();
    trader.adopt(&changed);
    for _ in 0..2 {
        let told = recovered(&mut bench, &trader);
        assert_eq!((told.state, Some(told.outpoint)), (RecoveredState::PendingUpdate, trader.account.outpoint));
        assert_eq!((told.reservation.value, told.keys.batch), (changed.value, changed.terms.batch));
        let latest = told.latest_tx.unwrap().compute_txid();
        assert_eq!(latest, changed.transaction.compute_txid());
        bench.world.publish(&changed.transaction).unwrap();
        bench.mine(1);
    }
    bench.mine(3);
    // A batch is part of the account's story, too.
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    seller.ask(&mut bench, 500, 1);
    trader.bid(&mut bench, 1000, 1);
    assert_eq!(bench.tick(&mut [&mut seller, &mut trader]).reason, TickReason::Cleared);
    trader.answer_all(&mut bench);
    let told = recovered(&mut bench, &trader);
    assert_eq!((told.state, Some(told.outpoint)), (RecoveredState::PendingBatch, trader.account.outpoint));
    assert_eq!(told.latest_tx.unwrap().compute_txid(), told.outpoint.txid);
}

#[test]
fn an_account_of_another_stream_is_not_told() {
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V2, 1_000_000);
    let stranger = bench.trader("stranger", AccountVersion::V2, 1_000_000);
    stranger.say(&mut bench, ClientMessage::Recover { account: trader.account.key() });
    bench.pump();
    assert!(bench.closed(stranger.stream).is_some());
    assert_eq!(bench.closed(trader.stream), None);
}

#[test]
fn an_expired_account_is_renewed_after_its_owner_came_back_with_another_token() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 1_000_000);
    bench.world.mine(2000);
    bench.mine(1);
    for _ in 0..100 {
        bench.pump();
    }
    bench.push(TraderEvent::Closed { trader: trader.id, stream: trader.stream });
    bench.pump();
    trader.id = TraderId([44; 32]);
    let late = bench.world.height().checked_add(BlockCount::new(200)).unwrap();
    let wish = Wish { params: Some((Sats::constant(999_000), late, AccountVersion::V2)), ..Wish::default() };
    let changed = change(&mut bench, &trader, &wish).unwrap();
    bench.world.publish(&changed.transaction).unwrap();
    bench.mine(3);
    assert_eq!(state(&mut bench), VenueAccountState::Open);
}
