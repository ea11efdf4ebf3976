use super::*;
use crate::poolrpc::{self, submit_order_request};
use crate::tidegate::v1;
use proptest::prelude::*;
use serde_json::{Value, json};

fn decoded<M: prost::Message + Default>(message: &str, json: &Value) -> M {
    let bytes = Interface::new().encode(message, json).expect("it is one");
    M::decode(bytes.as_slice()).expect("encoded as protocol buffers are")
}

fn order() -> (poolrpc::SubmitOrderRequest, Value) {
    let details = poolrpc::Order {
        trader_key: vec![2, 0xfb, 0xff],
        rate_fixed: 1_488,
        amt: u64::MAX,
        allowed_node_ids: vec![vec![3], vec![]],
        channel_type: 2,
        is_public: true,
        events: vec![poolrpc::OrderEvent {
            timestamp_ns: -5,
            event_str: "OrderCreated".to_owned(),
            event: Some(poolrpc::order_event::Event::Matched(poolrpc::MatchEvent::default())),
        }],
        ..Default::default()
    };
    let bid = poolrpc::Bid { details: Some(details), min_node_tier: 2, version: 5, ..Default::default() };
    let request = poolrpc::SubmitOrderRequest {
        details: Some(submit_order_request::Details::Bid(bid)),
        initiator: "a \"person\"".to_owned(),
    };
    let json = json!({
        "initiator": "a \"person\"",
        "bid": {
            "details": {
                "trader_key": "Avv/",
                "rate_fixed": 1488,
                "amt": "18446744073709551615",
                "max_batch_fee_rate_sat_per_kw": "0",
                "order_nonce": "",
                "state": "ORDER_SUBMITTED",
                "units": 0,
                "units_unfulfilled": 0,
                "reserved_value_sat": "0",
                "creation_timestamp_ns": "0",
                "events": [{
                    "timestamp_ns": "-5",
                    "event_str": "OrderCreated",
                    "matched": {
                        "match_state": "PREPARE", "units_filled": 0, "matched_order": "", "reject_reason": "NONE"
                    },
                }],
                "min_units_match": 0,
                "channel_type": "ORDER_CHANNEL_TYPE_SCRIPT_ENFORCED",
                "allowed_node_ids": ["Aw==", ""],
                "not_allowed_node_ids": [],
                "auction_type": "AUCTION_TYPE_BTC_INBOUND_LIQUIDITY",
                "is_public": true,
            },
            "lease_duration_blocks": 0,
            "version": 5,
            "min_node_tier": "TIER_1",
            "self_chan_balance": "0",
            "sidecar_ticket": "",
            "unannounced_channel": false,
            "zero_conf_channel": false,
        },
    });
    (request, json)
}

#[test]
fn a_message_is_written_with_every_field_and_read_back() {
    let (request, json) = order();
    let written = Interface::new().decode("poolrpc.SubmitOrderRequest", &request.encode_to_vec());
    assert_eq!(written.expect("a message"), json);
    assert_eq!(decoded::<poolrpc::SubmitOrderRequest>("poolrpc.SubmitOrderRequest", &json), request);
}

#[test]
fn maps_messages_that_are_not_there_and_negative_numbers_are_written() {
    let market = poolrpc::MarketInfo::default();
    let info = poolrpc::GetInfoResponse { market_info: [(2_016, market)].into(), ..Default::default() };
    let written = Interface::new().decode("poolrpc.GetInfoResponse", &info.encode_to_vec()).expect("a message");
    assert_eq!(written["node_rating"], Value::Null);
    assert!(written["market_info"]["2016"].is_object(), "{written}");
    assert_eq!(decoded::<poolrpc::GetInfoResponse>("poolrpc.GetInfoResponse", &written), info);
    let account = v1::LedgerAccount { name: "wallet".to_owned(), balance_sat: -7 };
    let written = Interface::new().decode("tidegate.v1.LedgerAccount", &account.encode_to_vec()).expect("a message");
    assert_eq!(written, json!({ "name": "wallet", "balance_sat": "-7" }));
    assert_eq!(decoded::<v1::LedgerAccount>("tidegate.v1.LedgerAccount", &written), account);
    let quote = poolrpc::QuoteOrderResponse { rate_per_block: 0.25, ..Default::default() };
    let written = Interface::new().decode("poolrpc.QuoteOrderResponse", &quote.encode_to_vec()).expect("a message");
    assert_eq!((&written["rate_per_block"], &written["rate_percent"]), (&json!(0.25), &json!(0.0)));
}

#[test]
fn other_ways_to_write_the_same_are_read() {
    let same = [
        json!({ "traderKey": "Avv/", "amountSat": 7, "newVersion": 2 }),
        json!({ "trader_key": "Avv_", "amount_sat": "7", "new_version": "ACCOUNT_VERSION_TAPROOT" }),
        json!({ "trader_key": "Avv/", "amount_sat": "7", "new_version": "2", "absolute_expiry": null }),
    ];
    let expected = poolrpc::DepositAccountRequest {
        trader_key: vec![2, 0xfb, 0xff],
        amount_sat: 7,
        new_version: 2,
        ..Default::default()
    };
    for json in same {
        let found: poolrpc::DepositAccountRequest = decoded("poolrpc.DepositAccountRequest", &json);
        assert_eq!(found, expected, "{json}");
    }
}

#[test]
fn what_means_nothing_is_refused_with_the_name_of_the_field() {
    let deposit = "poolrpc.DepositAccountRequest";
    let rows = [
        (deposit, json!([]), "DepositAccountRequest: expected an object, found []"),
        (deposit, json!({ "amount": 1 }), "DepositAccountRequest has no field \"amount\""),
        (
            deposit,
            json!({ "amount_sat": -1 }),
            "DepositAccountRequest.amount_sat: expected a number of 64 bits, found -1",
        ),
        (deposit, json!({ "amount_sat": 1.5 }), "DepositAccountRequest.amount_sat: expected a number of 64 bits"),
        (deposit, json!({ "amount_sat": true }), "DepositAccountRequest.amount_sat: expected a number of 64 bits"),
        (deposit, json!({ "trader_key": "*" }), "DepositAccountRequest.trader_key: expected bytes in base64, found *"),
        (deposit, json!({ "trader_key": 5 }), "DepositAccountRequest.trader_key: expected text, found 5"),
        (deposit, json!({ "new_version": "V9" }), "DepositAccountRequest.new_version: expected one of the names"),
        (deposit, json!({ "trader_key": "", "traderKey": "" }), "DepositAccountRequest.trader_key is given twice"),
        (deposit, json!({ "absolute_expiry": 4_294_967_296_u64 }), "absolute_expiry: expected a number of 32 bits"),
        ("poolrpc.LeasesRequest", json!({ "accounts": "Aw==" }), "LeasesRequest.accounts: expected a list"),
        ("poolrpc.ListOrdersRequest", json!({ "verbose": "yes" }), "ListOrdersRequest.verbose: expected true or false"),
        ("poolrpc.Nothing", json!({}), "there is no message poolrpc.Nothing"),
    ];
    for (message, json, words) in rows {
        let refusal = Interface::new().encode(message, &json).expect_err(words).to_string();
        assert!(refusal.contains(words), "`{words}` is missing in: {refusal}");
    }
}

#[test]
fn query_parameters_name_fields_also_of_messages_inside() {
    let interface = Interface::new();
    let close = "poolrpc.CloseAccountRequest";
    let parameters =
        [("trader_key", "Avv_"), ("output_with_fee.address", "bcrt1q"), ("output_with_fee.fee_rate_sat_per_kw", "253")];
    let json = interface.query(close, parameters).expect("fields");
    let found: poolrpc::CloseAccountRequest = decoded(close, &json);
    let expected = poolrpc::OutputWithFee {
        address: "bcrt1q".to_owned(),
        fees: Some(poolrpc::output_with_fee::Fees::FeeRateSatPerKw(253)),
    };
    let expected = poolrpc::close_account_request::FundsDestination::OutputWithFee(expected);
    assert_eq!((found.trader_key, found.funds_destination), (vec![2, 0xfb, 0xff], Some(expected)));
    let leases = interface.query("poolrpc.LeasesRequest", [("accounts", "Ag=="), ("accounts", "Aw==")]);
    let found: poolrpc::LeasesRequest = decoded("poolrpc.LeasesRequest", &leases.expect("fields"));
    assert_eq!(found.accounts, [[2], [3]]);
    let orders = interface.query("poolrpc.ListOrdersRequest", [("verbose", "true"), ("active_only", "false")]);
    assert_eq!(orders.expect("fields"), json!({ "verbose": true, "active_only": false }));
    let rows = [
        (close, vec![("trader_key", "Ag=="), ("trader_key", "Aw==")], "CloseAccountRequest.trader_key is given twice"),
        (close, vec![("nothing", "")], "CloseAccountRequest has no field \"nothing\""),
        (close, vec![("trader_key.x", "")], "CloseAccountRequest.trader_key has no field"),
        (
            close,
            vec![("output_with_fee", "")],
            "CloseAccountRequest.output_with_fee: expected the name of a field in it",
        ),
        (close, vec![("outputs.outputs", "")], "OutputsWithImplicitFee.outputs: expected the name of a field in it"),
    ];
    for (message, parameters, words) in rows {
        let refusal = interface.query(message, parameters).expect_err(words).to_string();
        assert!(refusal.contains(words), "`{words}` is missing in: {refusal}");
    }
}

#[test]
fn calls_are_known_by_their_paths() {
    let interface = Interface::new();
    let method = interface.method("/poolrpc.Trader/InitAccount").expect("known");
    assert_eq!((method.request.as_str(), method.response.as_str()), ("poolrpc.InitAccountRequest", "poolrpc.Account"));
    assert_eq!(interface.method("/poolrpc.Trader/Nothing"), None);
    let expected = ["Decisions", "Ledger", "Limits", "ReplaceOrder", "Resume", "Status", "Stop"];
    assert_eq!(interface.methods("tidegate.v1.Agent").collect::<Vec<_>>(), expected);
}

static INTERFACE: std::sync::LazyLock<Interface> = std::sync::LazyLock::new(Interface::new);

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let interface = &*INTERFACE;
        for message in ["poolrpc.SubmitOrderRequest", "poolrpc.GetInfoResponse", "tidegate.v1.StatusResponse"] {
            // What is read can be written again.
            if let Ok(json) = interface.decode(message, &bytes) {
                prop_assert!(interface.encode(message, &json).is_ok(), "{json}");
            }
        }
    }
}
