//! Both halves of the signature of a spend outside of batches: a change of the account, or its close.
//!
//! The venue's half comes first and is checked. Ours completes a transaction that exists in this process only: nothing
//! that could be published leaves before it is stored. A venue whose answer is lost holds our nonce, or nothing, and
//! can do nothing with it; the next attempt makes a new nonce.

use crate::error::{CloseError, ModifyError};
use bitcoin::secp256k1::schnorr::Signature as SchnorrSignature;
use bitcoin::secp256k1::{Message, Scalar, Secp256k1, XOnlyPublicKey};
use bitcoin::{TxOut, Witness};
use tidegate_ports::{
    LinkError, ModifyAccount, ModifySignature, Musig2Request, NodeError, ScriptSpend, SessionId, SignInput, Signer,
    TraderEnv, VenueLink,
};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::keys::{KeyDescriptor, KeyError};
use tidegate_protocol::modification::Modification;
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce};
use tidegate_protocol::script::{key_spend_sighash, segwit_v0_sighash};
use tidegate_protocol::spend::ClosePath;

/// Why there is no signature.
#[derive(Debug)]
pub(crate) enum CosignError {
    BadSignature,
    Venue(LinkError),
    Node(NodeError),
    Key(KeyError),
}

impl From<LinkError> for CosignError {
    fn from(error: LinkError) -> CosignError {
        CosignError::Venue(error)
    }
}

impl From<NodeError> for CosignError {
    fn from(error: NodeError) -> CosignError {
        CosignError::Node(error)
    }
}

impl From<KeyError> for CosignError {
    fn from(error: KeyError) -> CosignError {
        CosignError::Key(error)
    }
}

impl From<CosignError> for CloseError {
    fn from(error: CosignError) -> CloseError {
        match error {
            CosignError::BadSignature => CloseError::BadSignature,
            CosignError::Venue(error) => error.into(),
            CosignError::Node(error) => error.into(),
            CosignError::Key(error) => error.into(),
        }
    }
}

impl From<CosignError> for ModifyError {
    fn from(error: CosignError) -> ModifyError {
        match error {
            CosignError::BadSignature => ModifyError::BadSignature,
            CosignError::Venue(error) => error.into(),
            CosignError::Node(error) => error.into(),
            CosignError::Key(error) => error.into(),
        }
    }
}

/// What is signed: the change, the outputs that its inputs spend, and the place of the account's input.
struct Spend<'a> {
    change: &'a Modification,
    prev_outputs: Vec<TxOut>,
    input: usize,
}

impl Spend<'_> {
    /// The account's output that is spent.
    fn own(&self) -> Result<&TxOut, CosignError> {
        self.prev_outputs.get(self.input).ok_or(CosignError::BadSignature)
    }

    fn taproot_hash(&self) -> Result<[u8; 32], CosignError> {
        key_spend_sighash(&self.change.transaction, self.input, &self.prev_outputs)
            .map_err(|_| CosignError::BadSignature)
    }
}

/// The witness of the account's input: by ourselves on the expiry path, else with the venue's half. It was checked.
///
/// # Source
/// Protocol notes, accounts §6 "Signing" and §7.
pub(crate) async fn witness<E: TraderEnv>(env: &E, change: &Modification) -> Result<Witness, CosignError> {
    let spend = Spend { change, prev_outputs: change.prev_outputs()?, input: change.own_input() };
    match (change.path, change.before.terms.version) {
        (ClosePath::Expiry(_), _) => by_expiry(env, &spend).await,
        (ClosePath::Cooperative, AccountVersion::V0) => together_v0(env, &spend).await,
        (ClosePath::Cooperative, AccountVersion::V1) => together_taproot(env, &spend, Musig2Version::V040).await,
        (ClosePath::Cooperative, AccountVersion::V2) => together_taproot(env, &spend, Musig2Version::V100Rc2).await,
    }
}

fn sign_request(spend: &Spend<'_>, script: ScriptSpend) -> SignInput {
    let account = &spend.change.before;
    SignInput {
        transaction: spend.change.transaction.clone(),
        input: spend.input,
        prev_outputs: spend.prev_outputs.clone(),
        key: KeyDescriptor { point: *account.key().point(), locator: account.locator },
        tweak: account.terms.trader_tweak(),
        spend: script,
    }
}

async fn by_expiry<E: TraderEnv>(env: &E, spend: &Spend<'_>) -> Result<Witness, CosignError> {
    let terms = &spend.change.before.terms;
    let script = terms.inner_script()?;
    let how = match terms.version {
        AccountVersion::V0 => ScriptSpend::SegwitV0 { script },
        AccountVersion::V1 | AccountVersion::V2 => ScriptSpend::Tapscript { leaf: script },
    };
    let signature = env.signer().sign_input(&sign_request(spend, how)).await?;
    Ok(terms.expiry_witness(&signature)?)
}

fn modify_request(spend: &Spend<'_>, trader_nonce: Option<PublicNonce>) -> ModifyAccount {
    ModifyAccount {
        account: spend.change.before.key(),
        new_inputs: spend.change.new_inputs(),
        new_outputs: spend.change.new_outputs(),
        new_params: spend.change.new_params().map(|new| (new.value, new.expiry, new.version)),
        trader_nonce,
        prev_outputs: spend.prev_outputs.clone(),
    }
}

async fn together_v0<E: TraderEnv>(env: &E, spend: &Spend<'_>) -> Result<Witness, CosignError> {
    const SIGHASH_ALL: u8 = 0x01;
    let answer = env.link().modify(&modify_request(spend, None)).await?;
    let theirs = match answer.signature.split_last() {
        Some((&SIGHASH_ALL, der)) => der.to_vec(),
        _ => return Err(CosignError::BadSignature),
    };
    verify_v0(spend, &theirs)?;
    let terms = &spend.change.before.terms;
    let script = terms.inner_script()?;
    let ours = env.signer().sign_input(&sign_request(spend, ScriptSpend::SegwitV0 { script })).await?;
    Ok(terms.cooperative_witness_v0(&theirs, &ours)?)
}

/// The venue's ECDSA half is valid: what the network refuses must not be stored.
fn verify_v0(spend: &Spend<'_>, der: &[u8]) -> Result<(), CosignError> {
    let bad = |_| CosignError::BadSignature;
    let (secp, before) = (Secp256k1::verification_only(), &spend.change.before);
    let script = before.terms.inner_script()?;
    let hash = segwit_v0_sighash(&spend.change.transaction, spend.input, before.value, &script)
        .map_err(|_| CosignError::BadSignature)?;
    let tweak = Scalar::from_be_bytes(before.terms.auctioneer_tweak()?).map_err(|_| CosignError::BadSignature)?;
    let key = before.terms.auctioneer.point().add_exp_tweak(&secp, &tweak).map_err(bad)?;
    let signature = bitcoin::secp256k1::ecdsa::Signature::from_der(der).map_err(bad)?;
    secp.verify_ecdsa(&Message::from_digest(hash), &signature, &key).map_err(bad)
}

async fn together_taproot<E: TraderEnv>(
    env: &E,
    spend: &Spend<'_>,
    version: Musig2Version,
) -> Result<Witness, CosignError> {
    let account = &spend.change.before;
    let request = Musig2Request {
        signer: account.locator,
        keys: [*account.terms.auctioneer.point(), *account.key().point()],
        version,
        merkle_root: account.terms.merkle_root()?,
        other_nonce: None,
    };
    let (session, nonce) = env.signer().musig2_begin(&request).await?;
    let combined = combine(env, spend, session, nonce).await;
    if combined.is_err()
        && let Err(error) = env.signer().musig2_cleanup(session).await
    {
        tracing::debug!(%error, "the session was not cleaned up");
    }
    let signature = combined?;
    verify_taproot(spend, &signature)?;
    Ok(Witness::from_slice(&[signature]))
}

async fn combine<E: TraderEnv>(
    env: &E,
    spend: &Spend<'_>,
    session: SessionId,
    nonce: PublicNonce,
) -> Result<[u8; 64], CosignError> {
    let hash = spend.taproot_hash()?;
    let ModifySignature { signature, server_nonce } = env.link().modify(&modify_request(spend, Some(nonce))).await?;
    let theirs = <[u8; 32]>::try_from(signature.as_slice()).map_err(|_| CosignError::BadSignature)?;
    let their_nonce = server_nonce.ok_or(CosignError::BadSignature)?;
    env.signer().musig2_register(session, &their_nonce).await?;
    env.signer().musig2_sign(session, hash, false).await?;
    Ok(env.signer().musig2_combine(session, &PartialSignature(theirs)).await?)
}

/// The combined signature is valid for the output that is spent.
fn verify_taproot(spend: &Spend<'_>, signature: &[u8; 64]) -> Result<(), CosignError> {
    let bad = |_| CosignError::BadSignature;
    let hash = spend.taproot_hash()?;
    let program = spend.own()?.script_pubkey.as_bytes().get(2..).unwrap_or_default();
    let key = XOnlyPublicKey::from_slice(program).map_err(bad)?;
    let signature = SchnorrSignature::from_slice(signature).map_err(bad)?;
    Secp256k1::verification_only().verify_schnorr(&signature, &Message::from_digest(hash), &key).map_err(bad)
}
