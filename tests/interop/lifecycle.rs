//! What owners do with their accounts besides trading: deposit, withdraw, renew, upgrade, raise a fee. Each with every
//! account version, on both sides of a market, to the satoshi.

use crate::btcd::{outputs, spent};
use crate::failure::{Context as _, Failure, Outcome};
use crate::group::{Group, Party, check_account};
use crate::pool::{AccountVersion, FEE_SAT_PER_VBYTE, PoolAccount};
use crate::process::Wait;
use crate::trade::{CONFIRMATIONS, txid_of};

/// Added to an account, satoshi.
const DEPOSIT_SAT: u64 = 700_000;
/// Taken out of an account, satoshi.
const WITHDRAWAL_SAT: u64 = 400_000;
/// The fee rate that a pending deposit is raised to.
const BUMPED_SAT_PER_VBYTE: u64 = 11;
/// A P2TR or P2WSH output, bytes.
const OUTPUT_BYTES: u64 = 43;

/// One kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Deposit,
    Withdraw,
    Renew,
}

/// What is asked of every account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) change: Change,
    /// Blocks from now until the new expiry. A renewal needs one, the others may have one.
    pub(crate) expiry_blocks: Option<u64>,
    /// Raise each account to the newest version; else keep what it has.
    pub(crate) upgrade: bool,
}

impl Wish {
    /// One line for a person.
    pub(crate) fn describe(&self) -> String {
        let change = match self.change {
            Change::Deposit => "deposit, its fee raised while it was pending",
            Change::Withdraw => "withdrawal",
            Change::Renew => "renewal",
        };
        let expiry = match (self.change, self.expiry_blocks) {
            (Change::Renew, _) | (_, None) => "",
            _ => ", renewed in the same transaction",
        };
        let version = if self.upgrade { ", upgraded to version 2 in the same transaction" } else { "" };
        format!("{change}{expiry}{version}")
    }
}

/// Fee of a withdrawal or renewal in satoshi: one account input, its new output and `others` outputs of the same size.
///
/// Source: protocol notes, accounts §6.
fn fee_sat(version: AccountVersion, others: u64) -> u64 {
    let witness = match version {
        AccountVersion::V0 => 229,
        AccountVersion::V1 | AccountVersion::V2 => 66,
    };
    // Version, lock time and two counts; the input; the outputs; two bytes that mark a witness.
    let weight = 4 * (10 + 41 + OUTPUT_BYTES * (1 + others)) + 2 + witness;
    FEE_SAT_PER_VBYTE * 250 * weight / 1_000
}

/// The wish, carried out on every account of both sides at once, and buried under blocks.
pub(crate) fn change_all(group: &mut Group<'_>, wish: Wish) -> Outcome<()> {
    let mut pending = Vec::new();
    for party in [&group.seller, &group.buyer] {
        for account in &party.accounts {
            pending.push(change(group, party, account, wish)?);
        }
    }
    if wish.change == Change::Deposit {
        for (party, account) in parties(group).zip(&pending) {
            raise_fee(group, party, account)?;
        }
    }
    group.network.mine(CONFIRMATIONS)?;
    let mut confirmed = Vec::new();
    for (party, expected) in parties(group).zip(pending) {
        let account = party.wait_state(&expected.trader_key, "OPEN")?;
        assert_eq!(account, PoolAccount { state: "OPEN".into(), ..expected }, "{:?}", party.side);
        check_account(group.network, &account, account.value_sat)?;
        confirmed.push(account);
    }
    for account in &confirmed {
        let transaction = group.network.chain.transaction(&account.latest_txid)?;
        group.audit.transaction(&transaction)?;
    }
    group.changed(confirmed)
}

/// The party of each account, in the order of all accounts.
fn parties<'a>(group: &'a Group<'_>) -> impl Iterator<Item = &'a Party> {
    [&group.seller, &group.buyer].into_iter().flat_map(|party| party.accounts.iter().map(move |_| party))
}

/// Asks for the change; the account as it must be listed until the transaction confirms.
fn change(group: &Group<'_>, party: &Party, before: &PoolAccount, wish: Wish) -> Outcome<PoolAccount> {
    let (cli, key, height) = (party.client.cli(), before.trader_key.as_str(), group.network.chain.height()?);
    let version = if wish.upgrade { AccountVersion::V2 } else { before.version };
    let (txid, value_sat, paid) = match wish.change {
        Change::Deposit => {
            let txid = cli.deposit(key, DEPOSIT_SAT, Some(version), wish.expiry_blocks)?;
            (txid, before.value_sat + DEPOSIT_SAT, None)
        }
        Change::Withdraw => {
            let address = group.network.venue.new_address()?;
            let txid = cli.withdraw(key, WITHDRAWAL_SAT, &address, Some(version), wish.expiry_blocks)?;
            let value_sat = before.value_sat - WITHDRAWAL_SAT - fee_sat(before.version, 1);
            (txid, value_sat, Some(WITHDRAWAL_SAT))
        }
        Change::Renew => {
            let blocks = wish.expiry_blocks.ok_or_else(|| Failure::fatal("a renewal without expiry"))?;
            let txid = cli.renew(key, Some(version), blocks)?;
            (txid, before.value_sat - fee_sat(before.version, 0), None)
        }
    };
    let transaction = group.network.chain.wait_for_transaction(&txid)?;
    let pays = outputs(&transaction)?;
    assert!(spent(&transaction)?.contains(&before.outpoint), "{transaction} does not spend {before:?}");
    for expected_sat in paid.into_iter().chain([value_sat]) {
        assert!(pays.iter().any(|(value, _)| *value == expected_sat), "no output of {expected_sat} sat in {pays:?}");
    }
    let now = cli.account(key)?;
    let expected = PoolAccount {
        outpoint: now.outpoint.clone(),
        value_sat,
        available_sat: value_sat,
        expires_at: wish.expiry_blocks.map_or(before.expires_at, |blocks| height + blocks),
        state: "PENDING_UPDATE".into(),
        latest_txid: txid.clone(),
        version,
        ..before.clone()
    };
    assert_eq!(now, expected, "{:?}", party.side);
    assert_eq!(txid_of(&now.outpoint)?, txid);
    check_account(group.network, &now, value_sat)?;
    Ok(now)
}

/// Raises the fee of a pending deposit: the node takes on a child that spends the wallet's change.
fn raise_fee(group: &Group<'_>, party: &Party, account: &PoolAccount) -> Outcome<()> {
    party.client.cli().bump_fee(&account.trader_key, BUMPED_SAT_PER_VBYTE)?;
    let node = group.node(party.side);
    Wait::new(format!("a child of {} at {}", account.latest_txid, node.name())).until(|| {
        let sweeps = node.pending_sweeps()?;
        let found = sweeps.iter().find(|(outpoint, _)| outpoint.starts_with(&account.latest_txid));
        match found {
            Some((_, BUMPED_SAT_PER_VBYTE)) => Ok(()),
            other => Err(Failure::new(format!("{other:?} of {sweeps:?}"))),
        }
    })
}

/// What the owner may not do: the venue or the daemon refuses, and nothing changes.
pub(crate) fn refusals(group: &Group<'_>) -> Outcome<()> {
    let party = &group.seller;
    let account = party.accounts.first().ok_or_else(|| Failure::fatal("no account"))?;
    let (cli, key) = (party.client.cli(), account.trader_key.as_str());
    let refused = |what: &str, answer: Outcome<String>| match answer {
        Ok(txid) => Err(Failure::fatal(format!("{what} was not refused: {txid}"))),
        Err(_) => Ok(()),
    };
    let address = group.network.venue.new_address()?;
    refused("more than it has", cli.withdraw(key, account.value_sat, &address, Some(account.version), None))?;
    refused("an expiry too near", cli.renew(key, Some(account.version), 100))?;
    refused("an expiry too far", cli.renew(key, Some(account.version), 60_000))?;
    refused("more than the limit", cli.deposit(key, 1_000_000_000, Some(account.version), None))?;
    assert_eq!(cli.account(key).context(|| "after refusals".into())?, *account);
    Ok(())
}
