//! What an operator sends to the agent, and what strangers put into mailboxes.

use crate::bytes::Bytes;
use crate::decode::{accepted, received};
use crate::material::point;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator};
use tidegate_protocol::order::{Order, OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, UnitCount};
use tidegate_wire::hashmail::{MAX_MAIL_BYTES, from_auth, from_mail, to_mail};
use tidegate_wire::operator::{
    OrderFacts, ShownOrder, from_leases_request, from_rating_request, from_submit, to_order,
};
use tidegate_wire::poolrpc::{
    CipherBox, CipherBoxAuth, LeasesRequest, NodeRatingRequest, SubmitOrderRequest, submit_order_request::Details,
};

/// An order to be placed, a filter of leases, or a question about nodes; the first byte says which.
pub fn operator(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match (bytes.u8() % 3, bytes.rest()) {
        (0, data) => {
            let submitted = received::<SubmitOrderRequest>(data).and_then(|request| accepted(from_submit(request)));
            if let Some(order) = submitted {
                assert_eq!(from_submit(shown(&order)), Ok(order), "another order after it was shown");
            }
        }
        (1, data) => {
            let Some(request) = received::<LeasesRequest>(data) else { return };
            if let Some((batches, accounts)) = accepted(from_leases_request(&request)) {
                assert_eq!((batches.len(), accounts.len()), (request.batch_ids.len(), request.accounts.len()));
            }
        }
        (_, data) => {
            let Some(request) = received::<NodeRatingRequest>(data) else { return };
            let nodes = accepted(from_rating_request(&request));
            assert!(nodes.is_none_or(|nodes| !nodes.is_empty() && nodes.len() == request.node_pubkeys.len()));
        }
    }
}

/// A mailbox and who wants it, or a message for one; the first byte says which.
pub fn mail(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match (bytes.u8() % 2, bytes.rest()) {
        (0, data) => drop(received::<CipherBoxAuth>(data).and_then(|request| accepted(from_auth(request)))),
        (_, data) => {
            let Some((id, message)) = received::<CipherBox>(data).and_then(|mail| accepted(from_mail(mail))) else {
                return;
            };
            assert!(message.len() <= MAX_MAIL_BYTES);
            if let Some(id) = id {
                let again = from_mail(to_mail(id, message.clone())).map(|(id, message)| (id.map(|id| id.0), message));
                assert_eq!(again, Ok((Some(id.0), message)), "another message after it was handed on");
            }
        }
    }
}

/// The order as operators see it, as if they wanted the same once more.
fn shown(order: &Order) -> SubmitOrderRequest {
    let own = OwnOrder {
        order: order.clone(),
        preimage: None,
        state: OrderState::Submitted,
        units_unfulfilled: UnitCount::ZERO,
        multisig: KeyDescriptor { point: point(0), locator: KeyLocator { family: 0, index: 0 } },
        fee_ceiling: ExecutionFee::default(),
        extension_quoted: BlockCount::new(0),
    };
    // A new order has no name yet.
    let details = match to_order(&own, OrderFacts::default()) {
        ShownOrder::Ask(mut ask) => {
            ask.details.iter_mut().for_each(|details| details.order_nonce.clear());
            Details::Ask(ask)
        }
        ShownOrder::Bid(mut bid) => {
            bid.details.iter_mut().for_each(|details| details.order_nonce.clear());
            Details::Bid(bid)
        }
    };
    SubmitOrderRequest { details: Some(details), ..Default::default() }
}
