//! What a hostile or broken venue may say: each kind is a row, each row is tried on several random honest batches, and
//! none may pass. A run prints the rows.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and a run says what it tried"
)]

mod conversation;
#[path = "../honest/generator/mod.rs"]
#[allow(dead_code, reason = "shared with the honest half, which looks at more")]
mod generator;
mod malformed;
mod proposals;
mod scene;
mod table;

use generator::World;
use generator::draw::Draw;
use generator::proposal::Proposal;
use malformed::Broken;
use prost::Message;
use scene::Scene;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use table::{Row, expected};
use tidegate_protocol::bitcoin::{Amount, ScriptBuf, TxOut, consensus};
use tidegate_protocol::verify::{VerifyError, verify_finalize, verify_prepare, verify_sign};
use tidegate_wire::{batch as wire, poolrpc};

/// Honest batches on which each row is tried, at most.
const TRIES: usize = 20;

/// Honest batches that a row must apply to, at least.
const APPLIES: usize = 5;

static HONEST: LazyLock<Vec<Proposal>> = LazyLock::new(|| {
    let batches = (9_000..9_120).flat_map(|seed| {
        let mut world = World::new(seed);
        let mut proposals = Vec::new();
        for _ in 0..2 {
            let Some(batch) = world.next_batch() else { continue };
            world.apply(&batch);
            proposals.extend(batch.proposals);
        }
        proposals
    });
    batches.collect()
});

/// Tries every row on honest batches; the refusal is the judge's.
fn try_rows(rows: &[Row], phase: &str, judge: impl Fn(&Proposal, &Scene) -> Result<(), VerifyError>) {
    let mut accepted = Vec::new();
    for row in rows {
        let (mut tried, mut reasons) = (0, BTreeSet::new());
        for (seed, honest) in (1u64..).zip(HONEST.iter()) {
            let mut scene = Scene::of(honest, seed);
            if tried == TRIES || row.2(&mut scene).is_none() {
                continue;
            }
            tried += 1;
            match judge(honest, &scene) {
                Ok(()) => accepted.push(format!("{} (honest batch {seed})", row.0)),
                Err(error) => {
                    assert!(expected(row, &error), "{}, honest batch {seed}: {error:?}", row.0);
                    reasons.insert(table::variant(&error));
                }
            }
        }
        assert!(tried >= APPLIES, "{} applies to {tried} honest batches only", row.0);
        println!("{phase}: {}: {tried} tried, refused for {reasons:?}", row.0);
    }
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    println!("{phase}: {} kinds, 0 accepted", rows.len());
}

/// Judges a proposal as it is, and as it comes over the wire.
fn prepared(_: &Proposal, scene: &Scene) -> Result<(), VerifyError> {
    let outcome = verify_prepare(&scene.local.view(), &scene.prepare);
    if let Ok(message) = wire::to_prepare(&scene.prepare) {
        let message = poolrpc::OrderMatchPrepare::decode(&message.encode_to_vec()[..]).unwrap();
        let received = wire::from_prepare(message);
        let passed = received.is_ok_and(|prepare| verify_prepare(&scene.local.view(), &prepare).is_ok());
        assert_eq!(passed, outcome.is_ok(), "the wire makes a difference: {outcome:?}");
    }
    outcome.map(drop)
}

#[test]
fn no_lie_about_pairs_is_accepted() {
    try_rows(proposals::PAIRS, "prepare", prepared);
}

#[test]
fn no_lie_about_channels_is_accepted() {
    try_rows(proposals::CHANNELS, "prepare", prepared);
}

#[test]
fn no_lie_about_money_is_accepted() {
    try_rows(proposals::MONEY, "prepare", prepared);
}

#[test]
fn no_lie_in_the_transaction_is_accepted() {
    try_rows(proposals::TRANSACTION, "prepare", prepared);
}

#[test]
fn nothing_is_accepted_for_what_may_not_trade() {
    try_rows(conversation::OWN_STATE, "prepare", prepared);
}

fn signed(honest: &Proposal, scene: &Scene) -> Result<(), VerifyError> {
    let batch = verify_prepare(&honest.local.view(), &honest.prepare).unwrap();
    verify_sign(&scene.local.view(), &batch, &scene.sign)
}

#[test]
fn no_lie_about_signing_is_accepted() {
    try_rows(conversation::SIGN, "sign", signed);
    try_rows(conversation::SIGN_OWN_STATE, "sign", signed);
}

#[test]
fn no_lie_about_the_end_is_accepted() {
    try_rows(conversation::FINALIZE, "finalize", |honest, scene| {
        let batch = verify_prepare(&honest.local.view(), &honest.prepare).unwrap();
        verify_finalize(&batch, &scene.finalize)
    });
}

/// An honest proposal whose transaction got an output of nothing that makes it weigh so many bytes more than a block holds.
fn heavy(honest: &Proposal, excess: usize) -> Scene {
    const BLOCK_BYTES: usize = 1_000_000;
    /// Value, and the length of a script of more than 65,535 bytes.
    const AROUND: usize = 8 + 5;
    let mut scene = Scene::of(honest, 0);
    let length = BLOCK_BYTES + excess - consensus::serialize(&scene.prepare.transaction).len() - AROUND;
    let script_pubkey = ScriptBuf::from_bytes(vec![0x6a; length]);
    scene.prepare.transaction.output.push(TxOut { value: Amount::ZERO, script_pubkey });
    scene.sort();
    scene
}

#[test]
fn a_transaction_may_weigh_what_a_block_holds_and_no_byte_more() {
    for honest in HONEST.iter().take(TRIES) {
        let scene = heavy(honest, 0);
        verify_prepare(&scene.local.view(), &scene.prepare).unwrap();
        let scene = heavy(honest, 1);
        let error = verify_prepare(&scene.local.view(), &scene.prepare).unwrap_err();
        assert_eq!(error, VerifyError::TransactionWeight { expected: 4_000_000, found: 4_000_004 });
    }
}

#[test]
fn the_first_place_out_of_order_is_named() {
    for honest in HONEST.iter().take(TRIES) {
        let mut scene = Scene::of(honest, 0);
        scene.prepare.transaction.input.reverse();
        let error = verify_prepare(&scene.local.view(), &scene.prepare).unwrap_err();
        assert_eq!(error, VerifyError::InputOrder { input: 1 });
    }
}

#[test]
fn every_kind_has_a_name_of_its_own() {
    let tables = [
        proposals::PAIRS,
        proposals::CHANNELS,
        proposals::MONEY,
        proposals::TRANSACTION,
        conversation::OWN_STATE,
        conversation::SIGN,
        conversation::SIGN_OWN_STATE,
        conversation::FINALIZE,
    ];
    let rows = tables.iter().flat_map(|table| table.iter().map(|row| row.0));
    let malformed = malformed::PREPARE.iter().map(|row| row.0).chain(malformed::SIGN.iter().map(|row| row.0));
    let all: Vec<&str> = rows.chain(malformed).collect();
    let names: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(all.len(), names.len());
    println!("{} kinds", names.len());
    assert!(names.len() >= 60);
}

/// Tries every broken message on honest ones: it must not be read.
fn try_broken<M: Clone>(rows: &[Broken<M>], honest: impl Fn(&Proposal) -> M, reads: impl Fn(M) -> bool) {
    for row in rows {
        let mut tried = 0;
        for proposal in HONEST.iter() {
            let mut message = honest(proposal);
            if tried == TRIES || row.1(&mut message).is_none() {
                continue;
            }
            tried += 1;
            assert!(!reads(message), "{} is read", row.0);
        }
        assert!(tried >= APPLIES, "{} applies to {tried} honest messages only", row.0);
        println!("decode: {}: {tried} tried, none read", row.0);
    }
}

#[test]
fn no_malformed_message_is_read() {
    try_broken(
        malformed::PREPARE,
        |honest| wire::to_prepare(&honest.prepare).unwrap(),
        |message| wire::from_prepare(message).is_ok(),
    );
    try_broken(
        malformed::SIGN,
        |honest| wire::to_sign_begin(&honest.sign),
        |message| wire::from_sign_begin(message).is_ok(),
    );
}

/// Random damage: nothing panics, and what is still accepted leaves us the same money in the same outputs.
#[test]
fn damaged_bytes_never_cost_money() {
    let mut draw = Draw::new(77);
    let (mut damaged, mut accepted) = (0, 0);
    for honest in HONEST.iter().take(60) {
        let bytes = malformed::bytes_of(&wire::to_prepare(&honest.prepare).unwrap());
        for _ in 0..40 {
            let mut message = bytes.clone();
            let place = draw.index(message.len());
            match draw.between(0, 2) {
                0 => message.truncate(place),
                1 => message[place] = draw.bytes()[0],
                _ => message.insert(place, draw.bytes()[0]),
            }
            damaged += 1;
            let Ok(message) = poolrpc::OrderMatchPrepare::decode(&message[..]) else { continue };
            let Ok(prepare) = wire::from_prepare(message) else { continue };
            let Ok(batch) = verify_prepare(&honest.local.view(), &prepare) else { continue };
            accepted += 1;
            for (key, ending) in batch.accounts() {
                let (after, _) = &honest.accounts[key];
                assert_eq!((ending.after.value, ending.after.terms), (after.value, after.terms));
            }
        }
    }
    println!("{damaged} damaged messages, {accepted} of them without consequence");
    assert!(accepted < damaged / 2);
}
