//! Signing the account inputs of a batch together with the traders.

use crate::accounts::is_taproot;
use crate::execution::Answers;
use crate::proposal::Proposal;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, XOnlyPublicKey, ecdsa, schnorr};
use bitcoin::{ScriptBuf, Transaction, Witness};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::AccountInput;
use tidegate_ports::{Musig2Request, NodeError, ScriptSpend, SessionId, SignInput, Signer};
use tidegate_protocol::batch::AccountSignature;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, KeyError};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SigningContext};
use tidegate_protocol::script::{key_spend_sighash, segwit_v0_sighash};
use tracing::{info, warn};

/// The MuSig2 sessions of one attempt: fresh nonces, used once or forgotten.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<AccountKey, (SessionId, PublicNonce)>,
}

/// End of the signing.
#[derive(Debug)]
pub(crate) enum Signed {
    /// The transaction with all witnesses, each verified.
    Complete(Transaction),
    /// These accounts' traders did not sign validly.
    Invalid(BTreeSet<AccountKey>),
}

/// Why one input could not be signed.
enum InputError {
    /// The trader's fault.
    Trader(&'static str),
    /// The node's fault.
    Node(NodeError),
}

impl From<KeyError> for InputError {
    fn from(_: KeyError) -> InputError {
        InputError::Trader("a key of the account is degenerate")
    }
}

impl From<NodeError> for InputError {
    /// The trader's half is verified before the node hears of it: what the node then refuses is its own fault, for
    /// example because it lost the session when it was started again.
    fn from(error: NodeError) -> InputError {
        InputError::Node(error)
    }
}

impl Sessions {
    /// Fresh nonces for every taproot account of the batch.
    pub(crate) async fn begin<S: Signer>(
        signer: &S,
        key: &KeyDescriptor,
        proposal: &Proposal,
    ) -> Result<Sessions, NodeError> {
        let mut sessions = Sessions::default();
        for (account, input) in &proposal.accounts {
            let (Some(version), Ok(merkle_root)) = (input.terms.version.musig2(), input.terms.merkle_root()) else {
                continue;
            };
            let keys = [key.point, *account.point()];
            let request = Musig2Request { signer: key.locator, keys, version, merkle_root, other_nonce: None };
            match signer.musig2_begin(&request).await {
                Ok(session) => drop(sessions.open.insert(*account, session)),
                Err(error) => {
                    sessions.forget(signer).await;
                    return Err(error);
                }
            }
        }
        Ok(sessions)
    }

    /// Our nonces for these accounts.
    pub(crate) fn nonces(&self, accounts: &BTreeSet<AccountKey>) -> BTreeMap<AccountKey, PublicNonce> {
        accounts.iter().filter_map(|account| Some((*account, self.open.get(account)?.1))).collect()
    }

    /// Forgets every session that is still open.
    pub(crate) async fn forget<S: Signer>(&mut self, signer: &S) {
        for (account, (session, _)) in core::mem::take(&mut self.open) {
            if let Err(error) = signer.musig2_cleanup(session).await {
                warn!(%account, %error, "a signing session could not be forgotten");
            }
        }
    }

    /// Adds our half to each trader's, verifies each result, and puts the witnesses in place.
    pub(crate) async fn complete<S: Signer>(
        &mut self,
        signer: &S,
        key: &KeyDescriptor,
        proposal: &Proposal,
        answers: &Answers,
    ) -> Result<Signed, NodeError> {
        let mut invalid = BTreeSet::new();
        let mut witnesses = Vec::new();
        for (account, at) in &proposal.assembly.inputs {
            let signature = owners_signature(proposal, answers, *account);
            let result = match (proposal.accounts.get(account), signature) {
                (Some(input), Some(signature)) => self.witness(signer, key, proposal, input, *at, signature).await,
                (None, _) | (_, None) => Err(InputError::Trader("no signature")),
            };
            match result {
                Ok(witness) => witnesses.push((*at, witness)),
                Err(InputError::Trader(why)) => {
                    info!(%account, why, "the trader's signature is missing or invalid");
                    invalid.insert(*account);
                }
                Err(InputError::Node(error)) => return Err(error),
            }
        }
        if !invalid.is_empty() {
            return Ok(Signed::Invalid(invalid));
        }
        let mut transaction = proposal.assembly.transaction.clone();
        for (at, witness) in witnesses {
            if let Some(input) = transaction.input.get_mut(at) {
                input.witness = witness;
            }
        }
        Ok(Signed::Complete(transaction))
    }

    async fn witness<S: Signer>(
        &mut self,
        signer: &S,
        key: &KeyDescriptor,
        proposal: &Proposal,
        input: &AccountInput,
        at: usize,
        signature: &AccountSignature,
    ) -> Result<Witness, InputError> {
        match (is_taproot(input.terms.version), signature) {
            (true, AccountSignature::Musig2 { partial, nonce }) => {
                self.key_spend(signer, key, proposal, input, at, (partial, nonce)).await
            }
            (false, AccountSignature::Ecdsa(der)) => script_spend(signer, key, proposal, input, at, der).await,
            (true, AccountSignature::Ecdsa(_)) | (false, AccountSignature::Musig2 { .. }) => {
                Err(InputError::Trader("a signature of another account version"))
            }
        }
    }

    async fn key_spend<S: Signer>(
        &mut self,
        signer: &S,
        key: &KeyDescriptor,
        proposal: &Proposal,
        input: &AccountInput,
        at: usize,
        (partial, nonce): (&PartialSignature, &PublicNonce),
    ) -> Result<Witness, InputError> {
        let account = input.terms.trader;
        let assembly = &proposal.assembly;
        let message = key_spend_sighash(&assembly.transaction, at, &assembly.prev_outputs)
            .map_err(|_| InputError::Trader("the input is missing"))?;
        let bad_answer =
            |reason: &str| InputError::Node(NodeError::BadAnswer { call: "musig2_combine", reason: reason.to_owned() });
        let (session, ours) = *self.open.get(&account).ok_or_else(|| bad_answer("there is no signing session"))?;
        let context = SigningContext {
            version: input.terms.version.musig2().ok_or(InputError::Trader("not a taproot account"))?,
            keys: [key.point, *account.point()],
            merkle_root: input.terms.merkle_root()?,
            nonces: [ours, *nonce],
            message,
        };
        if !context.verify_partial(account.point(), nonce, partial) {
            return Err(InputError::Trader("the half of the signature is invalid"));
        }
        signer.musig2_register(session, nonce).await?;
        // The session signs this one message; our half never leaves: only the combined signature does.
        signer.musig2_sign(session, message, false).await?;
        let combined = signer.musig2_combine(session, partial).await?;
        self.open.remove(&account);
        if is_key_spend(&input.terms.output_script()?, &message, &combined) {
            Ok(Witness::from_slice(&[combined]))
        } else {
            Err(bad_answer("an invalid signature"))
        }
    }
}

/// The signature of an account's input, from its owner's answer: what others send for it does not count.
fn owners_signature<'a>(
    proposal: &Proposal,
    answers: &'a Answers,
    account: AccountKey,
) -> Option<&'a AccountSignature> {
    let (stream, _) = proposal.participants.iter().find(|(_, owner)| owner.accounts.contains(&account))?;
    answers.get(stream)?.accounts.get(&account)
}

async fn script_spend<S: Signer>(
    signer: &S,
    key: &KeyDescriptor,
    proposal: &Proposal,
    input: &AccountInput,
    at: usize,
    der: &[u8],
) -> Result<Witness, InputError> {
    let assembly = &proposal.assembly;
    let script = input.terms.inner_script()?;
    let message = segwit_v0_sighash(&assembly.transaction, at, input.value, &script)
        .map_err(|_| InputError::Trader("the input is missing"))?;
    let der = strict_der(&input.terms.tweaked_trader()?, &message, der)
        .ok_or(InputError::Trader("the signature is invalid"))?;
    let request = SignInput {
        transaction: assembly.transaction.clone(),
        input: at,
        prev_outputs: assembly.prev_outputs.clone(),
        key: *key,
        tweak: input.terms.auctioneer_tweak()?,
        spend: ScriptSpend::SegwitV0 { script },
    };
    let ours = signer.sign_input(&request).await.map_err(InputError::Node)?;
    if strict_der(&input.terms.tweaked_auctioneer()?, &message, &ours).is_none() {
        return Err(InputError::Node(NodeError::BadAnswer {
            call: "sign_input",
            reason: "an invalid signature".to_owned(),
        }));
    }
    Ok(input.terms.cooperative_witness_v0(&ours, &der)?)
}

/// The signature in the only form that the network relays (strict DER, low S), when it is valid.
pub(crate) fn strict_der(key: &PublicKey, message: &[u8; 32], der: &[u8]) -> Option<Vec<u8>> {
    let mut signature = ecdsa::Signature::from_der(der).ok()?;
    signature.normalize_s();
    Secp256k1::verification_only().verify_ecdsa(&Message::from_digest(*message), &signature, key).ok()?;
    Some(signature.serialize_der().to_vec())
}

/// Whether a signature spends this P2TR output by its key.
fn is_key_spend(script: &ScriptBuf, message: &[u8; 32], signature: &[u8; 64]) -> bool {
    let key = script.as_bytes().get(2..34).and_then(|key| XOnlyPublicKey::from_slice(key).ok());
    match (script.is_p2tr(), key, schnorr::Signature::from_slice(signature)) {
        (true, Some(key), Ok(signature)) => {
            Secp256k1::verification_only().verify_schnorr(&signature, &Message::from_digest(*message), &key).is_ok()
        }
        (_, _, _) => false,
    }
}
