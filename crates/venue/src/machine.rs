//! States of an account as the venue sees it, as a table.

use serde::{Deserialize, Serialize};

/// State of an account at the venue. Numbers are the persisted and wire ones.
///
/// # Source
/// Protocol notes, auctioneer §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum VenueAccountState {
    /// Announced, waiting for confirmations.
    PendingOpen = 0,
    /// A change by the owner is unconfirmed.
    PendingUpdate = 1,
    /// Confirmed.
    Open = 2,
    /// The expiry height was reached.
    Expired = 3,
    /// Spent for good.
    Closed = 4,
    /// Recreated by a batch that is unconfirmed.
    PendingBatch = 5,
    /// The expiry height was reached while a change was unconfirmed.
    ExpiredPendingUpdate = 6,
}

impl VenueAccountState {
    /// Every state.
    pub const ALL: [VenueAccountState; 7] = [
        VenueAccountState::PendingOpen,
        VenueAccountState::PendingUpdate,
        VenueAccountState::Open,
        VenueAccountState::Expired,
        VenueAccountState::Closed,
        VenueAccountState::PendingBatch,
        VenueAccountState::ExpiredPendingUpdate,
    ];

    /// The owner may submit orders.
    pub fn may_submit(self) -> bool {
        use VenueAccountState as S;
        match self {
            S::PendingUpdate | S::Open | S::PendingBatch => true,
            S::PendingOpen | S::Expired | S::Closed | S::ExpiredPendingUpdate => false,
        }
    }

    /// Its orders may be matched. An unconfirmed change by the owner may hold foreign inputs, so it may not.
    pub fn may_match(self) -> bool {
        use VenueAccountState as S;
        match self {
            S::Open | S::PendingBatch => true,
            S::PendingOpen | S::PendingUpdate | S::Expired | S::Closed | S::ExpiredPendingUpdate => false,
        }
    }

    /// Its current output is not yet confirmed.
    pub fn awaits_confirmation(self) -> bool {
        use VenueAccountState as S;
        match self {
            S::PendingOpen | S::PendingUpdate | S::PendingBatch | S::ExpiredPendingUpdate => true,
            S::Open | S::Expired | S::Closed => false,
        }
    }
}

/// Something that happens to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountEvent {
    /// The current output has its confirmations.
    Confirmed,
    /// The chain reached the expiry height.
    ExpiryReached,
    /// A batch that recreates it was committed.
    BatchRecreated,
    /// A batch that uses it up was committed.
    BatchSpent,
    /// A change by the owner, agreed before, was seen on the chain.
    UpdateSeen,
    /// The current output was spent without a successor.
    SpentForGood,
}

impl AccountEvent {
    /// Every event.
    pub const ALL: [AccountEvent; 6] = [
        AccountEvent::Confirmed,
        AccountEvent::ExpiryReached,
        AccountEvent::BatchRecreated,
        AccountEvent::BatchSpent,
        AccountEvent::UpdateSeen,
        AccountEvent::SpentForGood,
    ];
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The account is in this state now.
    To(VenueAccountState),
    /// Nothing changes, for this reason.
    Stay(&'static str),
    /// The event must not happen in this state: nothing may be stored.
    Illegal,
}

/// The table.
///
/// # Source
/// Protocol notes, auctioneer §4.2, §4.5 and §4.6.
pub fn next(state: VenueAccountState, event: AccountEvent) -> Transition {
    use AccountEvent as E;
    use Transition::{Illegal, Stay, To};
    use VenueAccountState as S;
    match (state, event) {
        (S::PendingOpen, E::Confirmed) => To(S::Open),
        (S::PendingOpen, E::ExpiryReached) => Stay("expiry is looked at again when it confirms"),
        (S::PendingOpen, E::SpentForGood) => To(S::Closed),
        (S::PendingOpen, E::BatchRecreated | E::BatchSpent | E::UpdateSeen) => Illegal,

        (S::PendingUpdate, E::Confirmed) => To(S::Open),
        (S::PendingUpdate, E::ExpiryReached) => To(S::ExpiredPendingUpdate),
        (S::PendingUpdate, E::UpdateSeen) => To(S::PendingUpdate),
        (S::PendingUpdate, E::SpentForGood) => To(S::Closed),
        (S::PendingUpdate, E::BatchRecreated | E::BatchSpent) => Illegal,

        (S::Open, E::Confirmed) => Stay("open already"),
        (S::Open, E::ExpiryReached) => To(S::Expired),
        (S::Open, E::BatchRecreated) => To(S::PendingBatch),
        (S::Open, E::BatchSpent | E::SpentForGood) => To(S::Closed),
        (S::Open, E::UpdateSeen) => To(S::PendingUpdate),

        (S::Expired, E::Confirmed) => Stay("confirmed already"),
        (S::Expired, E::ExpiryReached) => Stay("expired already"),
        (S::Expired, E::UpdateSeen) => To(S::PendingUpdate),
        (S::Expired, E::SpentForGood) => To(S::Closed),
        (S::Expired, E::BatchRecreated | E::BatchSpent) => Illegal,

        (S::Closed, E::Confirmed | E::ExpiryReached | E::SpentForGood) => Stay("closed already"),
        (S::Closed, E::BatchRecreated | E::BatchSpent | E::UpdateSeen) => Illegal,

        (S::PendingBatch, E::Confirmed) => To(S::Open),
        (S::PendingBatch, E::ExpiryReached) => To(S::ExpiredPendingUpdate),
        (S::PendingBatch, E::BatchRecreated) => To(S::PendingBatch),
        (S::PendingBatch, E::BatchSpent | E::SpentForGood) => To(S::Closed),
        (S::PendingBatch, E::UpdateSeen) => To(S::PendingUpdate),

        (S::ExpiredPendingUpdate, E::Confirmed) => To(S::Expired),
        (S::ExpiredPendingUpdate, E::ExpiryReached) => Stay("expired already"),
        (S::ExpiredPendingUpdate, E::UpdateSeen) => To(S::PendingUpdate),
        (S::ExpiredPendingUpdate, E::SpentForGood) => To(S::Closed),
        (S::ExpiredPendingUpdate, E::BatchRecreated | E::BatchSpent) => Illegal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: state. Columns: confirmed, expiry, batch recreated, batch spent, update seen, spent.
    const TABLE: &str = "
        PendingOpen          | Open    | -                    | x            | x      | x             | Closed
        PendingUpdate        | Open    | ExpiredPendingUpdate | x            | x      | PendingUpdate | Closed
        Open                 | -       | Expired              | PendingBatch | Closed | PendingUpdate | Closed
        Expired              | -       | -                    | x            | x      | PendingUpdate | Closed
        Closed               | -       | -                    | x            | x      | x             | -
        PendingBatch         | Open    | ExpiredPendingUpdate | PendingBatch | Closed | PendingUpdate | Closed
        ExpiredPendingUpdate | Expired | -                    | x            | x      | PendingUpdate | Closed
    ";

    #[test]
    fn every_pair_of_state_and_event_is_as_in_the_table() {
        let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.len(), VenueAccountState::ALL.len());
        for (state, row) in VenueAccountState::ALL.into_iter().zip(rows) {
            assert_eq!(row[0], format!("{state:?}"));
            for (event, expected) in AccountEvent::ALL.into_iter().zip(&row[1..]) {
                let found = match next(state, event) {
                    Transition::To(to) => format!("{to:?}"),
                    Transition::Stay(_) => "-".to_owned(),
                    Transition::Illegal => "x".to_owned(),
                };
                assert_eq!(found, **expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn every_state_but_closed_has_a_way_out() {
        for state in VenueAccountState::ALL {
            let leaves = AccountEvent::ALL
                .into_iter()
                .any(|event| matches!(next(state, event), Transition::To(to) if to != state));
            assert_eq!(leaves, state != VenueAccountState::Closed, "{state:?}");
        }
    }
}
