//! What a node is told so that it signs the account's input of a [`Modification`].
//!
//! # Source
//! Protocol notes, accounts §6 "Signing"; BIP-174, BIP-371.

use crate::account::{Account, AccountVersion};
use crate::keys::{KeyError, KeyLocator};
use crate::modification::Modification;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, KeySource};
use bitcoin::psbt::{Input, Psbt, PsbtSighashType, raw};
use bitcoin::secp256k1::PublicKey;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash};
use bitcoin::{Network, ScriptBuf, TxIn};
use std::collections::BTreeMap;

/// Purpose of the node's keys below its seed.
const PURPOSE: u32 = 1017;
/// Type of the field that carries the scalar which the node adds to the private key before it signs.
const SINGLE_TWEAK: u8 = 0x51;

/// A transaction that cannot be presented for signing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PsbtError {
    /// A place in the wallet beyond what derivation paths can name.
    #[error("key {0:?} has no derivation path")]
    Path(KeyLocator),
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Modification {
    /// The PSBT that the node signs: version 0 and the expiry path. Inputs and outputs of the wallet keep what the wallet
    /// said about them.
    ///
    /// # Errors
    /// [`PsbtError`] by variant.
    pub fn psbt(&self, network: Network) -> Result<Psbt, PsbtError> {
        let mut unsigned = self.transaction.clone();
        // Nested inputs get their script signature from their redeem script when they are signed.
        unsigned.input.iter_mut().for_each(|input| input.script_sig = ScriptBuf::new());
        let mut psbt = Psbt::from_unsigned_tx(unsigned).expect("no script signature and no witness is left");
        let own = decorated(&self.before, network)?;
        for (input, known) in self.transaction.input.iter().zip(&mut psbt.inputs) {
            *known = self.wallet_input(input).unwrap_or_else(|| own.clone());
        }
        if let Some(funded) = &self.funded {
            for (output, known) in self.transaction.output.iter().zip(&mut psbt.outputs) {
                let same = |other: &&bitcoin::TxOut| other.script_pubkey == output.script_pubkey;
                let place = funded.unsigned_tx.output.iter().position(|other| same(&other));
                *known = place.and_then(|place| funded.outputs.get(place)).cloned().unwrap_or_default();
            }
        }
        Ok(psbt)
    }

    fn wallet_input(&self, input: &TxIn) -> Option<Input> {
        let funded = self.funded.as_ref()?;
        let same = |other: &TxIn| other.previous_output == input.previous_output;
        let place = funded.unsigned_tx.input.iter().position(same)?;
        funded.inputs.get(place).cloned()
    }
}

/// The account's input as the node must see it.
///
/// # Errors
/// [`PsbtError`] by variant.
pub fn decorated(account: &Account, network: Network) -> Result<Input, PsbtError> {
    let terms = &account.terms;
    let (script, key) = (terms.inner_script()?, *terms.trader.point());
    let source = key_source(account.locator, network)?;
    let tweak = raw::Key { type_value: SINGLE_TWEAK, key: Vec::new() };
    let mut input = Input {
        witness_utxo: Some(terms.output(account.value)?),
        witness_script: Some(script.clone()),
        bip32_derivation: BTreeMap::from([(key, source.clone())]),
        unknown: BTreeMap::from([(tweak, terms.trader_tweak().to_vec())]),
        ..Input::default()
    };
    match terms.version {
        AccountVersion::V0 => input.sighash_type = Some(PsbtSighashType::from(EcdsaSighashType::All)),
        AccountVersion::V1 | AccountVersion::V2 => {
            describe_leaf(&mut input, account, &key, script, source)?;
        }
    }
    Ok(input)
}

fn describe_leaf(
    input: &mut Input,
    account: &Account,
    key: &PublicKey,
    script: ScriptBuf,
    source: KeySource,
) -> Result<(), PsbtError> {
    let leaf = TapLeafHash::from_script(&script, LeafVersion::TapScript);
    let bytes = account.terms.expiry_control_block()?.ok_or(KeyError::Degenerate { what: "control block" })?;
    let control = ControlBlock::decode(&bytes).map_err(|_| KeyError::Degenerate { what: "control block" })?;
    input.tap_key_origins = BTreeMap::from([(key.x_only_public_key().0, (vec![leaf], source))]);
    input.tap_scripts = BTreeMap::from([(control, (script, LeafVersion::TapScript))]);
    Ok(())
}

/// `m/1017'/coin'/family'/0/index`; the fingerprint is not known and stays zero.
fn key_source(locator: KeyLocator, network: Network) -> Result<KeySource, PsbtError> {
    let coin = u32::from(network != Network::Bitcoin);
    let bad = |_| PsbtError::Path(locator);
    let hardened = |number| ChildNumber::from_hardened_idx(number).map_err(bad);
    let normal = |number| ChildNumber::from_normal_idx(number).map_err(bad);
    let path = [hardened(PURPOSE)?, hardened(coin)?, hardened(locator.family)?, normal(0)?, normal(locator.index)?];
    Ok((Fingerprint::default(), DerivationPath::from(path.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_network_and_place() {
        let path = |family, index, network| {
            key_source(KeyLocator { family, index }, network).map(|(_, path)| format!("m/{path}"))
        };
        assert_eq!(path(220, 7, Network::Bitcoin), Ok("m/1017'/0'/220'/0/7".into()));
        assert_eq!(path(220, 7, Network::Regtest), Ok("m/1017'/1'/220'/0/7".into()));
        let beyond = KeyLocator { family: 220, index: 1 << 31 };
        assert_eq!(path(beyond.family, beyond.index, Network::Regtest), Err(PsbtError::Path(beyond)));
    }
}
