//! A process ends at every one of its port calls, before the effect and after it with the answer lost, once and twice in
//! a row; it starts again from its store, and arrives where it would have.

use crate::pool::{all, attempt};
use std::env;
use tidegate_protocol::account::AccountVersion;
use tidegate_sandbox::Cut;
use tidegate_sim::{Plan, Report, rerun, twice};

/// In a plain test run every process is cut at every call once, in the four ways in turn; with `TIDEGATE_SIM_CUTS=all` at
/// every call in all four ways, with accounts of every version.
fn thorough() -> bool {
    env::var("TIDEGATE_SIM_CUTS").is_ok_and(|value| value == "all")
}

/// After the effect or before it, twice or once.
const WAYS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// By number.
const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];

fn ways(call: u64) -> Vec<(bool, bool)> {
    let turn = usize::try_from(call % 4).unwrap_or(0);
    if thorough() { WAYS.to_vec() } else { vec![WAYS[turn]] }
}

/// The life of `who` that ends at a call.
fn cut(who: &str, version: AccountVersion, call: u64, (after, again): (bool, bool)) -> Plan {
    let mut plan = Plan::short(version);
    let once = Cut { calls: call, after };
    let cuts = if again { twice(once) } else { vec![once] };
    match plan.traders.iter_mut().find(|trader| trader.name == who) {
        Some(trader) => trader.cuts = cuts,
        None => plan.venue_cuts = cuts,
    }
    let number = VERSIONS.iter().position(|known| *known == version).unwrap_or_default();
    let (after, again) = (u8::from(after), u8::from(again));
    plan.rerun = rerun(&format!("TIDEGATE_SIM_CUT={who},{number},{call},{after},{again}"));
    plan
}

/// The life that `TIDEGATE_SIM_CUT` names: who, account version, call, after its effect, twice.
pub(crate) fn named() -> Option<Plan> {
    let text = env::var("TIDEGATE_SIM_CUT").ok()?;
    let parts: Vec<&str> = text.split(',').collect();
    let [who, version, call, after, again] = parts[..] else { panic!("TIDEGATE_SIM_CUT has five parts, not {text}") };
    let number = |part: &str| part.parse::<u64>().unwrap_or_else(|_| panic!("{part} is no number"));
    let known = VERSIONS.get(usize::try_from(number(version)).unwrap_or(usize::MAX));
    let version = known.unwrap_or_else(|| panic!("{version} is no account version"));
    Some(cut(who, *version, number(call), (after == "1", again == "1")))
}

/// Cuts one process at each of its calls.
fn cut_everywhere(who: &str, index: usize, version: AccountVersion) {
    let whole: Report = attempt(&Plan::short(version)).unwrap_or_else(|failure| panic!("uncut: {failure}"));
    let story = (whole.batches >= 1 && whole.leases >= 1, whole.changes);
    assert_eq!(story, (true, 3), "the life that is cut holds a trade, a deposit, a withdrawal, a renewal: {whole:?}");
    let calls = whole.calls[index];
    assert!(calls > 60, "{calls} calls are too few for a whole life");
    let plans = (0..calls).flat_map(|call| ways(call).into_iter().map(move |way| cut(who, version, call, way)));
    let plans: Vec<Plan> = plans.collect();
    println!("{who} {version:?}: {} lives cut, {calls} calls in a whole one", plans.len());
    all(&plans);
}

fn versions() -> Vec<AccountVersion> {
    if thorough() { VERSIONS.to_vec() } else { vec![AccountVersion::V2] }
}

#[test]
fn a_seller_that_is_cut_at_any_call_arrives() {
    versions().into_iter().for_each(|version| cut_everywhere("alice", 1, version));
}

#[test]
fn a_buyer_that_is_cut_at_any_call_arrives() {
    versions().into_iter().for_each(|version| cut_everywhere("bob", 2, version));
}

#[test]
fn a_venue_that_is_cut_at_any_call_arrives() {
    versions().into_iter().for_each(|version| cut_everywhere("venue", 0, version));
}

/// A whole life with accounts of each version, uncut.
#[test]
fn the_story_is_told_with_accounts_of_every_version() {
    all(&VERSIONS.map(Plan::short));
}
