//! Encoded messages to JSON.

use super::{Interface, JsonError, MAX_DEPTH, Wire, bare};
use bitcoin::base64::Engine as _;
use bitcoin::base64::engine::general_purpose::STANDARD;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::{Map, Value};

/// A value as it is encoded.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Interface {
    /// The JSON object of an encoded message.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] when it is none of this type.
    pub fn decode(&self, message: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        self.decode_at(message, bytes, 0)
    }

    fn decode_at(&self, message: &str, mut bytes: &[u8], depth: usize) -> Result<Value, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let shape = self.message(message)?;
        let malformed = || JsonError::Malformed { message: shape.name().to_owned() };
        let mut json = self.unset(shape);
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(|_| malformed())?;
            let number = i32::try_from(number).map_err(|_| malformed())?;
            let Some(field) = shape.field.iter().find(|field| field.number() == number) else {
                let number = u32::try_from(number).map_err(|_| malformed())?;
                skip_field(wire, number, &mut bytes, DecodeContext::default()).map_err(|_| malformed())?;
                continue;
            };
            let raw = raw(wire, &mut bytes).ok_or_else(malformed)?;
            self.put(&mut json, field, raw, depth, &malformed)?;
        }
        Ok(Value::Object(json))
    }

    /// Every field as it is when it was not said.
    fn unset(&self, shape: &DescriptorProto) -> Map<String, Value> {
        let mut json = Map::new();
        for field in shape.field.iter().filter(|field| field.oneof_index.is_none()) {
            let value = match (self.map_entry(field), field.label(), field.r#type()) {
                (Some(_), ..) => Value::Object(Map::new()),
                (None, Label::Repeated, _) => Value::Array(Vec::new()),
                (None, _, Type::Message) => Value::Null,
                (None, _, _) => self.single(field, Raw::Number(0)).unwrap_or(Value::String(String::new())),
            };
            json.insert(field.name().to_owned(), value);
        }
        json
    }

    fn put(
        &self,
        json: &mut Map<String, Value>,
        field: &FieldDescriptorProto,
        raw: Raw<'_>,
        depth: usize,
        malformed: &dyn Fn() -> JsonError,
    ) -> Result<(), JsonError> {
        let slot = json.entry(field.name()).or_insert(Value::Null);
        match (self.map_entry(field), slot) {
            (Some((key, content)), Value::Object(entries)) => {
                let entry = self.decode_at(field.type_name(), bytes_of(raw).ok_or_else(malformed)?, depth + 1)?;
                let name = match entry.get(key.name()) {
                    Some(Value::String(name)) => name.clone(),
                    Some(other) => other.to_string(),
                    None => return Err(malformed()),
                };
                let value = match entry.get(content.name()) {
                    // An empty message takes no bytes, so that it is left out.
                    None | Some(Value::Null) => self.decode_at(content.type_name(), &[], depth + 1)?,
                    Some(value) => value.clone(),
                };
                entries.insert(name, value);
            }
            (None, Value::Array(list)) => match (raw, field.r#type()) {
                // A list of numbers is packed.
                (Raw::Bytes(mut packed), kind) if Wire::of(kind) == Some(Wire::Varint) => {
                    while packed.has_remaining() {
                        let number = Raw::Number(decode_varint(&mut packed).map_err(|_| malformed())?);
                        list.push(self.single(field, number).ok_or_else(malformed)?);
                    }
                }
                _ => list.push(self.value(field, raw, depth, malformed)?),
            },
            (_, slot) => *slot = self.value(field, raw, depth, malformed)?,
        }
        Ok(())
    }

    fn value(
        &self,
        field: &FieldDescriptorProto,
        raw: Raw<'_>,
        depth: usize,
        malformed: &dyn Fn() -> JsonError,
    ) -> Result<Value, JsonError> {
        if field.r#type() == Type::Message {
            return self.decode_at(field.type_name(), bytes_of(raw).ok_or_else(malformed)?, depth + 1);
        }
        self.single(field, raw).ok_or_else(malformed)
    }

    /// A value that is no message.
    fn single(&self, field: &FieldDescriptorProto, raw: Raw<'_>) -> Option<Value> {
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).ok();
        let signed = |number: u64| i64::from_le_bytes(number.to_le_bytes());
        Some(match (field.r#type(), raw) {
            (Type::Bool, Raw::Number(number)) => Value::Bool(number != 0),
            (Type::Uint32, Raw::Number(number)) => low(number)?.into(),
            (Type::Int32, Raw::Number(number)) => i32::from_le_bytes(low(number)?.to_le_bytes()).into(),
            (Type::Uint64, Raw::Number(number)) => number.to_string().into(),
            (Type::Int64, Raw::Number(number)) => signed(number).to_string().into(),
            (Type::Double, Raw::Number(number)) => Value::from(f64::from_bits(number)),
            (Type::Enum, Raw::Number(number)) => {
                let number = i32::from_le_bytes(low(number)?.to_le_bytes());
                let known = self.enums.get(bare(field.type_name()))?;
                let named = known.value.iter().find(|value| value.number() == number);
                named.map_or_else(|| number.into(), |value| value.name().into())
            }
            (Type::String, Raw::Bytes(bytes)) => core::str::from_utf8(bytes).ok()?.into(),
            (Type::Bytes, Raw::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            _ => return None,
        })
    }
}

fn bytes_of(raw: Raw<'_>) -> Option<&[u8]> {
    match raw {
        Raw::Bytes(bytes) => Some(bytes),
        Raw::Number(_) => None,
    }
}

/// The next value.
fn raw<'a>(wire: WireType, bytes: &mut &'a [u8]) -> Option<Raw<'a>> {
    match wire {
        WireType::Varint => decode_varint(bytes).ok().map(Raw::Number),
        WireType::SixtyFourBit => {
            let (number, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Some(Raw::Number(u64::from_le_bytes(*number)))
        }
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(Raw::Bytes(content))
        }
        WireType::ThirtyTwoBit | WireType::StartGroup | WireType::EndGroup => None,
    }
}
