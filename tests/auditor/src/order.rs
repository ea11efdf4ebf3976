//! Orders: submission and cancellation.

use bitcoin::secp256k1::PublicKey;

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::keys::sha;
use crate::signature::{Verdict, message};
use crate::state::{Order, OrderRecord};
use crate::wire::rpc::server_submit_order_request::Details;
use crate::wire::rpc::server_submit_order_response::Details as Answer;
use crate::wire::{ask, bid, decode, hash, hexed, order_digest, rpc};

/// The order of a request, with its signature.
fn parse(request: &[u8]) -> Option<(Order, Vec<u8>)> {
    let request = decode::<rpc::ServerSubmitOrderRequest>(request).ok()?;
    let (order, details) = match request.details? {
        Details::Ask(message) => (ask(&message), message.details),
        Details::Bid(message) => (bid(&message), message.details),
    };
    Some((order?, details?.order_sig))
}

impl Auditor {
    /// An order leaves; the venue may match it before its answer arrives.
    pub(crate) fn submit(&mut self, caller: &Caller, request: &[u8]) -> Problems {
        let mut problems = Problems::default();
        let Some((order, signature)) = parse(request) else {
            problems.add(Rule::Decoding, &"order", "a well-formed order", &"other bytes");
            return problems;
        };
        self.counts.orders += 1;
        let subject = format!("order {}", hexed(&order.nonce));
        let owner = self.accounts.get(&order.account_key).map(|account| &account.owner);
        problems.demand(
            owner == Some(caller),
            Rule::OrderAccount,
            &subject,
            "an account of the caller",
            &hexed(&order.account_key),
        );
        let verdict = match (order_digest(&order), PublicKey::from_slice(&order.account_key)) {
            (Some(digest), Ok(key)) => message(&key, &digest, &signature),
            _ => Verdict::Invalid("the order has no digest or key"),
        };
        match verdict {
            Verdict::Invalid(reason) => {
                problems.add(Rule::OrderSignature, &subject, "a valid signature", &reason);
            }
            Verdict::Valid | Verdict::Unjudged => self.counts.message_signatures += 1,
        }
        let quoted = self.quotes.get(caller).map(|quote| (quote.base_fee_sat, quote.fee_ppm));
        let record = OrderRecord { order, caller: caller.clone(), closed: false, cancelled: false, quoted };
        match self.orders.get(&record.order.nonce) {
            // Sent again after a lost answer.
            Some(known) if known.order.amount_sat == record.order.amount_sat && !known.closed => {}
            Some(_) => problems.add(Rule::OrderAccount, &subject, "a fresh nonce", &"one that was used before"),
            None => {
                self.orders.insert(record.order.nonce, record);
            }
        }
        problems
    }

    /// The answer to an order. A failed call leaves open whether the venue has it.
    pub(crate) fn submitted(&mut self, caller: &Caller, request: &[u8], response: Option<&[u8]>) {
        let (Some(response), Some((order, _))) = (response, parse(request)) else { return };
        match decode::<rpc::ServerSubmitOrderResponse>(response) {
            Ok(rpc::ServerSubmitOrderResponse { details: Some(Answer::InvalidOrder(_)) }) => {
                self.close_order(&order.nonce);
            }
            Ok(_) => {}
            Err(error) => {
                self.breach(Party::Venue, caller, Rule::Decoding, &"answer to an order", ("a message", &error));
            }
        }
    }

    pub(crate) fn cancelled(&mut self, _: &Caller, request: &[u8]) {
        let Ok(request) = decode::<rpc::ServerCancelOrderRequest>(request) else { return };
        let Some(preimage) = hash(&request.order_nonce_preimage) else { return };
        self.close_order(&sha(&[&preimage]));
    }

    fn close_order(&mut self, nonce: &[u8; 32]) {
        if let Some(record) = self.orders.get_mut(nonce) {
            record.cancelled = true;
        }
    }
}
