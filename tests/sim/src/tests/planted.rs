//! A defect of each class is planted, and must be found: a simulation that finds nothing proves nothing.

use bitcoin::{Amount, TxOut};
use futures_util::FutureExt;
use tidegate_ports::{AddressKind, ServerMessage, Wallet};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::units::{SatPerKw, Sats};
use tidegate_sim::{Element, Failure, NatureRates, Plan, PlannedOrder, Plant, Report, Run, run, run_with};

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the sandbox answers at once")
}

fn short() -> Plan {
    Plan::short(AccountVersion::V2)
}

/// The findings of a spoilt run; one of them must contain the words.
fn found(result: Result<Report, Failure>, words: &str) {
    let failure = result.expect_err("the defect goes unnoticed");
    let text = failure.to_string();
    assert!(failure.findings.iter().any(|finding| finding.contains(words)), "`{words}` is not among: {text}");
    assert!(text.contains("rerun: ") && text.contains("TIDEGATE_SIM_"), "{text}");
}

#[test]
fn a_run_without_a_defect_is_clean() {
    let report = run(&short()).expect("nothing to find");
    assert!(report.batches >= 1, "{report:?}");
}

#[test]
fn a_signer_that_repeats_a_nonce_is_found() {
    let mut plan = short();
    plan.traders[0].plant = Some(Plant::RepeatedNonce);
    found(run(&plan), "alice: a nonce signs twice");
    let mut plan = short();
    plan.venue_plant = Some(Plant::RepeatedNonce);
    found(run(&plan), "venue: a nonce signs twice");
}

#[test]
fn a_signature_that_leaves_before_its_batch_is_stored_is_found() {
    let mut plan = short();
    plan.traders[1].plant = Some(Plant::ForgottenRows("staged"));
    found(run(&plan), "the signatures of batch");
}

#[test]
fn a_store_that_forgets_the_leases_is_found() {
    let mut plan = short();
    plan.traders[0].plant = Some(Plant::ForgottenRows("lease"));
    found(run(&plan), "is leased as");
}

#[test]
fn a_store_that_tears_a_commit_is_found() {
    let mut plan = short();
    plan.traders[0].plant = Some(Plant::TornCommits);
    found(run(&plan), "alice");
}

/// Rows that are never deleted: a lock that nobody opens.
#[test]
fn a_lock_that_is_never_released_is_found() {
    let mut plan = short();
    plan.venue_plant = Some(Plant::KeptRows("v_reservation"));
    found(run(&plan), "reservations are stuck");
    let mut plan = short();
    plan.traders[0].plant = Some(Plant::KeptRows("staged"));
    found(run(&plan), "is left as");
}

/// An order that its owner believes to be cancelled and that the venue holds: the account can never be closed.
#[test]
fn an_order_that_is_stuck_is_found() {
    let mut plan = short();
    plan.traders[0].orders.push(PlannedOrder { ask: true, rate: 1_000, ..PlannedOrder::default() });
    assert!(run(&plan).is_ok(), "the order itself does no harm");
    plan.traders[0].plant = Some(Plant::UnsentCancel);
    found(run(&plan), "no rest within bounded time");
}

/// A deposit is taken back by a reorganisation, and its coin spent elsewhere: the account is what it was before. Who does
/// not listen to the reorganisation waits for the deposit for ever.
#[test]
fn a_reorganisation_that_is_ignored_is_found() {
    let mut plan = short();
    plan.nature = NatureRates { undo_deposit: 1_000_000, ..NatureRates::default() };
    // A child that raises the deposit's fee would keep it from being replaced.
    plan.traders.iter_mut().for_each(|trader| trader.bumps.clear());
    let report = run(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.happened.get(&Element::DepositUndone) >= Some(&1), "{report:?}");
    plan.traders[1].plant = Some(Plant::IgnoredReorganisation);
    found(run(&plan), "no rest within bounded time");
}

#[test]
fn a_venue_that_forgets_fills_is_found() {
    let mut plan = short();
    plan.venue_plant = Some(Plant::ForgottenRows("v_batch"));
    found(run(&plan), "at the venue");
}

/// A trader that never writes that a batch was superseded signs an output away twice, as its store sees it.
#[test]
fn two_spends_of_one_output_are_found() {
    let noticed = (0..200).map(Plan::faulty).find_map(|mut plan| {
        plan.traders.iter_mut().for_each(|trader| trader.plant = Some(Plant::ForgottenSuperseding));
        run(&plan).err().filter(|failure| failure.findings.iter().any(|finding| finding.contains("signed away twice")))
    });
    assert!(noticed.is_some(), "no run of 200 found two spends of one output");
}

/// The trader refuses a batch that takes a satoshi from it; so there is never one.
#[test]
fn a_wire_that_changes_a_balance_is_refused() {
    fn steal(message: &mut ServerMessage) {
        if let ServerMessage::Prepare(prepare) = message {
            for diff in &mut prepare.accounts {
                diff.ending_balance = diff.ending_balance.checked_sub(Sats::constant(1)).unwrap_or(Sats::ZERO);
            }
        }
    }
    let failure = run_with(&short(), |run: &Run| run.hub().set_tamper(Some(steal))).expect_err("the auditor notices");
    let venue = failure.findings.iter().all(|finding| finding.starts_with("auditor: ") && finding.contains("by Venue"));
    assert!(venue, "nobody but the venue did wrong, and everything comes to rest: {failure}");
    assert!(failure.findings.iter().any(|finding| finding.contains("EndingBalance")), "{failure}");
    assert_eq!((failure.report.batches, failure.report.leases), (0, 0), "nobody signs it");
}

#[test]
fn money_that_vanishes_from_a_wallet_is_found() {
    let steal = |run: &Run| {
        let thief = run.world.add_node("thief");
        let script_pubkey = now(thief.new_address(AddressKind::Taproot)).expect("an address");
        let output = TxOut { value: Amount::from_sat(1_000), script_pubkey };
        now(run.traders[0].party.node.send_outputs(&[output], SatPerKw::FLOOR, "stolen")).expect("the wallet pays");
    };
    found(run_with(&short(), steal), "sat are explained");
}
