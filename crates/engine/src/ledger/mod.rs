//! The ledger: double entry in satoshi, per account and per lease.
//!
//! Does: project what moved money of accounts ([`Movement`]s, which the store keeps) and the accounts as they are now to
//! entries and balances. It is computed anew from those rows whenever they change, so that nothing of it has to be kept:
//! a projection that is lost is rebuilt the same.
//!
//! Never does: guess. Only movements on the way to an account's current output count, so that what was signed and never
//! confirmed, or was undone by a reorganisation, drops out by itself. Money that left in a transaction which is none of
//! ours, or that a batch does not explain, is a write-off.
//!
//! Invariant: the lines of an entry sum to zero, and so do all balances. Assets and expenses are positive, income and
//! the owner's contribution are negative.

use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tidegate_ports::{MatchMoney, Movement, MovementKind, Timestamp, WalletTransaction};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::bitcoin::{OutPoint, Transaction, Txid};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::units::{BlockHeight, Sats, SatsDelta};

/// An account of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// What the owner put into the market and took out of it: the node's wallet, and addresses that the owner paid to.
    /// Negative while more was put in.
    Wallet,
    /// Coins in a confirmed output of a market account.
    Account(AccountKey),
    /// Coins of a market account in a transaction that is not confirmed yet.
    Pending(AccountKey),
    /// Our coins in a leased channel.
    Principal(OutPoint),
    /// Premium received. Negative: income.
    PremiumIncome,
    /// Premium paid.
    PremiumExpense,
    /// Execution fees paid to the venue.
    ExecutionFees,
    /// Chain fees paid.
    ChainFees,
    /// Money of which nothing that we know says where it went. Negative when there is more than there should be.
    WriteOffs,
    /// What accounts held when the records began. Negative: the owner's.
    Opening,
}

impl Name {
    /// The kind of account, for reports: a word of a fixed list.
    pub fn kind(&self) -> &'static str {
        match self {
            Name::Wallet => "wallet",
            Name::Account(_) => "account",
            Name::Pending(_) => "pending",
            Name::Principal(_) => "principal",
            Name::PremiumIncome => "premium_income",
            Name::PremiumExpense => "premium_expense",
            Name::ExecutionFees => "execution_fees",
            Name::ChainFees => "chain_fees",
            Name::WriteOffs => "write_offs",
            Name::Opening => "opening",
        }
    }

    /// All kinds.
    pub const KINDS: [&'static str; 10] = [
        "wallet",
        "account",
        "pending",
        "principal",
        "premium_income",
        "premium_expense",
        "execution_fees",
        "chain_fees",
        "write_offs",
        "opening",
    ];
}

/// The kind, and for accounts and principal a colon and the name of the one meant.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Account(key) | Name::Pending(key) => write!(f, "{}:{key}", self.kind()),
            Name::Principal(channel) => write!(f, "{}:{channel}", self.kind()),
            Name::Wallet | Name::PremiumIncome | Name::PremiumExpense | Name::ExecutionFees => f.write_str(self.kind()),
            Name::ChainFees | Name::WriteOffs | Name::Opening => f.write_str(self.kind()),
        }
    }
}

/// One line of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Account of the ledger.
    pub name: Name,
    /// Change, in satoshi.
    pub amount: SatsDelta,
    /// The lease that it belongs to, if it does.
    pub channel: Option<OutPoint>,
}

/// Why an entry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A transaction.
    Moved(MovementKind),
    /// The account was there before its movements were recorded.
    Opening,
    /// The account's transaction is not confirmed yet.
    Unconfirmed,
}

impl Cause {
    /// The cause in a word or two.
    pub fn text(self) -> &'static str {
        match self {
            Cause::Moved(MovementKind::Funding) => "funding",
            Cause::Moved(MovementKind::Deposit) => "deposit",
            Cause::Moved(MovementKind::Withdraw) => "withdrawal",
            Cause::Moved(MovementKind::Renew) => "renewal",
            Cause::Moved(MovementKind::Close) => "close",
            Cause::Moved(MovementKind::Batch) => "batch",
            Cause::Moved(MovementKind::Foreign) => "unknown transaction",
            Cause::Moved(MovementKind::Opening) | Cause::Opening => "opening balance",
            Cause::Unconfirmed => "not confirmed yet",
        }
    }
}

/// An entry: lines that sum to zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Market account.
    pub account: AccountKey,
    /// Transaction, when it is known.
    pub txid: Option<Txid>,
    /// Why.
    pub cause: Cause,
    /// When it became true here, as far as that is known.
    pub at: Option<Timestamp>,
    /// Height from which to look for the transaction.
    pub height: BlockHeight,
    /// Its lines, none of them zero.
    pub lines: Vec<Line>,
}

/// A ledger that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// More satoshi than a balance holds.
    #[error("the ledger's balances leave the range of amounts")]
    Range,
}

/// A market account of which the ledger says something else than the account itself, or its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Market account.
    pub account: AccountKey,
    /// By the ledger, in satoshi.
    pub ledger: SatsDelta,
    /// By the account.
    pub value: Sats,
    /// By the output of its transaction; nothing when there is no such output.
    pub output: Option<Sats>,
}

impl Difference {
    /// How much is too much or too little, in satoshi: the larger of the two differences.
    pub fn sats(&self) -> u64 {
        let apart = |sats: Sats| self.ledger.get().abs_diff(sats.to_delta().get());
        apart(self.value).max(self.output.map_or(0, apart))
    }
}

/// The ledger of one trader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: Vec<Entry>,
    #[serde(with = "balances")]
    balances: BTreeMap<Name, SatsDelta>,
}

/// Balances as a list: their names are no strings.
mod balances {
    use super::{BTreeMap, Name, SatsDelta};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(all: &BTreeMap<Name, SatsDelta>, out: S) -> Result<S::Ok, S::Error> {
        all.iter().collect::<Vec<_>>().serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Name, SatsDelta>, D::Error> {
        Ok(Vec::<(Name, SatsDelta)>::deserialize(from)?.into_iter().collect())
    }
}

type Movements<'a> = BTreeMap<(AccountKey, Txid), &'a Movement>;

impl Ledger {
    /// The ledger that follows from what moved money and from the accounts as they are. Each transaction counts once per
    /// account, however often it is given. `fees` are those of funding transactions, which the wallet pays: one that is
    /// missing is left out.
    ///
    /// # Errors
    /// [`LedgerError::Range`].
    pub fn new<'a>(
        movements: impl IntoIterator<Item = &'a Movement>,
        accounts: &[Account],
        fees: &BTreeMap<Txid, Sats>,
    ) -> Result<Ledger, LedgerError> {
        let movements: Movements<'_> =
            movements.into_iter().map(|moved| ((moved.account, moved.txid), moved)).collect();
        let mut ledger = Ledger::default();
        for account in accounts {
            let way = way(&movements, account);
            for entry in entries(&way, account, fees)? {
                ledger.add(entry)?;
            }
            ledger.unconfirmed(account)?;
        }
        Ok(ledger)
    }

    /// All entries: by market account, and within one in the order in which its outputs follow each other.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Balances that are not zero, by account of the ledger.
    pub fn balances(&self) -> &BTreeMap<Name, SatsDelta> {
        &self.balances
    }

    /// One balance, in satoshi.
    pub fn balance(&self, name: Name) -> SatsDelta {
        self.balances.get(&name).copied().unwrap_or(SatsDelta::ZERO)
    }

    /// The sum of the balances of one kind, in satoshi; every kind is there.
    ///
    /// # Errors
    /// [`LedgerError::Range`].
    pub fn totals(&self) -> Result<BTreeMap<&'static str, SatsDelta>, LedgerError> {
        let mut totals: BTreeMap<&'static str, SatsDelta> =
            Name::KINDS.iter().map(|kind| (*kind, SatsDelta::ZERO)).collect();
        for (name, amount) in &self.balances {
            let total = totals.entry(name.kind()).or_default();
            *total = total.checked_add(*amount).ok_or(LedgerError::Range)?;
        }
        Ok(totals)
    }

    /// What the lease of this channel earned (negative) and cost so far besides principal, in satoshi.
    ///
    /// # Errors
    /// [`LedgerError::Range`].
    pub fn result_of(&self, channel: OutPoint) -> Result<SatsDelta, LedgerError> {
        let lines = self.entries.iter().flat_map(|entry| &entry.lines).filter(|line| line.channel == Some(channel));
        let results = lines.filter(|line| !matches!(line.name, Name::Principal(_)));
        sum(results.map(|line| line.amount))
    }

    /// Market accounts whose value is not what the ledger says: there is none unless something is wrong.
    pub fn differences(&self, accounts: &[Account]) -> Vec<Difference> {
        let found = accounts.iter().filter(|account| holds_coins(account)).filter_map(|account| {
            let key = account.key();
            let parts = [self.balance(Name::Account(key)), self.balance(Name::Pending(key))];
            let ledger = sum(parts).unwrap_or(SatsDelta::new(i64::MAX));
            let difference = Difference { account: key, ledger, value: account.value, output: output_of(account) };
            (difference.sats() > 0 || difference.output.is_none()).then_some(difference)
        });
        found.collect()
    }

    fn add(&mut self, entry: Entry) -> Result<(), LedgerError> {
        for line in &entry.lines {
            let balance = self.balances.entry(line.name).or_default();
            *balance = balance.checked_add(line.amount).ok_or(LedgerError::Range)?;
            if *balance == SatsDelta::ZERO {
                self.balances.remove(&line.name);
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// What a market account holds, or pays out at its end, is pending until its transaction is confirmed.
    fn unconfirmed(&mut self, account: &Account) -> Result<(), LedgerError> {
        let key = account.key();
        let from = match account.state {
            AccountState::PendingOpen
            | AccountState::PendingUpdate
            | AccountState::PendingBatch
            | AccountState::ExpiredPendingUpdate => Name::Account(key),
            AccountState::PendingClosed => Name::Wallet,
            AccountState::Initiated | AccountState::Open | AccountState::Expired => return Ok(()),
            AccountState::Closed | AccountState::CanceledAfterRecovery => return Ok(()),
        };
        let last = self.entries.last().filter(|entry| entry.account == key);
        let amount = match from {
            Name::Wallet => last.map_or(Ok(SatsDelta::ZERO), |entry| sum(lines_of(entry, Name::Wallet)))?,
            held => self.balance(held),
        };
        let txid = account.latest_tx.as_ref().map(Transaction::compute_txid);
        let mut lines = Lines::default();
        lines.add(Name::Pending(key), amount, None);
        lines.add(from, amount.checked_neg().ok_or(LedgerError::Range)?, None);
        let height = account.height_hint;
        match lines.0.is_empty() {
            true => Ok(()),
            false => {
                self.add(Entry { account: key, txid, cause: Cause::Unconfirmed, at: None, height, lines: lines.0 })
            }
        }
    }
}

fn lines_of(entry: &Entry, name: Name) -> impl Iterator<Item = SatsDelta> {
    entry.lines.iter().filter(move |line| line.name == name).map(|line| line.amount)
}

fn sum(amounts: impl IntoIterator<Item = SatsDelta>) -> Result<SatsDelta, LedgerError> {
    amounts.into_iter().try_fold(SatsDelta::ZERO, SatsDelta::checked_add).ok_or(LedgerError::Range)
}

fn holds_coins(account: &Account) -> bool {
    let ended = matches!(
        account.state,
        AccountState::PendingClosed | AccountState::Closed | AccountState::CanceledAfterRecovery
    );
    !ended && account.outpoint.is_some()
}

/// Value of the account's output by the transaction that made it.
fn output_of(account: &Account) -> Option<Sats> {
    let vout = usize::try_from(account.outpoint?.vout).ok()?;
    let output = account.latest_tx.as_ref()?.output.get(vout)?;
    Sats::try_from(output.value).ok()
}

/// The movements that led to the account as it is, oldest first.
fn way<'a>(movements: &Movements<'a>, account: &Account) -> Vec<&'a Movement> {
    let key = account.key();
    let mut next = match holds_coins(account) {
        true => account.outpoint.map(|outpoint| outpoint.txid),
        false => account.latest_tx.as_ref().map(Transaction::compute_txid),
    };
    let (mut way, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(moved) = next.filter(|txid| seen.insert(*txid)).and_then(|txid| movements.get(&(key, txid))) {
        way.push(*moved);
        next = moved.spent.map(|outpoint| outpoint.txid);
    }
    way.reverse();
    way
}

/// Lines under construction; zeros are left out.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, name: Name, amount: SatsDelta, channel: Option<OutPoint>) {
        if amount != SatsDelta::ZERO {
            self.0.push(Line { name, amount, channel });
        }
    }

    /// The rest that makes the sum zero.
    fn balance_with(&mut self, name: Name) -> Result<(), LedgerError> {
        let rest = sum(self.0.iter().map(|line| line.amount))?.checked_neg().ok_or(LedgerError::Range)?;
        self.add(name, rest, None);
        Ok(())
    }
}

fn entries(way: &[&Movement], account: &Account, fees: &BTreeMap<Txid, Sats>) -> Result<Vec<Entry>, LedgerError> {
    let mut entries = Vec::new();
    let began_before = match way.first() {
        Some(first) => first.spent.map(|_| first.before),
        None => holds_coins(account).then_some(account.value),
    };
    if let Some(value) = began_before {
        let mut lines = Lines::default();
        lines.add(Name::Account(account.key()), value.to_delta(), None);
        lines.balance_with(Name::Opening)?;
        let (account, height) = (account.key(), account.height_hint);
        entries.push(Entry { account, txid: None, cause: Cause::Opening, at: None, height, lines: lines.0 });
    }
    for moved in way {
        entries.push(entry(moved, fees)?);
    }
    Ok(entries)
}

fn entry(moved: &Movement, fees: &BTreeMap<Txid, Sats>) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    let change = moved.after.to_delta().checked_sub(moved.before.to_delta()).ok_or(LedgerError::Range)?;
    lines.add(Name::Account(moved.account), change, None);
    lines.add(Name::ChainFees, moved.fee.to_delta(), None);
    let rest = match moved.kind {
        MovementKind::Funding => {
            let fee = fees.get(&moved.txid).copied().unwrap_or(Sats::ZERO);
            lines.add(Name::ChainFees, fee.to_delta(), None);
            Name::Wallet
        }
        MovementKind::Deposit | MovementKind::Withdraw | MovementKind::Renew | MovementKind::Close => Name::Wallet,
        MovementKind::Batch => {
            moved.matches.iter().try_for_each(|matched| add_match(&mut lines, matched))?;
            Name::WriteOffs
        }
        MovementKind::Opening => Name::Opening,
        MovementKind::Foreign => Name::WriteOffs,
    };
    lines.balance_with(rest)?;
    let (account, txid, cause) = (moved.account, Some(moved.txid), Cause::Moved(moved.kind));
    Ok(Entry { account, txid, cause, at: moved.at, height: moved.height, lines: lines.0 })
}

fn add_match(lines: &mut Lines, matched: &MatchMoney) -> Result<(), LedgerError> {
    let channel = Some(matched.channel);
    lines.add(Name::Principal(matched.channel), matched.principal.to_delta(), channel);
    let premium = matched.premium.to_delta();
    match matched.maker {
        true => lines.add(Name::PremiumIncome, premium.checked_neg().ok_or(LedgerError::Range)?, channel),
        false => lines.add(Name::PremiumExpense, premium, channel),
    }
    lines.add(Name::ExecutionFees, matched.execution_fee.to_delta(), channel);
    lines.add(Name::ChainFees, matched.chain_fee.to_delta(), channel);
    Ok(())
}

/// Fees of the wallet's transactions, as far as all that they spend was made by transactions of the wallet too.
pub fn wallet_fees(history: &[WalletTransaction]) -> BTreeMap<Txid, Sats> {
    let known: BTreeMap<Txid, &Transaction> =
        history.iter().map(|noted| (noted.transaction.compute_txid(), &noted.transaction)).collect();
    let value_of = |outpoint: &OutPoint| {
        let vout = usize::try_from(outpoint.vout).ok()?;
        known.get(&outpoint.txid)?.output.get(vout).map(|output| output.value.to_sat())
    };
    let fee = |transaction: &Transaction| {
        let mut spent: u64 = 0;
        for input in &transaction.input {
            spent = spent.checked_add(value_of(&input.previous_output)?)?;
        }
        let kept = transaction.output.iter().try_fold(0_u64, |sum, output| sum.checked_add(output.value.to_sat()))?;
        Sats::new(spent.checked_sub(kept)?).ok()
    };
    known.iter().filter_map(|(txid, transaction)| Some((*txid, fee(transaction)?))).collect()
}

#[cfg(test)]
mod tests;
