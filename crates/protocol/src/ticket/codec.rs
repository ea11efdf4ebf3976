//! The binary and the text form of a ticket.
//!
//! Unknown records are skipped and lost; every record may be missing; what is there has exactly one form.
//!
//! # Source
//! Protocol notes, sidecar §1 "TLV encoding" and "Text form".

use super::tlv::{Records, Stream, exactly};
use super::{CompactSignature, Offer, Recipient, Ticket, TicketError, TicketId, TicketOrder, TicketState};
use crate::curve::sha256_of;
use crate::keys::{AccountKey, MultisigKey, NodeId, OrderNonce, PendingChannelId};
use crate::units::BlockCount;
use bitcoin::base58;
use core::fmt;
use core::str::FromStr;

/// Bytes of a ticket at most: the longest that can be written has less than 500.
pub const MAX_TLV: usize = 4_096;
/// Characters of a text at most: base58 needs 138 for 100 bytes, and time that grows with the square.
pub const MAX_TEXT: usize = PREFIX.len() + (MAX_TLV + VERSION_AND_CHECKSUM) * 138 / 100;

const PREFIX: &str = "sidecar";
/// Version of the text form; the checksum covers it, whatever the text says.
const TEXT_VERSION: u8 = 0;
const CHECKSUM: usize = 4;
const VERSION_AND_CHECKSUM: usize = 1 + CHECKSUM;

impl Ticket {
    /// The binary form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Stream::default();
        out.record(1, &self.id.0);
        out.record(2, &[self.version]);
        out.record(3, &[self.state.number()]);
        out.record(10, &encode_offer(&self.offer));
        if let Some(recipient) = &self.recipient {
            out.record(20, &encode_recipient(recipient));
        }
        if let Some(order) = &self.order {
            out.record(30, &encode_order(order));
        }
        if let Some(pending) = &self.execution {
            let mut inner = Stream::default();
            inner.record(41, pending.as_bytes());
            out.record(40, &inner.into_bytes());
        }
        out.into_bytes()
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// [`TicketError`] by variant: too long, truncated, out of order, of a wrong length, not a key.
    pub fn decode(bytes: &[u8]) -> Result<Ticket, TicketError> {
        if bytes.len() > MAX_TLV {
            return Err(TicketError::TooLong { found: bytes.len(), limit: MAX_TLV });
        }
        let mut ticket = Ticket::default();
        for record in Records::of(bytes) {
            let (kind, value) = record?;
            match kind {
                1 => ticket.id = TicketId(exactly(kind, value)?),
                2 => [ticket.version] = exactly(kind, value)?,
                3 => {
                    let [number] = exactly(kind, value)?;
                    ticket.state = TicketState::from_number(number);
                }
                10 => ticket.offer = decode_offer(value)?,
                20 => ticket.recipient = Some(decode_recipient(value)?),
                30 => ticket.order = Some(decode_order(value)?),
                40 => ticket.execution = Some(decode_execution(value)?),
                _ => {}
            }
        }
        Ok(ticket)
    }
}

fn encode_offer(offer: &Offer) -> Vec<u8> {
    let mut out = Stream::default();
    out.record(11, &offer.capacity_sats.to_be_bytes());
    out.record(12, &offer.push_sats.to_be_bytes());
    out.record(13, &offer.lease_duration.get().to_be_bytes());
    if let Some(key) = &offer.signing_key {
        out.record(14, &key.serialize());
    }
    if let Some(signature) = &offer.signature {
        out.record(15, signature.as_bytes());
    }
    out.record(16, &[u8::from(offer.auto)]);
    if offer.unannounced {
        out.record(17, &[1]);
    }
    if offer.zero_conf {
        out.record(18, &[1]);
    }
    out.into_bytes()
}

fn decode_offer(bytes: &[u8]) -> Result<Offer, TicketError> {
    let mut offer = Offer::default();
    for record in Records::of(bytes) {
        let (kind, value) = record?;
        match kind {
            11 => offer.capacity_sats = u64::from_be_bytes(exactly(kind, value)?),
            12 => offer.push_sats = u64::from_be_bytes(exactly(kind, value)?),
            13 => offer.lease_duration = BlockCount::new(u32::from_be_bytes(exactly(kind, value)?)),
            14 => offer.signing_key = Some(AccountKey::from_slice(value)?),
            15 => offer.signature = CompactSignature::new(exactly(kind, value)?),
            16 => offer.auto = flag(kind, value)?,
            17 => offer.unannounced = flag(kind, value)?,
            18 => offer.zero_conf = flag(kind, value)?,
            _ => {}
        }
    }
    Ok(offer)
}

/// Only 1 means yes.
fn flag(kind: u64, value: &[u8]) -> Result<bool, TicketError> {
    exactly(kind, value).map(|byte: [u8; 1]| byte == [1])
}

fn encode_recipient(recipient: &Recipient) -> Vec<u8> {
    let mut out = Stream::default();
    if let Some(node) = &recipient.node {
        out.record(21, &node.serialize());
    }
    if let Some(multisig) = &recipient.multisig {
        out.record(22, &multisig.serialize());
    }
    out.record(23, &recipient.multisig_index.to_be_bytes());
    out.into_bytes()
}

fn decode_recipient(bytes: &[u8]) -> Result<Recipient, TicketError> {
    let mut recipient = Recipient::default();
    for record in Records::of(bytes) {
        let (kind, value) = record?;
        match kind {
            21 => recipient.node = Some(NodeId::from_slice(value)?),
            22 => recipient.multisig = Some(MultisigKey::from_slice(value)?),
            23 => recipient.multisig_index = u32::from_be_bytes(exactly(kind, value)?),
            _ => {}
        }
    }
    Ok(recipient)
}

fn encode_order(order: &TicketOrder) -> Vec<u8> {
    let mut out = Stream::default();
    out.record(31, &order.bid_bytes());
    if let Some(signature) = &order.signature {
        out.record(32, signature.as_bytes());
    }
    out.into_bytes()
}

fn decode_order(bytes: &[u8]) -> Result<TicketOrder, TicketError> {
    let mut order = TicketOrder::default();
    for record in Records::of(bytes) {
        let (kind, value) = record?;
        match kind {
            31 => {
                let nonce = exactly(kind, value)?;
                order.bid = (nonce != [0; 32]).then_some(OrderNonce::new(nonce));
            }
            32 => order.signature = CompactSignature::new(exactly(kind, value)?),
            _ => {}
        }
    }
    Ok(order)
}

fn decode_execution(bytes: &[u8]) -> Result<PendingChannelId, TicketError> {
    let mut pending = [0; 32];
    for record in Records::of(bytes) {
        let (kind, value) = record?;
        if kind == 41 {
            pending = exactly(kind, value)?;
        }
    }
    Ok(PendingChannelId::new(pending))
}

/// First bytes of the hash of prefix, version and stream.
fn checksum(stream: &[u8]) -> [u8; CHECKSUM] {
    let hash = sha256_of(&[PREFIX.as_bytes(), &[TEXT_VERSION], stream]);
    *hash.first_chunk().expect("a hash is longer than a checksum")
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.encode();
        let bytes = [&[TEXT_VERSION][..], &stream, &checksum(&stream)].concat();
        write!(f, "{PREFIX}{}", base58::encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads the text form.
    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        if text.len() > MAX_TEXT {
            return Err(TicketError::TooLong { found: text.len(), limit: MAX_TEXT });
        }
        let bytes = base58::decode(text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?);
        let bytes = bytes.map_err(|_| TicketError::Base58)?;
        // The first byte is not looked at: the checksum is that of the known version.
        let (_, rest) = bytes.split_first().ok_or(TicketError::TooShort)?;
        let (stream, found) = rest.split_last_chunk::<CHECKSUM>().ok_or(TicketError::TooShort)?;
        if *found != checksum(stream) {
            return Err(TicketError::Checksum);
        }
        Ticket::decode(stream)
    }
}
