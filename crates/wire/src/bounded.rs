//! Decoding foreign messages within a limit of memory, and only those with one meaning.
//!
//! A list of empty entries costs its sender two bytes each, and its reader some hundred: a message within the limit of
//! its length could occupy a gigabyte once decoded. So the encoded message is walked first and what decoding it would
//! occupy is added up, with the sizes of the very types.
//!
//! A field that is there at most once but comes twice, two fields of which a message has one at most, and a key that comes
//! twice in a map, have the meaning that the reader gives them: mostly the last one counts, and parts of messages are
//! mixed. No encoder writes such, so the walk refuses it.
//!
//! # Source
//! Encoding: protobuf's wire format. Shapes: generated from the interface files by the build script.

use core::marker::PhantomData;
use prost::Message;
use prost::bytes::Buf;
use std::collections::BTreeSet;
use thiserror::Error;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Most bytes that a decoded message may occupy. The largest honest one, a batch of [`crate::MAX_MATCHES`] matches in
/// both its forms, needs less than 10 MiB.
pub const MAX_DECODED_BYTES: usize = 32 << 20;

/// A growing list is copied: for a moment it occupies its old place and twice that.
const GROWTH: usize = 3;

/// A message that is not decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It would occupy too much memory.
    #[error("the message would occupy more than {most} bytes")]
    TooLarge {
        /// Limit.
        most: usize,
    },
    /// It says one thing twice, perhaps in two ways.
    #[error("the message has field {field} twice or beside one that excludes it, or one key twice in it")]
    Ambiguous {
        /// Number of the field.
        field: i32,
    },
    /// It is not protobuf of its type.
    #[error(transparent)]
    Malformed(#[from] prost::DecodeError),
}

/// What decoding a message occupies.
#[derive(Debug)]
pub struct Shape {
    /// Bytes of its Rust type, parts that are there at most once included.
    size: usize,
    /// Field number, the number under which it counts as said (fields that exclude each other share one), what it holds.
    fields: &'static [(i32, i32, Content)],
}

/// What a field holds; `true` for a list.
#[derive(Debug)]
pub enum Content {
    /// A number.
    Number(bool),
    /// Text or bytes.
    Bytes(bool),
    /// Another message.
    Message(bool, &'static Shape),
    /// A map with such values.
    Map(&'static Content),
}

/// A message of the auctioneer's interface.
pub trait Shaped {
    /// Its shape.
    const SHAPE: Shape;
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Decodes a message, unless it would occupy more than [`MAX_DECODED_BYTES`].
///
/// # Errors
/// [`MessageError`] by variant.
pub fn decode<M: Message + Default + Shaped>(bytes: &[u8]) -> Result<M, MessageError> {
    let mut left = MAX_DECODED_BYTES;
    spend(&mut left, M::SHAPE.size)?;
    measure(bytes, &M::SHAPE, &mut left)?;
    Ok(M::decode(bytes)?)
}

fn spend(left: &mut usize, bytes: usize) -> Result<(), MessageError> {
    *left = left.checked_sub(bytes).ok_or(MessageError::TooLarge { most: MAX_DECODED_BYTES })?;
    Ok(())
}

/// Takes what the fields of a message occupy from `left`. Where the bytes stop being protobuf the decoder stops too.
fn measure(mut bytes: &[u8], shape: &'static Shape, left: &mut usize) -> Result<(), MessageError> {
    let mut seen = BTreeSet::new();
    while let Some(Field { number, value, .. }) = next_field(&mut bytes) {
        let Some((_, choice, content)) = shape.fields.iter().find(|(known, ..)| *known == number) else { continue };
        let name = match content {
            Content::Number(false) | Content::Bytes(false) | Content::Message(false, _) => Some(Key::default()),
            Content::Map(_) => Some(key(value).ok_or(MessageError::Ambiguous { field: number })?),
            Content::Number(true) | Content::Bytes(true) | Content::Message(true, _) => None,
        };
        if name.is_some_and(|name| !seen.insert((*choice, name))) {
            return Err(MessageError::Ambiguous { field: number });
        }
        measure_field(content, value, left)?;
    }
    Ok(())
}

/// The key of a map's entry: text, or a number. One that is left out is empty, or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    text: &'a [u8],
    number: u64,
}

/// The key of an entry; nothing when it has two, or two values.
fn key(mut entry: &[u8]) -> Option<Key<'_>> {
    let (mut found, mut value) = (None, false);
    while let Some(field) = next_field(&mut entry) {
        match field.number {
            1 if found.is_some() => return None,
            1 => found = Some(Key { text: field.value, number: field.varint }),
            2 if value => return None,
            2 => value = true,
            _ => {}
        }
    }
    Some(found.unwrap_or_default())
}

fn measure_field(content: &'static Content, value: &[u8], left: &mut usize) -> Result<(), MessageError> {
    match content {
        // A list of numbers may be packed: a byte each at least.
        Content::Number(false) => Ok(()),
        Content::Number(true) => {
            spend(left, GROWTH.saturating_mul(size_of::<u64>()).saturating_mul(value.len().max(1)))
        }
        Content::Bytes(list) => spend(left, entry(*list, size_of::<Vec<u8>>()).saturating_add(value.len())),
        Content::Message(list, shape) => {
            spend(left, entry(*list, shape.size))?;
            measure(value, shape, left)
        }
        Content::Map(of) => {
            let size = match of {
                Content::Message(_, shape) => shape.size,
                Content::Number(_) | Content::Bytes(_) | Content::Map(_) => size_of::<Vec<u8>>(),
            };
            // Nodes of a map are at least half full; the key is text or a number.
            spend(left, 2_usize.saturating_mul(size.saturating_add(size_of::<String>())).saturating_add(value.len()))?;
            let mut rest = value;
            while let Some(part) = next_field(&mut rest) {
                if let (2, Content::Message(_, shape)) = (part.number, of) {
                    measure(part.value, shape, left)?;
                }
            }
            Ok(())
        }
    }
}

/// What one occurrence of a field adds: nothing when it has its place in the message already.
fn entry(list: bool, size: usize) -> usize {
    if list { GROWTH.saturating_mul(size) } else { 0 }
}

/// A field as it stands in the bytes.
struct Field<'a> {
    number: i32,
    /// Its bytes, when it has a length.
    value: &'a [u8],
    /// Its number, when it is one of variable length.
    varint: u64,
}

/// The next field. Nothing at the end, and where the bytes are no protobuf.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = varint(bytes)?;
    let number = i32::try_from(tag >> 3).ok()?;
    let mut plain = 0;
    let length = match tag & 7 {
        0 => {
            plain = varint(bytes)?;
            0
        }
        1 => {
            *bytes = bytes.get(8..)?;
            0
        }
        2 => usize::try_from(varint(bytes)?).ok()?,
        5 => {
            *bytes = bytes.get(4..)?;
            0
        }
        // Groups: no message of the interface has one, and the decoder skips an unknown one without keeping it.
        3 | 4 => 0,
        _ => return None,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Field { number, value, varint: plain })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The codec of the auctioneer's service, for both sides.
#[derive(Clone, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes what [`decode`] allows.
#[derive(Clone, Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Shaped> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        decode(&bytes).map(Some).map_err(|error| match error {
            MessageError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
            MessageError::Ambiguous { .. } => Status::invalid_argument(error.to_string()),
            MessageError::Malformed(_) => Status::internal(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poolrpc;
    use std::collections::BTreeMap;

    fn prepare_with(bids: usize) -> Vec<u8> {
        let order = poolrpc::MatchedOrder { matched_bids: vec![Default::default(); bids], ..Default::default() };
        let matched_orders = BTreeMap::from([("a".to_owned(), order)]);
        let market = poolrpc::MatchedMarket { matched_orders, clearing_price_rate: 1 };
        let prepare =
            poolrpc::OrderMatchPrepare { matched_markets: BTreeMap::from([(2_016, market)]), ..Default::default() };
        let msg = Some(poolrpc::server_auction_message::Msg::Prepare(prepare));
        poolrpc::ServerAuctionMessage { msg }.encode_to_vec()
    }

    #[test]
    fn refuses_a_long_list_of_empty_entries_in_the_depth_of_a_message() {
        let bytes = prepare_with(10);
        assert_eq!(decode::<poolrpc::ServerAuctionMessage>(&bytes), Ok(Message::decode(&*bytes).unwrap()));
        let bytes = prepare_with(500_000);
        assert!(bytes.len() < 1_100_000);
        let most = MAX_DECODED_BYTES;
        assert_eq!(decode::<poolrpc::ServerAuctionMessage>(&bytes), Err(MessageError::TooLarge { most }));
    }

    #[test]
    fn an_honest_batch_of_the_largest_size_is_decoded() {
        let bytes = |count: usize| vec![7; count];
        let details = poolrpc::ServerOrder {
            trader_key: bytes(33),
            order_nonce: bytes(32),
            order_sig: bytes(64),
            multi_sig_key: bytes(33),
            node_pub: bytes(33),
            node_addr: vec![poolrpc::NodeAddress { network: "tcp".to_owned(), addr: "x".repeat(68) }; 3],
            ..Default::default()
        };
        let bid = Some(poolrpc::ServerBid { details: Some(details), ..Default::default() });
        let matched = poolrpc::MatchedBid { bid, units_filled: 1 };
        let order = poolrpc::MatchedOrder { matched_bids: vec![matched; crate::MAX_MATCHES], ..Default::default() };
        let matched_orders = BTreeMap::from([("ab".repeat(32), order)]);
        let market = poolrpc::MatchedMarket { matched_orders: matched_orders.clone(), clearing_price_rate: 1 };
        #[allow(deprecated)] // old clients read the flat fields
        let prepare = poolrpc::OrderMatchPrepare {
            matched_orders,
            matched_markets: BTreeMap::from([(2_016, market)]),
            batch_transaction: bytes(crate::MAX_TRANSACTION_BYTES),
            ..Default::default()
        };
        let bytes = prepare.encode_to_vec();
        assert_eq!(decode::<poolrpc::OrderMatchPrepare>(&bytes), Ok(prepare));
    }

    #[test]
    fn bytes_that_are_no_protobuf_are_the_decoders_affair() {
        for bytes in [&[0xff; 11][..], &[0x0a, 5, 1], &[0x0a], &[0x0b, 0x0c], &[0x0f], &[0x09, 1], &[0x0d]] {
            let plain = <poolrpc::OrderMatchPrepare as Message>::decode(bytes);
            assert_eq!(decode::<poolrpc::OrderMatchPrepare>(bytes).ok(), plain.ok(), "{bytes:?}");
        }
    }

    #[test]
    fn refuses_what_is_said_twice() {
        let market = |price| poolrpc::MatchedMarket { clearing_price_rate: price, ..Default::default() };
        let prepare = poolrpc::OrderMatchPrepare {
            batch_id: vec![2; 33],
            fee_rate_sat_per_kw: 253,
            execution_fee: Some(poolrpc::ExecutionFee { base_fee: 1, fee_rate: 2 }),
            matched_markets: BTreeMap::from([(2_016, market(7)), (4_032, market(7))]),
            ..Default::default()
        };
        let whole = prepare.encode_to_vec();
        assert_eq!(decode::<poolrpc::OrderMatchPrepare>(&whole), Ok(prepare.clone()));
        let parts = [
            (8, poolrpc::OrderMatchPrepare { batch_id: vec![3; 33], ..Default::default() }),
            (6, poolrpc::OrderMatchPrepare { fee_rate_sat_per_kw: 253, ..Default::default() }),
            (4, poolrpc::OrderMatchPrepare { execution_fee: Some(Default::default()), ..Default::default() }),
            (
                10,
                poolrpc::OrderMatchPrepare {
                    matched_markets: BTreeMap::from([(4_032, market(8))]),
                    ..Default::default()
                },
            ),
        ];
        for (field, part) in parts {
            for twice in
                [[part.encode_to_vec(), whole.clone()].concat(), [whole.clone(), part.encode_to_vec()].concat()]
            {
                assert_eq!(decode::<poolrpc::OrderMatchPrepare>(&twice), Err(MessageError::Ambiguous { field }));
            }
        }
        // The key of the entry, as the last byte of a longer number, and left out beside a zero.
        let entries: [&[&[u8]]; 3] = [&[&[8, 5], &[8, 0x85, 0]], &[&[], &[8, 0]], &[&[8, 5, 8, 6]]];
        for entries in entries {
            let length = |entry: &[u8]| u8::try_from(entry.len()).unwrap();
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| [&[0x52, length(entry)], *entry].concat()).collect();
            let found = decode::<poolrpc::OrderMatchPrepare>(&bytes);
            assert_eq!(found, Err(MessageError::Ambiguous { field: 10 }), "{bytes:?}");
        }
    }

    #[test]
    fn refuses_two_messages_in_one() {
        use poolrpc::server_auction_message::Msg;
        let one = |msg| poolrpc::ServerAuctionMessage { msg: Some(msg) }.encode_to_vec();
        let prepare = one(Msg::Prepare(poolrpc::OrderMatchPrepare { batch_id: vec![2; 33], ..Default::default() }));
        let finalize = one(Msg::Finalize(poolrpc::OrderMatchFinalize::default()));
        assert!(decode::<poolrpc::ServerAuctionMessage>(&prepare).is_ok());
        assert!(decode::<poolrpc::ServerAuctionMessage>(&finalize).is_ok());
        for (field, both) in [(6, [&*prepare, &*finalize].concat()), (4, [&*finalize, &*prepare].concat())] {
            assert_eq!(decode::<poolrpc::ServerAuctionMessage>(&both), Err(MessageError::Ambiguous { field }));
        }
        let ask = poolrpc::server_submit_order_request::Details::Ask(poolrpc::ServerAsk::default());
        let bid = poolrpc::server_submit_order_request::Details::Bid(poolrpc::ServerBid::default());
        let request = |details| poolrpc::ServerSubmitOrderRequest { details: Some(details), user_agent: String::new() };
        let both = [request(ask).encode_to_vec(), request(bid).encode_to_vec()].concat();
        assert!(decode::<poolrpc::ServerSubmitOrderRequest>(&both).is_err());
    }

    #[test]
    fn lists_of_bytes_and_maps_count() {
        let request = poolrpc::ServerNodeRatingRequest { node_pubkeys: vec![Vec::new(); 500_000] };
        assert!(decode::<poolrpc::ServerNodeRatingRequest>(&request.encode_to_vec()).is_err());
        let markets = (0..500_000).map(|number| (number, poolrpc::MatchedMarket::default())).collect();
        let prepare = poolrpc::OrderMatchPrepare { matched_markets: markets, ..Default::default() };
        assert!(decode::<poolrpc::OrderMatchPrepare>(&prepare.encode_to_vec()).is_err());
    }
}
