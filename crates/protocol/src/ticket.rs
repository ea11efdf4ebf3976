//! Sidecar tickets: a provider pays for a channel that a recipient gets, and both exchange this document.
//!
//! Does: the binary and the text form, the digests, signatures and rules of each step. A decoded ticket is a claim: its
//! amounts are judged by [`Ticket::check_offer`], its signatures by [`Ticket::verify_offer`] and [`Ticket::verify_order`].
//!
//! Never does: sign, store, or talk to a mail box.
//!
//! # Source
//! Protocol notes, sidecar §1 to §3.

mod codec;
mod tlv;

pub use codec::{MAX_TEXT, MAX_TLV};

use crate::auth::verify_message;
use crate::curve::sha256_of;
use crate::keys::{AccountKey, KeyError, MultisigKey, NodeId, OrderNonce, PendingChannelId};
use crate::order::{AuctionType, Order, OrderVersion};
use crate::units::{BlockCount, SATS_PER_UNIT, Sats, UnitError};
use bitcoin::hashes::{Hash, sha512};
use bitcoin::secp256k1::ecdsa;
use core::fmt;

/// Why a ticket is refused: in the decoding, or by the rules of a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The text does not begin with `sidecar`.
    #[error("a ticket begins with \"sidecar\"")]
    Prefix,
    /// The text has a character outside of base58.
    #[error("the ticket is not base58")]
    Base58,
    /// More than any ticket needs.
    #[error("the ticket is {found} long, at most {limit} allowed")]
    TooLong {
        /// Characters of the text, or bytes of the stream.
        found: usize,
        /// Limit.
        limit: usize,
    },
    /// The text is shorter than version and checksum.
    #[error("the ticket ends before its checksum")]
    TooShort,
    /// The checksum is of other bytes.
    #[error("the ticket's checksum does not fit")]
    Checksum,
    /// A record ends early.
    #[error("the ticket ends within a record")]
    Truncated,
    /// A number that has a shorter form.
    #[error("a number of the ticket is not in its shortest form")]
    NotMinimal,
    /// Types that do not ascend, or one twice.
    #[error("record {found} follows record {after}")]
    RecordOrder {
        /// The earlier type.
        after: u64,
        /// The type that should have been higher.
        found: u64,
    },
    /// A record of another length than its type has.
    #[error("record {record} has {found} bytes, expected {expected}")]
    RecordLength {
        /// Type.
        record: u64,
        /// Bytes demanded.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// A key that is not a point.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A version whose digests are not known.
    #[error("tickets of version {0} can not be digested")]
    Version(u8),
    /// The ticket is in another state than the step needs.
    #[error("the ticket is {found}, expected {expected}")]
    State {
        /// State, or the earliest of several.
        expected: TicketState,
        /// State.
        found: TicketState,
    },
    /// A part that the step needs.
    #[error("the ticket has no {0}")]
    Missing(&'static str),
    /// Signed already.
    #[error("the ticket has a {0} already")]
    Present(&'static str),
    /// A signature that is not by the offer's key.
    #[error("the {0} is not valid")]
    Signature(&'static str),
    /// A capacity that is no positive multiple of 100,000 sat.
    #[error("a capacity of {0} sat is no positive multiple of 100,000")]
    Capacity(u64),
    /// More pushed than there is.
    #[error("a push of {push} sat is more than the capacity of {capacity} sat")]
    Push {
        /// Pushed to the recipient.
        push: u64,
        /// Capacity.
        capacity: u64,
    },
    /// The bid is backed by another account.
    #[error("the bid is of account {found}, the offer was signed by {expected}")]
    Account {
        /// Signer of the offer.
        expected: Box<AccountKey>,
        /// Account of the bid.
        found: Box<AccountKey>,
    },
    /// The order is no bid of the inbound market.
    #[error("only bids of the inbound market can carry a ticket")]
    Market,
    /// The order's version knows no tickets.
    #[error("orders of version {0} carry no ticket")]
    OrderVersion(u32),
    /// The bid says something else than the offer.
    #[error("the bid's {what} is {found}, the offer says {expected}")]
    Terms {
        /// What differs.
        what: &'static str,
        /// The offer's.
        expected: u64,
        /// The bid's.
        found: u64,
    },
    /// An amount that cannot exist.
    #[error(transparent)]
    Amount(#[from] UnitError),
}

/// Name of a ticket: 8 random bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 8]);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How far a ticket has come. Numbers are those of the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TicketState {
    /// 0: drawn up.
    #[default]
    Created,
    /// 1: the provider signed the offer.
    Offered,
    /// 2: the recipient added its keys.
    Registered,
    /// 3: the provider submitted the bid.
    Ordered,
    /// 4: the recipient waits for the channel.
    ExpectingChannel,
    /// 5: the channel exists. Final.
    Completed,
    /// 6: given up. Final.
    Canceled,
    /// A number that we do not know; such tickets decode, and are good for nothing.
    Unknown(u8),
}

impl TicketState {
    /// The state with this number.
    pub fn from_number(number: u8) -> TicketState {
        match number {
            0 => TicketState::Created,
            1 => TicketState::Offered,
            2 => TicketState::Registered,
            3 => TicketState::Ordered,
            4 => TicketState::ExpectingChannel,
            5 => TicketState::Completed,
            6 => TicketState::Canceled,
            other => TicketState::Unknown(other),
        }
    }

    /// The number of the encoding.
    pub fn number(self) -> u8 {
        match self {
            TicketState::Created => 0,
            TicketState::Offered => 1,
            TicketState::Registered => 2,
            TicketState::Ordered => 3,
            TicketState::ExpectingChannel => 4,
            TicketState::Completed => 5,
            TicketState::Canceled => 6,
            TicketState::Unknown(number) => number,
        }
    }

    /// Nothing changes a completed or a canceled ticket.
    pub fn is_terminal(self) -> bool {
        match self {
            TicketState::Completed | TicketState::Canceled => true,
            TicketState::Created
            | TicketState::Offered
            | TicketState::Registered
            | TicketState::Ordered
            | TicketState::ExpectingChannel
            | TicketState::Unknown(_) => false,
        }
    }
}

impl fmt::Display for TicketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TicketState::Created => f.write_str("created"),
            TicketState::Offered => f.write_str("offered"),
            TicketState::Registered => f.write_str("registered"),
            TicketState::Ordered => f.write_str("ordered"),
            TicketState::ExpectingChannel => f.write_str("expecting channel"),
            TicketState::Completed => f.write_str("completed"),
            TicketState::Canceled => f.write_str("canceled"),
            TicketState::Unknown(number) => write!(f, "unknown <{number}>"),
        }
    }
}

/// An ECDSA signature as r || s, 64 bytes big endian; not all zero, which stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompactSignature([u8; 64]);

impl CompactSignature {
    /// These 64 bytes; nothing when all are zero.
    pub fn new(bytes: [u8; 64]) -> Option<CompactSignature> {
        (bytes != [0; 64]).then_some(CompactSignature(bytes))
    }

    /// The same signature from its DER form, as a node returns it.
    ///
    /// # Errors
    /// [`TicketError::Signature`] for other bytes.
    pub fn from_der(der: &[u8]) -> Result<CompactSignature, TicketError> {
        let invalid = TicketError::Signature("DER form");
        let signature = ecdsa::Signature::from_der(der).map_err(|_| invalid.clone())?;
        CompactSignature::new(signature.serialize_compact()).ok_or(invalid)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The DER form, as a node verifies it; nothing when a half is not below the group's order.
    pub fn to_der(&self) -> Option<Vec<u8>> {
        ecdsa::Signature::from_compact(&self.0).ok().map(|signature| signature.serialize_der().to_vec())
    }
}

/// What the provider offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Capacity of the channel in satoshi, as claimed.
    pub capacity_sats: u64,
    /// Part of it on the recipient's side from the start, in satoshi, as claimed.
    pub push_sats: u64,
    /// Lease duration. Covered by no signature.
    pub lease_duration: BlockCount,
    /// The provider's account key.
    pub signing_key: Option<AccountKey>,
    /// Signature of the offer's digest.
    pub signature: Option<CompactSignature>,
    /// The rest is negotiated by the two programs.
    pub auto: bool,
    /// The channel is not announced.
    pub unannounced: bool,
    /// The channel is usable before it confirms.
    pub zero_conf: bool,
}

impl Offer {
    /// The lowest version of a ticket that can express the offer.
    pub fn lowest_version(&self) -> u8 {
        u8::from(self.unannounced || self.zero_conf)
    }
}

/// Who gets the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Its node.
    pub node: Option<NodeId>,
    /// Its funding key.
    pub multisig: Option<MultisigKey>,
    /// Place of that key in its wallet, family 0.
    pub multisig_index: u32,
}

/// Which bid pays for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TicketOrder {
    /// The bid; nothing for 32 zero bytes.
    pub bid: Option<OrderNonce>,
    /// Signature of the order's digest.
    pub signature: Option<CompactSignature>,
}

impl TicketOrder {
    /// The bid's name; 32 zero bytes for none.
    fn bid_bytes(&self) -> [u8; 32] {
        self.bid.map_or([0; 32], |bid| *bid.as_bytes())
    }
}

/// A sidecar ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// Name.
    pub id: TicketId,
    /// Version: which fields the digests cover.
    pub version: u8,
    /// State. Covered by no signature.
    pub state: TicketState,
    /// The provider's part.
    pub offer: Offer,
    /// The recipient's part.
    pub recipient: Option<Recipient>,
    /// The bid's part.
    pub order: Option<TicketOrder>,
    /// The pending channel; never sent.
    pub execution: Option<PendingChannelId>,
}

const OFFER_SIGNATURE: &str = "offer signature";
const ORDER_SIGNATURE: &str = "order signature";
const SIGNING_KEY: &str = "signing key";

/// Digests and signatures.
impl Ticket {
    /// What the provider signs to make an offer (as a message, hashed once more).
    ///
    /// # Errors
    /// [`TicketError::Version`].
    ///
    /// # Source
    /// Protocol notes, sidecar §2.
    pub fn offer_digest(&self) -> Result<[u8; 32], TicketError> {
        let auto = [u8::from(self.offer.auto)];
        match self.version {
            0 => Ok(self.digest(&[&auto])),
            1 => Ok(self.flags_digest()),
            other => Err(TicketError::Version(other)),
        }
    }

    /// What the provider signs to order (as a message, hashed once more).
    ///
    /// Of version 1 it is the offer's digest once more and covers no bid: the network's quirk, kept to interoperate.
    ///
    /// # Errors
    /// [`TicketError::State`] before the bid is ordered, [`TicketError::Missing`], [`TicketError::Version`].
    ///
    /// # Source
    /// Protocol notes, sidecar §2.
    pub fn order_digest(&self) -> Result<[u8; 32], TicketError> {
        self.at_least(TicketState::Ordered)?;
        let order = self.order.ok_or(TicketError::Missing("order"))?;
        match self.version {
            0 => Ok(self.digest(&[&order.bid_bytes()])),
            1 => Ok(self.flags_digest()),
            other => Err(TicketError::Version(other)),
        }
    }

    fn flags_digest(&self) -> [u8; 32] {
        let flags = [self.offer.auto, self.offer.unannounced, self.offer.zero_conf].map(u8::from);
        self.digest(&[&flags])
    }

    fn digest(&self, rest: &[&[u8]]) -> [u8; 32] {
        let (capacity, push) = (self.offer.capacity_sats.to_be_bytes(), self.offer.push_sats.to_be_bytes());
        let version = [self.version];
        let head: [&[u8]; 4] = [&self.id.0, &version, &capacity, &push];
        sha256_of(&[&head[..], rest].concat())
    }

    /// Whether the offer is signed by its own key.
    ///
    /// # Errors
    /// [`TicketError::State`] before it is offered, [`TicketError::Missing`], [`TicketError::Signature`],
    /// [`TicketError::Version`].
    ///
    /// # Source
    /// Protocol notes, sidecar §2 "Checks".
    pub fn verify_offer(&self) -> Result<(), TicketError> {
        self.at_least(TicketState::Offered)?;
        let (key, signature) = self.signed_offer()?;
        verify(key, self.offer_digest()?, signature, OFFER_SIGNATURE)
    }

    /// Whether the bid is named and signed by the offer's key. The offer's own signature is not judged again.
    ///
    /// # Errors
    /// [`TicketError::State`] before it is ordered, [`TicketError::Missing`], [`TicketError::Signature`],
    /// [`TicketError::Version`].
    ///
    /// # Source
    /// Protocol notes, sidecar §2 "Checks".
    pub fn verify_order(&self) -> Result<(), TicketError> {
        self.at_least(TicketState::Ordered)?;
        let (key, _) = self.signed_offer()?;
        let order = self.order.ok_or(TicketError::Missing("order"))?;
        order.bid.ok_or(TicketError::Missing("bid nonce"))?;
        let signature = order.signature.ok_or(TicketError::Missing(ORDER_SIGNATURE))?;
        verify(key, self.order_digest()?, signature, ORDER_SIGNATURE)
    }

    fn signed_offer(&self) -> Result<(AccountKey, CompactSignature), TicketError> {
        let key = self.offer.signing_key.ok_or(TicketError::Missing(SIGNING_KEY))?;
        let signature = self.offer.signature.ok_or(TicketError::Missing(OFFER_SIGNATURE))?;
        Ok((key, signature))
    }

    fn at_least(&self, expected: TicketState) -> Result<(), TicketError> {
        let found = self.state;
        if found.number() < expected.number() { Err(TicketError::State { expected, found }) } else { Ok(()) }
    }

    fn exactly(&self, expected: TicketState) -> Result<(), TicketError> {
        let found = self.state;
        if found == expected { Ok(()) } else { Err(TicketError::State { expected, found }) }
    }

    /// Mail box that the recipient writes to: the offer's signature.
    ///
    /// # Errors
    /// [`TicketError::Missing`] without a signed offer.
    ///
    /// # Source
    /// Protocol notes, sidecar §5.
    pub fn provider_stream(&self) -> Result<[u8; 64], TicketError> {
        self.offer.signature.map(|signature| signature.0).ok_or(TicketError::Missing(OFFER_SIGNATURE))
    }

    /// Mail box that the provider writes to: `SHA512` of the offer's signature.
    ///
    /// # Errors
    /// [`TicketError::Missing`] without a signed offer.
    ///
    /// # Source
    /// Protocol notes, sidecar §5.
    pub fn recipient_stream(&self) -> Result<[u8; 64], TicketError> {
        self.provider_stream().map(|id| sha512::Hash::hash(&id).to_byte_array())
    }
}

/// The steps of the manual protocol.
///
/// # Source
/// Protocol notes, sidecar §3.
impl Ticket {
    /// A ticket in state offered, to be signed.
    ///
    /// # Errors
    /// [`TicketError::Capacity`], [`TicketError::Push`].
    pub fn offer(id: TicketId, offer: Offer) -> Result<Ticket, TicketError> {
        let version = offer.lowest_version();
        let ticket = Ticket { id, version, state: TicketState::Offered, offer, ..Ticket::default() };
        ticket.check_offer()?;
        Ok(ticket)
    }

    /// The offer's amounts: capacity and push.
    ///
    /// # Errors
    /// [`TicketError::Capacity`] for no positive multiple of 100,000, [`TicketError::Push`] above the capacity,
    /// [`TicketError::Amount`] for more than can exist.
    pub fn check_offer(&self) -> Result<(Sats, Sats), TicketError> {
        let (capacity, push) = (self.offer.capacity_sats, self.offer.push_sats);
        if capacity == 0 || !capacity.is_multiple_of(SATS_PER_UNIT) {
            return Err(TicketError::Capacity(capacity));
        }
        if push > capacity {
            return Err(TicketError::Push { push, capacity });
        }
        Ok((Sats::new(capacity)?, Sats::new(push)?))
    }

    /// The digest to be signed for an offer.
    ///
    /// # Errors
    /// [`TicketError::State`], [`TicketError::Missing`] without key, [`TicketError::Present`] when signed already.
    pub fn offer_to_sign(&self) -> Result<[u8; 32], TicketError> {
        self.at_least(TicketState::Offered)?;
        self.offer.signing_key.ok_or(TicketError::Missing(SIGNING_KEY))?;
        match self.offer.signature {
            Some(_) => Err(TicketError::Present(OFFER_SIGNATURE)),
            None => self.offer_digest(),
        }
    }

    /// The ticket with the signature of its offer, which must be valid.
    ///
    /// # Errors
    /// As [`Ticket::offer_to_sign`] and [`Ticket::verify_offer`].
    pub fn with_offer_signature(mut self, signature: CompactSignature) -> Result<Ticket, TicketError> {
        self.offer_to_sign()?;
        self.offer.signature = Some(signature);
        self.verify_offer()?;
        Ok(self)
    }

    /// The recipient's answer: its keys, state registered. Whether the ticket is known already is the caller's to judge.
    ///
    /// # Errors
    /// As [`Ticket::verify_offer`]; [`TicketError::State`] unless the ticket is offered.
    pub fn registered(mut self, node: NodeId, multisig: MultisigKey, index: u32) -> Result<Ticket, TicketError> {
        self.verify_offer()?;
        self.exactly(TicketState::Offered)?;
        self.recipient = Some(Recipient { node: Some(node), multisig: Some(multisig), multisig_index: index });
        self.state = TicketState::Registered;
        Ok(self)
    }

    /// Both keys of the recipient.
    ///
    /// # Errors
    /// [`TicketError::Missing`].
    pub fn recipient_keys(&self) -> Result<(NodeId, MultisigKey), TicketError> {
        let recipient = self.recipient.as_ref().ok_or(TicketError::Missing("recipient"))?;
        let node = recipient.node.ok_or(TicketError::Missing("recipient's node key"))?;
        Ok((node, recipient.multisig.ok_or(TicketError::Missing("recipient's funding key"))?))
    }

    /// Whether a bid may carry this ticket, which the recipient registered.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_bid(&self, order: &Order) -> Result<(), TicketError> {
        self.exactly(TicketState::Registered)?;
        self.recipient_keys()?;
        self.verify_offer()?;
        let (signer, _) = self.signed_offer()?;
        if signer != order.account {
            let (expected, found) = (Box::new(signer), Box::new(order.account));
            return Err(TicketError::Account { expected, found });
        }
        let bid = order.bid().filter(|_| order.auction == AuctionType::Inbound).ok_or(TicketError::Market)?;
        if order.version < OrderVersion::V4 {
            return Err(TicketError::OrderVersion(order.version.number()));
        }
        let (capacity, push) = self.check_offer()?;
        let flag = |yes: bool| u64::from(yes);
        let claims = [
            ("amount", capacity.get(), order.amount.get()),
            ("smallest match", capacity.get(), order.min_units.to_sats().get()),
            // Signed by nobody but the offer, or by nobody at all: the recipient is to get what it was shown.
            ("self balance", push.get(), bid.self_balance.get()),
            ("duration", u64::from(self.offer.lease_duration.get()), u64::from(order.duration.get())),
            ("unannounced flag", flag(self.offer.unannounced), flag(bid.unannounced)),
            ("zero-conf flag", flag(self.offer.zero_conf), flag(bid.zero_conf)),
        ];
        match claims.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => Err(TicketError::Terms { what, expected, found }),
            None => Ok(()),
        }
    }

    /// The ticket in state ordered for this bid, to be signed again.
    ///
    /// # Errors
    /// [`TicketError::State`] before it is registered, [`TicketError::Missing`] without a signed offer.
    pub fn ordered(mut self, bid: OrderNonce) -> Result<Ticket, TicketError> {
        self.at_least(TicketState::Registered)?;
        self.signed_offer()?;
        self.order = Some(TicketOrder { bid: Some(bid), signature: None });
        self.state = TicketState::Ordered;
        Ok(self)
    }

    /// The ordered ticket with the signature of its order, which must be valid.
    ///
    /// # Errors
    /// As [`Ticket::verify_order`].
    pub fn with_order_signature(mut self, signature: CompactSignature) -> Result<Ticket, TicketError> {
        self.order.as_mut().ok_or(TicketError::Missing("order"))?.signature = Some(signature);
        self.verify_order()?;
        Ok(self)
    }

    /// Whether the recipient may wait for the channel: state ordered, both signatures valid. Returns the bid.
    ///
    /// # Errors
    /// As [`Ticket::verify_offer`] and [`Ticket::verify_order`].
    pub fn check_expected(&self) -> Result<OrderNonce, TicketError> {
        self.exactly(TicketState::Ordered)?;
        self.verify_offer()?;
        self.verify_order()?;
        self.order.and_then(|order| order.bid).ok_or(TicketError::Missing("bid nonce"))
    }
}

fn verify(
    key: AccountKey,
    digest: [u8; 32],
    signature: CompactSignature,
    what: &'static str,
) -> Result<(), TicketError> {
    let valid = signature.to_der().is_some_and(|der| verify_message(key.point(), &digest, &der));
    if valid { Ok(()) } else { Err(TicketError::Signature(what)) }
}

#[cfg(test)]
mod tests;
