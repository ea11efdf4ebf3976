//! Messages as JSON, as the REST side of deployed daemons writes and reads them, driven by the interface files alone.
//!
//! Written: names as in the interface files, fields that are not set too (except those of which a message has one at
//! most), bytes in standard base64, 64-bit numbers as text, enum values by name. Read: also names in lower camel case,
//! bytes in URL-safe base64, numbers in either form; what is not in the interface is refused.
//!
//! JSON is turned into the encoded message, not into a type: whoever decodes it applies the limits of
//! [`crate::bounded`].
//!
//! # Source
//! Protocol notes, rpc §13.1; the JSON mapping of protocol buffers.

mod read;
mod write;

use crate::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use thiserror::Error;

/// Levels of messages inside messages that are read or written.
const MAX_DEPTH: usize = 16;

/// Why JSON is not a message, or the other way round. `field` is `Message.field` as in the interface files.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// There is no such message in the interfaces.
    #[error("there is no message {0}")]
    NoMessage(String),
    /// There is no such field.
    #[error("{message} has no field {name:?}")]
    NoField {
        /// Of which message.
        message: String,
        /// What was found, cut to 100 characters.
        name: String,
    },
    /// A value of another kind than the field's.
    #[error("{field}: expected {expected}, found {found}")]
    Value {
        /// Where.
        field: String,
        /// What is allowed.
        expected: &'static str,
        /// What was found, cut to 100 characters.
        found: String,
    },
    /// One field was given twice, under both of its names.
    #[error("{field} is given twice")]
    Twice {
        /// Where.
        field: String,
    },
    /// Messages inside messages without end.
    #[error("messages are nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Bytes that are no message of this type.
    #[error("not a message {message}")]
    Malformed {
        /// Of which type.
        message: String,
    },
}

/// The messages and calls of the interfaces that this program serves to operators.
#[derive(Debug)]
pub struct Interface {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    methods: BTreeMap<String, Method>,
}

/// The messages of a call, by their full names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// What is sent.
    pub request: String,
    /// What is answered.
    pub response: String,
}

impl Default for Interface {
    fn default() -> Interface {
        Interface::new()
    }
}

impl Interface {
    /// Reads the interface files that are compiled in.
    pub fn new() -> Interface {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("written by the build script");
        let mut all = Interface { messages: BTreeMap::new(), enums: BTreeMap::new(), methods: BTreeMap::new() };
        for file in &set.file {
            for message in &file.message_type {
                all.add_message(file.package(), message);
            }
            for found in &file.enum_type {
                all.enums.insert(format!("{}.{}", file.package(), found.name()), found.clone());
            }
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let (request, response) = (bare(method.input_type()), bare(method.output_type()));
                    let method = Method { request: request.to_owned(), response: response.to_owned() };
                    all.methods.insert(path, method);
                }
            }
        }
        all
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for found in &message.enum_type {
            self.enums.insert(format!("{name}.{}", found.name()), found.clone());
        }
        self.messages.insert(name, message.clone());
    }

    /// The messages of a call, named by its path (`/package.Service/Method`).
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// Names of the calls of a service (`package.Service`), in alphabetical order.
    pub fn methods<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a str> {
        self.methods.keys().filter_map(move |path| {
            let (of, name) = path.strip_prefix('/')?.split_once('/')?;
            (of == service).then_some(name)
        })
    }

    fn message(&self, name: &str) -> Result<&DescriptorProto, JsonError> {
        self.messages.get(bare(name)).ok_or_else(|| JsonError::NoMessage(shown(name)))
    }

    /// The entry of a map field: its key and its value.
    fn map_entry(&self, field: &FieldDescriptorProto) -> Option<(&FieldDescriptorProto, &FieldDescriptorProto)> {
        if field.r#type() != Type::Message || field.label() != Label::Repeated {
            return None;
        }
        let entry = self.messages.get(bare(field.type_name()))?;
        let is_map = entry.options.as_ref().is_some_and(|options| options.map_entry());
        match entry.field.as_slice() {
            [key, value] if is_map => Some((key, value)),
            _ => None,
        }
    }
}

fn bare(name: &str) -> &str {
    name.trim_start_matches('.')
}

/// What was found, short enough for a sentence.
fn shown(found: &str) -> String {
    found.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// How a type is written: as a number, as eight or four bytes, or with its length in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
}

impl Wire {
    /// Of the types that the interfaces use.
    fn of(kind: Type) -> Option<Wire> {
        match kind {
            Type::Bool | Type::Uint32 | Type::Int32 | Type::Uint64 | Type::Int64 | Type::Enum => Some(Wire::Varint),
            Type::Double => Some(Wire::Fixed64),
            Type::String | Type::Bytes | Type::Message => Some(Wire::Length),
            Type::Float | Type::Fixed32 | Type::Fixed64 | Type::Sfixed32 | Type::Sfixed64 => None,
            Type::Sint32 | Type::Sint64 | Type::Group => None,
        }
    }

    fn number(self) -> u64 {
        match self {
            Wire::Varint => 0,
            Wire::Fixed64 => 1,
            Wire::Length => 2,
        }
    }
}

#[cfg(test)]
mod tests;
