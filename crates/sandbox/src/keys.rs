//! Private keys of a sandbox node, derived from its seed.

use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::key::{Keypair, TapTweak, TweakedKeypair};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{CompressedPublicKey, Network, ScriptBuf};
use core::fmt;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use tidegate_ports::AddressKind;
use tidegate_protocol::keys::KeyLocator;

/// Key family of a node's identity key.
pub(crate) const FAMILY_IDENTITY: u32 = 6;
/// Key family of payment base points.
pub(crate) const FAMILY_PAYMENT: u32 = 3;

/// Purpose of the keys that are found by family and index.
const PURPOSE_FAMILIES: u32 = 1017;
/// Coin type of every test network.
const COIN_TYPE: u32 = 1;

/// The context of the curve; making one costs more than a signature.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// Place of a key of the on-chain wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WalletPath {
    /// P2TR (BIP-86) instead of P2WPKH (BIP-84).
    pub(crate) taproot: bool,
    /// Change branch.
    pub(crate) change: bool,
    /// Index in the branch.
    pub(crate) index: u32,
}

impl WalletPath {
    /// Whether a kind of address is taproot.
    pub(crate) fn is_taproot(kind: AddressKind) -> bool {
        match kind {
            AddressKind::WitnessPubkeyHash => false,
            AddressKind::Taproot => true,
        }
    }
}

/// The root of a node's keys. Masked when printed.
#[derive(Clone)]
pub(crate) struct KeyRing {
    root: Xpriv,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing(secret)")
    }
}

impl KeyRing {
    /// The keys of the node `name` in the world of `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> KeyRing {
        let mut engine = sha256::Hash::engine();
        engine.input(b"tidegate sandbox node");
        engine.input(&seed.to_be_bytes());
        engine.input(name.as_bytes());
        let bytes = sha256::Hash::from_engine(engine).to_byte_array();
        let root = Xpriv::new_master(Network::Regtest, &bytes).expect("a hash is a valid master key but for 2^-127");
        KeyRing { root }
    }

    /// The key at `m/1017'/1'/family'/0/index`; nothing when a number is out of BIP-32's range.
    pub(crate) fn family_key(&self, locator: KeyLocator) -> Option<SecretKey> {
        let index = ChildNumber::from_normal_idx(locator.index).ok()?;
        self.derive([PURPOSE_FAMILIES, COIN_TYPE, locator.family], [ChildNumber::Normal { index: 0 }, index])
    }

    /// The public key at `m/1017'/1'/family'/0/index`; nothing when a number is out of BIP-32's range.
    pub(crate) fn family_point(&self, locator: KeyLocator) -> Option<PublicKey> {
        self.family_key(locator).map(|key| key.public_key(secp()))
    }

    /// The key of the on-chain wallet at `path`; nothing when its index is out of BIP-32's range.
    pub(crate) fn wallet_key(&self, path: WalletPath) -> Option<SecretKey> {
        let purpose = if path.taproot { 86 } else { 84 };
        let branch = ChildNumber::Normal { index: u32::from(path.change) };
        let index = ChildNumber::from_normal_idx(path.index).ok()?;
        self.derive([purpose, COIN_TYPE, 0], [branch, index])
    }

    /// The output script of the wallet key at `path`; nothing when its index is out of BIP-32's range.
    pub(crate) fn wallet_script(&self, path: WalletPath) -> Option<ScriptBuf> {
        let secret = self.wallet_key(path)?;
        Some(if path.taproot {
            let tweaked = bip86_pair(&secret);
            ScriptBuf::new_p2tr_tweaked(bitcoin::key::TweakedPublicKey::from_keypair(tweaked))
        } else {
            ScriptBuf::new_p2wpkh(&CompressedPublicKey(secret.public_key(secp())).wpubkey_hash())
        })
    }

    fn derive(&self, hardened: [u32; 3], normal: [ChildNumber; 2]) -> Option<SecretKey> {
        let mut path = Vec::with_capacity(5);
        for number in hardened {
            path.push(ChildNumber::from_hardened_idx(number).ok()?);
        }
        path.extend(normal);
        self.root.derive_priv(secp(), &path).ok().map(|key| key.private_key)
    }
}

/// The key pair that spends a BIP-86 output of `secret`.
pub(crate) fn bip86_pair(secret: &SecretKey) -> TweakedKeypair {
    Keypair::from_secret_key(secp(), secret).tap_tweak(secp(), None)
}
