//! The two directions of the batch stream.

use crate::batch;
use crate::error::{DecodeError, EncodeError};
use crate::poolrpc::{self, client_auction_message, server_auction_message, subscribe_error};
use crate::read::{self, MAX_RAW_ID_BYTES};
use crate::recovery;
use tidegate_ports::{ClientMessage, ServerMessage, SubscribeErrorCode};
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{AccountKey, BatchId};

/// What a trader says.
///
/// # Source
/// Protocol notes, rpc §9 and §10.
pub fn to_client_message(message: &ClientMessage) -> poolrpc::ClientAuctionMessage {
    use client_auction_message::Msg;
    let msg = match message {
        ClientMessage::Commit { commit, version } => {
            Msg::Commit(poolrpc::AccountCommitment { commit_hash: commit.0.to_vec(), batch_version: version.0 })
        }
        ClientMessage::Subscribe { account, nonce, signature } => Msg::Subscribe(poolrpc::AccountSubscription {
            trader_key: account.serialize().to_vec(),
            commit_nonce: nonce.to_vec(),
            auth_sig: signature.clone(),
        }),
        ClientMessage::Accept { batch_id } => {
            Msg::Accept(poolrpc::OrderMatchAccept { batch_id: batch_id.serialize().to_vec() })
        }
        ClientMessage::Reject(reject) => Msg::Reject(batch::to_reject(reject)),
        ClientMessage::Sign(signatures) => Msg::Sign(batch::to_signatures(signatures)),
        ClientMessage::Recover { account } => {
            Msg::Recover(poolrpc::AccountRecovery { trader_key: account.serialize().to_vec() })
        }
    };
    poolrpc::ClientAuctionMessage { msg: Some(msg) }
}

/// What a trader says.
///
/// # Errors
/// [`DecodeError`].
pub fn from_client_message(message: poolrpc::ClientAuctionMessage) -> Result<ClientMessage, DecodeError> {
    use client_auction_message::Msg;
    match read::required("ClientAuctionMessage.msg", message.msg)? {
        Msg::Commit(commit) => Ok(ClientMessage::Commit {
            commit: read::fixed("AccountCommitment.commit_hash", &commit.commit_hash).map(CommitHash)?,
            version: BatchVersion(commit.batch_version),
        }),
        Msg::Subscribe(subscribe) => Ok(ClientMessage::Subscribe {
            account: read::key("AccountSubscription.trader_key", &subscribe.trader_key, AccountKey::from_slice)?,
            nonce: read::fixed("AccountSubscription.commit_nonce", &subscribe.commit_nonce)?,
            signature: read::signature("AccountSubscription.auth_sig", subscribe.auth_sig)?,
        }),
        Msg::Accept(accept) => Ok(ClientMessage::Accept {
            batch_id: read::key("OrderMatchAccept.batch_id", &accept.batch_id, BatchId::from_slice)?,
        }),
        Msg::Reject(reject) => batch::from_reject(reject).map(ClientMessage::Reject),
        Msg::Sign(sign) => batch::from_signatures(sign).map(ClientMessage::Sign),
        Msg::Recover(recover) => Ok(ClientMessage::Recover {
            account: read::key("AccountRecovery.trader_key", &recover.trader_key, AccountKey::from_slice)?,
        }),
    }
}

/// What a venue says.
///
/// # Errors
/// [`EncodeError`]: a malformed message exists only where it was received.
pub fn to_server_message(message: &ServerMessage) -> Result<poolrpc::ServerAuctionMessage, EncodeError> {
    use server_auction_message::Msg;
    let msg = match message {
        ServerMessage::Challenge { challenge, commit } => {
            Msg::Challenge(poolrpc::ServerChallenge { challenge: challenge.0.to_vec(), commit_hash: commit.0.to_vec() })
        }
        ServerMessage::Success { account } => {
            Msg::Success(poolrpc::SubscribeSuccess { trader_key: account.serialize().to_vec() })
        }
        ServerMessage::Error { account, code, message } => Msg::Error(poolrpc::SubscribeError {
            error: read::sentence(message),
            error_code: to_error_code(*code).into(),
            trader_key: account.map_or_else(Vec::new, |account| account.serialize().to_vec()),
            account_reservation: None,
        }),
        ServerMessage::Reserved { reservation, message } => Msg::Error(poolrpc::SubscribeError {
            error: read::sentence(message),
            error_code: subscribe_error::Error::IncompleteAccountReservation.into(),
            trader_key: reservation.reservation.trader.serialize().to_vec(),
            account_reservation: Some(recovery::to_reserved(reservation)),
        }),
        ServerMessage::Account(account) => Msg::Account(recovery::to_account(account)),
        ServerMessage::Prepare(prepare) => Msg::Prepare(batch::to_prepare(prepare)?),
        ServerMessage::Malformed { .. } => return Err(EncodeError::Malformed),
        ServerMessage::Sign(sign) => Msg::Sign(batch::to_sign_begin(sign)),
        ServerMessage::Finalize(finalize) => Msg::Finalize(batch::to_finalize(finalize)),
    };
    Ok(poolrpc::ServerAuctionMessage { msg: Some(msg) })
}

/// What a venue says. A prepare or sign message that does not parse becomes [`ServerMessage::Malformed`], since it
/// can and must be answered.
///
/// # Errors
/// [`DecodeError`] for all others.
pub fn from_server_message(message: poolrpc::ServerAuctionMessage) -> Result<ServerMessage, DecodeError> {
    use server_auction_message::Msg;
    match read::required("ServerAuctionMessage.msg", message.msg)? {
        Msg::Challenge(challenge) => Ok(ServerMessage::Challenge {
            challenge: read::fixed("ServerChallenge.challenge", &challenge.challenge).map(AuthChallenge)?,
            commit: read::fixed("ServerChallenge.commit_hash", &challenge.commit_hash).map(CommitHash)?,
        }),
        Msg::Success(success) => Ok(ServerMessage::Success {
            account: read::key("SubscribeSuccess.trader_key", &success.trader_key, AccountKey::from_slice)?,
        }),
        Msg::Error(error) => from_error(&error),
        Msg::Prepare(prepare) => {
            let id = raw_id(&prepare.batch_id);
            let parsed = batch::from_prepare(prepare).map(|prepare| ServerMessage::Prepare(Box::new(prepare)));
            Ok(parsed.unwrap_or_else(|error| malformed(id, &error)))
        }
        Msg::Sign(sign) => {
            let id = raw_id(&sign.batch_id);
            let parsed = batch::from_sign_begin(sign).map(|sign| ServerMessage::Sign(Box::new(sign)));
            Ok(parsed.unwrap_or_else(|error| malformed(id, &error)))
        }
        Msg::Finalize(finalize) => batch::from_finalize(finalize).map(ServerMessage::Finalize),
        Msg::Account(account) => recovery::from_account(&account).map(Box::new).map(ServerMessage::Account),
    }
}

fn malformed(batch_id: Vec<u8>, error: &DecodeError) -> ServerMessage {
    ServerMessage::Malformed { batch_id, reason: error.to_string() }
}

/// The id as sent, for the answer; cut when no id is that long.
fn raw_id(id: &[u8]) -> Vec<u8> {
    id.iter().copied().take(MAX_RAW_ID_BYTES).collect()
}

fn from_error(error: &poolrpc::SubscribeError) -> Result<ServerMessage, DecodeError> {
    use subscribe_error::Error as Wire;
    let code = match read::number("SubscribeError.error_code", error.error_code)? {
        Wire::Unknown => SubscribeErrorCode::Unknown,
        Wire::ServerShutdown => SubscribeErrorCode::ServerShutdown,
        Wire::AccountDoesNotExist => SubscribeErrorCode::AccountDoesNotExist,
        Wire::IncompleteAccountReservation => SubscribeErrorCode::IncompleteReservation,
    };
    if let (SubscribeErrorCode::IncompleteReservation, Some(reserved)) = (code, &error.account_reservation) {
        let reservation = Box::new(recovery::from_reserved(reserved)?);
        return Ok(ServerMessage::Reserved { reservation, message: read::sentence(&error.error) });
    }
    let account = match error.trader_key.as_slice() {
        [] => None,
        key => Some(read::key("SubscribeError.trader_key", key, AccountKey::from_slice)?),
    };
    Ok(ServerMessage::Error { account, code, message: read::sentence(&error.error) })
}

fn to_error_code(code: SubscribeErrorCode) -> subscribe_error::Error {
    match code {
        SubscribeErrorCode::Unknown => subscribe_error::Error::Unknown,
        SubscribeErrorCode::ServerShutdown => subscribe_error::Error::ServerShutdown,
        SubscribeErrorCode::AccountDoesNotExist => subscribe_error::Error::AccountDoesNotExist,
        SubscribeErrorCode::IncompleteReservation => subscribe_error::Error::IncompleteAccountReservation,
    }
}
