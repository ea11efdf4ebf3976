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

/// A trader on the other side.
fn trader(draw: &mut Draw) -> (NodeId, AccountKey) {
    (NodeId::new(point(&secret(draw))), AccountKey::new(point(&secret(draw))))
}

/// A bid of one unit, with a funding key of its own.
fn buyer(draw: &mut Draw, (node, account): (NodeId, AccountKey), kind: OrderChannelType) -> BookOrder {
    let owner = owner(draw, node, account);
    order(draw, owner, false, &wish(kind, 1), RATE)
}

/// Who stands on the other side of the matches.
#[derive(Clone, Copy)]
enum Others {
    /// Another trader for each match: the worst case.
    Distinct,
    /// Ten traders in turn.
    Ten,
}

fn case(size: Size, kind: OrderChannelType, others: Others) -> Case {
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
    let ten: Vec<(NodeId, AccountKey)> = (0..10).map(|_| trader(draw)).collect();
    for seller in &sellers {
        let matches = (0..units).map(|index| {
            let other = match others {
                Others::Distinct => trader(draw),
                Others::Ten => ten[usize::try_from(index % 10).unwrap()],
            };
            let bid = buyer(draw, other, kind);
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

fn bench_judge(bencher: Bencher<'_, '_>, size: Size, kind: OrderChannelType, others: Others) {
    let case = case(size, kind, others);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| judge(black_box(&case)));
}

#[divan::bench(args = SIZES)]
fn default_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::PeerDependent, Others::Distinct);
}

#[divan::bench(args = SIZES)]
fn default_channels_with_ten_traders(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::PeerDependent, Others::Ten);
}

#[divan::bench(args = SIZES)]
fn simple_taproot_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::SimpleTaproot, Others::Distinct);
}

#[divan::bench(args = SIZES)]
fn simple_taproot_channels_with_ten_traders(bencher: Bencher<'_, '_>, size: Size) {
    bench_judge(bencher, size, OrderChannelType::SimpleTaproot, Others::Ten);
}

/// Reading alone: bytes to types.
#[divan::bench(args = SIZES)]
fn reading_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let case = case(size, OrderChannelType::PeerDependent, Others::Distinct);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| {
        let message = poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap();
        wire::from_prepare(message).unwrap()
    });
}

/// Decoding alone: bytes to the message as it is on the wire.
#[divan::bench(args = SIZES)]
fn decoding_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let case = case(size, OrderChannelType::PeerDependent, Others::Distinct);
    bencher
        .counter(ItemsCount::new(size.matches))
        .bench_local(|| poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap());
}

/// Judging alone: types to verdict.
#[divan::bench(args = SIZES)]
fn judging_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    let case = case(size, OrderChannelType::PeerDependent, Others::Distinct);
    let prepare = wire::from_prepare(poolrpc::OrderMatchPrepare::decode(&case.message[..]).unwrap()).unwrap();
    bencher
        .counter(ItemsCount::new(size.matches))
        .bench_local(|| verify_prepare(&case.local.view(), &prepare).unwrap());
}

/// What a proposal of this size holds that somebody must compute with.
struct Floor {
    /// A funding key per match.
    keys: Vec<[u8; 33]>,
    others: Vec<PublicKey>,
    own: PublicKey,
    /// Traders on the other side, each with a node and an account.
    traders: u32,
    accounts: u32,
    transaction: Vec<u8>,
    secp: Secp256k1<secp256k1::All>,
}

impl Floor {
    fn new(size: Size, others: Others) -> Floor {
        let draw = &mut Draw::new(8);
        let points: Vec<PublicKey> = (0..size.matches).map(|_| point(&secret(draw))).collect();
        Floor {
            keys: points.iter().map(PublicKey::serialize).collect(),
            others: points,
            own: point(&secret(draw)),
            traders: match others {
                Others::Distinct => size.matches,
                Others::Ten => size.matches.min(10),
            },
            accounts: size.accounts,
            transaction: vec![7; usize::try_from(60 + 43 * size.matches + 84 * size.accounts).unwrap()],
            secp: Secp256k1::new(),
        }
    }

    /// Default channels: each distinct key that is shown is a point; name and script of each channel are hashes, the name
    /// of the transaction too; and there are the accounts.
    fn default_channels(&self) {
        for key in &self.keys {
            black_box(PublicKey::from_slice(black_box(key)).unwrap());
            black_box(sha256_of(&[&key[..32], &key[1..]]));
            black_box(sha256_of(&[&[0x52, 0x21], key, &[0x21], key, &[0x52, 0xae]]));
        }
        for index in 0..self.traders {
            let key = &self.keys[usize::try_from(index).unwrap()];
            black_box((PublicKey::from_slice(black_box(key)).unwrap(), PublicKey::from_slice(black_box(key)).unwrap()));
        }
        (0..self.accounts).for_each(|_| self.account());
        black_box(sha256d::Hash::hash(&self.transaction));
    }

    /// A taproot account: the next batch key, the trader's tweak, the aggregate of both keys, the tweak by the leaf.
    fn account(&self) {
        let next = self.own.add_exp_tweak(&self.secp, &Scalar::ONE).unwrap();
        let tweak = Scalar::from_be_bytes(sha256_of(&[&next.serialize(), &[1; 32], &[2; 33]])).unwrap();
        black_box(self.own.add_exp_tweak(&self.secp, &tweak).unwrap());
        self.aggregate(&self.keys[0], &self.others[0]);
    }

    /// An aggregate with its tweak: one multiplication, one sum, one tweak, three hashes.
    fn aggregate(&self, key: &[u8; 33], other: &PublicKey) {
        let list = sha256_of(&[&[1; 64], key, key]);
        let coefficient = Scalar::from_be_bytes(sha256_of(&[&[1; 64], &list, key])).unwrap();
        let sum = other.mul_tweak(&self.secp, &coefficient).unwrap().combine(&self.own).unwrap();
        let (internal, _) = sum.x_only_public_key();
        let tweak = Scalar::from_be_bytes(sha256_of(&[&[1; 64], &internal.serialize()])).unwrap();
        black_box(internal.add_tweak(&self.secp, &tweak).unwrap());
    }

    /// Simple taproot channels: the same, and an aggregate per match.
    fn simple_taproot_channels(&self) {
        self.default_channels();
        self.keys.iter().zip(&self.others).for_each(|(key, other)| self.aggregate(key, other));
    }
}

fn bench_floor(bencher: Bencher<'_, '_>, size: Size, others: Others, run: fn(&Floor)) {
    let floor = Floor::new(size, others);
    bencher.counter(ItemsCount::new(size.matches)).bench_local(|| run(black_box(&floor)));
}

#[divan::bench(args = SIZES)]
fn floor_of_default_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_floor(bencher, size, Others::Distinct, Floor::default_channels);
}

#[divan::bench(args = SIZES)]
fn floor_of_default_channels_with_ten_traders(bencher: Bencher<'_, '_>, size: Size) {
    bench_floor(bencher, size, Others::Ten, Floor::default_channels);
}

#[divan::bench(args = SIZES)]
fn floor_of_simple_taproot_channels(bencher: Bencher<'_, '_>, size: Size) {
    bench_floor(bencher, size, Others::Distinct, Floor::simple_taproot_channels);
}

#[divan::bench(args = SIZES)]
fn floor_of_simple_taproot_channels_with_ten_traders(bencher: Bencher<'_, '_>, size: Size) {
    bench_floor(bencher, size, Others::Ten, Floor::simple_taproot_channels);
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
