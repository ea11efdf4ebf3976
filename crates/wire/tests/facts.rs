//! The compiled interface equals the facts of the protocol notes: every message, field, number,
//! type, enum value and method, in both directions.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use serde_json::Value;
use tidegate_wire::{FILE_DESCRIPTOR_SET, poolrpc};

const POOL: &str = include_str!("wire_facts.json");
const TRADER: &str = include_str!("trader_facts.json");
const HASHMAIL: &str = include_str!("hashmail_facts.json");
const LND: &str = include_str!("lnd_facts.json");

/// One line per declaration, so that a difference reads like a diff.
type Lines = BTreeSet<String>;

#[test]
fn interfaces_of_venue_and_agent_equal_the_notes() {
    let facts = facts_of(POOL);
    assert_eq!(count(&facts, "message "), 65);
    assert_eq!(count(&facts, "field "), 220);
    assert_eq!(count(&facts, "enum "), 14);
    assert_eq!(count(&facts, "rpc "), 14);
    let operators = facts_of(TRADER);
    assert_eq!(count(&operators, "message "), 67);
    assert_eq!(count(&operators, "rpc "), 30);
    let mail = facts_of(HASHMAIL);
    assert_eq!((count(&mail, "message "), count(&mail, "rpc ")), (10, 4));
    assert_same(&pool_facts(), &declared_in(&descriptors(), "poolrpc/"));
}

/// What venue and agent serve.
fn pool_facts() -> Lines {
    [POOL, TRADER, HASHMAIL].into_iter().flat_map(facts_of).collect()
}

#[test]
fn node_interface_equals_the_notes() {
    let facts = facts_of(LND);
    assert!(count(&facts, "rpc ") > 50, "the calls of a trader and a venue");
    assert_same(&facts, &declared_in(&descriptors(), "lnd/"));
}

#[test]
fn comparison_notices_a_changed_number_type_and_enum_value() {
    type Plant = fn(&mut FileDescriptorProto);
    let plants: [(&str, Plant); 4] = [
        ("number", |f| f.message_type[0].field[0].number = Some(99)),
        ("type", |f| f.message_type[0].field[0].set_type(Type::Sint64)),
        ("enum value", |f| f.enum_type[0].value[1].number = Some(99)),
        ("stream", |f| f.service[0].method[0].server_streaming = Some(true)),
    ];
    for (what, plant) in plants {
        let mut set = descriptors();
        let file = set.file.iter_mut().find(|f| f.name().starts_with("poolrpc/"));
        plant(file.expect("the auctioneer's file is in the set"));
        assert_ne!(pool_facts(), declared_in(&set, "poolrpc/"), "changed {what}");
    }
}

#[test]
fn maps_encode_in_key_order() {
    let message = |keys: [&str; 2]| poolrpc::OrderMatchSign {
        account_sigs: keys.map(|k| (k.to_owned(), k.as_bytes().to_vec())).into_iter().collect(),
        ..Default::default()
    };
    let bytes = message(["b", "a"]).encode_to_vec();
    assert_eq!(bytes, message(["a", "b"]).encode_to_vec());
    assert_eq!(bytes, b"\x12\x06\x0a\x01a\x12\x01a\x12\x06\x0a\x01b\x12\x01b");
}

#[test]
fn unknown_fields_are_skipped() {
    let mut bytes = poolrpc::ExecutionFee { base_fee: 1, fee_rate: 1000 }.encode_to_vec();
    bytes.extend_from_slice(b"\x9a\x06\x03new"); // field 99, three bytes
    let fee = poolrpc::ExecutionFee::decode(bytes.as_slice()).expect("skips field 99");
    assert_eq!(fee, poolrpc::ExecutionFee { base_fee: 1, fee_rate: 1000 });
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("written by the build script")
}

fn count(lines: &Lines, prefix: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(prefix)).count()
}

fn assert_same(facts: &Lines, declared: &Lines) {
    let missing: Vec<_> = facts.difference(declared).collect();
    let extra: Vec<_> = declared.difference(facts).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
}

// ---- the notes ----

fn facts_of(json: &str) -> Lines {
    let facts: Value = serde_json::from_str(json).expect("checked in");
    let mut lines = Lines::new();
    for service in list(&facts, "services") {
        for method in list(service, "methods") {
            let stream = |key: &str| if flag(method, key) { "stream " } else { "" };
            lines.insert(format!(
                "rpc {}.{}({}{}) {}{}",
                text(service, "full_name"),
                text(method, "name"),
                stream("client_streaming"),
                text(method, "request"),
                stream("server_streaming"),
                text(method, "response"),
            ));
        }
    }
    for message in list(&facts, "messages") {
        let name = text(message, "full_name");
        lines.insert(format!("message {name}"));
        lines.extend(list(message, "fields").iter().map(|field| fact_field(name, field)));
        for oneof in list(message, "oneofs") {
            lines.insert(format!("oneof {name} {}", oneof.as_str().expect("a name")));
        }
        for number in list(message, "reserved_numbers") {
            lines.insert(format!("reserved {name} {number}"));
        }
    }
    for declared in list(&facts, "enums") {
        let name = text(declared, "full_name");
        lines.insert(format!("enum {name}"));
        for value in list(declared, "values") {
            lines.insert(format!("value {name} {}={}", text(value, "name"), value["number"]));
        }
    }
    lines
}

fn fact_field(message: &str, field: &Value) -> String {
    let kind = |name: &str, kind: &str| match kind {
        "scalar" => name.to_owned(),
        "enum" | "message" => format!("{kind} {name}"),
        other => panic!("unknown kind {other}"),
    };
    let of = if field["type"] == "map" {
        let value = kind(text(field, "value_type"), text(field, "value_kind"));
        format!("map<{}, {value}>", text(field, "key_type"))
    } else {
        kind(text(field, "type"), text(field, "kind"))
    };
    FieldLine {
        message,
        name: text(field, "name"),
        number: field["number"].to_string(),
        of,
        repeated: flag(field, "repeated"),
        optional: flag(field, "optional"),
        deprecated: flag(field, "deprecated"),
        oneof: field["oneof"].as_str(),
    }
    .line()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).map_or(&[], |list| list.as_array().expect("a list"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|flag| flag.as_bool().expect("a flag"))
}

struct FieldLine<'a> {
    message: &'a str,
    name: &'a str,
    number: String,
    of: String,
    repeated: bool,
    optional: bool,
    deprecated: bool,
    oneof: Option<&'a str>,
}

impl FieldLine<'_> {
    fn line(&self) -> String {
        let mut line = format!("field {} {}={} {}", self.message, self.name, self.number, self.of);
        let flags = [(self.repeated, "repeated"), (self.optional, "optional"), (self.deprecated, "deprecated")];
        for (_, word) in flags.into_iter().filter(|(set, _)| *set) {
            line = format!("{line} {word}");
        }
        self.oneof.map_or(line.clone(), |oneof| format!("{line} oneof {oneof}"))
    }
}

// ---- what was compiled ----

fn declared_in(set: &FileDescriptorSet, folder: &str) -> Lines {
    let mut lines = Lines::new();
    for file in set.file.iter().filter(|file| file.name().starts_with(folder)) {
        assert_eq!(file.syntax(), "proto3");
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            lines.extend(service.method.iter().map(|method| declared_method(&name, method)));
        }
        for message in &file.message_type {
            declare_message(file.package(), message, &mut lines);
        }
        for declared in &file.enum_type {
            declare_enum(file.package(), declared, &mut lines);
        }
    }
    lines
}

fn declared_method(service: &str, method: &MethodDescriptorProto) -> String {
    let stream = |set: bool| if set { "stream " } else { "" };
    format!(
        "rpc {service}.{}({}{}) {}{}",
        method.name(),
        stream(method.client_streaming()),
        bare(method.input_type()),
        stream(method.server_streaming()),
        bare(method.output_type()),
    )
}

fn declare_message(scope: &str, message: &DescriptorProto, lines: &mut Lines) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    lines.extend(message.field.iter().map(|field| declared_field(&name, message, field)));
    for (index, oneof) in message.oneof_decl.iter().enumerate() {
        if message.field.iter().any(|field| real_oneof(field) == Some(index)) {
            lines.insert(format!("oneof {name} {}", oneof.name()));
        }
    }
    for range in &message.reserved_range {
        lines.extend((range.start()..range.end()).map(|n| format!("reserved {name} {n}")));
    }
    for declared in &message.enum_type {
        declare_enum(&name, declared, lines);
    }
    for nested in message.nested_type.iter().filter(|nested| !is_map_entry(nested)) {
        declare_message(&name, nested, lines);
    }
}

fn declare_enum(scope: &str, declared: &EnumDescriptorProto, lines: &mut Lines) {
    let name = format!("{scope}.{}", declared.name());
    lines.insert(format!("enum {name}"));
    for value in &declared.value {
        lines.insert(format!("value {name} {}={}", value.name(), value.number()));
    }
}

fn declared_field(name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message
        .nested_type
        .iter()
        .find(|nested| is_map_entry(nested) && field.type_name() == format!(".{name}.{}", nested.name()));
    let of = entry.map_or_else(
        || type_of(field),
        |entry| format!("map<{}, {}>", type_of(&entry.field[0]), type_of(&entry.field[1])),
    );
    FieldLine {
        message: name,
        name: field.name(),
        number: field.number().to_string(),
        of,
        repeated: entry.is_none() && field.label() == Label::Repeated,
        optional: field.proto3_optional(),
        deprecated: field.options.as_ref().is_some_and(|options| options.deprecated()),
        oneof: real_oneof(field).map(|index| message.oneof_decl[index].name()),
    }
    .line()
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message => format!("message {}", bare(field.type_name())),
        Type::Enum => format!("enum {}", bare(field.type_name())),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// Index of the oneof that was written in the file (`optional` makes one of its own).
fn real_oneof(field: &FieldDescriptorProto) -> Option<usize> {
    let index = field.oneof_index.filter(|_| !field.proto3_optional())?;
    Some(usize::try_from(index).expect("an index"))
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn bare(name: &str) -> &str {
    name.trim_start_matches('.')
}
