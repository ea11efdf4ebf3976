//! What became of what was begun: signed batches that the venue may have made final meanwhile, and what proposals that
//! never happened left at the node.
//!
//! The venue's word about a signed batch is asked for whenever the stream is opened and before the next proposal is
//! judged: a finalize message may have been lost. What a proposal may leave at the node is a row of the store from
//! before the first shim is registered until the batch is signed, when the signed batch itself says it, or until it is
//! given up. A signed batch loses its place, and gets such a row, in the same commit; only then are its channels given
//! up. So a process that is cut anywhere leaves nothing behind for good.

use crate::book::{Book, Remains, Settlement, StagedBatch, Standing, Update};
use crate::desk::Desk;
use crate::funding;
use crate::staging::{self, Settled};
use bitcoin::Txid;
use tidegate_ports::{Channels, Clock, LinkError, NodeError, TraderEnv, VenueLink};
use tidegate_protocol::units::BlockHeight;

/// Asks the venue about every signed batch that is not settled, and books or supersedes those that it decided.
///
/// # Errors
/// [`LinkError`] when it does not tell about one.
///
/// # Source
/// Protocol notes, batch §9. The venue's snapshot is as good as its finalize message.
pub(crate) async fn resolve<E: TraderEnv>(env: &E, desk: &Desk) -> Result<(), LinkError> {
    for staged in active(desk).await {
        let (batch_id, txid) = (staged.batch_id, staged.txid());
        match env.link().snapshot(Some(batch_id)).await {
            Err(LinkError::NoSnapshot) => tracing::info!(batch = %batch_id, "the signed batch is not final yet"),
            Ok(snapshot) if snapshot.txid() == txid => settle(env, desk, txid, Settlement::Snapshot).await,
            Ok(snapshot) => {
                tracing::warn!(batch = %batch_id, ours = %txid, theirs = %snapshot.txid(), "the batch became final without us");
                desk.update(move |book| staging::supersede(book, |other| other.txid() == txid)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The signed batches that the venue may still make final.
async fn active(desk: &Desk) -> Vec<StagedBatch> {
    flush(desk).await;
    desk.read(|book| book.staged.values().filter(|batch| batch.standing == Standing::Active).cloned().collect())
}

/// A step that was cut may still have its commit in the queue: this one waits until it is through.
async fn flush(desk: &Desk) {
    desk.update(|_| Vec::new()).await;
}

/// Makes a signed batch true on the venue's word.
pub(crate) async fn settle<E: TraderEnv>(env: &E, desk: &Desk, txid: Txid, by: Settlement) {
    let height = desk.note(|moment| moment.best_height).unwrap_or(BlockHeight::new(0));
    let settled = Settled { by, at: env.clock().now(), height };
    desk.update(move |book| staging::settle(book, txid, settled).unwrap_or_default()).await;
    let bids: Option<Vec<_>> = desk.read(|book| {
        let batch = book.staged.get(&txid).filter(|batch| batch.standing == Standing::Booked)?;
        let bids = batch.matches.iter().filter(|staged| !staged.lease.maker);
        Some(bids.map(|staged| staged.pending_id).collect())
    });
    let Some(bids) = bids else { return };
    tracing::info!(%txid, ?by, "batch final");
    for id in bids {
        if let Err(error) = env.channels().unexpect(id).await {
            tracing::debug!(%error, "an acceptor rule was not removed");
        }
    }
}

/// What is left at the node, without the channels of batches that are final or may become so: those are never given up.
fn left(book: &Book) -> Vec<Remains> {
    let live = |batch: &&StagedBatch| batch.standing != Standing::Superseded;
    let channels = |batch: &StagedBatch| batch.matches.iter().map(|matched| matched.lease.channel).collect::<Vec<_>>();
    let staged: Vec<_> = book.staged.values().filter(live).flat_map(channels).collect();
    let alive = |channel: &bitcoin::OutPoint| book.leases.contains_key(channel) || staged.contains(channel);
    book.remains.values().cloned().map(|remains| remains.without(alive)).collect()
}

/// Gives up at the node what earlier proposals left there, and says which proposals are to be forgotten for that. No
/// step of a batch may be under way besides the one that calls.
///
/// # Errors
/// [`NodeError`] when a channel could not be given up.
///
/// # Source
/// Protocol notes, batch §6 (a) to (c), channels §8.
pub(crate) async fn give_up<E: TraderEnv>(env: &E, desk: &Desk) -> Result<Vec<Txid>, NodeError> {
    flush(desk).await;
    let mut given_up = Vec::new();
    for remains in desk.read(left) {
        funding::clean_up(env, &remains).await?;
        given_up.push(remains.txid);
    }
    Ok(given_up)
}

/// Gives up what earlier proposals left, while no stream is open. What fails is tried again with the next stream, and
/// before the next proposal.
pub(crate) async fn tidy<E: TraderEnv>(env: &E, desk: &Desk) {
    match give_up(env, desk).await {
        Ok(given_up) => {
            desk.update(move |_| given_up.into_iter().map(Update::Forget).collect()).await;
        }
        Err(error) => tracing::warn!(%error, "what an earlier proposal left at the node is not cleaned up yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn channels_of_batches_that_may_come_true_are_never_given_up() {
        let staged = fixtures::staged_batch();
        let channel = staged.matches[0].lease.channel;
        let given_up = |updates: Vec<Update>| {
            let mut book = Book::default();
            book.apply(Update::Remains(Box::new(Remains::of_staged(&staged))));
            updates.into_iter().for_each(|update| book.apply(update));
            left(&book).into_iter().flat_map(|remains| remains.channels).collect::<Vec<_>>()
        };
        let stage = |standing| Update::Stage(Box::new(StagedBatch { standing, ..staged.clone() }));
        assert_eq!(given_up(Vec::new()), [channel]);
        assert_eq!(given_up(vec![stage(Standing::Superseded)]), [channel]);
        assert!(given_up(vec![stage(Standing::Active)]).is_empty());
        assert!(given_up(vec![stage(Standing::Booked)]).is_empty());
        let lease = Update::Lease(Box::new(staged.matches[0].lease.clone()));
        assert!(given_up(vec![stage(Standing::Superseded), lease]).is_empty());
    }
}
