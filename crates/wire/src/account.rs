//! Accounts: reservation, announcement, cooperative spends.

use crate::error::DecodeError;
use crate::poolrpc;
use crate::read::{self, MAX_INPUTS};
use bitcoin::{OutPoint, ScriptBuf, TxOut};
use tidegate_ports::{InitAccount, ModifyAccount, ModifySignature, Reservation, ReservedKeys};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey};
use tidegate_protocol::units::BlockHeight;

/// The request for an account's keys.
///
/// # Source
/// Protocol notes, rpc §8.1.
pub fn to_reserve_request(reservation: &Reservation) -> poolrpc::ReserveAccountRequest {
    poolrpc::ReserveAccountRequest {
        account_value: reservation.value.get(),
        account_expiry: reservation.expiry.get(),
        trader_key: reservation.trader.serialize().to_vec(),
        version: read::account_version_number(reservation.version),
    }
}

/// What a trader wants to reserve.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning.
pub fn from_reserve_request(request: &poolrpc::ReserveAccountRequest) -> Result<Reservation, DecodeError> {
    Ok(Reservation {
        value: read::sats("ReserveAccountRequest.account_value", request.account_value)?,
        expiry: BlockHeight::new(request.account_expiry),
        trader: read::key("ReserveAccountRequest.trader_key", &request.trader_key, AccountKey::from_slice)?,
        version: read::account_version("ReserveAccountRequest.version", request.version)?,
    })
}

/// The keys of a reserved account.
pub fn to_reserve_response(keys: &ReservedKeys) -> poolrpc::ReserveAccountResponse {
    poolrpc::ReserveAccountResponse {
        auctioneer_key: keys.auctioneer.serialize().to_vec(),
        initial_batch_key: keys.batch.serialize().to_vec(),
    }
}

/// The keys of a reserved account.
///
/// # Errors
/// [`DecodeError`] when one of them is no point.
pub fn from_reserve_response(response: &poolrpc::ReserveAccountResponse) -> Result<ReservedKeys, DecodeError> {
    let (auctioneer, batch) = ("ReserveAccountResponse.auctioneer_key", "ReserveAccountResponse.initial_batch_key");
    Ok(ReservedKeys {
        auctioneer: read::key(auctioneer, &response.auctioneer_key, AuctioneerKey::from_slice)?,
        batch: read::key(batch, &response.initial_batch_key, BatchKey::from_slice)?,
    })
}

/// The announcement of a funded account.
///
/// # Source
/// Protocol notes, rpc §8.2.
pub fn to_init_request(init: &InitAccount, user_agent: &str) -> poolrpc::ServerInitAccountRequest {
    poolrpc::ServerInitAccountRequest {
        account_point: Some(read::to_outpoint(&init.outpoint)),
        account_script: init.script.to_bytes(),
        account_value: init.reservation.value.get(),
        account_expiry: init.reservation.expiry.get(),
        trader_key: init.reservation.trader.serialize().to_vec(),
        user_agent: user_agent.to_owned(),
        version: read::account_version_number(init.reservation.version),
    }
}

/// A funded account, and the user agent of its owner.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning.
pub fn from_init_request(request: poolrpc::ServerInitAccountRequest) -> Result<(InitAccount, String), DecodeError> {
    let reservation = Reservation {
        value: read::sats("ServerInitAccountRequest.account_value", request.account_value)?,
        expiry: BlockHeight::new(request.account_expiry),
        trader: read::key("ServerInitAccountRequest.trader_key", &request.trader_key, AccountKey::from_slice)?,
        version: read::account_version("ServerInitAccountRequest.version", request.version)?,
    };
    let init = InitAccount {
        reservation,
        outpoint: read::outpoint("ServerInitAccountRequest.account_point", request.account_point)?,
        script: read::script("ServerInitAccountRequest.account_script", request.account_script)?,
    };
    Ok((init, read::user_agent("ServerInitAccountRequest.user_agent", request.user_agent)?))
}

/// The request for the venue's half of a cooperative spend.
///
/// # Source
/// Protocol notes, rpc §8.3.
pub fn to_modify_request(modify: &ModifyAccount) -> poolrpc::ServerModifyAccountRequest {
    use poolrpc::server_modify_account_request::NewAccountParameters;
    let input = |(outpoint, script): &(OutPoint, ScriptBuf)| poolrpc::ServerInput {
        outpoint: Some(read::to_outpoint(outpoint)),
        sig_script: script.to_bytes(),
    };
    let output =
        |out: &TxOut| poolrpc::ServerOutput { value: out.value.to_sat(), script: out.script_pubkey.to_bytes() };
    poolrpc::ServerModifyAccountRequest {
        trader_key: modify.account.serialize().to_vec(),
        new_inputs: modify.new_inputs.iter().map(input).collect(),
        new_outputs: modify.new_outputs.iter().map(output).collect(),
        new_params: modify.new_params.map(|(value, expiry, version)| NewAccountParameters {
            value: value.get(),
            expiry: expiry.get(),
            version: read::account_version_number(version),
        }),
        trader_nonces: modify.trader_nonce.map_or_else(Vec::new, |nonce| nonce.0.to_vec()),
        prev_outputs: read::to_prev_outputs(&modify.prev_outputs),
    }
}

/// A cooperative spend that a trader wants. Zero among the new parameters means unchanged; it is passed on as it is.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning.
pub fn from_modify_request(request: poolrpc::ServerModifyAccountRequest) -> Result<ModifyAccount, DecodeError> {
    let (inputs, outputs) = ("ServerModifyAccountRequest.new_inputs", "ServerModifyAccountRequest.new_outputs");
    read::at_most(inputs, request.new_inputs.len(), MAX_INPUTS)?;
    read::at_most(outputs, request.new_outputs.len(), MAX_INPUTS)?;
    let input = |input: poolrpc::ServerInput| {
        Ok((read::outpoint(inputs, input.outpoint)?, read::script(inputs, input.sig_script)?))
    };
    let output = |out: poolrpc::ServerOutput| read::output(outputs, out.value, out.script);
    let new_params = match request.new_params {
        None => None,
        Some(new) => Some((
            read::sats("NewAccountParameters.value", new.value)?,
            BlockHeight::new(new.expiry),
            read::account_version("NewAccountParameters.version", new.version)?,
        )),
    };
    Ok(ModifyAccount {
        account: read::key("ServerModifyAccountRequest.trader_key", &request.trader_key, AccountKey::from_slice)?,
        new_inputs: request.new_inputs.into_iter().map(input).collect::<Result<_, DecodeError>>()?,
        new_outputs: request.new_outputs.into_iter().map(output).collect::<Result<_, _>>()?,
        new_params,
        trader_nonce: read::optional_nonce("ServerModifyAccountRequest.trader_nonces", &request.trader_nonces)?,
        prev_outputs: read::prev_outputs("ServerModifyAccountRequest.prev_outputs", request.prev_outputs)?,
    })
}

/// The venue's half of a cooperative spend.
pub fn to_modify_response(signature: &ModifySignature) -> poolrpc::ServerModifyAccountResponse {
    poolrpc::ServerModifyAccountResponse {
        account_sig: signature.signature.clone(),
        server_nonces: signature.server_nonce.map_or_else(Vec::new, |nonce| nonce.0.to_vec()),
    }
}

/// The venue's half of a cooperative spend.
///
/// # Errors
/// [`DecodeError`] when the nonces are no points, or the signature has a length that none has: with nonces it is a
/// partial signature of 32 bytes.
pub fn from_modify_response(response: poolrpc::ServerModifyAccountResponse) -> Result<ModifySignature, DecodeError> {
    let field = "ServerModifyAccountResponse.account_sig";
    let server_nonce = read::optional_nonce("ServerModifyAccountResponse.server_nonces", &response.server_nonces)?;
    let signature = match server_nonce {
        Some(_) => read::fixed::<32>(field, &response.account_sig)?.to_vec(),
        None => read::signature(field, response.account_sig)?,
    };
    if signature.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    Ok(ModifySignature { signature, server_nonce })
}
