//! One attempt to clear, from the tick to its outcome: repeated without whoever stood in the way.

use crate::actor::Actor;
use crate::bans::Banned;
use crate::book::OperatorWish;
use crate::error::Halt;
use crate::execution::Executed;
use crate::handle::{TickOutcome, TickReason};
use crate::proposal::{ClearingWork, Participant, Proposal};
use crate::rejects::Consequences;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{ClientMessage, NodeError, StreamId, VenueEnv};
use tidegate_protocol::batch::{BatchSignatures, MatchRejectCode, Reject};
use tidegate_protocol::keys::{BatchId, OrderNonce};
use tidegate_protocol::units::SatPerKw;
use tracing::{debug, info, warn};

/// Attempts of one tick, at most.
const MAX_ATTEMPTS: u32 = 10;

/// Which answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Prepare,
    Sign,
}

/// How a trader answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    Signed(Box<BatchSignatures>),
    Rejected(Reject),
    /// No answer in time, or the stream is gone.
    Missing(&'static str),
}

/// The answers of one step.
#[derive(Debug)]
pub(crate) struct Collector {
    phase: Phase,
    batch: BatchId,
    waiting: BTreeSet<StreamId>,
    answers: BTreeMap<StreamId, Answer>,
}

impl Collector {
    pub(crate) fn new(phase: Phase, batch: BatchId, waiting: BTreeSet<StreamId>) -> Collector {
        Collector { phase, batch, waiting, answers: BTreeMap::new() }
    }

    /// A message of the batch conversation. What answers another step or another batch is ignored.
    pub(crate) fn hear(&mut self, stream: StreamId, message: ClientMessage) {
        if !self.waiting.contains(&stream) {
            debug!(stream = stream.0, "an answer that is not awaited is ignored");
            return;
        }
        let answer = match (self.phase, message) {
            (Phase::Prepare, ClientMessage::Accept { batch_id }) if batch_id == self.batch => Answer::Accepted,
            (Phase::Sign, ClientMessage::Sign(signatures)) if signatures.batch_id == self.batch => {
                Answer::Signed(Box::new(signatures))
            }
            (_, ClientMessage::Reject(reject)) if self.is_ours(&reject) => Answer::Rejected(reject),
            (phase, _) => {
                debug!(stream = stream.0, ?phase, "an answer to another step or batch is ignored");
                return;
            }
        };
        self.settle(stream, answer);
    }

    /// A reject echoes the batch id as received; one that echoes nothing legible can only mean the present batch.
    fn is_ours(&self, reject: &Reject) -> bool {
        reject.batch_id.len() != 33 || reject.batch_id == self.batch.serialize()
    }

    /// The stream is gone.
    pub(crate) fn lose(&mut self, stream: StreamId) {
        if self.waiting.contains(&stream) {
            self.settle(stream, Answer::Missing("its stream is gone"));
        }
    }

    fn settle(&mut self, stream: StreamId, answer: Answer) {
        self.waiting.remove(&stream);
        self.answers.insert(stream, answer);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All answers; who has not answered by now did not answer.
    pub(crate) fn finish(mut self) -> BTreeMap<StreamId, Answer> {
        for stream in core::mem::take(&mut self.waiting) {
            self.answers.insert(stream, Answer::Missing("no answer in time"));
        }
        self.answers
    }
}

impl<E: VenueEnv> Actor<'_, E> {
    /// Tries to clear the market once, leaving out whoever stands in the way.
    ///
    /// # Source
    /// Protocol notes, auctioneer §7.2.
    pub(crate) async fn tick(&mut self) -> Result<TickOutcome, Halt> {
        let mut work = ClearingWork { left: self.config.clearing_work, cut: false };
        let (cleared, reason) = self.attempts(&mut work).await?;
        Ok(TickOutcome { cleared, reason, cut: work.cut })
    }

    async fn attempts(&mut self, work: &mut ClearingWork) -> Result<(Option<BatchId>, TickReason), Halt> {
        let failed = |reason| Ok((None, reason));
        let mut removed = BTreeSet::new();
        self.refusals.clear();
        let mut failures = 0;
        for attempt in 1..=MAX_ATTEMPTS {
            let rate = match self.refresh().await? {
                Ok(rate) => rate,
                Err(error) => return failed(TickReason::Node(error)),
            };
            self.prepare_sweep().await?;
            if self.stopping {
                return failed(TickReason::Stopping);
            }
            let conflicts = self.conflicts.in_force(self.now());
            let rate = self.book.wish.rate.map_or(rate, |wished| wished.max(SatPerKw::FLOOR));
            let proposed = match self.propose(rate, &conflicts, &mut removed, work) {
                Ok(None) if self.wants_empty_batch() => self.propose_empty(rate).map(Some),
                proposed => proposed,
            };
            let proposal = match proposed {
                Ok(Some(proposal)) => proposal,
                Ok(None) if failures == 0 => return failed(TickReason::NoMatch),
                Ok(None) => return failed(TickReason::GaveUp { attempts: failures }),
                Err(error) if self.book.wish != OperatorWish::default() => {
                    self.drop_wish(&error.to_string()).await?;
                    continue;
                }
                Err(error) => return failed(TickReason::Assembly(error)),
            };
            log_proposal(&proposal, attempt);
            self.running = proposal.accounts.keys().copied().collect();
            let executed = self.execute(&proposal).await;
            self.running.clear();
            self.collector = None;
            match executed? {
                Executed::Cleared => {
                    return Ok((Some(proposal.batch), TickReason::Cleared));
                }
                Executed::Stopping => return failed(TickReason::Stopping),
                Executed::Node(error) => return failed(TickReason::Node(error)),
                Executed::Failed(consequences) => {
                    failures += 1;
                    self.bear(&proposal.participants, consequences, &mut removed).await?;
                }
            }
        }
        failed(TickReason::GaveUp { attempts: MAX_ATTEMPTS })
    }

    /// Asks for height and fee rate anew: a long series of attempts must not outrun the traders' window for the height.
    async fn refresh(&mut self) -> Result<Result<SatPerKw, NodeError>, Halt> {
        let (node, target) = (self.node.clone(), self.config.fee_conf_target);
        let asked = async { Ok((node.best_height().await?, node.estimate_fee(target).await?)) };
        Ok(match self.beside(asked).await? {
            Ok((height, estimate)) => {
                (self.height, self.estimate) = (height, estimate);
                Ok(estimate.max(self.config.min_batch_fee_rate).max(SatPerKw::FLOOR))
            }
            Err(error) => Err(error),
        })
    }

    async fn bear(
        &mut self,
        participants: &BTreeMap<StreamId, Participant>,
        consequences: Consequences,
        removed: &mut BTreeSet<OrderNonce>,
    ) -> Result<(), Halt> {
        if consequences.is_empty() {
            warn!("an attempt failed without a consequence");
        }
        let now = self.now();
        for (reporter, subject, code) in consequences.conflicts {
            let ms = match code {
                MatchRejectCode::DuplicatePeer => self.config.duplicate_peer_conflict_ms,
                MatchRejectCode::ChannelFundingFailed => self.config.funding_conflict_ms,
            };
            info!(%reporter, %subject, ?code, "accounts are kept apart");
            self.conflicts.insert((reporter, subject), code, now.plus_ms(ms));
            // Whoever came back before the other side had reported it.
            for account in [reporter, subject] {
                let took_part = participants.iter().find(|(_, one)| one.accounts.contains(&account));
                if self
                    .streams
                    .of_account(account)
                    .is_some_and(|(now, _)| took_part.is_some_and(|(then, _)| *then != now))
                {
                    self.conflicts.lift(account);
                }
            }
        }
        removed.extend(consequences.remove);
        let liars: Vec<Banned> = consequences.liars.into_iter().map(Banned::Account).collect();
        self.ban(&liars, "reports of one channel contradict each other").await
    }

    /// Waits for the answers of a step, serving everything else meanwhile. Nothing when told to stop.
    pub(crate) async fn collect(&mut self) -> Result<Option<BTreeMap<StreamId, Answer>>, Halt> {
        let deadline = self.now().plus_ms(self.config.step_timeout_ms);
        while self.collector.as_ref().is_some_and(|collector| !collector.is_complete()) && self.now() < deadline {
            let until = self.streams.next_deadline().map_or(deadline, |at| at.min(deadline));
            let event = self.next_event(Some(until)).await;
            self.handle(event).await?;
            if self.stopping {
                return Ok(None);
            }
        }
        let Some(collector) = self.collector.take() else { return Ok(None) };
        self.end_late_streams(&collector.waiting).await;
        Ok(Some(collector.finish()))
    }

    /// Whoever did not answer in time loses its stream. A repeated round has the same id: a late answer on the same
    /// stream could not be told from one to the next proposal.
    ///
    /// # Source
    /// Protocol notes, auctioneer §13.
    async fn end_late_streams(&mut self, late: &BTreeSet<StreamId>) {
        for stream in late {
            self.hang_up(*stream, "no answer to a batch in time").await;
        }
    }
}

fn log_proposal(proposal: &Proposal, attempt: u32) {
    let txid = proposal.assembly.transaction.compute_txid();
    let (pairs, traders) = (proposal.pairs().count(), proposal.participants.len());
    info!(batch = %proposal.batch, attempt, %txid, pairs, traders, fee_rate = proposal.fee_rate.get(), "batch proposed");
}
