//! Channels of every kind, several matches and accounts in one batch, and what it costs in durable writes.

use crate::trade::{Stage, batch_id};
use crate::venue::{DURATION, Made};
use tidegate_ports::*;
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::batch::{MatchRejectCode, RejectReason};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::*;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_trader::*;

/// What an ask and a bid of one kind of channel say, and what the channel is.
struct Kind {
    name: &'static str,
    channel_type: OrderChannelType,
    auction: AuctionType,
    ask: AskTerms,
    bid: BidTerms,
    units: u32,
    expected: (CommitmentType, bool, bool),
}

fn kind(name: &'static str) -> Kind {
    Kind {
        name,
        channel_type: OrderChannelType::PeerDependent,
        auction: AuctionType::Inbound,
        ask: AskTerms::default(),
        bid: BidTerms::default(),
        units: 4,
        expected: (CommitmentType::Negotiated, false, false),
    }
}

fn kinds() -> Vec<Kind> {
    let unannounced = BidTerms { unannounced: true, ..BidTerms::default() };
    let zero_conf = BidTerms { zero_conf: true, ..BidTerms::default() };
    let own = |sat| BidTerms { self_balance: Sats::constant(sat), ..BidTerms::default() };
    let script_enforced = OrderChannelType::ScriptEnforced;
    vec![
        kind("default"),
        Kind { bid: unannounced.clone(), expected: (CommitmentType::Negotiated, true, false), ..kind("unannounced") },
        Kind {
            channel_type: script_enforced,
            expected: (CommitmentType::ScriptEnforcedLease, false, false),
            ..kind("script enforced")
        },
        Kind {
            channel_type: script_enforced,
            bid: zero_conf.clone(),
            ask: AskTerms { confirmation: ConfirmationConstraint::OnlyZeroConf, ..AskTerms::default() },
            expected: (CommitmentType::ScriptEnforcedLease, false, true),
            ..kind("zero-conf")
        },
        Kind {
            channel_type: OrderChannelType::SimpleTaproot,
            bid: unannounced.clone(),
            ask: AskTerms { announcement: AnnouncementConstraint::OnlyUnannounced, ..AskTerms::default() },
            expected: (CommitmentType::SimpleTaproot, true, false),
            ..kind("simple taproot")
        },
        Kind {
            channel_type: OrderChannelType::SimpleTaproot,
            bid: BidTerms { zero_conf: true, ..unannounced },
            expected: (CommitmentType::SimpleTaproot, true, true),
            ..kind("simple taproot, zero-conf")
        },
        Kind { bid: own(200_000), ..kind("self balance") },
        Kind { auction: AuctionType::Outbound, bid: own(300_000), units: 1, ..kind("outbound") },
    ]
}

impl Stage {
    fn order_for(&mut self, who: &'static str, account: AccountKey, kind: &Kind, rate: u32) -> OrderNonce {
        let side = match who {
            "alice" => OrderSide::Ask(kind.ask.clone()),
            _ => OrderSide::Bid(kind.bid.clone()),
        };
        let whole = kind.bid.self_balance > Sats::ZERO;
        let order = NewOrder {
            account,
            rate: RatePerBillion::new(rate),
            units: UnitCount::new(kind.units),
            min_units: UnitCount::new(if whole { kind.units } else { 1 }),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(1_000),
            channel_type: kind.channel_type,
            auction: kind.auction,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        };
        let handle = self.handle(who);
        self.sim.wait(async move { handle.submit_order(order).await }).unwrap()
    }

    fn first_account(&mut self, who: &'static str) -> AccountKey {
        self.status(who).accounts[0].key()
    }

    /// The batch becomes final and confirms.
    fn confirm(&mut self, made: &mut Made) {
        let transaction = self.signed(made);
        self.venue.finalize(made);
        self.venue.book(made);
        self.sim.settle();
        self.world.publish(&transaction).unwrap();
        self.mine(3);
    }
}

fn leased(kind: &Kind) {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let (alice, bob) = (stage.first_account("alice"), stage.first_account("bob"));
    let ask = stage.order_for("alice", alice, kind, 700);
    let bid = stage.order_for("bob", bob, kind, 900);
    let mut made = stage.venue.make(batch_id(1), ask, bid, kind.units, 800, 500);
    stage.confirm(&mut made);
    let capacity = Sats::new(u64::from(kind.units) * 100_000 + kind.bid.self_balance.get()).unwrap();
    for who in ["alice", "bob"] {
        let node = if who == "alice" { &stage.alice.node } else { &stage.bob.node };
        let records = node.channel_records();
        assert_eq!(records.len(), 1, "{} {who}", kind.name);
        let record = &records[0];
        let found = (record.commitment, record.private, record.zero_conf);
        assert_eq!(found, kind.expected, "{} {who}", kind.name);
        assert_eq!((record.capacity, record.push), (capacity, kind.bid.self_balance), "{} {who}", kind.name);
        assert_eq!(record.initiator, who == "alice");
        let lease = stage.status(who).leases.remove(0);
        assert_eq!((lease.channel, lease.self_balance), (record.channel_point, kind.bid.self_balance));
        let account = stage.status(who).accounts.remove(0);
        assert_eq!((account.state, account.value), (AccountState::Open, made.after[&account.key()].1));
    }
    let (paid, kept) = stage.world.satoshi();
    assert_eq!(paid, kept);
}

#[test]
fn channels_of_every_kind_are_leased() {
    for kind in kinds() {
        leased(&kind);
    }
}

/// Alice has two accounts with an ask each, bob one account with a bid for each of them.
fn two_matches() -> (Stage, [(OrderNonce, OrderNonce, u32); 2]) {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let second = stage.open(stage.alice.handle.clone(), Sats::constant(1_000_000), AccountVersion::V1).unwrap();
    stage.mine(3);
    let (first, bob) = (stage.first_account("alice"), stage.first_account("bob"));
    let first = if first == second.key() { stage.status("alice").accounts[1].key() } else { first };
    let kind = kind("default");
    let asks = [first, second.key()].map(|account| stage.order_for("alice", account, &kind, 700));
    let bids = [900, 950].map(|rate| stage.order_for("bob", bob, &kind, rate));
    (stage, [(asks[0], bids[0], 3), (asks[1], bids[1], 2)])
}

#[test]
fn several_accounts_of_ours_take_part_in_one_batch() {
    let (mut stage, pairs) = two_matches();
    let mut made = stage.venue.make_all(batch_id(1), &pairs, 800, 500);
    stage.confirm(&mut made);
    let status = stage.status("alice");
    assert_eq!((status.accounts.len(), status.leases.len()), (2, 2));
    for account in status.accounts {
        assert_eq!((account.state, account.value), (AccountState::Open, made.after[&account.key()].1));
    }
    assert_eq!(stage.bob.node.channel_records().len(), 2, "two channels between the same nodes");
    let (leases, bob) = (stage.status("bob").leases, stage.first_account("bob"));
    let chain: u64 = leases.iter().map(|lease| lease.chain_fee.get()).sum();
    let fee = tidegate_protocol::fees::chain_fee(2, SatPerKw::new(500), AccountVersion::V2).unwrap();
    assert_eq!(chain, fee.get(), "the fee of account {bob} is split over its channels");
}

#[test]
fn only_the_match_that_failed_is_refused() {
    let (mut stage, pairs) = two_matches();
    let mut made = stage.venue.make_all(batch_id(1), &pairs, 800, 500);
    stage.accepted(&made);
    // The node of the buyer forgets what it expects of the second channel.
    let node = stage.bob.node.clone();
    let pending = tidegate_protocol::channel::pending_channel_id(pairs[1].0, pairs[1].1);
    stage.sim.wait(node.cancel_shim(pending)).unwrap();
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    let Some(ClientMessage::Reject(reject)) = stage.venue.heard("alice") else { panic!("refused") };
    let RejectReason::Partial(matches) = reject.reason else { panic!("{:?}", reject.reason) };
    assert_eq!(matches.keys().copied().collect::<Vec<_>>(), [pairs[1].1]);
    assert_eq!(matches[&pairs[1].1].0, MatchRejectCode::ChannelFundingFailed);
    stage.sim.advance(15_000);
    let Some(ClientMessage::Reject(reject)) = stage.venue.heard("bob") else { panic!("refused") };
    assert!(matches!(reject.reason, RejectReason::Partial(matches) if matches.contains_key(&pairs[1].0)));
    // The next round is without it, in another transaction.
    let mut next = stage.venue.make_all(batch_id(1), &pairs[..1], 800, 550);
    stage.confirm(&mut next);
    assert_eq!(stage.status("alice").leases.len(), 1);
}

#[test]
fn nodes_with_a_channel_are_refused_when_only_new_ones_are_wanted() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 2, 800, 500);
    stage.confirm(&mut made);
    stage.restart_with("bob", TraderConfig { new_nodes_only: true, ..TraderConfig::default() });
    stage.sim.advance(10_000);
    let next = stage.venue.make(batch_id(2), ask, bid, 2, 800, 500);
    stage.venue.propose(&next);
    stage.sim.settle();
    let Some(ClientMessage::Reject(reject)) = stage.venue.heard("bob") else { panic!("refused") };
    let RejectReason::Partial(matches) = reject.reason else { panic!("{:?}", reject.reason) };
    assert_eq!(matches[&ask].0, MatchRejectCode::DuplicatePeer);
}

#[test]
fn three_unconfirmed_batches_in_a_row_come_true_together() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut transactions = Vec::new();
    for number in 1..=3 {
        let mut made = stage.venue.make(batch_id(number), ask, bid, 1, 800, 500);
        transactions.push(stage.signed(&mut made));
        stage.venue.finalize(&made);
        stage.venue.book(&made);
        stage.sim.settle();
        assert_eq!(stage.state("alice"), AccountState::PendingBatch);
    }
    for transaction in &transactions {
        stage.world.publish(transaction).unwrap();
    }
    stage.restart("alice");
    stage.mine(3);
    for who in ["alice", "bob"] {
        let status = stage.status(who);
        assert_eq!((status.accounts[0].state, status.leases.len()), (AccountState::Open, 3), "{who}");
        assert!(status.pending_batches.is_empty());
        assert_eq!(
            stage.world.utxo(status.accounts[0].outpoint.unwrap()).map(|output| output.value.to_sat()),
            Some(status.accounts[0].value.get())
        );
    }
}

/// Durable writes of a batch: one names what the proposal may leave at the node, one lets the signatures go, one makes
/// the batch true, and one, blocks later, forgets what can not be undone any more.
const WRITES_UNTIL_FINAL: usize = 3;
const WRITES_AT_CONFIRMATION: usize = 1;

#[test]
fn a_batch_costs_three_durable_writes_until_it_is_final_and_one_when_it_confirms() {
    let (mut stage, pairs) = two_matches();
    for (number, rate) in [(1, 500), (2, 550)] {
        let mut made = stage.venue.make_all(batch_id(number), &pairs.map(|(ask, bid, _)| (ask, bid, 1)), 800, rate);
        let before = [&stage.alice, &stage.bob].map(|party| party.store.writes());
        let transaction = stage.signed(&mut made);
        stage.venue.finalize(&made);
        stage.venue.book(&made);
        stage.sim.settle();
        let made_final = [&stage.alice, &stage.bob].map(|party| party.store.writes());
        stage.world.publish(&transaction).unwrap();
        stage.mine(6);
        let confirmed = [&stage.alice, &stage.bob].map(|party| party.store.writes());
        for party in 0..2 {
            assert_eq!(made_final[party] - before[party], WRITES_UNTIL_FINAL, "batch {number}, trader {party}");
        }
        // Alice's two accounts confirm one after the other.
        assert_eq!(confirmed[0] - made_final[0], 2 * WRITES_AT_CONFIRMATION);
        assert_eq!(confirmed[1] - made_final[1], WRITES_AT_CONFIRMATION);
    }
    assert_eq!(stage.status("bob").leases.len(), 4);
    let blocks: BlockCount = BlockCount::new(6);
    let before = stage.bob.store.writes();
    stage.mine(blocks.get());
    assert_eq!(stage.bob.store.writes(), before, "a block alone is not written");
}

#[test]
fn an_account_that_the_venue_does_not_answer_for_keeps_no_other_away() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.open(stage.alice.handle.clone(), Sats::constant(1_000_000), AccountVersion::V2).unwrap();
    stage.mine(3);
    let keys: Vec<AccountKey> = stage.status("alice").accounts.iter().map(|account| account.key()).collect();
    for ignored in keys.clone() {
        stage.venue.ignore(Some(ignored));
        stage.restart("alice");
        stage.sim.advance(120_000);
        let subscribed: Vec<_> = stage.status("alice").subscribed_accounts.into_iter().collect();
        assert_eq!(subscribed, keys.iter().copied().filter(|key| *key != ignored).collect::<Vec<_>>());
        let before = stage.venue.calls("connect");
        stage.sim.advance(120_000);
        assert_eq!(stage.venue.calls("connect"), before, "the stream stays open");
        stage.venue.ignore(None);
        stage.sim.advance(120_000);
        assert_eq!(stage.status("alice").subscribed_accounts.len(), 2);
    }
}

#[test]
fn an_account_that_the_node_does_not_watch_keeps_no_other_away() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.open(stage.alice.handle.clone(), Sats::constant(1_000_000), AccountVersion::V2).unwrap();
    let keys: Vec<AccountKey> = stage.status("alice").accounts.iter().map(|account| account.key()).collect();
    stage.mine(3);
    for refused in keys.clone() {
        *stage.alice.store.refused_watch().lock().unwrap() = Some(refused);
        stage.restart("alice");
        stage.sim.settle();
        let other = keys.iter().copied().find(|key| *key != refused).unwrap();
        let handle = stage.alice.handle.clone();
        let fee_rate = SatPerKw::new(1_000);
        let outputs = {
            let node = stage.alice.node.clone();
            let script_pubkey = stage.sim.wait(node.new_address(AddressKind::Taproot)).unwrap();
            vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(100_000), script_pubkey }]
        };
        let request = WithdrawAccount { account: other, outputs, fee_rate, expiry: None, version: None };
        stage.sim.wait(async move { handle.withdraw(request).await }).unwrap();
        stage.mine(3);
        let accounts = stage.status("alice").accounts;
        let state = accounts.iter().find(|account| account.key() == other).unwrap().state;
        assert_eq!(state, AccountState::Open, "its confirmation is seen");
    }
    *stage.alice.store.refused_watch().lock().unwrap() = None;
    stage.mine(1);
    assert!(stage.status("alice").accounts.iter().all(|account| account.state == AccountState::Open));
}
