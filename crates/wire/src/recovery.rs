//! What a venue tells the owner of an account that lost its own state.
//!
//! # Source
//! Protocol notes, rpc §9.3.

use crate::error::DecodeError;
use crate::poolrpc::{self, AuctionAccountState as Wire};
use crate::read;
use bitcoin::consensus::encode::serialize;
use tidegate_ports::{RecoveredAccount, RecoveredState, Reservation, ReservedAccount, ReservedKeys};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey};
use tidegate_protocol::units::BlockHeight;

/// An account as its owner is told.
pub(crate) fn to_account(account: &RecoveredAccount) -> poolrpc::AuctionAccount {
    let RecoveredAccount { reservation, keys, state, height_hint, outpoint, latest_tx } = account;
    poolrpc::AuctionAccount {
        value: reservation.value.get(),
        expiry: reservation.expiry.get(),
        trader_key: reservation.trader.serialize().to_vec(),
        auctioneer_key: keys.auctioneer.serialize().to_vec(),
        batch_key: keys.batch.serialize().to_vec(),
        state: to_state(*state).into(),
        height_hint: height_hint.get(),
        outpoint: Some(read::to_outpoint(outpoint)),
        latest_tx: latest_tx.as_ref().map_or_else(Vec::new, serialize),
        version: read::account_version_number(reservation.version),
    }
}

/// An account as its owner is told. States that are not known mean closed.
pub(crate) fn from_account(account: &poolrpc::AuctionAccount) -> Result<RecoveredAccount, DecodeError> {
    let reservation = Reservation {
        value: read::sats("AuctionAccount.value", account.value)?,
        expiry: BlockHeight::new(account.expiry),
        trader: read::key("AuctionAccount.trader_key", &account.trader_key, AccountKey::from_slice)?,
        version: read::account_version("AuctionAccount.version", account.version)?,
    };
    let keys = ReservedKeys {
        auctioneer: read::key("AuctionAccount.auctioneer_key", &account.auctioneer_key, AuctioneerKey::from_slice)?,
        batch: read::key("AuctionAccount.batch_key", &account.batch_key, BatchKey::from_slice)?,
    };
    let latest_tx = match account.latest_tx.as_slice() {
        [] => None,
        bytes => Some(read::transaction("AuctionAccount.latest_tx", bytes)?),
    };
    Ok(RecoveredAccount {
        reservation,
        keys,
        state: from_state(account.state),
        height_hint: BlockHeight::new(account.height_hint),
        outpoint: read::outpoint("AuctionAccount.outpoint", account.outpoint.clone())?,
        latest_tx,
    })
}

fn to_state(state: RecoveredState) -> Wire {
    match state {
        RecoveredState::PendingOpen => Wire::StatePendingOpen,
        RecoveredState::Open => Wire::StateOpen,
        RecoveredState::Expired => Wire::StateExpired,
        RecoveredState::PendingUpdate => Wire::StatePendingUpdate,
        RecoveredState::Closed => Wire::StateClosed,
        RecoveredState::PendingBatch => Wire::StatePendingBatch,
        RecoveredState::ExpiredPendingUpdate => Wire::StateExpiredPendingUpdate,
    }
}

fn from_state(state: i32) -> RecoveredState {
    match Wire::try_from(state) {
        Ok(Wire::StatePendingOpen) => RecoveredState::PendingOpen,
        Ok(Wire::StateOpen) => RecoveredState::Open,
        Ok(Wire::StateExpired) => RecoveredState::Expired,
        Ok(Wire::StatePendingUpdate) => RecoveredState::PendingUpdate,
        Ok(Wire::StateClosed) | Err(_) => RecoveredState::Closed,
        Ok(Wire::StatePendingBatch) => RecoveredState::PendingBatch,
        Ok(Wire::StateExpiredPendingUpdate) => RecoveredState::ExpiredPendingUpdate,
    }
}

/// An uncompleted reservation as its owner is told.
pub(crate) fn to_reserved(reserved: &ReservedAccount) -> poolrpc::AuctionAccount {
    let ReservedAccount { reservation, keys, height_hint } = reserved;
    poolrpc::AuctionAccount {
        value: reservation.value.get(),
        expiry: reservation.expiry.get(),
        trader_key: reservation.trader.serialize().to_vec(),
        auctioneer_key: keys.auctioneer.serialize().to_vec(),
        batch_key: keys.batch.serialize().to_vec(),
        height_hint: height_hint.get(),
        version: read::account_version_number(reservation.version),
        ..poolrpc::AuctionAccount::default()
    }
}

/// An uncompleted reservation as its owner is told.
pub(crate) fn from_reserved(reserved: &poolrpc::AuctionAccount) -> Result<ReservedAccount, DecodeError> {
    Ok(ReservedAccount {
        reservation: Reservation {
            value: read::sats("AuctionAccount.value", reserved.value)?,
            expiry: BlockHeight::new(reserved.expiry),
            trader: read::key("AuctionAccount.trader_key", &reserved.trader_key, AccountKey::from_slice)?,
            version: read::account_version("AuctionAccount.version", reserved.version)?,
        },
        keys: ReservedKeys {
            auctioneer: read::key(
                "AuctionAccount.auctioneer_key",
                &reserved.auctioneer_key,
                AuctioneerKey::from_slice,
            )?,
            batch: read::key("AuctionAccount.batch_key", &reserved.batch_key, BatchKey::from_slice)?,
        },
        height_hint: BlockHeight::new(reserved.height_hint),
    })
}
