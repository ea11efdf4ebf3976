//! A trader for tests: verifies strictly, signs really, and misbehaves on request.

use super::bench::{Bench, ready};
use bitcoin::Txid;
use std::collections::BTreeMap;
use tidegate_ports::{
    ClientMessage, InitAccount, Musig2Request, Reservation, ScriptSpend, ServerMessage, SignInput, Signer, StreamId,
    Submission, TraderEvent, TraderId,
};
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::auth::CommitHash;
use tidegate_protocol::batch::{
    AccountSignature, BatchSignatures, BatchVersion, ChannelInfo, MatchRejectCode, Prepare, Reject, RejectReason,
    ReportedChannelType, SignBegin,
};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, MultisigKey, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::musig2::PartialSignature;
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder,
    SubmittedOrder,
};
use tidegate_protocol::script::key_spend_sighash;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::{LocalView, VerifiedBatch, verify_prepare, verify_sign};
use tidegate_sandbox::SandboxNode;

/// What the trader does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    Honest,
    SilentAtPrepare,
    SilentAtSign,
    HangsUpAtSign,
    GarbageSignature,
    NoSignature,
    OtherKindOfSignature,
    NoChannelInfo,
    LiesInChannelInfo,
    RejectsAtPrepare,
    RejectsAtSign,
    RefusesPeer,
    FundingFails,
    RejectsUnknownNonce,
    /// Refuses its first counterpart, whoever it is.
    RefusesOnePeer,
    /// Sends a signature of its own making for its counterparts' accounts too.
    SignsForOthers,
}

pub(super) struct TestTrader {
    pub(super) node: SandboxNode,
    pub(super) id: TraderId,
    pub(super) stream: StreamId,
    pub(super) key: KeyDescriptor,
    pub(super) account: Account,
    pub(super) orders: BTreeMap<OrderNonce, OwnOrder>,
    pub(super) preimages: BTreeMap<OrderNonce, OrderPreimage>,
    pub(super) manners: Manners,
    /// Lease duration of its orders.
    pub(super) duration: BlockCount,
    /// The most that its orders pay the venue.
    pub(super) fee: ExecutionFee,
    /// The node that its orders name, when it is not its own.
    pub(super) named_node: Option<NodeId>,
    pub(super) staged: Option<VerifiedBatch>,
    /// Transactions of all prepares, in order.
    pub(super) prepared: Vec<Txid>,
    pub(super) finalized: Vec<Txid>,
}

const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 };

impl TestTrader {
    /// Reserves, funds and announces an account.
    pub(super) fn open_account(bench: &mut Bench, name: &str, version: AccountVersion, value: u64) -> TestTrader {
        let node = bench.world.add_node(name);
        let key = ready(node.derive_next_key(220)).unwrap();
        let id = TraderId(key.point.x_only_public_key().0.serialize());
        let trader = AccountKey::new(key.point);
        let value = Sats::new(value).unwrap();
        let expiry = bench.world.height().checked_add(BlockCount::new(2000)).unwrap();
        let reservation = Reservation { value, expiry, trader, version };
        let handle = bench.handle.clone();
        let keys = bench.call(handle.reserve(id, reservation.clone())).unwrap();
        let secret = ready(node.shared_secret(keys.auctioneer.point(), key.locator)).unwrap();
        let terms = AccountTerms { version, trader, auctioneer: keys.auctioneer, batch: keys.batch, secret, expiry };
        let script = terms.output_script().unwrap();
        let outpoint = bench.world.pay(script.clone(), value).unwrap();
        let request = InitAccount { reservation, outpoint, script };
        bench.call(handle.init(id, request.clone(), "test".to_owned())).unwrap();
        bench.call(handle.init(id, request, "test".to_owned())).expect("repeating is harmless");
        let account = Account {
            terms,
            locator: key.locator,
            value,
            state: AccountState::Open,
            height_hint: BlockHeight::new(0),
            outpoint: Some(outpoint),
            latest_tx: None,
        };
        TestTrader {
            node,
            id,
            stream: StreamId(0),
            key,
            account,
            orders: BTreeMap::new(),
            preimages: BTreeMap::new(),
            manners: Manners::Honest,
            duration: BlockCount::new(2016),
            fee: FEE,
            named_node: None,
            staged: None,
            prepared: Vec::new(),
            finalized: Vec::new(),
        }
    }

    pub(super) fn say(&self, bench: &mut Bench, message: ClientMessage) {
        bench.push(TraderEvent::Said { trader: self.id, stream: self.stream, message });
    }

    pub(super) fn subscribe(&mut self, bench: &mut Bench) {
        self.stream = bench.open_stream(self.id);
        let nonce = [3; 32];
        let commit = CommitHash::of(self.account.key(), &nonce);
        self.say(bench, ClientMessage::Commit { commit, version: BatchVersion(58) });
        bench.pump();
        let Some(ServerMessage::Challenge { challenge, commit: echoed }) = bench.read(self.stream) else {
            panic!("no challenge")
        };
        assert_eq!(echoed, commit);
        let signature = ready(self.node.sign_message(&challenge.auth_hash(commit), self.key.locator)).unwrap();
        self.say(bench, ClientMessage::Subscribe { account: self.account.key(), nonce, signature });
        bench.pump();
        assert_eq!(bench.read(self.stream), Some(ServerMessage::Success { account: self.account.key() }));
    }

    pub(super) fn order(&self, rate: u32, units: u32, side: OrderSide) -> (SubmittedOrder, OwnOrder) {
        self.order_of_at_least(rate, units, 1, side)
    }

    fn order_of_at_least(&self, rate: u32, units: u32, min: u32, side: OrderSide) -> (SubmittedOrder, OwnOrder) {
        let multisig = ready(self.node.derive_next_key(0)).unwrap();
        let preimage = OrderPreimage::new(multisig.point.x_only_public_key().0.serialize());
        let units = UnitCount::new(units);
        let order = Order {
            nonce: preimage.nonce(),
            version: OrderVersion::V5,
            account: self.account.key(),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(rate),
            amount: units.to_sats(),
            min_units: UnitCount::new(min),
            duration: self.duration,
            max_batch_fee_rate: SatPerKw::new(10_000),
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: true,
            side,
        };
        let own = OwnOrder {
            order: order.clone(),
            preimage: Some(preimage),
            state: OrderState::Submitted,
            units_unfulfilled: units,
            multisig,
            fee_ceiling: self.fee,
            extension_quoted: BlockCount::new(3024),
        };
        let submitted = SubmittedOrder {
            order,
            signature: Vec::new(),
            multisig: MultisigKey::new(multisig.point),
            node: self.named_node.unwrap_or(self.node.id()),
            addresses: vec![self.node.address()],
        };
        (self.sign_order(submitted), own)
    }

    pub(super) fn sign_order(&self, mut submitted: SubmittedOrder) -> SubmittedOrder {
        submitted.signature = ready(self.node.sign_message(&submitted.order.digest(), self.key.locator)).unwrap();
        submitted
    }

    fn submit(&mut self, bench: &mut Bench, rate: u32, units: u32, side: OrderSide) -> OrderNonce {
        let signed = self.order(rate, units, side);
        self.hand_in(bench, signed)
    }

    /// An ask with a smallest match.
    pub(super) fn ask_of_at_least(&mut self, bench: &mut Bench, rate: u32, units: u32, min: u32) -> OrderNonce {
        let signed = self.order_of_at_least(rate, units, min, OrderSide::Ask(AskTerms::default()));
        self.hand_in(bench, signed)
    }

    fn hand_in(&mut self, bench: &mut Bench, (submitted, own): (SubmittedOrder, OwnOrder)) -> OrderNonce {
        let nonce = own.order.nonce;
        let handle = bench.handle.clone();
        assert_eq!(bench.call(handle.submit(submitted)), Ok(Submission::Accepted));
        self.preimages.insert(nonce, own.preimage.unwrap());
        self.orders.insert(nonce, own);
        nonce
    }

    pub(super) fn ask(&mut self, bench: &mut Bench, rate: u32, units: u32) -> OrderNonce {
        self.submit(bench, rate, units, OrderSide::Ask(AskTerms::default()))
    }

    pub(super) fn bid(&mut self, bench: &mut Bench, rate: u32, units: u32) -> OrderNonce {
        self.submit(bench, rate, units, OrderSide::Bid(BidTerms::default()))
    }

    /// Answers everything in the mailbox; whether anything was said.
    pub(super) fn answer_all(&mut self, bench: &mut Bench) -> bool {
        let mut spoke = false;
        while let Some(message) = bench.read(self.stream) {
            spoke = true;
            match message {
                ServerMessage::Prepare(prepare) => self.on_prepare(bench, &prepare),
                ServerMessage::Sign(begin) => self.on_sign(bench, &begin),
                ServerMessage::Finalize(done) => {
                    let batch = self.staged.take().expect("finalize only for a batch that was signed");
                    assert_eq!(batch.prepare().transaction.compute_txid(), done.txid);
                    self.apply(&batch);
                    self.finalized.push(done.txid);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        spoke
    }

    fn apply(&mut self, batch: &VerifiedBatch) {
        if let Some(ending) = batch.accounts().get(&self.account.key()) {
            self.account = ending.after.clone();
        }
        for ending in batch.orders() {
            if let Some(own) = self.orders.get_mut(&ending.nonce) {
                own.state = ending.state;
                own.units_unfulfilled = ending.units_unfulfilled;
            }
        }
    }

    fn on_prepare(&mut self, bench: &mut Bench, prepare: &Prepare) {
        self.prepared.push(prepare.transaction.compute_txid());
        let accounts = BTreeMap::from([(self.account.key(), self.account.clone())]);
        let view = LocalView {
            node: self.node.id(),
            best_height: bench.world.height(),
            batch_version: BatchVersion(58),
            accounts: &accounts,
            orders: &self.orders,
            extension_now: BlockCount::new(3024),
            ratings: &BTreeMap::new(),
            reject_unrated: false,
        };
        let batch = verify_prepare(&view, prepare).expect("the venue's batch is beyond reproach");
        let answer = match self.manners {
            Manners::SilentAtPrepare => None,
            Manners::RejectsAtPrepare => Some(reject(prepare, RejectReason::Unknown)),
            Manners::RejectsUnknownNonce => {
                let nonsense = (MatchRejectCode::ChannelFundingFailed, String::new());
                Some(reject(prepare, RejectReason::Partial(BTreeMap::from([(OrderNonce::new([9; 32]), nonsense)]))))
            }
            Manners::RefusesOnePeer => {
                let first = batch.matches().first().unwrap().theirs;
                let no = (MatchRejectCode::ChannelFundingFailed, String::new());
                Some(reject(prepare, RejectReason::Partial(BTreeMap::from([(first, no)]))))
            }
            Manners::RefusesPeer => Some(reject(prepare, refuse_all(&batch, MatchRejectCode::DuplicatePeer))),
            _ => Some(ClientMessage::Accept { batch_id: prepare.batch_id }),
        };
        self.staged = Some(batch);
        if let Some(answer) = answer {
            self.say(bench, answer);
        }
    }

    fn on_sign(&mut self, bench: &mut Bench, begin: &SignBegin) {
        let batch = self.staged.clone().expect("sign follows prepare");
        let accounts = BTreeMap::from([(self.account.key(), self.account.clone())]);
        let view = LocalView {
            node: self.node.id(),
            best_height: bench.world.height(),
            batch_version: BatchVersion(58),
            accounts: &accounts,
            orders: &self.orders,
            extension_now: BlockCount::new(3024),
            ratings: &BTreeMap::new(),
            reject_unrated: false,
        };
        verify_sign(&view, &batch, begin).expect("the request to sign is beyond reproach");
        let answer = match self.manners {
            Manners::SilentAtSign => None,
            Manners::HangsUpAtSign => {
                bench.push(TraderEvent::Closed { trader: self.id, stream: self.stream });
                None
            }
            Manners::RejectsAtSign => Some(reject(batch.prepare(), RejectReason::ServerMisbehavior)),
            Manners::FundingFails => {
                Some(reject(batch.prepare(), refuse_all(&batch, MatchRejectCode::ChannelFundingFailed)))
            }
            _ => Some(ClientMessage::Sign(self.signatures(&batch, begin))),
        };
        if let Some(answer) = answer {
            self.say(bench, answer);
        }
    }

    fn signatures(&self, batch: &VerifiedBatch, begin: &SignBegin) -> BatchSignatures {
        let account = self.account.key();
        let ending = &batch.accounts()[&account];
        let mut signature = self.sign(batch, begin, ending.input);
        match (self.manners, &mut signature) {
            (Manners::GarbageSignature, AccountSignature::Musig2 { partial, .. }) => partial.0[31] ^= 1,
            (Manners::GarbageSignature, AccountSignature::Ecdsa(der)) => der.truncate(20),
            (Manners::OtherKindOfSignature, other) => {
                *other = match other {
                    AccountSignature::Ecdsa(_) => AccountSignature::Musig2 {
                        partial: PartialSignature([1; 32]),
                        nonce: tidegate_protocol::musig2::PublicNonce([2; 66]),
                    },
                    AccountSignature::Musig2 { .. } => AccountSignature::Ecdsa(vec![0x30]),
                }
            }
            (_, _) => {}
        }
        let mut accounts = BTreeMap::from([(account, signature)]);
        if self.manners == Manners::SignsForOthers {
            let theirs = batch.prepare().markets.values().flat_map(|market| market.orders.values().flatten());
            for matched in theirs {
                let garbage = AccountSignature::Musig2 {
                    partial: PartialSignature([1; 32]),
                    nonce: tidegate_protocol::musig2::PublicNonce([2; 66]),
                };
                accounts.insert(matched.order.order.account, garbage);
            }
        }
        if self.manners == Manners::NoSignature {
            accounts.clear();
        }
        let mut channels: BTreeMap<_, _> =
            batch.matches().iter().map(|matched| (matched.shim.channel_point, self.info(matched))).collect();
        if self.manners == Manners::NoChannelInfo {
            channels.clear();
        }
        BatchSignatures { batch_id: batch.prepare().batch_id, accounts, channels }
    }

    fn info(&self, matched: &tidegate_protocol::verify::VerifiedMatch) -> ChannelInfo {
        let honest = ChannelInfo {
            channel_type: ReportedChannelType::Anchors,
            local_node: self.node.id(),
            remote_node: matched.node,
            local_payment_point: matched.shim.local_key.point,
            remote_payment_point: *matched.shim.remote_key.point(),
        };
        if self.manners == Manners::LiesInChannelInfo {
            ChannelInfo { remote_payment_point: self.key.point, ..honest }
        } else {
            honest
        }
    }

    fn sign(&self, batch: &VerifiedBatch, begin: &SignBegin, input: usize) -> AccountSignature {
        let transaction = batch.prepare().transaction.clone();
        let prev_outputs = begin.prev_outputs.clone();
        let terms = &self.account.terms;
        let Some(version) = terms.version.musig2() else {
            let spend = ScriptSpend::SegwitV0 { script: terms.inner_script().unwrap() };
            let tweak = terms.trader_tweak();
            let request = SignInput { transaction, input, prev_outputs, key: self.key, tweak, spend };
            return AccountSignature::Ecdsa(ready(self.node.sign_input(&request)).unwrap());
        };
        let request = Musig2Request {
            signer: self.key.locator,
            keys: [self.key.point, *terms.auctioneer.point()],
            version,
            merkle_root: terms.merkle_root().unwrap(),
            other_nonce: Some(begin.server_nonces[&self.account.key()]),
        };
        let message = key_spend_sighash(&transaction, input, &prev_outputs).unwrap();
        let (session, nonce) = ready(self.node.musig2_begin(&request)).unwrap();
        let partial = ready(self.node.musig2_sign(session, message, true)).unwrap();
        AccountSignature::Musig2 { partial, nonce }
    }
}

fn refuse_all(batch: &VerifiedBatch, code: MatchRejectCode) -> RejectReason {
    RejectReason::Partial(batch.matches().iter().map(|matched| (matched.theirs, (code, "no".to_owned()))).collect())
}

fn reject(prepare: &Prepare, reason: RejectReason) -> ClientMessage {
    ClientMessage::Reject(Reject { batch_id: prepare.batch_id.serialize().to_vec(), message: "no".to_owned(), reason })
}
