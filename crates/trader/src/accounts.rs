//! Opening accounts, and carrying forward what was begun: funding, announcing, publishing again.
//!
//! An account is stored as initiated before any money moves. From there on every step is repeated until it succeeds,
//! whether in this process or after a restart; before paying, the wallet is asked whether it has paid already.

use crate::book::{Reserving, Update};
use crate::config::{AccountQuote, OpenAccount, QuoteAccount};
use crate::desk::Desk;
use crate::error::{OpenError, QuoteError};
use crate::machine::AccountEvent;
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, TxOut, WScriptHash};
use tidegate_ports::{
    Chain, InitAccount, LinkError, NodeError, Reservation, ReservedKeys, Signer, Terms, TraderEnv, VenueLink, Wallet,
};
use tidegate_protocol::account::{
    Account, AccountState, AccountTerms, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD,
};
use tidegate_protocol::keys::{AccountKey, FAMILY_ACCOUNT};
use tidegate_protocol::label::Note;
use tidegate_protocol::script::find_output;
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw};

/// The expiry of a new account as a height.
///
/// # Errors
/// [`OpenError::Expiry`] when it is too soon or too late.
///
/// # Source
/// Protocol notes, accounts §2.
fn expiry_height(best: BlockHeight, ahead: BlockCount) -> Result<BlockHeight, OpenError> {
    let error = OpenError::Expiry { min: MIN_EXPIRY_AHEAD, max: MAX_EXPIRY_AHEAD, found: ahead };
    if ahead < MIN_EXPIRY_AHEAD || ahead > MAX_EXPIRY_AHEAD {
        return Err(error);
    }
    best.checked_add(ahead).ok_or(error)
}

fn check_limits(request: &OpenAccount, terms: &Terms) -> Result<(), OpenError> {
    let (min, max, found) = (MIN_ACCOUNT_VALUE, terms.max_account_value, request.value);
    if found < min || found > max {
        return Err(OpenError::Value { min, max, found });
    }
    match request.fee_rate {
        Some(rate) if rate < SatPerKw::FLOOR => Err(OpenError::FeeRate(rate)),
        _ => Ok(()),
    }
}

/// Reserves an account at the venue and stores it as initiated; [`fund`] is next.
///
/// # Errors
/// [`OpenError`] by variant; nothing moved.
///
/// # Source
/// Protocol notes, accounts §5.
pub(crate) async fn reserve<E: TraderEnv>(env: &E, desk: &Desk, request: &OpenAccount) -> Result<Account, OpenError> {
    let unfunded = |book: &crate::book::Book| {
        book.accounts.values().find(|a| a.state == AccountState::Initiated).map(Account::key)
    };
    if let Some(key) = desk.read(unfunded) {
        return Err(OpenError::InProgress(key));
    }
    let terms = env.link().terms().await?;
    desk.note(|moment| moment.terms = Some(terms.clone()));
    check_limits(request, &terms)?;
    let best = env.chain().best_height().await?;
    let expiry = expiry_height(best, request.expiry_blocks)?;
    let reserving = reserving(env, desk, request, best, expiry).await?;
    let trader = AccountKey::new(reserving.key.point);
    let wanted = Reservation { value: reserving.value, expiry: reserving.expiry, trader, version: reserving.version };
    let keys = match env.link().reserve(&wanted).await {
        Ok(keys) => keys,
        Err(error) => {
            if matches!(error, LinkError::Refused { .. }) {
                desk.update(|_| vec![Update::Reserving(Box::new(None))]).await;
            }
            return Err(error.into());
        }
    };
    let account = initiated(env, &reserving, keys, best).await?;
    let stored = account.clone();
    desk.update(move |_| vec![Update::Account(Box::new(stored)), Update::Reserving(Box::new(None))]).await;
    tracing::info!(account = %trader, value = %account.value, expiry = %account.terms.expiry, "account reserved");
    Ok(account)
}

/// Stores what is about to be reserved, or takes up what was interrupted.
async fn reserving<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    request: &OpenAccount,
    best: BlockHeight,
    expiry: BlockHeight,
) -> Result<Reserving, OpenError> {
    let alive = |old: &Reserving| best.checked_add(MIN_EXPIRY_AHEAD).is_some_and(|soonest| old.expiry >= soonest);
    if let Some(old) = desk.read(|book| book.reserving).filter(alive) {
        if (old.value, old.version) != (request.value, request.version) {
            return Err(OpenError::Unfinished { value: old.value, version: old.version });
        }
        return Ok(old);
    }
    let key = env.signer().derive_next_key(FAMILY_ACCOUNT).await?;
    let reserving = Reserving { key, value: request.value, expiry, version: request.version };
    desk.update(move |_| vec![Update::Reserving(Box::new(Some(reserving)))]).await;
    Ok(reserving)
}

async fn initiated<E: TraderEnv>(
    env: &E,
    reserving: &Reserving,
    keys: ReservedKeys,
    best: BlockHeight,
) -> Result<Account, OpenError> {
    let secret = env.signer().shared_secret(keys.auctioneer.point(), reserving.key.locator).await?;
    let terms = AccountTerms {
        version: reserving.version,
        trader: AccountKey::new(reserving.key.point),
        auctioneer: keys.auctioneer,
        batch: keys.batch,
        secret,
        expiry: reserving.expiry,
    };
    // Keys that make no script are refused before money depends on them.
    terms.output_script()?;
    Ok(Account {
        terms,
        locator: reserving.key.locator,
        value: reserving.value,
        state: AccountState::Initiated,
        height_hint: best,
        outpoint: None,
        latest_tx: None,
    })
}

/// Finds or makes the funding transaction of an initiated account, and stores it as pending. An account that would
/// expire too soon is not paid any more: it is canceled, and makes room for another one.
///
/// # Errors
/// [`NodeError`]; the account stays initiated, and the same call may be repeated.
///
/// # Source
/// Protocol notes, accounts §2 and §4.
pub(crate) async fn fund<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    account: &Account,
    fee_rate: Option<SatPerKw>,
) -> Result<Account, NodeError> {
    let bad = |reason: &str| NodeError::BadAnswer { call: "SendOutputs", reason: reason.into() };
    let key = account.key();
    let output = account.terms.output(account.value).map_err(|error| bad(&error.to_string()))?;
    let (transaction, outpoint) = match env.wallet().find_payment(&output).await? {
        Some(found) => found,
        None if expires_too_soon(account, env.chain().best_height().await?) => {
            tracing::warn!(account = %key, expiry = %account.terms.expiry, "too late to fund the account: canceled");
            store_event(desk, key, AccountEvent::FundingMissing, |account| account).await;
            return desk.account(key).ok_or_else(|| bad("the account is gone"));
        }
        None => {
            let rate = rate_or_estimate(env, desk, fee_rate).await?;
            let label = Note::create(account).label("");
            let transaction = env.wallet().send_outputs(std::slice::from_ref(&output), rate, &label).await?;
            let vout =
                find_output(&transaction, &output.script_pubkey).ok_or_else(|| bad("it does not pay the account"))?;
            let outpoint = OutPoint::new(transaction.compute_txid(), vout);
            (transaction, outpoint)
        }
    };
    tracing::info!(account = %key, %outpoint, "account funded");
    let (outpoint, latest_tx) = (Some(outpoint), Some(transaction));
    store_event(desk, key, AccountEvent::Funded, move |account| Account { outpoint, latest_tx, ..account }).await;
    desk.account(key).ok_or_else(|| bad("the account is gone"))
}

/// Stores what an event makes of an account, when it is legal.
async fn store_event(
    desk: &Desk,
    key: AccountKey,
    event: AccountEvent,
    edit: impl FnOnce(Account) -> Account + Send + 'static,
) {
    desk.update(move |book| book.after(key, event).map(edit).map(Box::new).map(Update::Account).into_iter().collect())
        .await;
}

/// Whether a new account of this expiry would be refused now.
pub(crate) fn expires_too_soon(account: &Account, best: BlockHeight) -> bool {
    best.checked_add(MIN_EXPIRY_AHEAD).is_none_or(|soonest| account.terms.expiry < soonest)
}

/// The given rate, else the node's estimate, never below the floor.
pub(crate) async fn rate_or_estimate<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    given: Option<SatPerKw>,
) -> Result<SatPerKw, NodeError> {
    match given {
        Some(rate) => Ok(rate),
        None => Ok(env.wallet().estimate_fee(desk.config.fee_conf_target).await?.max(SatPerKw::FLOOR)),
    }
}

/// Announces a funded account to the venue; repeating is harmless.
///
/// # Errors
/// [`LinkError`].
pub(crate) async fn announce<E: TraderEnv>(env: &E, account: &Account) -> Result<(), LinkError> {
    let bad = |reason: String| LinkError::BadAnswer { call: "InitAccount", reason };
    let script = account.terms.output_script().map_err(|error| bad(error.to_string()))?;
    let Some(outpoint) = account.outpoint else { return Err(bad("the account has no output".into())) };
    let reservation = Reservation {
        value: account.value,
        expiry: account.terms.expiry,
        trader: account.key(),
        version: account.terms.version,
    };
    env.link().init(&InitAccount { reservation, outpoint, script }).await
}

/// Fee rate and fee of the funding of an account of this value, if it were made now.
///
/// # Errors
/// [`QuoteError`] by variant.
///
/// # Source
/// Protocol notes, accounts §5 "Quote".
pub(crate) async fn quote<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    request: QuoteAccount,
) -> Result<AccountQuote, QuoteError> {
    let terms = env.link().terms().await?;
    let (min, max, found) = (MIN_ACCOUNT_VALUE, terms.max_account_value, request.value);
    desk.note(|moment| moment.terms = Some(terms));
    if found < min || found > max {
        return Err(QuoteError::Value { min, max, found });
    }
    if request.conf_target == 0 {
        return Err(QuoteError::Target);
    }
    let fee_rate = env.wallet().estimate_fee(request.conf_target).await?.max(SatPerKw::FLOOR);
    // Every account's output has this size.
    let script_pubkey = ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([0; 32]));
    let fee = env.wallet().estimate_payment(&TxOut { value: found.into(), script_pubkey }, request.conf_target).await?;
    Ok(AccountQuote { fee_rate, fee })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_lies_within_the_markets_bounds() {
        let best = BlockHeight::new(800_000);
        for (ahead, expected) in [(143, None), (144, Some(800_144)), (52_560, Some(852_560)), (52_561, None)] {
            let found = expiry_height(best, BlockCount::new(ahead)).ok().map(BlockHeight::get);
            assert_eq!(found, expected, "{ahead}");
        }
        assert!(expiry_height(BlockHeight::new(u32::MAX), BlockCount::new(144)).is_err());
    }
}
