//! An auctioneer for tests: answers calls at once, and makes the batches that a test asks for.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use futures_channel::mpsc;
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use tidegate_ports::*;
use tidegate_protocol::account::{AccountTerms, AccountVersion, MIN_RECREATED_VALUE};
use tidegate_protocol::auth::{AuthChallenge, CommitHash, verify_message};
use tidegate_protocol::batch::*;
use tidegate_protocol::channel::{CommitmentType, funding_script};
use tidegate_protocol::fees::{ExecutionFee, MatchTerms, chain_fee};
use tidegate_protocol::keys::*;
use tidegate_protocol::musig2::{Musig2Version, PublicNonce};
use tidegate_protocol::order::{NodeTier, OrderState, SubmittedOrder};
use tidegate_protocol::script::{find_output, key_spend_sighash};
use tidegate_protocol::units::*;
use tidegate_sandbox::{SandboxNode, World};

pub(crate) const DURATION: BlockCount = BlockCount::new(2016);
pub(crate) const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 };
const AUCTIONEER: KeyLocator = KeyLocator { family: FAMILY_AUCTIONEER, index: 0 };

#[derive(Clone)]
pub(crate) struct VenueAccount {
    pub(crate) terms: AccountTerms,
    pub(crate) value: Sats,
    pub(crate) outpoint: Option<OutPoint>,
    pub(crate) trader: String,
}

#[derive(Default)]
struct Stream {
    to_trader: Option<mpsc::UnboundedSender<ServerMessage>>,
    from_trader: VecDeque<ClientMessage>,
    commits: BTreeSet<CommitHash>,
}

#[derive(Default)]
struct Inner {
    down: bool,
    /// The next submission is lost on its way.
    refusals: u32,
    pub(crate) lose_submission: bool,
    /// The next order is called invalid.
    call_invalid: bool,
    forget_accounts: bool,
    /// The handshake of this account is never answered.
    ignored: Option<AccountKey>,
    /// Snapshots cannot be asked for.
    hide_snapshots: bool,
    /// Ratings by node; any other node is rated good. Nothing: the question is never answered.
    ratings: Option<BTreeMap<NodeId, NodeTier>>,
    accounts: BTreeMap<AccountKey, VenueAccount>,
    orders: BTreeMap<OrderNonce, (SubmittedOrder, OrderState)>,
    snapshots: BTreeMap<BatchId, Transaction>,
    streams: BTreeMap<String, Stream>,
    calls: Vec<String>,
    wakers: Vec<Waker>,
    manners: Manners,
    /// The fee that the terms tell; [`FEE`] when absent.
    fee: Option<ExecutionFee>,
    /// The next cancellation is lost on its way back.
    lose_cancel: bool,
    /// Changes that were asked for, in order.
    modified: Vec<ModifyAccount>,
    /// What each account becomes once the chain holds its new output.
    changes: Vec<VenueAccount>,
}

#[derive(Clone)]
pub(crate) struct TestVenue {
    inner: Arc<Mutex<Inner>>,
    pub(crate) node: SandboxNode,
    world: World,
    auctioneer: AuctioneerKey,
}

/// How the venue answers when it is asked to sign a change of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manners {
    #[default]
    Good,
    Refuse,
    /// It signs, but its answer does not arrive.
    LoseAnswer,
    BadSignature,
    /// Its answer lacks the last byte.
    Short,
    /// Nothing in its answer.
    Empty,
    /// Taproot: no nonces. Version 0: another kind of signature hash is named.
    Bare,
}

/// A batch that the venue made.
pub(crate) struct Made {
    pub(crate) batch_id: BatchId,
    pub(crate) transaction: Transaction,
    /// Trader → proposal.
    pub(crate) prepares: BTreeMap<String, Prepare>,
    /// Output spent by each input.
    pub(crate) prev_outputs: Vec<TxOut>,
    /// Account of each input.
    pub(crate) inputs: Vec<AccountKey>,
    /// Terms of each account afterwards, and its new value.
    pub(crate) after: BTreeMap<AccountKey, (AccountTerms, Sats)>,
    sessions: BTreeMap<AccountKey, (SessionId, PublicNonce)>,
}

impl TestVenue {
    pub(crate) fn new(world: &World, auctioneer: AuctioneerKey) -> TestVenue {
        let node = world.add_node("venue");
        let inner = Inner { ratings: Some(BTreeMap::new()), ..Inner::default() };
        TestVenue { inner: Arc::new(Mutex::new(inner)), node, world: world.clone(), auctioneer }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Calls the next order invalid.
    pub(crate) fn call_invalid(&self) {
        self.lock().call_invalid = true;
    }

    /// Refuses as many submissions.
    pub(crate) fn refuse_submissions(&self, count: u32) {
        self.lock().refusals = count;
    }

    pub(crate) fn set_down(&self, down: bool) {
        let mut inner = self.lock();
        inner.down = down;
        if down {
            inner.streams.clear();
        }
        inner.wakers.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn lose_next_submission(&self) {
        self.lock().lose_submission = true;
    }

    pub(crate) fn set_forgetful(&self, forget: bool) {
        self.lock().forget_accounts = forget;
    }

    pub(crate) fn hide_snapshots(&self, hide: bool) {
        self.lock().hide_snapshots = hide;
    }

    pub(crate) fn set_ratings(&self, ratings: Option<BTreeMap<NodeId, NodeTier>>) {
        self.lock().ratings = ratings;
    }

    pub(crate) fn link(&self, trader: &str) -> TestLink {
        TestLink { venue: self.clone(), trader: trader.to_owned(), incoming: Mutex::new(None) }
    }

    /// The account as it is, with the change that the chain knows.
    pub(crate) fn account(&self, key: AccountKey) -> VenueAccount {
        let mut inner = self.lock();
        let current = inner.accounts[&key].outpoint;
        let seen = |change: &&VenueAccount| {
            let outpoint = change.outpoint.unwrap();
            let spends = |(transaction, _): (Transaction, _)| {
                transaction.input.iter().any(|input| Some(input.previous_output) == current)
            };
            change.terms.trader == key && self.world.transaction(outpoint.txid).is_some_and(spends)
        };
        if let Some(change) = inner.changes.iter().find(seen).cloned() {
            inner.accounts.insert(key, change);
        }
        inner.accounts[&key].clone()
    }

    pub(crate) fn ignore(&self, account: Option<AccountKey>) {
        self.lock().ignored = account;
    }

    pub(crate) fn set_fee(&self, fee: ExecutionFee) {
        self.lock().fee = Some(fee);
    }

    pub(crate) fn lose_next_cancel(&self) {
        self.lock().lose_cancel = true;
    }

    pub(crate) fn set_order_state(&self, nonce: OrderNonce, state: OrderState) {
        self.lock().orders.get_mut(&nonce).unwrap().1 = state;
    }

    /// All calls so far, in order.
    pub(crate) fn all_calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub(crate) fn set_manners(&self, manners: Manners) {
        self.lock().manners = manners;
    }

    /// The changes that were asked for so far.
    pub(crate) fn modifications(&self) -> Vec<ModifyAccount> {
        self.lock().modified.clone()
    }

    /// The transaction of a change as this side rebuilds it, and the place of the account's input.
    fn modified(&self, account: &VenueAccount, request: &ModifyAccount) -> (Transaction, usize) {
        let own = account.outpoint.unwrap();
        let mut outputs = request.new_outputs.clone();
        let mut change = None;
        if let Some((value, expiry, version)) = request.new_params {
            let terms = AccountTerms { expiry, version, ..account.terms.next().unwrap() };
            outputs.push(terms.output(value).unwrap());
            change = Some(VenueAccount { terms, value, ..account.clone() });
        }
        outputs.sort_by(|a, b| (a.value, &a.script_pubkey).cmp(&(b.value, &b.script_pubkey)));
        let mut inputs: Vec<OutPoint> = request.new_inputs.iter().map(|(outpoint, _)| *outpoint).collect();
        assert!(request.new_inputs.iter().all(|(_, script)| script.is_empty()), "no nested coins here");
        inputs.push(own);
        inputs.sort_by_key(tidegate_protocol::spend::bip69_input);
        assert_eq!(request.prev_outputs.len(), inputs.len());
        let input = inputs.iter().position(|outpoint| *outpoint == own).unwrap();
        let transaction = transaction(inputs.into_iter(), outputs);
        if let Some(change) = change {
            let vout = find_output(&transaction, &change.terms.output_script().unwrap()).unwrap();
            let outpoint = Some(OutPoint::new(transaction.compute_txid(), vout));
            self.lock().changes.push(VenueAccount { outpoint, ..change });
        }
        (transaction, input)
    }

    pub(crate) fn order(&self, nonce: OrderNonce) -> (SubmittedOrder, OrderState) {
        self.lock().orders[&nonce].clone()
    }

    pub(crate) fn forget_order(&self, nonce: OrderNonce) {
        self.lock().orders.remove(&nonce);
    }

    pub(crate) fn calls(&self, name: &str) -> usize {
        self.lock().calls.iter().filter(|call| *call == name).count()
    }

    /// The batch is final here: its snapshot is known.
    pub(crate) fn publish_snapshot(&self, made: &Made) {
        self.lock().snapshots.insert(made.batch_id, made.transaction.clone());
    }

    pub(crate) fn say(&self, trader: &str, message: ServerMessage) {
        let inner = self.lock();
        let stream = inner.streams.get(trader).expect("the trader's stream is open");
        stream.to_trader.as_ref().unwrap().unbounded_send(message).unwrap();
    }

    /// The next thing that a trader said about batches.
    pub(crate) fn heard(&self, trader: &str) -> Option<ClientMessage> {
        self.lock().streams.get_mut(trader)?.from_trader.pop_front()
    }

    /// Whether everybody's signatures wait to be collected.
    pub(crate) fn all_signed(&self, made: &Made) -> bool {
        let inner = self.lock();
        made.prepares.keys().all(|trader| {
            let stream = inner.streams.get(trader);
            matches!(stream.and_then(|stream| stream.from_trader.front()), Some(ClientMessage::Sign(_)))
        })
    }

    /// Forgets what was said.
    pub(crate) fn clear(&self, made: &Made) {
        let mut inner = self.lock();
        for trader in made.prepares.keys() {
            if let Some(stream) = inner.streams.get_mut(trader) {
                stream.from_trader.clear();
            }
        }
    }

    /// A batch of one match. Both accounts pay; what is left over goes to the miners.
    pub(crate) fn make(
        &self,
        id: BatchId,
        ask: OrderNonce,
        bid: OrderNonce,
        units: u32,
        price: u32,
        rate: u64,
    ) -> Made {
        self.make_all(id, &[(ask, bid, units)], price, rate)
    }

    /// A batch of several matches of asks and bids, all at one price.
    pub(crate) fn make_all(&self, id: BatchId, pairs: &[(OrderNonce, OrderNonce, u32)], price: u32, rate: u64) -> Made {
        let (price, rate) = (RatePerBillion::new(price), SatPerKw::new(rate));
        let pair = |(ask, bid, units): &(OrderNonce, OrderNonce, u32)| {
            (self.order(*ask).0, self.order(*bid).0, UnitCount::new(*units))
        };
        let pairs: Vec<(SubmittedOrder, SubmittedOrder, UnitCount)> = pairs.iter().map(pair).collect();
        let mut tallies: BTreeMap<AccountKey, (Sats, u32)> = BTreeMap::new();
        let mut outputs = Vec::new();
        for (ask, bid, units) in &pairs {
            let terms = MatchTerms {
                auction: bid.order.auction,
                filled: units.to_sats(),
                self_balance: bid.order.self_balance(),
                price,
                duration: DURATION,
            };
            for (order, delta) in [(ask, terms.maker_delta(&FEE).unwrap()), (bid, terms.taker_delta(&FEE).unwrap())] {
                let start = (self.account(order.order.account).value, 0);
                let (value, channels) = tallies.get(&order.order.account).copied().unwrap_or(start);
                tallies.insert(order.order.account, (value.checked_add_delta(delta).unwrap(), channels + 1));
            }
            let commitment = CommitmentType::of_pair(ask.order.channel_type, bid.order.channel_type);
            let script = funding_script(ask.multisig, bid.multisig, commitment).unwrap();
            let capacity = units.to_sats().checked_add(bid.order.self_balance()).unwrap();
            outputs.push(TxOut { value: capacity.into(), script_pubkey: script });
        }
        let (mut inputs, mut after) = (Vec::new(), BTreeMap::new());
        for (key, (tally, channels)) in tallies {
            let account = self.account(key);
            let fee = chain_fee(channels, rate, account.terms.version).unwrap();
            let (value, next) = (tally.checked_sub(fee).unwrap(), account.terms.next().unwrap());
            if value >= MIN_RECREATED_VALUE {
                outputs.push(next.output(value).unwrap());
            }
            inputs.push((account.outpoint.unwrap(), account.terms.output(account.value).unwrap(), key));
            after.insert(key, (next, value));
        }
        outputs.sort_by(|a, b| (a.value, &a.script_pubkey).cmp(&(b.value, &b.script_pubkey)));
        inputs.sort_by_key(|(outpoint, _, _)| tidegate_protocol::spend::bip69_input(outpoint));
        let transaction = transaction(inputs.iter().map(|(outpoint, _, _)| *outpoint), outputs);
        let traders: BTreeSet<String> = after.keys().map(|key| self.account(*key).trader).collect();
        let prepares = traders.into_iter().map(|trader| {
            let prepare = self.prepare(&trader, id, &transaction, &pairs, price, rate, &after);
            (trader, prepare)
        });
        Made {
            batch_id: id,
            prepares: prepares.collect(),
            prev_outputs: inputs.iter().map(|(_, output, _)| output.clone()).collect(),
            inputs: inputs.iter().map(|(_, _, key)| *key).collect(),
            transaction,
            after,
            sessions: BTreeMap::new(),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn prepare(
        &self,
        trader: &str,
        batch_id: BatchId,
        transaction: &Transaction,
        pairs: &[(SubmittedOrder, SubmittedOrder, UnitCount)],
        clearing_price: RatePerBillion,
        fee_rate: SatPerKw,
        after: &BTreeMap<AccountKey, (AccountTerms, Sats)>,
    ) -> Prepare {
        let mut orders: BTreeMap<OrderNonce, Vec<Match>> = BTreeMap::new();
        for (ask, bid, units) in pairs {
            for (ours, theirs) in [(ask, bid), (bid, ask)] {
                if self.account(ours.order.account).trader == trader {
                    let matched = Match { order: theirs.clone(), units: *units };
                    orders.entry(ours.order.nonce).or_default().push(matched);
                }
            }
        }
        let own = after.iter().filter(|(key, _)| self.account(**key).trader == trader);
        let accounts = own.map(|(account, (terms, ending_balance))| {
            let recreated = *ending_balance >= MIN_RECREATED_VALUE;
            AccountDiff {
                account: *account,
                ending_balance: *ending_balance,
                ending_state: if recreated { EndingState::Recreated } else { EndingState::DustAddedToFees },
                output_index: recreated.then(|| find_output(transaction, &terms.output_script().unwrap()).unwrap()),
                new_expiry: None,
                new_version: match terms.version {
                    AccountVersion::V0 => 0,
                    AccountVersion::V1 => 1,
                    AccountVersion::V2 => 2,
                },
            }
        });
        Prepare {
            batch_id,
            batch_version: BatchVersion(58),
            height_hint: self.world.height(),
            fee_rate,
            execution_fee: FEE,
            transaction: transaction.clone(),
            markets: BTreeMap::from([(DURATION, MatchedMarket { clearing_price, orders })]),
            accounts: accounts.collect(),
        }
    }

    pub(crate) fn propose(&self, made: &Made) {
        for (trader, prepare) in &made.prepares {
            self.say(trader, ServerMessage::Prepare(Box::new(prepare.clone())));
        }
    }

    /// Fresh sessions, and the request to sign for everybody.
    pub(crate) async fn ask_to_sign(&self, made: &mut Made) {
        for key in made.inputs.clone() {
            let account = self.account(key);
            if account.terms.version != AccountVersion::V0 {
                let session = self.node.musig2_begin(&self.request(&account.terms)).await.unwrap();
                made.sessions.insert(key, session);
            }
        }
        for trader in made.prepares.keys() {
            let nonces = made.sessions.iter().map(|(key, (_, nonce))| (*key, *nonce));
            let server_nonces = nonces.filter(|(key, _)| self.account(*key).trader == *trader).collect();
            let batch_id = made.batch_id.serialize().to_vec();
            let prev_outputs = made.prev_outputs.clone();
            self.say(trader, ServerMessage::Sign(Box::new(SignBegin { batch_id, server_nonces, prev_outputs })));
        }
    }

    fn request(&self, terms: &AccountTerms) -> Musig2Request {
        let version = if terms.version == AccountVersion::V1 { Musig2Version::V040 } else { Musig2Version::V100Rc2 };
        let keys = [*terms.trader.point(), *self.auctioneer.point()];
        Musig2Request {
            signer: AUCTIONEER,
            keys,
            version,
            merkle_root: terms.merkle_root().unwrap(),
            other_nonce: None,
        }
    }

    fn tweaked(&self, terms: &AccountTerms, transaction: &Transaction, input: usize, prev: &[TxOut]) -> SignInput {
        SignInput {
            transaction: transaction.clone(),
            input,
            prev_outputs: prev.to_vec(),
            key: KeyDescriptor { point: *self.auctioneer.point(), locator: AUCTIONEER },
            tweak: terms.auctioneer_tweak().unwrap(),
            spend: ScriptSpend::SegwitV0 { script: terms.inner_script().unwrap() },
        }
    }

    /// Collects everybody's signatures and completes the transaction.
    pub(crate) async fn complete(&self, made: &Made) -> Transaction {
        let mut transaction = made.transaction.clone();
        for trader in made.prepares.keys() {
            let signatures = match self.heard(trader) {
                Some(ClientMessage::Sign(signatures)) => signatures,
                other => panic!("{trader} said {other:?}"),
            };
            let matches = made.prepares[trader].markets.values().flat_map(|market| market.orders.values()).flatten();
            assert_eq!(signatures.channels.len(), matches.count(), "every channel was reported");
            for (key, signature) in signatures.accounts {
                let input = made.inputs.iter().position(|other| *other == key).unwrap();
                let terms = self.account(key).terms;
                transaction.input[input].witness = match signature {
                    AccountSignature::Ecdsa(der) => {
                        let ours = self.tweaked(&terms, &made.transaction, input, &made.prev_outputs);
                        let ours = self.node.sign_input(&ours).await.unwrap();
                        terms.cooperative_witness_v0(&ours, &der).unwrap()
                    }
                    AccountSignature::Musig2 { partial, nonce } => {
                        let (session, _) = made.sessions[&key];
                        let hash = key_spend_sighash(&made.transaction, input, &made.prev_outputs).unwrap();
                        self.node.musig2_register(session, &nonce).await.unwrap();
                        self.node.musig2_sign(session, hash, false).await.unwrap();
                        let signature = self.node.musig2_combine(session, &partial).await.unwrap();
                        Witness::from_slice(&[signature])
                    }
                };
            }
        }
        transaction
    }

    pub(crate) fn finalize(&self, made: &Made) {
        made.prepares.keys().for_each(|trader| self.finalize_for(trader, made));
    }

    /// Only this trader hears that the batch is final.
    pub(crate) fn finalize_for(&self, trader: &str, made: &Made) {
        let batch_id = made.batch_id.serialize().to_vec();
        self.say(trader, ServerMessage::Finalize(Finalize { batch_id, txid: made.transaction.compute_txid() }));
    }

    /// Books the batch here: accounts as they are afterwards.
    pub(crate) fn book(&self, made: &Made) {
        let mut inner = self.lock();
        for (key, (terms, value)) in &made.after {
            let account = inner.accounts.get_mut(key).unwrap();
            let vout = find_output(&made.transaction, &terms.output_script().unwrap());
            account.terms = *terms;
            account.value = *value;
            account.outpoint = vout.map(|vout| OutPoint::new(made.transaction.compute_txid(), vout));
        }
    }
}

fn transaction(inputs: impl Iterator<Item = OutPoint>, output: Vec<TxOut>) -> Transaction {
    let input = inputs.map(|previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ZERO,
        witness: Witness::new(),
    });
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: input.collect(), output }
}

/// One trader's link.
pub(crate) struct TestLink {
    venue: TestVenue,
    trader: String,
    incoming: Mutex<Option<mpsc::UnboundedReceiver<ServerMessage>>>,
}

fn away() -> LinkError {
    LinkError::Unreachable { address: "venue".into(), reason: "down".into() }
}

impl TestLink {
    fn call(&self, name: &str) -> Result<MutexGuard<'_, Inner>, LinkError> {
        let mut inner = self.venue.lock();
        inner.calls.push(name.to_owned());
        if inner.down { Err(away()) } else { Ok(inner) }
    }

    fn subscribe(&self, account: AccountKey, nonce: [u8; 32], signature: &[u8], inner: &mut Inner) -> ServerMessage {
        let commit = CommitHash::of(account, &nonce);
        let known = inner.accounts.contains_key(&account) && !inner.forget_accounts;
        let stream = inner.streams.get_mut(&self.trader).unwrap();
        assert!(stream.commits.remove(&commit), "subscribe without commit");
        let hash = AuthChallenge([7; 32]).auth_hash(commit);
        assert!(verify_message(account.point(), &hash, signature), "the handshake's signature is valid");
        if known {
            ServerMessage::Success { account }
        } else {
            let code = SubscribeErrorCode::AccountDoesNotExist;
            ServerMessage::Error { account: Some(account), code, message: "account not found".into() }
        }
    }
}

impl VenueLink for TestLink {
    async fn terms(&self) -> Result<Terms, LinkError> {
        let fee = self.call("terms")?.fee;
        Ok(Terms {
            max_account_value: Sats::constant(1_000_000_000),
            execution_fee: fee.unwrap_or(FEE),
            durations: BTreeMap::from([(DURATION, DurationState::Open)]),
            next_batch_fee_rate: SatPerKw::new(300),
            next_clear_time: 0,
            auto_renew_blocks: BlockCount::new(3024),
        })
    }

    async fn reserve(&self, request: &Reservation) -> Result<ReservedKeys, LinkError> {
        drop(self.call("reserve")?);
        let batch: BatchKey = tidegate_protocol::script::INITIAL_BATCH_KEY.parse().unwrap();
        let secret = self.venue.node.shared_secret(request.trader.point(), AUCTIONEER).await.unwrap();
        let auctioneer = self.venue.auctioneer;
        let (version, trader, expiry) = (request.version, request.trader, request.expiry);
        let terms = AccountTerms { version, trader, auctioneer, batch, secret, expiry };
        let account = VenueAccount { terms, value: request.value, outpoint: None, trader: self.trader.clone() };
        self.venue.lock().accounts.insert(trader, account);
        Ok(ReservedKeys { auctioneer, batch })
    }

    async fn init(&self, request: &InitAccount) -> Result<(), LinkError> {
        let mut inner = self.call("init")?;
        let account = inner.accounts.get_mut(&request.reservation.trader).unwrap();
        assert_eq!(account.terms.output_script().unwrap(), request.script);
        assert_eq!(account.value, request.reservation.value);
        account.outpoint = Some(request.outpoint);
        Ok(())
    }

    async fn modify(&self, request: &ModifyAccount) -> Result<ModifySignature, LinkError> {
        let manners = {
            let mut inner = self.call("modify")?;
            inner.modified.push(request.clone());
            inner.manners
        };
        if manners == Manners::Refuse {
            return Err(LinkError::Refused { call: "modify", reason: "not now".into() });
        }
        let account = self.venue.account(request.account);
        let (transaction, input) = self.venue.modified(&account, request);
        let prev = &request.prev_outputs;
        let mut answer = if account.terms.version == AccountVersion::V0 {
            let request = self.venue.tweaked(&account.terms, &transaction, input, prev);
            let mut signature = self.venue.node.sign_input(&request).await.unwrap();
            signature.push(1);
            ModifySignature { signature, server_nonce: None }
        } else {
            let begin = Musig2Request { other_nonce: request.trader_nonce, ..self.venue.request(&account.terms) };
            let (session, nonce) = self.venue.node.musig2_begin(&begin).await.unwrap();
            let hash = key_spend_sighash(&transaction, input, prev).unwrap();
            let partial = self.venue.node.musig2_sign(session, hash, true).await.unwrap();
            ModifySignature { signature: partial.0.to_vec(), server_nonce: Some(nonce) }
        };
        match manners {
            Manners::Good | Manners::Refuse => Ok(answer),
            Manners::LoseAnswer => Err(away()),
            Manners::Short => {
                answer.signature.pop();
                Ok(answer)
            }
            Manners::Empty => Ok(ModifySignature { signature: Vec::new(), ..answer }),
            Manners::Bare => {
                match answer.server_nonce.take() {
                    Some(_) => {}
                    None => *answer.signature.last_mut().unwrap() = 0x83,
                }
                Ok(answer)
            }
            Manners::BadSignature => {
                let last = answer.signature.len() - 2;
                answer.signature[last] ^= 1;
                Ok(answer)
            }
        }
    }

    async fn submit(&self, order: &SubmittedOrder) -> Result<Submission, LinkError> {
        let mut inner = self.call("submit")?;
        assert!(order.signature_is_valid(), "the order is signed");
        if let Some(left) = inner.refusals.checked_sub(1) {
            inner.refusals = left;
            return Err(LinkError::Refused { call: "submit", reason: "the account is not open".into() });
        }
        if std::mem::take(&mut inner.lose_submission) {
            return Err(away());
        }
        if std::mem::take(&mut inner.call_invalid) {
            return Ok(Submission::Invalid { reason: "the account holds too little".into() });
        }
        inner.orders.insert(order.order.nonce, (order.clone(), OrderState::Submitted));
        Ok(Submission::Accepted)
    }

    async fn cancel(&self, preimage: OrderPreimage) -> Result<(), LinkError> {
        let mut inner = self.call("cancel")?;
        inner.orders.get_mut(&preimage.nonce()).ok_or(LinkError::NoOrder)?.1 = OrderState::Canceled;
        if std::mem::take(&mut inner.lose_cancel) { Err(away()) } else { Ok(()) }
    }

    async fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), LinkError> {
        let inner = self.call("order_state")?;
        let (order, state) = inner.orders.get(&nonce).ok_or(LinkError::NoOrder)?;
        Ok((*state, order.order.units().unwrap()))
    }

    async fn snapshot(&self, batch: Option<BatchId>) -> Result<BatchSnapshot, LinkError> {
        let inner = self.call("snapshot")?;
        if inner.hide_snapshots {
            return Err(away());
        }
        let batch_id = batch.expect("only by name here");
        let transaction = inner.snapshots.get(&batch_id).cloned().ok_or(LinkError::NoSnapshot)?;
        let (fee_rate, markets) = (SatPerKw::FLOOR, BTreeMap::new());
        Ok(BatchSnapshot { batch_id, previous: None, transaction, fee_rate, created_ns: 0, markets })
    }

    async fn snapshots(&self, _count: u32) -> Result<Vec<BatchSnapshot>, LinkError> {
        Ok(Vec::new())
    }

    async fn market_info(&self) -> Result<BTreeMap<BlockCount, MarketInterest>, LinkError> {
        Ok(BTreeMap::new())
    }

    async fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, LinkError> {
        let ratings = self.call("ratings")?.ratings.clone();
        match ratings {
            Some(ratings) => {
                let rating = |node: &NodeId| ratings.get(node).copied().unwrap_or(NodeTier::Tier1);
                Ok(nodes.iter().map(|node| (*node, rating(node))).collect())
            }
            None => std::future::pending().await,
        }
    }

    async fn connect(&self) -> Result<(), LinkError> {
        let mut inner = self.call("connect")?;
        let (sender, receiver) = mpsc::unbounded();
        inner.streams.insert(self.trader.clone(), Stream { to_trader: Some(sender), ..Stream::default() });
        *self.incoming.lock().unwrap() = Some(receiver);
        Ok(())
    }

    async fn send(&self, message: ClientMessage) -> Result<(), LinkError> {
        let mut inner = self.call("send")?;
        let answer = match message {
            ClientMessage::Commit { commit, version } => {
                assert_eq!(version, BatchVersion(58));
                inner.streams.get_mut(&self.trader).ok_or_else(away)?.commits.insert(commit);
                // Whose it is shows only later: the last step is not answered.
                Some(ServerMessage::Challenge { challenge: AuthChallenge([7; 32]), commit })
            }
            ClientMessage::Subscribe { account, .. } if inner.ignored == Some(account) => None,
            ClientMessage::Subscribe { account, nonce, signature } => {
                Some(self.subscribe(account, nonce, &signature, &mut inner))
            }
            ClientMessage::Recover { .. } => panic!("nobody recovers here"),
            other @ (ClientMessage::Accept { .. } | ClientMessage::Reject(_) | ClientMessage::Sign(_)) => {
                inner.streams.get_mut(&self.trader).ok_or_else(away)?.from_trader.push_back(other);
                None
            }
        };
        if let Some(answer) = answer {
            let stream = inner.streams.get(&self.trader).ok_or_else(away)?;
            stream.to_trader.as_ref().unwrap().unbounded_send(answer).unwrap();
        }
        Ok(())
    }

    async fn receive(&self) -> Result<ServerMessage, LinkError> {
        poll_fn(|context| {
            let mut incoming = self.incoming.lock().unwrap();
            incoming.as_mut().expect("connected").poll_next_unpin(context)
        })
        .await
        .ok_or_else(away)
    }
}
