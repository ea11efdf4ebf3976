//! Channels: funding outputs, acceptor decisions, backups.

use crate::local::channel_type;
use crate::support::{Entry, hex, judge, load};
use tidegate_protocol::backup::{BackupError, decrypt_and_parse};
use tidegate_protocol::batch::ReportedChannelType;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::{Address, Network, OutPoint, Txid};
use tidegate_protocol::channel::{
    AcceptorDecision, AcceptorRule, CommitmentType, IncomingChannel, funding_script, multisig_script,
};
use tidegate_protocol::keys::KeyLocator;
use tidegate_protocol::order::{BidTerms, OrderChannelType};

fn named_type(name: &str) -> OrderChannelType {
    match name {
        "peer_dependent" => OrderChannelType::PeerDependent,
        "script_enforced" | "script_enforced_lease" => OrderChannelType::ScriptEnforced,
        "simple_taproot" => OrderChannelType::SimpleTaproot,
        other => panic!("channel type {other}"),
    }
}

#[test]
fn funding_outputs_are_the_networks() {
    let Some(file) = load("funding_outputs.json") else { return };
    judge("funding_outputs.json", &file, "commitment_type_selection", |entry| {
        let commitment = CommitmentType::of_pair(named_type(entry.text("ours")), named_type(entry.text("theirs")));
        assert_eq!(commitment.number(), entry.u32("commitment_type_number"), "{entry}");
        assert_eq!(commitment == CommitmentType::SimpleTaproot, entry.flag("musig2"), "{entry}");
    });
    judge("funding_outputs.json", &file, "outputs", |entry| {
        let commitment = match entry.u64("commitment_type") {
            0 => CommitmentType::Negotiated,
            4 => CommitmentType::ScriptEnforcedLease,
            5 => CommitmentType::SimpleTaproot,
            other => panic!("commitment {other}"),
        };
        let (ours, theirs) = (entry.parse("our_key"), entry.parse("their_key"));
        let script = funding_script(ours, theirs, commitment).unwrap();
        assert_eq!(script.to_hex_string(), entry.text("pk_script"), "{entry}");
        assert_eq!(funding_script(theirs, ours, commitment).unwrap(), script);
        for (name, network) in
            [("mainnet", Network::Bitcoin), ("testnet3", Network::Testnet), ("regtest", Network::Regtest)]
        {
            assert_eq!(Address::from_script(&script, network).unwrap().to_string(), entry.at("addresses").text(name));
        }
        if let Some(expected) =
            entry.get("witness_script").and_then(|script| script.as_str()).filter(|text| !text.is_empty())
        {
            assert_eq!(hex(multisig_script(ours, theirs).as_bytes()), expected);
        }
    });
}

#[test]
fn incoming_channels_are_judged_as_by_the_network() {
    let Some(file) = load("channel_acceptor.json") else { return };
    judge("channel_acceptor.json", &file, "vectors", |entry| {
        let bid = BidTerms {
            self_balance: entry.sats("bid_self_chan_balance"),
            unannounced: entry.flag("bid_unannounced"),
            zero_conf: entry.flag("bid_zero_conf"),
            ..BidTerms::default()
        };
        // A bid of no known type does not get as far as a rule of ours; the network refuses its channel.
        let Some(wanted) = (0..=2).contains(&entry.u64("bid_channel_type")).then(|| entry.u64("bid_channel_type"))
        else {
            return assert!(!entry.flag("accept"), "{entry}");
        };
        let rule = AcceptorRule::for_bid(&bid, channel_type(wanted));
        let incoming = IncomingChannel {
            push_msat: entry.u64("request_push_msat"),
            commitment: match entry.text("request_commitment_type") {
                "none" => None,
                "unknown" => Some(0),
                "legacy" => Some(1),
                "static_remote_key" => Some(2),
                "anchors" => Some(3),
                "script_enforced_lease" => Some(4),
                "simple_taproot" => Some(5),
                "simple_taproot_overlay" => Some(6),
                other => panic!("commitment {other}"),
            },
            channel_flags: entry.u32("request_channel_flags"),
            wants_zero_conf: entry.flag("request_wants_zero_conf"),
        };
        // A channel that nobody registered has no rule: it is accepted as it is.
        let decision = match entry.flag("registered") {
            true => rule.decide(&incoming),
            false => AcceptorDecision::Accept { zero_conf: false },
        };
        assert_eq!(matches!(decision, AcceptorDecision::Accept { .. }), entry.flag("accept"), "{entry}");
        assert_eq!(
            decision == AcceptorDecision::Accept { zero_conf: true },
            entry.flag("response_zero_conf"),
            "{entry}"
        );
        assert_eq!(entry.u64("response_min_accept_depth"), 0);
    });
}

#[test]
fn channel_backups_are_read_as_by_the_network() {
    let Some(file) = load("channel_backups.json") else { return };
    judge("channel_backups.json", &file, "vectors", |entry| {
        let key = entry.point("base_encryption_pubkey");
        let encrypted = entry.bytes("encrypted");
        let parsed = decrypt_and_parse(&key, &encrypted);
        let mut altered = encrypted.clone();
        altered[30] ^= 1;
        assert_eq!(decrypt_and_parse(&key, &altered), Err(BackupError::Decrypt));
        for length in [0, 23, 24, 40, encrypted.len() - 1] {
            assert!(decrypt_and_parse(&key, &encrypted[..length]).is_err());
        }
        if !entry.flag("supported") {
            let known_version = (1..=5).contains(&entry.u64("backup_version"));
            assert!(parsed.is_err() && (known_version || matches!(parsed, Err(BackupError::Version(_)))), "{parsed:?}");
            return;
        }
        let backup = parsed.unwrap();
        let expected = match entry.text("reported_channel_type") {
            "TWEAKLESS" => ReportedChannelType::Tweakless,
            "ANCHORS" => ReportedChannelType::Anchors,
            "SCRIPT_ENFORCED_LEASE" => ReportedChannelType::ScriptEnforcedLease,
            "SIMPLE_TAPROOT" => ReportedChannelType::SimpleTaproot,
            other => panic!("type {other}"),
        };
        assert_eq!(backup.channel_type, expected);
        assert_eq!(backup.initiator, entry.flag("is_initiator"));
        let txid = Txid::from_byte_array(entry.b32("funding_txid_bytes"));
        assert_eq!(backup.funding, OutPoint { txid, vout: entry.u32("funding_output_index") });
        assert_eq!(backup.remote_node, entry.parse("remote_node_key"));
        assert_eq!(backup.capacity, entry.sats("capacity"));
        let locator = entry.at("local_payment_base_point_locator");
        assert_eq!(backup.local_payment, KeyLocator { family: locator.u32("family"), index: locator.u32("index") });
        assert_eq!(backup.remote_payment, entry.point("remote_payment_base_point"));
    });
}
