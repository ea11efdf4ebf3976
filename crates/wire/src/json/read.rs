//! JSON and query parameters to encoded messages.

use super::{Interface, JsonError, MAX_DEPTH, Wire, shown};
use bitcoin::base64::Engine as _;
use bitcoin::base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use bitcoin::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

impl Interface {
    /// The encoded message that a JSON object means.
    ///
    /// # Errors
    /// [`JsonError`] naming the field.
    pub fn encode(&self, message: &str, json: &Value) -> Result<Vec<u8>, JsonError> {
        self.encode_at(message, json, 0)
    }

    fn encode_at(&self, message: &str, json: &Value, depth: usize) -> Result<Vec<u8>, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let shape = self.message(message)?;
        let Value::Object(fields) = json else { return Err(wrong(shape.name(), "an object", json)) };
        let (mut bytes, mut seen) = (Vec::new(), BTreeSet::new());
        for (name, value) in fields {
            let field = field_of(shape, name)?;
            if !seen.insert(field.number()) {
                return Err(JsonError::Twice { field: place(shape, field) });
            }
            self.encode_field(shape, field, value, depth, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn encode_field(
        &self,
        shape: &DescriptorProto,
        field: &FieldDescriptorProto,
        value: &Value,
        depth: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let place = place(shape, field);
        if value.is_null() {
            return Ok(());
        }
        if let Some((key, content)) = self.map_entry(field) {
            let Value::Object(entries) = value else { return Err(wrong(&place, "an object", value)) };
            for (name, value) in entries {
                let mut entry = Vec::new();
                self.encode_value(key, &place, &Value::String(name.clone()), depth, &mut entry)?;
                self.encode_value(content, &place, value, depth, &mut entry)?;
                tag(field, Wire::Length, bytes);
                length_and(&entry, bytes);
            }
            return Ok(());
        }
        if field.label() == Label::Repeated {
            let Value::Array(values) = value else { return Err(wrong(&place, "a list", value)) };
            return values.iter().try_for_each(|value| self.encode_value(field, &place, value, depth, bytes));
        }
        self.encode_value(field, &place, value, depth, bytes)
    }

    /// One value with its tag.
    fn encode_value(
        &self,
        field: &FieldDescriptorProto,
        place: &str,
        value: &Value,
        depth: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let kind = field.r#type();
        let Some(wire) = Wire::of(kind) else { return Err(wrong(place, "nothing that is supported here", value)) };
        tag(field, wire, bytes);
        match (kind, value) {
            (Type::Bool, value) => varint(u64::from(boolean(place, value)?), bytes),
            (Type::Uint32, value) => varint(number::<u32>(place, "a number of 32 bits", value)?.into(), bytes),
            (Type::Uint64, value) => varint(number(place, "a number of 64 bits", value)?, bytes),
            (Type::Int32, value) => {
                varint(two_complement(number::<i32>(place, "a number of 32 bits", value)?.into()), bytes);
            }
            (Type::Int64, value) => varint(two_complement(number(place, "a number of 64 bits", value)?), bytes),
            (Type::Enum, value) => varint(two_complement(self.enum_number(field, place, value)?.into()), bytes),
            (Type::Double, value) => bytes.extend(double(place, value)?.to_le_bytes()),
            (Type::String, Value::String(text)) => length_and(text.as_bytes(), bytes),
            (Type::Bytes, Value::String(text)) => length_and(&base64(place, text)?, bytes),
            (Type::Message, value) => length_and(&self.encode_at(field.type_name(), value, depth + 1)?, bytes),
            (_, value) => return Err(wrong(place, "text", value)),
        }
        Ok(())
    }

    fn enum_number(&self, field: &FieldDescriptorProto, place: &str, value: &Value) -> Result<i32, JsonError> {
        let known = self.enums.get(super::bare(field.type_name()));
        let named = value.as_str().and_then(|name| known?.value.iter().find(|value| value.name() == name));
        match named {
            Some(value) => Ok(value.number()),
            None => number(place, "one of the names of its kind", value),
        }
    }

    /// The JSON object that query parameters mean: `name=value`, `outer.inner=value`, lists by repetition.
    ///
    /// # Errors
    /// [`JsonError`] naming the field.
    pub fn query<'a>(
        &self,
        message: &str,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Value, JsonError> {
        let mut json = Map::new();
        for (name, text) in parameters {
            self.add_parameter(message, &mut json, name, text, 0)?;
        }
        Ok(Value::Object(json))
    }

    fn add_parameter(
        &self,
        message: &str,
        json: &mut Map<String, Value>,
        name: &str,
        text: &str,
        depth: usize,
    ) -> Result<(), JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let shape = self.message(message)?;
        let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
        let field = field_of(shape, first)?;
        let (place, given) = (place(shape, field), Value::String(text.to_owned()));
        let slot = json.entry(field.name()).or_insert(Value::Null);
        match (rest, field.r#type(), field.label() == Label::Repeated) {
            (Some(rest), Type::Message, false) => {
                if slot.is_null() {
                    *slot = Value::Object(Map::new());
                }
                let Value::Object(inner) = slot else { return Err(JsonError::Twice { field: place }) };
                self.add_parameter(field.type_name(), inner, rest, text, depth + 1)
            }
            (Some(_), ..) => Err(JsonError::NoField { message: place, name: shown(name) }),
            (None, Type::Message, _) => Err(wrong(&place, "the name of a field in it", &given)),
            (None, kind, true) => {
                let Value::Array(list) = slot else {
                    *slot = Value::Array(vec![parameter(kind, given)]);
                    return Ok(());
                };
                list.push(parameter(kind, given));
                Ok(())
            }
            (None, kind, false) => {
                if !slot.is_null() {
                    return Err(JsonError::Twice { field: place });
                }
                *slot = parameter(kind, given);
                Ok(())
            }
        }
    }
}

/// Truth values are words in a query; everything else may be text in JSON too.
fn parameter(kind: Type, given: Value) -> Value {
    match (kind, given.as_str()) {
        (Type::Bool, Some("true" | "1")) => Value::Bool(true),
        (Type::Bool, Some("false" | "0")) => Value::Bool(false),
        _ => given,
    }
}

fn field_of<'a>(shape: &'a DescriptorProto, name: &str) -> Result<&'a FieldDescriptorProto, JsonError> {
    let known = |field: &&FieldDescriptorProto| field.name() == name || camel(field.name()) == name;
    let missing = || JsonError::NoField { message: shape.name().to_owned(), name: shown(name) };
    shape.field.iter().find(known).ok_or_else(missing)
}

/// `order_nonce` as `orderNonce`.
fn camel(name: &str) -> String {
    let mut text = String::new();
    let mut raise = false;
    for letter in name.chars() {
        match letter {
            '_' => raise = true,
            letter if raise => {
                text.extend(letter.to_uppercase());
                raise = false;
            }
            letter => text.push(letter),
        }
    }
    text
}

fn place(shape: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    format!("{}.{}", shape.name(), field.name())
}

fn wrong(place: &str, expected: &'static str, found: &Value) -> JsonError {
    JsonError::Value { field: place.to_owned(), expected, found: shown(&found.to_string()) }
}

fn boolean(place: &str, value: &Value) -> Result<bool, JsonError> {
    value.as_bool().ok_or_else(|| wrong(place, "true or false", value))
}

/// A whole number, written as such or as text.
fn number<T: core::str::FromStr>(place: &str, expected: &'static str, value: &Value) -> Result<T, JsonError> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(wrong(place, expected, value)),
    };
    text.parse().map_err(|_| wrong(place, expected, value))
}

fn double(place: &str, value: &Value) -> Result<f64, JsonError> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| wrong(place, "a number", value))
}

/// Bytes in either alphabet, with or without padding.
fn base64(place: &str, text: &str) -> Result<Vec<u8>, JsonError> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let read = |alphabet: &Alphabet| GeneralPurpose::new(alphabet, config).decode(text);
    read(&STANDARD).or_else(|_| read(&URL_SAFE)).map_err(|_| JsonError::Value {
        field: place.to_owned(),
        expected: "bytes in base64",
        found: shown(text),
    })
}

/// A negative number as the format writes it.
fn two_complement(number: i64) -> u64 {
    u64::from_le_bytes(number.to_le_bytes())
}

fn tag(field: &FieldDescriptorProto, wire: Wire, bytes: &mut Vec<u8>) {
    let number = u64::try_from(field.number()).expect("fields are numbered from one");
    varint((number << 3) | wire.number(), bytes);
}

fn varint(mut number: u64, bytes: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn length_and(content: &[u8], bytes: &mut Vec<u8>) {
    varint(u64::try_from(content.len()).expect("lengths fit 64 bits"), bytes);
    bytes.extend_from_slice(content);
}
