//! The ledger of every trader, compared with its accounts, its wallet and the chain.

use crate::audit::{Findings, fee_of};
use crate::process::Party;
use crate::run::Run;
use bitcoin::{OutPoint, Txid};
use futures_util::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_engine::ledger::{Ledger, Name, wallet_fees};
use tidegate_ports::Wallet;
use tidegate_protocol::units::SatsDelta;
use tidegate_trader::Book;

/// The ledger that follows from a trader's store and from what its wallet tells.
fn ledger(party: &Party, book: &Book) -> Option<Ledger> {
    let history = party.node.wallet_transactions().now_or_never().and_then(Result::ok).unwrap_or_default();
    let accounts: Vec<_> = book.accounts.values().cloned().collect();
    Ledger::new(book.movements.values(), &accounts, &wallet_fees(&history)).ok()
}

/// What holds after every commit: it balances, explains every satoshi, and says of each account what its output holds.
pub(crate) fn always(findings: &mut Findings, run: &Run, party: &Party, book: &Book) {
    let name = &party.name;
    let Some(ledger) = ledger(party, book) else {
        return findings.expect(false, || format!("{name}: the ledger leaves the range of amounts"));
    };
    let accounts: Vec<_> = book.accounts.values().cloned().collect();
    for difference in ledger.differences(&accounts) {
        findings.expect(false, || format!("{name}: the ledger differs from an account: {difference:?}"));
    }
    for strange in [Name::WriteOffs, Name::Opening] {
        let balance = ledger.balance(strange);
        findings.expect(balance == SatsDelta::ZERO, || format!("{name}: {strange} is {balance}, not 0"));
    }
    let sum: i64 = ledger.balances().values().map(|balance| balance.get()).sum();
    findings.expect(sum == 0, || format!("{name}: the balances of the ledger sum to {sum} sat"));
    for account in &accounts {
        let key = account.key();
        let held = ledger.balance(Name::Account(key)).get() + ledger.balance(Name::Pending(key)).get();
        let output = account.outpoint.and_then(|outpoint| run.world.utxo(outpoint));
        let found = output.and_then(|output| i64::try_from(output.value.to_sat()).ok());
        // A closing account pays out what is pending; one that is closed holds nothing.
        let closing = account.value.get() == 0;
        findings.expect(closing || found.is_none_or(|found| found == held), || {
            format!("{name}: the ledger has {held} sat for account {key}, the chain {found:?}")
        });
    }
}

/// What holds at rest: the wallet has what it was given and what the ledger says came back, and the coins of both sides of
/// a lease are the output of its channel.
pub(crate) fn at_rest(findings: &mut Findings, run: &Run) {
    let mut principal: BTreeMap<OutPoint, i64> = BTreeMap::new();
    for trader in &run.traders {
        let party = &trader.party;
        let book = party.record.book();
        let Some(ledger) = ledger(party, &book) else { continue };
        for (name, balance) in ledger.balances() {
            if let Name::Principal(channel) = name {
                *principal.entry(*channel).or_default() += balance.get();
            }
        }
        let booked: BTreeSet<Txid> = book.movements.keys().map(|(_, txid)| *txid).collect();
        let own = party.record.own_transactions();
        // Whatever else the wallet paid for: children that raise a fee.
        let others = own.iter().filter(|transaction| !booked.contains(&transaction.compute_txid()));
        let children: u64 = others.map(|transaction| fee_of(run, transaction)).sum();
        let wallet = party.node.confirmed_balance().now_or_never().and_then(Result::ok).map_or(0, |sats| sats.get());
        let expected = i128::from(run.funds.get()) + i128::from(ledger.balance(Name::Wallet).get());
        findings.expect(i128::from(wallet) + i128::from(children) == expected, || {
            let name = &party.name;
            format!(
                "{name}: the wallet has {wallet} sat and paid {children} sat for children, the ledger says {expected}"
            )
        });
    }
    for (channel, coins) in principal {
        let output = run.world.transaction(channel.txid).and_then(|(transaction, _)| {
            transaction.output.get(usize::try_from(channel.vout).ok()?).map(|output| output.value.to_sat())
        });
        let output = output.and_then(|sat| i64::try_from(sat).ok());
        findings.expect(output == Some(coins), || {
            format!("the ledgers have {coins} sat in channel {channel}, the chain {output:?}")
        });
    }
}
