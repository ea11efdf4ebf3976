//! What leased channels are used for: payments through them, and their end by agreement.
//!
//! Does: keeps, beside each channel, how much payments moved from the side that opened it (who sold the lease) to the
//! other, and what forwarding them earned; closes a channel with a transaction that pays each side what it has there.
//!
//! Simulated, not real: a payment comes from outside of this world and ends at the buyer. Its sender, its route before
//! the seller, its invoice and its HTLCs do not exist; the fee is counted, and lands in no channel.

use crate::channels;
use crate::keys::secp;
use crate::node::{SandboxNode, refused};
use crate::snapshot::ChannelRecord;
use crate::world::{State, World};
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde::{Deserialize, Serialize};
use tidegate_ports::{AddressKind, NodeError};
use tidegate_protocol::channel::{CommitmentType, multisig_script};
use tidegate_protocol::keys::{MultisigKey, NodeId};
use tidegate_protocol::units::{BlockHeight, Sats};

/// Share of a channel that its opener keeps, as channels demand: one in so many.
const RESERVE_SHARE: u64 = 100;
/// Weight of a closing transaction with two outputs, at most.
const CLOSE_WEIGHT: u64 = 800;
/// Smallest output of a closing transaction.
const DUST: Sats = Sats::constant(354);
const CLOSE: &str = "close_channel";

/// How a channel was used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelUse {
    /// Moved from the opener to the acceptor, in satoshi.
    pub moved: Sats,
    /// Payments that moved it.
    pub payments: u64,
    /// What the opener earned by forwarding them, in millisatoshi.
    pub fees_msat: u64,
}

impl Default for ChannelUse {
    fn default() -> ChannelUse {
        ChannelUse { moved: Sats::ZERO, payments: 0, fees_msat: 0 }
    }
}

/// A channel that is not closed, seen as a way for payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Funding output.
    pub channel: OutPoint,
    /// Who opened it: the seller of the lease.
    pub opener: NodeId,
    /// The buyer.
    pub acceptor: NodeId,
    /// Value of the funding output.
    pub capacity: Sats,
    /// What can still be paid to the buyer.
    pub inbound: Sats,
    /// Deep enough in the chain to be used, both nodes up and connected.
    pub usable: bool,
    /// Height at which the lease is over; nothing before the funding output is confirmed.
    pub maturity: Option<BlockHeight>,
    /// Its use so far.
    pub usage: ChannelUse,
}

impl State {
    /// Finds the channels that are not closed, after a start from saved data.
    pub(crate) fn find_running(&mut self) {
        let opened = |id: &NodeId| self.node(id).channels.values().filter(|record| record.initiator);
        let running = self.order.iter().flat_map(|id| opened(id).map(move |record| (record, *id)));
        let held = running.filter(|(record, _)| record.is_held(&self.chain));
        self.running = held.map(|(record, id)| (record.channel_point, id)).collect();
    }

    fn lane(&self, channel: OutPoint, opener: NodeId) -> Option<Lane> {
        let node = self.node(&opener);
        let record = node.channels.get(&channel)?;
        let usage = self.uses.get(&channel).copied().unwrap_or_default();
        let reserve = Sats::new(record.capacity.get() / RESERVE_SHARE).unwrap_or(Sats::ZERO);
        let mut gone = [record.push, usage.moved, reserve].into_iter();
        let inbound = gone.try_fold(record.capacity, |left, part| left.checked_sub(part));
        let funded = record.funded_at(&self.chain);
        let maturity = match record.commitment {
            CommitmentType::ScriptEnforcedLease => funded.map(|_| record.thaw_height),
            CommitmentType::Negotiated | CommitmentType::SimpleTaproot => {
                funded.and_then(|height| height.checked_add(record.thaw_height))
            }
        };
        Some(Lane {
            channel,
            opener,
            acceptor: record.peer,
            capacity: record.capacity,
            inbound: inbound.unwrap_or(Sats::ZERO),
            usable: node.peers.contains(&record.peer) && record.is_usable(&self.chain),
            maturity: maturity.map(BlockHeight::new),
            usage,
        })
    }
}

impl World {
    /// The channels that are neither closed nor given up, by funding output.
    pub fn lanes(&self) -> Vec<Lane> {
        self.change(|state| {
            let State { running, nodes, chain, .. } = state;
            running.retain(|channel, opener| {
                let record = nodes.get(opener).and_then(|node| node.channels.get(channel));
                record.is_some_and(|record| record.is_held(chain))
            });
            let running: Vec<(OutPoint, NodeId)> = state.running.iter().map(|(point, node)| (*point, *node)).collect();
            running.into_iter().filter_map(|(channel, opener)| state.lane(channel, opener)).collect()
        })
    }

    /// A payment to the buyer of a lease through its channel, forwarded for `fee_msat`. False when the channel can not
    /// carry it now; then nothing changes.
    pub fn pay_through(&self, channel: OutPoint, amount: Sats, fee_msat: u64) -> bool {
        self.change(|state| {
            let opener = state.running.get(&channel).copied();
            let lane = opener.and_then(|opener| state.lane(channel, opener));
            let Some(lane) = lane.filter(|lane| lane.usable && amount <= lane.inbound) else { return false };
            let Some(moved) = lane.usage.moved.checked_add(amount) else { return false };
            let usage = ChannelUse {
                moved,
                payments: lane.usage.payments.saturating_add(1),
                fees_msat: lane.usage.fees_msat.saturating_add(fee_msat),
            };
            state.uses.insert(channel, usage);
            true
        })
    }

    /// Connects nodes that share a channel, as nodes do by themselves; those that do not listen stay alone.
    pub fn reconnect(&self) {
        self.change(|state| {
            let pairs: Vec<(NodeId, NodeId)> = state
                .running
                .iter()
                .filter_map(|(channel, opener)| Some((*opener, state.node(opener).channels.get(channel)?.peer)))
                .filter(|(opener, peer)| !state.node(opener).peers.contains(peer))
                .collect();
            for (opener, peer) in pairs {
                let address = state.node(&peer).address.clone();
                if state.node(&opener).listening {
                    // Who does not listen now is connected later.
                    drop(channels::connect(state, opener, peer, &[address]));
                }
            }
        });
    }

    /// Ends a channel by agreement: its transaction enters the mempool and pays each side what it has in the channel.
    ///
    /// # Errors
    /// [`NodeError::Refused`] when there is no such channel, a node is away, or the channel is a taproot one.
    pub fn close_channel(&self, channel: OutPoint) -> Result<Txid, NodeError> {
        self.change(|state| close(state, channel))
    }
}

/// The two sides of a channel.
struct Ends {
    opener: (NodeId, ChannelRecord),
    acceptor: (NodeId, ChannelRecord),
}

fn ends(state: &State, channel: OutPoint) -> Option<Ends> {
    let opener = *state.running.get(&channel)?;
    let record = state.node(&opener).channels.get(&channel)?.clone();
    let peer = record.peer;
    let theirs = state.node(&peer).channels.get(&channel)?.clone();
    Some(Ends { opener: (opener, record), acceptor: (peer, theirs) })
}

fn close(state: &mut State, channel: OutPoint) -> Result<Txid, NodeError> {
    let Some(Ends { opener, acceptor }) = ends(state, channel) else {
        return Err(refused(CLOSE, format!("there is no channel {channel}")));
    };
    let lane = state.lane(channel, opener.0).filter(|lane| lane.usable);
    let lane = lane.ok_or_else(|| refused(CLOSE, format!("channel {channel} is not usable now")))?;
    if opener.1.commitment == CommitmentType::SimpleTaproot {
        return Err(refused(CLOSE, "taproot channels are not closed by agreement in this world"));
    }
    let fee = state.fee_rate.fee_floor(CLOSE_WEIGHT).map_err(|error| refused(CLOSE, error))?;
    let shares = shares(&opener.1, lane.usage, fee);
    let mut output = Vec::new();
    for (id, value) in [opener.0, acceptor.0].into_iter().zip(shares) {
        if value >= DUST {
            let (node, _) = state.node_and_chain(&id);
            let script_pubkey = node.wallet.fresh(&node.ring, AddressKind::WitnessPubkeyHash)?;
            output.push(TxOut { value: value.into(), script_pubkey });
        }
    }
    let input = vec![TxIn {
        previous_output: channel,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }];
    let unsigned = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
    let signed = sign(state, unsigned, &opener, &acceptor)?;
    state.chain.accept(&signed).map_err(|refusal| refused(CLOSE, refusal))?;
    let txid = signed.compute_txid();
    for id in [opener.0, acceptor.0] {
        state.node_and_chain(&id).0.wallet.labels.insert(txid, "channel closed".to_owned());
    }
    Ok(txid)
}

/// What opener and acceptor get; the opener bears the fee, and the acceptor what the opener lacks for it.
fn shares(record: &ChannelRecord, usage: ChannelUse, fee: Sats) -> [Sats; 2] {
    let acceptor = record.push.checked_add(usage.moved).unwrap_or(record.capacity).min(record.capacity);
    let opener = record.capacity.checked_sub(acceptor).unwrap_or(Sats::ZERO);
    let lacking = fee.checked_sub(opener).unwrap_or(Sats::ZERO);
    let less = |value: Sats, part: Sats| value.checked_sub(part).unwrap_or(Sats::ZERO);
    [less(opener, fee), less(acceptor, lacking)]
}

fn sign(
    state: &State,
    mut unsigned: Transaction,
    opener: &(NodeId, ChannelRecord),
    acceptor: &(NodeId, ChannelRecord),
) -> Result<Transaction, NodeError> {
    let lost = || refused(CLOSE, "a funding key is out of range");
    let key = |(id, record): &(NodeId, ChannelRecord)| {
        let secret = state.node(id).ring.family_key(record.funding_key)?;
        Some((MultisigKey::new(secret.public_key(secp())), secret))
    };
    let mut keys = [key(opener).ok_or_else(lost)?, key(acceptor).ok_or_else(lost)?];
    let script = multisig_script(keys[0].0, keys[1].0);
    keys.sort_by_key(|(point, _)| point.serialize());
    let value = opener.1.capacity.into();
    let digest = SighashCache::new(&unsigned).p2wsh_signature_hash(0, &script, value, EcdsaSighashType::All);
    let message = Message::from(digest.map_err(|error| refused(CLOSE, error))?);
    let mut witness = Witness::from_slice(&[&[][..]]);
    for (_, secret) in &keys {
        let signature = secp().sign_ecdsa(&message, secret);
        witness.push(bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All }.to_vec());
    }
    witness.push(script.as_bytes());
    for input in &mut unsigned.input {
        input.witness = witness.clone();
    }
    Ok(unsigned)
}

impl SandboxNode {
    /// Takes the node off the network, or brings it back: while it is off, nobody connects to it and its connections
    /// are gone.
    pub fn set_up(&self, up: bool) {
        self.restart();
        self.world().set_listening(self, up);
    }
}
