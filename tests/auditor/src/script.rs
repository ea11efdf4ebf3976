//! Output scripts of accounts and channels, built from keys.
//!
//! # Source
//! Protocol notes, scripts §2, §3 and §7.

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CLTV, OP_ENDIF, OP_IFDUP, OP_NOTIF};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Parity, PublicKey, XOnlyPublicKey};
use bitcoin::{Script, ScriptBuf};

use crate::keys::{
    Draft, aggregate, curve, library_context, scalar, tagged, tweaked_auctioneer, tweaked_trader, x_only,
};

/// Everything about one account output that follows from its keys.
#[derive(Clone, Debug)]
pub(crate) struct AccountScripts {
    /// The output script.
    pub(crate) output: ScriptBuf,
    /// The trader's key in this output.
    pub(crate) trader: PublicKey,
    /// The auctioneer's key in this output.
    pub(crate) auctioneer: PublicKey,
    /// The witness script of version 0, else the expiry leaf.
    pub(crate) script: ScriptBuf,
    /// Of taproot versions: hash of the leaf, and parity of the output key.
    pub(crate) taproot: Option<([u8; 32], Parity)>,
}

/// What an account's scripts are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountKeys<'a> {
    pub(crate) trader: &'a PublicKey,
    pub(crate) auctioneer: &'a PublicKey,
    pub(crate) batch: &'a PublicKey,
    pub(crate) secret: &'a [u8; 32],
}

/// The draft of a taproot account version.
pub(crate) fn draft(version: u32) -> Option<Draft> {
    match version {
        1 => Some(Draft::V040),
        2 => Some(Draft::V100),
        _ => None,
    }
}

/// Scripts of an account output; nothing for an unknown version or degenerate keys.
pub(crate) fn account_scripts(version: u32, keys: AccountKeys<'_>, expiry: u32) -> Option<AccountScripts> {
    let trader = tweaked_trader(keys.trader, keys.batch, keys.secret)?;
    let auctioneer = tweaked_auctioneer(keys.auctioneer, &trader)?;
    if version == 0 {
        let script = Builder::new()
            .push_slice(trader.serialize())
            .push_opcode(OP_CHECKSIGVERIFY)
            .push_slice(auctioneer.serialize())
            .push_opcode(OP_CHECKSIG)
            .push_opcode(OP_IFDUP)
            .push_opcode(OP_NOTIF)
            .push_int(i64::from(expiry))
            .push_opcode(OP_CLTV)
            .push_opcode(OP_ENDIF)
            .into_script();
        return Some(AccountScripts { output: script.to_p2wsh(), trader, auctioneer, script, taproot: None });
    }
    let script = Builder::new()
        .push_slice(x_only(&trader).serialize())
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_int(i64::from(expiry))
        .push_opcode(OP_CLTV)
        .into_script();
    let leaf = leaf_hash(&script)?;
    let internal = aggregate(draft(version)?, keys.trader, keys.auctioneer)?.point;
    let (key, parity) = output_key(&x_only(&internal), Some(&leaf))?;
    if version == 2 {
        // The second library has to agree with the own sum.
        let library = library_context(keys.trader, keys.auctioneer)?.with_taproot_tweak(&leaf).ok()?;
        let point: musig2::secp::Point = library.aggregated_pubkey();
        (point.serialize_xonly() == key.serialize()).then_some(())?;
    }
    Some(AccountScripts { output: p2tr(&key), trader, auctioneer, script, taproot: Some((leaf, parity)) })
}

/// `TapLeaf` hash of a script of leaf version c0 that is shorter than 253 bytes.
fn leaf_hash(script: &Script) -> Option<[u8; 32]> {
    let length = u8::try_from(script.len()).ok().filter(|length| *length < 253)?;
    Some(tagged("TapLeaf", &[&[0xc0, length], script.as_bytes()]))
}

/// The tweaked output key and its parity.
fn output_key(internal: &XOnlyPublicKey, root: Option<&[u8; 32]>) -> Option<(XOnlyPublicKey, Parity)> {
    let root: &[u8] = root.map_or(&[], |root| root);
    let tweak = scalar(tagged("TapTweak", &[&internal.serialize(), root]));
    internal.add_tweak(curve(), &tweak).ok()
}

fn p2tr(key: &XOnlyPublicKey) -> ScriptBuf {
    Builder::new().push_int(1).push_slice(key.serialize()).into_script()
}

/// The output key of a native taproot script.
pub(crate) fn taproot_key(script: &Script) -> Option<XOnlyPublicKey> {
    script.is_p2tr().then(|| script.as_bytes().get(2..))?.and_then(|key| XOnlyPublicKey::from_slice(key).ok())
}

/// How a channel is funded, chosen by what both orders ask for (order numbers: 0 peer dependent, 1 script enforced, 2
/// simple taproot).
pub(crate) fn is_taproot_channel(one: u8, other: u8) -> bool {
    one == 2 && other == 2
}

/// The funding output's script.
pub(crate) fn funding_script(taproot: bool, one: &PublicKey, other: &PublicKey) -> Option<ScriptBuf> {
    if taproot {
        let point = aggregate(Draft::V100, one, other)?.point;
        let (key, _) = output_key(&x_only(&point), None)?;
        let library = library_context(one, other)?.with_unspendable_taproot_tweak().ok()?;
        let second: musig2::secp::Point = library.aggregated_pubkey();
        return (second.serialize_xonly() == key.serialize()).then(|| p2tr(&key));
    }
    let mut keys = [one.serialize(), other.serialize()];
    keys.sort_unstable();
    let [first, second] = keys;
    let script = Builder::new()
        .push_int(2)
        .push_slice(first)
        .push_slice(second)
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .into_script();
    Some(script.to_p2wsh())
}

/// The keys of a version 0 witness script: trader's, then auctioneer's.
pub(crate) fn legacy_keys(script: &Script) -> Option<(PublicKey, PublicKey)> {
    let bytes = script.as_bytes();
    let (first, second) = (bytes.get(1..34)?, bytes.get(36..69)?);
    let frame = [bytes.first()?, bytes.get(34)?, bytes.get(35)?, bytes.get(69)?];
    (frame == [&0x21, &0xad, &0x21, &0xac]).then_some(())?;
    Some((PublicKey::from_slice(first).ok()?, PublicKey::from_slice(second).ok()?))
}
