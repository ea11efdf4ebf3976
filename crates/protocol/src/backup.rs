//! Decryption and parsing of a channel backup, for the channel report.
//!
//! The only source of the payment base points that a node offers. Read: what [`crate::batch::ChannelInfo`] needs and what
//! identifies the channel. Everything else is skipped within its bounds.
//!
//! # Source
//! Protocol notes, channels §7.

use crate::batch::ReportedChannelType;
use crate::curve::sha256_of;
use crate::keys::{KeyError, KeyLocator, NodeId};
use crate::units::{Sats, UnitError};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Txid};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// A backup that is not for us, or not of the known form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Another key, or altered bytes.
    #[error("the backup does not decrypt")]
    Decrypt,
    /// The bytes end too early.
    #[error("the backup ends within its {0}")]
    Short(&'static str),
    /// More bytes than the form has.
    #[error("the backup has {0} bytes too many")]
    Trailing(usize),
    /// A form that cannot be reported.
    #[error("backup version {0} can not be reported")]
    Version(u8),
    /// A flag that is neither 0 nor 1.
    #[error("the backup says {0} for a yes or no")]
    Flag(u8),
    /// A key that is not a point.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A capacity that cannot exist.
    #[error(transparent)]
    Capacity(#[from] UnitError),
}

/// What the report of a channel takes from its backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelBackup {
    /// Type as reported.
    pub channel_type: ReportedChannelType,
    /// Our node opened the channel.
    pub initiator: bool,
    /// Funding output.
    pub funding: OutPoint,
    /// The other node.
    pub remote_node: NodeId,
    /// Value of the channel.
    pub capacity: Sats,
    /// Place of our payment base point in the node's wallet.
    pub local_payment: KeyLocator,
    /// The other side's payment base point.
    pub remote_payment: PublicKey,
}

/// Decrypts and reads the backup of one channel. `backup_key` is the node's key of family 7, index 0.
///
/// # Errors
/// [`BackupError`] by variant.
///
/// # Source
/// Protocol notes, channels §7 steps 3 and 4.
pub fn decrypt_and_parse(backup_key: &PublicKey, encrypted: &[u8]) -> Result<ChannelBackup, BackupError> {
    parse(&decrypt(backup_key, encrypted)?)
}

/// XChaCha20-Poly1305 under `SHA256(ser33(backup key))`; the nonce stands in front and is authenticated as well.
fn decrypt(backup_key: &PublicKey, encrypted: &[u8]) -> Result<Vec<u8>, BackupError> {
    const NONCE: usize = 24;
    let (nonce, ciphertext) = encrypted.split_at_checked(NONCE).ok_or(BackupError::Short("nonce"))?;
    let key = sha256_of(&[&backup_key.serialize()]);
    XChaCha20Poly1305::new(&key.into())
        .decrypt(XNonce::from_slice(nonce), Payload { msg: ciphertext, aad: nonce })
        .map_err(|_| BackupError::Decrypt)
}

fn parse(plain: &[u8]) -> Result<ChannelBackup, BackupError> {
    const CLOSE_INPUTS: u8 = 0x80;
    let mut outer = Reader(plain);
    let [tagged] = outer.array("version")?;
    let version = tagged & !CLOSE_INPUTS;
    let channel_type = match version {
        1 => ReportedChannelType::Tweakless,
        2 | 3 => ReportedChannelType::Anchors,
        4 => ReportedChannelType::ScriptEnforcedLease,
        5 => ReportedChannelType::SimpleTaproot,
        unknown => return Err(BackupError::Version(unknown)),
    };
    let length = outer.u16("length")?;
    let mut body = Reader(outer.take(usize::from(length), "body")?);
    outer.end()?;
    let backup = parse_body(&mut body, channel_type)?;
    // What a close needs follows in its own form and is of no use here.
    if tagged & CLOSE_INPUTS == 0 {
        body.end()?;
    }
    Ok(backup)
}

fn parse_body(body: &mut Reader<'_>, channel_type: ReportedChannelType) -> Result<ChannelBackup, BackupError> {
    let initiator = match body.array("initiator")? {
        [0] => false,
        [1] => true,
        [other] => return Err(BackupError::Flag(other)),
    };
    body.take(32, "chain hash")?;
    let txid = Txid::from_byte_array(body.array("funding transaction")?);
    let vout = u32::from(body.u16("funding output")?);
    body.take(8, "short channel id")?;
    let remote_node = NodeId::from_slice(body.take(33, "remote node")?)?;
    let addresses = body.u16("addresses")?;
    body.take(usize::from(addresses), "addresses")?;
    let capacity = Sats::new(u64::from_be_bytes(body.array("capacity")?))?;
    let local_payment = local_payment(body)?;
    let remote_payment = remote_payment(body)?;
    body.take(33 + 8, "sha chain root")?;
    if channel_type == ReportedChannelType::ScriptEnforcedLease {
        body.take(4, "lease expiry")?;
    }
    Ok(ChannelBackup {
        channel_type,
        initiator,
        funding: OutPoint { txid, vout },
        remote_node,
        capacity,
        local_payment,
        remote_payment,
    })
}

/// The third of our five locators: multisig, revocation, payment, delay, htlc.
fn local_payment(body: &mut Reader<'_>) -> Result<KeyLocator, BackupError> {
    const LOCATOR: usize = 8;
    body.take(2 + 2 * LOCATOR, "local configuration")?;
    let family = u32::from_be_bytes(body.array("local payment family")?);
    let index = u32::from_be_bytes(body.array("local payment index")?);
    body.take(2 * LOCATOR, "local configuration")?;
    Ok(KeyLocator { family, index })
}

/// The third of their five keys, in the same order.
fn remote_payment(body: &mut Reader<'_>) -> Result<PublicKey, BackupError> {
    const KEY: usize = 33;
    body.take(2 + 2 * KEY, "remote configuration")?;
    let point = body.take(KEY, "remote payment base point")?;
    body.take(2 * KEY, "remote configuration")?;
    PublicKey::from_slice(point).map_err(|_| KeyError::NotAPoint { what: "remote payment base point" }.into())
}

/// Bytes not read yet; numbers are big endian.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], BackupError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BackupError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], BackupError> {
        self.take(N, what)?.try_into().map_err(|_| BackupError::Short(what))
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, BackupError> {
        self.array(what).map(u16::from_be_bytes)
    }

    fn end(&self) -> Result<(), BackupError> {
        if self.0.is_empty() { Ok(()) } else { Err(BackupError::Trailing(self.0.len())) }
    }
}
