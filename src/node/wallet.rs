//! lnd's on-chain wallet.

use super::LndNode;
use super::convert::{self, cut, sats, transaction, tx_out, unsendable};
use super::error::{bad_answer, refused_with};
use super::permissions::{
    ESTIMATE_FEE, GET_TRANSACTIONS, NEXT_ADDR, PUBLISH_TRANSACTION, SEND_OUTPUTS, WALLET_BALANCE,
};
use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode;
use bitcoin::{Address, OutPoint, ScriptBuf, Transaction, TxOut};
use hex::FromHex;
use std::time::Duration;
use tidegate_ports::{AddressKind, NodeError, Wallet};
use tidegate_protocol::units::{SatPerKw, Sats};
use tidegate_wire::lnd::lnrpc::{GetTransactionsRequest, WalletBalanceRequest};
use tidegate_wire::lnd::walletrpc::{
    AddrRequest, AddressType, EstimateFeeRequest, SendOutputsRequest, Transaction as PublishRequest,
};

/// lnd refuses longer labels.
const LABEL_BYTES: usize = 500;
/// Coin selection and publishing wait for the chain backend.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// lnd's estimator takes targets of 2 to 1008 blocks.
const CONF_TARGETS: (u32, u32) = (2, 1008);
/// What backends say of a transaction that they have already.
const KNOWN: [&str; 5] =
    ["already in mempool", "already known", "already have transaction", "already exists", "already confirmed"];

impl Wallet for LndNode {
    async fn send_outputs(&self, outputs: &[TxOut], fee_rate: SatPerKw, label: &str) -> Result<Transaction, NodeError> {
        let link = &self.inner.link;
        let rate =
            i64::try_from(fee_rate.get()).map_err(|_| unsendable(SEND_OUTPUTS, "the fee rate exceeds 63 bits"))?;
        let request = SendOutputsRequest {
            sat_per_kw: rate,
            outputs: outputs.iter().map(|output| tx_out(SEND_OUTPUTS, output)).collect::<Result<_, _>>()?,
            label: cut(label, LABEL_BYTES).to_owned(),
            min_confs: 1,
            ..SendOutputsRequest::default()
        };
        let answer = link.ask_within(SEND_TIMEOUT, SEND_OUTPUTS, link.wallet().send_outputs(request)).await?;
        let sent = transaction(SEND_OUTPUTS, &answer.raw_tx)?;
        match outputs.iter().find(|output| !sent.output.contains(output)) {
            None => Ok(sent),
            Some(output) => Err(bad_answer(
                SEND_OUTPUTS,
                format!("the transaction {} does not pay {output:?}", sent.compute_txid()),
            )),
        }
    }

    async fn find_payment(&self, output: &TxOut) -> Result<Option<(Transaction, OutPoint)>, NodeError> {
        let link = &self.inner.link;
        // An end of -1 includes what is unconfirmed.
        let request = GetTransactionsRequest { end_height: -1, ..GetTransactionsRequest::default() };
        let answer =
            link.ask_within(SEND_TIMEOUT, GET_TRANSACTIONS, link.lightning().get_transactions(request)).await?;
        for known in answer.transactions {
            let bytes = Vec::<u8>::from_hex(&known.raw_tx_hex).map_err(|error| bad_answer(GET_TRANSACTIONS, error))?;
            let found = transaction(GET_TRANSACTIONS, &bytes)?;
            let Some(index) = found.output.iter().position(|candidate| candidate == output) else { continue };
            let vout = u32::try_from(index).map_err(|_| bad_answer(GET_TRANSACTIONS, "an output beyond 32 bits"))?;
            let outpoint = OutPoint { txid: found.compute_txid(), vout };
            return Ok(Some((found, outpoint)));
        }
        Ok(None)
    }

    async fn new_address(&self, kind: AddressKind) -> Result<ScriptBuf, NodeError> {
        let link = &self.inner.link;
        let r#type = match kind {
            AddressKind::WitnessPubkeyHash => AddressType::WitnessPubkeyHash,
            AddressKind::Taproot => AddressType::TaprootPubkey,
        };
        let request = AddrRequest { r#type: r#type.into(), ..AddrRequest::default() };
        let answer = link.ask(NEXT_ADDR, link.wallet().next_addr(request)).await?;
        let address: Address<NetworkUnchecked> = answer.addr.parse().map_err(|error| bad_answer(NEXT_ADDR, error))?;
        let address = address.require_network(self.inner.network).map_err(|error| bad_answer(NEXT_ADDR, error))?;
        let script = address.script_pubkey();
        let fits = match kind {
            AddressKind::WitnessPubkeyHash => script.is_p2wpkh(),
            AddressKind::Taproot => script.is_p2tr(),
        };
        if fits { Ok(script) } else { Err(bad_answer(NEXT_ADDR, format!("{address} is not of kind {kind:?}"))) }
    }

    async fn confirmed_balance(&self) -> Result<Sats, NodeError> {
        let link = &self.inner.link;
        let answer = link.ask(WALLET_BALANCE, link.lightning().wallet_balance(WalletBalanceRequest::default())).await?;
        sats(WALLET_BALANCE, answer.confirmed_balance)
    }

    async fn publish(&self, transaction: &Transaction, label: &str) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let request =
            PublishRequest { tx_hex: encode::serialize(transaction), label: cut(label, LABEL_BYTES).to_owned() };
        let answer = link.ask(PUBLISH_TRANSACTION, link.wallet().publish_transaction(request)).await;
        let answer = answer.and_then(|answer| match answer.publish_error {
            error if error.is_empty() => Ok(()),
            reason => Err(convert::unsendable(PUBLISH_TRANSACTION, reason)),
        });
        match answer {
            Err(error) if KNOWN.iter().any(|text| refused_with(&error, text)) => Ok(()),
            answer => answer,
        }
    }

    async fn estimate_fee(&self, conf_target: u32) -> Result<SatPerKw, NodeError> {
        let link = &self.inner.link;
        let blocks = conf_target.clamp(CONF_TARGETS.0, CONF_TARGETS.1);
        let conf_target = i32::try_from(blocks).expect("at most 1008");
        let answer = link.ask(ESTIMATE_FEE, link.wallet().estimate_fee(EstimateFeeRequest { conf_target })).await?;
        let rate = u64::try_from(answer.sat_per_kw).map_err(|_| bad_answer(ESTIMATE_FEE, "a negative fee rate"))?;
        Ok(SatPerKw::new(rate).max(SatPerKw::FLOOR))
    }
}
