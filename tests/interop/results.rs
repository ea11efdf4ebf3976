//! What a whole run found, as `docs/interop.md`. Only a run of everything (`TIDEGATE_INTEROP=all`) writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::failure::{Context as _, Outcome};
use crate::matrix::{PAIRINGS, Pairing, Setting, impossible, settings_of};
use crate::process::report;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    Failed,
}

impl Ending {
    fn word(found: Option<&Self>) -> &'static str {
        match found {
            Some(Self::Passed) => "passed",
            Some(Self::Failed) => "FAILED",
            None => "not run",
        }
    }
}

/// Every case but the rows of the matrix: name, what happens, what is compared.
const CASES: &[(&str, &str, &str)] = &[
    (
        "nodes_open_an_ordinary_channel",
        "the network itself, without an auction",
        "channel at both nodes, its output on the chain",
    ),
    (
        "poold_starts_without_an_auctioneer",
        "nobody at the venue's address; the client is killed and comes back",
        "refusal of an account, no account stored",
    ),
    ("poold_sells_to_poold", "one lease, default orders, accounts closed", ONE_LEASE),
    ("poold_sells_to_agent", "as before; the buyer is our agent with its strategy", ONE_LEASE),
    ("agent_sells_to_poold", "as before; the seller is our agent with its strategy", ONE_LEASE),
    ("agent_sells_to_agent", "as before; both are", ONE_LEASE),
    ("lifecycle_of_poold_accounts", LIFECYCLE, CHANGES),
    ("lifecycle_of_our_accounts", LIFECYCLE, CHANGES),
    ("several_poold_sells_to_agent", SEVERAL, SEVERAL_COMPARED),
    ("several_agent_sells_to_poold", SEVERAL, SEVERAL_COMPARED),
    ("kills_our_buyer", KILLS, KILLS_COMPARED),
    ("kills_our_seller", KILLS, KILLS_COMPARED),
    (
        "expired_accounts_leave_without_a_venue",
        "the venue is gone for good; six accounts of ours, of versions 0, 1 and 2, are closed after their expiry",
        "state, spent output and lock time of each close, witnesses on the chain; auditor",
    ),
    (
        "expired_accounts_are_renewed",
        "three accounts of poold and three of ours expire, are renewed together with the venue, trade and are closed",
        CHANGES,
    ),
    (
        "leases_close_at_maturity_and_not_before",
        "the seller's node asks for a cooperative close of a default and a script enforced lease, before its end and after it",
        "refusal before (by the seller's own node, which knows the term), closing transaction and channel lists after; auditor",
    ),
    (
        "nodes_are_shared_with_other_programs",
        "beside our traders: another program opens a channel during a batch, has locked coins, and a second client holds an \
         acceptor",
        "as for a lease of the matrix; the other channel, the locks before and after a deposit, its inputs; auditor",
    ),
    (
        "wrong_node",
        "another network, certificate or macaroon than the node's",
        "exit code, and the sentence that says what is wrong and what to do",
    ),
    ("missing_permission", "a macaroon that lacks one permission", "exit code, and the sentence that names the call"),
    (
        "locked_node",
        "a node without wallet, locked, or restarted",
        "exit code or waiting, the sentence, and the height that is known afterwards",
    ),
    (
        "crashes",
        "agent and its node killed while an account opens; the venue killed with orders in its book",
        "coins that left the wallet, accounts, orders at the venue, the lease traded afterwards",
    ),
];

const ONE_LEASE: &str =
    "both reports, metrics of the agent, venue's snapshot, channel at both nodes, chain; to the satoshi; auditor";
const LIFECYCLE: &str = "accounts of versions 0, 1 and 2 on both sides: deposit with its fee raised, withdrawal, renewal, leases with the \
    changed accounts, withdrawal with renewal, deposit with renewal and upgrade, close; four requests that are refused";
const CHANGES: &str = "every field of the account's report while pending and afterwards, transaction, outputs and scripts on the chain, fee \
    by its formula, the child at the node; to the satoshi; auditor";
const SEVERAL: &str = "three matches between two nodes in one batch, one order filled in part and cancelled; three batches before a block; \
    a reorganisation that takes a batch's block back";
const SEVERAL_COMPARED: &str = "accounts, orders, reserved value, channels at both nodes, inputs and outputs of each batch; to the satoshi; \
    auditor";

const KILLS: &str = "a lease for each kill: our trader after accept, after it signed (signature lost, signature sent), before finalize; our node \
    after prepare (buyer only), after the channel was opened, after our signature; the venue between storing a batch and publishing it";
const KILLS_COMPARED: &str = "as for a lease of the matrix: it happens once, and nothing else does; auditor";

type Key = (String, Option<usize>);

static FOUND: Mutex<BTreeMap<Key, Ending>> = Mutex::new(BTreeMap::new());

/// Whether this run is of everything.
pub(crate) fn all() -> bool {
    std::env::var("TIDEGATE_INTEROP").is_ok_and(|value| value == "all")
}

/// Name of the case that trades a pairing's settings.
pub(crate) fn matrix_name(pairing: Pairing) -> String {
    let name = |program| format!("{program:?}").to_lowercase();
    format!("matrix_{}_sells_to_{}", name(pairing.seller), name(pairing.buyer))
}

/// Takes note of a case, or of one row of the matrix. Writes the report once all are known.
///
/// # Errors
/// A case that the report does not know, or a file that can not be written.
pub(crate) fn record(case: &str, row: Option<usize>, ending: Ending) -> Outcome<()> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.insert((case.to_owned(), row), ending);
    let ended = |name: &str| found.contains_key(&(name.to_owned(), None));
    let matrix = PAIRINGS.into_iter().map(matrix_name);
    let mut expected = CASES.iter().map(|(name, ..)| (*name).to_owned()).chain(matrix);
    if !all() || !expected.all(|name| ended(&name)) {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interop.md");
    report(&format!("all cases have ended: {}", path.display()));
    fs::write(&path, page(&found)).context(|| format!("write {}", path.display()))
}

/// Whether the report knows a case of this name.
pub(crate) fn knows(case: &str) -> bool {
    CASES.iter().any(|(name, ..)| *name == case) || PAIRINGS.into_iter().map(matrix_name).any(|name| name == case)
}

const HEAD: &str = "# Interop

Our venue and our trader against btcd, lnd and poold of the versions in `tests/interop/go`, on a regtest network. This page is
written by the run itself: `TIDEGATE_INTEROP=all cargo test --locked --test interop`. A plain `cargo test` trades three rows
of each pairing, marked with a star, and most of the other cases, some of them shortened.

Every case runs through a recording proxy whose auditor (a second implementation of the market's law) recomputes scripts,
balances and signatures of all that is said, and the witnesses of all account spends on the chain. It must find nothing.

## Leases

For each row: every field of both traders' accounts, orders and leases, the venue's snapshot, the channel at both nodes (capacity,
balances, opener, type, announcement, zero-conf, thaw height), inputs and outputs of the batch on the chain; to the satoshi,
with amounts that the test computes itself. All other accounts must be as they were. *poold* is the deployed client, *agent* is
`tidegate run`, driven by the same deployed command line.
";

fn page(found: &BTreeMap<Key, Ending>) -> String {
    let mut page = HEAD.to_owned();
    let ending = |name: &str, row| Ending::word(found.get(&(name.to_owned(), row)));
    page.push_str("\n| seller | buyer | lease | result |\n|---|---|---|---|\n");
    for pairing in PAIRINGS {
        let name = matrix_name(pairing);
        let plain = settings_of(pairing, false);
        for (row, setting) in settings_of(pairing, true).iter().enumerate() {
            let star = if plain.contains(setting) { " \\*" } else { "" };
            let programs = [pairing.seller, pairing.buyer].map(|one| format!("{one:?}").to_lowercase());
            let line = (setting.describe(), ending(&name, Some(row)));
            // Writing to a text can not fail.
            let _ = writeln!(page, "| {} | {} | {}{star} | {} |", programs[0], programs[1], line.0, line.1);
        }
    }
    page.push_str("\nWhat no lease can be:\n\n");
    for reason in impossible() {
        let _ = writeln!(page, "* {reason}.");
    }
    page.push_str("\nKnown defects of the deployed client's *report* (its balances are right), asserted as they are: `auction leases` fails\nfor a simple taproot lease, and in the outbound market it leaves the buyer's coins out of the seller's premium and of the\nbuyer's execution fee.\n");
    page.push_str("\n## Other cases\n\n| case | what happens | what is compared | result |\n|---|---|---|---|\n");
    for (name, happens, compared) in CASES {
        let _ = writeln!(page, "| `{name}` | {happens} | {compared} | {} |", ending(name, None));
    }
    page
}

#[test]
fn page_tells_every_row_and_every_case() {
    let page = page(&BTreeMap::new());
    let rows: Vec<Setting> = PAIRINGS.into_iter().flat_map(|pairing| settings_of(pairing, true)).collect();
    assert_eq!(page.matches("| not run |").count(), rows.len() + CASES.len());
    assert_eq!(page.matches(" \\* |").count(), 12);
}
