//! Reading vectors: a broken entry fails the test that reads it.

use serde_json::Value;
use std::path::PathBuf;
use std::str::FromStr;
use tidegate_protocol::bitcoin::secp256k1::{PublicKey, SecretKey};
use tidegate_protocol::units::Sats;

/// One file, or nothing when a foreign folder does not have it.
pub(crate) fn load(name: &str) -> Option<Value> {
    let foreign = std::env::var_os("TIDEGATE_VECTORS_DIR").map(PathBuf::from);
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let path = foreign.clone().unwrap_or(own).join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"))),
        Err(_) if foreign.is_some() => {
            println!("{name}: absent, nothing checked");
            None
        }
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// Says how many entries of a list were judged; a list must not be empty.
pub(crate) fn report(file: &str, list: &str, count: usize) {
    assert!(count > 0, "{file}: no entry in {list}");
    println!("{file}: {count} entries of {list} checked");
}

/// Short access to the fields of an entry.
pub(crate) trait Entry {
    fn at(&self, key: &str) -> &Value;
    fn list(&self, key: &str) -> &[Value];
    fn text(&self, key: &str) -> &str;
    fn u64(&self, key: &str) -> u64;
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
    fn list(&self, key: &str) -> &[Value] {
        self.at(key).as_array().unwrap_or_else(|| panic!("{key} is no list"))
    }
    fn text(&self, key: &str) -> &str {
        self.at(key).as_str().unwrap_or_else(|| panic!("{key} is no text"))
    }
    fn u64(&self, key: &str) -> u64 {
        self.at(key).as_u64().unwrap_or_else(|| panic!("{key} is no number: {self}"))
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
