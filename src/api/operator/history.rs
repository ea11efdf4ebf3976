//! What changes of accounts cost, read from the labels of the wallet's transactions.

use super::service::{Operator, node_failed};
use serde::Deserialize;
use tidegate_ports::{TraderEnv, Wallet as _, WalletTransaction};
use tidegate_protocol::keys::AccountKey;
use tidegate_wire::poolrpc as rpc;
use tonic::Status;

/// Beginning of the labels that we write.
const TAG: &str = "poold -- ";

/// A label's content.
#[derive(Deserialize)]
struct Label {
    account: Note,
}

/// What it says of an account; what is not shown is not read.
#[derive(Deserialize)]
struct Note {
    key: String,
    action: String,
    output_index: usize,
    tx_fee: Option<i64>,
}

impl<E: TraderEnv> Operator<E> {
    pub(super) async fn modification_fees(&self) -> Result<rpc::AccountModificationFeesResponse, Status> {
        let transactions = self.env.wallet().wallet_transactions().await.map_err(node_failed)?;
        Ok(fees(&transactions))
    }
}

/// By account, oldest first. A label that does not parse is somebody else's and is passed over.
///
/// # Source
/// Protocol notes, accounts §9 and rpc §13.2.
fn fees(transactions: &[WalletTransaction]) -> rpc::AccountModificationFeesResponse {
    let mut response = rpc::AccountModificationFeesResponse::default();
    let mut ordered: Vec<&WalletTransaction> = transactions.iter().collect();
    ordered.sort_by_key(|known| (known.seen_s, known.height.map_or(u32::MAX, |height| height.get())));
    for known in ordered {
        let Some(note) = note(&known.label) else { continue };
        let fee = to_fee(known, &note);
        response.accounts.entry(note.key).or_default().modification_fees.push(fee);
    }
    response
}

fn note(label: &str) -> Option<Note> {
    let note = serde_json::from_str::<Label>(label.strip_prefix(TAG)?).ok()?.account;
    note.key.parse::<AccountKey>().ok()?;
    Some(note)
}

fn to_fee(known: &WalletTransaction, note: &Note) -> rpc::AccountModificationFee {
    use rpc::account_modification_fee::Fee;
    let output = known.transaction.output.get(note.output_index);
    rpc::AccountModificationFee {
        action: note.action.clone(),
        txid: known.transaction.compute_txid().to_string(),
        block_height: known.height.and_then(|height| i32::try_from(height.get()).ok()).unwrap_or(0),
        timestamp: i64::try_from(known.seen_s).unwrap_or(i64::MAX),
        output_amount: output.and_then(|output| i64::try_from(output.value.to_sat()).ok()).unwrap_or(0),
        fee: Some(note.tx_fee.map_or(Fee::FeeNull(true), Fee::FeeValue)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};
    use tidegate_protocol::units::BlockHeight;

    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn known(label: &str, seen_s: u64, height: Option<u32>) -> WalletTransaction {
        let output = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() };
        let transaction = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: vec![output(1_000), output(250_000)],
        };
        WalletTransaction { transaction, label: label.to_owned(), height: height.map(BlockHeight::new), seen_s }
    }

    fn label(action: &str, index: u32, fee: &str) -> String {
        format!(
            "poold -- {{\"account\":{{\"key\":\"{KEY}\",\"action\":\"{action}\",\"expiry_height\":5000,\
             \"output_index\":{index},\"expiry_spend\":false,\"tx_fee\":{fee},\"balance_diff\":-5}}}}"
        )
    }

    #[test]
    fn labels_of_the_wallet_become_the_history_of_accounts() {
        use rpc::account_modification_fee::Fee;
        let deposit = label("deposit", 1, "253");
        let transactions = [
            known(&deposit, 20, Some(7)),
            known(&label("create", 0, "null"), 10, None),
            known("0:openchannel:shortchanid-1", 1, Some(1)),
            known(&format!("mine {deposit}"), 2, Some(2)),
            known("poold -- {\"account\":{}}", 3, Some(3)),
            known(&deposit[..60], 4, Some(4)),
            known(&deposit.replace(KEY, "nobody"), 5, Some(5)),
            known(&label("withdraw", 9, "-1"), 30, Some(8)),
        ];
        let found = fees(&transactions);
        assert_eq!(found.accounts.keys().collect::<Vec<_>>(), [KEY]);
        let list = &found.accounts[KEY].modification_fees;
        let told: Vec<(&str, i32, i64, i64, Option<Fee>)> = list
            .iter()
            .map(|fee| (fee.action.as_str(), fee.block_height, fee.timestamp, fee.output_amount, fee.fee))
            .collect();
        let expected = [
            ("create", 0, 10, 1_000, Some(Fee::FeeNull(true))),
            ("deposit", 7, 20, 250_000, Some(Fee::FeeValue(253))),
            ("withdraw", 8, 30, 0, Some(Fee::FeeValue(-1))),
        ];
        assert_eq!(told, expected);
        assert_eq!(list[0].txid, transactions[0].transaction.compute_txid().to_string());
    }
}
