//! Private keys of a sandbox node, derived from its seed.

use crate::wakers::lock;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::key::{Keypair, TapTweak, TweakedKeypair};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{CompressedPublicKey, Network, ScriptBuf};
use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
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
    /// Keys that were derived before: one costs as much as ten signatures.
    derived: Arc<Mutex<BTreeMap<Path, (SecretKey, PublicKey)>>>,
}

/// Three hardened numbers, then two that are not.
type Path = ([u32; 3], [u32; 2]);

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
        KeyRing { root, derived: Arc::default() }
    }

    /// The key at `m/1017'/1'/family'/0/index`; nothing when a number is out of BIP-32's range.
    pub(crate) fn family_key(&self, locator: KeyLocator) -> Option<SecretKey> {
        Some(self.derive(([PURPOSE_FAMILIES, COIN_TYPE, locator.family], [0, locator.index]))?.0)
    }

    /// The public key at `m/1017'/1'/family'/0/index`; nothing when a number is out of BIP-32's range.
    pub(crate) fn family_point(&self, locator: KeyLocator) -> Option<PublicKey> {
        Some(self.derive(([PURPOSE_FAMILIES, COIN_TYPE, locator.family], [0, locator.index]))?.1)
    }

    /// The key of the on-chain wallet at `path`; nothing when its index is out of BIP-32's range.
    pub(crate) fn wallet_key(&self, path: WalletPath) -> Option<SecretKey> {
        let purpose = if path.taproot { 86 } else { 84 };
        Some(self.derive(([purpose, COIN_TYPE, 0], [u32::from(path.change), path.index]))?.0)
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

    fn derive(&self, path: Path) -> Option<(SecretKey, PublicKey)> {
        if let Some(pair) = lock(&self.derived).get(&path) {
            return Some(*pair);
        }
        let (hardened, normal) = path;
        let hardened = hardened.into_iter().map(ChildNumber::from_hardened_idx);
        let numbers = hardened.chain(normal.into_iter().map(ChildNumber::from_normal_idx));
        let numbers: Vec<ChildNumber> = numbers.collect::<Result<_, _>>().ok()?;
        let secret = self.root.derive_priv(secp(), &numbers).ok()?.private_key;
        let pair = (secret, secret.public_key(secp()));
        lock(&self.derived).insert(path, pair);
        Some(pair)
    }
}

/// The key pair that spends a BIP-86 output of `secret`.
pub(crate) fn bip86_pair(secret: &SecretKey) -> TweakedKeypair {
    Keypair::from_secret_key(secp(), secret).tap_tweak(secp(), None)
}
