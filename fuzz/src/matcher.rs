//! Any book: pairing never panics, never fills beyond what is open, keeps every limit; settlement loses nothing.

use crate::bytes::Bytes;
use crate::material::{point, sats};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use std::collections::BTreeMap;
use tidegate_market::{
    AccountInput, AccountValue, Assembly, AssemblyRequest, BookOrder, Conflicts, Market, OPERATOR_DUST, PairingRules,
    Settlement, SettlementError, assemble, clear, clear_within, settle,
};
use tidegate_protocol::account::{AccountTerms, AccountVersion};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, OrderNonce, SharedSecret};
use tidegate_protocol::order::{AuctionType, NodeTier};
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats, UnitCount};

/// Orders of one book: pairing is quadratic in the worst case, and the target must stay fast.
const MAX_ORDERS: u8 = 48;

/// A book, conflicts, limits, balances and fees from bytes.
pub fn matcher(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let max_pairs = bytes.pick(&[250, 250, 250, 0, 1, 2, 7]);
    let ratings_enabled = bytes.flag();
    let fee = ExecutionFee { base: sats(bytes.u8().into()), rate_ppm: u64::from(bytes.u16()) };
    let rate = SatPerKw::new(if bytes.flag() { 253 } else { bytes.near(253) });
    let account = |number| AccountKey::new(point(number));
    let conflicts: Conflicts =
        (0..bytes.u8() % 4).map(|_| (account(bytes.below(8)), account(bytes.below(8)))).collect();
    let accounts = accounts(&mut bytes);
    let work = u64::from(bytes.u16());
    let mut orders = book(&mut bytes);
    let rules = PairingRules { conflicts: &conflicts, ratings_enabled, max_pairs };
    let values: BTreeMap<_, _> = accounts
        .iter()
        .map(|(key, account)| (*key, AccountValue { value: account.value, version: account.terms.version }))
        .collect();
    // A clearing that is cut is as valid as a complete one.
    let cut = clear_within(&orders, &rules, work);
    check_pairs(&orders, &rules, &cut.markets);
    assert!(cut.cut || cut.markets == clear(&orders, &rules), "not cut, yet not complete");
    // Traders who cannot pay leave, one after another, as in a round.
    for _ in 0..=accounts.len() {
        let markets = clear(&orders, &rules);
        check_pairs(&orders, &rules, &markets);
        match settle(&markets, &values, &fee, rate) {
            Ok(settlement) => {
                check_batch(&markets, &settlement, &accounts, rate);
                return;
            }
            Err(SettlementError::PoorTrader { account, short }) => {
                assert!(short > 0);
                orders.retain(|order| order.submitted.order.account != account);
            }
            Err(SettlementError::UnknownAccount(_) | SettlementError::Unit(_)) => return,
        }
    }
    panic!("more poor traders than traders");
}

fn accounts(bytes: &mut Bytes<'_>) -> BTreeMap<AccountKey, AccountInput> {
    let count = 8 - bytes.below(3) / 2;
    (0..count)
        .map(|number| {
            let trader = AccountKey::new(point(number));
            let version = bytes.pick(&[AccountVersion::V0, AccountVersion::V1, AccountVersion::V2]);
            let terms = AccountTerms {
                version,
                trader,
                auctioneer: AuctioneerKey::new(point(50)),
                batch: BatchKey::new(point(51)),
                secret: SharedSecret::new([7; 32]),
                expiry: BlockHeight::new(10_000),
            };
            let value = if bytes.flag() { Sats::constant(100_000_000) } else { sats(bytes.near(3_000_000)) };
            let index = u32::try_from(number).expect("at most eight");
            let outpoint = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: index };
            let new_expiry = bytes.flag().then_some(BlockHeight::new(20_000));
            (trader, AccountInput { terms, value, outpoint, new_expiry })
        })
        .collect()
}

fn book(bytes: &mut Bytes<'_>) -> Vec<BookOrder> {
    let mut orders = Vec::new();
    for number in 1..=MAX_ORDERS {
        if bytes.is_empty() {
            break;
        }
        let mut submitted = crate::orders::submitted(bytes);
        submitted.order.nonce = OrderNonce::new([number; 32]);
        let units = submitted.order.units().unwrap_or(UnitCount::ZERO);
        orders.push(BookOrder {
            open: if bytes.u8() > 60 { units } else { UnitCount::new(bytes.near32(units.get())) },
            owner: [if bytes.u8() > 200 { 0 } else { number }; 32],
            tier: if bytes.flag() { NodeTier::Tier1 } else { NodeTier::Tier0 },
            batch_version: BatchVersion(if bytes.u8() > 100 { 58 } else { bytes.u8().into() }),
            submitted,
        });
    }
    orders
}

fn check_pairs(orders: &[BookOrder], rules: &PairingRules<'_>, markets: &BTreeMap<BlockCount, Market>) {
    let by_nonce: BTreeMap<_, _> = orders.iter().map(|order| (order.submitted.order.nonce, order)).collect();
    let mut filled: BTreeMap<OrderNonce, u64> = BTreeMap::new();
    assert!(markets.values().map(|market| market.pairs.len()).sum::<usize>() <= rules.max_pairs);
    for (duration, market) in markets {
        assert!(market.pairs.iter().any(|pair| pair.bid.order.rate == market.price), "nobody bid the price");
        for pair in &market.pairs {
            let (ask, bid) = (&pair.ask.order, &pair.bid.order);
            assert!(ask.is_ask() && !bid.is_ask());
            assert!(ask.rate <= market.price && market.price <= bid.rate, "beyond a limit");
            assert!(ask.duration == *duration && bid.duration == *duration);
            assert!(ask.account != bid.account && pair.ask.node != pair.bid.node);
            assert!(by_nonce[&ask.nonce].owner != by_nonce[&bid.nonce].owner);
            assert!(ask.auction == bid.auction && ask.channel_type == bid.channel_type);
            assert!(ask.accepts_node(pair.bid.node) && bid.accepts_node(pair.ask.node));
            assert!(!rules.conflicts.contains(ask.account, bid.account));
            assert!(pair.units > UnitCount::ZERO);
            match ask.auction {
                AuctionType::Inbound => assert!(pair.units >= ask.min_units && pair.units >= bid.min_units),
                AuctionType::Outbound => assert_eq!(pair.units, UnitCount::new(1)),
            }
            for nonce in [ask.nonce, bid.nonce] {
                *filled.entry(nonce).or_default() += u64::from(pair.units.get());
            }
        }
    }
    for (nonce, units) in filled {
        assert!(units <= u64::from(by_nonce[&nonce].open.get()), "{nonce:?} is filled beyond what is open");
    }
}

fn check_batch(
    markets: &BTreeMap<BlockCount, Market>,
    settlement: &Settlement,
    accounts: &BTreeMap<AccountKey, AccountInput>,
    fee_rate: SatPerKw,
) {
    if markets.is_empty() {
        return;
    }
    let operator = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
    let request = AssemblyRequest {
        markets,
        settlement,
        accounts,
        extra_inputs: &[],
        extra_outputs: &[],
        operator: &operator,
        extra_fee: Sats::ZERO,
        fee_rate,
    };
    let Ok(batch) = assemble(&request) else { return };
    let total = |outputs: &[bitcoin::TxOut]| outputs.iter().map(|output| output.value.to_sat()).sum::<u64>();
    let outputs = total(&batch.transaction.output);
    assert_eq!(total(&batch.prev_outputs), outputs + batch.fee.get(), "satoshis are lost or made");
    assert_eq!(batch.prev_outputs.len(), batch.transaction.input.len());
    let operator_value = batch.operator_value.map_or(0, Sats::get);
    let charged = settlement.execution_fees.get() + settlement.chain_fees.get();
    assert_eq!(charged, operator_value + batch.fee.get());
    assert!(batch.operator_value.is_none_or(|value| value >= OPERATOR_DUST));
    check_places(settlement, accounts, &batch);
    assert_eq!(batch.channels.len(), markets.values().map(|market| market.pairs.len()).sum::<usize>());
}

fn check_places(settlement: &Settlement, accounts: &BTreeMap<AccountKey, AccountInput>, batch: &Assembly) {
    let output = |index: u32| &batch.transaction.output[usize::try_from(index).expect("an index of a vector")];
    for channel in &batch.channels {
        assert_eq!(output(channel.outpoint.vout).value.to_sat(), channel.capacity.get());
    }
    for (key, at) in &batch.inputs {
        assert_eq!(batch.transaction.input[*at].previous_output, accounts[key].outpoint);
    }
    for (key, at) in &batch.outputs {
        assert_eq!(output(*at).value.to_sat(), settlement.accounts[key].ending.get());
    }
}
