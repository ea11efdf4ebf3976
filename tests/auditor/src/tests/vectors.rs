//! Whole batches of the golden vectors.

use serde_json::Value;

use super::support::{Story, auditor_of, bytes, list, me, report, stories, text, vectors};
use crate::wire::rpc::{self, server_auction_message as told};
use crate::{Auditor, Party};
use prost::Message as _;

/// Batches with all three account versions, both markets, a sidecar and dust.
#[test]
fn a_complete_batch_is_without_findings() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    Story::of(&entry).tell(&mut auditor);
    assert_eq!(report(&auditor), "");
    let counts = auditor.counts();
    assert_eq!((counts.proposals, counts.acceptances, counts.finalized), (1, 1, 1));
    assert_eq!((counts.account_signatures, counts.account_signatures_verified), (5, 5));
    assert_eq!((counts.transactions, counts.witnesses_verified, counts.channels), (1, 5, 7));
}

/// Without the secrets, version 0 signatures are judged only on the chain; nothing else is lost.
#[test]
fn a_complete_batch_is_judged_without_secrets() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, false);
    Story::of(&entry).tell(&mut auditor);
    assert_eq!(report(&auditor), "");
    let counts = auditor.counts();
    assert_eq!((counts.account_signatures, counts.account_signatures_verified), (5, 3));
    assert_eq!(counts.witnesses_verified, 5);
}

#[test]
fn honest_batches_are_without_findings() {
    let file = vectors("batch_honest.json");
    for entry in list(&file, "vectors") {
        let mut auditor = auditor_of(&entry["local_state"], true);
        let told = match entry.get("steps") {
            Some(_) => stories(entry),
            None => vec![Story::of(entry)],
        };
        for story in &told {
            story.tell(&mut auditor);
        }
        assert_eq!(report(&auditor), "", "{}", text(entry, "name"));
        let counts = auditor.counts();
        assert!(counts.finalized > 0 && counts.account_signatures_verified == counts.account_signatures);
    }
    assert!(!list(&file, "vectors").is_empty());
}

/// Feeds a prepare, sign or finalize message as bytes of the stream, decodable or not.
fn feed(auditor: &mut Auditor, kind: &str, message: &[u8]) {
    // Field number of the kind inside the stream message, length-delimited.
    let tag = match kind {
        "prepare" => 4_u32,
        "sign" => 5,
        "finalize" => 6,
        other => panic!("{other}"),
    };
    let mut bytes = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(u64::try_from(message.len()).unwrap(), &mut bytes);
    bytes.extend(message);
    auditor.server_message(&me(), &bytes);
    let known = rpc::ServerAuctionMessage::decode(bytes.as_slice());
    if let Ok(rpc::ServerAuctionMessage { msg: Some(told::Msg::Prepare(prepare)) }) = known {
        let accept = rpc::OrderMatchAccept { batch_id: prepare.batch_id };
        let msg = Some(rpc::client_auction_message::Msg::Accept(accept));
        auditor.client_message(&me(), &rpc::ClientAuctionMessage { msg }.encode_to_vec());
    }
}

fn messages(entry: &Value) -> Vec<(String, Vec<u8>)> {
    if entry.get("steps").is_some() {
        let steps = list(entry, "steps").iter();
        return steps.map(|step| (text(step, "type").to_owned(), bytes(step, "msg"))).collect();
    }
    ["prepare", "sign", "finalize"]
        .into_iter()
        .filter(|kind| entry[format!("{kind}_msg")].is_string())
        .map(|kind| (kind.to_owned(), bytes(entry, &format!("{kind}_msg"))))
        .collect()
}

/// Every hostile batch has a finding before or in the phase in which a strict client refuses it. Finalize counts for a
/// trader that has signed, which these entries leave out.
#[test]
fn hostile_batches_have_findings() {
    let file = vectors("batch_hostile.json");
    let mut judged = 0;
    for entry in list(&file, "vectors").iter().filter(|entry| entry["doubt"].is_null()) {
        let mut auditor = auditor_of(&entry["local_state"], true);
        for (kind, message) in messages(entry) {
            feed(&mut auditor, &kind, &message);
            if entry.get("steps").is_none() && kind == text(entry, "reject_by") {
                break;
            }
        }
        judged += 1;
        assert!(auditor.findings_of(Party::Venue).next().is_some(), "{}", text(entry, "name"));
    }
    assert!(judged > 0);
}
