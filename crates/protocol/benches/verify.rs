//! How long judging a proposal takes, from the bytes of the message to the verdict, beside the operations on points and
//! the hashes that nobody can leave out. Run with `cargo bench -p tidegate-protocol`.

#![allow(missing_docs, reason = "the library of benches makes functions of its own")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

#[path = "../tests/honest/generator/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which look at more")]
mod generator;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use generator::book::{BookOrder, Owner, UNIT, Wish, order};
use generator::draw::Draw;
use generator::money::{Terms, chain_fee, outcome, signed};
use generator::proposal::{Local, sort_inputs, sort_outputs, unsigned};
use generator::scripts::{self, AccountSecrets, funding_script, point, secret, sha256_of};
use prost::Message;
use std::collections::BTreeMap;
use std::fmt;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::batch::{AccountDiff, BatchVersion, EndingState, Match, MatchedMarket, Prepare};
use tidegate_protocol::bitcoin::hashes::{Hash, sha256d};
use tidegate_protocol::bitcoin::secp256k1::{self, PublicKey, Scalar, Secp256k1};
use tidegate_protocol::bitcoin::{Amount, OutPoint, TxOut};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, KeyLocator, MultisigKey, NodeId, SharedSecret};
use tidegate_protocol::order::{AuctionType, OrderChannelType};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::verify_prepare;
use tidegate_wire::{batch as wire, poolrpc};

const DURATION: u32 = 2_016;
const PRICE: u32 = 1_000;
const RATE: u64 = 500;
const HEIGHT: u32 = 850_000;
const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 };

/// Matches in the message, and accounts of ours over which they are spread.
#[derive(Clone, Copy)]
struct Size {
    matches: u32,
    accounts: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} matches, {} accounts", self.matches, self.accounts)
    }
}

const SIZES: [Size; 7] = [
    Size { matches: 1, accounts: 1 },
    Size { matches: 10, accounts: 1 },
    Size { matches: 10, accounts: 5 },
    Size { matches: 100, accounts: 1 },
    Size { matches: 100, accounts: 5 },
    Size { matches: 1_000, accounts: 1 },
    Size { matches: 1_000, accounts: 5 },
];

/// What a trader knows, and a proposal that it accepts.
struct Case {
    local: Local,
    message: Vec<u8>,
}

/// An account of ours, and the ask behind it.
struct Seller {
    secrets: AccountSecrets,
    account: Account,
    ask: BookOrder,
}

fn owner(draw: &mut Draw, node: NodeId, account: AccountKey) -> Owner {
    let (batch_version, extension) = (BatchVersion(58), BlockCount::new(3_024));
    let trader = usize::from(draw.chance(50));
    Owner { trader, account, node, batch_version, fee: FEE, extension }
}

fn wish(channel_type: OrderChannelType, units: u32) -> Wish {
    Wish {
        auction: AuctionType::Inbound,
        duration: DURATION,
        channel_type,
        unannounced: channel_type == OrderChannelType::SimpleTaproot,
        zero_conf: false,
        rate: PRICE,
        units,
        self_balance: false,
    }
}

fn seller(draw: &mut Draw, node: NodeId, kind: OrderChannelType, units: u32) -> Seller {
    let secrets = AccountSecrets { trader: secret(draw), auctioneer: secret(draw), batch: secret(draw) };
    let terms = AccountTerms {
        version: AccountVersion::V2,
        trader: AccountKey::new(point(&secrets.trader)),
        auctioneer: AuctioneerKey::new(point(&secrets.auctioneer)),
        batch: BatchKey::new(point(&secrets.batch)),
        secret: SharedSecret::new(secrets.shared()),
        expiry: BlockHeight::new(HEIGHT + 4_000),
    };
    let account = Account {
        terms,
        locator: KeyLocator { family: 220, index: 0 },
        value: Sats::new(u64::from(units) * UNIT * 2).unwrap(),
        state: AccountState::Open,
        height_hint: BlockHeight::new(HEIGHT),
        outpoint: Some(generator::outpoint(draw)),
        latest_tx: None,
    };
    let owner = owner(draw, node, terms.trader);
    let mut ask = order(draw, owner, true, &wish(kind, units), RATE);
    ask.own.order.denied_nodes.clear();
    ask.own.order.min_units = UnitCount::new(1);
    Seller { secrets, account, ask }
}

/// A bid of one unit from a node, an account and a key that appear once.
fn buyer(draw: &mut Draw, kind: OrderChannelType) -> BookOrder {
    let (node, account) = (NodeId::new(point(&secret(draw))), AccountKey::new(point(&secret(draw))));
    let owner = owner(draw, node, account);
    order(draw, owner, false, &wish(kind, 1), RATE)
}

fn case(size: Size, kind: OrderChannelType) -> Case {
    let draw = &mut Draw::new(7);
    let node = NodeId::new(point(&secret(draw)));
    let units = size.matches / size.accounts;
    let sellers: Vec<Seller> = (0..size.accounts).map(|_| seller(draw, node, kind, units)).collect();
    let terms =
        Terms { auction: AuctionType::Inbound, filled: UNIT, self_balance: 0, price: PRICE, duration: DURATION };
    let change = outcome(&terms, &FEE, &FEE).maker * i64::from(units);
    let fee = chain_fee(units.into(), RATE, AccountVersion::V2);
    let commitment = if kind == OrderChannelType::SimpleTaproot {
        CommitmentType::SimpleTaproot
    } else {
        CommitmentType::Negotiated
    };
    let (mut market, mut outputs, mut inputs, mut endings) =
        (MatchedMarket::default(), Vec::new(), Vec::new(), Vec::new());
    market.clearing_price = RatePerBillion::new(PRICE);
    for seller in &sellers {
        let matches = (0..units).map(|_| {
            let bid = buyer(draw, kind);
            let script_pubkey = funding_script(&seller.ask.multisig, &bid.multisig, commitment);
            outputs.push(TxOut { value: Amount::from_sat(UNIT), script_pubkey });
            Match { order: bid.shown, units: UnitCount::new(1) }
        });
        market.orders.insert(seller.ask.own.order.nonce, matches.collect());
        let value = signed(seller.account.value.get()) + change - signed(fee);
        let next = AccountSecrets { batch: scripts::next(seller.secrets.batch), ..seller.secrets };
        let script_pubkey = next.script(AccountVersion::V2, seller.account.terms.expiry.get());
        outputs.push(TxOut {
            value: Amount::from_sat(u64::try_from(value).unwrap()),
            script_pubkey: script_pubkey.clone(),
        });
        endings.push((seller.account.key(), value, script_pubkey));
        inputs.push((seller.account.outpoint.unwrap(), TxOut::NULL));
    }
    sort_inputs(&mut inputs);
    sort_outputs(&mut outputs);
    let diffs = endings.iter().map(|(account, value, script)| AccountDiff {
        account: *account,
        ending_balance: Sats::new(u64::try_from(*value).unwrap()).unwrap(),
        ending_state: EndingState::Recreated,
        output_index: u32::try_from(outputs.iter().position(|output| output.script_pubkey == *script).unwrap()).ok(),
        new_expiry: None,
        new_version: 2,
    });
    let prepare = Prepare {
        batch_id: BatchKey::new(point(&secret(draw))),
        batch_version: BatchVersion(58),
        height_hint: BlockHeight::new(HEIGHT),
        fee_rate: SatPerKw::new(RATE),
        execution_fee: FEE,
        accounts: diffs.collect(),
        transaction: unsigned(inputs.into_iter().map(|(spent, _): (OutPoint, TxOut)| spent).collect(), outputs),
        markets: BTreeMap::from([(BlockCount::new(DURATION), market)]),
    };
    let local = Local {
        node,
        best_height: BlockHeight::new(HEIGHT),
        batch_version: BatchVersion(58),
        accounts: sellers.iter().map(|seller| (seller.account.key(), seller.account.clone())).collect(),
        orders: sellers.iter().map(|seller| (seller.ask.own.order.nonce, seller.ask.own.clone())).collect(),
        extension_now: BlockCount::new(3_024),
        ratings: BTreeMap::new(),
        reject_unrated: false,
    };
    let message = wire::to_prepare(&prepare).unwrap().encode_to_vec();
    judge(&Case { local: local.clone(), message: message.clone() });
    Case { local, message }
}

/// Bytes in, verdict out.
fn judge(case: &Case) {
    let message = poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap();
    let prepare = wire::from_prepare(message).unwrap();
    black_box(verify_prepare(&case.local.view(), &prepare).unwrap());
}

fn bench_judge(bencher: Bencher<'_, '_>, size: Size, kind: OrderChannelType) {
    let case = case(size, kind);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| judge(black_box(&case)));
}

#[divan::bench(args = SIZES)]
fn default_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::PeerDependent);
}

#[divan::bench(args = SIZES)]
fn simple_taproot_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::SimpleTaproot);
}

/// Reading alone: bytes to types.
#[divan::bench(args = SIZES)]
fn reading_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let case = case(size, OrderChannelType::PeerDependent);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| {
        let message = poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap();
        wire::from_prepare(message).unwrap()
    });
}

/// Judging alone: types to verdict.
#[divan::bench(args = SIZES)]
fn judging_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let case = case(size, OrderChannelType::PeerDependent);
    let prepare = wire::from_prepare(poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap()).unwrap();
    bencher
        .counter(ItemsCount::new(size.matches))
        .bench_local(|| verify_prepare(&case.local.view(), &prepare).unwrap());
}

/// The points and the bytes that a proposal of this size holds.
struct Raw {
    keys: Vec<[u8; 33]>,
    transaction: Vec<u8>,
}

fn raw(size: Size) -> Raw {
    let draw = &mut Draw::new(8);
    let keys = (0..size.matches).map(|_| point(&secret(draw)).serialize()).collect();
    Raw { keys, transaction: vec![7; usize::try_from(60 + 43 * size.matches + 84 * size.accounts).unwrap()] }
}

/// Node and funding key of each match are points; names and scripts are hashes; the transaction has a name.
fn default_floor(raw: &Raw) {
    for key in &raw.keys {
        black_box((PublicKey::from_slice(key).unwrap(), PublicKey::from_slice(key).unwrap()));
        black_box(sha256_of(&[&key[..32], &key[1..]]));
        black_box(sha256_of(&[&[0x52, 0x21], key, &[0x21], key, &[0x52, 0xae]]));
    }
    black_box(sha256d::Hash::hash(&raw.transaction));
}

/// Lower bound of default channels: two points, two hashes each.
#[divan::bench(args = SIZES)]
fn floor_of_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let raw = raw(size);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| default_floor(black_box(&raw)));
}

/// Lower bound of simple taproot channels: the same, and per match one multiplication, one sum, one tweak, four hashes.
#[divan::bench(args = SIZES)]
fn floor_of_simple_taproot_channels(bencher: Bencher<'_, '_>, size: Size) {
    let (raw, secp) = (raw(size), Secp256k1::new());
    let own = point(&secret(&mut Draw::new(9)));
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| {
        default_floor(&raw);
        for key in &raw.keys {
            let other = PublicKey::from_slice(key).unwrap();
            let list = sha256_of(&[&[1; 64], key, key]);
            let coefficient = Scalar::from_be_bytes(sha256_of(&[&[1; 64], &list, key])).unwrap();
            let sum = other.mul_tweak(&secp, &coefficient).unwrap().combine(&own).unwrap();
            let (internal, _) = sum.x_only_public_key();
            let tweak = Scalar::from_be_bytes(sha256_of(&[&[1; 64], &internal.serialize()])).unwrap();
            black_box(internal.add_tweak(&secp, &tweak).unwrap());
        }
    });
}

/// One verification of an ECDSA signature: the yardstick of this machine.
#[divan::bench]
fn ecdsa_verification(bencher: Bencher<'_, '_>) {
    let secp = Secp256k1::new();
    let key = secret(&mut Draw::new(10));
    let message = secp256k1::Message::from_digest([9; 32]);
    let (signature, public) = (secp.sign_ecdsa(&message, &key), point(&key));
    bencher.bench_local(|| secp.verify_ecdsa(&message, &signature, &public).unwrap());
}

/// Reading one point.
#[divan::bench]
fn point_parsing(bencher: Bencher<'_, '_>) {
    let key = MultisigKey::new(point(&secret(&mut Draw::new(11)))).serialize();
    bencher.bench_local(|| PublicKey::from_slice(black_box(&key)).unwrap());
}

fn main() {
    divan::main();
}
