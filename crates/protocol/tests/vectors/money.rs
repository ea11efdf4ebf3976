//! Prices, fees, reserves, confirmations, closing values.

use crate::accounts::version;
use crate::support::{Entry, load, report, unhex};
use serde_json::Value;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::bitcoin::{OutPoint, ScriptBuf};
use tidegate_protocol::fees::{
    ExecutionFee, MatchTerms, chain_fee, confirmations_needed, quote, reference_premium, reserved_value,
};
use tidegate_protocol::keys::{KeyLocator, OrderNonce, SharedSecret};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderState, OrderVersion,
};
use tidegate_protocol::spend::{ClosePath, SpendError, close_to_script};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

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

#[test]
fn premiums_and_fees_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    for entry in file.list("premiums") {
        let premium = reference_premium(entry.sats("amount"), rate(entry, "rate"), duration(entry));
        assert_eq!(premium, Ok(entry.sats("premium")), "{entry}");
    }
    report(FILE, "premiums", file.list("premiums").len());
    for entry in file.list("execution_fees") {
        assert_eq!(fee(entry).on(entry.sats("amount")), Ok(entry.sats("total_fee")), "{entry}");
        assert_eq!(entry.u64("total_fee"), entry.u64("base_fee") + entry.u64("variable_fee"));
    }
    report(FILE, "execution_fees", file.list("execution_fees").len());
    for entry in file.list("chain_fees") {
        let rate = SatPerKw::new(entry.u64("fee_rate_sat_per_kw"));
        let fee = chain_fee(entry.u32("num_channels"), rate, version(entry.u64("account_version")));
        assert_eq!(fee, Ok(entry.sats("fee")), "{entry}");
    }
    report(FILE, "chain_fees", file.list("chain_fees").len());
    for entry in file.list("supply_units") {
        assert_eq!(UnitCount::floor_from(entry.sats("sats")), Ok(UnitCount::new(entry.u32("units_floor"))));
        assert_eq!(UnitCount::ceil_from(entry.sats("sats")), Ok(UnitCount::new(entry.u32("units_round_up"))));
    }
    report(FILE, "supply_units", file.list("supply_units").len());
}

#[test]
fn match_balances_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    for entry in file.list("match_deltas") {
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
        assert_eq!(start.checked_add_delta(terms.maker_delta(&fee).unwrap()), Some(entry.sats("maker_balance_after")));
        assert_eq!(start.checked_add_delta(terms.taker_delta(&fee).unwrap()), Some(entry.sats("taker_balance_after")));
    }
    report(FILE, "match_deltas", file.list("match_deltas").len());
    for entry in file.list("quotes") {
        let max = SatPerKw::new(entry.u64("max_batch_fee_rate"));
        let (amount, least) = (entry.sats("amount"), entry.sats("min_chan_amount"));
        let quote = quote(amount, least, rate(entry, "rate"), duration(entry), max, &fee(entry)).unwrap();
        assert_eq!(quote.premium, entry.sats("total_premium"), "{entry}");
        assert_eq!(quote.execution_fee, entry.sats("total_execution_fee"), "{entry}");
        assert_eq!(quote.worst_chain_fee, entry.sats("worst_case_chain_fee"), "{entry}");
        let rate = entry.u64("rate");
        assert_eq!(entry.text("rate_per_block"), format!("0.{rate:09}000"));
    }
    report(FILE, "quotes", file.list("quotes").len());
}

#[test]
fn reserves_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    for entry in file.list("reserved_values") {
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
        assert_eq!(reserved, Ok(entry.sats("reserved")), "{entry}");
    }
    report(FILE, "reserved_values", file.list("reserved_values").len());
}

pub(crate) fn state(name: &str) -> OrderState {
    match name {
        "submitted" => OrderState::Submitted,
        "cleared" => OrderState::Cleared,
        "partially_filled" => OrderState::PartiallyFilled,
        "executed" => OrderState::Executed,
        "canceled" => OrderState::Canceled,
        "expired" => OrderState::Expired,
        "failed" => OrderState::Failed,
        other => panic!("state {other}"),
    }
}

#[test]
fn confirmations_are_the_networks() {
    let Some(file) = load("num_confs.json") else { return };
    for entry in file.list("vectors") {
        let needed = confirmations_needed(entry.sats("value"), entry.sats("max_account_value"));
        assert_eq!(needed, entry.u32("num_confs"), "{entry}");
    }
    report("num_confs.json", "vectors", file.list("vectors").len());
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
    for entry in file.list("vectors") {
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
            assert_eq!(entry.text("result"), "dust");
            assert!(matches!(closed, Err(SpendError::Dust { .. })), "{entry}: {closed:?}");
        }
    }
    report("close_outputs.json", "vectors", file.list("vectors").len());
}
