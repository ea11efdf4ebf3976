//! Reading the JSON answers of the command line programs. A missing field is a failure that shows the answer.

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// The text at a JSON pointer.
pub(crate) fn text(value: &Value, pointer: &str) -> Outcome<String> {
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(lacks(value, pointer, "a text")),
    }
}

/// The whole number at a JSON pointer; 64-bit integers arrive as strings from some programs, as numbers from others.
pub(crate) fn number(value: &Value, pointer: &str) -> Outcome<u64> {
    let found = match value.pointer(pointer) {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) => digits.parse().ok(),
        _ => None,
    };
    found.ok_or_else(|| lacks(value, pointer, "a whole number"))
}

/// The truth value at a JSON pointer.
pub(crate) fn flag(value: &Value, pointer: &str) -> Outcome<bool> {
    value.pointer(pointer).and_then(Value::as_bool).ok_or_else(|| lacks(value, pointer, "true or false"))
}

/// The list at a JSON pointer.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> Outcome<&'a [Value]> {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| lacks(value, pointer, "a list"))
}

fn lacks(value: &Value, pointer: &str, kind: &str) -> Failure {
    Failure::new(format!("expected {kind} at '{pointer}' in {value}"))
}
