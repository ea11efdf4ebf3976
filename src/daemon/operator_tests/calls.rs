//! Every call does what it says.

use super::bench::{Agent, Client, Market, account, ask, bid, details, eventually, limits, open_account, until_open};
use bitcoin::hashes::Hash as _;
use std::collections::BTreeSet;
use tidegate_engine::journal::{JournalEntry, Verdict};
use tidegate_engine::strategy::{Intent, Reason};
use tidegate_ports::{AddressKind, Store as _, Wallet as _};
use tidegate_wire::poolrpc as rpc;

async fn market() -> (Market, Agent, Client) {
    let market = Market::open(7).await;
    let agent = market.agent("anna", limits()).await;
    let client = agent.client().await;
    (market, agent, client)
}

fn state(account: &rpc::Account) -> rpc::AccountState {
    rpc::AccountState::try_from(account.state).expect("a known state")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_opens_takes_orders_and_closes() {
    let (market, agent, mut client) = market().await;
    let quote = rpc::QuoteAccountRequest {
        account_value: 2_000_000,
        fees: Some(rpc::quote_account_request::Fees::ConfTarget(6)),
    };
    let quote = client.quote_account(quote).await.expect("the wallet has coins").into_inner();
    assert!(quote.miner_fee_rate_sat_per_kw >= 253 && quote.miner_fee_total > 0, "{quote:?}");

    let opened = client.init_account(super::bench::new_account(2_000_000)).await.expect("opened").into_inner();
    assert_eq!((opened.value, opened.available_balance, opened.version), (2_000_000, 0, 3));
    assert_eq!(state(&opened), rpc::AccountState::PendingOpen);
    let key = opened.trader_key.clone();
    let open = until_open(&market, &mut client, &key).await;
    assert_eq!((open.value, open.available_balance), (2_000_000, 2_000_000));
    let outpoint = open.outpoint.clone().expect("funded");
    assert_eq!(outpoint.txid, open.latest_txid, "the funding transaction is the latest");

    let placed = client.submit_order(ask(details(&key, 2_000, 500_000))).await.expect("placed").into_inner();
    let Some(rpc::submit_order_response::Details::AcceptedOrderNonce(nonce)) = placed.details else {
        panic!("{placed:?}")
    };
    let list = client.list_orders(rpc::ListOrdersRequest { verbose: true, active_only: true }).await;
    let list = list.expect("listed").into_inner();
    assert_eq!((list.asks.len(), list.bids.len()), (1, 0));
    let shown = &list.asks[0];
    let order = shown.details.as_ref().expect("details");
    assert_eq!((shown.lease_duration_blocks, shown.version, shown.confirmation_constraints), (2_016, 5, 1));
    assert_eq!((order.rate_fixed, order.amt, order.units, order.units_unfulfilled), (2_000, 500_000, 5, 5));
    assert_eq!((&order.order_nonce, &order.trader_key, order.is_public), (&nonce, &key, true));
    assert_eq!(order.state, i32::from(rpc::OrderState::OrderSubmitted));
    assert!(order.creation_timestamp_ns > 0);
    let events: Vec<(&str, i64)> =
        order.events.iter().map(|event| (event.event_str.as_str(), event.timestamp_ns)).collect();
    assert_eq!(events, [("OrderCreated", i64::try_from(order.creation_timestamp_ns).expect("before 2262"))]);
    assert!(order.reserved_value_sat > 500_000, "principal and fees: {order:?}");
    let busy = account(&mut client, &key).await;
    assert_eq!(busy.available_balance, busy.value - order.reserved_value_sat);

    let close = rpc::CloseAccountRequest {
        trader_key: key.clone(),
        funds_destination: Some(rpc::close_account_request::FundsDestination::OutputWithFee(rpc::OutputWithFee {
            address: String::new(),
            fees: Some(rpc::output_with_fee::Fees::FeeRateSatPerKw(253)),
        })),
    };
    let refused = client.close_account(close.clone()).await.expect_err("an order is open");
    assert!(refused.message().contains("still backs 1 open orders"), "{refused:?}");
    let cancel = rpc::CancelOrderRequest { order_nonce: nonce.clone() };
    client.cancel_order(cancel.clone()).await.expect("cancelled");
    client.cancel_order(cancel).await.expect("cancelled already");
    let active = client.list_orders(rpc::ListOrdersRequest { verbose: false, active_only: true }).await;
    assert_eq!(active.expect("listed").into_inner(), rpc::ListOrdersResponse::default());

    let closed = client.close_account(close).await.expect("nothing is in the way").into_inner();
    let pending = account(&mut client, &key).await;
    assert_eq!((state(&pending), &pending.latest_txid), (rpc::AccountState::PendingClosed, &closed.close_txid));
    market.world.mine(6);
    eventually("the close confirms", async || {
        (state(&account(&mut client, &key).await) == rpc::AccountState::Closed).then_some(())
    })
    .await;
    let active = client.list_accounts(rpc::ListAccountsRequest { active_only: true }).await.expect("listed");
    assert!(active.into_inner().accounts.is_empty());
    assert_journal_tells(&agent).await;
}

/// What a person asked for stands in the journal, with who asked and what the gate said.
async fn assert_journal_tells(agent: &Agent) {
    let (_, rows) = agent.journal.load(&["journal"]).await.expect("readable");
    let entries: Vec<JournalEntry> =
        rows.iter().map(|row| serde_json::from_str(&row.value).expect("an entry")).collect();
    let told = |wanted: fn(&Intent) -> bool, approved: bool, by: &str| {
        let reason = Reason::Asked { by: by.to_owned() };
        entries.iter().any(|entry| {
            entry.reasons.contains(&reason)
                && entry
                    .intents
                    .iter()
                    .any(|judged| wanted(&judged.intent) && (judged.verdict == Verdict::Approved) == approved)
        })
    };
    assert!(told(|intent| matches!(intent, Intent::OpenAccount { .. }), true, "pool-cli"));
    assert!(told(|intent| matches!(intent, Intent::PlaceAsk { .. }), true, "pool-cli"));
    assert!(told(|intent| matches!(intent, Intent::CloseAccount { .. }), false, "a client"));
    assert!(told(|intent| matches!(intent, Intent::CloseAccount { .. }), true, "a client"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_told_by_both_sides() {
    let market = Market::open(11).await;
    let (seller, buyer) = (market.agent("anna", limits()).await, market.agent("boris", limits()).await);
    let (mut sells, mut buys) = (seller.client().await, buyer.client().await);
    let first = open_account(&market, &mut sells, 2_000_000).await.trader_key;
    let second = open_account(&market, &mut buys, 1_000_000).await.trader_key;
    sells.submit_order(ask(details(&first, 1_000, 500_000))).await.expect("placed");
    buys.submit_order(bid(details(&second, 3_000, 300_000))).await.expect("placed");
    let cleared = market.venue.tick().await.expect("it runs").cleared.expect("they meet");
    let mut leases = Vec::new();
    for client in [&mut sells, &mut buys] {
        let lease = eventually("the lease is booked", async || {
            let answer = client.leases(rpc::LeasesRequest::default()).await.expect("listed").into_inner();
            (!answer.leases.is_empty()).then_some(answer)
        })
        .await;
        leases.push(lease);
    }
    let (sold, bought) = (&leases[0].leases[0], &leases[1].leases[0]);
    assert_eq!((sold.purchased, bought.purchased), (false, true));
    assert_eq!((sold.channel_amt_sat, sold.channel_duration_blocks), (300_000, 2_016));
    assert_eq!(sold.channel_point, bought.channel_point);
    assert_eq!((sold.premium_sat, sold.clearing_rate_price), (bought.premium_sat, bought.clearing_rate_price));
    assert_eq!((sold.order_fixed_rate, bought.order_fixed_rate), (1_000, 3_000));
    assert_eq!((&sold.order_nonce, &sold.matched_order_nonce), (&bought.matched_order_nonce, &bought.order_nonce));
    assert_eq!(sold.channel_node_tier, i32::from(rpc::NodeTier::Tier1));
    assert_eq!(leases[0].total_amt_earned_sat, sold.premium_sat);
    assert_eq!(leases[0].total_amt_paid_sat, sold.execution_fee_sat + sold.chain_fee_sat);
    assert_eq!(leases[1].total_amt_earned_sat, 0);
    let paid = bought.premium_sat + bought.execution_fee_sat + bought.chain_fee_sat;
    assert_eq!(leases[1].total_amt_paid_sat, paid);

    let other = rpc::LeasesRequest { batch_ids: Vec::new(), accounts: vec![first.clone()] };
    assert!(buys.leases(other).await.expect("listed").into_inner().leases.is_empty());
    let this = rpc::LeasesRequest { batch_ids: vec![cleared.serialize().to_vec()], accounts: vec![second] };
    assert_eq!(buys.leases(this).await.expect("listed").into_inner().leases.len(), 1);

    let info = buys.get_info(rpc::GetInfoRequest {}).await.expect("told").into_inner();
    assert_eq!((info.accounts_total, info.accounts_active, info.accounts_archived), (1, 1, 0));
    assert_eq!((info.orders_total, info.orders_active, info.orders_archived, info.batches_involved), (1, 0, 1, 1));
    assert!(info.subscribed_to_auctioneer && info.current_block_height > 0 && info.node_rating.is_some(), "{info:?}");
    assert!(info.version.contains(" commit="), "{info:?}");
    let orders = buys.list_orders(rpc::ListOrdersRequest { verbose: true, active_only: false }).await;
    let orders = orders.expect("listed").into_inner();
    let order = orders.bids[0].details.as_ref().expect("details");
    assert_eq!((order.units_unfulfilled, order.reserved_value_sat), (0, 0));
    let told: Vec<&str> = order.events.iter().map(|event| event.event_str.as_str()).collect();
    let matched = ["OrderMatch(prepare)", "OrderMatch(accepted)", "OrderMatch(signed)", "OrderMatch(finalized)"];
    for text in matched.into_iter().chain(["OrderUpdate(executed)"]) {
        assert!(told.contains(&text), "{text} is missing in {told:?}");
    }
    assert_batch_is_told(&mut buys, &cleared.serialize()).await;
}

async fn assert_batch_is_told(client: &mut Client, batch: &[u8]) {
    let snapshot = client.batch_snapshot(rpc::BatchSnapshotRequest { batch_id: batch.to_vec() }).await;
    let snapshot = snapshot.expect("final").into_inner();
    assert_eq!(snapshot.batch_id, batch);
    let transaction: bitcoin::Transaction = bitcoin::consensus::deserialize(&snapshot.batch_tx).expect("a transaction");
    assert_eq!(transaction.compute_txid().to_string(), snapshot.batch_tx_id);
    assert_ne!(transaction.compute_txid(), bitcoin::Txid::all_zeros());
    // As the deployed client asks: no start, and a count of zero means one.
    let latest = client.batch_snapshots(rpc::BatchSnapshotsRequest::default()).await.expect("told").into_inner();
    assert_eq!(latest.batches.len(), 1);
    assert_eq!(latest.batches[0], snapshot);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_changed_as_asked() {
    let (market, _agent, mut client) = market().await;
    let opened = client.init_account(super::bench::new_account(2_000_000)).await.expect("opened").into_inner();
    let key = opened.trader_key.clone();
    let bump = rpc::BumpAccountFeeRequest { trader_key: key.clone(), fee_rate_sat_per_kw: 2_500 };
    client.bump_account_fee(bump.clone()).await.expect("its change pays");
    until_open(&market, &mut client, &key).await;
    let refused = client.bump_account_fee(bump).await.expect_err("it is confirmed");
    assert!(refused.message().contains("Open"), "{refused:?}");

    let deposit = rpc::DepositAccountRequest {
        trader_key: key.clone(),
        amount_sat: 500_000,
        fee_rate_sat_per_kw: 500,
        ..Default::default()
    };
    let answer = client.deposit_account(deposit).await.expect("the wallet has coins").into_inner();
    let changed = answer.account.expect("told");
    assert_eq!((changed.value, state(&changed)), (2_500_000, rpc::AccountState::PendingUpdate));
    assert_eq!(changed.latest_txid, answer.deposit_txid);
    assert_eq!(until_open(&market, &mut client, &key).await.value, 2_500_000);

    let script = market.world.add_node("saver").new_address(AddressKind::Taproot).await.expect("a node has addresses");
    let address = bitcoin::Address::from_script(&script, bitcoin::Network::Regtest).expect("it has one");
    let output = rpc::Output { value_sat: 300_000, address: address.to_string() };
    let withdraw = rpc::WithdrawAccountRequest {
        trader_key: key.clone(),
        outputs: vec![output],
        fee_rate_sat_per_kw: 500,
        ..Default::default()
    };
    let answer = client.withdraw_account(withdraw).await.expect("it holds enough").into_inner();
    let left = answer.account.expect("told").value;
    assert!((2_190_000..2_200_000).contains(&left), "amount and fee are gone: {left}");
    assert_eq!(until_open(&market, &mut client, &key).await.value, left);

    let before = account(&mut client, &key).await.expiration_height;
    let renew = rpc::RenewAccountRequest {
        account_key: key.clone(),
        fee_rate_sat_per_kw: 500,
        account_expiry: Some(rpc::renew_account_request::AccountExpiry::RelativeExpiry(10_000)),
        ..Default::default()
    };
    let answer = client.renew_account(renew).await.expect("it may be later").into_inner();
    let renewed = answer.account.expect("told");
    assert_eq!(renewed.expiration_height, market.world.height().get() + 10_000);
    assert!(renewed.expiration_height > before && answer.renewal_txid == renewed.latest_txid);
    until_open(&market, &mut client, &key).await;
    assert_fees_are_told(&mut client, &key).await;
}

async fn assert_fees_are_told(client: &mut Client, key: &[u8]) {
    use rpc::account_modification_fee::Fee;
    let answer = client.account_modification_fees(rpc::AccountModificationFeesRequest {}).await.expect("told");
    let accounts = answer.into_inner().accounts;
    let name = hex::DisplayHex::to_lower_hex_string(key);
    let fees = &accounts.get(&name).expect("the account is told of").modification_fees;
    let actions: BTreeSet<&str> = fees.iter().map(|fee| fee.action.as_str()).collect();
    assert_eq!(actions, BTreeSet::from(["create", "deposit", "renew", "withdraw"]));
    for fee in fees {
        match (fee.action.as_str(), fee.fee) {
            ("create", Some(Fee::FeeNull(true))) => {}
            (_, Some(Fee::FeeValue(paid))) => assert!(paid > 0, "{fee:?}"),
            _ => panic!("{fee:?}"),
        }
        assert!(fee.block_height > 0, "{fee:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_venues_public_data_are_handed_on() {
    let (market, _agent, mut client) = market().await;
    let terms = market.venue.terms().await.expect("it runs");
    let fee = client.auction_fee(rpc::AuctionFeeRequest {}).await.expect("told").into_inner();
    let fee = fee.execution_fee.expect("stated");
    assert_eq!((fee.base_fee, fee.fee_rate), (terms.execution_fee.base.get(), terms.execution_fee.rate_ppm));
    let durations = client.lease_durations(rpc::LeaseDurationRequest {}).await.expect("told").into_inner();
    let open = i32::from(rpc::DurationBucketState::MarketOpen);
    assert_eq!(durations.lease_duration_buckets.get(&2_016), Some(&open));
    #[allow(deprecated)] // old clients read it
    let flat = durations.lease_durations.get(&2_016);
    assert_eq!(flat, Some(&true));
    let next = client.next_batch_info(rpc::NextBatchInfoRequest {}).await.expect("told").into_inner();
    assert_eq!((next.conf_target, next.fee_rate_sat_per_kw), (6, terms.next_batch_fee_rate.get()));
    assert_eq!(next.auto_renew_extension_blocks, terms.auto_renew_blocks.get());
    let node = market.world.add_node("stranger").id().serialize().to_vec();
    let ratings = client.node_ratings(rpc::NodeRatingRequest { node_pubkeys: vec![node.clone()] }).await;
    let ratings = ratings.expect("told").into_inner().node_ratings;
    assert_eq!((ratings.len(), &ratings[0].node_pubkey), (1, &node));
    assert_eq!(ratings[0].node_tier, i32::from(rpc::NodeTier::Tier1));
    let quote = rpc::QuoteOrderRequest {
        amt: 1_000_000,
        rate_fixed: 1_488,
        lease_duration_blocks: 2_016,
        max_batch_fee_rate_sat_per_kw: 25_000,
        min_units_match: 5,
    };
    let quote = client.quote_order(quote).await.expect("told").into_inner();
    assert_eq!((quote.total_premium_sat, quote.total_execution_fee_sat), (2_999, fee.base_fee + 1_000));
    assert_eq!((quote.rate_per_block, quote.rate_percent), (1_488.0 / 1e9, 1_488.0 / 1e9 * 100.0));
    assert!(quote.worst_case_chain_fee_sat > 0);
    let tokens = client.get_lsat_tokens(rpc::TokensRequest {}).await.expect("told").into_inner();
    assert_eq!(tokens, rpc::TokensResponse::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_stop_answers_and_stops() {
    let (market, _agent, mut client) = market().await;
    client.stop_daemon(rpc::StopDaemonRequest {}).await.expect("it answers first");
    market.shutdown.wanted().await;
}
