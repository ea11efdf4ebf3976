//! The next batch as it would be: eligible orders, pairs, balances, transaction, and what each trader is told.

use crate::actor::Actor;
use crate::bans::Banned;
use crate::book::{OperatorWish, OrderRecord};
use crate::master::{Coin, lifts_parents, output_script, raised};
use bitcoin::TxOut;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{
    AccountInput, AccountValue, Assembly, AssemblyError, AssemblyRequest, BookOrder, Conflicts, MAX_PAIRS, Market,
    Pair, PairingRules, Settlement, SettlementError, assemble, clear_within, settle_each,
};
use tidegate_ports::{DurationState, StreamId, VenueEnv};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::{AccountDiff, BatchVersion, EndingState, Match, MatchedMarket, Prepare};
use tidegate_protocol::keys::{AccountKey, BatchId, OrderNonce};
use tidegate_protocol::order::AuctionType;
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats, UnitCount};
use tracing::{debug, warn};

/// Steps of 1 sat/kW by which the fee rate is raised to get another transaction id or above the relay floor.
const MAX_BUMPS: u64 = 256;
/// Times that the fee rate of a batch is raised for its unconfirmed parents.
const MAX_LIFTS: u32 = 20;

/// A trader that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Participant {
    pub(crate) version: BatchVersion,
    pub(crate) accounts: BTreeSet<AccountKey>,
}

/// A batch that could be made.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) batch: BatchId,
    pub(crate) height: BlockHeight,
    pub(crate) fee_rate: SatPerKw,
    pub(crate) markets: BTreeMap<BlockCount, Market>,
    pub(crate) settlement: Settlement,
    pub(crate) accounts: BTreeMap<AccountKey, AccountInput>,
    pub(crate) assembly: Assembly,
    pub(crate) participants: BTreeMap<StreamId, Participant>,
    /// The venue's own coins that it spends.
    pub(crate) coins: Vec<Coin>,
    /// What of the operator's wishes it fulfils.
    pub(crate) wish: OperatorWish,
}

impl Proposal {
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &Pair> + Clone {
        self.markets.values().flat_map(|market| &market.pairs)
    }

    /// What the trader on this stream is told.
    pub(crate) fn prepare(&self, to: &Participant, fee: tidegate_protocol::fees::ExecutionFee) -> Prepare {
        Prepare {
            batch_id: self.batch,
            batch_version: to.version,
            height_hint: self.height,
            fee_rate: self.fee_rate,
            execution_fee: fee,
            transaction: self.assembly.transaction.clone(),
            markets: self.markets_of(to),
            accounts: to.accounts.iter().filter_map(|account| self.diff(*account)).collect(),
        }
    }

    fn markets_of(&self, to: &Participant) -> BTreeMap<BlockCount, MatchedMarket> {
        let mut markets: BTreeMap<BlockCount, MatchedMarket> = BTreeMap::new();
        for (duration, market) in &self.markets {
            for pair in &market.pairs {
                for (own, other) in [(&pair.ask, &pair.bid), (&pair.bid, &pair.ask)] {
                    if to.accounts.contains(&own.order.account) {
                        let told = markets.entry(*duration).or_default();
                        told.clearing_price = market.price;
                        let matched = Match { order: other.clone(), units: pair.units };
                        told.orders.entry(own.order.nonce).or_default().push(matched);
                    }
                }
            }
        }
        markets
    }

    fn diff(&self, account: AccountKey) -> Option<AccountDiff> {
        let settled = self.settlement.accounts.get(&account)?;
        let input = self.accounts.get(&account)?;
        Some(AccountDiff {
            account,
            ending_balance: settled.ending,
            ending_state: if settled.recreated { EndingState::Recreated } else { EndingState::FullySpent },
            output_index: self.assembly.outputs.get(&account).copied(),
            new_expiry: input.new_expiry.filter(|_| settled.recreated),
            new_version: version_number(input.terms.version),
        })
    }

    /// Output spent by each input.
    pub(crate) fn prev_outputs(&self) -> Vec<TxOut> {
        self.assembly.prev_outputs.clone()
    }
}

fn version_number(version: AccountVersion) -> u32 {
    match version {
        AccountVersion::V0 => 0,
        AccountVersion::V1 => 1,
        AccountVersion::V2 => 2,
    }
}

/// What a tick may still spend on clearing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClearingWork {
    pub(crate) left: u64,
    /// It did not suffice.
    pub(crate) cut: bool,
}

impl ClearingWork {
    fn clear(&mut self, orders: &[BookOrder], rules: &PairingRules<'_>) -> BTreeMap<BlockCount, Market> {
        let clearing = clear_within(orders, rules, self.left);
        self.left = self.left.saturating_sub(clearing.work);
        if clearing.cut {
            warn!(
                orders = orders.len(),
                work = clearing.work,
                "the book takes too much work to clear: the tick is cut"
            );
            self.cut = true;
        }
        clearing.markets
    }
}

impl<E: VenueEnv> Actor<'_, E> {
    /// The next batch: at the target rate, or above it as far as unconfirmed parents are to be lifted. Nothing when no two
    /// orders meet. Orders that make a batch impossible join `removed`.
    ///
    /// # Source
    /// Protocol notes, auctioneer §12.
    pub(crate) fn propose(
        &self,
        target: SatPerKw,
        conflicts: &Conflicts,
        removed: &mut BTreeSet<OrderNonce>,
        work: &mut ClearingWork,
    ) -> Result<Option<Proposal>, AssemblyError> {
        let mut rate = target;
        for _ in 0..MAX_LIFTS {
            let Some(proposal) = self.propose_new(rate, conflicts, removed, work)? else { return Ok(None) };
            if lifts_parents(&proposal.assembly, &self.book.batches, target) {
                return Ok(Some(proposal));
            }
            rate = raised(rate, target, &proposal.assembly, &self.book.batches);
            debug!(rate = rate.get(), target = target.get(), "the batch is raised for its unconfirmed parents");
        }
        Ok(None)
    }

    /// A batch at this rate under a transaction id that nobody was asked to sign before: nodes refuse a channel that they
    /// abandoned. The venue's own output gives way by a satoshi; without one, the rate does.
    fn propose_new(
        &self,
        rate: SatPerKw,
        conflicts: &Conflicts,
        removed: &mut BTreeSet<OrderNonce>,
        work: &mut ClearingWork,
    ) -> Result<Option<Proposal>, AssemblyError> {
        let mut refused = None;
        let mut shift = 0;
        for bump in 0..MAX_BUMPS {
            // The first satoshi makes up for what is rounded down, so that the rate is reached.
            let extra_fee = Sats::constant(1 + bump);
            let rate = SatPerKw::new(rate.get().saturating_add(shift));
            match self.propose_at(rate, extra_fee, conflicts, removed, work) {
                Ok(None) => return Ok(None),
                Ok(Some(proposal)) => {
                    if !self.book.signed.contains(&proposal.assembly.transaction.compute_txid()) {
                        return Ok(Some(proposal));
                    }
                    if proposal.assembly.operator_value.is_none() {
                        shift += 1;
                    }
                }
                Err(error @ AssemblyError::BelowFloor { .. }) => {
                    refused = Some(error);
                    shift += 1;
                }
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// A batch of the venue alone: it pays what the operator wants, or only for its unconfirmed parents.
    pub(crate) fn propose_empty(&self, target: SatPerKw) -> Result<Proposal, AssemblyError> {
        let mut rate = target;
        let mut last = self.assemble_at(rate, Sats::constant(1), BTreeMap::new(), Settlement::default())?;
        for _ in 0..MAX_LIFTS {
            if lifts_parents(&last.assembly, &self.book.batches, target) {
                break;
            }
            rate = raised(rate, target, &last.assembly, &self.book.batches);
            last = self.assemble_at(rate, Sats::constant(1), BTreeMap::new(), Settlement::default())?;
        }
        Ok(last)
    }

    fn propose_at(
        &self,
        fee_rate: SatPerKw,
        extra_fee: Sats,
        conflicts: &Conflicts,
        removed: &mut BTreeSet<OrderNonce>,
        work: &mut ClearingWork,
    ) -> Result<Option<Proposal>, AssemblyError> {
        loop {
            let orders = self.eligible(fee_rate, removed);
            let rules = PairingRules { conflicts, ratings_enabled: self.config.ratings.enabled, max_pairs: MAX_PAIRS };
            let markets = work.clear(&orders, &rules);
            if markets.is_empty() {
                return Ok(None);
            }
            let accounts = self.inputs(&markets);
            let values = accounts
                .iter()
                .map(|(key, input)| (*key, AccountValue { value: input.value, version: input.terms.version }))
                .collect();
            let settlement = match settle_each(&markets, &values, &|account| self.fee_of(account), fee_rate) {
                Ok(settlement) => settlement,
                Err(SettlementError::PoorTrader { account, short }) => {
                    debug!(%account, short, "can not pay for its matches");
                    removed.extend(self.book.active_orders(account).map(OrderRecord::nonce));
                    continue;
                }
                Err(SettlementError::UnknownAccount(account)) => return Err(AssemblyError::MissingAccount(account)),
                Err(SettlementError::Unit(error)) => return Err(error.into()),
            };
            match self.assemble_at(fee_rate, extra_fee, markets, settlement) {
                Ok(proposal) => return Ok(Some(proposal)),
                Err(AssemblyError::SharedFundingKey(order)) => drop(removed.insert(order)),
                Err(error) => return Err(error),
            }
        }
    }

    fn assemble_at(
        &self,
        fee_rate: SatPerKw,
        extra_fee: Sats,
        markets: BTreeMap<BlockCount, Market>,
        settlement: Settlement,
    ) -> Result<Proposal, AssemblyError> {
        let accounts = self.inputs(&markets);
        let auctioneer = self.auctioneer();
        let (coins, wish) = (self.coins(), self.book.wish.clone());
        let extra_inputs = coins.iter().map(|coin| coin.input(&auctioneer)).collect::<Result<Vec<_>, _>>()?;
        let operator = output_script(&self.book.batch_key.next()?, &auctioneer)?;
        let assembly = assemble(&AssemblyRequest {
            markets: &markets,
            settlement: &settlement,
            accounts: &accounts,
            extra_inputs: &extra_inputs,
            extra_outputs: &self.withdrawals(!markets.is_empty()),
            operator: &operator,
            extra_fee,
            fee_rate,
        })?;
        let participants = self.participants(&settlement);
        let (batch, height) = (self.book.batch_key, self.height);
        Ok(Proposal { batch, height, fee_rate, markets, settlement, accounts, assembly, participants, coins, wish })
    }

    /// Orders that may be matched at this fee rate, in order of arrival.
    ///
    /// # Source
    /// Protocol notes, auctioneer §8.1.
    fn eligible(&self, rate: SatPerKw, removed: &BTreeSet<OrderNonce>) -> Vec<BookOrder> {
        let mut records: Vec<&OrderRecord> =
            self.book.orders.all_active().filter(|record| !removed.contains(&record.nonce())).collect();
        records.sort_by_key(|record| record.arrival);
        records.into_iter().filter_map(|record| self.entry(record, rate)).collect()
    }

    fn entry(&self, record: &OrderRecord, rate: SatPerKw) -> Option<BookOrder> {
        let order = &record.submitted.order;
        let account = self.book.accounts.get(&order.account)?;
        let (_, stream) = self.streams.of_account(order.account)?;
        let matchable = record.open >= smallest_rest(record)
            && order.max_batch_fee_rate >= rate
            && self.config.durations.get(&order.duration) == Some(&DurationState::Open)
            && self.may_match(account)
            && self.banned_until(Banned::Account(order.account)).is_none()
            && self.banned_until(Banned::Node(record.submitted.node)).is_none();
        matchable.then(|| BookOrder {
            submitted: record.submitted.clone(),
            open: record.open,
            owner: owner(stream.trader.0, order.account),
            tier: self.config.ratings.tier(record.submitted.node),
            batch_version: stream.version,
        })
    }

    fn inputs(&self, markets: &BTreeMap<BlockCount, Market>) -> BTreeMap<AccountKey, AccountInput> {
        let pairs = markets.values().flat_map(|market| &market.pairs);
        let accounts = pairs.flat_map(|pair| [pair.ask.order.account, pair.bid.order.account]);
        let input = |account: AccountKey| {
            let record = self.book.accounts.get(&account)?;
            let input = AccountInput {
                terms: record.terms,
                value: record.value,
                outpoint: record.outpoint,
                new_expiry: self.extension(account, record.terms.expiry),
            };
            Some((account, input))
        };
        accounts.filter_map(input).collect()
    }

    /// The expiry that a matched account gets, when its trader knows of extensions and it expires soon.
    fn extension(&self, account: AccountKey, expiry: BlockHeight) -> Option<BlockHeight> {
        let (_, stream) = self.streams.of_account(account)?;
        let extended = self.height.checked_add(self.config.auto_renew)?;
        (stream.version.extends_accounts() && expiry < extended).then_some(extended)
    }

    fn participants(&self, settlement: &Settlement) -> BTreeMap<StreamId, Participant> {
        let mut participants: BTreeMap<StreamId, Participant> = BTreeMap::new();
        for account in settlement.accounts.keys() {
            if let Some((id, stream)) = self.streams.of_account(*account) {
                let new = || Participant { version: stream.version, accounts: BTreeSet::new() };
                participants.entry(id).or_insert_with(new).accounts.insert(*account);
            }
        }
        participants
    }
}

/// Fewest open units of an order that can still be matched.
pub(crate) fn smallest_rest(record: &OrderRecord) -> UnitCount {
    let one = UnitCount::new(1);
    match record.submitted.order.auction {
        AuctionType::Inbound => record.submitted.order.min_units.max(one),
        AuctionType::Outbound => one,
    }
}

/// Who owns an order: the token, or the account for the shared identity of traders without one.
fn owner(trader: [u8; 32], account: AccountKey) -> [u8; 32] {
    if trader != [0; 32] {
        return trader;
    }
    let [_, x @ ..] = account.serialize();
    x
}
