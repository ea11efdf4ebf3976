//! Sidecar tickets: both forms, digests, signatures, mail boxes.

use crate::support::{Entry, hex, judge, load, load_own};
use serde_json::Value;
use tidegate_protocol::bitcoin::secp256k1::{Secp256k1, SecretKey};
use tidegate_protocol::ticket::{CompactSignature, Ticket, TicketError};

fn text<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get(key).filter(|value| !value.is_null()).map(|_| entry.text(key))
}

fn check_signature(found: Option<CompactSignature>, entry: &Value) {
    assert_eq!(found.map(|signature| hex(signature.as_bytes())).as_deref(), text(entry, "sig_offer_digest"));
    assert_eq!(
        found.and_then(|signature| signature.to_der()).map(|der| hex(&der)).as_deref(),
        text(entry, "sig_offer_digest_der")
    );
}

fn check_offer(ticket: &Ticket, entry: &Value) {
    let offer = &ticket.offer;
    assert_eq!((offer.capacity_sats, offer.push_sats), (entry.u64("capacity"), entry.u64("push_amt")));
    assert_eq!(offer.lease_duration.get(), entry.u32("lease_duration_blocks"));
    assert_eq!(offer.signing_key.map(|key| key.to_string()).as_deref(), text(entry, "sign_pubkey"));
    assert_eq!(offer.auto, entry.flag("auto"));
    assert_eq!(offer.unannounced, entry.flag("unannounced_channel"));
    assert_eq!(offer.zero_conf, entry.flag("zero_conf_channel"));
    check_signature(offer.signature, entry);
}

/// Every part is there exactly when the entry has it.
fn check_parts(ticket: &Ticket, entry: &Value) {
    check_offer(ticket, entry.at("offer"));
    assert_eq!(ticket.recipient.is_some(), entry.get("recipient").is_some());
    if let (Some(recipient), Some(expected)) = (&ticket.recipient, entry.get("recipient")) {
        assert_eq!(recipient.node.map(|key| key.to_string()).as_deref(), text(expected, "node_pubkey"));
        assert_eq!(recipient.multisig.map(|key| key.to_string()).as_deref(), text(expected, "multisig_pubkey"));
        assert_eq!(recipient.multisig_index, expected.u32("multisig_key_index"));
    }
    assert_eq!(ticket.order.is_some(), entry.get("order").is_some());
    if let (Some(order), Some(expected)) = (&ticket.order, entry.get("order")) {
        assert_eq!(order.bid.map_or("0".repeat(64), |bid| bid.to_hex()), expected.text("bid_nonce"));
        let mut expected = expected.clone();
        for (ours, theirs) in
            [("sig_offer_digest", "sig_order_digest"), ("sig_offer_digest_der", "sig_order_digest_der")]
        {
            expected[ours] = expected[theirs].clone();
        }
        check_signature(order.signature, &expected);
    }
    let pending = entry.get("execution").map(|execution| execution.text("pending_channel_id"));
    assert_eq!(ticket.execution.map(|id| id.to_hex()).as_deref(), pending);
}

#[test]
fn tickets_are_the_networks() {
    let Some(file) = load("sidecar_tickets.json") else { return };
    judge("sidecar_tickets.json", &file, "tickets", |entry| {
        let ticket: Ticket = entry.parse("encoded");
        assert_eq!(ticket.to_string(), entry.text("encoded"));
        assert_eq!(hex(&ticket.encode()), entry.text("tlv"));
        assert_eq!(Ticket::decode(&entry.bytes("tlv")), Ok(ticket.clone()));
        assert_eq!(ticket.id.to_string(), entry.text("id"));
        assert_eq!(u64::from(ticket.version), entry.u64("version"));
        assert_eq!(u64::from(ticket.state.number()), entry.u64("state"));
        assert_eq!(ticket.state.to_string(), entry.text("state_name"));
        check_parts(&ticket, entry);
        assert_eq!(ticket.offer_digest().ok().map(|digest| hex(&digest)).as_deref(), text(entry, "offer_digest"));
        assert_eq!(ticket.order_digest().ok().map(|digest| hex(&digest)).as_deref(), text(entry, "order_digest"));
        assert_eq!(ticket.verify_offer().is_ok(), entry.flag("offer_verifies"), "{:?}", ticket.verify_offer());
        assert_eq!(ticket.verify_order().is_ok(), entry.flag("order_verifies"), "{:?}", ticket.verify_order());
        let provider = ticket.provider_stream().ok().map(|id| hex(&id));
        assert_eq!(provider.as_deref(), text(entry, "provider_stream_id"));
        let recipient = ticket.recipient_stream().ok().map(|id| hex(&id));
        assert_eq!(recipient.as_deref(), text(entry, "recipient_stream_id"));
        if let Some(secret) = text(entry, "provider_privkey") {
            let key = secret.parse::<SecretKey>().unwrap().public_key(&Secp256k1::new());
            assert_eq!(ticket.offer.signing_key.map(|signer| *signer.point()), Some(key));
        }
    });
}

#[test]
fn texts_that_are_no_tickets_are_refused() {
    let Some(file) = load("sidecar_tickets.json") else { return };
    judge("sidecar_tickets.json", &file, "invalid_strings", |entry| {
        let found = entry.text("encoded").parse::<Ticket>();
        assert_eq!(found.is_ok(), entry.flag("valid"), "{}: {found:?}", entry.text("name"));
    });
}

#[test]
fn unusual_streams_are_read_as_by_the_network() {
    let Some(file) = load("sidecar_tlv_edge_cases.json") else { return };
    judge("sidecar_tlv_edge_cases.json", &file, "vectors", |entry| {
        let found = Ticket::decode(&entry.bytes("tlv"));
        assert_eq!(found.is_ok(), entry.flag("valid"), "{}: {found:?}", entry.text("name"));
        if let Ok(ticket) = found {
            assert_eq!(hex(&ticket.encode()), entry.text("reserialized"), "{}", entry.text("name"));
            assert_eq!(Ticket::decode(&ticket.encode()), Ok(ticket));
        }
    });
}

/// One bit of every byte: nothing panics, and no other ticket passes for the signed one.
#[test]
fn a_flipped_bit_never_passes_for_the_signed_offer() {
    let file = load_own("sidecar_tickets.json");
    let entry = file.list("tickets").iter().find(|entry| entry.flag("order_verifies")).unwrap();
    let (stream, signed) = (entry.bytes("tlv"), entry.parse::<Ticket>("encoded"));
    let mut survived = 0;
    for place in 0..stream.len() {
        let mut flipped = stream.clone();
        flipped[place] ^= 1 << (place % 8);
        let Ok(ticket) = Ticket::decode(&flipped) else { continue };
        if ticket.verify_offer().is_ok() && ticket.verify_order().is_ok() {
            survived += 1;
            assert_eq!(ticket.offer_digest(), signed.offer_digest(), "byte {place}");
            assert_eq!(ticket.offer.signing_key, signed.offer.signing_key, "byte {place}");
        }
    }
    assert!(
        survived > 0 && survived < stream.len() / 2,
        "state, duration and the recipient are covered by no signature"
    );
}

#[test]
fn a_text_of_another_version_is_read_if_its_checksum_is_of_ours() {
    let file = load_own("sidecar_tickets.json");
    let text = file.list("tickets")[0].text("encoded");
    let mut bytes = tidegate_protocol::bitcoin::base58::decode(text.strip_prefix("sidecar").unwrap()).unwrap();
    bytes[0] = 9;
    let other = format!("sidecar{}", tidegate_protocol::bitcoin::base58::encode(&bytes));
    assert_eq!(other.parse::<Ticket>(), text.parse::<Ticket>());
    *bytes.last_mut().unwrap() ^= 1;
    let broken = format!("sidecar{}", tidegate_protocol::bitcoin::base58::encode(&bytes));
    assert_eq!(broken.parse::<Ticket>(), Err(TicketError::Checksum));
}
