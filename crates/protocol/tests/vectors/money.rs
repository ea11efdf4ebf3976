//! Prices, fees, reserves, confirmations, closing values.

use crate::local::{state, version};
use crate::support::{Entry, judge, load, unhex};
use serde_json::Value;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::bitcoin::{OutPoint, ScriptBuf};
use tidegate_protocol::fees::{
    ExecutionFee, MatchTerms, chain_fee, confirmations_needed, quote, reference_premium, reserved_value,
};
use tidegate_protocol::keys::{KeyLocator, OrderNonce, SharedSecret};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderVersion};
use tidegate_protocol::spend::{ClosePath, SpendError, close_to_script};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};

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
    let amount = entry.i128(key);
    let found = u64::try_from(amount).ok().and_then(|amount| Sats::new(amount).ok());
    assert_eq!(found.is_some(), (0..=2_100_000_000_000_000).contains(&amount), "{key}: {entry}");
    found
}

/// The amount, or a refusal where it cannot exist.
fn same(found: Result<Sats, UnitError>, entry: &Value, key: &str) {
    assert_eq!(found.ok(), existing(entry, key), "{key}: {entry}");
}

#[test]
fn premiums_and_fees_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "premiums", |entry| {
        let Some(amount) = existing(entry, "amount") else { return };
        match (reference_premium(amount, rate(entry, "rate"), duration(entry)), entry.i128("premium")) {
            (Ok(premium), expected) => assert_eq!(i128::from(premium.get()), expected, "{entry}"),
            // More than all bitcoin is computed alike, and refused.
            (Err(UnitError::TooManySats(premium)), expected) => {
                assert!(i128::from(premium) == expected || premium > i64::MAX.cast_unsigned(), "{entry}: {premium}");
            }
            (Err(error), _) => panic!("{error}: {entry}"),
        }
    });
    judge(FILE, &file, "execution_fees", |entry| {
        let (Some(amount), Some(_)) = (existing(entry, "amount"), existing(entry, "base_fee")) else { return };
        same(fee(entry).on(amount), entry, "total_fee");
        assert_eq!(entry.i128("total_fee"), entry.i128("base_fee") + entry.i128("variable_fee"));
    });
    judge(FILE, &file, "chain_fees", |entry| {
        let rate = SatPerKw::new(entry.u64("fee_rate_sat_per_kw"));
        let fee = chain_fee(entry.u32("num_channels"), rate, version(entry.u64("account_version")));
        same(fee, entry, "fee");
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

#[test]
fn match_balances_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "match_deltas", |entry| {
        let terms = MatchTerms {
            auction: if entry.flag("outbound_market") { AuctionType::Outbound } else { AuctionType::Inbound },
            filled: entry.sats("filled_sats"),
            self_balance: entry.sats("self_chan_balance"),
            price: rate(entry, "clearing_price"),
            duration: duration(entry),
        };
        let (fee, start) = (fee(entry), entry.sats("starting_balance"));
        assert_eq!(terms.premium_base(), Ok(entry.sats("premium_base_amount")));
        assert_eq!(terms.premium(), Ok(entry.sats("premium")));
        assert_eq!(terms.maker_execution_fee(&fee), Ok(entry.sats("maker_execution_fee")));
        assert_eq!(terms.taker_execution_fee(&fee), Ok(entry.sats("taker_execution_fee")));
        // A balance may end below nothing: then the account could not pay.
        for (delta, name) in [
            (terms.maker_delta(&fee).unwrap(), "maker_balance_after"),
            (terms.taker_delta(&fee).unwrap(), "taker_balance_after"),
        ] {
            assert_eq!(i128::from(start.get()) + i128::from(delta.get()), entry.i128(name), "{name}: {entry}");
            assert_eq!(start.checked_add_delta(delta).is_some(), entry.i128(name) >= 0, "{name}: {entry}");
        }
    });
    judge(FILE, &file, "quotes", |entry| {
        let max = SatPerKw::new(entry.u64("max_batch_fee_rate"));
        let (amount, least) = (entry.sats("amount"), entry.sats("min_chan_amount"));
        let quote = quote(amount, least, rate(entry, "rate"), duration(entry), max, &fee(entry)).unwrap();
        assert_eq!(quote.premium, entry.sats("total_premium"), "{entry}");
        assert_eq!(quote.execution_fee, entry.sats("total_execution_fee"), "{entry}");
        assert_eq!(quote.worst_chain_fee, entry.sats("worst_case_chain_fee"), "{entry}");
        let rate = entry.u64("rate");
        let (whole, parts) = (rate / 1_000_000_000, rate % 1_000_000_000);
        assert_eq!(entry.text("rate_per_block"), format!("{whole}.{parts:09}000"));
    });
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
        let needed = confirmations_needed(entry.sats("value"), entry.sats("max_account_value"));
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
