//! The conversation of one attempt: prepare, sign, witnesses, and the hand-over to the commit.

use crate::actor::Actor;
use crate::book::{LeaseRecord, Write};
use crate::error::Halt;
use crate::leases::{LeaseSide, Maturity};
use crate::master::sign_coins;
use crate::proposal::{Participant, Proposal};
use crate::rejects::{Consequences, of_reject, remove_all};
use crate::round::{Answer, Collector, Phase};
use crate::witness::{Sessions, Signed};
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{Channel, Pair};
use tidegate_ports::{NodeError, ServerMessage, StreamId, Traders, VenueEnv};
use tidegate_protocol::batch::{BatchSignatures, ChannelInfo, RejectReason, ReportedChannelType, SignBegin};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::order::SubmittedOrder;
use tracing::{info, warn};

/// Refusals of single counterparts that one trader may utter in one round.
const MAX_REFUSALS: u32 = 3;

/// End of one attempt.
#[derive(Debug)]
pub(crate) enum Executed {
    Cleared,
    Failed(Consequences),
    Node(NodeError),
    Stopping,
}

/// The traders' signatures by stream.
pub(crate) type Answers = BTreeMap<StreamId, BatchSignatures>;

impl<E: VenueEnv> Actor<'_, E> {
    /// Leads the traders through one attempt.
    ///
    /// # Source
    /// Protocol notes, auctioneer §13.
    pub(crate) async fn execute(&mut self, proposal: &Proposal) -> Result<Executed, Halt> {
        let prepares = proposal.participants.iter().map(|(stream, participant)| {
            let first = participant.accounts.first();
            let fee = first.map_or(self.config.execution_fee, |account| self.fee_of(*account));
            (*stream, ServerMessage::Prepare(Box::new(proposal.prepare(participant, fee))))
        });
        let prepares = prepares.collect();
        let Some(answers) = self.ask(Phase::Prepare, proposal, prepares).await? else {
            return Ok(Executed::Stopping);
        };
        let refusals = self.refusals(proposal, &answers);
        if !refusals.is_empty() {
            return Ok(Executed::Failed(refusals));
        }
        // What traders may sign is on record first, so that it is never proposed again under the same transaction id.
        let txid = proposal.assembly.transaction.compute_txid();
        let receipt = self.commit(vec![Write::Signed(self.book.signed_with(txid))]).await?;
        if !receipt.names_attempt(txid) {
            return Ok(Executed::Failed(everybody(proposal)));
        }
        let (node, key) = (self.node.clone(), self.key);
        let sessions = match self.beside(Sessions::begin(&node, &key, proposal)).await? {
            Ok(sessions) => sessions,
            Err(error) => return Ok(Executed::Node(error)),
        };
        self.sign_round(proposal, sessions).await
    }

    /// What follows from the refusals among the answers. A trader who refuses single counterparts again and again in one
    /// round leaves it with all orders: the others shall not wait for it.
    fn refusals(&mut self, proposal: &Proposal, answers: &BTreeMap<StreamId, Answer>) -> Consequences {
        let mut consequences = Consequences::default();
        let mut out = BTreeSet::new();
        for (stream, Participant { accounts, .. }) in &proposal.participants {
            let (of_this, leaves) = match answers.get(stream) {
                Some(Answer::Accepted | Answer::Signed(_)) => continue,
                Some(Answer::Rejected(reject)) => {
                    info!(stream = stream.0, message = %Short(&reject.message), reason = ?Kind(&reject.reason), "batch rejected");
                    let times = self.refusals.entry(*stream).or_default();
                    *times += 1;
                    match *times {
                        0..=MAX_REFUSALS => {
                            let whole = !matches!(reject.reason, RejectReason::Partial(_));
                            (of_reject(proposal.pairs(), accounts, &reject.reason), whole)
                        }
                        _ => (remove_all(proposal.pairs(), accounts), true),
                    }
                }
                Some(Answer::Missing(why)) => {
                    info!(stream = stream.0, why, "a trader falls out of the round");
                    (remove_all(proposal.pairs(), accounts), true)
                }
                None => (remove_all(proposal.pairs(), accounts), true),
            };
            consequences.extend(of_this);
            if leaves {
                out.extend(accounts);
            }
        }
        consequences.forget_channels_with(&out);
        consequences
    }

    async fn sign_round(&mut self, proposal: &Proposal, mut sessions: Sessions) -> Result<Executed, Halt> {
        let begins = proposal.participants.iter().map(|(stream, participant)| {
            let begin = SignBegin {
                batch_id: proposal.batch.serialize().to_vec(),
                server_nonces: sessions.nonces(&participant.accounts),
                prev_outputs: proposal.prev_outputs(),
            };
            (*stream, ServerMessage::Sign(Box::new(begin)))
        });
        let begins = begins.collect();
        let outcome = match self.ask(Phase::Sign, proposal, begins).await? {
            None => Ok(Executed::Stopping),
            Some(answers) => self.judge(proposal, &answers, &mut sessions).await,
        };
        // Sessions that signed nothing are forgotten, whatever happened: nonces live for one attempt.
        let node = self.node.clone();
        self.beside(sessions.forget(&node)).await?;
        outcome
    }

    /// The traders have answered: checks everything, completes the witnesses, stores and announces the batch.
    async fn judge(
        &mut self,
        proposal: &Proposal,
        answers: &BTreeMap<StreamId, Answer>,
        sessions: &mut Sessions,
    ) -> Result<Executed, Halt> {
        let refusals = self.refusals(proposal, answers);
        if !refusals.is_empty() {
            return Ok(Executed::Failed(refusals));
        }
        let signatures: Answers = answers
            .iter()
            .filter_map(|(stream, answer)| match answer {
                Answer::Signed(signatures) => Some((*stream, (**signatures).clone())),
                Answer::Accepted | Answer::Rejected(_) | Answer::Missing(_) => None,
            })
            .collect();
        let disagreements = check_channels(proposal, &signatures);
        if !disagreements.is_empty() {
            return Ok(Executed::Failed(disagreements));
        }
        let (node, key) = (self.node.clone(), self.key);
        let mut transaction = match self.beside(sessions.complete(&node, &key, proposal, &signatures)).await? {
            Ok(Signed::Complete(transaction)) => transaction,
            Ok(Signed::Invalid(accounts)) => return Ok(Executed::Failed(remove_traders(proposal, &accounts))),
            Err(error) => return Ok(Executed::Node(error)),
        };
        if let Err(error) = self.beside(sign_coins(&node, &key, proposal, &mut transaction)).await? {
            return Ok(Executed::Node(error));
        }
        // From here to the commit nothing else is served.
        let spoilt = self.changed_meanwhile(proposal);
        if !spoilt.is_empty() {
            return Ok(Executed::Failed(spoilt));
        }
        let leases = leases(proposal, &signatures);
        self.store_and_announce(proposal, transaction, leases).await?;
        Ok(Executed::Cleared)
    }

    /// Sends everybody a message and waits for the answers.
    async fn ask(
        &mut self,
        phase: Phase,
        proposal: &Proposal,
        messages: Vec<(StreamId, ServerMessage)>,
    ) -> Result<Option<BTreeMap<StreamId, Answer>>, Halt> {
        let waiting: BTreeSet<StreamId> = messages.iter().map(|(stream, _)| *stream).collect();
        self.collector = Some(Collector::new(phase, proposal.batch, waiting));
        for (stream, message) in messages {
            // The subscription may have moved to another stream since the batch was proposed.
            let still_there = proposal.participants.get(&stream).is_some_and(|participant| {
                participant.accounts.iter().all(|account| self.is_subscribed(*account, stream))
            });
            let sent = still_there && self.env.traders().send(stream, message).await;
            if let (false, Some(collector)) = (sent, &mut self.collector) {
                collector.lose(stream);
            }
        }
        self.collect().await
    }

    fn is_subscribed(&self, account: AccountKey, stream: StreamId) -> bool {
        self.streams.of_account(account).is_some_and(|(id, _)| id == stream)
    }

    /// Orders that were cancelled, and accounts that changed, while the traders signed.
    fn changed_meanwhile(&self, proposal: &Proposal) -> Consequences {
        let mut spoilt = Consequences::default();
        for side in proposal.pairs().flat_map(|pair| [&pair.ask, &pair.bid]) {
            let order_stands = self.book.orders.active(side.order.nonce).is_some();
            let account = self.book.accounts.get(&side.order.account);
            let input = proposal.accounts.get(&side.order.account);
            let account_stands = match (account, input) {
                (Some(record), Some(input)) => record.outpoint == input.outpoint && self.may_match(record),
                (None, _) | (_, None) => false,
            };
            if !order_stands || !account_stands {
                info!(nonce = %side.order.nonce, "the order or its account changed while the batch was made");
                spoilt.remove.insert(side.order.nonce);
            }
        }
        spoilt
    }
}

fn everybody(proposal: &Proposal) -> Consequences {
    remove_all(proposal.pairs(), &proposal.accounts.keys().copied().collect())
}

/// The traders that own these accounts leave the round, with all their accounts in it.
fn remove_traders(proposal: &Proposal, accounts: &BTreeSet<AccountKey>) -> Consequences {
    let owners = proposal.participants.values().filter(|owner| !owner.accounts.is_disjoint(accounts));
    let accounts = owners.flat_map(|owner| owner.accounts.iter().copied()).collect();
    remove_all(proposal.pairs(), &accounts)
}

/// At most 200 characters of a foreign text.
struct Short<'a>(&'a str);

impl core::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.chars().take(200).try_for_each(|c| write!(f, "{}", c.escape_debug()))
    }
}

/// The class of a reject without its (possibly long) contents.
struct Kind<'a>(&'a tidegate_protocol::batch::RejectReason);

impl core::fmt::Debug for Kind<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use tidegate_protocol::batch::RejectReason as R;
        match self.0 {
            R::Unknown => f.write_str("unknown"),
            R::ServerMisbehavior => f.write_str("server misbehavior"),
            R::BatchVersionMismatch => f.write_str("batch version"),
            R::Partial(refused) => write!(f, "partial ({})", refused.len()),
        }
    }
}

/// Every channel must be reported by both sides, and alike.
fn check_channels(proposal: &Proposal, signatures: &Answers) -> Consequences {
    let mut consequences = Consequences::default();
    for (pair, channel) in proposal.pairs().zip(&proposal.assembly.channels) {
        let makers = report(proposal, signatures, pair.ask.order.account, channel.outpoint);
        let takers = report(proposal, signatures, pair.bid.order.account, channel.outpoint);
        let both = [pair.ask.order.account, pair.bid.order.account];
        let at_fault: BTreeSet<AccountKey> = match (makers, takers) {
            (Some(maker), Some(taker)) if mirror(pair, channel, maker, taker) => continue,
            (Some(_), Some(_)) => {
                warn!(channel = %channel.outpoint, "the reports of a channel disagree");
                consequences.liars.extend(both);
                both.into()
            }
            (None, Some(_)) => [pair.ask.order.account].into(),
            (Some(_), None) => [pair.bid.order.account].into(),
            (None, None) => both.into(),
        };
        info!(channel = %channel.outpoint, accounts = at_fault.len(), "channel reports are missing or disagree");
        consequences.extend(remove_traders(proposal, &at_fault));
    }
    consequences
}

/// What is remembered of the channels until they mature.
fn leases(proposal: &Proposal, signatures: &Answers) -> Vec<LeaseRecord> {
    let lease = |(pair, channel): (&Pair, &Channel)| {
        let info = report(proposal, signatures, pair.ask.order.account, channel.outpoint)?;
        let vout = usize::try_from(channel.outpoint.vout).ok()?;
        let duration = pair.bid.order.duration;
        let maturity = match info.channel_type {
            ReportedChannelType::ScriptEnforcedLease => Maturity::At(proposal.height.checked_add(duration)?),
            ReportedChannelType::Tweakless | ReportedChannelType::Anchors | ReportedChannelType::SimpleTaproot => {
                Maturity::After(duration)
            }
        };
        let side =
            |order: &SubmittedOrder, payment| LeaseSide { account: order.order.account, node: order.node, payment };
        Some(LeaseRecord {
            channel: channel.outpoint,
            script: proposal.assembly.transaction.output.get(vout)?.script_pubkey.clone(),
            height_hint: proposal.height,
            maturity,
            confirmed: None,
            seller: side(&pair.ask, info.local_payment_point),
            buyer: side(&pair.bid, info.remote_payment_point),
        })
    };
    proposal.pairs().zip(&proposal.assembly.channels).filter_map(lease).collect()
}

fn report<'a>(
    proposal: &Proposal,
    signatures: &'a Answers,
    account: AccountKey,
    channel: OutPoint,
) -> Option<&'a ChannelInfo> {
    let (stream, _) = proposal.participants.iter().find(|(_, owner)| owner.accounts.contains(&account))?;
    signatures.get(stream)?.channels.get(&channel)
}

/// Whether the two reports are of one channel between the two nodes of the pair, of the type that the orders demand.
fn mirror(pair: &Pair, channel: &Channel, maker: &ChannelInfo, taker: &ChannelInfo) -> bool {
    let nodes: (NodeId, NodeId) = (pair.ask.node, pair.bid.node);
    let demanded = match channel.commitment {
        CommitmentType::ScriptEnforcedLease => maker.channel_type == ReportedChannelType::ScriptEnforcedLease,
        CommitmentType::SimpleTaproot => maker.channel_type == ReportedChannelType::SimpleTaproot,
        CommitmentType::Negotiated => true,
    };
    demanded
        && maker.channel_type == taker.channel_type
        && (maker.local_node, maker.remote_node) == nodes
        && (taker.remote_node, taker.local_node) == nodes
        && maker.local_payment_point == taker.remote_payment_point
        && maker.remote_payment_point == taker.local_payment_point
}
