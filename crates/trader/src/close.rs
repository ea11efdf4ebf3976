//! Closing an account: with the venue's half of the signature, or alone once it is expired.
//!
//! The closing transaction is complete and checked before it is stored, and stored before it is published; from then on
//! it is published until the chain knows it.

use crate::accounts;
use crate::book::{Book, ChangeKind, OwnChange, Update};
use crate::changes::{self, NotStored, Round, own_change, storing};
use crate::config::{CloseAccount, CloseTo};
use crate::cosign;
use crate::desk::Desk;
use crate::error::CloseError;
use crate::machine::{AccountEvent, OrderFate, next};
use crate::orders;
use bitcoin::{Transaction, Txid};
use tidegate_ports::{AddressKind, Chain, Clock, TraderEnv, Wallet};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::modification::{Modification, ModificationError};
use tidegate_protocol::units::{BlockHeight, SatPerKw};

/// Closes an account.
///
/// # Errors
/// [`CloseError`] by variant. Once the close is stored the answer is its transaction, also when publishing has to be
/// repeated.
///
/// # Source
/// Protocol notes, accounts §7.
pub(crate) async fn close<E: TraderEnv>(env: &E, desk: &Desk, request: CloseAccount) -> Result<Txid, CloseError> {
    let key = request.account;
    let account = desk.account(key).ok_or(CloseError::Unknown(key))?;
    if next(account.state, AccountEvent::CloseRequested).state(account.state).is_none() {
        return Err(CloseError::State(account.state));
    }
    if let CloseTo::Output { fee_rate: Some(rate), .. } = request.to
        && rate < SatPerKw::FLOOR
    {
        return Err(CloseError::FeeRate(rate));
    }
    let best = env.chain().best_height().await?;
    let expired = account.state == AccountState::Expired || best >= account.terms.expiry;
    let round = if expired {
        desk.read(|book| book.active_stage(key).map(|batch| batch.txid()))
    } else {
        check_quiet(env, desk, key).await?
    };
    let account = desk.account(key).ok_or(CloseError::Unknown(key))?;
    let change = unsigned(env, desk, &account, request.to, best).await?;
    let witness = cosign::witness(env, &change).await?;
    let mut transaction: Transaction = change.transaction.clone();
    transaction.input.iter_mut().for_each(|input| input.witness = witness.clone());
    let change = own_change(&change, transaction, ChangeKind::Close, env.clock().now(), best);
    let stored = change.clone();
    let ((), receipt) = desk.commit(move |book| store(book, stored, round).map(|updates| (updates, ()))).await?;
    Ok(changes::publish(env, desk, &change, &receipt).await?)
}

/// The closing transaction in the form that was asked for.
async fn unsigned<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    account: &Account,
    to: CloseTo,
    best: BlockHeight,
) -> Result<Modification, CloseError> {
    let change = match to {
        CloseTo::Outputs(outputs) => Modification::close_to_outputs(account, outputs, best),
        CloseTo::Output { script, fee_rate } => {
            let rate = accounts::rate_or_estimate(env, desk, fee_rate).await?;
            let to = match script {
                Some(script) => script,
                None => env.wallet().new_address(address_kind(account.terms.version)).await?,
            };
            Modification::close(account, to, rate, best)
        }
    };
    change.map_err(|error| match error {
        ModificationError::Spend(error) => error.into(),
        ModificationError::Key(error) => error.into(),
        ModificationError::State { found } => CloseError::State(found),
        error => CloseError::Change(error),
    })
}

fn address_kind(version: AccountVersion) -> AddressKind {
    match version {
        AccountVersion::V0 => AddressKind::WitnessPubkeyHash,
        AccountVersion::V1 | AccountVersion::V2 => AddressKind::Taproot,
    }
}

/// No order of the account is active, neither here nor at the venue. Returns the signed batch that is not settled.
async fn check_quiet<E: TraderEnv>(env: &E, desk: &Desk, key: AccountKey) -> Result<Option<Txid>, CloseError> {
    let active: Vec<_> = desk.read(|book| book.active_orders(key).map(|own| own.order.nonce).collect());
    for nonce in active {
        orders::reconcile(env, desk, nonce).await?;
        // The rest of an order that is in no book is not placed again for an account that ends.
        if desk.note(|moment| moment.dropped.remove(&nonce)) {
            orders::end(desk, nonce, OrderFate::Dropped).await;
        }
    }
    match desk.read(|book| book.active_orders(key).count()) {
        0 => match changes::round(env, desk, key).await? {
            Round::Of(round) => Ok(round),
            // The next attempt finds the account as it is by then.
            Round::Settled => Err(CloseError::InBatch),
        },
        count => Err(CloseError::ActiveOrders(count)),
    }
}

/// Stores the close: value 0, closing, the signed transaction.
fn store(book: &Book, change: OwnChange, round: Option<Txid>) -> Result<Vec<Update>, CloseError> {
    storing(book, change, round).map_err(|refusal| match refusal {
        NotStored::Changed => CloseError::Changed,
        NotStored::InBatch => CloseError::InBatch,
        NotStored::State(found) => CloseError::State(found),
    })
}
