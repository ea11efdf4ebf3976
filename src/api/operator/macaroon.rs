//! Macaroons: who may call what.
//!
//! A macaroon names the operations that it allows and is signed with a root key that never leaves the data folder.
//! Its holder can add conditions, and the deployed client does: every one must hold, and one that we do not know is
//! not fulfilled.
//!
//! # Source
//! Protocol notes, rpc §13.1 (entities, actions, location, caveats); permissions of each call in `wire.json`.

use super::files::{self, FilesError};
use hex::FromHex as _;
use libmacaroon::{Caveat, Macaroon, MacaroonKey, Verifier};
use prost::Message;
use std::net::IpAddr;
use std::path::Path;
use thiserror::Error;
use tidegate_ports::Entropy;

/// Where the macaroon is used.
const LOCATION: &str = "pool";
/// Version of the identifier's format: the first byte before its fields.
const ID_VERSION: u8 = 3;
/// Name of the root key.
const ROOT_KEY_ID: &[u8] = b"0";
/// Digits of the longest macaroon that is looked at.
const MAX_HEX: usize = 16_384;

/// What a call does to what: entity and action.
pub(super) type Operation = (&'static str, &'static str);

const ACCOUNT_READ: Operation = ("account", "read");
const ACCOUNT_WRITE: Operation = ("account", "write");
const ORDER_READ: Operation = ("order", "read");
const ORDER_WRITE: Operation = ("order", "write");
const AUCTION_READ: Operation = ("auction", "read");
const AUTH_READ: Operation = ("auth", "read");

/// All operations: those of `pool.macaroon`.
const ALL: [Operation; 6] = [ACCOUNT_READ, ACCOUNT_WRITE, ORDER_READ, ORDER_WRITE, AUCTION_READ, AUTH_READ];

/// Those of `readonly.macaroon`.
const READ: [Operation; 4] = [ACCOUNT_READ, ORDER_READ, AUCTION_READ, AUTH_READ];

/// What each call of `tidegate.v1.Agent` needs.
const NEEDED_OF_AGENT: [(&str, &[Operation]); 7] = [
    ("Status", &[ACCOUNT_READ, ORDER_READ]),
    ("Stop", &[ORDER_WRITE]),
    ("Resume", &[ORDER_WRITE]),
    ("ReplaceOrder", &[ORDER_WRITE]),
    ("Decisions", &[ORDER_READ]),
    ("Ledger", &[ACCOUNT_READ]),
    ("Limits", &[ORDER_READ]),
];

/// What each call of `poolrpc.Trader` needs.
const NEEDED: [(&str, &[Operation]); 30] = [
    ("GetInfo", &[ACCOUNT_READ, ORDER_READ, AUCTION_READ, AUTH_READ]),
    ("StopDaemon", &[ACCOUNT_WRITE]),
    ("QuoteAccount", &[ACCOUNT_READ]),
    ("InitAccount", &[ACCOUNT_WRITE]),
    ("ListAccounts", &[ACCOUNT_READ]),
    ("CloseAccount", &[ACCOUNT_WRITE]),
    ("WithdrawAccount", &[ACCOUNT_WRITE]),
    ("DepositAccount", &[ACCOUNT_WRITE]),
    ("RenewAccount", &[ACCOUNT_WRITE]),
    ("BumpAccountFee", &[ACCOUNT_WRITE]),
    ("RecoverAccounts", &[ACCOUNT_WRITE]),
    ("AccountModificationFees", &[ACCOUNT_READ]),
    ("SubmitOrder", &[ORDER_WRITE]),
    ("ListOrders", &[ORDER_READ]),
    ("CancelOrder", &[ORDER_WRITE]),
    ("QuoteOrder", &[ORDER_READ]),
    ("AuctionFee", &[AUCTION_READ]),
    ("LeaseDurations", &[AUCTION_READ]),
    ("NextBatchInfo", &[AUCTION_READ]),
    ("BatchSnapshot", &[AUCTION_READ]),
    ("GetLsatTokens", &[AUTH_READ]),
    ("Leases", &[AUCTION_READ]),
    ("NodeRatings", &[AUCTION_READ]),
    ("BatchSnapshots", &[AUCTION_READ]),
    ("OfferSidecar", &[ORDER_WRITE]),
    ("RegisterSidecar", &[ORDER_WRITE]),
    ("ExpectSidecarChannel", &[ORDER_WRITE]),
    ("DecodeSidecarTicket", &[ORDER_READ]),
    ("ListSidecars", &[ORDER_READ]),
    ("CancelSidecar", &[ORDER_WRITE]),
];

/// What the call with this path needs; nothing when there is no such call.
pub(super) fn needed(path: &str) -> Option<&'static [Operation]> {
    let (table, name): (&[(&str, &'static [Operation])], &str) = match path.strip_prefix("/poolrpc.Trader/") {
        Some(name) => (&NEEDED, name),
        None => (&NEEDED_OF_AGENT, path.strip_prefix("/tidegate.v1.Agent/")?),
    };
    table.iter().find(|(method, _)| *method == name).map(|(_, operations)| *operations)
}

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum AccessError {
    #[error("no macaroon: send the content of pool.macaroon in hexadecimal, as metadata `macaroon`")]
    Missing,
    #[error("{0} macaroons were sent, expected one")]
    Several(usize),
    #[error("the macaroon is not hexadecimal")]
    NotHex,
    #[error("the macaroon does not parse")]
    Malformed,
    #[error("the macaroon is not ours: take pool.macaroon from the data folder of this agent")]
    Foreign,
    #[error("the macaroon expired: its condition `{0}` does not hold any more")]
    Expired(String),
    #[error("the macaroon is for another address: its condition `{0}` does not hold")]
    OtherAddress(String),
    #[error("the macaroon has a condition that is not known here: `{0}`")]
    UnknownCaveat(String),
    #[error("the macaroon does not allow this call: it lacks {1} of {0}")]
    Lacks(&'static str, &'static str),
}

#[derive(Clone, PartialEq, Message)]
struct Identifier {
    #[prost(bytes = "vec", tag = "1")]
    nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    storage_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    operations: Vec<Entity>,
}

#[derive(Clone, PartialEq, Message)]
struct Entity {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, repeated, tag = "2")]
    actions: Vec<String>,
}

/// The root key.
pub(super) struct Keyring(MacaroonKey);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(secret)")
    }
}

impl Keyring {
    /// The key in `root.key`, drawn at the first start; and `pool.macaroon` and `readonly.macaroon` beside it, when they
    /// are missing.
    pub(super) fn ensure(folder: &Path, entropy: &impl Entropy) -> Result<Keyring, FilesError> {
        let path = folder.join("root.key");
        let drawn = hex::DisplayHex::to_lower_hex_string(&entropy.draw()[..]);
        let content = match files::read(&path)? {
            Some(content) => content,
            None => files::write_once(&path, drawn.as_bytes())?,
        };
        let text = String::from_utf8_lossy(&content);
        let root = <[u8; 32]>::from_hex(text.trim()).map_err(|_| FilesError::Damaged {
            path: path.clone(),
            reason: "it must hold 64 hexadecimal digits".to_owned(),
        })?;
        let keyring = Keyring(MacaroonKey::generate(&root));
        for (name, operations) in [("pool.macaroon", &ALL[..]), ("readonly.macaroon", &READ)] {
            let macaroon = folder.join(name);
            if files::read(&macaroon)?.is_none() {
                files::write_once(&macaroon, &keyring.bake(operations, entropy))?;
            }
        }
        Ok(keyring)
    }

    /// A macaroon that allows `operations`, in its binary form.
    pub(super) fn bake(&self, operations: &[Operation], entropy: &impl Entropy) -> Vec<u8> {
        let mut entities: Vec<Entity> = Vec::new();
        for (entity, action) in operations {
            match entities.iter_mut().find(|known| known.entity == *entity) {
                Some(known) => known.actions.push((*action).to_owned()),
                None => entities.push(Entity { entity: (*entity).to_owned(), actions: vec![(*action).to_owned()] }),
            }
        }
        let identifier =
            Identifier { nonce: entropy.draw()[..16].to_vec(), storage_id: ROOT_KEY_ID.to_vec(), operations: entities };
        let mut bytes = vec![ID_VERSION];
        bytes.extend(identifier.encode_to_vec());
        let macaroon = Macaroon::create(Some(LOCATION), &self.0, bytes).expect("the identifier is short and not empty");
        binary(&macaroon)
    }

    /// Lets a call in that needs `operations`, at `now_s` (Unix seconds), from `peer`.
    pub(super) fn check(
        &self,
        sent: &str,
        operations: &[Operation],
        now_s: u64,
        peer: Option<IpAddr>,
    ) -> Result<(), AccessError> {
        if sent.len() > MAX_HEX {
            return Err(AccessError::Malformed);
        }
        let bytes = Vec::<u8>::from_hex(sent).map_err(|_| AccessError::NotHex)?;
        let macaroon = Macaroon::deserialize_binary(&bytes).map_err(|_| AccessError::Malformed)?;
        let mut verifier = Verifier::default();
        let mut broken = None;
        for caveat in macaroon.caveats() {
            let Caveat::FirstParty(caveat) = caveat else {
                return Err(AccessError::UnknownCaveat("a third party's".to_owned()));
            };
            if let Err(error) = holds(caveat.predicate(), now_s, peer) {
                broken.get_or_insert(error);
            }
            verifier.satisfy_exact(caveat.predicate());
        }
        verifier.verify(&macaroon, &self.0, &[]).map_err(|_| AccessError::Foreign)?;
        if let Some(error) = broken {
            return Err(error);
        }
        let identifier = read_identifier(macaroon.identifier()).ok_or(AccessError::Foreign)?;
        for (entity, action) in operations {
            let allowed = |known: &Entity| known.entity == *entity && known.actions.iter().any(|has| has == action);
            if !identifier.operations.iter().any(allowed) {
                return Err(AccessError::Lacks(entity, action));
            }
        }
        Ok(())
    }
}

fn read_identifier(bytes: &[u8]) -> Option<Identifier> {
    let (version, rest) = bytes.split_first()?;
    let identifier = Identifier::decode(rest).ok()?;
    (*version == ID_VERSION && identifier.storage_id == ROOT_KEY_ID).then_some(identifier)
}

/// Whether a condition of a macaroon holds.
fn holds(predicate: &[u8], now_s: u64, peer: Option<IpAddr>) -> Result<(), AccessError> {
    let text = String::from_utf8_lossy(predicate);
    let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    match text.split_once(' ') {
        Some(("time-before", time)) => {
            let before = chrono::DateTime::parse_from_rfc3339(time);
            let before = before.map_err(|_| AccessError::UnknownCaveat(shown.clone()))?.timestamp();
            let fresh = u64::try_from(before).is_ok_and(|before| now_s < before);
            if fresh { Ok(()) } else { Err(AccessError::Expired(shown)) }
        }
        Some(("ipaddr", address)) => {
            let only: IpAddr = address.parse().map_err(|_| AccessError::UnknownCaveat(shown.clone()))?;
            if peer == Some(only) { Ok(()) } else { Err(AccessError::OtherAddress(shown)) }
        }
        _ => Err(AccessError::UnknownCaveat(shown)),
    }
}

/// The binary form of version 2. The library hands it out in base64 only.
fn binary(macaroon: &Macaroon) -> Vec<u8> {
    use bitcoin::base64::{Engine as _, engine::general_purpose::URL_SAFE};
    let text = macaroon.serialize(libmacaroon::Format::V2).expect("what was made can be written");
    URL_SAFE.decode(text).expect("the library writes base64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The interface facts that the wire's package checks its files with.
    const FACTS: &str = include_str!("../../../crates/wire/tests/trader_facts.json");

    #[test]
    fn every_call_needs_what_the_notes_say() {
        let facts: Value = serde_json::from_str(FACTS).expect("checked in");
        let methods = facts["services"][0]["methods"].as_array().expect("a list");
        assert_eq!(methods.len(), NEEDED.len());
        for method in methods {
            let path = format!("/poolrpc.Trader/{}", method["name"].as_str().expect("a name"));
            let found = needed(&path).unwrap_or_else(|| panic!("{path}"));
            let found: Vec<Value> = found
                .iter()
                .map(|(entity, action)| serde_json::json!({ "entity": entity, "action": action }))
                .collect();
            assert_eq!(Value::Array(found), method["macaroon_permissions"], "{path}");
        }
        assert_eq!(needed("/tidegate.v1.Agent/Stop"), Some(&[ORDER_WRITE][..]));
        assert_eq!(needed("/tidegate.v1.Agent/GetInfo"), None);
        assert_eq!(needed("/poolrpc.Trader/Unknown"), None);
        assert_eq!(needed("/poolrpc.ChannelAuctioneer/Terms"), None);
    }

    struct Counter(std::sync::atomic::AtomicU8);

    impl Entropy for Counter {
        fn draw(&self) -> [u8; 32] {
            [self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed); 32]
        }
    }

    fn keyring() -> (Keyring, Counter) {
        (Keyring(MacaroonKey::generate(&[7; 32])), Counter(Default::default()))
    }

    #[test]
    fn a_macaroon_allows_only_what_it_names() {
        let (keyring, entropy) = keyring();
        let reader = keyring.bake(&[ACCOUNT_READ, ORDER_READ], &entropy);
        let sent = hex::DisplayHex::to_lower_hex_string(&reader[..]);
        assert_eq!(keyring.check(&sent, &[ACCOUNT_READ], 0, None), Ok(()));
        assert_eq!(keyring.check(&sent, &[ORDER_READ, ACCOUNT_READ], 0, None), Ok(()));
        let lacks = Err(AccessError::Lacks("account", "write"));
        assert_eq!(keyring.check(&sent, &[ACCOUNT_READ, ACCOUNT_WRITE], 0, None), lacks);
        // With operations written into it, it is another macaroon, and the signature does not fit.
        let writer = Keyring(MacaroonKey::generate(&[8; 32])).bake(&ALL, &entropy);
        let sent = hex::DisplayHex::to_lower_hex_string(&writer[..]);
        assert_eq!(keyring.check(&sent, &[ACCOUNT_READ], 0, None), Err(AccessError::Foreign));
    }

    #[test]
    fn no_bytes_of_a_macaroon_panic() {
        let (keyring, entropy) = keyring();
        let good = keyring.bake(&ALL, &entropy);
        for end in 0..good.len() {
            let sent = hex::DisplayHex::to_lower_hex_string(&good[..end]);
            assert!(keyring.check(&sent, &[ACCOUNT_READ], 0, None).is_err(), "{end}");
        }
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 0x41;
            let sent = hex::DisplayHex::to_lower_hex_string(&changed[..]);
            // The place where it is used is not signed; everything else is.
            let location = (2..2 + LOCATION.len() + 1).contains(&place);
            assert!(location || keyring.check(&sent, &[ACCOUNT_READ], 0, None).is_err(), "{place}");
        }
    }

    #[test]
    fn conditions_hold_until_they_do_not() {
        let peer = Some("127.0.0.1".parse().expect("an address"));
        let holds = |text: &str, now| holds(text.as_bytes(), now, peer);
        // 2026-11-23T01:00:00Z
        let at = 1_795_395_600;
        assert_eq!(holds("time-before 2026-11-23T01:00:00.5Z", at - 1), Ok(()));
        assert_eq!(holds("time-before 2026-11-23T02:00:00+01:00", at - 1), Ok(()));
        assert!(matches!(holds("time-before 2026-11-23T01:00:00.5Z", at), Err(AccessError::Expired(_))));
        assert!(matches!(holds("time-before soon", at), Err(AccessError::UnknownCaveat(_))));
        assert_eq!(holds("ipaddr 127.0.0.1", at), Ok(()));
        assert!(matches!(holds("ipaddr 127.0.0.2", at), Err(AccessError::OtherAddress(_))));
        assert!(matches!(holds("lnd-custom x", at), Err(AccessError::UnknownCaveat(_))));
    }
}
