//! lnd's on-chain wallet.

use super::LndNode;
use super::convert::{self, array, cut, outpoint_of_bytes, sats, transaction, tx_out, unsendable};
use super::error::{bad_answer, refused_with};
use super::permissions::{
    BUMP_FEE, ESTIMATE_FEE, ESTIMATE_PAYMENT, FINALIZE_PSBT, FUND_PSBT, GET_TRANSACTIONS, NEXT_ADDR,
    PUBLISH_TRANSACTION, RELEASE_OUTPUT, SEND_OUTPUTS, WALLET_BALANCE,
};
use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use bitcoin::psbt::Psbt;
use bitcoin::{Address, OutPoint, ScriptBuf, Transaction, TxOut};
use hex::FromHex;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_ports::{AddressKind, Bump, CoinLock, FundedPsbt, NodeError, Wallet, WalletTransaction};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};
use tidegate_wire::lnd::lnrpc::{
    self, EstimateFeeRequest as EstimatePaymentRequest, GetTransactionsRequest, WalletBalanceRequest,
};
use tidegate_wire::lnd::walletrpc::{
    AddrRequest, AddressType, BumpFeeRequest, EstimateFeeRequest, FinalizePsbtRequest, FundPsbtRequest,
    FundPsbtResponse, ReleaseOutputRequest, SendOutputsRequest, Transaction as PublishRequest, UtxoLease,
    fund_psbt_request,
};

/// lnd refuses longer labels.
const LABEL_BYTES: usize = 500;
/// Coin selection and publishing wait for the chain backend.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
/// lnd's estimator takes targets of 2 to 1008 blocks.
const CONF_TARGETS: (u32, u32) = (2, 1008);
/// What lnd says of an output that its wallet does not own.
///
/// # Source
/// Protocol notes, accounts §8.
const NOT_OURS: [&str; 2] =
    ["the passed output doesn't belong to the wallet", "the passed output does not belong to the wallet"];
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
        for known in self.transactions().await? {
            let found = raw_transaction(&known)?;
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

    async fn estimate_payment(&self, output: &TxOut, conf_target: u32) -> Result<Sats, NodeError> {
        let link = &self.inner.link;
        let address = Address::from_script(&output.script_pubkey, self.inner.network)
            .map_err(|error| unsendable(ESTIMATE_PAYMENT, error))?;
        let value = i64::try_from(output.value.to_sat())
            .map_err(|_| unsendable(ESTIMATE_PAYMENT, "an output above 63 bits"))?;
        let blocks = conf_target.clamp(CONF_TARGETS.0, CONF_TARGETS.1);
        let request = EstimatePaymentRequest {
            addr_to_amount: BTreeMap::from([(address.to_string(), value)]),
            target_conf: i32::try_from(blocks).expect("at most 1008"),
            ..EstimatePaymentRequest::default()
        };
        let answer = link.ask(ESTIMATE_PAYMENT, link.lightning().estimate_fee(request)).await?;
        sats(ESTIMATE_PAYMENT, answer.fee_sat)
    }

    async fn fund_psbt(&self, template: &Psbt, sat_per_vbyte: u64) -> Result<FundedPsbt, NodeError> {
        let link = &self.inner.link;
        let request = FundPsbtRequest {
            template: Some(fund_psbt_request::Template::Psbt(template.serialize())),
            fees: Some(fund_psbt_request::Fees::SatPerVbyte(sat_per_vbyte)),
            min_confs: 1,
            ..FundPsbtRequest::default()
        };
        funded(link.ask_within(SEND_TIMEOUT, FUND_PSBT, link.wallet().fund_psbt(request)).await?)
    }

    async fn release(&self, lock: &CoinLock) -> Result<(), NodeError> {
        let link = &self.inner.link;
        let request = ReleaseOutputRequest { id: lock.id.to_vec(), outpoint: Some(wire_outpoint(&lock.outpoint)) };
        match link.ask(RELEASE_OUTPUT, link.wallet().release_output(request)).await {
            // Spent meanwhile: there is nothing to let go of.
            Err(error) if refused_with(&error, "unknown output") => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    async fn finalize_psbt(&self, psbt: &Psbt) -> Result<Transaction, NodeError> {
        let link = &self.inner.link;
        let request = FinalizePsbtRequest { funded_psbt: psbt.serialize(), ..FinalizePsbtRequest::default() };
        let answer = link.ask_within(SEND_TIMEOUT, FINALIZE_PSBT, link.wallet().finalize_psbt(request)).await?;
        let signed = transaction(FINALIZE_PSBT, &answer.raw_final_tx)?;
        if signed.compute_txid() == psbt.unsigned_tx.compute_txid() {
            return Ok(signed);
        }
        // A nested segwit input gets its script signature only now, which is part of the name.
        let same_inputs = signed.input.iter().map(|input| input.previous_output).eq(psbt
            .unsigned_tx
            .input
            .iter()
            .map(|input| input.previous_output));
        if same_inputs && signed.output == psbt.unsigned_tx.output {
            return Ok(signed);
        }
        Err(bad_answer(FINALIZE_PSBT, format!("it signed another transaction: {}", signed.compute_txid())))
    }

    async fn bump_fee(&self, outpoint: OutPoint, sat_per_vbyte: u64) -> Result<Bump, NodeError> {
        let link = &self.inner.link;
        let request =
            BumpFeeRequest { outpoint: Some(wire_outpoint(&outpoint)), sat_per_vbyte, ..BumpFeeRequest::default() };
        match link.ask(BUMP_FEE, link.wallet().bump_fee(request)).await {
            Ok(_) => Ok(Bump::Bumped),
            Err(error) if NOT_OURS.iter().any(|text| refused_with(&error, text)) => Ok(Bump::NotOurs),
            Err(error) => Err(error),
        }
    }

    async fn wallet_transactions(&self) -> Result<Vec<WalletTransaction>, NodeError> {
        self.transactions().await?.iter().map(wallet_transaction).collect()
    }
}

impl LndNode {
    async fn transactions(&self) -> Result<Vec<lnrpc::Transaction>, NodeError> {
        let link = &self.inner.link;
        // An end of -1 includes what is unconfirmed.
        let request = GetTransactionsRequest { end_height: -1, ..GetTransactionsRequest::default() };
        let mut lightning = link.lightning();
        let answer = link.ask_within(SEND_TIMEOUT, GET_TRANSACTIONS, lightning.get_transactions(request)).await?;
        Ok(answer.transactions)
    }
}

fn raw_transaction(known: &lnrpc::Transaction) -> Result<Transaction, NodeError> {
    let bytes = Vec::<u8>::from_hex(&known.raw_tx_hex).map_err(|error| bad_answer(GET_TRANSACTIONS, error))?;
    transaction(GET_TRANSACTIONS, &bytes)
}

fn wallet_transaction(known: &lnrpc::Transaction) -> Result<WalletTransaction, NodeError> {
    // Zero or negative: not in a block.
    let height = u32::try_from(known.block_height).ok().filter(|height| *height > 0).map(BlockHeight::new);
    Ok(WalletTransaction {
        transaction: raw_transaction(known)?,
        label: known.label.clone(),
        height,
        seen_s: u64::try_from(known.time_stamp).unwrap_or(0),
    })
}

fn wire_outpoint(outpoint: &OutPoint) -> lnrpc::OutPoint {
    lnrpc::OutPoint {
        txid_bytes: outpoint.txid.to_byte_array().to_vec(),
        output_index: outpoint.vout,
        ..lnrpc::OutPoint::default()
    }
}

fn funded(answer: FundPsbtResponse) -> Result<FundedPsbt, NodeError> {
    let psbt = Psbt::deserialize(&answer.funded_psbt).map_err(|error| bad_answer(FUND_PSBT, error))?;
    let change = usize::try_from(answer.change_output_index).ok();
    if change.is_some_and(|index| index >= psbt.outputs.len()) {
        return Err(bad_answer(FUND_PSBT, "a change output that does not exist"));
    }
    let lock = |lease: UtxoLease| {
        let id = array(FUND_PSBT, "a lock's name", &lease.id)?;
        let outpoint = lease.outpoint.ok_or_else(|| bad_answer(FUND_PSBT, "a lock without its coin"))?;
        let outpoint = outpoint_of_bytes(FUND_PSBT, &outpoint.txid_bytes, outpoint.output_index)?;
        Ok(CoinLock { id, outpoint })
    };
    let locks = answer.locked_utxos.into_iter().map(lock).collect::<Result<_, NodeError>>()?;
    Ok(FundedPsbt { psbt, change, locks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, Sequence, TxIn, Witness};

    fn template() -> Psbt {
        let outpoint = OutPoint { txid: bitcoin::Txid::from_byte_array([9; 32]), vout: 3 };
        let input = TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        };
        let output = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() };
        Psbt::from_unsigned_tx(Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![input],
            output: vec![output(1_000), output(2_000)],
        })
        .expect("it is not signed")
    }

    fn answer(change: i32) -> FundPsbtResponse {
        let outpoint = lnrpc::OutPoint { txid_bytes: vec![9; 32], output_index: 3, ..lnrpc::OutPoint::default() };
        let lease = UtxoLease { id: vec![5; 32], outpoint: Some(outpoint), ..UtxoLease::default() };
        FundPsbtResponse { funded_psbt: template().serialize(), change_output_index: change, locked_utxos: vec![lease] }
    }

    #[test]
    fn a_funded_template_names_its_change_and_its_locks() {
        let found = funded(answer(1)).expect("complete");
        assert_eq!((found.psbt, found.change), (template(), Some(1)));
        let outpoint = template().unsigned_tx.input[0].previous_output;
        assert_eq!(found.locks, [CoinLock { id: [5; 32], outpoint }]);
        assert_eq!(funded(answer(-1)).expect("without change").change, None);
    }

    #[test]
    fn a_funded_template_that_makes_no_sense_is_refused() {
        let mut nameless = answer(1);
        nameless.locked_utxos[0].id.pop();
        let mut coinless = answer(1);
        coinless.locked_utxos[0].outpoint = None;
        let mut garbage = answer(1);
        garbage.funded_psbt.truncate(20);
        for bad in [answer(2), nameless, coinless, garbage] {
            assert!(matches!(funded(bad), Err(NodeError::BadAnswer { call: FUND_PSBT, .. })));
        }
    }

    #[test]
    fn a_template_without_inputs_survives_the_wire() {
        let mut empty = template().unsigned_tx;
        empty.input.clear();
        let empty = Psbt::from_unsigned_tx(empty).expect("it is not signed");
        assert_eq!(Psbt::deserialize(&empty.serialize()).expect("ours"), empty);
    }

    #[test]
    fn transactions_of_the_wallet_keep_label_height_and_time() {
        let raw = encode::serialize_hex(&template().unsigned_tx);
        let known = lnrpc::Transaction {
            raw_tx_hex: raw,
            label: "poold -- {}".to_owned(),
            block_height: 7,
            time_stamp: 1_700_000_000,
            ..lnrpc::Transaction::default()
        };
        let found = wallet_transaction(&known).expect("a transaction");
        assert_eq!((found.height, found.seen_s), (Some(BlockHeight::new(7)), 1_700_000_000));
        assert_eq!((found.label.as_str(), found.transaction), ("poold -- {}", template().unsigned_tx));
        for height in [0, -1] {
            let unconfirmed = lnrpc::Transaction { block_height: height, ..known.clone() };
            assert_eq!(wallet_transaction(&unconfirmed).expect("a transaction").height, None);
        }
        let broken = lnrpc::Transaction { raw_tx_hex: "zz".to_owned(), ..known };
        assert!(wallet_transaction(&broken).is_err());
    }
}
