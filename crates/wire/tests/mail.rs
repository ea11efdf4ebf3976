//! The venue's mailboxes on the wire.

use prost::Message as _;
use tidegate_ports::{BoxClaim, BoxId};
use tidegate_protocol::ticket::Ticket;
use tidegate_wire::poolrpc::cipher_box_auth::Auth;
use tidegate_wire::poolrpc::{CipherBox, CipherBoxAuth, CipherBoxDesc, PoolAccountAuth, SidecarAuth};
use tidegate_wire::{DecodeError, hashmail};

const ID: BoxId = BoxId([7; 64]);
const KEY: &str = "02824d0cbac65e01712124c50ff2cc74ce22851d7b444c1bf2ae66afefb8eaf27f";

fn auth(auth: Option<Auth>) -> CipherBoxAuth {
    CipherBoxAuth { desc: Some(hashmail::to_desc(ID)), auth }
}

fn account(key: Vec<u8>) -> Option<Auth> {
    Some(Auth::AcctAuth(PoolAccountAuth { acct_key: key, stream_sig: vec![0x30, 1] }))
}

fn key() -> tidegate_protocol::keys::AccountKey {
    KEY.parse().expect("a key")
}

#[test]
fn a_claim_is_an_accounts_or_a_tickets() {
    let claimed = hashmail::from_auth(auth(account(key().serialize().to_vec())));
    assert_eq!(claimed, Ok((ID, BoxClaim::Account { account: key(), signature: vec![0x30, 1] })));
    let ticket = Ticket::default();
    let claimed = hashmail::from_auth(auth(Some(Auth::SidecarAuth(SidecarAuth { ticket: ticket.to_string() }))));
    assert_eq!(claimed, Ok((ID, BoxClaim::Ticket(Box::new(ticket)))));
}

#[test]
fn what_names_no_mailbox_or_no_owner_is_refused() {
    let rows: [(&str, CipherBoxAuth); 5] = [
        ("nothing", CipherBoxAuth::default()),
        ("no claim", auth(None)),
        ("a key of another length", auth(account(vec![2; 32]))),
        ("no ticket", auth(Some(Auth::SidecarAuth(SidecarAuth { ticket: "sidecar".to_owned() })))),
        (
            "another length of the name",
            CipherBoxAuth {
                desc: Some(CipherBoxDesc { stream_id: vec![7; 63] }),
                auth: account(key().serialize().to_vec()),
            },
        ),
    ];
    for (name, request) in rows {
        assert!(hashmail::from_auth(request).is_err(), "{name}");
    }
}

#[test]
fn mail_survives_the_wire_and_has_a_limit() {
    let sent = hashmail::to_mail(ID, vec![1, 2, 3]).encode_to_vec();
    let received = CipherBox::decode(sent.as_slice()).expect("our own bytes");
    assert_eq!(hashmail::from_mail(received), Ok((Some(ID), vec![1, 2, 3])));
    let later = CipherBox { desc: None, msg: vec![4] };
    assert_eq!(hashmail::from_mail(later), Ok((None, vec![4])));
    let large = CipherBox { desc: None, msg: vec![0; hashmail::MAX_MAIL_BYTES + 1] };
    assert!(matches!(hashmail::from_mail(large), Err(DecodeError::TooMany { .. })));
}
