//! One batch, from proposal to signature: prepare, verify, channels, accept; sign, store, send.
//!
//! A step runs beside the stream, so that a repeated proposal ends it at once. Everything that a step may leave behind
//! is named before it begins; the next proposal cleans it up first.

use crate::book::{Book, OrderEventKind, Remains, Update};
use crate::desk::{Desk, Moment};
use crate::funding::{self, Refusal};
use crate::pending;
use crate::ratings::{self, ToldRating};
use crate::receipt::release_batch;
use crate::staging::{self, Basis};
use crate::verified::Verified;
use bitcoin::OutPoint;
use futures_util::future::{Either, select};
use futures_util::pin_mut;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_ports::{
    Chain, ClientMessage, Clock, LinkError, Musig2Request, NodeInfo, ScriptSpend, SessionId, SignInput, Signer,
    TraderEnv, VenueLink,
};
use tidegate_protocol::account::{Account, AccountVersion};
use tidegate_protocol::batch::{
    AccountSignature, BatchSignatures, ChannelInfo, Prepare, Reject, RejectReason, SignBegin,
};
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, NodeId, OrderNonce};
use tidegate_protocol::musig2::{Musig2Version, PublicNonce};
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::script::key_spend_sighash;
use tidegate_protocol::units::{BlockCount, BlockHeight};
use tidegate_protocol::verify::{LocalView, NodeRating, VerifiedBatch, VerifyError, verify_prepare, verify_sign};

/// Longest wait inside a step for an answer of the venue, in milliseconds: the peers want most of a step's time.
const ANSWER_MS: u64 = 3_000;

/// What a refusal leaves to do: the message, and the shims that go first.
pub(crate) fn reject(batch_id: Vec<u8>, refusal: Refusal) -> ClientMessage {
    tracing::warn!(batch = %hex(&batch_id), reason = %refusal.message, class = ?refusal.reason, "batch refused");
    ClientMessage::Reject(Reject { batch_id, message: refusal.message, reason: refusal.reason })
}

/// Lower-case hexadecimal of raw bytes for the log.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An answer of the venue, unless it comes too late.
pub(crate) async fn in_time<E: TraderEnv, T>(
    env: &E,
    answer: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, Refusal> {
    let late = env.clock().sleep_until(env.clock().now().plus_ms(ANSWER_MS));
    pin_mut!(answer, late);
    match select(answer, late).await {
        Either::Left((answer, _)) => answer.map_err(|error| Refusal::unknown(error.to_string())),
        Either::Right(((), _)) => Err(Refusal::unknown("the venue does not answer in time")),
    }
}

/// Cleans up what earlier proposals left: shims, channels, and the place of a signed one that spends the same outputs.
/// A signed one that does not is left alone: it may still become final. Then it says durably what this one may leave.
///
/// # Source
/// Protocol notes, batch §6 (a) to (c).
async fn clean_up_earlier<E: TraderEnv>(env: &E, desk: &Desk, batch: &VerifiedBatch) -> Result<(), Refusal> {
    let inputs = &batch.prepare().transaction.input;
    let spent: BTreeSet<OutPoint> = inputs.iter().map(|input| input.previous_output).collect();
    desk.update(move |book| staging::supersede(book, |staged| staged.spends_any(&spent))).await;
    let given_up = pending::give_up(env, desk).await;
    let given_up = given_up.map_err(|error| Refusal::unknown(format!("cleaning up the earlier proposal: {error}")))?;
    let remains = Remains::of(batch);
    let forgotten = given_up.into_iter().filter(|txid| *txid != remains.txid);
    let mut updates: Vec<Update> = forgotten.map(Update::Forget).collect();
    updates.push(Update::Remains(Box::new(remains)));
    let now = env.clock().now();
    updates.extend(desk.look(|book, moment| ratings::to_store(book, moment, now)));
    desk.update(move |_| updates).await;
    Ok(())
}

/// What the venue says of the nodes whose tier matters to bids of ours. Of a node that it does not tell about in time
/// counts what it said before, with its age; a node that it never told about is missing.
///
/// What it says is stored with the proposal's other traces, or with the refusal that it causes.
async fn ratings<E: TraderEnv>(env: &E, desk: &Desk, prepare: &Prepare) -> BTreeMap<NodeId, NodeRating> {
    let nodes: BTreeSet<NodeId> = desk.read(|book| {
        let selective = |nonce: &OrderNonce| {
            let bid = book.orders.get(nonce).and_then(|own| own.order.bid());
            bid.is_some_and(|bid| bid.min_node_tier > NodeTier::Tier0)
        };
        let orders = prepare.markets.values().flat_map(|market| &market.orders);
        let theirs = orders.filter(|(ours, _)| selective(ours)).flat_map(|(_, matches)| matches);
        theirs.map(|matched| matched.order.node).collect()
    });
    if nodes.is_empty() {
        return BTreeMap::new();
    }
    let asked: Vec<NodeId> = nodes.iter().copied().collect();
    match in_time(env, env.link().ratings(&asked)).await {
        Ok(answer) => {
            let at = env.clock().now();
            let answer = answer.into_iter().filter(|(node, _)| nodes.contains(node));
            desk.note(|moment| ratings::hear(moment, answer.map(|(node, tier)| ToldRating { node, tier, at })));
        }
        Err(refusal) => tracing::warn!(reason = refusal.message, "the venue does not rate nodes now"),
    }
    let now = env.clock().now();
    desk.look(|book, moment| ratings::known(book, moment, &nodes, now))
}

/// A bad rating that refused a batch refuses the next one too, also when the venue is silent then and we restarted.
async fn remember_ratings<E: TraderEnv>(env: &E, desk: &Desk) {
    let now = env.clock().now();
    let news = desk.look(|book, moment| ratings::to_store(book, moment, now));
    if !news.is_empty() {
        desk.update(move |_| news).await;
    }
}

/// Verifies a proposal against the book as it is now.
///
/// # Errors
/// [`Refusal`] with the class of the first check that fails.
async fn verify<E: TraderEnv>(env: &E, desk: &Desk, node: &NodeInfo, prepare: &Prepare) -> Result<Verified, Refusal> {
    let ratings = ratings(env, desk, prepare).await;
    let best_height = best_height(env).await?;
    let log = vec![(env.clock().now(), OrderEventKind::Prepared)];
    let batch_version = desk.batch_version();
    let began = env.clock().now();
    let verified = desk.look(|book, moment| {
        let known = view(book, moment, node, best_height, batch_version);
        let view = LocalView { ratings: &ratings, reject_unrated: desk.config.reject_unrated, ..known };
        match verify_prepare(&view, prepare) {
            Ok(batch) => Ok(Verified { basis: Basis::of(book, &batch), batch: Arc::new(batch), log }),
            Err(error) => Err(error),
        }
    });
    let took_ms = env.clock().now().0.saturating_sub(began.0);
    desk.note(|moment| moment.tally.verification.add(took_ms));
    match verified {
        Ok(verified) => Ok(verified),
        Err(error) => {
            if matches!(error, VerifyError::NodeTier { .. }) {
                remember_ratings(env, desk).await;
            }
            Err(refusal(env, desk, prepare, error).await)
        }
    }
}

/// A final batch keeps its name: records and snapshots are found by it.
fn check_new(book: &Book, prepare: &Prepare) -> Result<(), Refusal> {
    match book.batches.get(&prepare.batch_id) {
        None => Ok(()),
        Some(record) => Err(Refusal {
            message: format!("batch {} is final already, with transaction {}", record.batch_id, record.txid),
            reason: RejectReason::ServerMisbehavior,
        }),
    }
}

/// The refusal of a proposal. A fee above what an order agreed to is no misbehaviour when the venue's terms say that fee:
/// they rose since the order was signed, and upkeep ends it or signs it anew.
async fn refusal<E: TraderEnv>(env: &E, desk: &Desk, prepare: &Prepare, error: VerifyError) -> Refusal {
    let refusal = Refusal { message: error.to_string(), reason: error.reject_reason() };
    if !matches!(error, VerifyError::ExecutionFeeBase { .. } | VerifyError::ExecutionFeeRate { .. }) {
        return refusal;
    }
    let Ok(terms) = in_time(env, env.link().terms()).await else { return refusal };
    let (now, charged) = (terms.execution_fee, prepare.execution_fee);
    desk.note(|moment| moment.terms = Some(terms));
    desk.ring();
    if charged.base > now.base || charged.rate_ppm > now.rate_ppm {
        return refusal;
    }
    Refusal::unknown(format!("the venue's fee rose since the order was placed: {}", refusal.message))
}

async fn best_height<E: TraderEnv>(env: &E) -> Result<BlockHeight, Refusal> {
    env.chain().best_height().await.map_err(|error| Refusal::unknown(format!("best height: {error}")))
}

/// Ratings count when a batch is proposed, not when it is signed.
static NO_RATINGS: BTreeMap<NodeId, NodeRating> = BTreeMap::new();

fn view<'a>(
    book: &'a Book,
    moment: &Moment,
    node: &NodeInfo,
    best_height: BlockHeight,
    batch_version: tidegate_protocol::batch::BatchVersion,
) -> LocalView<'a> {
    LocalView {
        node: node.id,
        best_height,
        batch_version,
        accounts: &book.accounts,
        orders: &book.orders,
        extension_now: moment.terms.as_ref().map_or(BlockCount::new(0), |terms| terms.auto_renew_blocks),
        ratings: &NO_RATINGS,
        reject_unrated: false,
    }
}

fn node(desk: &Desk) -> Result<NodeInfo, Refusal> {
    desk.note(|moment| moment.node.clone()).ok_or_else(|| Refusal::unknown("the node is not known yet"))
}

/// First step: verifies, cleans up after earlier proposals, reaches the peers. Then the batch may be accepted.
///
/// A proposal that is not verified touches nothing: channels of a signed one are only given up for a proposal that
/// spends the same outputs. What the batch may leave behind is stored before anything is registered at the node.
///
/// # Errors
/// [`Refusal`].
pub(crate) async fn prepare<E: TraderEnv>(env: &E, desk: &Desk, prepare: Box<Prepare>) -> Result<Verified, Refusal> {
    let deadline = env.clock().now().plus_ms(desk.config.step_timeout_ms);
    let node = node(desk)?;
    // A finalize message may have been lost: what the venue made of a signed batch decides what this one is judged by.
    in_time(env, pending::resolve(env, desk)).await.map_err(|refusal| {
        Refusal::unknown(format!("it is unknown what became of the batch that was signed: {}", refusal.message))
    })?;
    let verified = verify(env, desk, &node, &prepare).await?;
    desk.read(|book| check_new(book, &prepare))?;
    clean_up_earlier(env, desk, &verified.batch).await?;
    tracing::info!(batch = %prepare.batch_id, matches = verified.batch.matches().len(), "batch verified");
    for tier in verified.batch.unverified_tiers() {
        tracing::warn!(order = %tier.order, node = %tier.node, "tier unverified");
    }
    desk.note(|moment| moment.verified = Some(verified.clone()));
    if desk.config.new_nodes_only {
        funding::check_new(env, &verified.batch).await?;
    }
    funding::prepare(env, &node, &verified.batch, deadline).await?;
    Ok(verified)
}

/// Second step: channels, signatures, the commit, and the message that may leave because of it.
///
/// # Errors
/// [`Refusal`]; then no signature left.
///
/// # Source
/// Protocol notes, batch §8.
pub(crate) async fn sign<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    verified: &Verified,
    request: Box<SignBegin>,
) -> Result<ClientMessage, Refusal> {
    let deadline = env.clock().now().plus_ms(desk.config.step_timeout_ms);
    let node = node(desk)?;
    // A request that cannot be signed is refused before channels exist that a node would not open twice.
    check_sign(env, desk, &node, verified, &request).await?;
    let channels = funding::open(env, &node, &verified.batch, deadline).await?;
    check_sign(env, desk, &node, verified, &request).await?;
    let accounts = signatures(env, verified, &request).await?;
    store_and_release(env, desk, verified, accounts, channels).await
}

async fn check_sign<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    node: &NodeInfo,
    verified: &Verified,
    request: &SignBegin,
) -> Result<(), Refusal> {
    let best_height = best_height(env).await?;
    let batch_version = desk.batch_version();
    desk.look(|book, moment| {
        let view = view(book, moment, node, best_height, batch_version);
        verify_sign(&view, &verified.batch, request)
            .map_err(|error| Refusal { message: error.to_string(), reason: error.reject_reason() })
    })
}

async fn signatures<E: TraderEnv>(
    env: &E,
    verified: &Verified,
    request: &SignBegin,
) -> Result<BTreeMap<AccountKey, AccountSignature>, Refusal> {
    let mut signatures = BTreeMap::new();
    for (key, ending) in verified.batch.accounts() {
        let account =
            verified.basis.account(*key).ok_or_else(|| Refusal::unknown(format!("account {key} is unknown")))?;
        let signature = match musig2_version(account.terms.version) {
            None => ecdsa(env, account, ending.input, verified, request).await?,
            Some(version) => musig2(env, account, ending.input, version, verified, request).await?,
        };
        signatures.insert(*key, signature);
    }
    Ok(signatures)
}

fn musig2_version(version: AccountVersion) -> Option<Musig2Version> {
    match version {
        AccountVersion::V0 => None,
        AccountVersion::V1 => Some(Musig2Version::V040),
        AccountVersion::V2 => Some(Musig2Version::V100Rc2),
    }
}

fn signer_failed(key: AccountKey, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::unknown(format!("signing for account {key}: {error}"))
}

async fn ecdsa<E: TraderEnv>(
    env: &E,
    account: &Account,
    input: usize,
    verified: &Verified,
    request: &SignBegin,
) -> Result<AccountSignature, Refusal> {
    let key = account.key();
    let script = account.terms.inner_script().map_err(|error| signer_failed(key, &error))?;
    let wanted = SignInput {
        transaction: verified.batch.prepare().transaction.clone(),
        input,
        prev_outputs: request.prev_outputs.clone(),
        key: KeyDescriptor { point: *key.point(), locator: account.locator },
        tweak: account.terms.trader_tweak(),
        spend: ScriptSpend::SegwitV0 { script },
    };
    let der = env.signer().sign_input(&wanted).await.map_err(|error| signer_failed(key, &error))?;
    Ok(AccountSignature::Ecdsa(der))
}

async fn musig2<E: TraderEnv>(
    env: &E,
    account: &Account,
    input: usize,
    version: Musig2Version,
    verified: &Verified,
    request: &SignBegin,
) -> Result<AccountSignature, Refusal> {
    let key = account.key();
    let failed = |error: &dyn std::fmt::Display| signer_failed(key, error);
    let transaction = &verified.batch.prepare().transaction;
    let server = request.server_nonces.get(&key).ok_or_else(|| failed(&"the venue sent no nonces"))?;
    let message = key_spend_sighash(transaction, input, &request.prev_outputs).map_err(|error| failed(&error))?;
    let begin = Musig2Request {
        signer: account.locator,
        keys: [*account.terms.auctioneer.point(), *key.point()],
        version,
        merkle_root: account.terms.merkle_root().map_err(|error| failed(&error))?,
        other_nonce: Some(*server),
    };
    let (session, nonce) = env.signer().musig2_begin(&begin).await.map_err(|error| failed(&error))?;
    sign_once(env, session, nonce, message).await.map_err(|error| failed(&error))
}

/// A session signs one message and is forgotten, whether it succeeds or not.
async fn sign_once<E: TraderEnv>(
    env: &E,
    session: SessionId,
    nonce: PublicNonce,
    message: [u8; 32],
) -> Result<AccountSignature, tidegate_ports::NodeError> {
    match env.signer().musig2_sign(session, message, true).await {
        Ok(partial) => Ok(AccountSignature::Musig2 { partial, nonce }),
        Err(error) => {
            if let Err(error) = env.signer().musig2_cleanup(session).await {
                tracing::debug!(%error, "the session was not cleaned up");
            }
            Err(error)
        }
    }
}

/// The point of no return: what the batch makes true is durable before a signature leaves.
async fn store_and_release<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    verified: &Verified,
    accounts: BTreeMap<AccountKey, AccountSignature>,
    channels: BTreeMap<OutPoint, ChannelInfo>,
) -> Result<ClientMessage, Refusal> {
    let refused = |error: &dyn std::fmt::Display| Refusal::unknown(error.to_string());
    let staged =
        staging::staged(&verified.batch, &verified.basis, env.clock().now()).map_err(|error| refused(&error))?;
    let (batch_id, transaction) = (staged.batch_id, staged.transaction.clone());
    let basis = verified.basis.clone();
    let mut events = verified.events();
    let commit = desk.commit(move |book| {
        events.extend(staging::stage(book, staged, &basis)?);
        Ok::<_, staging::StageError>((events, ()))
    });
    let ((), receipt) = commit.await.map_err(|error| refused(&error))?;
    tracing::info!(batch = %batch_id, txid = %transaction.compute_txid(), "batch stored, signatures leave");
    release_batch(&receipt, &transaction, BatchSignatures { batch_id, accounts, channels }).map_err(|error| {
        tracing::error!(%error, "the receipt does not cover the signatures");
        refused(&error)
    })
}
