//! Closing an account: with the venue's half of the signature, or alone once it is expired.
//!
//! The closing transaction is complete and checked before it is stored, and stored before it is published; from then on
//! it is published until the chain knows it.

use crate::accounts::{self, Note};
use crate::book::{Book, StagedBatch, Standing, Update};
use crate::config::CloseAccount;
use crate::desk::Desk;
use crate::error::CloseError;
use crate::machine::{AccountEvent, next};
use crate::orders;
use crate::pending;
use crate::receipt::{Receipt, release_close};
use crate::staging::expired_orders;
use bitcoin::secp256k1::schnorr::Signature as SchnorrSignature;
use bitcoin::secp256k1::{Message, Scalar, Secp256k1, XOnlyPublicKey};
use bitcoin::{Transaction, TxOut, Txid, Witness};
use tidegate_ports::{
    AddressKind, Chain, ModifyAccount, ModifySignature, Musig2Request, ScriptSpend, SessionId, SignInput, Signer,
    TraderEnv, VenueLink, Wallet,
};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::{AccountKey, KeyDescriptor};
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce};
use tidegate_protocol::script::{key_spend_sighash, segwit_v0_sighash};
use tidegate_protocol::spend::{ClosePath, close_to_script};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// Closes an account.
///
/// # Errors
/// [`CloseError`] by variant. Once the close is stored the answer is its transaction, also when publishing has to be
/// repeated.
///
/// # Source
/// Protocol notes, accounts §7.
pub(crate) async fn close<E: TraderEnv>(env: &E, desk: &Desk, request: CloseAccount) -> Result<Txid, CloseError> {
    let account = desk.account(request.account).ok_or(CloseError::Unknown(request.account))?;
    if next(account.state, AccountEvent::CloseRequested).state(account.state).is_none() {
        return Err(CloseError::State(account.state));
    }
    if let Some(rate) = request.fee_rate.filter(|rate| *rate < SatPerKw::FLOOR) {
        return Err(CloseError::FeeRate(rate));
    }
    let best = env.chain().best_height().await?;
    let path = path(&account, best);
    if path == ClosePath::Cooperative {
        check_quiet(env, desk, account.key()).await?;
    }
    let rate = accounts::rate_or_estimate(env, desk, request.fee_rate).await?;
    let to = match request.to {
        Some(script) => script,
        None => env.wallet().new_address(address_kind(account.terms.version)).await?,
    };
    let unsigned = close_to_script(&account, to, rate, path)?;
    let transaction = signed(env, &account, unsigned, path).await?;
    let receipt = store(desk, &account, &transaction, best).await?;
    publish(env, &account, transaction, path, &receipt).await
}

fn path(account: &Account, best: BlockHeight) -> ClosePath {
    let expired = account.state == AccountState::Expired || best >= account.terms.expiry;
    if expired { ClosePath::Expiry(best) } else { ClosePath::Cooperative }
}

fn address_kind(version: AccountVersion) -> AddressKind {
    match version {
        AccountVersion::V0 => AddressKind::WitnessPubkeyHash,
        AccountVersion::V1 | AccountVersion::V2 => AddressKind::Taproot,
    }
}

/// No order of the account is active, neither here nor at the venue, and no signed batch that spends it is final.
async fn check_quiet<E: TraderEnv>(env: &E, desk: &Desk, key: AccountKey) -> Result<(), CloseError> {
    let active: Vec<_> = desk.read(|book| book.active_orders(key).map(|own| own.order.nonce).collect());
    for nonce in active {
        orders::reconcile(env, desk, nonce).await?;
    }
    let in_batch = || desk.read(|book| book.active_stage(key).is_some());
    match desk.read(|book| book.active_orders(key).count()) {
        0 if in_batch() => {
            // The venue may have decided meanwhile: then the next attempt finds the account as it is by then. As long as
            // it has not, its half of a close says that it gave the round up: it refuses while the round goes on.
            pending::resolve(env, desk).await?;
            if in_batch() { Ok(()) } else { Err(CloseError::InBatch) }
        }
        0 => Ok(()),
        count => Err(CloseError::ActiveOrders(count)),
    }
}

/// The transaction with its witness, which was checked.
async fn signed<E: TraderEnv>(
    env: &E,
    account: &Account,
    unsigned: Transaction,
    path: ClosePath,
) -> Result<Transaction, CloseError> {
    let spent = account.terms.output(account.value)?;
    let witness = match (path, account.terms.version) {
        (ClosePath::Expiry(_), _) => by_expiry(env, account, &unsigned, spent).await?,
        (ClosePath::Cooperative, AccountVersion::V0) => together_v0(env, account, &unsigned, spent).await?,
        (ClosePath::Cooperative, AccountVersion::V1) => {
            together_taproot(env, account, &unsigned, spent, Musig2Version::V040).await?
        }
        (ClosePath::Cooperative, AccountVersion::V2) => {
            together_taproot(env, account, &unsigned, spent, Musig2Version::V100Rc2).await?
        }
    };
    let mut transaction = unsigned;
    for input in &mut transaction.input {
        input.witness = witness.clone();
    }
    Ok(transaction)
}

fn sign_request(account: &Account, transaction: &Transaction, spent: TxOut, spend: ScriptSpend) -> SignInput {
    SignInput {
        transaction: transaction.clone(),
        input: 0,
        prev_outputs: vec![spent],
        key: KeyDescriptor { point: *account.key().point(), locator: account.locator },
        tweak: account.terms.trader_tweak(),
        spend,
    }
}

async fn by_expiry<E: TraderEnv>(
    env: &E,
    account: &Account,
    transaction: &Transaction,
    spent: TxOut,
) -> Result<Witness, CloseError> {
    let script = account.terms.inner_script()?;
    let spend = match account.terms.version {
        AccountVersion::V0 => ScriptSpend::SegwitV0 { script },
        AccountVersion::V1 | AccountVersion::V2 => ScriptSpend::Tapscript { leaf: script },
    };
    let signature = env.signer().sign_input(&sign_request(account, transaction, spent, spend)).await?;
    Ok(account.terms.expiry_witness(&signature)?)
}

fn modify_request(
    account: &Account,
    transaction: &Transaction,
    spent: TxOut,
    nonce: Option<PublicNonce>,
) -> ModifyAccount {
    ModifyAccount {
        account: account.key(),
        new_inputs: Vec::new(),
        new_outputs: transaction.output.clone(),
        new_params: None,
        trader_nonce: nonce,
        prev_outputs: vec![spent],
    }
}

async fn together_v0<E: TraderEnv>(
    env: &E,
    account: &Account,
    transaction: &Transaction,
    spent: TxOut,
) -> Result<Witness, CloseError> {
    const SIGHASH_ALL: u8 = 0x01;
    let answer = env.link().modify(&modify_request(account, transaction, spent.clone(), None)).await?;
    let theirs = match answer.signature.split_last() {
        Some((&SIGHASH_ALL, der)) => der.to_vec(),
        _ => return Err(CloseError::BadSignature),
    };
    verify_v0(account, transaction, &theirs)?;
    let script = account.terms.inner_script()?;
    let ours =
        env.signer().sign_input(&sign_request(account, transaction, spent, ScriptSpend::SegwitV0 { script })).await?;
    Ok(account.terms.cooperative_witness_v0(&theirs, &ours)?)
}

/// The venue's ECDSA half is valid: a close that the network refuses must not be stored.
fn verify_v0(account: &Account, transaction: &Transaction, der: &[u8]) -> Result<(), CloseError> {
    let bad = |_| CloseError::BadSignature;
    let secp = Secp256k1::verification_only();
    let script = account.terms.inner_script()?;
    let hash = segwit_v0_sighash(transaction, 0, account.value, &script).map_err(|_| CloseError::BadSignature)?;
    let tweak = Scalar::from_be_bytes(account.terms.auctioneer_tweak()?).map_err(|_| CloseError::BadSignature)?;
    let key = account.terms.auctioneer.point().add_exp_tweak(&secp, &tweak).map_err(bad)?;
    let signature = bitcoin::secp256k1::ecdsa::Signature::from_der(der).map_err(bad)?;
    secp.verify_ecdsa(&Message::from_digest(hash), &signature, &key).map_err(bad)
}

async fn together_taproot<E: TraderEnv>(
    env: &E,
    account: &Account,
    transaction: &Transaction,
    spent: TxOut,
    version: Musig2Version,
) -> Result<Witness, CloseError> {
    let request = Musig2Request {
        signer: account.locator,
        keys: [*account.terms.auctioneer.point(), *account.key().point()],
        version,
        merkle_root: account.terms.merkle_root()?,
        other_nonce: None,
    };
    let (session, nonce) = env.signer().musig2_begin(&request).await?;
    let combined = combine(env, account, transaction, &spent, session, nonce).await;
    if combined.is_err()
        && let Err(error) = env.signer().musig2_cleanup(session).await
    {
        tracing::debug!(%error, "the session was not cleaned up");
    }
    let signature = combined?;
    verify_taproot(transaction, &spent, &signature)?;
    Ok(Witness::from_slice(&[signature]))
}

async fn combine<E: TraderEnv>(
    env: &E,
    account: &Account,
    transaction: &Transaction,
    spent: &TxOut,
    session: SessionId,
    nonce: PublicNonce,
) -> Result<[u8; 64], CloseError> {
    let hash = key_spend_sighash(transaction, 0, std::slice::from_ref(spent)).map_err(|_| CloseError::BadSignature)?;
    let ModifySignature { signature, server_nonce } =
        env.link().modify(&modify_request(account, transaction, spent.clone(), Some(nonce))).await?;
    let theirs = <[u8; 32]>::try_from(signature.as_slice()).map_err(|_| CloseError::BadSignature)?;
    let their_nonce = server_nonce.ok_or(CloseError::BadSignature)?;
    env.signer().musig2_register(session, &their_nonce).await?;
    env.signer().musig2_sign(session, hash, false).await?;
    Ok(env.signer().musig2_combine(session, &PartialSignature(theirs)).await?)
}

/// The combined signature is valid for the output that is spent.
fn verify_taproot(transaction: &Transaction, spent: &TxOut, signature: &[u8; 64]) -> Result<(), CloseError> {
    let bad = |_| CloseError::BadSignature;
    let hash = key_spend_sighash(transaction, 0, std::slice::from_ref(spent)).map_err(|_| CloseError::BadSignature)?;
    let program = spent.script_pubkey.as_bytes().get(2..).unwrap_or_default();
    let key = XOnlyPublicKey::from_slice(program).map_err(bad)?;
    let signature = SchnorrSignature::from_slice(signature).map_err(bad)?;
    Secp256k1::verification_only().verify_schnorr(&signature, &Message::from_digest(hash), &key).map_err(bad)
}

/// Stores the close: value 0, closing, the signed transaction.
async fn store(
    desk: &Desk,
    account: &Account,
    transaction: &Transaction,
    best: BlockHeight,
) -> Result<Receipt, CloseError> {
    let (before, latest_tx) = (account.clone(), Some(transaction.clone()));
    let edit = move |book: &Book| {
        let key = before.key();
        let now = book.accounts.get(&key).ok_or(CloseError::Unknown(key))?;
        if (now.outpoint, now.value, now.terms) != (before.outpoint, before.value, before.terms) {
            return Err(CloseError::Changed);
        }
        let after = book.after(key, AccountEvent::CloseRequested).ok_or(CloseError::State(now.state))?;
        let mut updates =
            vec![Update::Account(Box::new(Account { value: Sats::ZERO, height_hint: best, latest_tx, ..after }))];
        updates.extend(overtaken(book, key));
        updates.extend(expired_orders(book, key));
        Ok((updates, ()))
    };
    let ((), receipt) = desk.commit(edit).await?;
    Ok(receipt)
}

/// A signed batch loses its place to the close. Its channels stay at the node: our signature is out, and only the chain
/// decides between the two.
fn overtaken(book: &Book, key: AccountKey) -> Option<Update> {
    let batch = book.active_stage(key)?;
    Some(Update::Stage(Box::new(StagedBatch { standing: Standing::Superseded, ..batch.clone() })))
}

async fn publish<E: TraderEnv>(
    env: &E,
    account: &Account,
    transaction: Transaction,
    path: ClosePath,
    receipt: &Receipt,
) -> Result<Txid, CloseError> {
    let paid: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
    let fee = Sats::new(paid).ok().and_then(|paid| account.value.checked_sub(paid));
    let released = release_close(receipt, account.key(), transaction)?;
    let txid = released.transaction().compute_txid();
    let note = Note::close(account, path != ClosePath::Cooperative, fee);
    let label = accounts::label(&note);
    match env.wallet().publish(released.transaction(), &label).await {
        Ok(()) => tracing::info!(account = %account.key(), %txid, "account close published"),
        // The close is stored: upkeep publishes it until the chain knows it.
        Err(error) => {
            tracing::warn!(account = %account.key(), %txid, %error, "the close is stored, but not published yet")
        }
    }
    Ok(txid)
}
