//! What is refused, with a sentence that names the field or the limit.

use super::bench::{Client, Market, ask, bid, details, limits, new_account, open_account, submit};
use tidegate_engine::gate::Limits;
use tidegate_protocol::units::Sats;
use tidegate_wire::poolrpc as rpc;
use tonic::{Code, Status};

fn assert_refused<T: std::fmt::Debug>(name: &str, answer: Result<T, Status>, code: Code, words: &[&str]) {
    let status = answer.expect_err(name);
    assert_eq!(status.code(), code, "{name}: {status:?}");
    for word in words {
        assert!(status.message().contains(word), "{name}: `{word}` is missing in: {}", status.message());
    }
}

/// A key that nobody here has.
fn generator(sign: u8) -> Vec<u8> {
    let point = format!("0{sign}79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
    point.parse::<bitcoin::secp256k1::PublicKey>().expect("the generator").serialize().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_of_accounts_are_named() {
    use rpc::init_account_request::{AccountExpiry, Fees};
    let market = Market::open(21).await;
    let mut client = market.agent("anna", limits()).await.client().await;
    let good = new_account(1_000_000);
    let rows = [
        ("too many", rpc::InitAccountRequest { account_value: u64::MAX, ..good.clone() }, "account_value"),
        ("no expiry", rpc::InitAccountRequest { account_expiry: None, ..good.clone() }, "relative_height is missing"),
        ("no fee", rpc::InitAccountRequest { fees: None, ..good.clone() }, "fee_rate_sat_per_kw is missing"),
        ("no version", rpc::InitAccountRequest { version: 4, ..good.clone() }, "version"),
        ("no target", rpc::InitAccountRequest { fees: Some(Fees::ConfTarget(0)), ..good.clone() }, "at least 1 block"),
    ];
    for (name, request, words) in rows {
        assert_refused(name, client.init_account(request).await, Code::InvalidArgument, &[words]);
    }
    let low = rpc::InitAccountRequest { fees: Some(Fees::FeeRateSatPerKw(252)), ..good.clone() };
    assert_refused("fee rate", client.init_account(low).await, Code::FailedPrecondition, &["below the floor of 253"]);
    for expiry in [AccountExpiry::RelativeHeight(143), AccountExpiry::AbsoluteHeight(1)] {
        let request = rpc::InitAccountRequest { account_expiry: Some(expiry), ..good.clone() };
        assert_refused("expiry", client.init_account(request).await, Code::FailedPrecondition, &["expiry", "144"]);
    }
    let small = client.init_account(new_account(99_999)).await;
    assert_refused("value", small, Code::FailedPrecondition, &["refused by the limits", "99999", "100000"]);
    bad_fields_of_changes(&mut client).await;
}

async fn bad_fields_of_changes(client: &mut Client) {
    use rpc::close_account_request::FundsDestination;
    let key = [2; 33];
    let stranger = generator(2);
    let argument = Code::InvalidArgument;
    let deposit = rpc::DepositAccountRequest { trader_key: key[..32].to_vec(), ..Default::default() };
    assert_refused("key", client.deposit_account(deposit).await, argument, &["trader_key", "33", "32"]);
    let deposit = rpc::DepositAccountRequest { trader_key: stranger.clone(), amount_sat: 5, ..Default::default() };
    let answer = client.deposit_account(deposit).await;
    assert_refused("stranger", answer, Code::FailedPrecondition, &["is not ours or not known"]);
    let withdraw = rpc::WithdrawAccountRequest { trader_key: stranger.clone(), ..Default::default() };
    let answer = client.withdraw_account(withdraw.clone()).await;
    assert_refused("no outputs", answer, argument, &["outputs is missing"]);
    for (address, words) in [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "not an address of regtest"),
        ("nowhere\u{7}", "not an address"),
    ] {
        let output = rpc::Output { value_sat: 1_000, address: address.to_owned() };
        let request = rpc::WithdrawAccountRequest { outputs: vec![output], ..withdraw.clone() };
        let status = client.withdraw_account(request).await;
        assert!(!status.as_ref().expect_err("refused").message().contains('\u{7}'));
        assert_refused(address, status, argument, &["Output.address", words]);
    }
    let renew = rpc::RenewAccountRequest { account_key: stranger.clone(), ..Default::default() };
    assert_refused("no expiry", client.renew_account(renew).await, argument, &["relative_expiry is missing"]);
    let bump = rpc::BumpAccountFeeRequest { trader_key: stranger.clone(), fee_rate_sat_per_kw: 500 };
    assert_refused("bump", client.bump_account_fee(bump).await, Code::FailedPrecondition, &["not ours"]);
    let close = |to| rpc::CloseAccountRequest { trader_key: stranger.clone(), funds_destination: to };
    assert_refused("nowhere", client.close_account(close(None)).await, argument, &["output_with_fee", "missing"]);
    let no_fee = FundsDestination::OutputWithFee(rpc::OutputWithFee::default());
    assert_refused("no fee", client.close_account(close(Some(no_fee))).await, argument, &["conf_target", "missing"]);
    let nothing = FundsDestination::Outputs(rpc::OutputsWithImplicitFee::default());
    assert_refused("no outputs", client.close_account(close(Some(nothing))).await, argument, &["outputs is missing"]);
    let quote = rpc::QuoteAccountRequest { account_value: 1_000_000, fees: None };
    assert_refused("no target", client.quote_account(quote).await, argument, &["conf_target is missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_of_orders_are_named() {
    use rpc::submit_order_request::Details;
    let market = Market::open(22).await;
    let mut client = market.agent("anna", limits()).await.client().await;
    let key = open_account(&market, &mut client, 1_000_000).await.trader_key;
    let good = details(&key, 2_000, 500_000);
    let order = |change: fn(&mut rpc::Order)| {
        let mut details = good.clone();
        change(&mut details);
        details
    };
    let argument = Code::InvalidArgument;
    let rows: [(&str, rpc::Order, &[&str]); 9] = [
        ("amount", order(|order| order.amt = 150_000), &["Order.amt", "multiple of 100,000"]),
        ("minimum", order(|order| order.min_units_match = 0), &["Order.min_units_match", "1 to"]),
        ("account", order(|order| order.trader_key.clear()), &["Order.trader_key", "33"]),
        ("nonce", order(|order| order.order_nonce = vec![1; 32]), &["order nonce", "not supported"]),
        ("channel type", order(|order| order.channel_type = 9), &["Order.channel_type", "9"]),
        ("market", order(|order| order.auction_type = 7), &["Order.auction_type", "7"]),
        ("allowed", order(|order| order.allowed_node_ids = vec![vec![0; 33]]), &["Order.allowed_node_ids"]),
        ("denied", order(|order| order.not_allowed_node_ids = vec![vec![1]]), &["Order.not_allowed_node_ids"]),
        ("too much", order(|order| order.amt = u64::MAX), &["Order.amt"]),
    ];
    for (name, details, words) in rows {
        assert_refused(name, client.submit_order(ask(details)).await, argument, words);
    }
    let nothing = rpc::SubmitOrderRequest::default();
    assert_refused("nothing", client.submit_order(nothing).await, argument, &["SubmitOrderRequest.bid is missing"]);
    let old = rpc::Ask { details: Some(good.clone()), lease_duration_blocks: 2_016, version: 4, ..Default::default() };
    let answer = client.submit_order(submit(Details::Ask(old))).await;
    assert_refused("version", answer, argument, &["Ask.version", "expected 5 to 5, found 4"]);
    let tickets = rpc::Bid { details: Some(good.clone()), sidecar_ticket: "sidecar1".to_owned(), ..Default::default() };
    let answer = client.submit_order(submit(Details::Bid(tickets))).await;
    assert_refused("ticket", answer, argument, &["sidecar ticket", "not supported"]);
    let nonce = rpc::CancelOrderRequest { order_nonce: vec![1; 31] };
    assert_refused("nonce", client.cancel_order(nonce).await, argument, &["order_nonce", "32", "31"]);
    let nonce = rpc::CancelOrderRequest { order_nonce: vec![1; 32] };
    assert_refused("stranger", client.cancel_order(nonce).await, Code::NotFound, &["is unknown"]);
    bad_questions(&mut client).await;
}

async fn bad_questions(client: &mut Client) {
    let argument = Code::InvalidArgument;
    let quote = rpc::QuoteOrderRequest { amt: 1_000_000, ..Default::default() };
    assert_refused("quote", client.quote_order(quote).await, argument, &["min_units_match"]);
    let ratings = rpc::NodeRatingRequest::default();
    assert_refused("ratings", client.node_ratings(ratings).await, argument, &["node_pubkeys is missing"]);
    let leases = rpc::LeasesRequest { batch_ids: vec![vec![1; 32]], accounts: Vec::new() };
    assert_refused("leases", client.leases(leases).await, argument, &["LeasesRequest.batch_ids"]);
    let snapshot = rpc::BatchSnapshotRequest { batch_id: vec![2; 12] };
    assert_refused("snapshot", client.batch_snapshot(snapshot).await, argument, &["batch_id"]);
    let answer = client.batch_snapshot(rpc::BatchSnapshotRequest { batch_id: generator(3) }).await;
    assert_refused("no batch", answer, Code::NotFound, &["no final batch"]);
    let snapshots = rpc::BatchSnapshotsRequest { start_batch_id: Vec::new(), num_batches_back: 101 };
    assert_refused("snapshots", client.batch_snapshots(snapshots).await, argument, &["num_batches_back", "100"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_orders_pass_the_same_limits() {
    let market = Market::open(23).await;
    let tight = Limits {
        max_order_sats: Sats::constant(500_000),
        max_daily_cost_sats: Sats::constant(50_000),
        max_account_sats: Sats::constant(3_000_000),
        ..limits()
    };
    let mut client = market.agent("anna", tight).await.client().await;
    let answer = client.init_account(new_account(3_000_001)).await;
    assert_refused("account", answer, Code::FailedPrecondition, &["refused by the limits of this agent", "3000001"]);
    let key = open_account(&market, &mut client, 2_000_000).await.trader_key;
    let precondition = Code::FailedPrecondition;
    let large = client.submit_order(ask(details(&key, 2_000, 600_000))).await;
    assert_refused("size", large, precondition, &["exceeds the limit of 500000 sat per order"]);
    let dear = client.submit_order(bid(details(&key, 20_001, 100_000))).await;
    assert_refused("rate", dear, precondition, &["rate", "20001"]);
    let mut hasty = details(&key, 2_000, 100_000);
    hasty.max_batch_fee_rate_sat_per_kw = 25_001;
    assert_refused("fee", client.submit_order(ask(hasty)).await, precondition, &["batch fee rate", "25000"]);
    let daily = client.submit_order(bid(details(&key, 15_000, 500_000))).await;
    assert_refused("day", daily, precondition, &["within 24 hours", "50000"]);
    // An outbound bid's own coins bear premium and fees too: 1 + 9 units.
    let mut outbound = details(&key, 2_000, 100_000);
    outbound.auction_type = i32::from(rpc::AuctionType::BtcOutboundLiquidity);
    let outbound = rpc::Bid {
        details: Some(outbound),
        lease_duration_blocks: 2_016,
        version: 5,
        self_chan_balance: 900_000,
        ..Default::default()
    };
    let answer = client.submit_order(submit(rpc::submit_order_request::Details::Bid(outbound))).await;
    assert_refused("outbound", answer, precondition, &["1000000 sat exceeds the limit of 500000 sat"]);
    let mut modest = details(&key, 2_000, 500_000);
    modest.max_batch_fee_rate_sat_per_kw = 2_500;
    client.submit_order(ask(modest)).await.expect("within all limits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_places_nothing_for_anybody() {
    let market = Market::open(24).await;
    let mut client = market.agent("anna", Limits { dry_run: true, ..limits() }).await.client().await;
    let answer = client.init_account(new_account(1_000_000)).await;
    assert_refused("dry run", answer, Code::FailedPrecondition, &["dry run: nothing is placed"]);
    let list = client.list_accounts(rpc::ListAccountsRequest::default()).await.expect("listed").into_inner();
    assert!(list.accounts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_nothing_is_done_and_the_agent_ends() {
    let market = Market::open(26).await;
    let agent = market.agent("anna", limits()).await;
    let mut client = agent.client().await;
    agent.journal.close().await;
    let answer = client.init_account(new_account(1_000_000)).await;
    assert_refused("journal", answer, Code::Unavailable, &["the journal can not be written"]);
    let ended = agent.deciding.await.expect("no panic").expect_err("it can not go on");
    assert!(format!("{ended:#}").contains("no decision without a journal"), "{ended:#}");
    let list = client.list_accounts(rpc::ListAccountsRequest::default()).await.expect("listed").into_inner();
    assert!(list.accounts.is_empty());
    let answer = client.init_account(new_account(1_000_000)).await;
    assert_refused("nobody decides", answer, Code::Unavailable, &["not running"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_yet_says_so() {
    let market = Market::open(25).await;
    let mut client = market.agent("anna", limits()).await.client().await;
    let (code, later) = (Code::Unimplemented, "not served in this version");
    assert_refused("recover", client.recover_accounts(rpc::RecoverAccountsRequest::default()).await, code, &[later]);
    assert_refused("offer", client.offer_sidecar(rpc::OfferSidecarRequest::default()).await, code, &[later]);
    assert_refused("register", client.register_sidecar(rpc::RegisterSidecarRequest::default()).await, code, &[later]);
    let expect = client.expect_sidecar_channel(rpc::ExpectSidecarChannelRequest::default()).await;
    assert_refused("expect", expect, code, &[later]);
    assert_refused("decode", client.decode_sidecar_ticket(rpc::SidecarTicket::default()).await, code, &[later]);
    assert_refused("list", client.list_sidecars(rpc::ListSidecarsRequest::default()).await, code, &[later]);
    assert_refused("cancel", client.cancel_sidecar(rpc::CancelSidecarRequest::default()).await, code, &[later]);
}
