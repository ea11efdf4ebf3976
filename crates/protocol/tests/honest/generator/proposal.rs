//! The batch transaction, and what each trader is told about it.

use super::book::{BookOrder, UNIT};
use super::draw::Draw;
use super::scripts::{funding_script, next, point, secret};
use super::settlement::{Pair, Settlement};
use super::{Trader, World, WorldAccount, outpoint};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::batch::{
    AccountDiff, BatchVersion, EndingState, Finalize, Match, MatchedMarket, Prepare, SignBegin,
};
use tidegate_protocol::bitcoin::absolute::LockTime;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::transaction::Version;
use tidegate_protocol::bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{AccountKey, BatchKey, NodeId, OrderNonce};
use tidegate_protocol::musig2::PublicNonce;
use tidegate_protocol::order::{NodeTier, OrderChannelType, OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::{LocalView, NodeRating};

/// Smallest balance that gets an output.
pub(crate) const DUST: u64 = 435;

/// What one trader knows.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) best_height: BlockHeight,
    pub(crate) batch_version: BatchVersion,
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) orders: BTreeMap<OrderNonce, OwnOrder>,
    pub(crate) extension_now: BlockCount,
    pub(crate) ratings: BTreeMap<NodeId, NodeRating>,
    pub(crate) reject_unrated: bool,
}

impl Local {
    pub(crate) fn view(&self) -> LocalView<'_> {
        LocalView {
            node: self.node,
            best_height: self.best_height,
            batch_version: self.batch_version,
            accounts: &self.accounts,
            orders: &self.orders,
            extension_now: self.extension_now,
            ratings: &self.ratings,
            reject_unrated: self.reject_unrated,
        }
    }
}

/// One channel of a trader, as it must come out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedMatch {
    pub(crate) channel: OutPoint,
    pub(crate) capacity: u64,
    pub(crate) maker: bool,
    pub(crate) units: u32,
    pub(crate) premium: u64,
    pub(crate) execution_fee: u64,
    pub(crate) commitment: CommitmentType,
}

/// All messages to one trader, and what they must lead to.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) local: Local,
    pub(crate) prepare: Prepare,
    pub(crate) sign: SignBegin,
    pub(crate) finalize: Finalize,
    /// Account → itself afterwards, and its chain fee.
    pub(crate) accounts: BTreeMap<AccountKey, (Account, u64)>,
    /// Order → state and units left.
    pub(crate) orders: BTreeMap<OrderNonce, (OrderState, u32)>,
    /// Our nonce and theirs → channel.
    pub(crate) matches: BTreeMap<(OrderNonce, OrderNonce), ExpectedMatch>,
}

/// One batch of the whole market.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) proposals: Vec<Proposal>,
    endings: Vec<Ending>,
    orders: BTreeMap<OrderNonce, (OrderState, u32)>,
}

/// What becomes of one account.
#[derive(Clone, Debug)]
struct Ending {
    trader: usize,
    diff: AccountDiff,
    after: WorldAccount,
    fee: u64,
}

pub(crate) fn commitment(ask: OrderChannelType, bid: OrderChannelType) -> CommitmentType {
    match [ask, bid] {
        types if types.contains(&OrderChannelType::ScriptEnforced) => CommitmentType::ScriptEnforcedLease,
        [OrderChannelType::SimpleTaproot, OrderChannelType::SimpleTaproot] => CommitmentType::SimpleTaproot,
        _ => CommitmentType::Negotiated,
    }
}

/// BIP-69: inputs by the name of the transaction as it is shown, then index.
pub(crate) fn sort_inputs(inputs: &mut [(OutPoint, TxOut)]) {
    inputs.sort_by_key(|(outpoint, _)| (outpoint.txid.to_string(), outpoint.vout));
}

/// BIP-69: outputs by value, then script.
pub(crate) fn sort_outputs(outputs: &mut [TxOut]) {
    outputs.sort_by(|a, b| (a.value, a.script_pubkey.as_bytes()).cmp(&(b.value, b.script_pubkey.as_bytes())));
}

fn index_of(transaction: &Transaction, script: &ScriptBuf) -> u32 {
    u32::try_from(transaction.output.iter().position(|output| output.script_pubkey == *script).unwrap()).unwrap()
}

/// What belongs to the auctioneer: a witness program of any kind.
fn venue_script(draw: &mut Draw) -> ScriptBuf {
    let start: &[u8] = if draw.chance(50) { &[0x51, 0x20] } else { &[0x00, 0x20] };
    ScriptBuf::from_bytes([start, &draw.bytes()].concat())
}

/// A day later: orders come, meet, and are settled. Nothing when nothing meets.
impl World {
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        self.height += self.draw.u32(1, 144);
        let fee_rate = self.draw.between(253, 12_500);
        self.submit(fee_rate);
        let settlement = self.settle(fee_rate)?;
        let extension_now = if self.draw.chance(70) { self.extension } else { self.draw.u32(0, 12_960) };
        let bests: Vec<u32> = self.traders.iter().map(|_| self.height + self.draw.u32(0, 6) - 3).collect();
        let mut endings = Vec::new();
        for (key, (balance, fee)) in &settlement.endings {
            let best = bests[self.accounts[key].trader];
            endings.push(self.ending(*key, *balance, *fee, best, extension_now));
        }
        let (transaction, prev_outputs) = self.transaction(&settlement, &endings);
        let txid = transaction.compute_txid();
        for ending in endings.iter_mut().filter(|ending| ending.diff.ending_state == EndingState::Recreated) {
            let terms = &ending.after.account.terms;
            let script = ending.after.secrets.script(terms.version, terms.expiry.get());
            let vout = index_of(&transaction, &script);
            ending.diff.output_index = Some(vout);
            ending.after.account.outpoint = Some(OutPoint { txid, vout });
        }
        for ending in &mut endings {
            ending.after.account.latest_tx = Some(transaction.clone());
        }
        let orders = self.ending_orders(&settlement);
        let mut proposals = Vec::new();
        for (trader, best) in bests.into_iter().enumerate() {
            if endings.iter().any(|ending| ending.trader == trader) {
                let local = self.local(trader, best, extension_now);
                proposals.push(self.proposal(
                    trader,
                    local,
                    &settlement,
                    &endings,
                    &transaction,
                    &prev_outputs,
                    &orders,
                ));
            }
        }
        Some(Batch { proposals, endings, orders })
    }

    /// The account afterwards, its output's place left open.
    fn ending(&mut self, key: AccountKey, balance: u64, fee: u64, best: u32, extension_now: u32) -> Ending {
        let before = self.accounts[&key].clone();
        let speaks = self.traders[before.trader].batch_version.0;
        let mut after = before.clone();
        after.account.value = Sats::new(balance).unwrap();
        after.account.height_hint = BlockHeight::new(self.height);
        let new_expiry = self.new_expiry(before.account.terms.expiry.get(), speaks, best, extension_now);
        let version = self.new_version(before.account.terms.version, speaks);
        let ending_state = if balance >= DUST {
            after.secrets.batch = next(after.secrets.batch);
            let terms = &mut after.account.terms;
            terms.batch = BatchKey::new(point(&after.secrets.batch));
            terms.version = version;
            terms.expiry = new_expiry.unwrap_or(terms.expiry);
            after.account.state = AccountState::PendingBatch;
            EndingState::Recreated
        } else {
            use EndingState::{DustAddedToFees, DustExtendedOffchain, FullySpent};
            after.account.state = AccountState::PendingClosed;
            self.draw.pick(&[DustExtendedOffchain, DustAddedToFees, FullySpent])
        };
        // A venue names the version also when it stays, or says nothing.
        let stays = version == before.account.terms.version;
        let new_version = if stays && self.draw.chance(30) { 0 } else { number(version) };
        let ending_balance = after.account.value;
        let diff =
            AccountDiff { account: key, ending_balance, ending_state, output_index: None, new_expiry, new_version };
        Ending { trader: before.trader, diff, after, fee }
    }

    fn new_expiry(&mut self, old: u32, speaks: u32, best: u32, extension_now: u32) -> Option<BlockHeight> {
        let latest = best + (3 + self.extension.max(extension_now)).min(52_560);
        let usual = latest.min(self.height + extension_now);
        let found = if self.draw.chance(30) { latest } else { usual };
        let wanted = speaks & 0xf >= 1 && found > old && self.draw.chance(50);
        wanted.then_some(BlockHeight::new(found))
    }

    fn new_version(&mut self, old: AccountVersion, speaks: u32) -> AccountVersion {
        let highest = match (speaks & 0xf >= 10, speaks & 0x20 != 0) {
            (false, _) => AccountVersion::V0,
            (true, false) => AccountVersion::V1,
            (true, true) => AccountVersion::V2,
        };
        if self.draw.chance(40) { old.max(highest) } else { old }
    }

    fn transaction(&mut self, settlement: &Settlement, endings: &[Ending]) -> (Transaction, Vec<TxOut>) {
        let mut inputs = Vec::new();
        for ending in endings {
            let before = &self.accounts[&ending.diff.account];
            let terms = &before.account.terms;
            let script_pubkey = before.secrets.script(terms.version, terms.expiry.get());
            let value = Amount::from_sat(before.account.value.get());
            inputs.push((before.account.outpoint.unwrap(), TxOut { value, script_pubkey }));
        }
        for _ in 0..self.draw.between(1, 3) {
            let value = Amount::from_sat(self.draw.between(100_000, 1_000_000_000));
            let script_pubkey = venue_script(&mut self.draw);
            inputs.push((outpoint(&mut self.draw), TxOut { value, script_pubkey }));
        }
        let mut outputs: Vec<TxOut> = settlement.pairs.iter().map(|pair| self.channel(pair)).collect();
        for ending in endings.iter().filter(|ending| ending.diff.ending_state == EndingState::Recreated) {
            let terms = &ending.after.account.terms;
            let script_pubkey = ending.after.secrets.script(terms.version, terms.expiry.get());
            outputs.push(TxOut { value: Amount::from_sat(ending.diff.ending_balance.get()), script_pubkey });
        }
        let total =
            |outputs: &mut dyn Iterator<Item = &TxOut>| outputs.map(|output| output.value.to_sat()).sum::<u64>();
        let rest = total(&mut inputs.iter().map(|(_, output)| output)) - total(&mut outputs.iter());
        // The venue may leave nothing to the miners but what the traders pay.
        let value = Amount::from_sat(rest - self.draw.between(0, rest.min(20_000)));
        outputs.push(TxOut { value, script_pubkey: venue_script(&mut self.draw) });
        sort_inputs(&mut inputs);
        sort_outputs(&mut outputs);
        let (spent, prev_outputs): (Vec<OutPoint>, Vec<TxOut>) = inputs.into_iter().unzip();
        (unsigned(spent, outputs), prev_outputs)
    }

    fn orders_of(&self, pair: &Pair) -> (&BookOrder, &BookOrder) {
        (&self.orders[&pair.ask], &self.orders[&pair.bid])
    }

    fn channel(&self, pair: &Pair) -> TxOut {
        let (ask, bid) = self.orders_of(pair);
        let commitment = commitment(ask.own.order.channel_type, bid.own.order.channel_type);
        let capacity = u64::from(pair.units) * UNIT + bid.own.order.self_balance().get();
        let script_pubkey = funding_script(&ask.multisig, &bid.multisig, commitment);
        TxOut { value: Amount::from_sat(capacity), script_pubkey }
    }

    fn ending_orders(&self, settlement: &Settlement) -> BTreeMap<OrderNonce, (OrderState, u32)> {
        let mut left = BTreeMap::new();
        for pair in &settlement.pairs {
            for nonce in [pair.ask, pair.bid] {
                let own = &self.orders[&nonce].own;
                let left = left.entry(nonce).or_insert((OrderState::Submitted, own.units_unfulfilled.get()));
                left.1 -= pair.units;
                let done = left.1 == 0 || left.1 < own.order.min_units.get();
                left.0 = if done { OrderState::Executed } else { OrderState::PartiallyFilled };
            }
        }
        left
    }

    fn local(&self, trader: usize, best: u32, extension_now: u32) -> Local {
        let Trader { node, batch_version, reject_unrated, .. } = self.traders[trader];
        let accounts = self.accounts.values().filter(|found| found.trader == trader);
        let orders = self.orders.values().filter(|order| order.owner.trader == trader);
        Local {
            node,
            best_height: BlockHeight::new(best),
            batch_version,
            accounts: accounts.map(|found| (found.account.key(), found.account.clone())).collect(),
            orders: orders.map(|order| (order.own.order.nonce, order.own.clone())).collect(),
            extension_now: BlockCount::new(extension_now),
            ratings: BTreeMap::new(),
            reject_unrated,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn proposal(
        &mut self,
        trader: usize,
        mut local: Local,
        settlement: &Settlement,
        endings: &[Ending],
        transaction: &Transaction,
        prev_outputs: &[TxOut],
        orders: &BTreeMap<OrderNonce, (OrderState, u32)>,
    ) -> Proposal {
        let (mut markets, mut matches) = (BTreeMap::<BlockCount, MatchedMarket>::new(), BTreeMap::new());
        for pair in &settlement.pairs {
            let (ask, bid) = self.orders_of(pair);
            let (ours, theirs, maker) = match trader {
                _ if ask.owner.trader == trader => (ask, bid, true),
                _ if bid.owner.trader == trader => (bid, ask, false),
                _ => continue,
            };
            let market = markets.entry(BlockCount::new(pair.duration)).or_default();
            market.clearing_price = RatePerBillion::new(settlement.prices[&pair.duration]);
            let listed = market.orders.entry(ours.own.order.nonce).or_default();
            listed.push(Match { order: theirs.shown.clone(), units: UnitCount::new(pair.units) });
            let expected = self.expected(pair, maker, transaction);
            matches.insert((ours.own.order.nonce, theirs.own.order.nonce), expected);
        }
        self.rate(&mut local, &markets);
        let own: Vec<&Ending> = endings.iter().filter(|ending| ending.trader == trader).collect();
        let batch_id = BatchKey::new(point(&self.batch));
        let prepare = Prepare {
            batch_id,
            batch_version: local.batch_version,
            height_hint: BlockHeight::new(self.height),
            fee_rate: SatPerKw::new(settlement.fee_rate),
            execution_fee: settlement.fees[trader],
            transaction: transaction.clone(),
            markets,
            accounts: own.iter().map(|ending| ending.diff).collect(),
        };
        let draw = &mut self.draw;
        let taproot =
            own.iter().filter(|ending| local.accounts[&ending.diff.account].terms.version != AccountVersion::V0);
        let server_nonces = taproot.map(|ending| (ending.diff.account, nonces(draw))).collect();
        let name = batch_id.serialize().to_vec();
        let mut txid = transaction.compute_txid().to_byte_array();
        if draw.chance(30) {
            txid.reverse();
        }
        Proposal {
            sign: SignBegin { batch_id: name.clone(), server_nonces, prev_outputs: prev_outputs.to_vec() },
            finalize: Finalize { batch_id: name, txid: Txid::from_byte_array(txid) },
            accounts: own.iter().map(|e| (e.diff.account, (e.after.account.clone(), e.fee))).collect(),
            orders: orders
                .iter()
                .filter(|(nonce, _)| local.orders.contains_key(*nonce))
                .map(|(n, o)| (*n, *o))
                .collect(),
            matches,
            prepare,
            local,
        }
    }

    fn expected(&self, pair: &Pair, maker: bool, transaction: &Transaction) -> ExpectedMatch {
        let (ask, bid) = self.orders_of(pair);
        let channel = self.channel(pair);
        ExpectedMatch {
            channel: OutPoint { txid: transaction.compute_txid(), vout: index_of(transaction, &channel.script_pubkey) },
            capacity: channel.value.to_sat(),
            maker,
            units: pair.units,
            premium: pair.outcome.premium,
            execution_fee: if maker { pair.outcome.maker_fee } else { pair.outcome.taker_fee },
            commitment: commitment(ask.own.order.channel_type, bid.own.order.channel_type),
        }
    }

    /// What the trader knows of the sellers: good, bad where it does not matter, old, or nothing.
    fn rate(&mut self, local: &mut Local, markets: &BTreeMap<BlockCount, MatchedMarket>) {
        let draw = &mut self.draw;
        let mut picky = BTreeSet::new();
        let mut easy = BTreeSet::new();
        for (nonce, matches) in markets.values().flat_map(|market| &market.orders) {
            let Some(bid) = local.orders[nonce].order.bid() else { continue };
            let nodes = matches.iter().map(|matched| matched.order.node);
            if bid.min_node_tier == NodeTier::Tier1 { picky.extend(nodes) } else { easy.extend(nodes) }
        }
        for node in &picky {
            let (known, good) = (local.reject_unrated || draw.chance(40), draw.chance(50));
            let age_seconds = if known { draw.between(0, 86_399) } else { draw.between(86_400, 999_999) };
            let tier = if known || good { NodeTier::Tier1 } else { NodeTier::Tier0 };
            if known || good || draw.chance(50) {
                local.ratings.insert(*node, NodeRating { tier, age_seconds });
            }
        }
        for node in easy.difference(&picky) {
            local.ratings.insert(*node, NodeRating { tier: NodeTier::Tier0, age_seconds: 0 });
        }
    }

    /// The batch confirms, and everybody goes on from there.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        self.batch = next(self.batch);
        for ending in &batch.endings {
            let key = ending.diff.account;
            if ending.after.account.state == AccountState::PendingBatch {
                let mut after = ending.after.clone();
                if self.draw.chance(50) {
                    after.account.state = AccountState::Open;
                }
                self.accounts.insert(key, after);
            } else {
                self.accounts.remove(&key);
                self.orders.retain(|_, order| order.owner.account != key);
            }
        }
        for (nonce, (state, left)) in &batch.orders {
            let Some(order) = self.orders.get_mut(nonce) else { continue };
            (order.own.state, order.own.units_unfulfilled) = (*state, UnitCount::new(*left));
        }
        self.orders.retain(|_, order| !order.own.state.is_archived());
    }
}

pub(crate) fn number(version: AccountVersion) -> u32 {
    match version {
        AccountVersion::V0 => 0,
        AccountVersion::V1 => 1,
        AccountVersion::V2 => 2,
    }
}

pub(crate) fn nonces(draw: &mut Draw) -> PublicNonce {
    let halves = [secret(draw), secret(draw)].map(|half| point(&half).serialize());
    PublicNonce(halves.concat().try_into().unwrap())
}

pub(crate) fn unsigned(spent: Vec<OutPoint>, output: Vec<TxOut>) -> Transaction {
    let input = spent.into_iter().map(|previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ZERO,
        witness: Witness::new(),
    });
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: input.collect(), output }
}
