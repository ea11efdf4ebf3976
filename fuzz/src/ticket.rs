//! Sidecar tickets: a document that strangers exchange.

use tidegate_protocol::ticket::{MAX_TEXT, MAX_TLV, Ticket};

/// The binary form.
pub fn ticket(data: &[u8]) {
    match Ticket::decode(data) {
        Ok(ticket) => {
            assert!(data.len() <= MAX_TLV);
            judge(&ticket);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The text form.
pub fn ticket_text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match text.parse::<Ticket>() {
        Ok(ticket) => {
            assert!(text.len() <= MAX_TEXT);
            judge(&ticket);
        }
        Err(error) => assert!(!error.to_string().is_empty() && error.to_string().len() < 500),
    }
}

/// Both forms keep the meaning, and every question about the ticket has an answer.
fn judge(ticket: &Ticket) {
    let bytes = ticket.encode();
    assert_eq!(Ticket::decode(&bytes).as_ref(), Ok(ticket), "another ticket after encoding again");
    assert_eq!(ticket.to_string().parse().as_ref(), Ok(ticket), "another ticket after writing it again");
    let signed = ticket.verify_offer().is_ok();
    assert!(!signed || ticket.offer.signature.is_some() && ticket.offer_digest().is_ok());
    let ordered = ticket.verify_order().is_ok();
    assert!(!ordered || ticket.order_digest().is_ok());
    if let Ok((capacity, push)) = ticket.check_offer() {
        assert!(capacity.get() > 0 && push <= capacity);
    }
    drop((ticket.recipient_keys(), ticket.check_expected(), ticket.provider_stream(), ticket.recipient_stream()));
}
