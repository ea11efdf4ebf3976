//! Leased channels: the happy path and each refusal.

use super::{now, sats};
use crate::{CHANNEL_CONFIRMATIONS, SandboxNode, World};
use bitcoin::{OutPoint, ScriptBuf};
use futures_util::FutureExt;
use tidegate_ports::{Channels, NodeData, NodeError, Signer};
use tidegate_protocol::batch::ReportedChannelType;
use tidegate_protocol::channel::{AcceptorRule, CommitmentType, FundingShim, OpenChannel, funding_script};
use tidegate_protocol::keys::{FAMILY_MULTISIG, MultisigKey, PendingChannelId};
use tidegate_protocol::order::{NodeAddress, OrderChannelType};

const CAPACITY: u64 = 500_000;
const PUSH: u64 = 100_000;

/// A maker and a taker, connected, with shim and rule at the taker; the funding output exists unconfirmed.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) maker: SandboxNode,
    pub(super) taker: SandboxNode,
    request: OpenChannel,
    expected: FundingShim,
    rule: AcceptorRule,
}

impl Pair {
    pub(super) fn new(commitment: CommitmentType) -> Pair {
        let world = World::new(21);
        let (maker, taker) = (world.add_node("maker"), world.add_node("taker"));
        Pair::within(world, maker, taker, commitment)
    }

    pub(super) fn within(world: World, maker: SandboxNode, taker: SandboxNode, commitment: CommitmentType) -> Pair {
        now(taker.connect(maker.id(), &[maker.address()])).expect("connected");
        let maker_key = now(maker.derive_next_key(FAMILY_MULTISIG)).expect("a key");
        let taker_key = now(taker.derive_next_key(FAMILY_MULTISIG)).expect("a key");
        let of = |point| MultisigKey::new(point);
        let script = funding_script(of(maker_key.point), of(taker_key.point), commitment).expect("a script");
        let musig2 = commitment == CommitmentType::SimpleTaproot;
        let shim = FundingShim {
            pending_id: PendingChannelId::new([5; 32]),
            capacity: sats(CAPACITY),
            channel_point: world.pay(script, sats(CAPACITY)).expect("paid"),
            local_key: maker_key,
            remote_key: of(taker_key.point),
            thaw_height: 2016,
            musig2,
        };
        let expected = FundingShim { local_key: taker_key, remote_key: of(maker_key.point), ..shim.clone() };
        let rule = AcceptorRule {
            self_balance: sats(PUSH),
            channel_type: OrderChannelType::PeerDependent,
            unannounced: musig2,
            zero_conf: false,
        };
        let node = taker.id();
        let request = OpenChannel { node, shim, push: sats(PUSH), commitment, private: musig2, zero_conf: false };
        Pair { world, maker, taker, request, expected, rule }
    }

    pub(super) fn point(&self) -> OutPoint {
        self.request.shim.channel_point
    }

    /// The taker prepares, the maker opens.
    pub(super) fn open(&self) -> Result<(), NodeError> {
        now(self.taker.register_shim(&self.expected))?;
        now(self.taker.expect(self.expected.pending_id, self.rule))?;
        now(self.maker.open(&self.request))
    }

    fn active(&self) -> [usize; 2] {
        [&self.maker, &self.taker].map(|node| now(node.active_channels()).expect("an answer").len())
    }
}

#[test]
fn channel_is_pending_at_once_and_active_after_three_confirmations() {
    for (commitment, reported) in [
        (CommitmentType::Negotiated, ReportedChannelType::Anchors),
        (CommitmentType::ScriptEnforcedLease, ReportedChannelType::ScriptEnforcedLease),
        (CommitmentType::SimpleTaproot, ReportedChannelType::SimpleTaproot),
    ] {
        let pair = Pair::new(commitment);
        let mut waiting = Box::pin(pair.taker.wait_pending(pair.point()));
        assert!(waiting.as_mut().now_or_never().is_none(), "nothing is pending yet");
        pair.open().expect("opened");
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
        for node in [&pair.maker, &pair.taker] {
            assert_eq!(now(node.wait_pending(pair.point())), Ok(()), "pending before the call counts");
        }
        let ours = now(pair.maker.report(pair.point())).expect("a report");
        let theirs = now(pair.taker.report(pair.point())).expect("a report");
        assert_eq!((ours.channel_type, theirs.channel_type), (reported, reported));
        assert_eq!((ours.local_node, ours.remote_node), (pair.maker.id(), pair.taker.id()));
        assert_eq!((theirs.local_node, theirs.remote_node), (pair.taker.id(), pair.maker.id()));
        assert_eq!(ours.local_payment_point, theirs.remote_payment_point);
        assert_eq!(ours.remote_payment_point, theirs.local_payment_point);
        assert_ne!(ours.local_payment_point, ours.remote_payment_point);
        assert_eq!(now(pair.maker.channel_peers()), Ok(vec![pair.taker.id()]));
        pair.world.mine(CHANNEL_CONFIRMATIONS - 1);
        assert_eq!(pair.active(), [0, 0]);
        pair.world.mine(1);
        assert_eq!(pair.active(), [1, 1]);
        let active = now(pair.maker.active_channels()).expect("an answer");
        assert_eq!(active, [(pair.point(), sats(CAPACITY))]);
    }
}

#[test]
fn each_refusal_of_an_opening() {
    type Damage = fn(&mut Pair);
    let rows: [(&str, Damage, &str); 19] = [
        ("not connected", |p| p.world.disconnect(&p.maker, &p.taker), "is not online"),
        ("itself", |p| p.request.node = p.maker.id(), "is not online"),
        ("foreign key", |p| p.request.shim.local_key.point = p.expected.local_key.point, "not a key of this wallet"),
        ("too small", |p| p.request.shim.capacity = sats(19_999), "is too small"),
        ("push too large", |p| p.request.push = sats(CAPACITY + 1), "can not be pushed"),
        ("musig2 without taproot", |p| p.request.shim.musig2 = true, "taproot channels"),
        ("unknown pending id", |p| p.request.shim.pending_id = PendingChannelId::new([6; 32]), "no shim"),
        ("capacity", |p| p.expected.capacity = sats(CAPACITY - 1), "another capacity"),
        ("channel point", |p| p.expected.channel_point.vout += 1, "another channel point"),
        ("opener's key", |p| p.expected.remote_key = MultisigKey::new(*p.maker.id().point()), "another opener's key"),
        (
            "acceptor's key",
            |p| p.request.shim.remote_key = MultisigKey::new(*p.maker.id().point()),
            "another acceptor's key",
        ),
        ("funding kind", |p| p.expected.musig2 = true, "another kind of funding output"),
        (
            "lease expiry",
            |p| {
                p.request.commitment = CommitmentType::ScriptEnforcedLease;
                p.expected.thaw_height += 1;
            },
            "another lease expiry",
        ),
        ("push differs from rule", |p| p.rule.self_balance = sats(PUSH + 1), "the peer refuses"),
        ("announced against rule", |p| p.rule.unannounced = true, "the peer refuses"),
        ("type against rule", |p| p.rule.channel_type = OrderChannelType::ScriptEnforced, "the peer refuses"),
        ("rule wants zero-conf", |p| p.rule.zero_conf = true, "the peer refuses"),
        ("zero-conf not granted", |p| p.request.zero_conf = true, "does not grant zero-conf"),
        (
            "announced taproot",
            |p| {
                *p = Pair::new(CommitmentType::SimpleTaproot);
                p.request.private = false;
            },
            "taproot channels",
        ),
    ];
    for (name, damage, text) in rows {
        let mut pair = Pair::new(CommitmentType::Negotiated);
        damage(&mut pair);
        match pair.open() {
            Err(NodeError::Refused { call: "open", reason }) => assert!(reason.contains(text), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(pair.maker.channel_records().is_empty() && pair.taker.channel_records().is_empty(), "{name}");
    }
}

#[test]
fn relative_thaw_heights_may_differ_and_no_rule_means_no_condition() {
    let mut pair = Pair::new(CommitmentType::Negotiated);
    pair.expected.thaw_height += 1;
    now(pair.taker.register_shim(&pair.expected)).expect("registered");
    now(pair.taker.expect(pair.expected.pending_id, AcceptorRule { self_balance: sats(1), ..pair.rule }))
        .expect("told");
    now(pair.taker.unexpect(pair.expected.pending_id)).expect("forgotten");
    now(pair.maker.open(&pair.request)).expect("opened");
}

#[test]
fn zero_conf_channel_is_active_at_once() {
    let mut pair = Pair::new(CommitmentType::Negotiated);
    pair.rule.zero_conf = true;
    pair.request.zero_conf = true;
    pair.open().expect("opened");
    assert_eq!(pair.active(), [1, 1]);
}

#[test]
fn shims_are_registered_once_used_up_and_canceled() {
    let pair = Pair::new(CommitmentType::Negotiated);
    now(pair.taker.register_shim(&pair.expected)).expect("registered");
    now(pair.taker.register_shim(&pair.expected)).expect_err("twice");
    now(pair.maker.register_shim(&pair.expected)).expect_err("not the maker's key");
    now(pair.taker.cancel_shim(pair.expected.pending_id)).expect("canceled");
    now(pair.taker.cancel_shim(pair.expected.pending_id)).expect("unknown is no error");
    now(pair.maker.open(&pair.request)).expect_err("no shim any more");
    pair.open().expect("opened");
    let second = now(pair.maker.open(&pair.request)).expect_err("open already");
    assert!(second.to_string().contains("already exists"), "{second}");
}

#[test]
fn abandoned_channel_point_is_never_opened_again() {
    let pair = Pair::new(CommitmentType::Negotiated);
    pair.open().expect("opened");
    for node in [&pair.maker, &pair.taker] {
        now(node.abandon(pair.point())).expect("abandoned");
        now(node.abandon(OutPoint::null())).expect("unknown is no error");
        now(node.report(pair.point())).expect_err("given up");
        assert!(node.wait_pending(pair.point()).now_or_never().is_none());
        assert_eq!(now(node.channel_peers()), Ok(vec![]));
    }
    let again = pair.open().expect_err("refused");
    assert!(again.to_string().contains("already exists"), "{again}");
    pair.world.mine(CHANNEL_CONFIRMATIONS);
    assert_eq!(pair.active(), [0, 0]);
}

#[test]
fn confirmed_channel_is_not_abandoned() {
    let pair = Pair::new(CommitmentType::Negotiated);
    pair.open().expect("opened");
    pair.world.mine(1);
    now(pair.maker.abandon(pair.point())).expect_err("confirmed");
}

#[test]
fn channel_stays_inactive_when_the_chain_disagrees() {
    let pairs = [CAPACITY - 1, CAPACITY + 1].map(|capacity| {
        let mut pair = Pair::new(CommitmentType::Negotiated);
        pair.request.shim.capacity = sats(capacity);
        pair.expected.capacity = sats(capacity);
        pair.open().expect("the nodes can not know");
        pair
    });
    let mut other = Pair::new(CommitmentType::Negotiated);
    let elsewhere = other.world.pay(ScriptBuf::new_op_return([1]), sats(CAPACITY)).expect("paid");
    other.request.shim.channel_point = elsewhere;
    other.expected.channel_point = elsewhere;
    other.open().expect("the nodes can not know");
    for pair in pairs.into_iter().chain([other]) {
        pair.world.mine(CHANNEL_CONFIRMATIONS);
        assert_eq!(pair.active(), [0, 0]);
    }
}

#[test]
fn connects_by_address_only_to_nodes_that_listen() {
    let world = World::new(22);
    let (one, two, three) = (world.add_node("one"), world.add_node("two"), world.add_node("three"));
    let nowhere = NodeAddress("127.0.0.1:1".to_owned());
    for (name, addresses) in
        [("no address", vec![]), ("unknown", vec![nowhere.clone()]), ("another node's", vec![three.address()])]
    {
        assert!(matches!(now(one.connect(two.id(), &addresses)), Err(NodeError::Refused { .. })), "{name}");
    }
    world.set_listening(&two, false);
    now(one.connect(two.id(), &[two.address()])).expect_err("does not listen");
    now(one.connect(one.id(), &[one.address()])).expect_err("itself");
    let mut waiting = Box::pin(two.wait_online(one.id()));
    assert!(waiting.as_mut().now_or_never().is_none());
    now(two.connect(one.id(), &[nowhere, one.address()])).expect("the second address answers");
    assert_eq!(waiting.now_or_never(), Some(Ok(())));
    now(one.connect(two.id(), &[])).expect("connected already");
    assert_eq!(now(one.online_peers()), Ok(vec![two.id()]));
    two.restart();
    assert_eq!(now(one.online_peers()), Ok(vec![]));
}
