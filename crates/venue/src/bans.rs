//! Bans of accounts and nodes, in blocks.
//!
//! A banned account takes no orders and no changes, and is not matched; a banned node is not matched. Running leases are
//! not touched, and the owner leaves alone after the account's expiry.
//!
//! # Source
//! Protocol notes, auctioneer §17.

use crate::actor::Actor;
use crate::book::{BanRecord, Write};
use crate::error::{Halt, ServeError};
use tidegate_ports::VenueEnv;
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::units::{BlockCount, BlockHeight};
use tracing::warn;

/// Length of a first ban.
const FIRST: BlockCount = BlockCount::new(144);
/// No ban is longer: a year.
const LONGEST: BlockCount = BlockCount::new(52_560);

/// Who is banned: the key, as an account or as a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Banned {
    /// An account.
    Account(AccountKey),
    /// A node.
    Node(NodeId),
}

/// A ban in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub who: Banned,
    /// First height at which it is over.
    pub until: BlockHeight,
    /// How many bans the offender had, this one included.
    pub count: u32,
}

impl core::fmt::Display for Banned {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Banned::Account(key) => write!(f, "account/{key}"),
            Banned::Node(key) => write!(f, "node/{key}"),
        }
    }
}

impl BanRecord {
    /// The next ban of the same offender: each is twice as long as the one before, whether that has ended or not.
    pub(crate) fn next(who: Banned, before: Option<&BanRecord>, height: BlockHeight) -> BanRecord {
        let length =
            before.map_or(FIRST, |before| BlockCount::new(before.length.get().saturating_mul(2)).clamp(FIRST, LONGEST));
        BanRecord { who, start: height, length, count: before.map_or(1, |before| before.count.saturating_add(1)) }
    }

    /// First height at which it does not count any more.
    pub(crate) fn end(&self) -> BlockHeight {
        self.start.checked_add(self.length).unwrap_or(BlockHeight::new(u32::MAX))
    }
}

impl<E: VenueEnv> Actor<'_, E> {
    /// The rows of bans, each twice as long as the offender's last one.
    pub(crate) fn ban_writes(&self, offenders: &[Banned], reason: &'static str) -> Vec<Write> {
        let ban = |who: &Banned| {
            let record = BanRecord::next(*who, self.book.bans.get(who), self.height);
            warn!(%who, until = %record.end(), times = record.count, reason, "banned");
            Write::Ban(record)
        };
        offenders.iter().map(ban).collect()
    }

    /// Bans; twice as long as the last time.
    pub(crate) async fn ban(&mut self, offenders: &[Banned], reason: &'static str) -> Result<(), Halt> {
        let writes = self.ban_writes(offenders, reason);
        if !writes.is_empty() {
            self.commit(writes).await?;
        }
        Ok(())
    }

    /// First height at which this one is not banned any more, when it is.
    pub(crate) fn banned_until(&self, who: Banned) -> Option<BlockHeight> {
        self.book.bans.get(&who).map(BanRecord::end).filter(|end| self.height < *end)
    }

    pub(crate) fn check_ban(&self, account: AccountKey) -> Result<(), ServeError> {
        match self.banned_until(Banned::Account(account)) {
            Some(until) => Err(ServeError::Banned { account, until }),
            None => Ok(()),
        }
    }

    /// The bans in force.
    pub(crate) fn bans(&self) -> Vec<Ban> {
        let running = self.book.bans.values().filter(|record| self.height < record.end());
        running.map(|record| Ban { who: record.who, until: record.end(), count: record.count }).collect()
    }

    /// The operator's own ban of an account or a node, of this length; none lifts it. The history stays.
    pub(crate) async fn set_ban(&mut self, who: Banned, length: Option<BlockCount>) -> Result<(), ServeError> {
        match who {
            Banned::Account(account) if !self.book.accounts.contains_key(&account) => {
                return Err(ServeError::NoAccount(account));
            }
            Banned::Account(_) | Banned::Node(_) => {}
        }
        let before = self.book.bans.get(&who);
        let count = before.map_or(0, |before| before.count);
        let record = match (length, before) {
            (Some(length), _) => BanRecord { who, start: self.height, length, count: count.saturating_add(1) },
            // Over at once, yet remembered.
            (None, Some(before)) => BanRecord { start: BlockHeight::new(0), length: before.length, ..before.clone() },
            (None, None) => return Ok(()),
        };
        warn!(%who, until = %record.end(), "ban set by the operator");
        self.commit(vec![Write::Ban(record)]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_double_also_long_after_the_last_one_ended() {
        let who = Banned::Account(crate::tests::orders::submitted(1, true).order.account);
        let mut last = None;
        let mut lengths = Vec::new();
        for height in [1000, 1001, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000, 800_000, 900_000] {
            let ban = BanRecord::next(who, last.as_ref(), BlockHeight::new(height));
            assert_eq!(ban.end().get(), height + ban.length.get());
            lengths.push(ban.length.get());
            last = Some(ban);
        }
        assert_eq!(lengths, [144, 288, 576, 1152, 2304, 4608, 9216, 18_432, 36_864, 52_560, 52_560]);
    }
}
