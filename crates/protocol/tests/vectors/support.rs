//! Reading vectors: a broken entry fails the test that reads it, after all the others were judged.

use serde_json::Value;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tidegate_protocol::bitcoin::secp256k1::{PublicKey, SecretKey};
use tidegate_protocol::units::Sats;

/// The files of a vectors folder. Others are named, not read.
pub(crate) const FILES: [&str; 21] = [
    "account_auth.json",
    "account_modifications.json",
    "account_scripts.json",
    "batch_accept.json",
    "batch_honest.json",
    "batch_hostile.json",
    "batch_mutations.json",
    "batch_versions.json",
    "channel_acceptor.json",
    "channel_backups.json",
    "close_outputs.json",
    "constants.json",
    "fees.json",
    "funding_outputs.json",
    "key_tweaks.json",
    "musig2_signing.json",
    "num_confs.json",
    "orders.json",
    "sidecar_tickets.json",
    "sidecar_tlv_edge_cases.json",
    "witness_classification.json",
];

fn own_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The folder that takes the place of ours, if one is named. Tests run in their package's folder, but whoever names one
/// stands in the workspace's.
fn foreign_folder() -> Option<PathBuf> {
    let named = std::env::var_os("TIDEGATE_VECTORS_DIR").filter(|named| !named.is_empty())?;
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(named))
}

/// The folder whose vectors are judged.
pub(crate) fn folder() -> PathBuf {
    foreign_folder().unwrap_or_else(own_folder)
}

/// One file, or nothing when a foreign folder does not have it. Any other trouble with it fails.
pub(crate) fn load(name: &str) -> Option<Value> {
    match std::fs::read(folder().join(name)) {
        Ok(bytes) => Some(parse(name, &bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && foreign_folder().is_some() => {
            assert!(folder().is_dir(), "{}: no such folder", folder().display());
            println!("{name}: absent, nothing checked");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// A file of our own folder, whatever is judged besides: tests that break it in known places start from it.
pub(crate) fn load_own(name: &str) -> Value {
    let path: &Path = &own_folder().join(name);
    parse(name, &std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn parse(name: &str, bytes: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(value.is_object(), "{name}: the file is no object");
    value
}

/// Judges every entry of a list of a file. All are judged; then those that failed are named and fail the test.
pub(crate) fn judge(name: &str, file: &Value, list: &str, check: impl Fn(&Value)) {
    let Some(entries) = file.get(list) else {
        assert!(foreign_folder().is_some(), "{name}: no list {list}");
        println!("{name}: list {list} absent, nothing checked");
        return;
    };
    let entries = match entries {
        // An empty list of some writers.
        Value::Null => &[][..],
        _ => entries.as_array().unwrap_or_else(|| panic!("{name}: {list} is no list")),
    };
    let mut failed = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(entry))) {
            failed.push(format!("{list}[{index}] {}: {}", label(entry), text_of(panic.as_ref())));
        }
    }
    report(name, list, entries.len());
    assert!(failed.is_empty(), "{name}: {} of {} failed\n{}", failed.len(), entries.len(), failed.join("\n"));
}

/// The name of an entry, when it has one.
pub(crate) fn label(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or("")
}

/// What a failed check said.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("it failed without a word");
    text.chars().take(600).collect()
}

/// Says how many entries of a list were judged; a list of ours must not be empty.
pub(crate) fn report(name: &str, list: &str, count: usize) {
    assert!(count > 0 || foreign_folder().is_some(), "{name}: no entry in {list}");
    println!("{name}: {count} entries of {list} checked");
}

/// Short access to the fields of an entry.
pub(crate) trait Entry {
    fn at(&self, key: &str) -> &Value;
    fn list(&self, key: &str) -> &[Value];
    fn text(&self, key: &str) -> &str;
    fn u64(&self, key: &str) -> u64;
    fn i128(&self, key: &str) -> i128;
    fn u32(&self, key: &str) -> u32;
    fn flag(&self, key: &str) -> bool;

    fn sats(&self, key: &str) -> Sats {
        Sats::new(self.u64(key)).unwrap()
    }
    fn bytes(&self, key: &str) -> Vec<u8> {
        unhex(self.text(key))
    }
    fn b32(&self, key: &str) -> [u8; 32] {
        self.bytes(key).try_into().unwrap()
    }
    fn point(&self, key: &str) -> PublicKey {
        PublicKey::from_slice(&self.bytes(key)).unwrap()
    }
    fn secret(&self, key: &str) -> SecretKey {
        SecretKey::from_slice(&self.bytes(key)).unwrap()
    }
    fn parse<T: FromStr>(&self, key: &str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        self.text(key).parse().unwrap()
    }
}

impl Entry for Value {
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or_else(|| panic!("no {key} in {self}"))
    }
    /// A list that is absent or null is empty: some writers leave empty lists out.
    fn list(&self, key: &str) -> &[Value] {
        match self.get(key) {
            None | Some(Value::Null) => &[],
            Some(list) => list.as_array().unwrap_or_else(|| panic!("{key} is no list")),
        }
    }
    fn text(&self, key: &str) -> &str {
        self.at(key).as_str().unwrap_or_else(|| panic!("{key} is no text"))
    }
    fn u64(&self, key: &str) -> u64 {
        self.at(key).as_u64().unwrap_or_else(|| panic!("{key} is no number: {self}"))
    }
    fn i128(&self, key: &str) -> i128 {
        let value = self.at(key);
        let number = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
        number.unwrap_or_else(|| panic!("{key} is no whole number: {self}"))
    }
    fn u32(&self, key: &str) -> u32 {
        u32::try_from(self.u64(key)).unwrap()
    }
    fn flag(&self, key: &str) -> bool {
        self.at(key).as_bool().unwrap_or_else(|| panic!("{key} is no yes or no"))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    hex::DisplayHex::to_lower_hex_string(bytes)
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    hex::FromHex::from_hex(text).unwrap()
}
