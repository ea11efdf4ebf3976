//! The end of a batch: stored at one stroke, then announced, then published.

use crate::accounts::{REORGANISATION, SPEND, unwatch};
use crate::actor::Actor;
use crate::book::{
    AccountRecord, BatchRecord, DiffRecord, LeaseRecord, MarketRecord, MasterRecord, OperatorWish, OrderRecord,
    PairRecord, Receipt, Write,
};
use crate::error::Halt;
use crate::leases::lease_watch;
use crate::machine::{AccountEvent, Transition, next};
use crate::node::{Watched, set};
use crate::proposal::{Proposal, smallest_rest};
use bitcoin::{OutPoint, Transaction};
use std::collections::BTreeMap;
use tidegate_market::Pair;
use tidegate_ports::{ServerMessage, Traders, VenueEnv, Watch};
use tidegate_protocol::batch::Finalize;
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::{BlockHeight, Sats, UnitCount};
use tracing::{info, warn};

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

impl<E: VenueEnv> Actor<'_, E> {
    /// Stores a completely signed batch, tells its traders, publishes it.
    ///
    /// # Source
    /// Protocol notes, auctioneer §15.
    pub(crate) async fn store_and_announce(
        &mut self,
        proposal: &Proposal,
        transaction: Transaction,
        leases: Vec<LeaseRecord>,
    ) -> Result<(), Halt> {
        let mut writes = self.batch_writes(proposal, transaction)?;
        let channels: Vec<OutPoint> = leases.iter().map(|lease| lease.channel).collect();
        writes.extend(leases.into_iter().map(Write::Lease));
        let receipt = self.commit(writes).await?;
        self.wallet_script = None;
        self.finalize(proposal, &receipt).await;
        self.publish_unconfirmed().await?;
        let watches = self.watches_after(proposal, &channels);
        let node = self.node.clone();
        let moved = async {
            for account in proposal.accounts.keys() {
                unwatch(&node, SPEND, *account).await;
            }
            set(&node, &watches).await
        };
        if let Err(error) = self.beside(moved).await? {
            warn!(batch = %proposal.batch, %error, "the batch can not be watched yet");
            self.chain_lost = true;
            self.repair_later();
        }
        Ok(())
    }

    /// The new outputs of the accounts, the latest batch and its channels.
    fn watches_after(&self, proposal: &Proposal, channels: &[OutPoint]) -> Vec<Watched> {
        let accounts = proposal.accounts.keys().filter_map(|account| self.book.accounts.get(account));
        let accounts = accounts.flat_map(|record| self.account_watches(record));
        let batch = self.book.batches.last().and_then(batch_watch);
        let leases = channels.iter().filter_map(|channel| self.book.leases.get(channel)).map(lease_watch);
        accounts.chain(batch).chain(leases).collect()
    }

    /// Exactly once, and only to the streams that answered the request to sign.
    async fn finalize(&mut self, proposal: &Proposal, receipt: &Receipt) {
        let txid = proposal.assembly.transaction.compute_txid();
        if !receipt.names_batch(proposal.batch, txid) {
            warn!(batch = %proposal.batch, %txid, "the stored batch is another one: nobody is told");
            return;
        }
        for stream in proposal.participants.keys() {
            let message = Finalize { batch_id: proposal.batch.serialize().to_vec(), txid };
            if !self.env.traders().send(*stream, ServerMessage::Finalize(message)).await {
                // The trader will see the batch on the chain.
                info!(stream = stream.0, "a trader missed the end of its batch");
                self.streams.close(*stream);
            }
        }
        info!(batch = %proposal.batch, %txid, fee = proposal.assembly.fee.get(), "batch made");
    }

    fn batch_writes(&self, proposal: &Proposal, transaction: Transaction) -> Result<Vec<Write>, Halt> {
        let next_key = self.book.batch_key.next()?;
        let mut writes = vec![
            Write::BatchKey(next_key),
            Write::Master(MasterRecord::made_by(&proposal.assembly, next_key, &self.auctioneer())),
            Write::Signed(Vec::new()),
            Write::Batch(Box::new(self.record(proposal, transaction))),
        ];
        // A wish that came while the batch was made waits for the next one.
        if self.book.wish == proposal.wish {
            writes.push(Write::Wish(OperatorWish::default()));
        }
        writes.extend(self.spent_deposits(&proposal.coins, proposal.batch));
        for account in proposal.settlement.accounts.keys() {
            writes
                .extend(self.book.accounts.get(account).map(|record| Write::Account(ending_account(record, proposal))));
        }
        let mut filled: BTreeMap<OrderNonce, u32> = BTreeMap::new();
        for pair in proposal.pairs() {
            for side in [&pair.ask, &pair.bid] {
                let units = filled.entry(side.order.nonce).or_default();
                *units = units.saturating_add(pair.units.get());
            }
        }
        for (nonce, units) in filled {
            let record = self.book.orders.active(nonce);
            writes.extend(record.map(|record| Write::Order(ending_order(record, UnitCount::new(units)))));
        }
        Ok(writes)
    }

    fn record(&self, proposal: &Proposal, transaction: Transaction) -> BatchRecord {
        let diff = |(account, settled): (&_, &tidegate_market::SettledAccount)| {
            let output = proposal.assembly.outputs.get(account).copied();
            let record = DiffRecord {
                starting: settled.starting,
                ending: settled.ending,
                chain_fee: settled.chain_fee,
                execution_fee: settled.execution_fee,
                output,
            };
            (*account, record)
        };
        let market = |market: &tidegate_market::Market| MarketRecord {
            price: market.price,
            pairs: market.pairs.iter().map(pair_record).collect(),
        };
        BatchRecord {
            id: proposal.batch,
            number: self.book.next_number(),
            transaction,
            fee_rate: proposal.fee_rate,
            fee: proposal.assembly.fee,
            execution_fees: proposal.settlement.execution_fees,
            operator_value: proposal.assembly.operator_value,
            height: proposal.height,
            created_ns: self.now().0.saturating_mul(NANOSECONDS_PER_MILLISECOND),
            markets: proposal.markets.iter().map(|(duration, matched)| (*duration, market(matched))).collect(),
            accounts: proposal.settlement.accounts.iter().map(diff).collect(),
            confirmed: false,
        }
    }

    /// Hands every unconfirmed batch to the network, oldest first, and the deposits before them. Known ones are no error.
    pub(crate) async fn publish_unconfirmed(&mut self) -> Result<(), Halt> {
        let deposits = self.unconfirmed_deposits();
        let deposits =
            deposits.map(|deposit| (format!("tidegate deposit {}", deposit.number), deposit.transaction.clone()));
        let batches = self.book.batches.iter().filter(|batch| !batch.confirmed);
        let batches = batches.map(|batch| (format!("batch {}", batch.id), batch.transaction.clone()));
        let unconfirmed: Vec<(String, Transaction)> = deposits.chain(batches).collect();
        let node = self.node.clone();
        let published = self.beside(async {
            let mut all = true;
            for (label, transaction) in &unconfirmed {
                if let Err(error) = node.publish(transaction, label).await {
                    warn!(label, txid = %transaction.compute_txid(), %error, "a transaction can not be published yet");
                    all = false;
                }
            }
            all
        });
        if !published.await? {
            self.repair_later();
        }
        Ok(())
    }

    pub(crate) async fn on_batch_confirmed(
        &mut self,
        transaction: &Transaction,
        height: BlockHeight,
    ) -> Result<(), Halt> {
        let txid = transaction.compute_txid();
        let known = self.book.batches.iter().find(|batch| !batch.confirmed && batch.transaction.compute_txid() == txid);
        let Some(mut batch) = known.cloned() else { return Ok(()) };
        batch.confirmed = true;
        info!(batch = %batch.id, %txid, "batch confirmed");
        let mut writes = self.lease_starts(transaction, height);
        writes.extend(self.collected_deposits(batch.id));
        writes.push(Write::Batch(Box::new(batch)));
        self.commit(writes).await?;
        Ok(())
    }
}

pub(crate) fn batch_watch(batch: &BatchRecord) -> Option<Watched> {
    let watch = Watch::Confirmation {
        txid: batch.transaction.compute_txid(),
        script: batch.transaction.output.first()?.script_pubkey.clone(),
        confirmations: 1,
        height_hint: batch.height.saturating_sub(REORGANISATION),
    };
    Some((format!("batch/{}", batch.id), watch))
}

fn pair_record(pair: &Pair) -> PairRecord {
    PairRecord {
        ask: pair.ask.order.nonce,
        bid: pair.bid.order.nonce,
        ask_rate: pair.ask.order.rate,
        bid_rate: pair.bid.order.rate,
        units: pair.units,
        channel_type: pair.ask.order.channel_type,
    }
}

/// The account after the batch.
fn ending_account(record: &AccountRecord, proposal: &Proposal) -> AccountRecord {
    let account = record.key();
    let mut after = record.clone();
    let assembly = &proposal.assembly;
    let settled = proposal.settlement.accounts.get(&account);
    match (assembly.outputs.get(&account), assembly.new_terms.get(&account), settled) {
        (Some(vout), Some(terms), Some(settled)) => {
            after.state = state_after(record, AccountEvent::BatchRecreated);
            after.terms = *terms;
            after.value = settled.ending;
            after.outpoint = OutPoint { txid: assembly.transaction.compute_txid(), vout: *vout };
            after.height_hint = proposal.height;
            after.latest = None;
        }
        (_, _, _) => {
            after.state = state_after(record, AccountEvent::BatchSpent);
            after.value = Sats::ZERO;
        }
    }
    after
}

fn state_after(record: &AccountRecord, event: AccountEvent) -> crate::machine::VenueAccountState {
    match next(record.state, event) {
        Transition::To(state) => state,
        // Only accounts that may be matched get here, and for those the table has a successor.
        Transition::Stay(_) | Transition::Illegal => record.state,
    }
}

/// The order after a fill: a rest below the smallest match ends it, too.
fn ending_order(record: &OrderRecord, filled: UnitCount) -> OrderRecord {
    let mut after = record.clone();
    after.open = record.open.checked_sub(filled).unwrap_or(UnitCount::ZERO);
    after.state = if after.open < smallest_rest(record) { OrderState::Executed } else { OrderState::PartiallyFilled };
    after
}
