//! Invariants of whole batches, over random books.

use crate::testkit::{ask, bid, bid_terms, nonce, point};
use crate::{
    AccountInput, AccountValue, AssemblyRequest, BookOrder, Conflicts, MAX_PAIRS, Market, OPERATOR_DUST, PairingRules,
    SettlementError, assemble, clear, settle,
};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{OutPoint, ScriptBuf, Txid};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_protocol::account::{AccountTerms, AccountVersion};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, SharedSecret};
use tidegate_protocol::order::{AuctionType, NodeTier, OrderChannelType};
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats, UnitCount};

const TRADERS: u32 = 6;

#[derive(Clone, Debug)]
struct Wish {
    trader: u32,
    is_ask: bool,
    rate: u32,
    units: u32,
    min: u32,
    long: bool,
    picky: bool,
    lowly: bool,
    script_enforced: bool,
    denies: Option<u32>,
    self_balance: bool,
    outbound: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let sizes = (1u32..20).prop_flat_map(|units| (Just(units), 1..=units));
    let rare = || prop::bool::weighted(0.15);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), rare(), rare(), prop::bool::weighted(0.3));
    let who = (0..TRADERS, any::<bool>(), 1u32..2000, prop::option::weighted(0.2, 0..TRADERS));
    (who, sizes, flags).prop_map(|((trader, is_ask, rate, denies), (units, min), flags)| Wish {
        trader,
        is_ask,
        rate,
        units,
        min,
        long: flags.0,
        picky: flags.1,
        lowly: flags.2,
        script_enforced: flags.3,
        denies,
        self_balance: flags.4,
        outbound: flags.5,
    })
}

fn book(wishes: &[Wish]) -> Vec<BookOrder> {
    let numbered = (0u32..).zip(wishes);
    numbered
        .map(|(number, wish)| {
            let make = if wish.is_ask { ask } else { bid };
            let mut entry = make(number, wish.trader, wish.rate, wish.units);
            entry.tier = if wish.lowly { NodeTier::Tier0 } else { NodeTier::Tier1 };
            let order = &mut entry.submitted.order;
            order.min_units = UnitCount::new(wish.min);
            order.duration = BlockCount::new(if wish.long { 4032 } else { 2016 });
            if wish.script_enforced {
                order.channel_type = OrderChannelType::ScriptEnforced;
            }
            order.denied_nodes = wish.denies.map(|other| ask(0, other, 1, 1).submitted.node).into_iter().collect();
            if !wish.is_ask {
                if wish.self_balance {
                    entry.submitted.order.min_units = UnitCount::new(wish.units);
                    bid_terms(&mut entry).self_balance = Sats::constant(100_000);
                }
                bid_terms(&mut entry).min_node_tier = if wish.picky { NodeTier::Tier1 } else { NodeTier::Tier0 };
            }
            if wish.outbound {
                make_outbound(&mut entry);
            }
            entry
        })
        .collect()
}

/// One unit, in the market where the taker brings the larger part.
fn make_outbound(entry: &mut BookOrder) {
    entry.open = UnitCount::new(1);
    let order = &mut entry.submitted.order;
    order.auction = AuctionType::Outbound;
    order.amount = entry.open.to_sats();
    if !order.is_ask() {
        order.min_units = UnitCount::new(1);
        bid_terms(entry).self_balance = Sats::constant(700_000);
    }
}

fn cleared(orders: &[BookOrder], max_pairs: usize) -> BTreeMap<BlockCount, Market> {
    let account = |node| ask(0, node, 1, 1).submitted.order.account;
    let conflicts: Conflicts = [(account(0), account(1))].into_iter().collect();
    clear(orders, &PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs })
}

fn account(trader: u32, version: AccountVersion, value: u64) -> (AccountKey, AccountInput) {
    let key = AccountKey::new(point("account", trader));
    let terms = AccountTerms {
        version,
        trader: key,
        auctioneer: AuctioneerKey::new(point("auctioneer", 0)),
        batch: BatchKey::new(point("batch", trader)),
        secret: SharedSecret::new([7; 32]),
        expiry: BlockHeight::new(10_000),
    };
    let txid = Txid::from_byte_array(sha256::Hash::hash(&trader.to_le_bytes()).to_byte_array());
    let outpoint = OutPoint { txid, vout: trader };
    let new_expiry = trader.is_multiple_of(2).then_some(BlockHeight::new(20_000));
    (key, AccountInput { terms, value: Sats::new(value).unwrap(), outpoint, new_expiry })
}

proptest! {
    #![proptest_config(crate::testkit::always(96))]

    #[test]
    fn pairing_keeps_every_limit(wishes in prop::collection::vec(wish(), 0..40), max_pairs in prop::sample::select(vec![2, MAX_PAIRS])) {
        let orders = book(&wishes);
        let by_nonce: BTreeMap<_, _> = orders.iter().map(|order| (order.submitted.order.nonce, order)).collect();
        let markets = cleared(&orders, max_pairs);
        let mut filled: BTreeMap<_, u32> = BTreeMap::new();
        prop_assert!(markets.values().map(|market| market.pairs.len()).sum::<usize>() <= max_pairs);
        for (duration, market) in &markets {
            prop_assert!(market.pairs.iter().any(|pair| pair.bid.order.rate == market.price));
            for pair in &market.pairs {
                let (a, b) = (&pair.ask.order, &pair.bid.order);
                prop_assert!(a.rate <= market.price && market.price <= b.rate);
                prop_assert!(a.duration == *duration && b.duration == *duration);
                prop_assert!(a.account != b.account && pair.ask.node != pair.bid.node);
                prop_assert_eq!(a.channel_type, b.channel_type);
                prop_assert_eq!(a.auction, b.auction);
                match a.auction {
                    AuctionType::Inbound => prop_assert!(pair.units >= a.min_units && pair.units >= b.min_units),
                    AuctionType::Outbound => {
                        prop_assert_eq!(pair.units, UnitCount::new(1));
                        prop_assert!(a.min_units.to_sats() <= b.self_balance());
                    }
                }
                prop_assert!(a.accepts_node(pair.bid.node) && b.accepts_node(pair.ask.node));
                prop_assert!(by_nonce[&a.nonce].tier >= b.bid().unwrap().min_node_tier);
                let zero_and_one = [ask(0, 0, 1, 1).submitted.node, ask(0, 1, 1, 1).submitted.node];
                prop_assert!(!(zero_and_one.contains(&pair.ask.node) && zero_and_one.contains(&pair.bid.node)));
                *filled.entry(a.nonce).or_default() += pair.units.get();
                *filled.entry(b.nonce).or_default() += pair.units.get();
            }
        }
        for (order, units) in filled {
            prop_assert!(units <= by_nonce[&order].open.get());
        }
    }

    #[test]
    fn one_duration_does_not_influence_another(wishes in prop::collection::vec(wish(), 0..40)) {
        let orders = book(&wishes);
        let alone: Vec<_> = orders.iter().filter(|o| o.submitted.order.duration == BlockCount::new(2016)).cloned().collect();
        let both = cleared(&orders, MAX_PAIRS);
        let alone = cleared(&alone, MAX_PAIRS);
        prop_assert_eq!(both.get(&BlockCount::new(2016)), alone.get(&BlockCount::new(2016)));
    }

    #[test]
    fn not_a_satoshi_is_lost(
        wishes in prop::collection::vec(wish(), 2..30),
        values in prop::collection::vec(50_000u64..100_000_000, 6),
        rate in 253u64..5000,
        ppm in 0u64..5000,
        taproot in any::<bool>(),
    ) {
        let version = if taproot { AccountVersion::V2 } else { AccountVersion::V0 };
        let accounts: BTreeMap<_, _> = (0..TRADERS).zip(values).map(|(n, value)| account(n, version, value)).collect();
        let balances = accounts.iter().map(|(key, a)| (*key, AccountValue { value: a.value, version })).collect();
        let fee = ExecutionFee { base: Sats::constant(25), rate_ppm: ppm };
        let rate = SatPerKw::new(rate);
        let mut orders = book(&wishes);
        let (markets, settlement) = loop {
            let markets = cleared(&orders, MAX_PAIRS);
            match settle(&markets, &balances, &fee, rate) {
                Ok(settlement) => break (markets, settlement),
                Err(SettlementError::PoorTrader { account, .. }) => orders.retain(|o| o.submitted.order.account != account),
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        };
        prop_assume!(!markets.is_empty());
        let operator = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
        let request = AssemblyRequest {
            markets: &markets, settlement: &settlement, accounts: &accounts, extra_inputs: &[], operator: &operator, fee_rate: rate,
            extra_outputs: &[],
            extra_fee: Sats::ZERO,
        };
        let batch = assemble(&request).unwrap();
        let inputs: u64 = batch.prev_outputs.iter().map(|output| output.value.to_sat()).sum();
        let outputs: u64 = batch.transaction.output.iter().map(|output| output.value.to_sat()).sum();
        prop_assert_eq!(inputs, outputs + batch.fee.get());
        let operator_value = batch.operator_value.map_or(0, Sats::get);
        prop_assert_eq!(settlement.execution_fees.get() + settlement.chain_fees.get(), operator_value + batch.fee.get());
        prop_assert!(batch.operator_value.is_none_or(|value| value >= OPERATOR_DUST));
        // BIP-69: transaction ids as displayed, then index; values, then scripts.
        let ids: Vec<_> = batch.transaction.input.iter().map(|input| {
            (input.previous_output.txid.to_string(), input.previous_output.vout)
        }).collect();
        prop_assert!(ids.is_sorted());
        let values: Vec<_> = batch.transaction.output.iter().map(|o| (o.value, o.script_pubkey.to_hex_string())).collect();
        prop_assert!(values.is_sorted());
        prop_assert!(batch.transaction.input.iter().all(|input| input.sequence.0 == 0));
        let weight = batch.transaction.weight().to_wu();
        prop_assert!(batch.weight > weight, "estimate includes witnesses");
        for channel in &batch.channels {
            let vout = usize::try_from(channel.outpoint.vout).unwrap();
            prop_assert_eq!(batch.transaction.output[vout].value.to_sat(), channel.capacity.get());
        }
        for (key, at) in &batch.inputs {
            prop_assert_eq!(batch.transaction.input[*at].previous_output, accounts[key].outpoint);
        }
        for (key, at) in &batch.outputs {
            let output = &batch.transaction.output[usize::try_from(*at).unwrap()];
            prop_assert_eq!(output.value.to_sat(), settlement.accounts[key].ending.get());
            prop_assert_eq!(&output.script_pubkey, &batch.new_terms[key].output_script().unwrap());
        }
        prop_assert_eq!(batch.channels.len(), markets.values().map(|market| market.pairs.len()).sum::<usize>());
    }
}

#[test]
fn two_channels_with_the_same_funding_keys_are_refused() {
    let accounts: BTreeMap<_, _> = (0..3).map(|n| account(n, AccountVersion::V2, 10_000_000)).collect();
    let balances =
        accounts.iter().map(|(key, a)| (*key, AccountValue { value: a.value, version: AccountVersion::V2 })).collect();
    let (a, mut b) = (ask(1, 1, 5, 2), ask(2, 1, 5, 2));
    b.submitted.multisig = a.submitted.multisig;
    let (c, mut d) = (bid(3, 2, 9, 2), bid(4, 2, 9, 2));
    d.submitted.multisig = c.submitted.multisig;
    let markets = cleared(&[a, b, c, d], MAX_PAIRS);
    let fee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 };
    let settlement = settle(&markets, &balances, &fee, SatPerKw::FLOOR).unwrap();
    let operator = ScriptBuf::new();
    let request = AssemblyRequest {
        markets: &markets,
        settlement: &settlement,
        accounts: &accounts,
        extra_inputs: &[],
        operator: &operator,
        fee_rate: SatPerKw::FLOOR,
        extra_outputs: &[],
        extra_fee: Sats::ZERO,
    };
    assert_eq!(assemble(&request), Err(crate::AssemblyError::SharedFundingKey(nonce(3))));
}
