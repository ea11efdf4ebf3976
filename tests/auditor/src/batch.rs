//! A proposed batch, judged from the account's and the orders' history.
//!
//! # Source
//! Protocol notes, batch §2, §4, §6 and §7, scripts §7.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Sequence, Transaction, TxOut, consensus};

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::keys::next_batch_key;
use crate::money::{MIN_NO_DUST_SAT, MatchTerms, chain_fee_sat};
use crate::script::{funding_script, is_taproot_channel};
use crate::state::{
    Account, AccountLine, BatchRecord, Common, Key, MatchLine, Nonce, Order, OrderRecord, Output, Proposal,
};
use crate::wire::{ask, bid, hash, hexed, key, rpc, unhexed};

/// Longest life of an account from the best height, and the tolerance of heights.
const MAX_EXPIRY_BLOCKS: u32 = 52_560;
const HEIGHT_TOLERANCE: u32 = 3;
/// First ask version that takes bids with a self balance.
const SELF_BALANCE_ASK_VERSION: u32 = 4;

/// What the matches do to one account.
#[derive(Debug, Default)]
struct Tally {
    delta_sat: i128,
    channels: u64,
}

/// The judgement of one prepare message.
struct Judge<'a> {
    auditor: &'a Auditor,
    caller: &'a Caller,
    common: Common,
    tx: Transaction,
    problems: Problems,
    tallies: BTreeMap<Key, Tally>,
    matches: Vec<MatchLine>,
    lines: Vec<AccountLine>,
    /// Outputs that are explained already.
    claimed: BTreeSet<u32>,
    /// Matches of orders that were cancelled before this was heard: breaches if the trader accepts them.
    stale: usize,
}

impl Auditor {
    pub(crate) fn prepared(&mut self, caller: &Caller, prepare: &rpc::OrderMatchPrepare) {
        self.counts.proposals += 1;
        self.current.remove(caller);
        let mut problems = Problems::default();
        let Some((common, tx)) = read(prepare, &mut problems) else {
            return self.report(Party::Venue, Some(caller), problems);
        };
        self.settle_parents(caller, &tx);
        self.next_round(&tx, &common);
        let mut judge = Judge {
            auditor: self,
            caller,
            common,
            tx,
            problems,
            tallies: BTreeMap::new(),
            matches: Vec::new(),
            lines: Vec::new(),
            claimed: BTreeSet::new(),
            stale: 0,
        };
        judge.transaction_form();
        judge.markets(prepare);
        judge.accounts(prepare);
        judge.inputs();
        judge.other_views();
        let Judge { common, tx, problems, matches, lines, stale, .. } = judge;
        let txid = tx.compute_txid();
        let mut proposal = Proposal {
            common: common.clone(),
            txid,
            tx,
            lines,
            matches,
            breaches: problems.0.len() + stale,
            accepted: false,
            begun: None,
            signed: false,
            settled: false,
        };
        self.report(Party::Venue, Some(caller), problems);
        let known = self.batches.get(&txid).and_then(|record| record.views.get(caller));
        if let Some(known) = known.filter(|known| known.says_the_same(&proposal)) {
            // Told again, word for word: what came of it stays.
            proposal = known.clone();
        }
        let fresh = || BatchRecord {
            common,
            spent: None,
            views: BTreeMap::new(),
            signatures: BTreeMap::new(),
            conserved: false,
        };
        self.batches.entry(txid).or_insert_with(fresh).views.insert(caller.clone(), proposal);
        self.current.insert(caller.clone(), txid);
    }

    /// A batch that spends what an earlier, signed batch or modification makes tells that the earlier one counts: its
    /// finalize, or its place on the chain, was missed.
    fn settle_parents(&mut self, caller: &Caller, tx: &Transaction) {
        for input in &tx.input {
            self.settle(caller, input.previous_output.txid);
            let spent = input.previous_output;
            let owners = self.accounts.values_mut().filter(|account| account.owner == *caller);
            let owner = owners.into_iter().find(|account| account.output(&spent).is_some());
            owner.into_iter().for_each(|account| account.current = Some(spent));
        }
    }

    /// A round that came to nothing may be repeated with the same transaction at a greater height. Who was told of the
    /// earlier one only is told again before it signs: that is judged on the chain.
    fn next_round(&mut self, tx: &Transaction, common: &Common) {
        if let Some(record) = self.batches.get_mut(&tx.compute_txid())
            && record.common.height_hint < common.height_hint
            && record.views.values().all(|view| !view.settled)
        {
            record.common.height_hint = common.height_hint;
            record.spent = None;
        }
    }

    /// The matches of a batch count: its outputs are the accounts' current ones, its fills leave the orders. Once per
    /// trader and batch.
    pub(crate) fn settle(&mut self, caller: &Caller, txid: bitcoin::Txid) {
        let view = self.batches.get_mut(&txid).and_then(|record| record.views.get_mut(caller));
        let Some(view) = view.filter(|view| view.signed && !view.settled) else { return };
        view.settled = true;
        for line in &view.lines {
            if let Some(account) = self.accounts.get_mut(&line.key) {
                account.current = line.after.as_ref().map(|output| output.outpoint);
            }
        }
        for line in &view.matches {
            if let Some(record) = self.orders.get_mut(&line.own) {
                record.order.units_open = record.order.units_open.saturating_sub(line.units);
                let rest = record.order.units_open;
                record.closed |= rest == 0 || rest < record.order.min_units;
            }
        }
    }
}

/// What all traders are told alike, and the transaction.
fn read(prepare: &rpc::OrderMatchPrepare, problems: &mut Problems) -> Option<(Common, Transaction)> {
    let Ok(tx) = consensus::deserialize::<Transaction>(&prepare.batch_transaction) else {
        problems.add(Rule::Decoding, &"batch", "a transaction", &hexed(&prepare.batch_transaction));
        return None;
    };
    let Some(fee) = &prepare.execution_fee else {
        problems.add(Rule::Decoding, &"batch", "an execution fee", &"none");
        return None;
    };
    if PublicKey::from_slice(&prepare.batch_id).is_err() {
        problems.add(Rule::Decoding, &"batch", "a point as batch id", &hexed(&prepare.batch_id));
        return None;
    }
    let markets = prepare.matched_markets.iter();
    let common = Common {
        id: prepare.batch_id.clone(),
        prices: markets.map(|(blocks, market)| (*blocks, market.clearing_price_rate)).collect(),
        base_fee_sat: fee.base_fee,
        fee_ppm: fee.fee_rate,
        fee_rate_sat_per_kw: prepare.fee_rate_sat_per_kw,
        height_hint: prepare.batch_height_hint,
    };
    Some((common, tx))
}

/// An own order together with the counterpart of one match.
struct Pair<'a> {
    own: &'a OrderRecord,
    other: Order,
    units: u32,
    price: u32,
}

impl Pair<'_> {
    fn bid(&self) -> &Order {
        if self.own.order.is_ask { &self.other } else { &self.own.order }
    }

    fn ask(&self) -> &Order {
        if self.own.order.is_ask { &self.own.order } else { &self.other }
    }
}

impl Judge<'_> {
    fn transaction_form(&mut self) {
        let tx = &self.tx;
        let problems = &mut self.problems;
        let rule = Rule::TransactionForm;
        problems.equal(rule, "batch transaction, version", &Version::TWO, &tx.version);
        problems.equal(rule, "batch transaction, lock time", &LockTime::ZERO, &tx.lock_time);
        let plain = tx
            .input
            .iter()
            .all(|input| input.sequence == Sequence::ZERO && input.script_sig.is_empty() && input.witness.is_empty());
        problems.demand(plain, rule, "batch transaction", "inputs with sequence zero and no scripts", &"others");
        let sorted = tx.input.windows(2).all(|pair| bip69_input(&pair[0].previous_output, &pair[1].previous_output))
            && tx.output.windows(2).all(|pair| bip69_output(&pair[0], &pair[1]));
        problems.demand(sorted, rule, "batch transaction", "BIP-69 order and no input twice", &"another order");
    }

    fn markets(&mut self, prepare: &rpc::OrderMatchPrepare) {
        for (blocks, market) in &prepare.matched_markets {
            for (nonce, matched) in &market.matched_orders {
                self.order(*blocks, market.clearing_price_rate, nonce, matched);
            }
        }
        // The flat fields restate the market of 2,016 blocks for old clients; zero where they are not used.
        #[expect(deprecated, reason = "what old clients are told has to be true as well")]
        let flat = prepare.clearing_price_rate;
        let price = self.common.prices.get(&2_016).copied().unwrap_or_default();
        if flat != 0 && price != 0 {
            self.problems.equal(Rule::OneBatch, "price of 2,016 blocks", &price, &flat);
        }
    }

    fn order(&mut self, blocks: u32, price: u32, nonce: &str, matched: &rpc::MatchedOrder) {
        let subject = format!("order {nonce}");
        let auditor = self.auditor;
        let own = unhexed(nonce).and_then(|nonce| hash(&nonce)).and_then(|nonce| auditor.orders.get(&nonce));
        let Some(own) = own.filter(|own| own.caller == *self.caller) else {
            self.problems.add(Rule::KnownOrder, &subject, "an order of the receiver", &"another");
            return;
        };
        self.problems.demand(!own.closed, Rule::KnownOrder, &subject, "an open order", &"a closed one");
        self.stale += usize::from(own.cancelled && !own.closed);
        self.problems.equal(Rule::MatchKind, &format!("{subject}, duration"), &own.order.blocks, &blocks);
        let sides = (!matched.matched_asks.is_empty(), !matched.matched_bids.is_empty());
        self.problems.equal(
            Rule::MatchKind,
            &format!("{subject}, asks and bids"),
            &(!own.order.is_ask, own.order.is_ask),
            &sides,
        );
        let asks = matched.matched_asks.iter().map(|one| (one.ask.as_ref().and_then(ask), one.units_filled));
        let bids = matched.matched_bids.iter().map(|one| (one.bid.as_ref().and_then(bid), one.units_filled));
        let mut filled = 0_u64;
        for (other, units) in asks.chain(bids) {
            let Some(other) = other else {
                self.problems.add(Rule::Decoding, &subject, "a counterpart's order", &"other bytes");
                continue;
            };
            filled = filled.saturating_add(u64::from(units));
            self.pair(&Pair { own, other, units, price });
        }
        let open = u64::from(own.order.units_open);
        self.problems.demand(filled <= open, Rule::UnitsOpen, &subject, &format!("at most {open} units"), &filled);
        self.limits(own);
    }

    /// What the batch as a whole owes one of the matched orders.
    fn limits(&mut self, own: &OrderRecord) {
        let subject = format!("order {}", hexed(&own.order.nonce));
        let (max, rate) = (own.order.max_fee_rate_sat_per_kw, self.common.fee_rate_sat_per_kw);
        self.problems.demand(rate <= max, Rule::FeeRateLimit, &subject, &format!("at most {max} sat/kw"), &rate);
        let Some((base, ppm)) = own.quoted else { return };
        let within = self.common.base_fee_sat <= base && self.common.fee_ppm <= ppm;
        let found = format!("{} sat and {} ppm", self.common.base_fee_sat, self.common.fee_ppm);
        self.problems.demand(
            within,
            Rule::ExecutionFee,
            &subject,
            &format!("at most {base} sat and {ppm} ppm"),
            &found,
        );
    }

    fn pair(&mut self, pair: &Pair<'_>) {
        self.pair_kind(pair);
        self.pair_constraints(pair);
        self.counterpart(pair);
        let own = &pair.own.order;
        let bid = pair.bid();
        let terms = MatchTerms {
            maker: own.is_ask,
            outbound: own.outbound,
            units: pair.units,
            self_balance_sat: bid.self_balance_sat,
            rate_ppb: pair.price,
            blocks: bid.blocks,
            base_fee_sat: self.common.base_fee_sat,
            fee_ppm: self.common.fee_ppm,
        };
        let tally = self.tallies.entry(own.account_key).or_default();
        tally.delta_sat += terms.delta_sat();
        tally.channels += 1;
        let vout = self.channel(pair, terms.capacity_sat());
        self.matches.push(MatchLine {
            ask: pair.ask().nonce,
            bid: bid.nonce,
            units: pair.units,
            capacity_sat: terms.capacity_sat(),
            fee_sat: terms.execution_fee_sat(),
            vout,
            own: own.nonce,
        });
    }

    /// The channel output of a match: the first unclaimed one with its script and value.
    fn channel(&mut self, pair: &Pair<'_>, capacity_sat: u64) -> Option<u32> {
        let (own, other) = (&pair.own.order, &pair.other);
        let keys = (PublicKey::from_slice(&own.multisig_key).ok(), PublicKey::from_slice(&other.multisig_key).ok());
        let taproot = is_taproot_channel(own.channel_type, other.channel_type);
        let script = keys.0.zip(keys.1).and_then(|(one, two)| funding_script(taproot, &one, &two));
        let outputs = (0_u32..).zip(&self.tx.output);
        let mut fitting = outputs.filter(|(vout, output)| {
            !self.claimed.contains(vout)
                && output.value.to_sat() == capacity_sat
                && script.as_ref() == Some(&output.script_pubkey)
        });
        let vout = fitting.next().map(|(vout, _)| vout);
        match vout {
            Some(vout) => {
                self.claimed.insert(vout);
            }
            None => {
                let subject = format!("match of {} and {}", hexed(&own.nonce), hexed(&other.nonce));
                let script = script.map(|script| script.to_hex_string()).unwrap_or_default();
                let expected = format!("its own output of {capacity_sat} sat to {script}");
                self.problems.add(Rule::ChannelOutput, &subject, &expected, &"none");
            }
        }
        vout
    }

    fn pair_kind(&mut self, pair: &Pair<'_>) {
        let (own, other) = (&pair.own.order, &pair.other);
        let subject = format!("match of {} and {}", hexed(&own.nonce), hexed(&other.nonce));
        let problems = &mut self.problems;
        problems.equal(Rule::MatchKind, &format!("{subject}, side"), &!own.is_ask, &other.is_ask);
        problems.equal(Rule::MatchKind, &format!("{subject}, outbound"), &own.outbound, &other.outbound);
        problems.equal(Rule::MatchKind, &format!("{subject}, duration"), &own.blocks, &other.blocks);
        let stranger = own.node_key != other.node_key
            && own.nonce != other.nonce
            && own.multisig_key != other.multisig_key
            && self.auditor.accounts.get(&other.account_key).is_none_or(|account| account.owner != *self.caller);
        problems.demand(stranger, Rule::SelfMatch, &subject, "another trader", &hexed(&other.node_key));
        let (low, high) = (pair.ask().rate_ppb, pair.bid().rate_ppb);
        let within = low <= pair.price && pair.price <= high;
        problems.demand(within, Rule::PriceLimit, &subject, &format!("a price from {low} to {high}"), &pair.price);
        let (min, max) = (own.min_units.max(1), own.units_open);
        let expected = format!("{min} to {max} units");
        problems.demand(own.outbound || pair.units >= min, Rule::UnitsMinimum, &subject, &expected, &pair.units);
        let (other_max, rate) = (other.max_fee_rate_sat_per_kw, self.common.fee_rate_sat_per_kw);
        let expected = format!("at most {other_max} sat/kw");
        problems.demand(rate <= other_max, Rule::FeeRateLimit, &subject, &expected, &rate);
    }

    fn pair_constraints(&mut self, pair: &Pair<'_>) {
        let (own, other) = (&pair.own.order, &pair.other);
        let (ask, bid) = (pair.ask(), pair.bid());
        let subject = format!("match of {} and {}", hexed(&own.nonce), hexed(&other.nonce));
        let listed = |list: &[Vec<u8>]| list.iter().any(|node| *node == other.node_key);
        let permitted = if own.allowed.is_empty() { !listed(&own.denied) } else { listed(&own.allowed) };
        let problems = &mut self.problems;
        problems.demand(permitted, Rule::NodeFilter, &subject, "a permitted node", &hexed(&other.node_key));
        let accepts = |constraint: i32, flag: bool| match constraint {
            1 => !flag,
            2 => flag,
            _ => true,
        };
        let rule = Rule::ChannelConstraint;
        let announced = accepts(ask.announcement, bid.unannounced);
        problems.demand(announced, rule, &subject, "the asked announcement", &format!("{}", bid.unannounced));
        let confirmed = accepts(ask.confirmation, bid.zero_conf);
        problems.demand(confirmed, rule, &subject, "the asked confirmation", &format!("{}", bid.zero_conf));
        let pushable = bid.self_balance_sat == 0 || ask.version >= SELF_BALANCE_ASK_VERSION;
        problems.demand(pushable, rule, &subject, "no self balance for an old ask", &bid.self_balance_sat);
    }

    /// A counterpart whose submission was seen must be shown as it is.
    fn counterpart(&mut self, pair: &Pair<'_>) {
        let other = &pair.other;
        let Some(record) = self.auditor.orders.get(&other.nonce) else { return };
        // What is left of an order, and how little it takes, may be restated as the venue keeps it.
        let shown = Order {
            amount_sat: record.order.amount_sat,
            units_open: record.order.units_open,
            allowed: record.order.allowed.clone(),
            denied: record.order.denied.clone(),
            ..other.clone()
        };
        let subject = format!("order {}", hexed(&other.nonce));
        self.problems.equal(Rule::CounterpartyTruth, &subject, &record.order, &shown);
    }

    fn accounts(&mut self, prepare: &rpc::OrderMatchPrepare) {
        let mut told: BTreeSet<Key> = BTreeSet::new();
        for diff in &prepare.charged_accounts {
            let subject = format!("account {}", hexed(&diff.trader_key));
            let auditor = self.auditor;
            let account =
                key(&diff.trader_key).and_then(|key| auditor.accounts.get(&key).map(|account| (key, account)));
            let Some((key, account)) = account.filter(|(key, _)| self.tallies.contains_key(key)) else {
                self.problems.add(Rule::AccountDiffs, &subject, "an account with a match", &"another");
                continue;
            };
            if !told.insert(key) {
                self.problems.add(Rule::AccountDiffs, &subject, "one diff", &"two");
                continue;
            }
            if let Some(version) = account.batch_version {
                self.problems.equal(Rule::BatchVersion, &subject, &version, &prepare.batch_version);
            }
            self.account(&subject, key, account, diff, prepare.batch_version);
        }
        for key in self.tallies.keys().filter(|key| !told.contains(*key)) {
            self.problems.add(Rule::AccountDiffs, &format!("account {}", hexed(key)), "a diff", &"none");
        }
    }

    fn account(&mut self, subject: &str, key: Key, account: &Account, diff: &rpc::AccountDiff, version: u32) {
        let inputs = self.tx.input.iter().enumerate();
        let mut spent = inputs.filter_map(|(at, input)| Some((at, account.output(&input.previous_output)?)));
        let (first, second) = (spent.next(), spent.next());
        let (Some((input, before)), None) = (first, second) else {
            let found = if first.is_none() { "none" } else { "more" };
            self.problems.add(Rule::AccountInput, &subject, "one of the account's outputs among the inputs", &found);
            return;
        };
        let before = before.clone();
        let tally = self.tallies.get(&key);
        let (delta, channels) = tally.map_or((0, 0), |tally| (tally.delta_sat, tally.channels));
        let fee = chain_fee_sat(channels, self.common.fee_rate_sat_per_kw, before.version);
        let balance = i128::from(before.value_sat) + delta - i128::from(fee);
        let what = format!("{subject}, balance");
        self.problems.equal(Rule::EndingBalance, &what, &balance, &i128::from(diff.ending_balance));
        let expiry = self.expiry(subject, &before, diff.new_expiry, version);
        let upgrades = version & 0xf >= 10;
        let to = if upgrades { diff.new_version.max(before.version) } else { before.version };
        self.problems.demand(to <= 2, Rule::AccountVersion, subject, "version 0, 1 or 2", &to);
        let after = self.ending(subject, account, &before, diff, (expiry, to));
        let ending_sat = diff.ending_balance;
        self.lines.push(AccountLine { key, input, before, ending_sat, after, chain_fee_sat: fee });
    }

    fn expiry(&mut self, subject: &str, before: &Output, new: u32, version: u32) -> u32 {
        if new == 0 || version & 0xf < 1 {
            return before.expiry;
        }
        let quote = self.auditor.quotes.get(self.caller);
        let height = self.common.height_hint.saturating_add(HEIGHT_TOLERANCE);
        let extension = quote.map_or(MAX_EXPIRY_BLOCKS, |quote| quote.extension_blocks);
        let latest = height.saturating_add(extension.min(MAX_EXPIRY_BLOCKS));
        let (low, within) = (before.expiry, before.expiry < new && new <= latest);
        self.problems.demand(within, Rule::Expiry, subject, &format!("above {low}, at most {latest}"), &new);
        new
    }

    /// What becomes of the account's output.
    fn ending(
        &mut self,
        subject: &str,
        account: &Account,
        before: &Output,
        diff: &rpc::AccountDiff,
        (expiry, version): (u32, u32),
    ) -> Option<Output> {
        if diff.ending_balance < MIN_NO_DUST_SAT {
            let gone = matches!(diff.ending_state, 1..=3) && diff.outpoint_index < 0;
            let found = format!("state {} with output {}", diff.ending_state, diff.outpoint_index);
            self.problems.demand(gone, Rule::EndingState, subject, "no output for so little", &found);
            return None;
        }
        if diff.ending_state != 0 {
            self.problems.add(Rule::EndingState, &subject, "a new output", &format!("state {}", diff.ending_state));
            return None;
        }
        let vout = u32::try_from(diff.outpoint_index).ok();
        let output = vout.and_then(|vout| self.tx.output.get(usize::try_from(vout).ok()?).map(|output| (vout, output)));
        let Some((vout, output)) = output else {
            self.problems.add(Rule::EndingState, &subject, "the index of an output", &diff.outpoint_index);
            return None;
        };
        let output = output.clone();
        let rule = Rule::AccountOutput;
        let alone = self.claimed.insert(vout);
        self.problems.demand(alone, rule, subject, "an output of its own", &format!("output {vout}, taken"));
        self.problems.equal(rule, &format!("{subject}, value"), &diff.ending_balance, &output.value.to_sat());
        let batch_key = next_batch_key(&before.batch_key)?;
        if account.secret.is_some() {
            let script = account.scripts(version, &batch_key, expiry).map(|scripts| scripts.output);
            self.problems.equal(rule, &format!("{subject}, script"), &script, &Some(output.script_pubkey.clone()));
        } else {
            let script = &output.script_pubkey;
            let fits = if version == 0 { script.is_p2wsh() } else { script.is_p2tr() };
            self.problems.demand(fits, rule, subject, "the script of its version", &script.to_hex_string());
        }
        let outpoint = OutPoint { txid: self.tx.compute_txid(), vout };
        let value_sat = diff.ending_balance;
        Some(Output { outpoint, value_sat, script: output.script_pubkey, expiry, version, batch_key })
    }

    /// Nothing else of this trader is spent.
    fn inputs(&mut self) {
        for input in &self.tx.input {
            let owns =
                |account: &&Account| account.owner == *self.caller && account.output(&input.previous_output).is_some();
            let owner = self.auditor.accounts.values().find(owns);
            let Some(owner) = owner.filter(|owner| !self.tallies.contains_key(&owner.key.serialize())) else {
                continue;
            };
            let subject = format!("account {}", owner.key);
            self.problems.add(Rule::AccountInput, &subject, "an unspent output", &input.previous_output);
        }
    }

    /// The same transaction was shown to others with the same terms, and the same matches.
    fn other_views(&mut self) {
        let Some(record) = self.auditor.batches.get(&self.tx.compute_txid()) else { return };
        let (first, own) = (&record.common, &self.common);
        let problems = &mut self.problems;
        for (blocks, price) in &own.prices {
            if let Some(told) = first.prices.get(blocks) {
                problems.equal(Rule::OneBatch, &format!("price of {blocks} blocks"), told, price);
            }
        }
        problems.equal(Rule::OneBatch, "batch", &first.terms(), &own.terms());
        for (caller, view) in &record.views {
            if caller == self.caller || view.common.terms() != own.terms() {
                continue;
            }
            for line in &self.matches {
                let same = |other: &&MatchLine| other.ask == line.ask && other.bid == line.bid;
                let Some(other) = view.matches.iter().find(same) else { continue };
                let subject = format!("match of {} and {}", hexed(&line.ask), hexed(&line.bid));
                let told = |line: &MatchLine| (line.units, line.capacity_sat, line.vout);
                problems.equal(Rule::CounterpartyTruth, &subject, &told(other), &told(line));
            }
        }
    }
}

/// Strictly before in BIP-69: by txid as displayed, then index.
fn bip69_input(one: &OutPoint, two: &OutPoint) -> bool {
    let place = |outpoint: &OutPoint| {
        let mut txid: Nonce = *outpoint.txid.as_ref();
        txid.reverse();
        (txid, outpoint.vout)
    };
    place(one) < place(two)
}

/// Not after in BIP-69: by value, then script.
pub(crate) fn bip69_output(one: &TxOut, two: &TxOut) -> bool {
    (one.value, &one.script_pubkey) <= (two.value, &two.script_pubkey)
}

/// Sorts as [`bip69_input`] orders.
pub(crate) fn bip69_sort(tx: &mut Transaction) {
    tx.input.sort_by(|one, two| {
        if bip69_input(&one.previous_output, &two.previous_output) {
            std::cmp::Ordering::Less
        } else {
            std::cmp::Ordering::Greater
        }
    });
    tx.output.sort_by(|one, two| (one.value, &one.script_pubkey).cmp(&(two.value, &two.script_pubkey)));
}
