//! Changes of an account by its owner: deposit, withdrawal, renewal, upgrade, close.
//!
//! We build the transaction anew from what the owner wants, store it beside the unchanged account, and then give our
//! half of the signature away. From there on the owner alone decides whether and when it is published: the account
//! stays out of batches, and takes further changes, until the chain says which of them came true. A change that is
//! never published costs nothing: another one can be asked for at any time.
//!
//! # Source
//! Protocol notes, auctioneer §4.5, accounts §6 and §7, rpc §8.3.

use crate::accounts::as_protocol_account;
use crate::actor::{Actor, Answered, answer};
use crate::book::{AccountRecord, ChangedAccount, SignedChange, Write};
use crate::error::{Halt, ServeError};
use crate::handle::Reply;
use crate::machine::VenueAccountState;
use bitcoin::{OutPoint, Script, ScriptBuf, Transaction, TxOut};
use std::collections::BTreeSet;
use tidegate_ports::{
    ModifyAccount, ModifySignature, Musig2Request, ScriptSpend, SignInput, Signer, TraderId, VenueEnv,
};
use tidegate_protocol::account::{AccountTerms, AccountVersion, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD};
use tidegate_protocol::keys::KeyDescriptor;
use tidegate_protocol::script::{SpendKind, classify_spend, find_output, key_spend_sighash};
use tidegate_protocol::spend::{ClosePath, WalletInput, bip69_input, spend_to_outputs};
use tidegate_protocol::units::{BlockHeight, Sats};
use tracing::info;

/// Inputs or outputs besides the account's, at most.
const MAX_COINS: usize = 100;
/// Weight units of a change without witnesses, at most: it is stored, perhaps for long.
const MAX_WEIGHT: u64 = 100_000;
/// Different changes of one account that may be signed and not settled.
const MAX_CHANGES: usize = 50;
/// SIGHASH_ALL, appended to the signature of a version 0 account.
const SIGHASH_ALL: u8 = 1;

/// The account's output that a change spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Base {
    terms: AccountTerms,
    value: Sats,
    outpoint: OutPoint,
}

impl Base {
    fn of(record: &AccountRecord) -> Base {
        Base { terms: record.terms, value: record.value, outpoint: record.outpoint }
    }

    /// The output that a signed change makes.
    fn after(change: &SignedChange) -> Option<Base> {
        let ChangedAccount { terms, value, vout } = change.after?;
        Some(Base { terms, value, outpoint: OutPoint { txid: change.txid(), vout } })
    }

    fn output(&self) -> Result<TxOut, ServeError> {
        Ok(self.terms.output(self.value)?)
    }
}

/// A change that may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Draft {
    base: Base,
    transaction: Transaction,
    /// Output spent by every input, in order.
    prev_outputs: Vec<TxOut>,
    after: Option<ChangedAccount>,
}

impl Draft {
    fn own_input(&self) -> Result<usize, ServeError> {
        let own = |input: &bitcoin::TxIn| input.previous_output == self.base.outpoint;
        self.transaction.input.iter().position(own).ok_or(ServeError::Internal("a change does not spend its account"))
    }
}

/// The call that asks for our half of a change.
pub(crate) struct ChangeCall {
    trader: TraderId,
    request: ModifyAccount,
    /// What the node was asked to sign.
    draft: Option<Draft>,
    reply: Reply<ModifySignature>,
}

impl ChangeCall {
    pub(crate) fn new(trader: TraderId, request: ModifyAccount, reply: Reply<ModifySignature>) -> ChangeCall {
        ChangeCall { trader, request, draft: None, reply }
    }
}

impl<'e, E: VenueEnv> Actor<'e, E> {
    /// Has the node make our half of a change of an account.
    pub(crate) fn modify(&mut self, mut call: ChangeCall) -> Result<(), Halt> {
        let draft = match self.draft(call.trader, &call.request) {
            Ok((_, draft)) => draft,
            Err(error) => return answer(call.reply, Err(error)),
        };
        call.draft = Some(draft.clone());
        let (node, key) = (self.node.clone(), self.key);
        self.ask_beside(async move {
            let half = sign_half(&node, key, &draft, &call.request).await;
            Answered::Half(Box::new(call), half)
        });
        Ok(())
    }

    /// The node has made our half. It is given away only if the same change would be signed now.
    pub(crate) async fn changed(
        &mut self,
        call: ChangeCall,
        half: Result<ModifySignature, ServeError>,
    ) -> Result<(), Halt> {
        let account = call.request.account;
        let outcome = match (self.draft(call.trader, &call.request), half) {
            (Ok((record, draft)), Ok(half)) if call.draft.as_ref() == Some(&draft) => {
                self.store_change(record, draft, half).await
            }
            (Ok(_), Ok(_)) => Err(ServeError::AccountBusy(account)),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        };
        answer(call.reply, outcome)
    }

    /// The change that is asked for, when all of it is allowed now; and the account, with room for it.
    fn draft(&self, trader: TraderId, request: &ModifyAccount) -> Result<(AccountRecord, Draft), ServeError> {
        let account = request.account;
        let mut record = self.book.accounts.get(&account).ok_or(ServeError::NoAccount(account))?.clone();
        if !self.speaks_for(trader, &record) {
            return Err(ServeError::NotTheOwner(account));
        }
        self.check_ban(account)?;
        if self.running.contains(&account) {
            return Err(ServeError::AccountBusy(account));
        }
        for (what, found) in [("inputs", request.new_inputs.len()), ("outputs", request.new_outputs.len())] {
            if found > MAX_COINS {
                return Err(ServeError::TooMany { what, found, max: MAX_COINS });
            }
        }
        let draft = match request.new_params {
            None => self.draft_close(&record, request)?,
            Some(wanted) => self.draft_update(&record, request, wanted)?,
        };
        if draft.transaction.weight().to_wu() > MAX_WEIGHT {
            return Err(ServeError::PrevOutputs("the transaction is too large"));
        }
        let txid = draft.transaction.compute_txid();
        record.changes.retain(|known| known.txid() != txid);
        let found = record.changes.len() + 1;
        if found > MAX_CHANGES {
            return Err(ServeError::TooMany {
                what: "signed changes that were not published",
                found,
                max: MAX_CHANGES,
            });
        }
        Ok((record, draft))
    }

    /// Stores the change beside the account, then releases our half of its signature.
    async fn store_change(
        &mut self,
        mut record: AccountRecord,
        draft: Draft,
        signature: ModifySignature,
    ) -> Result<ModifySignature, ServeError> {
        let account = record.key();
        let Draft { base, transaction, prev_outputs, after } = draft;
        let txid = transaction.compute_txid();
        let spent = transaction.input.iter().map(|input| input.previous_output).zip(prev_outputs);
        let coins = spent.filter(|(outpoint, _)| *outpoint != base.outpoint);
        let coins = coins.map(|(outpoint, output)| (outpoint, output.script_pubkey)).collect();
        record.changes.push(SignedChange { spends: base.outpoint, transaction, after, coins });
        info!(%account, outpoint = %base.outpoint, %txid, closes = after.is_none(), "change signed");
        // Only now, and durable before the signature leaves: from here on the output may vanish at any time.
        let receipt = self.commit(vec![Write::Account(record)]).await?;
        if receipt.names_change(account, txid) {
            Ok(signature)
        } else {
            Err(ServeError::Internal("a change was not stored"))
        }
    }

    fn draft_close(&self, record: &AccountRecord, request: &ModifyAccount) -> Result<Draft, ServeError> {
        let account = record.key();
        if record.state == VenueAccountState::Closed {
            return Err(ServeError::AccountState { account, state: record.state, what: "a close" });
        }
        if self.book.active_orders(account).next().is_some() {
            return Err(ServeError::OrdersOpen(account));
        }
        if !request.new_inputs.is_empty() {
            return Err(ServeError::PrevOutputs("a close takes no further inputs"));
        }
        let base = closed_base(record, &request.prev_outputs)?;
        let prev_outputs = prev_outputs(&base, request)?;
        let parent = as_protocol_account(&base.terms, base.value, base.outpoint);
        let transaction = spend_to_outputs(&parent, &[], request.new_outputs.clone(), ClosePath::Cooperative)?;
        Ok(Draft { base, transaction, prev_outputs, after: None })
    }

    /// Deposit, withdrawal, renewal, upgrade. Zero among the wanted numbers means unchanged.
    fn draft_update(
        &self,
        record: &AccountRecord,
        request: &ModifyAccount,
        (value, expiry, version): (Sats, BlockHeight, AccountVersion),
    ) -> Result<Draft, ServeError> {
        let account = record.key();
        if !matches!(record.state, VenueAccountState::Open | VenueAccountState::Expired) {
            return Err(ServeError::AccountState { account, state: record.state, what: "a change" });
        }
        let value = if value == Sats::ZERO { record.value } else { value };
        self.check_new_value(record, value)?;
        let mut terms = record.terms.next()?;
        terms.version = new_version(record.terms.version, version)?;
        terms.expiry = self.new_expiry(record, expiry)?;
        let own = terms.output(value)?;
        if request.new_outputs.iter().any(|output| output.script_pubkey == own.script_pubkey) {
            return Err(ServeError::PrevOutputs("the new account is paid twice"));
        }
        let base = Base::of(record);
        let prev_outputs = prev_outputs(&base, request)?;
        let others = wallet_inputs(&base, request, &prev_outputs)?;
        let mut outputs = request.new_outputs.clone();
        outputs.push(own.clone());
        let parent = as_protocol_account(&base.terms, base.value, base.outpoint);
        let transaction = spend_to_outputs(&parent, &others, outputs, ClosePath::Cooperative)?;
        let vout = find_output(&transaction, &own.script_pubkey).ok_or(ServeError::Internal("an output was lost"))?;
        Ok(Draft { base, transaction, prev_outputs, after: Some(ChangedAccount { terms, value, vout }) })
    }

    fn check_new_value(&self, record: &AccountRecord, value: Sats) -> Result<(), ServeError> {
        // An account from before the limit was lowered may be renewed or made smaller.
        let (min, max) = (MIN_ACCOUNT_VALUE, self.config.max_account_value.max(record.value));
        if !(min..=max).contains(&value) {
            return Err(ServeError::AccountValue { found: value, min, max });
        }
        let reserved = self.book.reserved(record, &self.fee_of(record.key()))?;
        if value < reserved { Err(ServeError::ValueReserved { found: value, reserved }) } else { Ok(()) }
    }

    fn new_expiry(&self, record: &AccountRecord, wanted: BlockHeight) -> Result<BlockHeight, ServeError> {
        let old = record.terms.expiry;
        let found = if wanted == BlockHeight::new(0) { old } else { wanted };
        if found == old && old > self.height && record.state == VenueAccountState::Open {
            return Ok(old);
        }
        let ahead = |blocks| self.height.checked_add(blocks).unwrap_or(BlockHeight::new(u32::MAX));
        let (min, max) = (ahead(MIN_EXPIRY_AHEAD), ahead(MAX_EXPIRY_AHEAD));
        if (min..=max).contains(&found) { Ok(found) } else { Err(ServeError::AccountExpiry { found, min, max }) }
    }
}

/// Signs the account's input.
async fn sign_half<S: Signer>(
    signer: &S,
    key: KeyDescriptor,
    draft: &Draft,
    request: &ModifyAccount,
) -> Result<ModifySignature, ServeError> {
    let (terms, input) = (&draft.base.terms, draft.own_input()?);
    let Some(version) = terms.version.musig2() else {
        let spend = ScriptSpend::SegwitV0 { script: terms.inner_script()? };
        let sign = SignInput {
            transaction: draft.transaction.clone(),
            input,
            prev_outputs: draft.prev_outputs.clone(),
            key,
            tweak: terms.auctioneer_tweak()?,
            spend,
        };
        let mut signature = signer.sign_input(&sign).await?;
        signature.push(SIGHASH_ALL);
        return Ok(ModifySignature { signature, server_nonce: None });
    };
    let nonce = request.trader_nonce.ok_or(ServeError::NonceMissing)?;
    let message = key_spend_sighash(&draft.transaction, input, &draft.prev_outputs)
        .map_err(|_| ServeError::Internal("a change has no input"))?;
    let begin = Musig2Request {
        signer: key.locator,
        keys: [key.point, *terms.trader.point()],
        version,
        merkle_root: terms.merkle_root()?,
        other_nonce: Some(nonce),
    };
    // A session of its own for every request: a repeated one gets fresh nonces.
    let (session, server_nonce) = signer.musig2_begin(&begin).await?;
    match signer.musig2_sign(session, message, true).await {
        Ok(partial) => Ok(ModifySignature { signature: partial.0.to_vec(), server_nonce: Some(server_nonce) }),
        Err(error) => {
            // The session is useless now; that it is forgotten is a courtesy to the node.
            drop(signer.musig2_cleanup(session).await);
            Err(error.into())
        }
    }
}

/// What a transaction in a block means for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// This signed change came true.
    Changed(Box<ChangedAccount>),
    /// The output was spent without a successor.
    Ended(SpendKind),
}

/// What the transaction makes of the account: it spends the current output, or the one before, when a reorganisation puts
/// another of the signed changes in the place of the first. Nothing when it does neither, or is the one that we know.
pub(crate) fn seen(record: &AccountRecord, transaction: &Transaction) -> Option<Seen> {
    let origin = record.origin.as_ref().map(|origin| origin.outpoint);
    let ours = |outpoint| outpoint == record.outpoint || Some(outpoint) == origin;
    let input = transaction.input.iter().find(|input| ours(input.previous_output))?;
    let txid = transaction.compute_txid();
    if txid == record.outpoint.txid {
        return None;
    }
    let agreed = record.changes.iter().find(|change| change.txid() == txid);
    match (classify_spend(&input.witness), agreed.and_then(|change| change.after)) {
        (SpendKind::Cooperative, Some(after)) => Some(Seen::Changed(Box::new(after))),
        (kind, _) => Some(Seen::Ended(kind)),
    }
}

/// Versions only rise; 0 keeps the old one.
fn new_version(from: AccountVersion, to: AccountVersion) -> Result<AccountVersion, ServeError> {
    match to {
        AccountVersion::V0 => Ok(from),
        to if to < from => Err(ServeError::Downgrade { from, to }),
        to => Ok(to),
    }
}

/// The output that a close spends: the current one, unless the owner shows that of a change that we have not seen in a
/// block yet.
fn closed_base(record: &AccountRecord, shown: &[TxOut]) -> Result<Base, ServeError> {
    let current = Base::of(record);
    let [shown] = shown else { return Ok(current) };
    if *shown == current.output()? {
        return Ok(current);
    }
    for base in record.changes.iter().rev().filter_map(Base::after) {
        if *shown == base.output()? {
            return Ok(base);
        }
    }
    Ok(current)
}

/// Output spent by every input, in the order of the transaction. What the account's own input spends must be as we know
/// it; a lie about another makes the owner's own signature worthless.
fn prev_outputs(base: &Base, request: &ModifyAccount) -> Result<Vec<TxOut>, ServeError> {
    let own = base.output()?;
    let outpoints = outpoints(base, request)?;
    if request.prev_outputs.is_empty() && outpoints.len() == 1 {
        return Ok(vec![own]);
    }
    if request.prev_outputs.len() != outpoints.len() {
        return Err(ServeError::PrevOutputs("there must be one previous output for each input"));
    }
    let mut spent = outpoints.iter().zip(&request.prev_outputs);
    match spent.find(|(outpoint, _)| **outpoint == base.outpoint) {
        Some((_, output)) if *output == own => Ok(request.prev_outputs.clone()),
        Some(_) | None => Err(ServeError::PrevOutputs("the account's output is another one")),
    }
}

/// All inputs in the order of the transaction.
fn outpoints(base: &Base, request: &ModifyAccount) -> Result<Vec<OutPoint>, ServeError> {
    let others = request.new_inputs.iter().map(|(outpoint, _)| *outpoint);
    let all: Vec<OutPoint> = others.chain([base.outpoint]).collect();
    if all.iter().collect::<BTreeSet<_>>().len() != all.len() {
        return Err(ServeError::PrevOutputs("an input is named twice"));
    }
    let mut sorted = all;
    sorted.sort_by_key(bip69_input);
    Ok(sorted)
}

fn wallet_inputs(base: &Base, request: &ModifyAccount, spent: &[TxOut]) -> Result<Vec<WalletInput>, ServeError> {
    let outpoints = outpoints(base, request)?;
    let input = |(outpoint, script_sig): &(OutPoint, ScriptBuf)| {
        let mut outputs = outpoints.iter().zip(spent);
        let (_, prev_output) = outputs
            .find(|(other, _)| *other == outpoint)
            .ok_or(ServeError::PrevOutputs("there must be one previous output for each input"))?;
        if !script_sig_fits(&prev_output.script_pubkey, script_sig) {
            return Err(ServeError::PrevOutputs("a signature script does not fit its previous output"));
        }
        Ok(WalletInput { outpoint: *outpoint, prev_output: prev_output.clone(), script_sig: script_sig.clone() })
    };
    request.new_inputs.iter().map(input).collect()
}

/// Nothing for a native input; the push of a P2WKH program for a nested one.
fn script_sig_fits(spent: &Script, script_sig: &Script) -> bool {
    if !spent.is_p2sh() {
        return script_sig.is_empty();
    }
    let Some((push, redeem)) = script_sig.as_bytes().split_first() else { return false };
    let redeem = Script::from_bytes(redeem);
    usize::from(*push) == redeem.len() && redeem.is_p2wpkh() && redeem.to_p2sh() == *spent
}
