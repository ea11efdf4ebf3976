//! The node's keys: derivation, signatures, signing sessions.

use crate::keys::secp;
use crate::node::{NodeState, SandboxNode, refused};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::Keypair;
use bitcoin::secp256k1::{Message, PublicKey, Scalar, SecretKey, ecdh};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash};
use core::fmt;
use tidegate_ports::{Musig2Request, NodeError, ScriptSpend, SessionId, SignInput, Signer};
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, SharedSecret};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SecretNonce, SigningContext, nonce_from};

/// A MuSig2 session: nonces for one message.
pub(crate) struct Session {
    request: Musig2Request,
    public_nonce: PublicNonce,
    other_nonce: Option<PublicNonce>,
    /// Taken by the first signature, so that there is no second.
    secret_nonce: Option<SecretNonce>,
    /// Message, partial signature.
    signed: Option<(SigningContext, PartialSignature)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("signer", &self.request.signer)
            .field("fresh", &self.secret_nonce.is_some())
            .finish_non_exhaustive()
    }
}

impl NodeState {
    fn secret(&self, locator: KeyLocator, call: &'static str) -> Result<SecretKey, NodeError> {
        self.ring.family_key(locator).ok_or_else(|| refused(call, "key family or index is out of range"))
    }

    fn session(&mut self, id: SessionId, call: &'static str) -> Result<&mut Session, NodeError> {
        self.sessions.get_mut(&id).ok_or_else(|| refused(call, "there is no such signing session"))
    }

    fn begin(&mut self, request: &Musig2Request, random: [u8; 32]) -> Result<(SessionId, PublicNonce), NodeError> {
        let call = "musig2_begin";
        let own = self.key(request.signer, call)?.point;
        if !request.keys.contains(&own) {
            return Err(refused(call, "our key is not among the signers' keys"));
        }
        let (secret_nonce, public_nonce) =
            nonce_from(request.version, random, &own).map_err(|error| refused(call, error))?;
        let id = SessionId(sha256::Hash::hash(&public_nonce.0).to_byte_array());
        let session = Session {
            request: request.clone(),
            public_nonce,
            other_nonce: request.other_nonce,
            secret_nonce: Some(secret_nonce),
            signed: None,
        };
        self.sessions.insert(id, session);
        Ok((id, public_nonce))
    }

    fn register(&mut self, id: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        let call = "musig2_register";
        let session = self.session(id, call)?;
        if session.other_nonce.is_some() {
            return Err(refused(call, "all nonces are known already"));
        }
        session.other_nonce = Some(*other);
        Ok(())
    }

    fn partial_sign(&mut self, id: SessionId, message: [u8; 32], last: bool) -> Result<PartialSignature, NodeError> {
        let call = "musig2_sign";
        let locator = self.session(id, call)?.request.signer;
        let secret = self.secret(locator, call)?;
        let session = self.session(id, call)?;
        let other = session.other_nonce.ok_or_else(|| refused(call, "the other side's nonces are missing"))?;
        // From here on the nonce is spent, whatever happens.
        let nonce = session.secret_nonce.take().ok_or_else(|| refused(call, "the session has signed already"))?;
        let context = SigningContext {
            version: session.request.version,
            keys: session.request.keys,
            merkle_root: session.request.merkle_root,
            nonces: [session.public_nonce, other],
            message,
        };
        let partial = context.partial_sign(&secret, nonce).map_err(|error| refused(call, error))?;
        session.signed = Some((context, partial));
        if last {
            self.sessions.remove(&id);
        }
        Ok(partial)
    }

    fn combine(&mut self, id: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        let call = "musig2_combine";
        let session = self.session(id, call)?;
        let (context, own) = session.signed.as_ref().ok_or_else(|| refused(call, "the session has not signed yet"))?;
        let signature = context.combine([*own, *other]).map_err(|error| refused(call, error))?;
        self.sessions.remove(&id);
        Ok(signature)
    }

    fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        let call = "sign_input";
        if self.key(request.key.locator, call)?.point != request.key.point {
            return Err(refused(call, "the key at that place is another one"));
        }
        if request.prev_outputs.len() != request.transaction.input.len() {
            return Err(refused(call, "not one spent output per input"));
        }
        let spent = request.prev_outputs.get(request.input).ok_or_else(|| refused(call, "there is no such input"))?;
        let tweak = Scalar::from_be_bytes(request.tweak).map_err(|error| refused(call, error))?;
        let secret = self.secret(request.key.locator, call)?;
        let secret = secret.add_tweak(&tweak).map_err(|error| refused(call, error))?;
        let mut cache = SighashCache::new(&request.transaction);
        match &request.spend {
            ScriptSpend::SegwitV0 { script } => {
                let hash = cache
                    .p2wsh_signature_hash(request.input, script, spent.value, EcdsaSighashType::All)
                    .map_err(|error| refused(call, error))?;
                Ok(secp().sign_ecdsa_low_r(&Message::from(hash), &secret).serialize_der().to_vec())
            }
            ScriptSpend::Tapscript { leaf } => {
                let leaf = TapLeafHash::from_script(leaf, LeafVersion::TapScript);
                let spent = Prevouts::All(&request.prev_outputs);
                let hash = cache
                    .taproot_script_spend_signature_hash(request.input, &spent, leaf, TapSighashType::Default)
                    .map_err(|error| refused(call, error))?;
                let pair = Keypair::from_secret_key(secp(), &secret);
                Ok(secp().sign_schnorr_no_aux_rand(&Message::from(hash), &pair).serialize().to_vec())
            }
        }
    }
}

impl Signer for SandboxNode {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        self.change(|node, _| node.next_key(family))
    }

    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        self.read(|node, _| node.key(locator, "derive_key"))
    }

    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        let secret = self.read(|node, _| node.secret(locator, "shared_secret"))?;
        // The curve library's hash is SHA-256 of the compressed point, as the port demands.
        Ok(SharedSecret::new(ecdh::SharedSecret::new(other, &secret).secret_bytes()))
    }

    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        let secret = self.read(|node, _| node.secret(locator, "sign_message"))?;
        let digest = Message::from_digest(sha256::Hash::hash(message).to_byte_array());
        Ok(secp().sign_ecdsa(&digest, &secret).serialize_der().to_vec())
    }

    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        self.read(|node, _| node.sign_input(request))
    }

    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        self.world().change(|state| {
            let random = state.entropy.next();
            state.node_and_chain(&self.id()).0.begin(request, random)
        })
    }

    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        self.change(|node, _| node.register(session, other))
    }

    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        self.change(|node, _| node.partial_sign(session, message, last))
    }

    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.change(|node, _| node.combine(session, other))
    }

    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.change(|node, _| node.sessions.remove(&session));
        Ok(())
    }
}
