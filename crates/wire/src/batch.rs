//! The messages of one batch: prepare, sign, finalize, and a trader's answers.

use crate::error::{DecodeError, EncodeError};
use crate::order::{Purpose, from_ask, from_bid, to_ask, to_bid};
use crate::poolrpc;
use crate::read::{self, MAX_ACCOUNTS, MAX_LIST, MAX_MATCHES, MAX_RAW_ID_BYTES, Points};
use bitcoin::hashes::Hash;
use std::collections::BTreeMap;
use tidegate_protocol::batch::{
    AccountDiff, AccountSignature, BatchSignatures, BatchVersion, ChannelInfo, EndingState, Finalize, Match,
    MatchRejectCode, MatchedMarket, Prepare, Reject, RejectReason, ReportedChannelType, SignBegin,
};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::musig2::PartialSignature;
use tidegate_protocol::order::OrderSide;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, UnitCount};

/// The market that the deprecated flat fields describe.
pub(crate) const LEGACY_DURATION: u32 = 2_016;

/// The proposal of a batch. The deprecated fields repeat the market of 2,016 blocks.
///
/// # Errors
/// [`EncodeError::OutputIndex`], [`EncodeError::MixedSides`].
///
/// # Source
/// Protocol notes, rpc §10.1.
#[allow(deprecated)] // old clients read the flat fields
pub fn to_prepare(prepare: &Prepare) -> Result<poolrpc::OrderMatchPrepare, EncodeError> {
    let mut matched_markets = BTreeMap::new();
    for (duration, market) in &prepare.markets {
        matched_markets.insert(duration.get(), to_market(market)?);
    }
    let legacy = matched_markets.get(&LEGACY_DURATION).cloned().unwrap_or_default();
    Ok(poolrpc::OrderMatchPrepare {
        matched_orders: legacy.matched_orders,
        clearing_price_rate: legacy.clearing_price_rate,
        charged_accounts: prepare.accounts.iter().map(to_diff).collect::<Result<_, _>>()?,
        execution_fee: Some(to_execution_fee(&prepare.execution_fee)),
        batch_transaction: bitcoin::consensus::serialize(&prepare.transaction),
        fee_rate_sat_per_kw: prepare.fee_rate.get(),
        fee_rebate_sat: 0,
        batch_id: prepare.batch_id.serialize().to_vec(),
        batch_version: prepare.batch_version.0,
        matched_markets,
        batch_height_hint: prepare.height_hint.get(),
    })
}

/// The proposal of a batch. The deprecated fields and the rebate are not looked at. What makes no sense but can be read
/// is the verifier's to judge: it knows what there is to lose, and whose fault it is.
///
/// # Errors
/// [`DecodeError`]; the batch is then answered with a reject that carries its raw id.
///
/// # Source
/// Protocol notes, batch §6.
pub fn from_prepare(prepare: poolrpc::OrderMatchPrepare) -> Result<Prepare, DecodeError> {
    let batch_id = read::key("OrderMatchPrepare.batch_id", &prepare.batch_id, BatchId::from_slice)?;
    let fee = read::required("OrderMatchPrepare.execution_fee", prepare.execution_fee)?;
    read::at_most("OrderMatchPrepare.matched_markets", prepare.matched_markets.len(), MAX_LIST)?;
    let matches: usize = prepare.matched_markets.values().map(count_matches).sum();
    read::at_most("OrderMatchPrepare.matched_markets", matches, MAX_MATCHES)?;
    let (mut markets, mut points) = (BTreeMap::new(), Points::default());
    for (duration, market) in prepare.matched_markets {
        let duration = BlockCount::new(duration);
        markets.insert(duration, from_market(duration, market, &mut points)?);
    }
    Ok(Prepare {
        batch_id,
        batch_version: BatchVersion(prepare.batch_version),
        height_hint: BlockHeight::new(prepare.batch_height_hint),
        fee_rate: SatPerKw::new(prepare.fee_rate_sat_per_kw),
        execution_fee: from_execution_fee(&fee)?,
        transaction: read::transaction("OrderMatchPrepare.batch_transaction", &prepare.batch_transaction)?,
        markets,
        accounts: from_diffs(&prepare.charged_accounts)?,
    })
}

/// Matches in a market, an own order without any counted as one: it costs memory too.
fn count_matches(market: &poolrpc::MatchedMarket) -> usize {
    let of = |order: &poolrpc::MatchedOrder| (order.matched_asks.len() + order.matched_bids.len()).max(1);
    market.matched_orders.values().map(of).sum()
}

fn to_market(market: &MatchedMarket) -> Result<poolrpc::MatchedMarket, EncodeError> {
    let mut matched_orders = BTreeMap::new();
    for (own, matches) in &market.orders {
        matched_orders.insert(own.to_hex(), to_matches(*own, matches)?);
    }
    Ok(poolrpc::MatchedMarket { matched_orders, clearing_price_rate: market.clearing_price.get() })
}

fn to_matches(own: OrderNonce, matches: &[Match]) -> Result<poolrpc::MatchedOrder, EncodeError> {
    let mut wire = poolrpc::MatchedOrder::default();
    for matched in matches {
        let units_filled = matched.units.get();
        match &matched.order.order.side {
            OrderSide::Ask(terms) => {
                let ask = Some(to_ask(&matched.order, terms));
                wire.matched_asks.push(poolrpc::MatchedAsk { ask, units_filled });
            }
            OrderSide::Bid(terms) => {
                let bid = Some(to_bid(&matched.order, terms));
                wire.matched_bids.push(poolrpc::MatchedBid { bid, units_filled });
            }
        }
    }
    if !wire.matched_asks.is_empty() && !wire.matched_bids.is_empty() {
        return Err(EncodeError::MixedSides(own.to_hex()));
    }
    Ok(wire)
}

fn from_market(
    duration: BlockCount,
    market: poolrpc::MatchedMarket,
    points: &mut Points,
) -> Result<MatchedMarket, DecodeError> {
    let mut orders = BTreeMap::new();
    for (own, matched) in market.matched_orders {
        let own = read::nonce_map_key("MatchedMarket.matched_orders", &own)?;
        orders.insert(own, from_matches(duration, matched, points)?);
    }
    Ok(MatchedMarket { clearing_price: RatePerBillion::new(market.clearing_price_rate), orders })
}

fn from_matches(
    duration: BlockCount,
    matched: poolrpc::MatchedOrder,
    points: &mut Points,
) -> Result<Vec<Match>, DecodeError> {
    match (matched.matched_asks.is_empty(), matched.matched_bids.is_empty()) {
        (true, true) => return Err(DecodeError::Missing { field: "MatchedOrder.matched_bids" }),
        (false, false) => {
            return Err(DecodeError::Contradiction {
                field: "MatchedOrder.matched_asks",
                expected: "either asks or bids".to_owned(),
                found: "both".to_owned(),
            });
        }
        (true, false) | (false, true) => {}
    }
    let mut matches = Vec::with_capacity(matched.matched_asks.len() + matched.matched_bids.len());
    for wire in matched.matched_asks {
        let order = from_ask(read::required("MatchedAsk.ask", wire.ask)?, Purpose::Match, points)?;
        if order.addresses.is_empty() {
            return Err(DecodeError::Missing { field: "ServerOrder.node_addr" });
        }
        matches.push(Match { order, units: UnitCount::new(wire.units_filled) });
    }
    for wire in matched.matched_bids {
        let order = from_bid(read::required("MatchedBid.bid", wire.bid)?, Purpose::Match, points)?;
        matches.push(Match { order, units: UnitCount::new(wire.units_filled) });
    }
    match matches.iter().find(|matched| matched.order.order.duration != duration) {
        None => Ok(matches),
        Some(other) => Err(DecodeError::Contradiction {
            field: "MatchedMarket.lease_duration_blocks",
            expected: duration.to_string(),
            found: other.order.order.duration.to_string(),
        }),
    }
}

fn to_diff(diff: &AccountDiff) -> Result<poolrpc::AccountDiff, EncodeError> {
    use poolrpc::account_diff::AccountState as Wire;
    let ending_state = match diff.ending_state {
        EndingState::Recreated => Wire::OutputRecreated,
        EndingState::DustExtendedOffchain => Wire::OutputDustExtendedOffchain,
        EndingState::DustAddedToFees => Wire::OutputDustAddedToFees,
        EndingState::FullySpent => Wire::OutputFullySpent,
    };
    let outpoint_index = match diff.output_index {
        Some(index) => i32::try_from(index).map_err(|_| EncodeError::OutputIndex(index))?,
        None => -1,
    };
    Ok(poolrpc::AccountDiff {
        ending_balance: diff.ending_balance.get(),
        ending_state: ending_state.into(),
        outpoint_index,
        trader_key: diff.account.serialize().to_vec(),
        new_expiry: diff.new_expiry.map_or(0, BlockHeight::get),
        new_version: diff.new_version,
    })
}

fn from_diffs(diffs: &[poolrpc::AccountDiff]) -> Result<Vec<AccountDiff>, DecodeError> {
    read::at_most("OrderMatchPrepare.charged_accounts", diffs.len(), MAX_ACCOUNTS)?;
    diffs.iter().map(from_diff).collect()
}

fn from_diff(diff: &poolrpc::AccountDiff) -> Result<AccountDiff, DecodeError> {
    use poolrpc::account_diff::AccountState as Wire;
    let ending_state = match read::number("AccountDiff.ending_state", diff.ending_state)? {
        Wire::OutputRecreated => EndingState::Recreated,
        Wire::OutputDustExtendedOffchain => EndingState::DustExtendedOffchain,
        Wire::OutputDustAddedToFees => EndingState::DustAddedToFees,
        Wire::OutputFullySpent => EndingState::FullySpent,
    };
    Ok(AccountDiff {
        account: read::key("AccountDiff.trader_key", &diff.trader_key, AccountKey::from_slice)?,
        ending_balance: read::sats("AccountDiff.ending_balance", diff.ending_balance)?,
        ending_state,
        output_index: u32::try_from(diff.outpoint_index).ok(),
        new_expiry: (diff.new_expiry != 0).then_some(BlockHeight::new(diff.new_expiry)),
        new_version: diff.new_version,
    })
}

pub(crate) fn to_execution_fee(fee: &ExecutionFee) -> poolrpc::ExecutionFee {
    poolrpc::ExecutionFee { base_fee: fee.base.get(), fee_rate: fee.rate_ppm }
}

pub(crate) fn from_execution_fee(fee: &poolrpc::ExecutionFee) -> Result<ExecutionFee, DecodeError> {
    Ok(ExecutionFee { base: read::sats("ExecutionFee.base_fee", fee.base_fee)?, rate_ppm: fee.fee_rate })
}

/// The request to sign.
///
/// # Source
/// Protocol notes, rpc §10.5.
pub fn to_sign_begin(sign: &SignBegin) -> poolrpc::OrderMatchSignBegin {
    let nonces = sign.server_nonces.iter().map(|(account, nonce)| (account.to_string(), nonce.0.to_vec()));
    poolrpc::OrderMatchSignBegin {
        batch_id: sign.batch_id.clone(),
        server_nonces: nonces.collect(),
        prev_outputs: read::to_prev_outputs(&sign.prev_outputs),
    }
}

/// The request to sign.
///
/// # Errors
/// [`DecodeError`]; the batch is then answered with a reject.
///
/// # Source
/// Protocol notes, batch §8.
pub fn from_sign_begin(sign: poolrpc::OrderMatchSignBegin) -> Result<SignBegin, DecodeError> {
    let field = "OrderMatchSignBegin.server_nonces";
    read::at_most("OrderMatchSignBegin.batch_id", sign.batch_id.len(), MAX_RAW_ID_BYTES)?;
    read::at_most(field, sign.server_nonces.len(), MAX_ACCOUNTS)?;
    let mut server_nonces = BTreeMap::new();
    for (account, nonce) in &sign.server_nonces {
        server_nonces.insert(read::account_map_key(field, account)?, read::nonce(field, nonce)?);
    }
    Ok(SignBegin {
        batch_id: sign.batch_id,
        server_nonces,
        prev_outputs: read::prev_outputs("OrderMatchSignBegin.prev_outputs", sign.prev_outputs)?,
    })
}

/// The word that a batch is final.
pub fn to_finalize(finalize: &Finalize) -> poolrpc::OrderMatchFinalize {
    poolrpc::OrderMatchFinalize {
        batch_id: finalize.batch_id.clone(),
        batch_txid: finalize.txid.to_byte_array().to_vec(),
    }
}

/// The word that a batch is final. Its id is kept raw: whether it names a batch is judged by who waits for one.
///
/// # Errors
/// [`DecodeError`] when the transaction's name is not one, or the id is absurdly long.
pub fn from_finalize(finalize: poolrpc::OrderMatchFinalize) -> Result<Finalize, DecodeError> {
    read::at_most("OrderMatchFinalize.batch_id", finalize.batch_id.len(), MAX_RAW_ID_BYTES)?;
    let txid = read::txid("OrderMatchFinalize.batch_txid", &finalize.batch_txid)?;
    Ok(Finalize { batch_id: finalize.batch_id, txid })
}

/// A trader's signatures and channel reports.
///
/// # Source
/// Protocol notes, rpc §10.5.
pub fn to_signatures(signatures: &BatchSignatures) -> poolrpc::OrderMatchSign {
    let mut wire = poolrpc::OrderMatchSign { batch_id: signatures.batch_id.serialize().to_vec(), ..Default::default() };
    for (account, signature) in &signatures.accounts {
        let key = account.to_string();
        match signature {
            AccountSignature::Ecdsa(der) => wire.account_sigs.insert(key, der.clone()),
            AccountSignature::Musig2 { partial, nonce } => {
                wire.trader_nonces.insert(key.clone(), nonce.0.to_vec());
                wire.account_sigs.insert(key, partial.0.to_vec())
            }
        };
    }
    let infos = signatures.channels.iter().map(|(channel, info)| (channel.to_string(), to_channel_info(info)));
    wire.channel_infos = infos.collect();
    wire
}

/// A trader's signatures and channel reports. A signature that comes with nonces is a partial one.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning, or for nonces without a signature.
pub fn from_signatures(sign: poolrpc::OrderMatchSign) -> Result<BatchSignatures, DecodeError> {
    let (sigs, nonces) = ("OrderMatchSign.account_sigs", "OrderMatchSign.trader_nonces");
    let infos = "OrderMatchSign.channel_infos";
    let batch_id = read::key("OrderMatchSign.batch_id", &sign.batch_id, BatchId::from_slice)?;
    read::at_most(sigs, sign.account_sigs.len(), MAX_ACCOUNTS)?;
    read::at_most(nonces, sign.trader_nonces.len(), MAX_ACCOUNTS)?;
    read::at_most(infos, sign.channel_infos.len(), MAX_MATCHES)?;
    if let Some(alone) = sign.trader_nonces.keys().find(|key| !sign.account_sigs.contains_key(*key)) {
        read::account_map_key(nonces, alone)?;
        return Err(DecodeError::Missing { field: sigs });
    }
    let mut accounts = BTreeMap::new();
    for (key, bytes) in sign.account_sigs {
        let account = read::account_map_key(sigs, &key)?;
        let signature = match sign.trader_nonces.get(&key) {
            Some(nonce) => AccountSignature::Musig2 {
                partial: PartialSignature(read::fixed(sigs, &bytes)?),
                nonce: read::nonce(nonces, nonce)?,
            },
            None => AccountSignature::Ecdsa(read::signature(sigs, bytes)?),
        };
        accounts.insert(account, signature);
    }
    let mut channels = BTreeMap::new();
    for (key, info) in &sign.channel_infos {
        channels.insert(read::outpoint_map_key(infos, key)?, from_channel_info(info)?);
    }
    Ok(BatchSignatures { batch_id, accounts, channels })
}

fn to_channel_info(info: &ChannelInfo) -> poolrpc::ChannelInfo {
    let channel_type = match info.channel_type {
        ReportedChannelType::Tweakless => poolrpc::ChannelType::Tweakless,
        ReportedChannelType::Anchors => poolrpc::ChannelType::Anchors,
        ReportedChannelType::ScriptEnforcedLease => poolrpc::ChannelType::ScriptEnforcedLease,
        ReportedChannelType::SimpleTaproot => poolrpc::ChannelType::SimpleTaproot,
    };
    poolrpc::ChannelInfo {
        r#type: channel_type.into(),
        local_node_key: info.local_node.serialize().to_vec(),
        remote_node_key: info.remote_node.serialize().to_vec(),
        local_payment_base_point: info.local_payment_point.serialize().to_vec(),
        remote_payment_base_point: info.remote_payment_point.serialize().to_vec(),
    }
}

fn from_channel_info(info: &poolrpc::ChannelInfo) -> Result<ChannelInfo, DecodeError> {
    let channel_type = match read::number("ChannelInfo.type", info.r#type)? {
        poolrpc::ChannelType::Tweakless => ReportedChannelType::Tweakless,
        poolrpc::ChannelType::Anchors => ReportedChannelType::Anchors,
        poolrpc::ChannelType::ScriptEnforcedLease => ReportedChannelType::ScriptEnforcedLease,
        poolrpc::ChannelType::SimpleTaproot => ReportedChannelType::SimpleTaproot,
    };
    let (local, remote) = ("ChannelInfo.local_payment_base_point", "ChannelInfo.remote_payment_base_point");
    Ok(ChannelInfo {
        channel_type,
        local_node: read::key("ChannelInfo.local_node_key", &info.local_node_key, NodeId::from_slice)?,
        remote_node: read::key("ChannelInfo.remote_node_key", &info.remote_node_key, NodeId::from_slice)?,
        local_payment_point: read::point(local, &info.local_payment_base_point)?,
        remote_payment_point: read::point(remote, &info.remote_payment_base_point)?,
    })
}

/// A trader's refusal of a batch.
///
/// # Source
/// Protocol notes, rpc §10.7.
pub fn to_reject(reject: &Reject) -> poolrpc::OrderMatchReject {
    use poolrpc::order_match_reject::RejectReason as Wire;
    let mut rejected_orders = BTreeMap::new();
    let code = match &reject.reason {
        RejectReason::Unknown => Wire::Unknown,
        RejectReason::ServerMisbehavior => Wire::ServerMisbehavior,
        RejectReason::BatchVersionMismatch => Wire::BatchVersionMismatch,
        RejectReason::Partial(orders) => {
            let wire = orders.iter().map(|(nonce, (code, why))| (nonce.to_hex(), to_order_reject(*code, why)));
            rejected_orders = wire.collect();
            Wire::PartialReject
        }
    };
    poolrpc::OrderMatchReject {
        batch_id: reject.batch_id.clone(),
        reason: read::sentence(&reject.message),
        reason_code: code.into(),
        rejected_orders,
    }
}

fn to_order_reject(code: MatchRejectCode, why: &str) -> poolrpc::OrderReject {
    use poolrpc::order_reject::OrderRejectReason as Wire;
    let code = match code {
        MatchRejectCode::DuplicatePeer => Wire::DuplicatePeer,
        MatchRejectCode::ChannelFundingFailed => Wire::ChannelFundingFailed,
    };
    poolrpc::OrderReject { reason: read::sentence(why), reason_code: code.into() }
}

/// A trader's refusal of a batch. Sentences are cut to [`crate::MAX_SENTENCE_BYTES`].
///
/// # Errors
/// [`DecodeError`] for an unknown code, or for single matches in a refusal of the whole.
pub fn from_reject(reject: poolrpc::OrderMatchReject) -> Result<Reject, DecodeError> {
    use poolrpc::order_match_reject::RejectReason as Wire;
    let field = "OrderMatchReject.rejected_orders";
    read::at_most("OrderMatchReject.batch_id", reject.batch_id.len(), MAX_RAW_ID_BYTES)?;
    read::at_most(field, reject.rejected_orders.len(), MAX_MATCHES)?;
    let code = read::number("OrderMatchReject.reason_code", reject.reason_code)?;
    if code != Wire::PartialReject && !reject.rejected_orders.is_empty() {
        return Err(DecodeError::Contradiction {
            field,
            expected: "none in a refusal of the whole batch".to_owned(),
            found: reject.rejected_orders.len().to_string(),
        });
    }
    let reason = match code {
        Wire::Unknown => RejectReason::Unknown,
        Wire::ServerMisbehavior => RejectReason::ServerMisbehavior,
        Wire::BatchVersionMismatch => RejectReason::BatchVersionMismatch,
        Wire::PartialReject => {
            let mut orders = BTreeMap::new();
            for (nonce, order) in &reject.rejected_orders {
                orders.insert(read::nonce_map_key(field, nonce)?, from_order_reject(order)?);
            }
            RejectReason::Partial(orders)
        }
    };
    Ok(Reject { batch_id: reject.batch_id, message: read::sentence(&reject.reason), reason })
}

fn from_order_reject(reject: &poolrpc::OrderReject) -> Result<(MatchRejectCode, String), DecodeError> {
    use poolrpc::order_reject::OrderRejectReason as Wire;
    let code = match read::number("OrderReject.reason_code", reject.reason_code)? {
        Wire::DuplicatePeer => MatchRejectCode::DuplicatePeer,
        Wire::ChannelFundingFailed => MatchRejectCode::ChannelFundingFailed,
    };
    Ok((code, read::sentence(&reject.reason)))
}
