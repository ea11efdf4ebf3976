//! Account and channel scripts, and recognition of how they are spent.

use crate::account::{AccountTerms, AccountVersion};
use crate::curve::{SECP, add_generator, scalar_mod_order, sha256_of};
use crate::keys::{BatchKey, KeyError};
use crate::musig2::{self, Musig2Version};
use crate::units::{BlockHeight, Sats};
use bitcoin::blockdata::opcodes::all as op;
use bitcoin::hashes::Hash;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::constants::GENERATOR_X;
use bitcoin::secp256k1::{Parity, PublicKey, Scalar, XOnlyPublicKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{ScriptBuf, Transaction, TxOut, Witness};

impl BatchKey {
    /// The next key of the sequence: `B + G`.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] at the point at infinity.
    ///
    /// # Source
    /// Protocol notes, scripts §1.
    pub fn next(&self) -> Result<BatchKey, KeyError> {
        add_generator(self.point(), &Scalar::ONE, "next batch key").map(BatchKey::new)
    }

    /// The previous key of the sequence: `B - G`.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] at the point at infinity.
    ///
    /// # Source
    /// Protocol notes, scripts §1.
    pub fn prev(&self) -> Result<BatchKey, KeyError> {
        let generator = XOnlyPublicKey::from_slice(&GENERATOR_X).expect("the generator is on the curve");
        // The generator's y is even, so the odd point with its x is its negative.
        let minus_generator = PublicKey::from_x_only_public_key(generator, Parity::Odd);
        let sum = self.point().combine(&minus_generator);
        sum.map(BatchKey::new).map_err(|_| KeyError::Degenerate { what: "previous batch key" })
    }

    /// The keys from here back to `oldest`, both included. Nothing when `oldest` is not among the [`MAX_BATCH_HISTORY`]
    /// keys that end here.
    ///
    /// # Source
    /// Protocol notes, scripts §1 "Batch key sequence".
    pub fn back_to(&self, oldest: &BatchKey) -> Option<Vec<BatchKey>> {
        let mut keys = vec![*self];
        while keys.last() != Some(oldest) {
            if keys.len() == MAX_BATCH_HISTORY {
                return None;
            }
            keys.push(keys.last()?.prev().ok()?);
        }
        Some(keys)
    }
}

/// Batches that are listed at most when the batches between two are asked for.
pub const MAX_BATCH_HISTORY: usize = 10_000;

/// The first batch key of every venue.
pub const INITIAL_BATCH_KEY: &str = "02824d0cbac65e01712124c50ff2cc74ce22851d7b444c1bf2ae66afefb8eaf27f";

impl AccountVersion {
    /// The MuSig2 draft of a taproot account; nothing for version 0.
    ///
    /// # Source
    /// Protocol notes, scripts §3.
    pub fn musig2(self) -> Option<Musig2Version> {
        match self {
            AccountVersion::V0 => None,
            AccountVersion::V1 => Some(Musig2Version::V040),
            AccountVersion::V2 => Some(Musig2Version::V100Rc2),
        }
    }
}

impl AccountTerms {
    /// Scalar added to the trader's key for this output: `SHA256(ser33(B) || s || ser33(T))`.
    ///
    /// # Source
    /// Protocol notes, scripts §1.
    pub fn trader_tweak(&self) -> [u8; 32] {
        sha256_of(&[&self.batch.serialize(), self.secret.as_bytes(), &self.trader.serialize()])
    }

    /// The trader's key of this output, `T' = T + tweak·G`.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn tweaked_trader(&self) -> Result<PublicKey, KeyError> {
        add_generator(self.trader.point(), &scalar_mod_order(self.trader_tweak()), "tweaked trader key")
    }

    /// Scalar added to the auctioneer's key for this output (version 0): `SHA256(ser33(T') || ser33(A))`.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn auctioneer_tweak(&self) -> Result<[u8; 32], KeyError> {
        Ok(self.auctioneer_tweak_for(&self.tweaked_trader()?))
    }

    fn auctioneer_tweak_for(&self, tweaked_trader: &PublicKey) -> [u8; 32] {
        sha256_of(&[&tweaked_trader.serialize(), &self.auctioneer.serialize()])
    }

    fn tweaked_auctioneer_for(&self, tweaked_trader: &PublicKey) -> Result<PublicKey, KeyError> {
        let tweak = scalar_mod_order(self.auctioneer_tweak_for(tweaked_trader));
        add_generator(self.auctioneer.point(), &tweak, "tweaked auctioneer key")
    }

    /// The auctioneer's key of this output (version 0), `A' = A + tweak·G`.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn tweaked_auctioneer(&self) -> Result<PublicKey, KeyError> {
        self.tweaked_auctioneer_for(&self.tweaked_trader()?)
    }

    /// Version 0: the witness script. Versions 1 and 2: the expiry leaf.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    ///
    /// # Source
    /// Protocol notes, scripts §2 and §3.
    pub fn inner_script(&self) -> Result<ScriptBuf, KeyError> {
        match self.version {
            AccountVersion::V0 => self.witness_script_v0(),
            AccountVersion::V1 | AccountVersion::V2 => self.expiry_leaf(),
        }
    }

    /// What all outputs of this account under this batch key share, whatever their expiry.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn script_family(&self) -> Result<ScriptFamily, KeyError> {
        let trader = self.tweaked_trader()?;
        Ok(match self.internal_key()? {
            None => ScriptFamily::V0 { trader, auctioneer: self.tweaked_auctioneer_for(&trader)? },
            Some(internal) => ScriptFamily::Taproot { trader: trader.x_only_public_key().0, internal },
        })
    }

    fn witness_script_v0(&self) -> Result<ScriptBuf, KeyError> {
        let trader = self.tweaked_trader()?;
        Ok(witness_script_v0(&trader, &self.tweaked_auctioneer_for(&trader)?, self.expiry))
    }

    fn expiry_leaf(&self) -> Result<ScriptBuf, KeyError> {
        Ok(expiry_leaf(&self.tweaked_trader()?.x_only_public_key().0, self.expiry))
    }

    /// Versions 1 and 2: Merkle root of the taproot tweak (the leaf's hash). Also defined, unused, for version 0.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn merkle_root(&self) -> Result<[u8; 32], KeyError> {
        let leaf = self.expiry_leaf()?;
        Ok(TapLeafHash::from_script(&leaf, LeafVersion::TapScript).to_byte_array())
    }

    /// Versions 1 and 2: the aggregate of both untweaked keys; the same for every output of the account.
    /// Version 0 has none.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn internal_key(&self) -> Result<Option<XOnlyPublicKey>, KeyError> {
        let keys = [*self.auctioneer.point(), *self.trader.point()];
        self.version.musig2().map(|draft| musig2::aggregate(keys, draft)).transpose()
    }

    /// The output script.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    ///
    /// # Source
    /// Protocol notes, scripts §2 and §3.
    pub fn output_script(&self) -> Result<ScriptBuf, KeyError> {
        self.script_family()?.output_script(self.expiry)
    }

    /// The output with this value.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn output(&self, value: Sats) -> Result<TxOut, KeyError> {
        Ok(TxOut { value: value.into(), script_pubkey: self.output_script()? })
    }

    /// The same account one output later: batch key advanced by one.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn next(&self) -> Result<AccountTerms, KeyError> {
        Ok(AccountTerms { batch: self.batch.next()?, ..*self })
    }

    /// Version 0, cooperative: both DER signatures *without* sighash byte.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    ///
    /// # Source
    /// Protocol notes, scripts §2.
    pub fn cooperative_witness_v0(&self, auctioneer_der: &[u8], trader_der: &[u8]) -> Result<Witness, KeyError> {
        let script = self.witness_script_v0()?;
        Ok(Witness::from_slice(&[
            &with_sighash_all(auctioneer_der)[..],
            &with_sighash_all(trader_der),
            script.as_bytes(),
        ]))
    }

    /// After expiry, by the trader alone: DER without sighash byte (version 0) or 64-byte Schnorr signature.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    ///
    /// # Source
    /// Protocol notes, scripts §2 and §3.
    pub fn expiry_witness(&self, trader_signature: &[u8]) -> Result<Witness, KeyError> {
        let script = self.inner_script()?;
        Ok(match self.expiry_control_block()? {
            None => Witness::from_slice(&[&[], &with_sighash_all(trader_signature)[..], script.as_bytes()]),
            Some(control) => Witness::from_slice(&[trader_signature, script.as_bytes(), &control[..]]),
        })
    }

    /// Versions 1 and 2: the control block of the expiry leaf. Version 0 has none.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn expiry_control_block(&self) -> Result<Option<[u8; 33]>, KeyError> {
        let Some(internal) = self.internal_key()? else { return Ok(None) };
        let root = TapNodeHash::from_byte_array(self.merkle_root()?);
        let (_, parity) = internal.tap_tweak(&SECP, Some(root));
        Ok(Some(control_block(internal, parity)))
    }
}

/// The outputs of one account under one batch key, which differ by their expiry only. What costs most is computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptFamily {
    /// Version 0.
    V0 {
        /// `T'`.
        trader: PublicKey,
        /// `A'`.
        auctioneer: PublicKey,
    },
    /// Versions 1 and 2.
    Taproot {
        /// `x(T')`.
        trader: XOnlyPublicKey,
        /// The aggregate.
        internal: XOnlyPublicKey,
    },
}

impl ScriptFamily {
    /// The output script with this expiry.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn output_script(&self, expiry: BlockHeight) -> Result<ScriptBuf, KeyError> {
        match self {
            ScriptFamily::V0 { trader, auctioneer } => Ok(witness_script_v0(trader, auctioneer, expiry).to_p2wsh()),
            ScriptFamily::Taproot { trader, internal } => {
                let leaf = TapLeafHash::from_script(&expiry_leaf(trader, expiry), LeafVersion::TapScript);
                Ok(ScriptBuf::new_p2tr(&*SECP, *internal, Some(TapNodeHash::from(leaf))))
            }
        }
    }
}

fn witness_script_v0(trader: &PublicKey, auctioneer: &PublicKey, expiry: BlockHeight) -> ScriptBuf {
    bitcoin::script::Builder::new()
        .push_slice(trader.serialize())
        .push_opcode(op::OP_CHECKSIGVERIFY)
        .push_slice(auctioneer.serialize())
        .push_opcode(op::OP_CHECKSIG)
        .push_opcode(op::OP_IFDUP)
        .push_opcode(op::OP_NOTIF)
        .push_int(i64::from(expiry.get()))
        .push_opcode(op::OP_CLTV)
        .push_opcode(op::OP_ENDIF)
        .into_script()
}

fn expiry_leaf(trader: &XOnlyPublicKey, expiry: BlockHeight) -> ScriptBuf {
    bitcoin::script::Builder::new()
        .push_slice(trader.serialize())
        .push_opcode(op::OP_CHECKSIGVERIFY)
        .push_int(i64::from(expiry.get()))
        .push_opcode(op::OP_CLTV)
        .into_script()
}

/// The control block of the only leaf of a tree.
fn control_block(internal: XOnlyPublicKey, parity: Parity) -> [u8; 33] {
    let mut block = [0; 33];
    block[0] = LeafVersion::TapScript.to_consensus() | parity.to_u8();
    block[1..].copy_from_slice(&internal.serialize());
    block
}

fn with_sighash_all(der: &[u8]) -> Vec<u8> {
    const SIGHASH_ALL: u8 = 0x01;
    [der, &[SIGHASH_ALL]].concat()
}

/// How an account output was spent, judged by the witness alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpendKind {
    /// By the trader alone after expiry.
    Expiry,
    /// By trader and auctioneer.
    Cooperative,
    /// Neither form.
    Unknown,
}

/// Classifies the witness of an input that spends an account output. Expiry forms are tried first.
///
/// # Source
/// Protocol notes, scripts §4.
pub fn classify_spend(witness: &Witness) -> SpendKind {
    let elements: Vec<&[u8]> = witness.iter().collect();
    if is_expiry_v0(&elements) || is_expiry_taproot(&elements) {
        SpendKind::Expiry
    } else if is_cooperative_v0(&elements) || is_cooperative_taproot(&elements) {
        SpendKind::Cooperative
    } else {
        SpendKind::Unknown
    }
}

fn is_expiry_v0(elements: &[&[u8]]) -> bool {
    matches!(elements, [first, _, _] if first.is_empty())
}

fn is_expiry_taproot(elements: &[&[u8]]) -> bool {
    const ANNEX_TAG: u8 = 0x50;
    let without_annex = match elements {
        [rest @ .., last] if !rest.is_empty() && last.first() == Some(&ANNEX_TAG) => rest,
        all => all,
    };
    let [_, script, control] = without_annex else { return false };
    let control_fits = control.len() >= 33 && matches!(control.first(), Some(0xc0 | 0xc1));
    let script_fits =
        (36..=39).contains(&script.len()) && script.first() == Some(&0x20) && script.last() == Some(&0xb1);
    control_fits && script_fits
}

fn is_cooperative_v0(elements: &[&[u8]]) -> bool {
    matches!(elements, [first, _, _] if !first.is_empty())
}

fn is_cooperative_taproot(elements: &[&[u8]]) -> bool {
    matches!(elements, [only] if only.len() == 64)
}

/// Index of the first output with this script.
pub fn find_output(transaction: &Transaction, script: &bitcoin::Script) -> Option<u32> {
    let position = transaction.output.iter().position(|output| *output.script_pubkey == *script)?;
    u32::try_from(position).ok()
}

/// A transaction's input that cannot be hashed for signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction has no input {0}, or not one previous output per input")]
pub struct SighashError(pub usize);

/// BIP-341 key-spend hash, SIGHASH_DEFAULT, no annex.
///
/// # Errors
/// [`SighashError`].
pub fn key_spend_sighash(
    transaction: &Transaction,
    input: usize,
    prev_outputs: &[TxOut],
) -> Result<[u8; 32], SighashError> {
    SighashCache::new(transaction)
        .taproot_key_spend_signature_hash(input, &Prevouts::All(prev_outputs), TapSighashType::Default)
        .map(|hash| hash.to_byte_array())
        .map_err(|_| SighashError(input))
}

/// BIP-341 script-spend hash of a leaf, SIGHASH_DEFAULT.
///
/// # Errors
/// [`SighashError`].
pub fn leaf_spend_sighash(
    transaction: &Transaction,
    input: usize,
    prev_outputs: &[TxOut],
    leaf: &bitcoin::Script,
) -> Result<[u8; 32], SighashError> {
    let leaf_hash = TapLeafHash::from_script(leaf, LeafVersion::TapScript);
    SighashCache::new(transaction)
        .taproot_script_spend_signature_hash(input, &Prevouts::All(prev_outputs), leaf_hash, TapSighashType::Default)
        .map(|hash| hash.to_byte_array())
        .map_err(|_| SighashError(input))
}

/// BIP-143 hash of a P2WSH input, SIGHASH_ALL.
///
/// # Errors
/// [`SighashError`].
pub fn segwit_v0_sighash(
    transaction: &Transaction,
    input: usize,
    value: Sats,
    witness_script: &bitcoin::Script,
) -> Result<[u8; 32], SighashError> {
    SighashCache::new(transaction)
        .p2wsh_signature_hash(input, witness_script, value.into(), EcdsaSighashType::All)
        .map(|hash| hash.to_byte_array())
        .map_err(|_| SighashError(input))
}
