//! Leased channels until their maturity: who closes one early by force, as the seller, is banned.
//!
//! Both sides reported their payment base points when they signed the batch. A commitment transaction pays its
//! *counterpart* at such a point, so its outputs tell whose it is.
//!
//! # Source
//! Protocol notes, auctioneer §18.

use crate::actor::Actor;
use crate::bans::Banned;
use crate::book::{LeaseRecord, Write};
use crate::error::Halt;
use crate::node::Watched;
use bitcoin::opcodes::all as op;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{PublicKey, Secp256k1, XOnlyPublicKey};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash};
use bitcoin::{CompressedPublicKey, OutPoint, ScriptBuf, Transaction};
use serde::{Deserialize, Serialize};
use tidegate_ports::{VenueEnv, Watch};
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::units::{BlockCount, BlockHeight};
use tracing::{info, warn};

/// Prefix of the names of watches; the channel follows.
pub(crate) const LEASE: &str = "lease/";
/// x of the point whose private key nobody knows, internal key of a taproot commitment's output for the counterpart.
const NUMS: [u8; 32] = [
    0xdc, 0xa0, 0x94, 0x75, 0x11, 0x09, 0xd0, 0xbd, 0x05, 0x5d, 0x03, 0x56, 0x58, 0x74, 0xe8, 0x27, 0x6d, 0xd5, 0x3e,
    0x92, 0x6b, 0x44, 0xe3, 0xbd, 0x1b, 0xb6, 0xbf, 0x4b, 0xc1, 0x30, 0xa2, 0x79,
];

/// When a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Maturity {
    /// At this height: the script of the channel enforces it.
    At(BlockHeight),
    /// So many blocks after the channel's confirmation.
    After(BlockCount),
}

/// One side of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseSide {
    pub(crate) account: AccountKey,
    pub(crate) node: NodeId,
    /// Its payment base point in the channel.
    pub(crate) payment: PublicKey,
}

/// How a leased channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not before its maturity.
    Matured,
    /// By both; a buyer's node refuses that before maturity unless the buyer wants it.
    Together,
    /// Early, by the buyer alone: its loss.
    ByBuyer,
    /// Early, by the seller alone.
    BySeller,
}

impl LeaseRecord {
    /// First height at which the seller may close, when the channel confirmed at `confirmed`.
    pub(crate) fn matures(&self, confirmed: BlockHeight) -> BlockHeight {
        match self.maturity {
            Maturity::At(height) => height,
            Maturity::After(blocks) => confirmed.checked_add(blocks).unwrap_or(BlockHeight::new(u32::MAX)),
        }
    }

    /// What a spend of the channel at this height means.
    pub(crate) fn ending(&self, transaction: &Transaction, height: BlockHeight) -> Ending {
        if height >= self.matures(self.confirmed.unwrap_or(height)) {
            return Ending::Matured;
        }
        if !is_commitment(transaction, self.channel) {
            return Ending::Together;
        }
        if self.pays(&self.buyer, transaction) {
            Ending::BySeller
        } else if self.pays(&self.seller, transaction) {
            Ending::ByBuyer
        } else {
            // The seller always keeps a reserve, which the buyer's commitment would pay.
            Ending::BySeller
        }
    }

    /// Whether a commitment pays this side as its counterpart, in any of the forms that a node may have negotiated.
    fn pays(&self, side: &LeaseSide, transaction: &Transaction) -> bool {
        let lock = match self.maturity {
            Maturity::At(height) => Some(height),
            Maturity::After(_) => None,
        };
        let forms = counterpart_scripts(&side.payment, lock);
        transaction.output.iter().any(|output| forms.contains(&output.script_pubkey))
    }
}

/// Commitments mark the number that they hide: top byte 0x80 of the sequence, 0x20 of the lock time. Closes by both may
/// signal replaceability, so that their sequence alone says nothing.
fn is_commitment(transaction: &Transaction, channel: OutPoint) -> bool {
    let marked = |input: &bitcoin::TxIn| input.previous_output == channel && input.sequence.0 >> 24 == 0x80;
    transaction.lock_time.to_consensus_u32() >> 24 == 0x20 && transaction.input.iter().any(marked)
}

/// Output scripts by which a commitment may pay its counterpart.
///
/// # Source
/// BOLT 3 (static remote key, anchors); script-enforced leases add the lease's lock for the initiator; simple taproot
/// puts the delay into a leaf under a key that nobody knows.
fn counterpart_scripts(payment: &PublicKey, lock: Option<BlockHeight>) -> Vec<ScriptBuf> {
    let plain = ScriptBuf::new_p2wpkh(&CompressedPublicKey(*payment).wpubkey_hash());
    let delayed = |lock: Option<BlockHeight>| {
        let mut script = Builder::new().push_slice(payment.serialize()).push_opcode(op::OP_CHECKSIGVERIFY);
        if let Some(height) = lock {
            script = script.push_int(i64::from(height.get())).push_opcode(op::OP_CLTV).push_opcode(op::OP_DROP);
        }
        script.push_int(1).push_opcode(op::OP_CSV).into_script().to_p2wsh()
    };
    let (x, _) = payment.x_only_public_key();
    let key = |opcode| Builder::new().push_slice(x.serialize()).push_opcode(opcode).push_int(1).push_opcode(op::OP_CSV);
    let leaves =
        [key(op::OP_CHECKSIG).push_opcode(op::OP_DROP).into_script(), key(op::OP_CHECKSIGVERIFY).into_script()];
    let internal = XOnlyPublicKey::from_slice(&NUMS).expect("the constant is on the curve");
    let secp = Secp256k1::verification_only();
    let taproot = leaves.map(|leaf| {
        let root = TapNodeHash::from(TapLeafHash::from_script(&leaf, LeafVersion::TapScript));
        ScriptBuf::new_p2tr(&secp, internal, Some(root))
    });
    let locked = lock.map(|height| delayed(Some(height)));
    [plain, delayed(None)].into_iter().chain(locked).chain(taproot).collect()
}

pub(crate) fn lease_watch(lease: &LeaseRecord) -> Watched {
    let height_hint = lease.height_hint.saturating_sub(crate::accounts::REORGANISATION);
    let watch = Watch::Spend { outpoint: lease.channel, script: lease.script.clone(), height_hint };
    (format!("{LEASE}{}", lease.channel), watch)
}

impl<E: VenueEnv> Actor<'_, E> {
    /// Leases of a batch start to run when its transaction is in a block.
    pub(crate) fn lease_starts(&self, transaction: &Transaction, height: BlockHeight) -> Vec<Write> {
        let txid = transaction.compute_txid();
        let of_batch = self.book.leases.values().filter(|lease| lease.channel.txid == txid);
        of_batch.map(|lease| Write::Lease(LeaseRecord { confirmed: Some(height), ..lease.clone() })).collect()
    }

    /// Leases that have matured are not watched any more.
    pub(crate) async fn end_matured_leases(&mut self) -> Result<(), Halt> {
        let matured = |lease: &&LeaseRecord| lease.confirmed.is_some_and(|at| lease.matures(at) <= self.height);
        let ended: Vec<OutPoint> = self.book.leases.values().filter(matured).map(|lease| lease.channel).collect();
        if ended.is_empty() {
            return Ok(());
        }
        self.commit(ended.iter().map(|channel| Write::DropLease(*channel)).collect()).await?;
        for channel in ended {
            info!(%channel, "lease matured");
            self.unwatch_lease(channel).await;
        }
        Ok(())
    }

    async fn unwatch_lease(&self, channel: OutPoint) {
        if let Err(error) = self.node.unwatch(&format!("{LEASE}{channel}")).await {
            warn!(%channel, %error, "an old watch could not be ended");
        }
    }

    /// A leased channel was closed.
    pub(crate) async fn on_lease_spent(
        &mut self,
        channel: OutPoint,
        height: BlockHeight,
        transaction: &Transaction,
    ) -> Result<(), Halt> {
        let Some(lease) = self.book.leases.get(&channel).cloned() else { return Ok(()) };
        let ending = lease.ending(transaction, height);
        info!(%channel, %height, ?ending, "leased channel closed");
        let seller = [Banned::Account(lease.seller.account), Banned::Node(lease.seller.node)];
        let offenders = if ending == Ending::BySeller { &seller[..] } else { &[] };
        // One commit: the chain tells it again after a restart, and nobody shall be banned twice for one channel.
        let mut writes = self.ban_writes(offenders, "a leased channel was closed by its seller before maturity");
        writes.push(Write::DropLease(channel));
        self.commit(writes).await?;
        self.unwatch_lease(channel).await;
        Ok(())
    }
}
