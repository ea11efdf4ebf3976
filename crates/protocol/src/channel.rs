//! Channels of matched orders: funding outputs, names, shims, acceptor decisions.

use crate::curve::{SECP, sha256_of};
use crate::keys::{KeyDescriptor, KeyError, MultisigKey, NodeId, OrderNonce, PendingChannelId};
use crate::musig2::{self, Musig2Version};
use crate::order::{AnnouncementConstraint, AskTerms, BidTerms, ConfirmationConstraint, OrderChannelType};
use crate::units::{BlockCount, BlockHeight, Sats};
use bitcoin::blockdata::opcodes::all as op;
use bitcoin::{OutPoint, ScriptBuf};
use serde::{Deserialize, Serialize};

/// Commitment type of a leased channel. Numbers are the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum CommitmentType {
    /// 0: left to the peers' features.
    Negotiated = 0,
    /// 4: script-enforced lease.
    ScriptEnforcedLease = 4,
    /// 5: simple taproot.
    SimpleTaproot = 5,
}

/// The externally made funding output of a channel, as both nodes must know it.
///
/// # Source
/// Protocol notes, channels §3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundingShim {
    /// Name while pending.
    pub pending_id: PendingChannelId,
    /// Capacity: units plus the bid's self balance.
    pub capacity: Sats,
    /// The output in the batch transaction.
    pub channel_point: OutPoint,
    /// Our funding key.
    pub local_key: KeyDescriptor,
    /// The other side's funding key.
    pub remote_key: MultisigKey,
    /// Relative thaw height, or absolute lease expiry for script-enforced leases.
    pub thaw_height: u32,
    /// Taproot funding output.
    pub musig2: bool,
}

/// The maker's request to open a leased channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenChannel {
    /// The taker's node.
    pub node: NodeId,
    /// Funding output.
    pub shim: FundingShim,
    /// Pushed to the taker: its self balance.
    pub push: Sats,
    /// Commitment type.
    pub commitment: CommitmentType,
    /// Not announced.
    pub private: bool,
    /// Usable before it confirms.
    pub zero_conf: bool,
}

/// Under which conditions an expected incoming channel is accepted.
///
/// # Source
/// Protocol notes, channels §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptorRule {
    /// The push must be exactly this.
    pub self_balance: Sats,
    /// Channel type of the bid.
    pub channel_type: OrderChannelType,
    /// The channel must (not) be announced.
    pub unannounced: bool,
    /// The channel must be zero-conf.
    pub zero_conf: bool,
}

/// `SHA256(ask nonce || bid nonce)`.
pub fn pending_channel_id(ask: OrderNonce, bid: OrderNonce) -> PendingChannelId {
    PendingChannelId::new(sha256_of(&[ask.as_bytes(), bid.as_bytes()]))
}

impl CommitmentType {
    /// The commitment type of a pair of orders.
    ///
    /// # Source
    /// Protocol notes, scripts §7.
    pub fn of_pair(ours: OrderChannelType, theirs: OrderChannelType) -> CommitmentType {
        match (ours, theirs) {
            (OrderChannelType::ScriptEnforced, _) | (_, OrderChannelType::ScriptEnforced) => {
                CommitmentType::ScriptEnforcedLease
            }
            (OrderChannelType::SimpleTaproot, OrderChannelType::SimpleTaproot) => CommitmentType::SimpleTaproot,
            (OrderChannelType::PeerDependent | OrderChannelType::SimpleTaproot, _) => CommitmentType::Negotiated,
        }
    }

    /// The node's number.
    pub fn number(self) -> u32 {
        match self {
            CommitmentType::Negotiated => 0,
            CommitmentType::ScriptEnforcedLease => 4,
            CommitmentType::SimpleTaproot => 5,
        }
    }

    /// Relative thaw height, or absolute lease expiry for script-enforced leases. Nothing on overflow.
    ///
    /// # Source
    /// Protocol notes, channels §3.
    pub fn thaw_height(self, duration: BlockCount, batch_height: BlockHeight) -> Option<u32> {
        match self {
            CommitmentType::ScriptEnforcedLease => batch_height.checked_add(duration).map(BlockHeight::get),
            CommitmentType::Negotiated | CommitmentType::SimpleTaproot => Some(duration.get()),
        }
    }
}

/// Script of the funding output. The order of the keys does not matter.
///
/// # Errors
/// [`KeyError::Degenerate`] when the keys cannot be aggregated.
///
/// # Source
/// Protocol notes, scripts §7.
pub fn funding_script(
    ours: MultisigKey,
    theirs: MultisigKey,
    commitment: CommitmentType,
) -> Result<ScriptBuf, KeyError> {
    match commitment {
        CommitmentType::Negotiated | CommitmentType::ScriptEnforcedLease => {
            Ok(multisig_script(ours, theirs).to_p2wsh())
        }
        CommitmentType::SimpleTaproot => {
            let internal = musig2::aggregate([*ours.point(), *theirs.point()], Musig2Version::V100Rc2)?;
            Ok(ScriptBuf::new_p2tr(&*SECP, internal, None))
        }
    }
}

/// The 2-of-2 witness script of a funding output that is not taproot: keys in ascending order.
///
/// # Source
/// Protocol notes, scripts §7; BOLT 3 "Funding Transaction Output".
pub fn multisig_script(ours: MultisigKey, theirs: MultisigKey) -> ScriptBuf {
    let mut keys = [ours.serialize(), theirs.serialize()];
    keys.sort_unstable();
    bitcoin::script::Builder::new()
        .push_int(2)
        .push_slice(keys[0])
        .push_slice(keys[1])
        .push_int(2)
        .push_opcode(op::OP_CHECKMULTISIG)
        .into_script()
}

/// Whether the ask's announcement wish accepts the bid.
///
/// # Source
/// Protocol notes, batch §7.
pub fn announcement_matches(ask: &AskTerms, bid: &BidTerms) -> bool {
    match ask.announcement {
        AnnouncementConstraint::None => true,
        AnnouncementConstraint::OnlyAnnounced => !bid.unannounced,
        AnnouncementConstraint::OnlyUnannounced => bid.unannounced,
    }
}

/// Whether the ask's confirmation wish accepts the bid.
///
/// # Source
/// Protocol notes, batch §7.
pub fn confirmation_matches(ask: &AskTerms, bid: &BidTerms) -> bool {
    match ask.confirmation {
        ConfirmationConstraint::None => true,
        ConfirmationConstraint::OnlyConfirmed => !bid.zero_conf,
        ConfirmationConstraint::OnlyZeroConf => bid.zero_conf,
    }
}

/// What the opener of an incoming channel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncomingChannel {
    /// Pushed to us, in millisatoshi.
    pub push_msat: u64,
    /// Commitment type by the node's number, when negotiated explicitly.
    pub commitment: Option<u32>,
    /// Bit 0: announce.
    pub channel_flags: u32,
    /// Asks for zero-conf.
    pub wants_zero_conf: bool,
}

/// How an incoming channel is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptorDecision {
    /// Accept; with zero-conf the depth is 0.
    Accept {
        /// Accept as zero-conf.
        zero_conf: bool,
    },
    /// Refuse with a text for the opener.
    Refuse(String),
}

impl AcceptorRule {
    /// The rule for a bid.
    pub fn for_bid(bid: &BidTerms, channel_type: OrderChannelType) -> AcceptorRule {
        AcceptorRule {
            self_balance: bid.self_balance,
            channel_type,
            unannounced: bid.unannounced,
            zero_conf: bid.zero_conf,
        }
    }

    /// Judges an incoming channel. A zero-conf request for a bid that did not ask for it is accepted as an ordinary one.
    ///
    /// # Source
    /// Protocol notes, channels §6.
    pub fn decide(&self, incoming: &IncomingChannel) -> AcceptorDecision {
        match self.objection(incoming) {
            Some(text) => AcceptorDecision::Refuse(text),
            None => AcceptorDecision::Accept { zero_conf: self.zero_conf },
        }
    }

    /// The first rule that the request breaks.
    fn objection(&self, incoming: &IncomingChannel) -> Option<String> {
        const MSAT_PER_SAT: u64 = 1000;
        const ANNOUNCE: u32 = 1;
        let pushed = incoming.push_msat / MSAT_PER_SAT;
        if pushed != self.self_balance.get() {
            return Some(format!("push amount of {pushed} sat, expected {}", self.self_balance));
        }
        let wanted = match self.channel_type {
            OrderChannelType::PeerDependent => None,
            OrderChannelType::ScriptEnforced => Some(CommitmentType::ScriptEnforcedLease),
            OrderChannelType::SimpleTaproot => Some(CommitmentType::SimpleTaproot),
        };
        if let Some(wanted) = wanted
            && incoming.commitment != Some(wanted.number())
        {
            return Some(format!("commitment type {:?}, expected {}", incoming.commitment, wanted.number()));
        }
        let announced = incoming.channel_flags & ANNOUNCE != 0;
        if announced == self.unannounced {
            return Some(format!("announce bit {announced}, expected {}", !self.unannounced));
        }
        if self.zero_conf && !incoming.wants_zero_conf {
            return Some("not a zero-conf channel, expected one".to_owned());
        }
        None
    }
}
