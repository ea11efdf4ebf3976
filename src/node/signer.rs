//! lnd's keys. Private keys and secret nonces never leave it.

use super::LndNode;
use super::convert::{array, derived, descriptor, locator, tx_out, unsendable};
use super::error::{bad_answer, refused_with};
use super::permissions::{
    DERIVE_KEY, DERIVE_NEXT_KEY, DERIVE_SHARED_KEY, MUSIG2_CLEANUP, MUSIG2_COMBINE_SIG, MUSIG2_CREATE_SESSION,
    MUSIG2_REGISTER_NONCES, MUSIG2_SIGN, SIGN_MESSAGE, SIGN_OUTPUT_RAW,
};
use bitcoin::consensus::encode;
use bitcoin::secp256k1::PublicKey;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_ports::{Musig2Request, NodeError, ScriptSpend, SessionId, SignInput, Signer};
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, SharedSecret};
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce};
use tidegate_wire::lnd::signrpc::{
    self, MuSig2CleanupRequest, MuSig2CombineSigRequest, MuSig2RegisterNoncesRequest, MuSig2SessionRequest,
    MuSig2SessionResponse, MuSig2SignRequest, MuSig2Version, SharedKeyRequest, SignDescriptor, SignMessageReq,
    SignMethod, SignReq, TaprootTweakDesc,
};
use tidegate_wire::lnd::walletrpc::KeyReq;

/// SIGHASH_ALL, and taproot's SIGHASH_DEFAULT.
const SIGHASH_ALL: u32 = 1;
const SIGHASH_DEFAULT: u32 = 0;
/// Sessions begun and neither signed nor cleaned up; more means that somebody forgets them.
const MAX_UNSIGNED: usize = 4096;

/// Sessions that have not signed yet: a nonce signs once, also when the node's answer got lost.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    unsigned: Mutex<BTreeSet<SessionId>>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<SessionId>> {
        self.unsigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self, session: SessionId) -> bool {
        let mut unsigned = self.lock();
        unsigned.len() < MAX_UNSIGNED && unsigned.insert(session)
    }

    /// Uses the session up; false when it was used or never begun.
    fn spend(&self, session: SessionId) -> bool {
        self.lock().remove(&session)
    }
}

impl Signer for LndNode {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        let link = &self.inner.link;
        let key_family =
            i32::try_from(family).map_err(|_| unsendable(DERIVE_NEXT_KEY, "the key family exceeds 31 bits"))?;
        let request = KeyReq { key_family, ..KeyReq::default() };
        let key = derived(DERIVE_NEXT_KEY, &link.ask(DERIVE_NEXT_KEY, link.wallet().derive_next_key(request)).await?)?;
        if key.locator.family == family { Ok(key) } else { Err(bad_answer(DERIVE_NEXT_KEY, "a key of another family")) }
    }

    async fn derive_key(&self, place: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        let link = &self.inner.link;
        let request = locator(DERIVE_KEY, place)?;
        let key = derived(DERIVE_KEY, &link.ask(DERIVE_KEY, link.wallet().derive_key(request)).await?)?;
        if key.locator == place { Ok(key) } else { Err(bad_answer(DERIVE_KEY, "the key of another place")) }
    }

    async fn shared_secret(&self, other: &PublicKey, place: KeyLocator) -> Result<SharedSecret, NodeError> {
        let link = &self.inner.link;
        let key_loc = Some(locator(DERIVE_SHARED_KEY, place)?);
        let request = SharedKeyRequest {
            ephemeral_pubkey: other.serialize().to_vec(),
            key_desc: Some(signrpc::KeyDescriptor { raw_key_bytes: Vec::new(), key_loc }),
        };
        let answer = link.ask(DERIVE_SHARED_KEY, link.signer().derive_shared_key(request)).await?;
        SharedSecret::from_slice(&answer.shared_key).map_err(|error| bad_answer(DERIVE_SHARED_KEY, error))
    }

    async fn sign_message(&self, message: &[u8], place: KeyLocator) -> Result<Vec<u8>, NodeError> {
        let link = &self.inner.link;
        let key_loc = Some(locator(SIGN_MESSAGE, place)?);
        let request = SignMessageReq { msg: message.to_vec(), key_loc, ..SignMessageReq::default() };
        let answer = link.ask(SIGN_MESSAGE, link.signer().sign_message(request)).await?;
        check_der(SIGN_MESSAGE, &answer.signature)?;
        Ok(answer.signature)
    }

    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        let link = &self.inner.link;
        let answer = link.ask(SIGN_OUTPUT_RAW, link.signer().sign_output_raw(sign_request(request)?)).await?;
        let [signature] = <[Vec<u8>; 1]>::try_from(answer.raw_sigs)
            .map_err(|all| bad_answer(SIGN_OUTPUT_RAW, format!("{} signatures, not one", all.len())))?;
        match request.spend {
            ScriptSpend::SegwitV0 { .. } => check_der(SIGN_OUTPUT_RAW, &signature)?,
            ScriptSpend::Tapscript { .. } => drop(array::<64>(SIGN_OUTPUT_RAW, "a signature", &signature)?),
        }
        Ok(signature)
    }

    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        let link = &self.inner.link;
        let call = MUSIG2_CREATE_SESSION;
        let answer = link.ask(call, link.signer().mu_sig2_create_session(session_request(request)?)).await?;
        let session = SessionId(array(call, "a session id", &answer.session_id)?);
        let begun = self.begun(session, request, &answer);
        if begun.is_err() {
            // The session is of no use; that lnd may keep it is told by nothing but its own limit.
            drop(self.musig2_cleanup(session).await);
        }
        Ok((session, begun?))
    }

    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let call = MUSIG2_REGISTER_NONCES;
        let request = MuSig2RegisterNoncesRequest {
            session_id: session.0.to_vec(),
            other_signer_public_nonces: vec![other.0.to_vec()],
        };
        let answer = link.ask(call, link.signer().mu_sig2_register_nonces(request)).await?;
        if answer.have_all_nonces { Ok(()) } else { Err(bad_answer(call, "nonces are still missing")) }
    }

    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        let link = &self.inner.link;
        if !self.inner.sessions.spend(session) {
            return Err(unsendable(MUSIG2_SIGN, "the session has signed before, or was never begun here"));
        }
        let request =
            MuSig2SignRequest { session_id: session.0.to_vec(), message_digest: message.to_vec(), cleanup: last };
        let answer = link.ask(MUSIG2_SIGN, link.signer().mu_sig2_sign(request)).await?;
        array(MUSIG2_SIGN, "a partial signature", &answer.local_partial_signature).map(PartialSignature)
    }

    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        let link = &self.inner.link;
        let call = MUSIG2_COMBINE_SIG;
        let request = MuSig2CombineSigRequest {
            session_id: session.0.to_vec(),
            other_partial_signatures: vec![other.0.to_vec()],
        };
        let answer = link.ask(call, link.signer().mu_sig2_combine_sig(request)).await?;
        if !answer.have_all_signatures {
            return Err(bad_answer(call, "signatures are still missing"));
        }
        array(call, "a signature", &answer.final_signature)
    }

    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        let link = &self.inner.link;
        self.inner.sessions.spend(session);
        let request = MuSig2CleanupRequest { session_id: session.0.to_vec() };
        match link.ask(MUSIG2_CLEANUP, link.signer().mu_sig2_cleanup(request)).await {
            // Forgotten already: by the last signature, or with a restart of lnd.
            Err(error) if refused_with(&error, "not found") => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// # Source
/// Protocol notes, scripts §3: the drafts differ in the form of the signers' keys.
fn session_request(request: &Musig2Request) -> Result<MuSig2SessionRequest, NodeError> {
    let key = |key: &PublicKey| match request.version {
        Musig2Version::V040 => key.x_only_public_key().0.serialize().to_vec(),
        Musig2Version::V100Rc2 => key.serialize().to_vec(),
    };
    let version = match request.version {
        Musig2Version::V040 => MuSig2Version::Musig2VersionV040,
        Musig2Version::V100Rc2 => MuSig2Version::Musig2VersionV100rc2,
    };
    Ok(MuSig2SessionRequest {
        key_loc: Some(locator(MUSIG2_CREATE_SESSION, request.signer)?),
        all_signer_pubkeys: request.keys.iter().map(key).collect(),
        other_signer_public_nonces: request.other_nonce.iter().map(|nonce| nonce.0.to_vec()).collect(),
        taproot_tweak: Some(TaprootTweakDesc { script_root: request.merkle_root.to_vec(), key_spend_only: false }),
        version: version.into(),
        ..MuSig2SessionRequest::default()
    })
}

fn sign_request(request: &SignInput) -> Result<SignReq, NodeError> {
    let call = SIGN_OUTPUT_RAW;
    if request.prev_outputs.len() != request.transaction.input.len() {
        return Err(unsendable(call, "not one spent output per input"));
    }
    let spent = request.prev_outputs.get(request.input).ok_or_else(|| unsendable(call, "no such input"))?;
    let (sign_method, sighash, script) = match &request.spend {
        ScriptSpend::SegwitV0 { script } => (SignMethod::WitnessV0, SIGHASH_ALL, script),
        ScriptSpend::Tapscript { leaf } => (SignMethod::TaprootScriptSpend, SIGHASH_DEFAULT, leaf),
    };
    let sign_desc = SignDescriptor {
        key_desc: Some(descriptor(call, &request.key)?),
        single_tweak: request.tweak.to_vec(),
        witness_script: script.to_bytes(),
        output: Some(tx_out(call, spent)?),
        sighash,
        input_index: i32::try_from(request.input).map_err(|_| unsendable(call, "no such input"))?,
        sign_method: sign_method.into(),
        ..SignDescriptor::default()
    };
    Ok(SignReq {
        raw_tx_bytes: encode::serialize(&request.transaction),
        sign_descs: vec![sign_desc],
        prev_outputs: request.prev_outputs.iter().map(|output| tx_out(call, output)).collect::<Result<_, _>>()?,
    })
}

fn check_der(call: &'static str, signature: &[u8]) -> Result<(), NodeError> {
    bitcoin::secp256k1::ecdsa::Signature::from_der(signature)
        .map(drop)
        .map_err(|error| bad_answer(call, format!("not a DER signature: {error}")))
}

impl LndNode {
    /// Our nonces of a session that lnd just made, when it is usable.
    fn begun(
        &self,
        session: SessionId,
        request: &Musig2Request,
        answer: &MuSig2SessionResponse,
    ) -> Result<PublicNonce, NodeError> {
        let call = MUSIG2_CREATE_SESSION;
        let nonce = PublicNonce(array(call, "nonces", &answer.local_public_nonces)?);
        if request.other_nonce.is_some() && !answer.have_all_nonces {
            return Err(bad_answer(call, "nonces are missing though both were given"));
        }
        if !self.inner.sessions.begun(session) {
            return Err(unsendable(call, format!("{MAX_UNSIGNED} sessions are open, or lnd repeats a session id")));
        }
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Musig2Version) -> Musig2Request {
        let key: PublicKey =
            "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().expect("a point");
        Musig2Request {
            signer: KeyLocator { family: 220, index: 3 },
            keys: [key, key],
            version,
            merkle_root: [7; 32],
            other_nonce: Some(PublicNonce([2; 66])),
        }
    }

    #[test]
    fn the_draft_decides_the_form_of_the_keys() {
        for (version, length, number) in [(Musig2Version::V040, 32, 1), (Musig2Version::V100Rc2, 33, 2)] {
            let sent = session_request(&request(version)).expect("sendable");
            assert!(sent.all_signer_pubkeys.iter().all(|key| key.len() == length), "{version:?}");
            assert_eq!((sent.version, sent.other_signer_public_nonces.len()), (number, 1));
            let tweak = sent.taproot_tweak.expect("set");
            assert!(!tweak.key_spend_only && tweak.script_root == [7; 32]);
        }
    }

    #[test]
    fn a_session_signs_once() {
        let sessions = Sessions::default();
        let session = SessionId([1; 32]);
        assert!(!sessions.spend(session), "never begun");
        assert!(sessions.begun(session));
        assert!(!sessions.begun(session), "lnd repeats itself");
        assert!(sessions.spend(session));
        assert!(!sessions.spend(session), "used up");
    }
}
