//! Between the node's bytes and texts and our types.

use super::error::bad_answer;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use tidegate_ports::NodeError;
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, NodeId};
use tidegate_protocol::units::Sats;
use tidegate_wire::lnd::lnrpc::channel_point::FundingTxid;
use tidegate_wire::lnd::{lnrpc, signrpc};

/// A transaction from its serialisation.
pub(super) fn transaction(call: &'static str, bytes: &[u8]) -> Result<Transaction, NodeError> {
    encode::deserialize(bytes).map_err(|error| bad_answer(call, format!("not a transaction: {error}")))
}

/// A compressed public key.
pub(super) fn public_key(call: &'static str, bytes: &[u8]) -> Result<PublicKey, NodeError> {
    if bytes.len() != 33 {
        return Err(bad_answer(call, format!("a key of {} bytes", bytes.len())));
    }
    PublicKey::from_slice(bytes).map_err(|error| bad_answer(call, format!("not a key: {error}")))
}

/// A node's identity from hexadecimal.
pub(super) fn node_id(call: &'static str, text: &str) -> Result<NodeId, NodeError> {
    text.parse().map_err(|error| bad_answer(call, error))
}

/// Bytes of a fixed length.
pub(super) fn array<const N: usize>(call: &'static str, what: &str, bytes: &[u8]) -> Result<[u8; N], NodeError> {
    bytes.try_into().map_err(|_| bad_answer(call, format!("{what} of {} bytes, not {N}", bytes.len())))
}

/// An amount of satoshi.
pub(super) fn sats(call: &'static str, number: i64) -> Result<Sats, NodeError> {
    u64::try_from(number)
        .ok()
        .and_then(|sat| Sats::new(sat).ok())
        .ok_or_else(|| bad_answer(call, format!("{number} sat is no amount")))
}

/// `txid:index` with the txid as displayed.
pub(super) fn outpoint(call: &'static str, text: &str) -> Result<OutPoint, NodeError> {
    text.parse().map_err(|error| bad_answer(call, format!("'{text}' is no outpoint: {error}")))
}

/// An outpoint from the txid in internal byte order.
pub(super) fn outpoint_of_bytes(call: &'static str, txid: &[u8], vout: u32) -> Result<OutPoint, NodeError> {
    let txid = Txid::from_byte_array(array(call, "a txid", txid)?);
    Ok(OutPoint { txid, vout })
}

/// The node's form of a channel's funding output.
pub(super) fn channel_point(outpoint: OutPoint) -> lnrpc::ChannelPoint {
    lnrpc::ChannelPoint {
        funding_txid: Some(FundingTxid::FundingTxidBytes(outpoint.txid.to_byte_array().to_vec())),
        output_index: outpoint.vout,
    }
}

/// A request that does not fit the node's interface: refused before it is sent.
pub(super) fn unsendable(call: &'static str, reason: impl std::fmt::Display) -> NodeError {
    NodeError::Refused { call, reason: reason.to_string() }
}

fn signed(call: &'static str, number: u32) -> Result<i32, NodeError> {
    i32::try_from(number).map_err(|_| unsendable(call, format!("key family or index {number} exceeds 31 bits")))
}

/// A key's place for the wallet and the signer.
pub(super) fn locator(call: &'static str, locator: KeyLocator) -> Result<signrpc::KeyLocator, NodeError> {
    Ok(signrpc::KeyLocator { key_family: signed(call, locator.family)?, key_index: signed(call, locator.index)? })
}

/// A key and its place for the signer.
pub(super) fn descriptor(call: &'static str, key: &KeyDescriptor) -> Result<signrpc::KeyDescriptor, NodeError> {
    Ok(signrpc::KeyDescriptor {
        raw_key_bytes: key.point.serialize().to_vec(),
        key_loc: Some(locator(call, key.locator)?),
    })
}

/// A key and its place for channel funding.
pub(super) fn funding_descriptor(call: &'static str, key: &KeyDescriptor) -> Result<lnrpc::KeyDescriptor, NodeError> {
    Ok(lnrpc::KeyDescriptor {
        raw_key_bytes: key.point.serialize().to_vec(),
        key_loc: Some(lnrpc::KeyLocator {
            key_family: signed(call, key.locator.family)?,
            key_index: signed(call, key.locator.index)?,
        }),
    })
}

/// A key of the wallet as derived.
pub(super) fn derived(call: &'static str, key: &signrpc::KeyDescriptor) -> Result<KeyDescriptor, NodeError> {
    let point = public_key(call, &key.raw_key_bytes)?;
    let place = key.key_loc.as_ref().ok_or_else(|| bad_answer(call, "a key without its place"))?;
    let unsigned = |number: i32| u32::try_from(number).map_err(|_| bad_answer(call, "a negative key family or index"));
    let locator = KeyLocator { family: unsigned(place.key_family)?, index: unsigned(place.key_index)? };
    Ok(KeyDescriptor { point, locator })
}

/// An output for the signer and the wallet.
pub(super) fn tx_out(call: &'static str, output: &TxOut) -> Result<signrpc::TxOut, NodeError> {
    let value = i64::try_from(output.value.to_sat()).map_err(|_| unsendable(call, "an output above 63 bits"))?;
    Ok(signrpc::TxOut { value, pk_script: output.script_pubkey.to_bytes() })
}

/// At most `limit` bytes of a text, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 5), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("ä", 0), "");
    }

    #[test]
    fn outpoints_have_two_forms() {
        let text = "0100000000000000000000000000000000000000000000000000000000000002:7";
        let point = outpoint("/x", text).expect("an outpoint");
        let FundingTxid::FundingTxidBytes(bytes) = channel_point(point).funding_txid.expect("set") else {
            panic!("bytes are sent")
        };
        assert_eq!((bytes.first(), bytes.last()), (Some(&2), Some(&1)), "internal byte order");
        assert_eq!(outpoint_of_bytes("/x", &bytes, 7), Ok(point));
        assert!(outpoint_of_bytes("/x", &bytes[1..], 7).is_err());
        assert!(outpoint("/x", "abc").is_err());
    }
}
