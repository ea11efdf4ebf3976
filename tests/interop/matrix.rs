//! Which leases are tried on real nodes: a pairwise table, and what is impossible with the reason.
//!
//! The twelve rows of [`TABLE`] hold every possible pair of values at least once, and each seller-buyer pair with each
//! account version on both sides. A plain run trades them. With `TIDEGATE_INTEROP=all` every seller-buyer pair trades
//! the settings of all twelve rows.

use std::collections::BTreeSet;

use crate::pool::AccountVersion::{self, V0, V1, V2};
use crate::trade::Program;

/// Type of the channel that both orders ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChannelKind {
    /// Whatever the two nodes agree on; these nodes agree on anchors.
    PeerDependent,
    ScriptEnforced,
    SimpleTaproot,
}

/// Whether the channel is told to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Visibility {
    Announced,
    Unannounced,
}

/// Whether the channel waits for its funding transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timing {
    Confirmed,
    ZeroConf,
}

/// Which market the orders are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Market {
    Inbound,
    Outbound,
}

/// Whether the buyer has coins in the channel from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SelfBalance {
    None,
    Some,
}

/// Everything about a lease but who plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setting {
    pub(crate) seller_version: AccountVersion,
    pub(crate) buyer_version: AccountVersion,
    pub(crate) channel: ChannelKind,
    pub(crate) visibility: Visibility,
    pub(crate) timing: Timing,
    pub(crate) market: Market,
    pub(crate) own: SelfBalance,
}

/// The programs of a group of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pairing {
    pub(crate) seller: Program,
    pub(crate) buyer: Program,
}

/// Pairs of values that no lease can have. Each with the reason.
const IMPOSSIBLE: [(Value, Value, &str); 3] = [
    (
        Value::Channel(ChannelKind::SimpleTaproot),
        Value::Visibility(Visibility::Announced),
        "nodes can not announce taproot channels: the order is refused",
    ),
    (
        Value::Channel(ChannelKind::PeerDependent),
        Value::Timing(Timing::ZeroConf),
        "a bid for a zero-conf channel must ask for an anchor type: script enforced or simple taproot",
    ),
    (
        Value::Market(Market::Outbound),
        Value::Own(SelfBalance::None),
        "in the outbound market the buyer's balance is what is traded; the order is refused without it",
    ),
];

const fn setting(
    versions: (AccountVersion, AccountVersion),
    channel: ChannelKind,
    visibility: Visibility,
    timing: Timing,
    (market, own): (Market, SelfBalance),
) -> Setting {
    Setting { seller_version: versions.0, buyer_version: versions.1, channel, visibility, timing, market, own }
}

const IN: (Market, SelfBalance) = (Market::Inbound, SelfBalance::None);
const IN_OWN: (Market, SelfBalance) = (Market::Inbound, SelfBalance::Some);
const OUT: (Market, SelfBalance) = (Market::Outbound, SelfBalance::Some);

/// The pairings, in the order of the table.
pub(crate) const PAIRINGS: [Pairing; 4] = [
    Pairing { seller: Program::Poold, buyer: Program::Poold },
    Pairing { seller: Program::Poold, buyer: Program::Agent },
    Pairing { seller: Program::Agent, buyer: Program::Poold },
    Pairing { seller: Program::Agent, buyer: Program::Agent },
];

/// Three rows for each of [`PAIRINGS`].
pub(crate) const TABLE: [[Setting; 3]; 4] = {
    use ChannelKind::{PeerDependent, ScriptEnforced, SimpleTaproot};
    use Timing::{Confirmed, ZeroConf};
    use Visibility::{Announced, Unannounced};
    [
        [
            setting((V0, V0), ScriptEnforced, Unannounced, ZeroConf, IN),
            setting((V1, V1), ScriptEnforced, Announced, ZeroConf, IN),
            setting((V2, V2), SimpleTaproot, Unannounced, ZeroConf, OUT),
        ],
        [
            setting((V0, V1), SimpleTaproot, Unannounced, Confirmed, IN),
            setting((V1, V2), PeerDependent, Announced, Confirmed, IN),
            setting((V2, V0), ScriptEnforced, Announced, Confirmed, OUT),
        ],
        [
            setting((V0, V2), PeerDependent, Unannounced, Confirmed, OUT),
            setting((V1, V0), PeerDependent, Announced, Confirmed, IN),
            setting((V2, V1), PeerDependent, Unannounced, Confirmed, IN),
        ],
        [
            setting((V0, V2), ScriptEnforced, Announced, ZeroConf, IN_OWN),
            setting((V1, V1), SimpleTaproot, Unannounced, ZeroConf, OUT),
            setting((V2, V0), SimpleTaproot, Unannounced, Confirmed, IN),
        ],
    ]
};

/// The settings that a pairing trades in this run.
pub(crate) fn settings_of(pairing: Pairing, all: bool) -> Vec<Setting> {
    let own = PAIRINGS.iter().zip(TABLE).filter(|(one, _)| **one == pairing).flat_map(|(_, rows)| rows);
    let others = PAIRINGS.iter().zip(TABLE).filter(|(one, _)| all && **one != pairing).flat_map(|(_, rows)| rows);
    let mut unique = Vec::new();
    for setting in own.chain(others) {
        if !unique.contains(&setting) {
            unique.push(setting);
        }
    }
    unique
}

impl Setting {
    /// One line for a person.
    pub(crate) fn describe(&self) -> String {
        let Self { seller_version, buyer_version, channel, visibility, timing, market, own } = self;
        let words = [
            format!("account versions {} and {}", seller_version.index(), buyer_version.index()),
            match channel {
                ChannelKind::PeerDependent => "default channel",
                ChannelKind::ScriptEnforced => "script enforced",
                ChannelKind::SimpleTaproot => "simple taproot",
            }
            .to_owned(),
            match visibility {
                Visibility::Announced => "announced",
                Visibility::Unannounced => "unannounced",
            }
            .to_owned(),
            match timing {
                Timing::Confirmed => "confirmed",
                Timing::ZeroConf => "zero-conf",
            }
            .to_owned(),
            match market {
                Market::Inbound => "inbound",
                Market::Outbound => "outbound",
            }
            .to_owned(),
            match own {
                SelfBalance::None => "no self balance",
                SelfBalance::Some => "self balance",
            }
            .to_owned(),
        ];
        words.join(", ")
    }
}

/// A value of one of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Seller(Program),
    Buyer(Program),
    SellerVersion(AccountVersion),
    BuyerVersion(AccountVersion),
    Channel(ChannelKind),
    Visibility(Visibility),
    Timing(Timing),
    Market(Market),
    Own(SelfBalance),
}

/// Every column with all its values.
fn columns() -> [Vec<Value>; 9] {
    let programs = [Program::Poold, Program::Agent];
    [
        programs.map(Value::Seller).to_vec(),
        programs.map(Value::Buyer).to_vec(),
        AccountVersion::ALL.map(Value::SellerVersion).to_vec(),
        AccountVersion::ALL.map(Value::BuyerVersion).to_vec(),
        [ChannelKind::PeerDependent, ChannelKind::ScriptEnforced, ChannelKind::SimpleTaproot]
            .map(Value::Channel)
            .to_vec(),
        [Visibility::Announced, Visibility::Unannounced].map(Value::Visibility).to_vec(),
        [Timing::Confirmed, Timing::ZeroConf].map(Value::Timing).to_vec(),
        [Market::Inbound, Market::Outbound].map(Value::Market).to_vec(),
        [SelfBalance::None, SelfBalance::Some].map(Value::Own).to_vec(),
    ]
}

fn values(pairing: Pairing, setting: &Setting) -> [Value; 9] {
    [
        Value::Seller(pairing.seller),
        Value::Buyer(pairing.buyer),
        Value::SellerVersion(setting.seller_version),
        Value::BuyerVersion(setting.buyer_version),
        Value::Channel(setting.channel),
        Value::Visibility(setting.visibility),
        Value::Timing(setting.timing),
        Value::Market(setting.market),
        Value::Own(setting.own),
    ]
}

fn rows() -> impl Iterator<Item = [Value; 9]> {
    let pairings = PAIRINGS.iter().zip(TABLE);
    pairings.flat_map(|(pairing, rows)| rows.map(|setting| values(*pairing, &setting)))
}

/// Reasons for what the table leaves out, for the report.
pub(crate) fn impossible() -> impl Iterator<Item = String> {
    IMPOSSIBLE.iter().map(|(one, other, reason)| format!("{one:?} with {other:?}: {reason}"))
}

#[test]
fn matrix_holds_every_possible_pair_of_values() {
    let mut found = BTreeSet::new();
    for row in rows() {
        for (at, one) in row.iter().enumerate() {
            found.extend(row[at + 1..].iter().map(|other| (*one, *other)));
        }
    }
    let columns = columns();
    let mut expected = BTreeSet::new();
    for (at, column) in columns.iter().enumerate() {
        for other in &columns[at + 1..] {
            expected.extend(column.iter().flat_map(|one| other.iter().map(|two| (*one, *two))));
        }
    }
    for (one, other, _) in IMPOSSIBLE {
        assert!(expected.remove(&(one, other)), "no such pair of columns: {one:?}, {other:?}");
    }
    assert_eq!(found, expected);
}

#[test]
fn matrix_holds_every_pairing_with_every_account_version_of_either_side() {
    for (pairing, rows) in PAIRINGS.iter().zip(TABLE) {
        let sold: BTreeSet<_> = rows.iter().map(|row| row.seller_version).collect();
        let bought: BTreeSet<_> = rows.iter().map(|row| row.buyer_version).collect();
        let all = BTreeSet::from(AccountVersion::ALL);
        assert_eq!((&sold, &bought), (&all, &all), "{pairing:?}");
    }
}

#[test]
fn matrix_in_full_is_every_pairing_with_every_setting() {
    let settings: BTreeSet<Setting> = TABLE.into_iter().flatten().collect();
    for pairing in PAIRINGS {
        let traded = settings_of(pairing, true);
        assert_eq!(traded.len(), settings.len());
        assert_eq!(traded.into_iter().collect::<BTreeSet<_>>(), settings);
        assert_eq!(settings_of(pairing, false).len(), 3);
    }
}
