//! The next batch as it would be: eligible orders, pairs, balances, transaction, and what each trader is told.

use crate::actor::Actor;
use crate::book::OrderRecord;
use bitcoin::{ScriptBuf, TxOut};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{
    AccountInput, AccountValue, Assembly, AssemblyError, AssemblyRequest, BookOrder, Conflicts, MAX_PAIRS, Market,
    Pair, PairingRules, Settlement, SettlementError, assemble, clear_within, settle,
};
use tidegate_ports::{DurationState, StreamId, VenueEnv};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::{AccountDiff, BatchVersion, EndingState, Match, MatchedMarket, Prepare};
use tidegate_protocol::keys::{AccountKey, BatchId, OrderNonce};
use tidegate_protocol::order::AuctionType;
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, UnitCount};
use tracing::{debug, warn};

/// Steps of 1 sat/kW by which the fee rate is raised to get another transaction id or above the relay floor.
const MAX_BUMPS: u64 = 256;

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
    /// The next batch at `rate` or a little above it; nothing when no two orders meet. Orders that make a batch
    /// impossible join `removed`.
    pub(crate) fn propose(
        &self,
        rate: SatPerKw,
        operator: &ScriptBuf,
        conflicts: &Conflicts,
        removed: &mut BTreeSet<OrderNonce>,
        work: &mut ClearingWork,
    ) -> Result<Option<Proposal>, AssemblyError> {
        let mut refused = None;
        for bump in 0..MAX_BUMPS {
            let rate = SatPerKw::new(rate.get().saturating_add(bump));
            match self.propose_at(rate, operator, conflicts, removed, work) {
                Ok(None) => return Ok(None),
                Ok(Some(proposal)) => {
                    // Nodes refuse a channel that they abandoned: what was once to be signed never comes back.
                    if !self.book.signed.contains(&proposal.assembly.transaction.compute_txid()) {
                        return Ok(Some(proposal));
                    }
                }
                Err(error @ AssemblyError::BelowFloor { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn propose_at(
        &self,
        fee_rate: SatPerKw,
        operator: &ScriptBuf,
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
            let settlement = match settle(&markets, &values, &self.config.execution_fee, fee_rate) {
                Ok(settlement) => settlement,
                Err(SettlementError::PoorTrader { account, short }) => {
                    debug!(%account, short, "can not pay for its matches");
                    removed.extend(self.book.active_orders(account).map(OrderRecord::nonce));
                    continue;
                }
                Err(SettlementError::UnknownAccount(account)) => return Err(AssemblyError::MissingAccount(account)),
                Err(SettlementError::Unit(error)) => return Err(error.into()),
            };
            let extra_inputs = &[];
            let (markets_ref, accounts_ref, settled) = (&markets, &accounts, &settlement);
            let request = AssemblyRequest {
                markets: markets_ref,
                settlement: settled,
                accounts: accounts_ref,
                extra_inputs,
                operator,
                fee_rate,
            };
            let assembly = match assemble(&request) {
                Ok(assembly) => assembly,
                Err(AssemblyError::SharedFundingKey(order)) => {
                    removed.insert(order);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let participants = self.participants(&settlement);
            let (batch, height) = (self.book.batch_key, self.height);
            return Ok(Some(Proposal {
                batch,
                height,
                fee_rate,
                markets,
                settlement,
                accounts,
                assembly,
                participants,
            }));
        }
    }

    /// Orders that may be matched at this fee rate, in order of arrival.
    ///
    /// # Source
    /// Protocol notes, auctioneer §8.1.
    fn eligible(&self, rate: SatPerKw, removed: &BTreeSet<OrderNonce>) -> Vec<BookOrder> {
        let mut records: Vec<&OrderRecord> =
            self.book.orders.values().filter(|record| !removed.contains(&record.nonce())).collect();
        records.sort_by_key(|record| record.arrival);
        records.into_iter().filter_map(|record| self.entry(record, rate)).collect()
    }

    fn entry(&self, record: &OrderRecord, rate: SatPerKw) -> Option<BookOrder> {
        let order = &record.submitted.order;
        let account = self.book.accounts.get(&order.account)?;
        let (_, stream) = self.streams.of_account(order.account)?;
        let matchable = !record.state.is_archived()
            && record.open >= smallest_rest(record)
            && order.max_batch_fee_rate >= rate
            && self.config.durations.get(&order.duration) == Some(&DurationState::Open)
            && self.may_match(account);
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
