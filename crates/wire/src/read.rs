//! Bounded, strict reading of what messages are made of.

use crate::error::DecodeError;
use crate::poolrpc;
use bitcoin::consensus::Decodable;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use std::collections::HashMap;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::keys::{AccountKey, KeyError, OrderNonce};
use tidegate_protocol::musig2::PublicNonce;
use tidegate_protocol::units::{Sats, UnitCount};

/// Accounts that one stream, and so one message, may concern.
///
/// # Source
/// Protocol notes, auctioneer §2.
pub const MAX_ACCOUNTS: usize = 50;

/// Matches in one message: more funding outputs do not fit a standard transaction (172 of 400,000 weight units each).
pub const MAX_MATCHES: usize = 2_325;

/// Bytes of a transaction: 400,000 weight units, all of them witness.
pub const MAX_TRANSACTION_BYTES: usize = 400_000;

/// Inputs or outputs in one message: more do not fit such a transaction.
pub const MAX_INPUTS: usize = 10_000;

/// Bytes of a script: the consensus limit.
pub const MAX_SCRIPT_BYTES: usize = 10_000;

/// Bytes of a user agent; more is refused.
///
/// # Source
/// Protocol notes, rpc §2.5.
pub const MAX_USER_AGENT_BYTES: usize = 255;

/// Bytes of a sentence for humans; the rest is cut off, since nothing depends on it.
pub const MAX_SENTENCE_BYTES: usize = 1_024;

/// Bytes of a DER signature with sighash byte, generously.
pub(crate) const MAX_SIGNATURE_BYTES: usize = 80;

/// Entries of a list of nodes, durations or batches.
pub(crate) const MAX_LIST: usize = 1_000;

/// Bytes of a batch id that is kept raw: it may be malformed, but need not be kept at any length.
pub(crate) const MAX_RAW_ID_BYTES: usize = 64;

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

pub(crate) fn at_most(field: &'static str, found: usize, most: usize) -> Result<(), DecodeError> {
    if found > most { Err(DecodeError::TooMany { field, most, found }) } else { Ok(()) }
}

pub(crate) fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    let found = bytes.len();
    bytes.try_into().map_err(|_| DecodeError::Length { field, expected: N, found })
}

/// A typed key: `read` is its `from_slice`.
pub(crate) fn key<T>(
    field: &'static str,
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, KeyError>,
) -> Result<T, DecodeError> {
    read(bytes).map_err(|error| DecodeError::key(field, error))
}

/// Points of one message that were found valid. Orders of one trader repeat its node and its account, and to judge a point
/// costs more than all else that is read of an order.
#[derive(Default)]
pub(crate) struct Points(HashMap<[u8; 33], PublicKey>);

impl Points {
    /// A typed key.
    pub(crate) fn read<T: From<PublicKey>>(&mut self, field: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
        let bytes: [u8; 33] = fixed(field, bytes)?;
        if let Some(known) = self.0.get(&bytes) {
            return Ok(T::from(*known));
        }
        let found = point(field, &bytes)?;
        self.0.insert(bytes, found);
        Ok(T::from(found))
    }
}

pub(crate) fn point(field: &'static str, bytes: &[u8]) -> Result<PublicKey, DecodeError> {
    let bytes: [u8; 33] = fixed(field, bytes)?;
    PublicKey::from_slice(&bytes).map_err(|_| DecodeError::NotAPoint { field })
}

/// Nonces of taproot accounts; empty for the others.
pub(crate) fn optional_nonce(field: &'static str, bytes: &[u8]) -> Result<Option<PublicNonce>, DecodeError> {
    if bytes.is_empty() { Ok(None) } else { nonce(field, bytes).map(Some) }
}

pub(crate) fn nonce(field: &'static str, bytes: &[u8]) -> Result<PublicNonce, DecodeError> {
    key(field, bytes, PublicNonce::from_slice)
}

pub(crate) fn account_map_key(field: &'static str, text: &str) -> Result<AccountKey, DecodeError> {
    lower_hex(field, text, 66, "66 lower-case hexadecimal digits")?;
    text.parse().map_err(|error| DecodeError::key(field, error))
}

pub(crate) fn nonce_map_key(field: &'static str, text: &str) -> Result<OrderNonce, DecodeError> {
    lower_hex(field, text, 64, "64 lower-case hexadecimal digits")?;
    text.parse().map_err(|error| DecodeError::key(field, error))
}

/// A key of the map of channels: `txid:index`, the txid as displayed. Only the form that we would write is taken.
pub(crate) fn outpoint_map_key(field: &'static str, text: &str) -> Result<OutPoint, DecodeError> {
    let parsed = text.parse::<OutPoint>().ok().filter(|outpoint| outpoint.to_string() == text);
    parsed.ok_or_else(|| DecodeError::MapKey { field, expected: "txid:index in canonical form", found: shown(text) })
}

fn lower_hex(field: &'static str, text: &str, digits: usize, expected: &'static str) -> Result<(), DecodeError> {
    let canonical = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { Ok(()) } else { Err(DecodeError::MapKey { field, expected, found: shown(text) }) }
}

/// An enum's value from its wire number.
pub(crate) fn number<E: TryFrom<i32>>(field: &'static str, found: i32) -> Result<E, DecodeError> {
    E::try_from(found).map_err(|_| DecodeError::UnknownNumber { field, found: found.into() })
}

pub(crate) fn sats(field: &'static str, found: u64) -> Result<Sats, DecodeError> {
    let highest = Sats::MAX.get();
    Sats::new(found).map_err(|_| DecodeError::OutOfRange { field, lowest: 0, highest, found })
}

pub(crate) fn whole_units(field: &'static str, found: u64) -> Result<UnitCount, DecodeError> {
    UnitCount::exactly_from(sats(field, found)?).map_err(|_| DecodeError::NotWholeUnits { field, found })
}

/// Units of a match: a match of nothing does not exist.
pub(crate) fn matched_units(field: &'static str, found: u32) -> Result<UnitCount, DecodeError> {
    if found == 0 {
        let (lowest, highest) = (1, u32::MAX.into());
        return Err(DecodeError::OutOfRange { field, lowest, highest, found: 0 });
    }
    Ok(UnitCount::new(found))
}

pub(crate) fn account_version(field: &'static str, found: u32) -> Result<AccountVersion, DecodeError> {
    match found {
        0 => Ok(AccountVersion::V0),
        1 => Ok(AccountVersion::V1),
        2 => Ok(AccountVersion::V2),
        _ => Err(DecodeError::UnknownNumber { field, found: found.into() }),
    }
}

pub(crate) fn account_version_number(version: AccountVersion) -> u32 {
    match version {
        AccountVersion::V0 => 0,
        AccountVersion::V1 => 1,
        AccountVersion::V2 => 2,
    }
}

pub(crate) fn txid(field: &'static str, bytes: &[u8]) -> Result<Txid, DecodeError> {
    fixed(field, bytes).map(Txid::from_byte_array)
}

pub(crate) fn outpoint(field: &'static str, found: Option<poolrpc::OutPoint>) -> Result<OutPoint, DecodeError> {
    let found = required(field, found)?;
    Ok(OutPoint { txid: txid(field, &found.txid)?, vout: found.output_index })
}

pub(crate) fn to_outpoint(outpoint: &OutPoint) -> poolrpc::OutPoint {
    poolrpc::OutPoint { txid: outpoint.txid.to_byte_array().to_vec(), output_index: outpoint.vout }
}

pub(crate) fn script(field: &'static str, bytes: Vec<u8>) -> Result<ScriptBuf, DecodeError> {
    at_most(field, bytes.len(), MAX_SCRIPT_BYTES)?;
    Ok(ScriptBuf::from_bytes(bytes))
}

pub(crate) fn output(field: &'static str, value: u64, bytes: Vec<u8>) -> Result<TxOut, DecodeError> {
    Ok(TxOut { value: Amount::from(sats(field, value)?), script_pubkey: script(field, bytes)? })
}

/// Outputs spent by the inputs of a transaction, in its order.
pub(crate) fn prev_outputs(field: &'static str, found: Vec<poolrpc::TxOut>) -> Result<Vec<TxOut>, DecodeError> {
    at_most(field, found.len(), MAX_INPUTS)?;
    found.into_iter().map(|out| output(field, out.value, out.pk_script)).collect()
}

pub(crate) fn to_prev_outputs(outputs: &[TxOut]) -> Vec<poolrpc::TxOut> {
    let wire = |out: &TxOut| poolrpc::TxOut { value: out.value.to_sat(), pk_script: out.script_pubkey.to_bytes() };
    outputs.iter().map(wire).collect()
}

/// A whole serialized transaction, nothing after it.
pub(crate) fn transaction(field: &'static str, bytes: &[u8]) -> Result<Transaction, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    at_most(field, bytes.len(), MAX_TRANSACTION_BYTES)?;
    let mut rest = bytes;
    let transaction = Transaction::consensus_decode(&mut rest)
        .map_err(|error| DecodeError::Transaction { field, reason: error.to_string() })?;
    if !rest.is_empty() {
        let reason = format!("{} bytes too many", rest.len());
        return Err(DecodeError::Transaction { field, reason });
    }
    Ok(transaction)
}

pub(crate) fn signature(field: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    at_most(field, bytes.len(), MAX_SIGNATURE_BYTES)?;
    Ok(bytes)
}

pub(crate) fn user_agent(field: &'static str, text: String) -> Result<String, DecodeError> {
    at_most(field, text.len(), MAX_USER_AGENT_BYTES)?;
    Ok(text.trim().to_owned())
}

/// A sentence for humans, cut to [`MAX_SENTENCE_BYTES`].
pub(crate) fn sentence(text: &str) -> String {
    cut(text, MAX_SENTENCE_BYTES).to_owned()
}

/// A piece of foreign text inside an error.
pub(crate) fn shown(text: &str) -> String {
    cut(text, 200).to_owned()
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator of the curve.
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    #[test]
    fn sentences_are_cut_between_characters() {
        assert_eq!(cut("grün", 2), "gr");
        assert_eq!(cut("grün", 3), "gr", "inside of the third character");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("grün", 99), "grün");
        assert_eq!(sentence(&"x".repeat(5_000)).len(), MAX_SENTENCE_BYTES);
    }

    #[test]
    fn points_that_were_read_before_are_the_same_and_others_are_judged() {
        let mut points = Points::default();
        let key: [u8; 33] = hex::FromHex::from_hex(KEY).unwrap();
        let first: AccountKey = points.read("f", &key).unwrap();
        assert_eq!(points.read::<AccountKey>("f", &key), Ok(first));
        assert_eq!(first.serialize(), key);
        let mut off_curve = key;
        off_curve[1..].fill(0xff);
        for _ in 0..2 {
            let found = points.read::<AccountKey>("f", &off_curve);
            assert_eq!(found, Err(DecodeError::NotAPoint { field: "f" }));
        }
        let short = DecodeError::Length { field: "f", expected: 33, found: 32 };
        assert_eq!(points.read::<AccountKey>("f", &key[..32]), Err(short));
    }

    #[test]
    fn map_keys_have_one_form() {
        let key = KEY.to_owned();
        assert!(account_map_key("f", &key).is_ok());
        for bad in [key.to_uppercase(), format!(" {key}"), key[..64].to_owned(), format!("{key}00"), "é".repeat(33)] {
            assert!(matches!(account_map_key("f", &bad), Err(DecodeError::MapKey { .. })), "{bad}");
        }
        let off_curve = "02".to_owned() + &"ff".repeat(32);
        assert_eq!(account_map_key("f", &off_curve), Err(DecodeError::NotAPoint { field: "f" }));

        let id = "ab".repeat(32);
        assert!(outpoint_map_key("f", &format!("{id}:7")).is_ok());
        for bad in [
            format!("{id}:07"),
            format!("{}:7", id.to_uppercase()),
            id.clone(),
            format!("{id}:"),
            format!("{id}:4294967296"),
        ] {
            assert!(matches!(outpoint_map_key("f", &bad), Err(DecodeError::MapKey { .. })), "{bad}");
        }
    }

    #[test]
    fn transactions_are_whole() {
        let bytes = bitcoin::consensus::serialize(&Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn::default()],
            output: vec![],
        });
        assert!(transaction("f", &bytes).is_ok());
        assert_eq!(transaction("f", &[]), Err(DecodeError::Missing { field: "f" }));
        assert!(matches!(transaction("f", &bytes[..40]), Err(DecodeError::Transaction { .. })));
        let long = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(transaction("f", &long), Err(DecodeError::Transaction { .. })));
        let huge = vec![0; MAX_TRANSACTION_BYTES + 1];
        assert!(matches!(transaction("f", &huge), Err(DecodeError::TooMany { .. })));
    }
}
