//! Every decoder of the auctioneer's interface: what decodes has exactly one meaning, and keeps it on the way back.

use crate::bytes::Bytes;
use prost::Message;
use std::fmt::{Debug, Display};
use tidegate_ports::{ClientMessage, ServerMessage};
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::SubmittedOrder;
use tidegate_wire::bounded::{self, Shaped};
use tidegate_wire::{account, batch, market, order, poolrpc, stream};

/// A sentence about a refused message must not grow with the message.
const MAX_REFUSAL_BYTES: usize = 2_500;

/// Decodes `data`, and if that succeeds demands that encoding and decoding again gives the same.
fn round_trip<M: Message + Default + Shaped, T: PartialEq + Debug, E: Display>(
    data: &[u8],
    from: impl Fn(M) -> Result<T, E>,
    to: impl Fn(&T) -> M,
) -> Option<T> {
    let plain = accepted(from(received(data)?))?;
    let bytes = to(&plain).encode_to_vec();
    let message = bounded::decode(&bytes).expect("our own encoding is protobuf within the limit");
    match from(message) {
        Ok(again) => assert_eq!(again, plain, "another meaning after encoding again"),
        Err(error) => panic!("our own encoding is refused: {error}\n{plain:?}"),
    }
    Some(plain)
}

/// The message, as the codec of the service decodes it.
pub(crate) fn received<M: Message + Default + Shaped>(data: &[u8]) -> Option<M> {
    accepted(bounded::decode(data))
}

/// What was decoded; of a refusal only its size is judged.
pub(crate) fn accepted<T, E: Display>(decoded: Result<T, E>) -> Option<T> {
    match decoded {
        Ok(plain) => Some(plain),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() <= MAX_REFUSAL_BYTES, "a refusal of {} bytes", text.len());
            None
        }
    }
}

/// `OrderMatchPrepare`.
pub fn prepare(data: &[u8]) {
    round_trip(data, batch::from_prepare, |plain| batch::to_prepare(plain).expect("decoded, so it can be said"));
}

/// `OrderMatchSignBegin`.
pub fn sign_begin(data: &[u8]) {
    round_trip(data, batch::from_sign_begin, batch::to_sign_begin);
}

/// `OrderMatchFinalize`.
pub fn finalize(data: &[u8]) {
    round_trip(data, batch::from_finalize, batch::to_finalize);
}

/// `OrderMatchSign`.
pub fn signatures(data: &[u8]) {
    round_trip(data, batch::from_signatures, batch::to_signatures);
}

/// `OrderMatchReject`.
pub fn reject(data: &[u8]) {
    round_trip(data, batch::from_reject, batch::to_reject);
}

/// `ClientAuctionMessage`.
pub fn client_message(data: &[u8]) {
    let plain = round_trip(data, stream::from_client_message, stream::to_client_message);
    if let Some(ClientMessage::Reject(reject)) = plain {
        assert!(reject.message.len() <= tidegate_wire::MAX_SENTENCE_BYTES);
    }
}

/// `ServerAuctionMessage`. A malformed one only exists on the receiving side.
pub fn server_message(data: &[u8]) {
    let Some(message) = received::<poolrpc::ServerAuctionMessage>(data) else { return };
    let Some(plain) = accepted(stream::from_server_message(message)) else { return };
    match (&plain, stream::to_server_message(&plain)) {
        (ServerMessage::Malformed { batch_id, reason }, Err(_)) => {
            assert!(batch_id.len() <= 64 && reason.len() <= MAX_REFUSAL_BYTES);
        }
        (ServerMessage::Malformed { .. }, Ok(_)) => panic!("a malformed message was encoded"),
        (_, Err(error)) => panic!("decoded, but not encodable: {error}"),
        (_, Ok(wire)) => assert_eq!(stream::from_server_message(wire).as_ref(), Ok(&plain)),
    }
}

/// `ServerSubmitOrderRequest`, and what the venue then asks about the order.
pub fn submit_order(data: &[u8]) {
    let to = |(order, agent): &(SubmittedOrder, String)| order::to_submit_request(order, agent);
    if let Some((submitted, _)) = round_trip(data, order::from_submit_request, to) {
        crate::orders::judge(&submitted);
    }
}

/// `ServerModifyAccountRequest`.
pub fn modify_account(data: &[u8]) {
    round_trip(data, account::from_modify_request, account::to_modify_request);
}

/// `TermsResponse`.
pub fn terms(data: &[u8]) {
    round_trip(data, |wire| market::from_terms(&wire), |plain| market::to_terms(plain, 6));
}

/// `BatchSnapshotResponse`.
pub fn snapshot(data: &[u8]) {
    round_trip(data, |wire| market::from_snapshot(&wire), market::to_snapshot);
}

/// `BatchSnapshotsResponse`.
pub fn snapshots(data: &[u8]) {
    round_trip(data, |wire| market::from_snapshots(&wire), |plain| market::to_snapshots(plain));
}

/// `MarketInfoResponse`.
pub fn market_info(data: &[u8]) {
    round_trip(data, |wire| market::from_market_info(&wire), market::to_market_info);
}

/// `ServerNodeRatingResponse`, as the answer to a question about the nodes that it names, and to an empty one.
pub fn ratings(data: &[u8]) {
    let Some(wire) = received::<poolrpc::ServerNodeRatingResponse>(data) else { return };
    if let Some(none) = accepted(market::from_ratings(&[], &wire)) {
        assert!(none.is_empty() && wire.node_ratings.is_empty());
    }
    let keys = wire.node_ratings.iter().map(|rating| NodeId::from_slice(&rating.node_pubkey).ok());
    let Some(asked) = keys.collect::<Option<Vec<NodeId>>>() else { return };
    round_trip(data, |wire| market::from_ratings(&asked, &wire), |plain| market::to_ratings(plain));
}

/// The requests and answers of a few fields; the first byte says which.
pub fn small_messages(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (which, data) = (bytes.u8(), bytes.rest());
    match which % 12 {
        0 => drop(round_trip(data, |wire| account::from_reserve_request(&wire), account::to_reserve_request)),
        1 => drop(round_trip(data, |wire| account::from_reserve_response(&wire), account::to_reserve_response)),
        2 => drop(round_trip(data, account::from_init_request, |(init, agent)| account::to_init_request(init, agent))),
        3 => drop(round_trip(data, account::from_modify_response, account::to_modify_response)),
        4 => drop(round_trip(data, |wire| order::from_cancel_request(&wire), order::to_cancel_request)),
        5 => drop(round_trip(data, |wire| order::from_state_request(&wire), |nonce| order::to_state_request(*nonce))),
        6 => drop(round_trip(
            data,
            |wire| order::from_state_response(&wire),
            |(state, open)| order::to_state_response(*state, *open),
        )),
        7 => {
            let nonce = tidegate_protocol::keys::OrderNonce::new([1; 32]);
            drop(round_trip(data, order::from_submit_response, |plain| order::to_submit_response(nonce, plain)));
        }
        8 => drop(round_trip(
            data,
            |wire| market::from_snapshot_request(&wire),
            |batch| market::to_snapshot_request(*batch),
        )),
        9 => drop(round_trip(
            data,
            |wire| market::from_snapshots_request(&wire),
            |(start, count)| market::to_snapshots_request(*start, *count),
        )),
        10 => drop(round_trip(
            data,
            |wire| market::from_ratings_request(&wire),
            |nodes| market::to_ratings_request(nodes),
        )),
        // Whatever a key is written as: text and bytes agree.
        _ => {
            if let Ok(node) = NodeId::from_slice(data) {
                assert_eq!(node.to_string().parse(), Ok(node));
            }
        }
    }
}
