//! Who may have a mailbox.

use super::bench::{Bench, ready};
use super::trader::TestTrader;
use crate::{ServeClass, ServeError};
use tidegate_ports::{BoxClaim, BoxId, BoxOwner, Signer};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::ticket::{CompactSignature, Offer, Ticket, TicketId};
use tidegate_protocol::units::BlockCount;

#[test]
fn an_account_has_the_mailboxes_that_its_key_signed() {
    let mut bench = Bench::new();
    let trader = TestTrader::open_account(&mut bench, "trader", AccountVersion::V2, 500_000);
    let id = BoxId([5; 64]);
    let account = trader.account.key();
    let signature = ready(trader.node.sign_message(&id.0, trader.key.locator)).unwrap();
    let claim = BoxClaim::Account { account, signature };
    let handle = bench.handle.clone();
    let early = bench.call(handle.box_owner(id, claim.clone())).unwrap_err();
    assert!(matches!(early, ServeError::AccountState { .. }), "unconfirmed: {early}");
    bench.mine(6);
    assert_eq!(bench.call(handle.box_owner(id, claim.clone())), Ok(BoxOwner::Account(account)));
    let other = bench.call(handle.box_owner(BoxId([6; 64]), claim)).unwrap_err();
    assert_eq!(other.class(), ServeClass::InvalidArgument);
}

#[test]
fn a_ticket_has_its_two_mailboxes_and_no_others() {
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let account = trader.account.key();
    let offer = Offer {
        capacity_sats: 100_000,
        lease_duration: BlockCount::new(2016),
        signing_key: Some(account),
        ..Offer::default()
    };
    let ticket = Ticket::offer(TicketId([1; 8]), offer).unwrap();
    let der = ready(trader.node.sign_message(&ticket.offer_to_sign().unwrap(), trader.key.locator)).unwrap();
    let signed = ticket.clone().with_offer_signature(CompactSignature::from_der(&der).unwrap()).unwrap();
    let handle = bench.handle.clone();
    let claim = || BoxClaim::Ticket(Box::new(signed.clone()));
    for id in [signed.provider_stream().unwrap(), signed.recipient_stream().unwrap()] {
        assert_eq!(bench.call(handle.box_owner(BoxId(id), claim())), Ok(BoxOwner::Ticket(account)));
    }
    assert!(bench.call(handle.box_owner(BoxId([5; 64]), claim())).is_err());
    let unsigned = BoxClaim::Ticket(Box::new(ticket));
    assert!(bench.call(handle.box_owner(BoxId([5; 64]), unsigned)).is_err());
}
