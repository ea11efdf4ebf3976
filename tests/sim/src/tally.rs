//! What happened in a run: proof that a plan is not only drawn but carried out.

use crate::audit::VenueBook;
use crate::run::{Run, TraderParty};
use bitcoin::{ScriptBuf, Transaction, Txid};
use futures_util::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_ports::Wallet;
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{NodeId, OrderNonce};
use tidegate_protocol::order::AuctionType;
use tidegate_protocol::script::{SpendKind, classify_spend};
use tidegate_protocol::units::Sats;
use tidegate_trader::{Book, ChangeKind, OwnChange};

/// Something that happens to traders, venue, chain or nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "a table of names")]
pub enum Element {
    LeaseAnnounced,
    LeaseUnannounced,
    LeaseZeroConf,
    LeaseScriptEnforced,
    LeaseSimpleTaproot,
    LeaseWithSelfBalance,
    LeaseOutbound,
    LeasesOfTwoNodesInOneBatch,
    OrderFilledInParts,
    OrderCancelled,
    OrderReplaced,
    OrderEndedByFeeRise,
    Deposit,
    Withdrawal,
    Renewal,
    DepositWithRenewal,
    WithdrawalWithRenewal,
    UpgradeByChange,
    FeeRaised,
    FeeRaisedAgain,
    ClosedByBoth,
    ClosedAloneAfterExpiry,
    BatchOnUnconfirmedBatch,
    IncomeSwept,
    OperatorWithdrawal,
    TransactionLost,
    LostTransactionConfirmed,
    LostBatchConfirmed,
    DepositUndone,
    Reorganisation,
    Storm,
    NodeRestart,
    Kill,
    Disconnection,
}

impl Element {
    /// All of them.
    pub const ALL: [Element; 34] = [
        Element::LeaseAnnounced,
        Element::LeaseUnannounced,
        Element::LeaseZeroConf,
        Element::LeaseScriptEnforced,
        Element::LeaseSimpleTaproot,
        Element::LeaseWithSelfBalance,
        Element::LeaseOutbound,
        Element::LeasesOfTwoNodesInOneBatch,
        Element::OrderFilledInParts,
        Element::OrderCancelled,
        Element::OrderReplaced,
        Element::OrderEndedByFeeRise,
        Element::Deposit,
        Element::Withdrawal,
        Element::Renewal,
        Element::DepositWithRenewal,
        Element::WithdrawalWithRenewal,
        Element::UpgradeByChange,
        Element::FeeRaised,
        Element::FeeRaisedAgain,
        Element::ClosedByBoth,
        Element::ClosedAloneAfterExpiry,
        Element::BatchOnUnconfirmedBatch,
        Element::IncomeSwept,
        Element::OperatorWithdrawal,
        Element::TransactionLost,
        Element::LostTransactionConfirmed,
        Element::LostBatchConfirmed,
        Element::DepositUndone,
        Element::Reorganisation,
        Element::Storm,
        Element::NodeRestart,
        Element::Kill,
        Element::Disconnection,
    ];
}

/// How often each thing happened.
pub type Counts = BTreeMap<Element, usize>;

#[derive(Debug, Default)]
struct Inner {
    counts: Counts,
    lost: BTreeSet<Txid>,
    /// Where the operator wanted money.
    wanted: BTreeSet<ScriptBuf>,
    /// Published changes of accounts: what is counted once they are in a block.
    changes: BTreeMap<Txid, Vec<Element>>,
}

/// Counts while a run goes on. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Inner>>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It happened once more.
    pub(crate) fn count(&self, element: Element) {
        *self.lock().counts.entry(element).or_default() += 1;
    }

    /// The network lost a transaction.
    pub(crate) fn lost(&self, txid: Txid) {
        self.count(Element::TransactionLost);
        self.lock().lost.insert(txid);
    }

    /// The operator wants money of the venue's own coin here.
    pub(crate) fn wanted(&self, script: &ScriptBuf) {
        self.lock().wanted.insert(script.clone());
    }

    /// A change of an account was published, perhaps again.
    pub(crate) fn changed(&self, change: &OwnChange) {
        let (before, after) = (&change.before.terms, &change.after.terms);
        let renewed = before.expiry != after.expiry;
        let mut elements = match (change.kind, renewed) {
            (ChangeKind::Deposit, true) => vec![Element::Deposit, Element::DepositWithRenewal],
            (ChangeKind::Deposit, false) => vec![Element::Deposit],
            (ChangeKind::Withdraw, true) => vec![Element::Withdrawal, Element::WithdrawalWithRenewal],
            (ChangeKind::Withdraw, false) => vec![Element::Withdrawal],
            (ChangeKind::Renew, _) => vec![Element::Renewal],
            (ChangeKind::Close, _) => return,
        };
        if before.version != after.version {
            elements.push(Element::UpgradeByChange);
        }
        self.lock().changes.insert(change.txid(), elements);
    }
}

/// Everything that happened in a run, up to now.
pub(crate) fn counts(run: &Run) -> Counts {
    let venue = VenueBook::read(&run.venue);
    let batches: BTreeMap<Txid, &Transaction> = venue.transactions().map(|tx| (tx.compute_txid(), tx)).collect();
    let mined = |txid: &Txid| run.world.transaction(*txid).and_then(|(_, height)| height);
    let (mut counts, lost, wanted, changes) = {
        let inner = run.tally().lock();
        (inner.counts.clone(), inner.lost.clone(), inner.wanted.clone(), inner.changes.clone())
    };
    let mut add = |element, number: usize| *counts.entry(element).or_default() += number;
    for (_, elements) in changes.into_iter().filter(|(txid, _)| mined(txid).is_some()) {
        elements.into_iter().for_each(|element| add(element, 1));
    }
    for txid in lost.iter().filter(|txid| mined(txid).is_some()) {
        add(Element::LostTransactionConfirmed, 1);
        add(Element::LostBatchConfirmed, usize::from(batches.contains_key(txid)));
    }
    let outputs = batches.iter().filter(|(txid, _)| mined(txid).is_some()).flat_map(|(_, tx)| &tx.output);
    let withdrawn = outputs.filter(|output| wanted.contains(&output.script_pubkey));
    let withdrawn: Vec<u64> = withdrawn.map(|output| output.value.to_sat()).collect();
    add(Element::OperatorWithdrawal, withdrawn.len());
    let received = run.venue.node.confirmed_balance().now_or_never().and_then(Result::ok).map_or(0, Sats::get);
    add(Element::IncomeSwept, usize::from(received > withdrawn.iter().sum()));
    // Both in one block: the parent was not confirmed when the child was made.
    let together = |txid: &Txid, tx: &Transaction| {
        let parents = tx.input.iter().map(|input| input.previous_output.txid);
        parents.filter(|parent| batches.contains_key(parent)).any(|parent| mined(&parent) == mined(txid))
    };
    add(Element::BatchOnUnconfirmedBatch, batches.iter().filter(|(txid, tx)| together(txid, tx)).count());
    for trader in &run.traders {
        let book = trader.party.record.book();
        leases(&mut add, trader, &book);
        for account in book.accounts.values() {
            ending(run, account).into_iter().for_each(|element| add(element, 1));
        }
    }
    counts.retain(|_, number| *number > 0);
    counts
}

/// The channels that a trader sold, each counted once therefore, and how its orders were filled.
fn leases(add: &mut impl FnMut(Element, usize), trader: &TraderParty, book: &Book) {
    let channels = trader.party.node.channel_records();
    let mut of_order: BTreeMap<OrderNonce, usize> = BTreeMap::new();
    let mut of_node: BTreeMap<(Txid, NodeId), usize> = BTreeMap::new();
    for lease in book.leases.values() {
        *of_order.entry(lease.ours).or_default() += 1;
        let Some(channel) = channels.iter().find(|known| known.channel_point == lease.channel && lease.maker) else {
            continue;
        };
        *of_node.entry((lease.txid, lease.node)).or_default() += 1;
        add(if channel.private { Element::LeaseUnannounced } else { Element::LeaseAnnounced }, 1);
        add(Element::LeaseZeroConf, usize::from(channel.zero_conf));
        add(Element::LeaseWithSelfBalance, usize::from(channel.push > Sats::ZERO));
        match channel.commitment {
            CommitmentType::Negotiated => {}
            CommitmentType::ScriptEnforcedLease => add(Element::LeaseScriptEnforced, 1),
            CommitmentType::SimpleTaproot => add(Element::LeaseSimpleTaproot, 1),
        }
        let outbound = book.orders.get(&lease.ours).is_some_and(|own| own.order.auction == AuctionType::Outbound);
        add(Element::LeaseOutbound, usize::from(outbound));
    }
    add(Element::LeasesOfTwoNodesInOneBatch, of_node.values().filter(|number| **number > 1).count());
    add(Element::OrderFilledInParts, of_order.values().filter(|number| **number > 1).count());
}

/// How an account ended.
fn ending(run: &Run, account: &Account) -> Option<Element> {
    let outpoint = account.outpoint.filter(|_| account.state == AccountState::Closed)?;
    let (spender, _) = run.world.spender(outpoint)?;
    let input = spender.input.iter().find(|input| input.previous_output == outpoint)?;
    match classify_spend(&input.witness) {
        SpendKind::Expiry => Some(Element::ClosedAloneAfterExpiry),
        SpendKind::Cooperative => Some(Element::ClosedByBoth),
        SpendKind::Unknown => None,
    }
}
