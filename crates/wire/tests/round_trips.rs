//! What one side writes the other side reads: every conversion, both ways, through encoded bytes.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use prost::Message;
use std::collections::BTreeMap;
use tidegate_ports::*;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::batch::*;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::*;
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::order::*;
use tidegate_protocol::units::*;
use tidegate_wire::{DecodeError, EncodeError, account, batch, market, order, poolrpc, stream};

/// So many cases, always the same: a failure repeats by itself.
fn always(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_122),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Sends a message over bytes.
fn sent<M: Message + Default>(message: M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded decodes")
}

fn point() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_filter_map("a secret key", |bytes| {
        SecretKey::from_slice(&bytes).ok().map(|key| key.public_key(&Secp256k1::signing_only()))
    })
}

fn node() -> impl Strategy<Value = NodeId> {
    point().prop_map(NodeId::new)
}

fn account_key() -> impl Strategy<Value = AccountKey> {
    point().prop_map(AccountKey::new)
}

fn batch_id() -> impl Strategy<Value = BatchId> {
    point().prop_map(BatchId::new)
}

fn nonce() -> impl Strategy<Value = OrderNonce> {
    any::<[u8; 32]>().prop_map(OrderNonce::new)
}

fn public_nonce() -> impl Strategy<Value = PublicNonce> {
    (point(), point()).prop_map(|(a, b)| {
        let bytes = [a.serialize(), b.serialize()].concat();
        PublicNonce(bytes.try_into().expect("66 bytes"))
    })
}

fn sats() -> impl Strategy<Value = Sats> {
    (0..=Sats::MAX.get()).prop_map(|sat| Sats::new(sat).expect("in range"))
}

fn outpoint() -> impl Strategy<Value = OutPoint> {
    (any::<[u8; 32]>(), any::<u32>()).prop_map(|(txid, vout)| OutPoint { txid: Txid::from_byte_array(txid), vout })
}

fn script() -> impl Strategy<Value = ScriptBuf> {
    vec(any::<u8>(), 0..60).prop_map(ScriptBuf::from_bytes)
}

fn output() -> impl Strategy<Value = TxOut> {
    (sats(), script()).prop_map(|(value, script_pubkey)| TxOut { value: Amount::from(value), script_pubkey })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    (vec(outpoint(), 1..4), vec(output(), 0..4)).prop_map(|(inputs, output)| Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: inputs
            .into_iter()
            .map(|previous_output| bitcoin::TxIn { previous_output, ..Default::default() })
            .collect(),
        output,
    })
}

fn version() -> impl Strategy<Value = AccountVersion> {
    prop::sample::select(vec![AccountVersion::V0, AccountVersion::V1, AccountVersion::V2])
}

fn execution_fee() -> impl Strategy<Value = ExecutionFee> {
    (sats(), any::<u64>()).prop_map(|(base, rate_ppm)| ExecutionFee { base, rate_ppm })
}

fn tier() -> impl Strategy<Value = NodeTier> {
    prop::sample::select(vec![NodeTier::Tier0, NodeTier::Tier1])
}

fn channel_type() -> impl Strategy<Value = OrderChannelType> {
    use OrderChannelType::*;
    prop::sample::select(vec![PeerDependent, ScriptEnforced, SimpleTaproot])
}

fn ask() -> impl Strategy<Value = OrderSide> {
    use {AnnouncementConstraint as A, ConfirmationConstraint as C};
    (
        prop::sample::select(vec![A::None, A::OnlyAnnounced, A::OnlyUnannounced]),
        prop::sample::select(vec![C::None, C::OnlyConfirmed, C::OnlyZeroConf]),
    )
        .prop_map(|(announcement, confirmation)| OrderSide::Ask(AskTerms { announcement, confirmation }))
}

fn bid() -> impl Strategy<Value = OrderSide> {
    (tier(), sats(), any::<[bool; 3]>()).prop_map(|(min_node_tier, self_balance, [sidecar, unannounced, zero_conf])| {
        OrderSide::Bid(BidTerms { min_node_tier, self_balance, sidecar, unannounced, zero_conf })
    })
}

fn order_of(side: impl Strategy<Value = OrderSide>, duration: BlockCount) -> impl Strategy<Value = SubmittedOrder> {
    use OrderVersion::*;
    let address = prop::sample::select(vec!["203.0.113.9:9735", "[2001:db8::1]:10", "a.onion:9735", "node.example:1"]);
    let terms = (
        nonce(),
        prop::sample::select(vec![V0, V1, V2, V3, V4, V5]),
        account_key(),
        prop::sample::select(vec![AuctionType::Inbound, AuctionType::Outbound]),
        any::<u32>(),
        sats(),
        any::<u32>(),
        any::<u64>(),
        channel_type(),
        vec(node(), 0..3),
        (vec(node(), 0..3), any::<bool>(), side),
    );
    let rest = (vec(any::<u8>(), 0..73), point(), node(), vec(address, 1..4));
    (terms, rest).prop_map(move |(terms, (signature, multisig, node, addresses))| {
        let (nonce, version, account, auction, rate, amount, units, fee, channel_type, allowed, rest) = terms;
        let (denied_nodes, public, side) = rest;
        let order = Order {
            nonce,
            version,
            account,
            auction,
            rate: RatePerBillion::new(rate),
            amount,
            min_units: UnitCount::new(units),
            duration,
            max_batch_fee_rate: SatPerKw::new(fee),
            channel_type,
            allowed_nodes: allowed,
            denied_nodes,
            public,
            side,
        };
        let addresses = addresses.into_iter().map(|address| NodeAddress(address.to_owned())).collect();
        SubmittedOrder { order, signature, multisig: MultisigKey::new(multisig), node, addresses }
    })
}

fn any_order() -> impl Strategy<Value = SubmittedOrder> {
    any::<u32>().prop_flat_map(|duration| order_of(prop_oneof![ask(), bid()], BlockCount::new(duration)))
}

fn matches(duration: BlockCount) -> impl Strategy<Value = Vec<Match>> {
    let matched = |order: SubmittedOrder, units| Match { order, units: UnitCount::new(units) };
    prop_oneof![
        vec((order_of(ask(), duration), 1..=u32::MAX), 1..3),
        vec((order_of(bid(), duration), 1..=u32::MAX), 1..3),
    ]
    .prop_map(move |list| list.into_iter().map(|(order, units)| matched(order, units)).collect())
}

fn matched_market(duration: u32) -> impl Strategy<Value = (BlockCount, MatchedMarket)> {
    let duration = BlockCount::new(duration);
    (any::<u32>(), btree_map(nonce(), matches(duration), 0..3)).prop_map(move |(price, orders)| {
        (duration, MatchedMarket { clearing_price: RatePerBillion::new(price), orders })
    })
}

fn diff() -> impl Strategy<Value = AccountDiff> {
    use EndingState::*;
    (
        account_key(),
        sats(),
        prop::sample::select(vec![Recreated, DustExtendedOffchain, DustAddedToFees, FullySpent]),
        option::of(0..=0x7fff_ffff_u32),
        option::of(1..=u32::MAX),
        any::<u32>(),
    )
        .prop_map(|(account, ending_balance, ending_state, output_index, expiry, new_version)| AccountDiff {
            account,
            ending_balance,
            ending_state,
            output_index,
            new_expiry: expiry.map(BlockHeight::new),
            new_version,
        })
}

fn prepare() -> impl Strategy<Value = Prepare> {
    (
        (batch_id(), any::<u32>(), any::<u32>(), any::<u64>(), execution_fee(), transaction()),
        (option::of(matched_market(2_016)), option::of(matched_market(4_032))),
        btree_map(account_key(), diff(), 0..3),
    )
        .prop_map(|((batch_id, version, hint, rate, execution_fee, transaction), (a, b), diffs)| Prepare {
            batch_id,
            batch_version: BatchVersion(version),
            height_hint: BlockHeight::new(hint),
            fee_rate: SatPerKw::new(rate),
            execution_fee,
            transaction,
            markets: a.into_iter().chain(b).collect(),
            accounts: diffs.into_iter().map(|(account, diff)| AccountDiff { account, ..diff }).collect(),
        })
}

fn sign_begin() -> impl Strategy<Value = SignBegin> {
    (batch_id(), btree_map(account_key(), public_nonce(), 0..3), vec(output(), 0..4)).prop_map(
        |(batch_id, server_nonces, prev_outputs)| SignBegin {
            batch_id: batch_id.serialize().to_vec(),
            server_nonces,
            prev_outputs,
        },
    )
}

fn account_signature() -> impl Strategy<Value = AccountSignature> {
    prop_oneof![
        vec(any::<u8>(), 0..73).prop_map(AccountSignature::Ecdsa),
        (any::<[u8; 32]>(), public_nonce())
            .prop_map(|(partial, nonce)| AccountSignature::Musig2 { partial: PartialSignature(partial), nonce }),
    ]
}

fn channel_info() -> impl Strategy<Value = ChannelInfo> {
    use ReportedChannelType::*;
    let types = vec![Tweakless, Anchors, ScriptEnforcedLease, SimpleTaproot];
    (prop::sample::select(types), node(), node(), point(), point()).prop_map(
        |(channel_type, local_node, remote_node, local_payment_point, remote_payment_point)| ChannelInfo {
            channel_type,
            local_node,
            remote_node,
            local_payment_point,
            remote_payment_point,
        },
    )
}

fn signatures() -> impl Strategy<Value = BatchSignatures> {
    (batch_id(), btree_map(account_key(), account_signature(), 0..3), btree_map(outpoint(), channel_info(), 0..3))
        .prop_map(|(batch_id, accounts, channels)| BatchSignatures { batch_id, accounts, channels })
}

fn reject() -> impl Strategy<Value = Reject> {
    use MatchRejectCode::*;
    let code = prop::sample::select(vec![DuplicatePeer, ChannelFundingFailed]);
    let reason = prop_oneof![
        Just(RejectReason::Unknown),
        Just(RejectReason::ServerMisbehavior),
        Just(RejectReason::BatchVersionMismatch),
        btree_map(nonce(), (code, ".{0,20}"), 0..3).prop_map(RejectReason::Partial),
    ];
    (vec(any::<u8>(), 0..40), ".{0,40}", reason).prop_map(|(batch_id, message, reason)| Reject {
        batch_id,
        message,
        reason,
    })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    prop_oneof![
        (any::<[u8; 32]>(), any::<u32>())
            .prop_map(|(hash, v)| ClientMessage::Commit { commit: CommitHash(hash), version: BatchVersion(v) }),
        (account_key(), any::<[u8; 32]>(), vec(any::<u8>(), 0..73))
            .prop_map(|(account, nonce, signature)| ClientMessage::Subscribe { account, nonce, signature }),
        batch_id().prop_map(|batch_id| ClientMessage::Accept { batch_id }),
        reject().prop_map(ClientMessage::Reject),
        signatures().prop_map(ClientMessage::Sign),
        account_key().prop_map(|account| ClientMessage::Recover { account }),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    use SubscribeErrorCode::*;
    let code = prop::sample::select(vec![Unknown, ServerShutdown, AccountDoesNotExist, IncompleteReservation]);
    prop_oneof![
        any::<[[u8; 32]; 2]>()
            .prop_map(|[a, b]| ServerMessage::Challenge { challenge: AuthChallenge(a), commit: CommitHash(b) }),
        account_key().prop_map(|account| ServerMessage::Success { account }),
        (option::of(account_key()), code, ".{0,40}").prop_map(|(account, code, message)| ServerMessage::Error {
            account,
            code,
            message
        }),
        prepare().prop_map(|prepare| ServerMessage::Prepare(Box::new(prepare))),
        (reservation(), keys(), any::<u32>(), ".{0,40}").prop_map(|(reservation, keys, hint, message)| {
            let height_hint = BlockHeight::new(hint);
            let reservation = Box::new(ReservedAccount { reservation, keys, height_hint });
            ServerMessage::Reserved { reservation, message }
        }),
        recovered().prop_map(|account| ServerMessage::Account(Box::new(account))),
        sign_begin().prop_map(|sign| ServerMessage::Sign(Box::new(sign))),
        (batch_id(), any::<[u8; 32]>()).prop_map(|(id, txid)| {
            let (batch_id, txid) = (id.serialize().to_vec(), Txid::from_byte_array(txid));
            ServerMessage::Finalize(Finalize { batch_id, txid })
        }),
    ]
}

fn keys() -> impl Strategy<Value = ReservedKeys> {
    (account_key(), batch_id())
        .prop_map(|(point, batch)| ReservedKeys { auctioneer: AuctioneerKey::new(*point.point()), batch })
}

fn recovered() -> impl Strategy<Value = RecoveredAccount> {
    use RecoveredState::*;
    let states = vec![PendingOpen, Open, Expired, PendingUpdate, Closed, PendingBatch, ExpiredPendingUpdate];
    let place = (any::<[u8; 32]>(), any::<u32>());
    let rest = (prop::sample::select(states), any::<u32>(), place, option::of(transaction()));
    (reservation(), keys(), rest).prop_map(|(reservation, keys, (state, hint, (txid, vout), latest_tx))| {
        let outpoint = OutPoint { txid: Txid::from_byte_array(txid), vout };
        RecoveredAccount { reservation, keys, state, height_hint: BlockHeight::new(hint), outpoint, latest_tx }
    })
}

fn reservation() -> impl Strategy<Value = Reservation> {
    (sats(), any::<u32>(), account_key(), version()).prop_map(|(value, expiry, trader, version)| Reservation {
        value,
        expiry: BlockHeight::new(expiry),
        trader,
        version,
    })
}

fn modify() -> impl Strategy<Value = ModifyAccount> {
    (
        account_key(),
        vec((outpoint(), script()), 0..3),
        vec(output(), 0..3),
        option::of((sats(), any::<u32>().prop_map(BlockHeight::new), version())),
        option::of(public_nonce()),
        vec(output(), 0..3),
    )
        .prop_map(|(account, new_inputs, new_outputs, new_params, trader_nonce, prev_outputs)| ModifyAccount {
            account,
            new_inputs,
            new_outputs,
            new_params,
            trader_nonce,
            prev_outputs,
        })
}

fn terms() -> impl Strategy<Value = Terms> {
    use DurationState::*;
    let state = prop::sample::select(vec![NoMarket, Closed, AcceptingOrders, Open]);
    let durations = btree_map(any::<u32>().prop_map(BlockCount::new), state, 0..5);
    (sats(), execution_fee(), durations, any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
        |(max_account_value, execution_fee, durations, rate, next_clear_time, renew)| Terms {
            max_account_value,
            execution_fee,
            durations,
            next_batch_fee_rate: SatPerKw::new(rate),
            next_clear_time,
            auto_renew_blocks: BlockCount::new(renew),
        },
    )
}

fn snapshot() -> impl Strategy<Value = BatchSnapshot> {
    let matched = (any::<u32>(), any::<u32>(), 1..=u32::MAX, channel_type()).prop_map(|(ask, bid, units, kind)| {
        let (ask_rate, bid_rate) = (RatePerBillion::new(ask), RatePerBillion::new(bid));
        SnapshotMatch { ask_rate, bid_rate, units: UnitCount::new(units), channel_type: kind }
    });
    let market = (any::<u32>().prop_map(RatePerBillion::new), vec(matched, 0..3));
    let markets = btree_map(any::<u32>().prop_map(BlockCount::new), market, 0..3);
    (batch_id(), option::of(batch_id()), transaction(), any::<u64>(), any::<u64>(), markets).prop_map(
        |(batch_id, previous, transaction, rate, created_ns, markets)| BatchSnapshot {
            batch_id,
            previous,
            transaction,
            fee_rate: SatPerKw::new(rate),
            created_ns,
            markets,
        },
    )
}

fn interest() -> impl Strategy<Value = Interest> {
    any::<[u32; 4]>().prop_map(|[orders_tier0, orders_tier1, units_tier0, units_tier1]| Interest {
        orders_tier0,
        orders_tier1,
        units_tier0,
        units_tier1,
    })
}

proptest! {
    #![proptest_config(always(64))]

    #[test]
    fn orders(plain in any_order(), agent in "[a-z/=.,]{0,40}") {
        let wire = sent(order::to_submit_request(&plain, &agent));
        prop_assert_eq!(order::from_submit_request(wire), Ok((plain, agent)));
    }

    #[test]
    fn client_messages(plain in client_message()) {
        prop_assert_eq!(stream::from_client_message(sent(stream::to_client_message(&plain))), Ok(plain));
    }

    #[test]
    fn server_messages(plain in server_message()) {
        let wire = stream::to_server_message(&plain).expect("can be sent");
        prop_assert_eq!(stream::from_server_message(sent(wire)), Ok(plain));
    }

    #[test]
    fn reservations(plain in reservation(), keys in (point(), point())) {
        prop_assert_eq!(account::from_reserve_request(&sent(account::to_reserve_request(&plain))), Ok(plain));
        let keys = ReservedKeys { auctioneer: AuctioneerKey::new(keys.0), batch: BatchKey::new(keys.1) };
        prop_assert_eq!(account::from_reserve_response(&sent(account::to_reserve_response(&keys))), Ok(keys));
    }

    #[test]
    fn announcements(reservation in reservation(), outpoint in outpoint(), script in script()) {
        let plain = InitAccount { reservation, outpoint, script };
        let wire = sent(account::to_init_request(&plain, "agent"));
        prop_assert_eq!(account::from_init_request(wire), Ok((plain, "agent".to_owned())));
    }

    #[test]
    fn modifications(plain in modify(), nonce in option::of(public_nonce()), sig in vec(any::<u8>(), 32)) {
        prop_assert_eq!(account::from_modify_request(sent(account::to_modify_request(&plain))), Ok(plain));
        let half = ModifySignature { signature: sig, server_nonce: nonce };
        prop_assert_eq!(account::from_modify_response(sent(account::to_modify_response(&half))), Ok(half));
    }

    #[test]
    fn terms_of_a_venue(plain in terms()) {
        prop_assert_eq!(market::from_terms(&sent(market::to_terms(&plain, 6))), Ok(plain));
    }

    #[test]
    fn snapshots(plain in vec(snapshot(), 0..3)) {
        prop_assert_eq!(market::from_snapshots(&sent(market::to_snapshots(&plain))), Ok(plain));
    }

    #[test]
    fn open_interest(plain in btree_map(any::<u32>().prop_map(BlockCount::new), (interest(), interest()), 0..3)) {
        let plain: BTreeMap<_, _> =
            plain.into_iter().map(|(d, (asks, bids))| (d, MarketInterest { asks, bids })).collect();
        prop_assert_eq!(market::from_market_info(&sent(market::to_market_info(&plain))), Ok(plain));
    }

    #[test]
    fn ratings(plain in vec((node(), tier()), 0..5)) {
        let asked: Vec<_> = plain.iter().map(|(node, _)| *node).collect();
        let request = sent(market::to_ratings_request(&asked));
        prop_assert_eq!(market::from_ratings_request(&request), Ok(asked.clone()));
        prop_assert_eq!(market::from_ratings(&asked, &sent(market::to_ratings(&plain))), Ok(plain));
    }

    #[test]
    fn small_requests(nonce in nonce(), secret in any::<[u8; 32]>(), id in option::of(batch_id()), n in 1..=100_u32) {
        prop_assert_eq!(order::from_state_request(&sent(order::to_state_request(nonce))), Ok(nonce));
        let preimage = OrderPreimage::new(secret);
        prop_assert_eq!(order::from_cancel_request(&sent(order::to_cancel_request(&preimage))), Ok(preimage));
        prop_assert_eq!(market::from_snapshot_request(&sent(market::to_snapshot_request(id))), Ok(id));
        prop_assert_eq!(market::from_snapshots_request(&sent(market::to_snapshots_request(id, n))), Ok((id, n)));
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let client = poolrpc::ClientAuctionMessage::decode(bytes.as_slice()).map(stream::from_client_message);
        let server = poolrpc::ServerAuctionMessage::decode(bytes.as_slice()).map(stream::from_server_message);
        let submit = poolrpc::ServerSubmitOrderRequest::decode(bytes.as_slice()).map(order::from_submit_request);
        let modify = poolrpc::ServerModifyAccountRequest::decode(bytes.as_slice()).map(account::from_modify_request);
        let snapshot = poolrpc::BatchSnapshotResponse::decode(bytes.as_slice()).map(|m| market::from_snapshot(&m));
        // Random bytes name no point of the curve in the right field: nothing of this may mean anything.
        prop_assert!(!matches!(submit, Ok(Ok(_))) && !matches!(modify, Ok(Ok(_))) && !matches!(snapshot, Ok(Ok(_))));
        prop_assert!(!matches!(client, Ok(Ok(ClientMessage::Sign(_)))));
        prop_assert!(!matches!(server, Ok(Ok(ServerMessage::Prepare(_)))));
    }
}

#[test]
fn every_order_state_and_submission_comes_back() {
    use OrderState::*;
    for (number, state) in
        [Submitted, Cleared, PartiallyFilled, Executed, Canceled, Expired, Failed].into_iter().enumerate()
    {
        let wire = sent(order::to_state_response(state, UnitCount::new(7)));
        assert_eq!(usize::try_from(wire.state), Ok(number));
        assert_eq!(order::from_state_response(&wire), Ok((state, UnitCount::new(7))));
    }
    let nonce = OrderNonce::new([7; 32]);
    for plain in [Submission::Accepted, Submission::Invalid { reason: "too much".to_owned() }] {
        assert_eq!(order::from_submit_response(sent(order::to_submit_response(nonce, &plain))), Ok(plain));
    }
}

#[test]
fn messages_without_a_known_variant_are_errors() {
    let client = stream::from_client_message(poolrpc::ClientAuctionMessage::default());
    assert_eq!(client, Err(DecodeError::Missing { field: "ClientAuctionMessage.msg" }));
    let server = stream::from_server_message(poolrpc::ServerAuctionMessage::default());
    assert_eq!(server, Err(DecodeError::Missing { field: "ServerAuctionMessage.msg" }));
    let recover = poolrpc::client_auction_message::Msg::Recover(poolrpc::AccountRecovery::default());
    let client = stream::from_client_message(poolrpc::ClientAuctionMessage { msg: Some(recover) });
    assert!(matches!(client, Err(DecodeError::Length { field: "AccountRecovery.trader_key", .. })), "{client:?}");
}

#[test]
fn a_malformed_message_is_not_sent() {
    let message = ServerMessage::Malformed { batch_id: vec![1], reason: "x".to_owned() };
    assert_eq!(stream::to_server_message(&message), Err(EncodeError::Malformed));
}

#[test]
#[allow(deprecated)]
fn deprecated_fields_repeat_the_market_of_2016_blocks() {
    let open = |blocks| (BlockCount::new(blocks), DurationState::Open);
    let terms = Terms {
        max_account_value: Sats::constant(1_000_000),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        durations: BTreeMap::from([open(2_016), (BlockCount::new(4_032), DurationState::Closed)]),
        next_batch_fee_rate: SatPerKw::FLOOR,
        next_clear_time: 5,
        auto_renew_blocks: BlockCount::new(3_024),
    };
    let wire = market::to_terms(&terms, 6);
    assert_eq!(wire.lease_durations, BTreeMap::from([(2_016, true), (4_032, false)]));
    assert_eq!((wire.max_order_duration_blocks, wire.next_batch_conf_target), (52_560, 6));

    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn::default()],
        output: vec![],
    };
    let id = BatchId::new(fixed_key(3));
    let of = |price| MatchedMarket { clearing_price: RatePerBillion::new(price), orders: BTreeMap::new() };
    let prepare = Prepare {
        batch_id: id,
        batch_version: BatchVersion(58),
        height_hint: BlockHeight::new(9),
        fee_rate: SatPerKw::FLOOR,
        execution_fee: terms.execution_fee,
        transaction,
        markets: BTreeMap::from([(BlockCount::new(2_016), of(11)), (BlockCount::new(4_032), of(22))]),
        accounts: vec![],
    };
    assert_eq!(batch::to_prepare(&prepare).map(|wire| wire.clearing_price_rate), Ok(11));
}

/// A fixed key of the curve.
fn fixed_key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).expect("a key").public_key(&Secp256k1::signing_only())
}

#[test]
fn txids_travel_in_internal_order_and_channel_keys_as_displayed() {
    let mut bytes = [0; 32];
    bytes[0] = 0xab;
    let channel = OutPoint { txid: Txid::from_byte_array(bytes), vout: 3 };
    let wire = batch::to_finalize(&Finalize { batch_id: vec![2; 33], txid: channel.txid });
    assert_eq!(wire.batch_txid[0], 0xab);

    let key = fixed_key(5);
    let info = ChannelInfo {
        channel_type: ReportedChannelType::Anchors,
        local_node: NodeId::new(key),
        remote_node: NodeId::new(key),
        local_payment_point: key,
        remote_payment_point: key,
    };
    let signatures = BatchSignatures {
        batch_id: BatchId::new(key),
        accounts: BTreeMap::new(),
        channels: BTreeMap::from([(channel, info)]),
    };
    let wire = batch::to_signatures(&signatures);
    assert_eq!(wire.channel_infos.keys().collect::<Vec<_>>(), [&format!("{}ab:3", "00".repeat(31))]);
}

#[test]
fn nonces_without_a_signature_are_refused() {
    let key = fixed_key(5);
    let partial = AccountSignature::Musig2 {
        partial: PartialSignature([1; 32]),
        nonce: PublicNonce([key.serialize(), key.serialize()].concat().try_into().expect("66")),
    };
    let plain = BatchSignatures {
        batch_id: BatchId::new(key),
        accounts: BTreeMap::from([(AccountKey::new(key), partial)]),
        channels: BTreeMap::new(),
    };
    let wire = batch::to_signatures(&plain);
    let mut alone = wire.clone();
    alone.account_sigs.clear();
    assert_eq!(batch::from_signatures(alone), Err(DecodeError::Missing { field: "OrderMatchSign.account_sigs" }));
    let mut long = wire;
    long.account_sigs.values_mut().for_each(|sig| sig.push(1));
    let length = DecodeError::Length { field: "OrderMatchSign.account_sigs", expected: 32, found: 33 };
    assert_eq!(batch::from_signatures(long), Err(length));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let request = |n| market::from_snapshots_request(&market::to_snapshots_request(None, n));
    assert!(request(1).is_ok() && request(100).is_ok());
    assert!(matches!(request(0), Err(DecodeError::OutOfRange { lowest: 1, highest: 100, found: 0, .. })));
    assert!(matches!(request(101), Err(DecodeError::OutOfRange { found: 101, .. })));

    let key = fixed_key(5);
    let mut reserve = account::to_reserve_request(&Reservation {
        value: Sats::MAX,
        expiry: BlockHeight::new(1),
        trader: AccountKey::new(key),
        version: AccountVersion::V2,
    });
    assert!(account::from_reserve_request(&reserve).is_ok());
    reserve.version = 3;
    assert!(matches!(account::from_reserve_request(&reserve), Err(DecodeError::UnknownNumber { found: 3, .. })));
    reserve.account_value += 1;
    assert!(matches!(account::from_reserve_request(&reserve), Err(DecodeError::OutOfRange { .. })));
    reserve.trader_key = key.serialize_uncompressed().to_vec();
    reserve.account_value = 1;
    assert!(matches!(
        account::from_reserve_request(&reserve),
        Err(DecodeError::Length { expected: 33, found: 65, .. })
    ));
}
