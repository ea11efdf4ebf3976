//! Stop, resume, and what else `tidegate.v1` tells.

use super::bench::{Market, ask, bid, details, eventually, limits, open_account};
use tidegate_wire::poolrpc;
use tidegate_wire::tidegate::v1 as rpc;
use tonic::Code;

fn stop(reason: &str) -> rpc::StopRequest {
    rpc::StopRequest { reason: reason.to_owned(), initiator: "anna".to_owned() }
}

fn open(list: &poolrpc::ListOrdersResponse) -> usize {
    list.asks.len() + list.bids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cancels_what_is_open_and_holds_until_it_is_undone() {
    let market = Market::open(41).await;
    let agent = market.agent("anna", limits()).await;
    let (mut client, mut own) = (agent.client().await, agent.own_client("pool.macaroon").await);
    let before = own.status(rpc::StatusRequest {}).await.expect("told").into_inner();
    let trading = before.trading.expect("told");
    assert_eq!((trading.stopped, trading.halted, trading.by.as_str(), trading.since_ms), (false, false, "", 0));
    assert_eq!((before.network.as_str(), before.waiting.as_str(), before.journal_entries), ("regtest", "", 0));

    let key = open_account(&market, &mut client, 2_000_000).await.trader_key;
    client.submit_order(ask(details(&key, 2_000, 500_000))).await.expect("placed");
    client.submit_order(bid(details(&key, 1_000, 100_000))).await.expect("placed");
    let stopped = own.stop(stop("fees are\u{1b}[31m high")).await.expect("stopped").into_inner();
    assert_eq!((stopped.cancelled.len(), stopped.still_open.len()), (2, 0), "{stopped:?}");
    let trading = stopped.trading.expect("told");
    assert_eq!((trading.stopped, trading.by.as_str()), (true, "anna"));
    assert_eq!(trading.reason, "fees are\u{fffd}[31m high");
    let active = poolrpc::ListOrdersRequest { verbose: false, active_only: true };
    assert_eq!(open(&client.list_orders(active).await.expect("listed").into_inner()), 0);

    let refused = client.submit_order(ask(details(&key, 2_000, 500_000))).await.expect_err("stopped");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("trading is stopped by anna (fees are"), "{refused:?}");
    // The owner's money is the owner's.
    let deposit = poolrpc::DepositAccountRequest {
        trader_key: key.clone(),
        amount_sat: 100_000,
        fee_rate_sat_per_kw: 253,
        ..Default::default()
    };
    client.deposit_account(deposit).await.expect("accounts can be changed");

    let resumed = own.resume(rpc::ResumeRequest::default()).await.expect("resumed").into_inner();
    let trading = resumed.trading.expect("told");
    assert_eq!((trading.stopped, trading.by.as_str()), (false, "a client"));
    client.submit_order(ask(details(&key, 2_000, 500_000))).await.expect("placed again");

    let told = own.decisions(rpc::DecisionsRequest::default()).await.expect("told").into_inner().decisions;
    let reasons: Vec<&str> = told.iter().flat_map(|entry| entry.reasons.iter().map(String::as_str)).collect();
    assert_eq!(reasons[1], "resumed by a client");
    assert!(reasons.contains(&"stopped by anna: fees are\u{fffd}[31m high"), "{reasons:?}");
    let stopped = told.iter().find(|entry| entry.reasons[0].starts_with("stopped")).expect("journaled");
    let cancels: Vec<(&str, bool)> = stopped.intents.iter().map(|it| (it.intent.as_str(), it.approved)).collect();
    assert_eq!(cancels, [("cancel", true), ("cancel", true)]);
    let sequences: Vec<u64> = told.iter().map(|entry| entry.sequence).collect();
    assert!(sequences.is_sorted_by(|newer, older| *newer == older + 1), "{sequences:?}");
    let before = sequences[1];
    let older = own.decisions(rpc::DecisionsRequest { count: 1, before }).await.expect("told").into_inner().decisions;
    assert_eq!(older.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [before - 1]);
    let after = own.status(rpc::StatusRequest {}).await.expect("told").into_inner();
    assert_eq!(after.journal_entries, sequences[0] + 1);
    assert!(after.venue_connected && after.block_height > 0 && after.node_key.len() == 33, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_outlives_the_agent_and_works_while_the_node_is_away() {
    let market = Market::open(42).await;
    let waiting = market.agent_without_node("anna", limits()).await;
    let mut own = waiting.own_client("pool.macaroon").await;
    let status = own.status(rpc::StatusRequest {}).await.expect("told").into_inner();
    assert_eq!(status.waiting, "waiting for the node: it is away");
    let stopped = own.stop(stop("")).await.expect("stopped").into_inner();
    assert!(stopped.trading.expect("told").stopped && stopped.cancelled.is_empty());
    let file = market.database("anna");
    drop((own, waiting));
    market.shutdown.trigger();
    // The lock is free once the tasks of the first agent are gone.
    let switch =
        eventually("the first agent ended", async || crate::store::SqliteStore::open(&file, "switch").await.ok()).await;
    let switch = crate::api::operator::Switch::load(switch).await.expect("readable");
    assert!(switch.is_stopped());
    assert_eq!(switch.position().by, "anna");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_look_and_not_turn() {
    let market = Market::open(43).await;
    let agent = market.agent("anna", limits()).await;
    let mut own = agent.own_client("readonly.macaroon").await;
    own.status(rpc::StatusRequest {}).await.expect("told");
    own.decisions(rpc::DecisionsRequest::default()).await.expect("told");
    let limits = own.limits(rpc::LimitsRequest {}).await.expect("told").into_inner();
    assert!(!limits.dry_run && limits.max_open_orders > 0 && limits.open_orders == 0, "{limits:?}");
    for (name, answer) in [
        ("stop", own.stop(stop("")).await.map(drop)),
        ("resume", own.resume(rpc::ResumeRequest::default()).await.map(drop)),
        ("replace", own.replace_order(rpc::ReplaceOrderRequest::default()).await.map(drop)),
    ] {
        let refused = answer.expect_err(name);
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}: {refused:?}");
    }
    assert!(!own.status(rpc::StatusRequest {}).await.expect("told").into_inner().trading.expect("told").stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_the_place_of_another_one() {
    use rpc::replace_order_response::Details;
    let market = Market::open(44).await;
    let agent = market.agent("anna", limits()).await;
    let (mut client, mut own) = (agent.client().await, agent.own_client("pool.macaroon").await);
    let key = open_account(&market, &mut client, 2_000_000).await.trader_key;
    let placed = client.submit_order(ask(details(&key, 2_000, 1_200_000))).await.expect("placed").into_inner();
    let Some(poolrpc::submit_order_response::Details::AcceptedOrderNonce(old)) = placed.details else {
        panic!("{placed:?}")
    };
    // Both together would cost more than the account holds.
    let order = Some(ask(details(&key, 1_500, 1_000_000)));
    let request = rpc::ReplaceOrderRequest { order_nonce: old.clone(), order };
    let replaced = own.replace_order(request.clone()).await.expect("replaced").into_inner();
    let Some(Details::AcceptedOrderNonce(new)) = replaced.details else { panic!("{replaced:?}") };
    let active = poolrpc::ListOrdersRequest { verbose: false, active_only: true };
    let list = client.list_orders(active).await.expect("listed").into_inner();
    let open: Vec<&poolrpc::Order> = list.asks.iter().filter_map(|ask| ask.details.as_ref()).collect();
    assert_eq!((open.len(), &open[0].order_nonce, open[0].rate_fixed, open[0].amt), (1, &new, 1_500, 1_000_000));
    let again = own.replace_order(request).await.expect_err("it is cancelled already");
    assert!(again.message().contains("is not ours or not open"), "{again:?}");
    let dear = details(&key, 2_000, 100_000_000_000);
    let refused =
        own.replace_order(rpc::ReplaceOrderRequest { order_nonce: new.clone(), order: Some(ask(dear)) }).await;
    assert!(refused.expect_err("beyond the limits").message().contains("limit"));
    for (request, words) in [
        (rpc::ReplaceOrderRequest::default(), "ReplaceOrderRequest.order_nonce"),
        (rpc::ReplaceOrderRequest { order_nonce: new, order: None }, "ReplaceOrderRequest.order is missing"),
    ] {
        let refused = own.replace_order(request).await.expect_err(words);
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(words), "{refused:?}");
    }
}
