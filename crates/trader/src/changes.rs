//! What the owner does to an account outside of batches: deposit, withdrawal, renewal; and raising the fee of what is
//! unconfirmed.
//!
//! The transaction is complete and checked before it is stored, and stored before it is published; from then on it is
//! published until the chain knows it. Until it is stored nothing of it exists outside of this process but the venue's
//! half and our nonces, so an attempt that fails, or is cut, leaves the account as it was. From then on only the chain
//! decides between it and whatever else we signed for the same output: the one before stays watched, and the account
//! as it was stays stored.

use crate::book::{Book, ChangeKind, OwnChange, StagedBatch, Standing, Update};
use crate::config::{BumpAccount, DepositAccount, Modified, RenewAccount, WithdrawAccount};
use crate::cosign;
use crate::desk::Desk;
use crate::error::{BumpError, ModifyError};
use crate::machine::AccountEvent;
use crate::orders;
use crate::pending;
use crate::receipt::{Receipt, release_change};
use crate::staging::expired_orders;
use bitcoin::psbt::{Input, Psbt};
use bitcoin::{Network, OutPoint, Transaction, Txid, Witness};
use tidegate_ports::{Bump, Chain, Clock, CoinLock, FundedPsbt, LinkError, TraderEnv, VenueLink, Wallet};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::label::Note;
use tidegate_protocol::modification::{Deposit, Modification, ModificationError, TermsChange};
use tidegate_protocol::psbt::PsbtError;
use tidegate_protocol::units::{BlockHeight, SatPerKw};

/// What a change begins with.
struct Begun {
    account: Account,
    best: BlockHeight,
    /// The signed batch that is not settled, if any: the venue's half says that it gave that batch up.
    round: Option<Txid>,
}

async fn begin<E: TraderEnv>(env: &E, desk: &Desk, key: AccountKey, fee_rate: SatPerKw) -> Result<Begun, ModifyError> {
    if fee_rate < SatPerKw::FLOOR {
        return Err(ModifyError::FeeRate(fee_rate));
    }
    desk.account(key).ok_or(ModifyError::Unknown(key))?;
    let round = match round(env, desk, key).await? {
        Round::Of(round) => round,
        Round::Settled => return Err(ModifyError::InBatch),
    };
    let account = desk.account(key).ok_or(ModifyError::Unknown(key))?;
    Ok(Begun { account, best: env.chain().best_height().await?, round })
}

/// The signed batch of an account that is not settled, once the venue had the chance to settle it. As long as the round
/// goes on the venue refuses its half of anything else; when it gives that half, it gave the round up.
pub(crate) enum Round {
    /// No batch, or this one.
    Of(Option<Txid>),
    /// The venue settled it just now: the account is another one.
    Settled,
}

/// # Errors
/// [`LinkError`] when the venue does not tell.
pub(crate) async fn round<E: TraderEnv>(env: &E, desk: &Desk, key: AccountKey) -> Result<Round, LinkError> {
    let active = || desk.read(|book| book.active_stage(key).map(StagedBatch::txid));
    if active().is_none() {
        return Ok(Round::Of(None));
    }
    pending::resolve(env, desk).await?;
    Ok(active().map_or(Round::Settled, |txid| Round::Of(Some(txid))))
}

/// The version that an account gets when its owner names none: the newest that the node signs for, never a lower one.
///
/// # Source
/// Protocol notes, accounts §6: modifications upgrade silently.
fn version(desk: &Desk, account: &Account, wanted: Option<AccountVersion>) -> AccountVersion {
    let spoken = desk.batch_version();
    let newest = match (spoken.upgrades_taproot_v2(), spoken.upgrades_taproot()) {
        (true, _) => AccountVersion::V2,
        (false, true) => AccountVersion::V1,
        (false, false) => AccountVersion::V0,
    };
    wanted.unwrap_or(newest.max(account.terms.version))
}

/// Adds money of the wallet to an account. Coins that the wallet kept are released when it does not come to pass.
///
/// # Errors
/// [`ModifyError`] by variant.
///
/// # Source
/// Protocol notes, accounts §6 "Deposit".
pub(crate) async fn deposit<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    request: DepositAccount,
) -> Result<Modified, ModifyError> {
    let begun = begin(env, desk, request.account, request.fee_rate).await?;
    let (account, best) = (&begun.account, begun.best);
    let terms = env.link().terms().await?;
    let maximum = terms.max_account_value;
    desk.note(|moment| moment.terms = Some(terms));
    let change = TermsChange { expiry: request.expiry, version: Some(version(desk, account, request.version)) };
    let deposit = Deposit::new(account, request.amount, change, request.fee_rate, maximum, best)?;
    let funded = env.wallet().fund_psbt(&deposit.template(), deposit.sat_per_vbyte()).await?;
    let FundedPsbt { psbt, change, locks } = funded;
    let completed = match deposit.complete(psbt, change) {
        Ok(change) => complete(env, desk, &begun, change, ChangeKind::Deposit).await,
        Err(error) => Err(error.into()),
    };
    if completed.is_err() {
        release(env, &locks).await;
    }
    completed
}

async fn release<E: TraderEnv>(env: &E, locks: &[CoinLock]) {
    for lock in locks {
        if let Err(error) = env.wallet().release(lock).await {
            // The wallet lets it go by itself after some minutes.
            tracing::warn!(coin = %lock.outpoint, %error, "a coin was not released");
        }
    }
}

/// Pays from an account.
///
/// # Errors
/// [`ModifyError`] by variant.
///
/// # Source
/// Protocol notes, accounts §6 "Withdraw".
pub(crate) async fn withdraw<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    request: WithdrawAccount,
) -> Result<Modified, ModifyError> {
    let begun = begin(env, desk, request.account, request.fee_rate).await?;
    let version = Some(version(desk, &begun.account, request.version));
    let change = TermsChange { expiry: request.expiry, version };
    let change = Modification::withdraw(&begun.account, &request.outputs, change, request.fee_rate, begun.best)?;
    complete(env, desk, &begun, change, ChangeKind::Withdraw).await
}

/// Moves the expiry of an account, also of an expired one.
///
/// # Errors
/// [`ModifyError`] by variant.
///
/// # Source
/// Protocol notes, accounts §6 "Renew".
pub(crate) async fn renew<E: TraderEnv>(env: &E, desk: &Desk, request: RenewAccount) -> Result<Modified, ModifyError> {
    let begun = begin(env, desk, request.account, request.fee_rate).await?;
    let version = Some(version(desk, &begun.account, request.version));
    let change = TermsChange { expiry: Some(request.expiry), version };
    let change = Modification::renew(&begun.account, change, request.fee_rate, begun.best)?;
    if begun.account.state == AccountState::Expired {
        orders::withdraw_expired(env, desk, request.account).await?;
    }
    complete(env, desk, &begun, change, ChangeKind::Renew).await
}

/// Signs, stores and publishes a change.
async fn complete<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    begun: &Begun,
    change: Modification,
    kind: ChangeKind,
) -> Result<Modified, ModifyError> {
    // Asked first so that nobody signs what is not stored; judged again when it is stored.
    desk.read(|book| covers_orders(book, &change.after))?;
    let witness = cosign::witness(env, &change).await?;
    let transaction = finished(env, desk, &change, witness).await?;
    let change = own_change(&change, transaction, kind, env.clock().now(), begun.best);
    let (stored, round) = (change.clone(), begun.round);
    let edit = move |book: &Book| store(book, stored, round).map(|updates| (updates, ()));
    let ((), receipt) = desk.commit(edit).await?;
    let txid = publish(env, desk, &change, &receipt).await?;
    Ok(Modified { account: change.after, txid })
}

/// The account that is left holds what its active orders could cost.
///
/// # Source
/// Protocol notes, auctioneer §4.5: the venue checks the same.
fn covers_orders(book: &Book, after: &Account) -> Result<(), ModifyError> {
    let (reserved, left) = (book.reserved(after)?, after.value);
    if reserved > left { Err(ModifyError::Reserved { reserved, left }) } else { Ok(()) }
}

/// The whole transaction with all witnesses; the wallet signs its own inputs.
async fn finished<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    change: &Modification,
    witness: Witness,
) -> Result<Transaction, ModifyError> {
    let own = change.own_input();
    if change.others.is_empty() {
        let mut transaction = change.transaction.clone();
        if let Some(input) = transaction.input.get_mut(own) {
            input.witness = witness;
        }
        return Ok(transaction);
    }
    let network = network(&desk.note(|moment| moment.node.as_ref().map(|node| node.network.clone())));
    let mut psbt: Psbt = change.psbt(network).map_err(unsignable)?;
    let input = psbt.inputs.get_mut(own).ok_or(ModifyError::BadTransaction("it has no input of the account"))?;
    // A finished input keeps what the signatures of the others commit to, and nothing else.
    *input = Input {
        witness_utxo: input.witness_utxo.take(),
        final_script_witness: Some(witness.clone()),
        ..Input::default()
    };
    let transaction = env.wallet().finalize_psbt(&psbt).await?;
    if transaction.compute_txid() != change.transaction.compute_txid() {
        return Err(ModifyError::BadTransaction("it is another one"));
    }
    if transaction.input.get(own).map(|input| &input.witness) != Some(&witness) {
        return Err(ModifyError::BadTransaction("the account's witness was changed"));
    }
    if transaction.input.iter().any(|input| input.witness.is_empty()) {
        return Err(ModifyError::BadTransaction("an input is not signed"));
    }
    Ok(transaction)
}

/// Only the network's kind of coin matters: it is part of the derivation paths of keys.
fn network(name: &Option<String>) -> Network {
    match name.as_deref() {
        Some("mainnet" | "bitcoin") => Network::Bitcoin,
        _ => Network::Regtest,
    }
}

fn unsignable(error: PsbtError) -> ModifyError {
    match error {
        PsbtError::Path(_) => ModifyError::BadTransaction("its key has no derivation path"),
        PsbtError::Key(error) => error.into(),
    }
}

/// What is stored of a change: the account before and after, the signed transaction, and what the wallet notes.
pub(crate) fn own_change(
    change: &Modification,
    transaction: Transaction,
    kind: ChangeKind,
    signed_at: tidegate_ports::Timestamp,
    height: BlockHeight,
) -> OwnChange {
    OwnChange {
        kind,
        before: change.before.clone(),
        label: Note::of(kind.action(), change).label(""),
        fee: change.fee,
        coins: change.others.iter().map(|coin| (coin.outpoint, coin.prev_output.script_pubkey.clone())).collect(),
        after: Account { latest_tx: Some(transaction), ..change.after.clone() },
        void: false,
        signed_at,
        height,
    }
}

/// A change that may not be stored: the book moved since it was begun.
pub(crate) enum NotStored {
    /// The account is another one by now.
    Changed,
    /// A batch was signed meanwhile.
    InBatch,
    /// The account's state does not allow it any more.
    State(AccountState),
}

/// The commit before a change is published: the account afterwards, and what reverts it. A signed batch loses its place.
///
/// # Errors
/// [`NotStored`] when the book moved.
pub(crate) fn storing(book: &Book, change: OwnChange, round: Option<Txid>) -> Result<Vec<Update>, NotStored> {
    let (key, before) = (change.after.key(), &change.before);
    let now = book.accounts.get(&key).ok_or(NotStored::Changed)?;
    if (now.outpoint, now.value, now.terms) != (before.outpoint, before.value, before.terms) {
        return Err(NotStored::Changed);
    }
    let event = match change.kind {
        ChangeKind::Deposit | ChangeKind::Withdraw => AccountEvent::Modified,
        ChangeKind::Renew => AccountEvent::Renewed,
        ChangeKind::Close => AccountEvent::CloseRequested,
    };
    let Account { state, .. } = book.after(key, event).ok_or(NotStored::State(now.state))?;
    let active = book.active_stage(key);
    if active.is_some_and(|batch| Some(batch.txid()) != round) {
        return Err(NotStored::InBatch);
    }
    let mut updates = vec![Update::Account(Box::new(Account { state, ..change.after.clone() }))];
    // Its channels stay at the node: our signature is out, and only the chain decides between the two.
    let overtaken = |batch: &StagedBatch| StagedBatch { standing: Standing::Superseded, ..batch.clone() };
    updates.extend(active.map(|batch| Update::Stage(Box::new(overtaken(batch)))));
    if change.kind == ChangeKind::Close {
        updates.extend(expired_orders(book, key));
    }
    updates.push(Update::Change(Box::new(change)));
    Ok(updates)
}

fn store(book: &Book, change: OwnChange, round: Option<Txid>) -> Result<Vec<Update>, ModifyError> {
    covers_orders(book, &change.after)?;
    storing(book, change, round).map_err(|refusal| match refusal {
        NotStored::Changed => ModifyError::Changed,
        NotStored::InBatch => ModifyError::InBatch,
        NotStored::State(found) => ModificationError::State { found }.into(),
    })
}

/// Hands a stored change to the network. When that fails, upkeep goes on.
///
/// # Errors
/// [`crate::error::ReleaseError`] when the receipt does not cover it: a defect.
pub(crate) async fn publish<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    change: &OwnChange,
    receipt: &Receipt,
) -> Result<Txid, crate::error::ReleaseError> {
    let released = release_change(receipt, change)?;
    let (key, txid, kind) = (change.after.key(), change.txid(), change.kind);
    let published = env.wallet().publish(released.transaction(), &change.label).await;
    desk.published(txid, published.as_ref().err());
    match published {
        Ok(()) => tracing::info!(account = %key, %txid, ?kind, "account change published"),
        Err(error) => {
            tracing::warn!(account = %key, %txid, ?kind, %error, "the change is stored, but not published yet");
        }
    }
    Ok(txid)
}

/// Raises the fee of an account's unconfirmed transaction by a child of the wallet.
///
/// # Errors
/// [`BumpError`] by variant.
///
/// # Source
/// Protocol notes, accounts §8.
pub(crate) async fn bump<E: TraderEnv>(env: &E, desk: &Desk, request: BumpAccount) -> Result<(), BumpError> {
    let key = request.account;
    let account = desk.account(key).ok_or(BumpError::Unknown(key))?;
    let state = account.state;
    let unconfirmed = match state {
        AccountState::PendingOpen | AccountState::PendingUpdate | AccountState::PendingClosed => account.latest_tx,
        AccountState::ExpiredPendingUpdate => account.latest_tx,
        AccountState::Initiated | AccountState::Open | AccountState::Expired | AccountState::Closed => None,
        AccountState::CanceledAfterRecovery | AccountState::PendingBatch => None,
    };
    let transaction = unconfirmed.ok_or(BumpError::State(state))?;
    let txid = transaction.compute_txid();
    // Rounded down as by the network's software: four weight units are a virtual byte.
    let sat_per_vbyte = request.fee_rate.get().saturating_mul(4) / 1000;
    if sat_per_vbyte == 0 {
        return Err(BumpError::FeeRate(request.fee_rate));
    }
    for (vout, _) in (0u32..).zip(&transaction.output) {
        match env.wallet().bump_fee(OutPoint { txid, vout }, sat_per_vbyte).await? {
            Bump::Bumped => {
                tracing::info!(account = %key, %txid, vout, sat_per_vbyte, "fee raised");
                return Ok(());
            }
            Bump::NotOurs => {}
        }
    }
    Err(BumpError::NoOutput(txid))
}
