//! Prices, fees, reserves, confirmations, closing values.

use crate::local::{state, version};
use crate::support::{Entry, judge, load, unhex};
use serde_json::Value;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::bitcoin::{OutPoint, ScriptBuf};
use tidegate_protocol::fees::{
    ExecutionFee, MatchTerms, Quote, chain_fee, confirmations_needed, quote, reference_premium, reserved_value,
};
use tidegate_protocol::keys::{KeyLocator, OrderNonce, SharedSecret};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderVersion};
use tidegate_protocol::spend::{ClosePath, SpendError, close_to_script};
use tidegate_protocol::units::{
    BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, SatsDelta, UnitCount, UnitError,
};

const FILE: &str = "fees.json";
const KEY: &str = "028e87bdd134238f8347f845d9ecc827b843d0d1e27cdcb46da704d916613f4fce";

fn fee(entry: &Value) -> ExecutionFee {
    ExecutionFee { base: entry.sats("base_fee"), rate_ppm: entry.u64("fee_rate_ppm") }
}

fn rate(entry: &Value, key: &str) -> RatePerBillion {
    RatePerBillion::new(entry.u32(key))
}

fn duration(entry: &Value) -> BlockCount {
    BlockCount::new(entry.u32("duration"))
}

/// An amount, unless there is not that much bitcoin: then no such amount can even be said.
fn existing(entry: &Value, key: &str) -> Option<Sats> {
    fitting(entry.i128(key))
}

fn fitting(amount: i128) -> Option<Sats> {
    let found = u64::try_from(amount).ok().and_then(|amount| Sats::new(amount).ok());
    assert_eq!(found.is_some(), (0..=2_100_000_000_000_000).contains(&amount), "{amount}");
    found
}

/// The amount, or a refusal where it cannot exist.
fn same(found: Result<Sats, UnitError>, entry: &Value, key: &str) {
    assert_eq!(found.ok(), existing(entry, key), "{key}: {entry}");
}

/// A number computed from an entry without limits. Where the network's 64 bits hold it on the way, it is the entry's; a
/// number that wrapped around there is nobody's, and ours is the true one, or a refusal where that cannot exist.
#[derive(Clone, Copy)]
struct Truth {
    amount: i128,
    wrapped: bool,
}

impl Truth {
    /// `plus + product / divisor`, rounded down.
    fn of(plus: i128, product: i128, divisor: i128) -> Truth {
        let amount = plus + product / divisor;
        let wrapped = [plus, product, amount].iter().any(|number| i64::try_from(*number).is_err());
        Truth { amount, wrapped }
    }

    fn execution_fee(entry: &Value, amount: i128) -> Truth {
        Truth::of(entry.i128("base_fee"), amount * entry.i128("fee_rate_ppm"), 1_000_000)
    }

    fn chain_fee(channels: u32, rate: i128, version: AccountVersion) -> Truth {
        let witness = if version == AccountVersion::V0 { 229 } else { 66 };
        let weight = 4 * (43 + 41 + (43 * i128::from(channels) + 1) / 2) + witness;
        Truth::of(0, rate * weight, 1000)
    }

    fn check(self, found: Result<Sats, UnitError>, entry: &Value, key: &str) {
        assert_eq!(found.ok(), fitting(self.amount), "{key}: {entry}");
        self.check_entry(entry, key);
    }

    /// That the file and we mean the same number.
    fn check_entry(self, entry: &Value, key: &str) {
        assert!(self.wrapped || self.amount == entry.i128(key), "{key} is {}: {entry}", self.amount);
    }
}

/// A premium of more than all bitcoin is computed alike, and refused.
fn same_premium(found: &Result<Sats, UnitError>, entry: &Value, key: &str) {
    let expected = entry.i128(key);
    match found {
        Ok(premium) => assert_eq!(i128::from(premium.get()), expected, "{key}: {entry}"),
        Err(UnitError::TooManySats(premium)) => {
            let beyond = *premium > i64::MAX.cast_unsigned();
            assert!(i128::from(*premium) == expected || beyond, "{key}: {entry}: {premium}");
        }
        Err(error) => panic!("{error}: {entry}"),
    }
}

#[test]
fn premiums_and_fees_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "premiums", |entry| {
        let Some(amount) = existing(entry, "amount") else { return };
        same_premium(&reference_premium(amount, rate(entry, "rate"), duration(entry)), entry, "premium");
    });
    judge(FILE, &file, "execution_fees", |entry| {
        let (Some(amount), Some(_)) = (existing(entry, "amount"), existing(entry, "base_fee")) else { return };
        let truth = Truth::execution_fee(entry, entry.i128("amount"));
        truth.check(fee(entry).on(amount), entry, "total_fee");
        assert_eq!(entry.i128("total_fee"), entry.i128("base_fee") + entry.i128("variable_fee"));
    });
    judge(FILE, &file, "chain_fees", |entry| {
        let rate = SatPerKw::new(entry.u64("fee_rate_sat_per_kw"));
        let (channels, version) = (entry.u32("num_channels"), version(entry.u64("account_version")));
        let truth = Truth::chain_fee(channels, entry.i128("fee_rate_sat_per_kw"), version);
        truth.check(chain_fee(channels, rate, version), entry, "fee");
    });
    judge(FILE, &file, "supply_units", |entry| {
        let Some(sats) = existing(entry, "sats") else { return };
        for (found, name) in
            [(UnitCount::floor_from(sats), "units_floor"), (UnitCount::ceil_from(sats), "units_round_up")]
        {
            // More units than a message can say are refused.
            let expected = u32::try_from(entry.u64(name)).ok().map(UnitCount::new);
            assert_eq!(found.ok(), expected, "{name}: {entry}");
        }
    });
}

/// One match. A change of a balance is refused exactly where one of its parts cannot exist.
fn check_match(entry: &Value) {
    let amounts = [existing(entry, "filled_sats"), existing(entry, "self_chan_balance"), existing(entry, "base_fee")];
    let [Some(filled), Some(self_balance), Some(_)] = amounts else { return };
    let outbound = entry.flag("outbound_market");
    let terms = MatchTerms {
        auction: if outbound { AuctionType::Outbound } else { AuctionType::Inbound },
        filled,
        self_balance,
        price: rate(entry, "clearing_price"),
        duration: duration(entry),
    };
    let (fee, filled, own) = (fee(entry), entry.i128("filled_sats"), entry.i128("self_chan_balance"));
    let base = if outbound { filled + own } else { filled };
    Truth::of(base, 0, 1).check(terms.premium_base(), entry, "premium_base_amount");
    let maker_fee = Truth::execution_fee(entry, filled);
    maker_fee.check(terms.maker_execution_fee(&fee), entry, "maker_execution_fee");
    let taker_fee = Truth::execution_fee(entry, base);
    if fitting(base).is_none() {
        assert!(terms.premium().is_err() && terms.taker_execution_fee(&fee).is_err(), "{entry}");
        assert!(terms.maker_delta(&fee).is_err() && terms.taker_delta(&fee).is_err(), "{entry}");
        return;
    }
    taker_fee.check(terms.taker_execution_fee(&fee), entry, "taker_execution_fee");
    let premium = terms.premium();
    same_premium(&premium, entry, "premium");
    let premium = premium.ok().map(|premium| i128::from(premium.get()));
    let maker = premium.filter(|_| fitting(maker_fee.amount).is_some());
    let maker = maker.map(|premium| premium - filled - maker_fee.amount);
    let taker = premium.filter(|_| fitting(taker_fee.amount).is_some());
    let taker = taker.map(|premium| -(premium + own + taker_fee.amount));
    check_delta(terms.maker_delta(&fee), maker, maker_fee, entry, "maker_balance_after");
    check_delta(terms.taker_delta(&fee), taker, taker_fee, entry, "taker_balance_after");
}

/// A balance may end below nothing: then the account could not pay.
fn check_delta(found: Result<SatsDelta, UnitError>, expected: Option<i128>, fee: Truth, entry: &Value, key: &str) {
    assert_eq!(found.as_ref().ok().map(|delta| i128::from(delta.get())), expected, "{key}: {entry}");
    let (Ok(delta), Some(change)) = (found, expected) else { return };
    let after = entry.i128("starting_balance") + change;
    Truth { amount: after, wrapped: fee.wrapped }.check_entry(entry, key);
    if let Some(start) = existing(entry, "starting_balance") {
        assert_eq!(start.checked_add_delta(delta), fitting(after), "{key}: {entry}");
    }
}

/// A quote is refused exactly where one of its parts cannot exist.
fn check_quote(entry: &Value) {
    let amounts = [existing(entry, "amount"), existing(entry, "min_chan_amount"), existing(entry, "base_fee")];
    let [Some(amount), Some(least), Some(_)] = amounts else { return };
    let max = SatPerKw::new(entry.u64("max_batch_fee_rate"));
    let premium = reference_premium(amount, rate(entry, "rate"), duration(entry));
    same_premium(&premium, entry, "total_premium");
    let execution = Truth::execution_fee(entry, entry.i128("amount"));
    execution.check_entry(entry, "total_execution_fee");
    let one = Truth::chain_fee(1, entry.i128("max_batch_fee_rate"), AccountVersion::V0);
    let chain = entry.i128("amount").checked_div(entry.i128("min_chan_amount")).map(|matches| {
        let all = Truth::of(0, matches * one.amount, 1);
        Truth { wrapped: all.wrapped || one.wrapped, ..all }
    });
    if let Some(chain) = chain {
        chain.check_entry(entry, "worst_case_chain_fee");
    }
    let chain = chain.filter(|_| fitting(one.amount).is_some()).and_then(|chain| fitting(chain.amount));
    let expected = match (premium, fitting(execution.amount), chain) {
        (Ok(premium), Some(execution_fee), Some(worst_chain_fee)) => {
            Some(Quote { premium, execution_fee, worst_chain_fee })
        }
        _ => None,
    };
    let found = quote(amount, least, rate(entry, "rate"), duration(entry), max, &fee(entry));
    assert_eq!(found.ok(), expected, "{entry}");
    let rate = entry.u64("rate");
    let (whole, parts) = (rate / 1_000_000_000, rate % 1_000_000_000);
    assert_eq!(entry.text("rate_per_block"), format!("{whole}.{parts:09}000"));
}

#[test]
fn match_balances_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "match_deltas", check_match);
    judge(FILE, &file, "quotes", check_quote);
}

/// A corpus may go as far as its numbers do.
#[test]
fn extremes_are_computed_or_refused() {
    let delta = |filled: i64, own: i64, price: u32, ppm: u64, premium: i128, fees: [i128; 2]| {
        let (outbound, start) = (true, 2_100_000_000_000_000i64);
        let after = |change: i128| i64::try_from(i128::from(start) + change).unwrap();
        let premium64 = i64::try_from(premium).unwrap();
        serde_json::json!({
            "outbound_market": outbound, "filled_sats": filled, "self_chan_balance": own, "clearing_price": price,
            "duration": 52_416, "base_fee": 1, "fee_rate_ppm": ppm, "starting_balance": start,
            "premium_base_amount": filled + own, "premium": premium64,
            "maker_execution_fee": i64::try_from(fees[0]).unwrap(),
            "taker_execution_fee": i64::try_from(fees[1]).unwrap(),
            "maker_balance_after": after(premium - i128::from(filled) - fees[0]),
            "taker_balance_after": after(-(premium + i128::from(own) + fees[1])),
        })
    };
    let all = 2_100_000_000_000_000;
    check_match(&delta(all, 0, 0, 1, 0, [2_100_000_001; 2]));
    // No such channel, no such fee, no such premium.
    check_match(&delta(all, 1, 0, 1, 0, [2_100_000_001; 2]));
    check_match(&delta(1_000_000_000, 0, 0, 3_000_000_000, 0, [3_000_000_000_001; 2]));
    check_match(&delta(9_000_000_000, 0, 0, 1_000_000_000, 0, [9_000_000_000_001; 2]));
    check_match(&delta(100_000_000_000_000, 0, 1_000_000, 0, 5_241_600_000_000_000, [1; 2]));
    let quote = |amount: i64, least: i64, rate: u64, ppm: u64, numbers: [i64; 3]| {
        serde_json::json!({
            "amount": amount, "min_chan_amount": least, "rate": 0, "duration": 1, "base_fee": 0, "fee_rate_ppm": ppm,
            "max_batch_fee_rate": rate, "rate_per_block": "0.000000000000", "total_premium": numbers[0],
            "total_execution_fee": numbers[1], "worst_case_chain_fee": numbers[2],
        })
    };
    check_quote(&quote(all, all, 253, 0, [0, 0, 165]));
    check_quote(&quote(all, 1, 253, 0, [0, 0, 346_500_000_000_000_000]));
    check_quote(&quote(all, all, 253, 4_000, [0, 8_400_000_000_000, 165]));
    check_quote(&quote(100_000, 100_000, 253, 90_000_000_000_000, [0, 9_000_000_000_000, 165]));
}

#[test]
fn reserves_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "reserved_values", |entry| {
        let side = match entry.text("type") {
            "ask" => OrderSide::Ask(AskTerms::default()),
            _ => OrderSide::Bid(BidTerms { self_balance: entry.sats("self_chan_balance"), ..BidTerms::default() }),
        };
        let units = UnitCount::new(entry.u32("units_unfulfilled"));
        let order = Order {
            nonce: OrderNonce::new([0; 32]),
            version: OrderVersion::V5,
            account: KEY.parse().unwrap(),
            auction: if entry.text("auction_type") == "outbound" {
                AuctionType::Outbound
            } else {
                AuctionType::Inbound
            },
            rate: rate(entry, "rate"),
            amount: units.to_sats(),
            min_units: UnitCount::new(entry.u32("min_units_match")),
            duration: duration(entry),
            max_batch_fee_rate: SatPerKw::new(entry.u64("max_batch_fee_rate")),
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        };
        let reserved = reserved_value(
            &order,
            units,
            state(entry.text("state")),
            &fee(entry),
            version(entry.u64("account_version")),
        );
        same(reserved, entry, "reserved");
    });
}

#[test]
fn confirmations_are_the_networks() {
    let Some(file) = load("num_confs.json") else { return };
    judge("num_confs.json", &file, "vectors", |entry| {
        let (Some(value), Some(max)) = (existing(entry, "value"), existing(entry, "max_account_value")) else { return };
        let needed = confirmations_needed(value, max);
        assert_eq!(needed, entry.u32("num_confs"), "{entry}");
    });
}

fn closing_account(entry: &Value) -> (Account, ClosePath) {
    let expired = ClosePath::Expiry(BlockHeight::new(2));
    let (version, path) = match entry.text("witness_type") {
        "v0_multisig" => (AccountVersion::V0, ClosePath::Cooperative),
        "v0_expiry" => (AccountVersion::V0, expired),
        "taproot_musig2" => (AccountVersion::V2, ClosePath::Cooperative),
        "taproot_expiry" => (AccountVersion::V2, expired),
        other => panic!("witness {other}"),
    };
    let terms = AccountTerms {
        version,
        trader: KEY.parse().unwrap(),
        auctioneer: KEY.parse().unwrap(),
        batch: KEY.parse().unwrap(),
        secret: SharedSecret::new([0; 32]),
        expiry: BlockHeight::new(1),
    };
    let account = Account {
        terms,
        locator: KeyLocator { family: 220, index: 0 },
        value: entry.sats("account_value"),
        state: AccountState::Open,
        height_hint: BlockHeight::new(0),
        outpoint: Some(OutPoint::null()),
        latest_tx: None,
    };
    (account, path)
}

#[test]
fn closing_values_are_the_networks() {
    let Some(file) = load("close_outputs.json") else { return };
    judge("close_outputs.json", &file, "vectors", |entry| {
        if existing(entry, "account_value").is_none() {
            return;
        }
        let (account, path) = closing_account(entry);
        let to = ScriptBuf::from_bytes(unhex(entry.text("pk_script")));
        let rate = SatPerKw::new(entry.u64("fee_rate_sat_per_kw"));
        let closed = close_to_script(&account, to.clone(), rate, path);
        if entry.text("result") == "ok" {
            let transaction = closed.unwrap();
            let [output] = &transaction.output[..] else { panic!("one output expected") };
            assert_eq!(Sats::try_from(output.value).unwrap(), entry.sats("output_value"), "{entry}");
            assert_eq!(account.value.checked_sub(entry.sats("fee")), Some(entry.sats("output_value")));
            assert_eq!(output.script_pubkey, to);
        } else {
            // Refused at any rate, and dust as dust.
            let dust = matches!(closed, Err(SpendError::Dust { .. }));
            assert!(closed.is_err() && dust == (entry.text("result") == "dust"), "{entry}: {closed:?}");
        }
    });
}
