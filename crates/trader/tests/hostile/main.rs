//! The kinds of lies of the protocol's hostile corpus, told to a whole trader: it refuses, asks its node for no
//! signature, and its store stays as it was.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and a run says what it tried"
)]

mod env;
#[path = "../../../protocol/tests/honest/generator/mod.rs"]
#[allow(dead_code, reason = "shared with the protocol's tests, which look at more")]
mod generator;
#[path = "../../../protocol/tests/hostile"]
mod kinds {
    #[allow(dead_code, reason = "what happens to our own state cannot be said by a venue")]
    pub(crate) mod conversation;
    pub(crate) mod proposals;
}
#[path = "../../../protocol/tests/hostile/scene.rs"]
#[allow(dead_code, reason = "shared with the protocol's tests, which look at more")]
mod scene;
#[path = "../flows/sim.rs"]
#[allow(dead_code, reason = "shared with the other flows, which do more")]
mod sim;
#[path = "../../../protocol/tests/hostile/table.rs"]
#[allow(dead_code, reason = "shared with the protocol's tests, which look at more")]
mod table;
#[path = "../flows/venue.rs"]
#[allow(dead_code, reason = "shared with the other flows, which do more")]
mod venue;

use env::Stage;
use generator::draw::Draw;
use generator::proposal::Local;
use kinds::{conversation, proposals};
use scene::Scene;
use std::collections::BTreeMap;
use table::Row;
use tidegate_ports::{ClientMessage, ServerMessage};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::{BatchVersion, Finalize, SignBegin};
use tidegate_protocol::units::BlockCount;
use venue::Made;

const PROPOSALS: [&[Row]; 4] = [proposals::PAIRS, proposals::CHANNELS, proposals::MONEY, proposals::TRANSACTION];

/// Kinds that apply to the one match of these batches, at least.
const PROPOSALS_AT_LEAST: usize = 60;
const SIGN_AT_LEAST: usize = 13;

/// What alice knows and is told of this batch.
fn scene(stage: &mut Stage, made: &Made, seed: u64) -> Scene {
    let status = stage.status("alice");
    let (batch_id, txid) = (made.batch_id.serialize().to_vec(), made.transaction.compute_txid());
    let mut draw = Draw::new(seed);
    let taproot = status.accounts.iter().filter(|account| account.terms.version != AccountVersion::V0);
    let server_nonces = taproot.map(|account| (account.key(), generator::proposal::nonces(&mut draw))).collect();
    Scene {
        local: Local {
            node: status.node.unwrap(),
            best_height: status.best_height.unwrap(),
            batch_version: BatchVersion(58),
            accounts: status.accounts.iter().map(|account| (account.key(), account.clone())).collect(),
            orders: status.orders.iter().map(|own| (own.order.nonce, own.clone())).collect(),
            extension_now: BlockCount::new(3_024),
            ratings: BTreeMap::new(),
            reject_unrated: false,
        },
        prepare: made.prepares["alice"].clone(),
        sign: SignBegin { batch_id: batch_id.clone(), server_nonces, prev_outputs: made.prev_outputs.clone() },
        finalize: Finalize { batch_id, txid },
        draw,
    }
}

/// Alice says no, and nothing else.
fn refused(stage: &mut Stage, kind: &str) {
    stage.sim.settle();
    match stage.venue.heard("alice") {
        Some(ClientMessage::Reject(_)) => {}
        other => panic!("{kind}: {other:?}"),
    }
    assert_eq!(stage.venue.heard("alice"), None, "{kind}");
    assert!(stage.sim.ended.is_empty(), "{kind}: {:?}", stage.sim.ended);
}

fn lies_about_proposals(version: AccountVersion) {
    let (mut stage, ask, bid) = Stage::with_orders(version);
    let mut kinds = 0;
    for (seed, row) in (1u64..).zip(PROPOSALS.into_iter().flatten()) {
        let made = stage.venue.make(env::batch_id(1), ask, bid, 4, 800, 500);
        let mut scene = scene(&mut stage, &made, seed);
        if row.2(&mut scene).is_none() {
            continue;
        }
        let before = (stage.signatures(), stage.rows());
        stage.venue.say("alice", ServerMessage::Prepare(Box::new(scene.prepare)));
        refused(&mut stage, row.0);
        assert_eq!((stage.signatures(), stage.rows()), before, "{}: signatures and rows", row.0);
        kinds += 1;
    }
    println!("{version:?}: {kinds} kinds of proposals refused by the trader, no signing call, store unchanged");
    assert!(kinds >= PROPOSALS_AT_LEAST, "{kinds}");
    stage.trades(ask, bid);
}

fn lies_about_signing(version: AccountVersion) {
    let (mut stage, ask, bid) = Stage::with_orders(version);
    let mut kinds = 0;
    for (seed, row) in (1u64..).zip(conversation::SIGN) {
        let made = stage.venue.make(env::batch_id(1), ask, bid, 4, 800, 500);
        let mut scene = scene(&mut stage, &made, seed);
        if row.2(&mut scene).is_none() {
            continue;
        }
        stage.accepted(&made);
        let before = (stage.signatures(), stage.book());
        stage.venue.say("alice", ServerMessage::Sign(Box::new(scene.sign)));
        refused(&mut stage, row.0);
        assert_eq!((stage.signatures(), stage.book()), before, "{}: signatures and book", row.0);
        kinds += 1;
    }
    println!("{version:?}: {kinds} kinds of requests to sign refused by the trader, no signing call, book unchanged");
    let nonces = if version == AccountVersion::V0 { 5 } else { 0 };
    assert!(kinds + nonces >= SIGN_AT_LEAST, "{kinds}");
    stage.trades(ask, bid);
}

#[test]
fn a_trader_with_a_script_account_signs_no_hostile_proposal() {
    lies_about_proposals(AccountVersion::V0);
}

#[test]
fn a_trader_with_a_taproot_account_signs_no_hostile_proposal() {
    lies_about_proposals(AccountVersion::V2);
}

#[test]
fn a_trader_with_a_script_account_answers_no_hostile_request_to_sign() {
    lies_about_signing(AccountVersion::V0);
}

#[test]
fn a_trader_with_a_taproot_account_answers_no_hostile_request_to_sign() {
    lies_about_signing(AccountVersion::V1);
    lies_about_signing(AccountVersion::V2);
}

#[test]
fn a_trader_books_nothing_for_a_false_end() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(env::batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    let before = (stage.signatures(), stage.rows());
    for (seed, row) in (1u64..).zip(conversation::FINALIZE) {
        let mut scene = scene(&mut stage, &made, seed);
        row.2(&mut scene).unwrap();
        stage.venue.say("alice", ServerMessage::Finalize(scene.finalize));
        stage.sim.settle();
        assert_eq!(stage.venue.heard("alice"), None, "{}", row.0);
        assert_eq!((stage.signatures(), stage.rows()), before, "{}: signatures and rows", row.0);
    }
    println!("{} kinds of false ends ignored by the trader, store unchanged", conversation::FINALIZE.len());
    stage.venue.finalize(&made);
    stage.sim.settle();
    assert_eq!(stage.status("alice").leases.len(), 1, "the true one is believed");
}
