//! The agent's ledger: computed from what the trader stored, compared with its accounts, and a reason to stop trading when
//! they do not agree.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tidegate_engine::ledger::{Difference, Ledger, LedgerError, Name, wallet_fees};
use tidegate_ports::{MovementKind, NodeError, Sequence, TraderEnv, Wallet as _};
use tidegate_protocol::bitcoin::Txid;
use tidegate_protocol::units::{Sats, SatsDelta};
use tidegate_trader::Status;

/// The ledger could not be made.
#[derive(Debug, Error)]
pub(crate) enum BooksError {
    /// The wallet does not tell its transactions, from which fees of fundings follow.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Amounts beyond all range.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The ledger and the accounts do not agree: nothing may be traded until a person knows why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Disagreement {
    /// An account's value is not what its transactions leave.
    #[error(
        "account {} holds {}, and its transactions leave {} (its output: {:?})",
        .0.account, .0.value, .0.ledger, .0.output
    )]
    Account(Difference),
    /// Money left, or came, since the start, and nothing that we know says where.
    #[error("{0} of an account moved since the start in a way that nothing explains: see the ledger's write-offs")]
    WrittenOff(SatsDelta),
}

/// The ledger of a running agent.
#[derive(Debug, Default)]
pub(crate) struct Books {
    ledger: Ledger,
    differences: Vec<Difference>,
    /// Fees of funding transactions, as far as the wallet tells.
    fees: BTreeMap<Txid, Sats>,
    /// Fundings about which the wallet was asked.
    asked: BTreeSet<Txid>,
    /// The commit that the ledger was made from.
    sequence: Option<Sequence>,
    /// Write-offs when the agent started: a person has seen them.
    accepted: Option<SatsDelta>,
}

impl Books {
    /// The ledger of what was last looked at.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Satoshi by which accounts and ledger differ; 0 unless something is wrong.
    pub(crate) fn difference_sats(&self) -> u64 {
        self.differences.iter().map(Difference::sats).fold(0, u64::saturating_add)
    }

    /// Makes the ledger anew when something was stored since.
    ///
    /// # Errors
    /// [`BooksError`]; the ledger stays as it was, and the next call tries again.
    pub(crate) async fn refresh<E: TraderEnv>(&mut self, env: &E, status: &Status) -> Result<(), BooksError> {
        if self.sequence == Some(status.sequence) {
            return Ok(());
        }
        let fundings = status.movements.iter().filter(|moved| moved.kind == MovementKind::Funding);
        let new: BTreeSet<Txid> = fundings.map(|moved| moved.txid).filter(|txid| !self.asked.contains(txid)).collect();
        if !new.is_empty() {
            let fees = wallet_fees(&env.wallet().wallet_transactions().await?);
            self.fees.extend(fees.into_iter().filter(|(txid, _)| new.contains(txid)));
            self.asked.extend(new);
        }
        self.ledger = Ledger::new(&status.movements, &status.accounts, &self.fees)?;
        self.differences = self.ledger.differences(&status.accounts);
        self.sequence = Some(status.sequence);
        Ok(())
    }

    /// Why nothing may be traded, if the ledger says so. What was written off before the first look is accepted: whoever
    /// started the agent was told.
    pub(crate) fn disagreement(&mut self) -> Option<Disagreement> {
        if let Some(difference) = self.differences.first() {
            return Some(Disagreement::Account(*difference));
        }
        self.sequence?;
        let now = self.ledger.balance(Name::WriteOffs);
        let accepted = *self.accepted.get_or_insert(now);
        let fresh = now.checked_sub(accepted).unwrap_or(now);
        (fresh != SatsDelta::ZERO).then_some(Disagreement::WrittenOff(fresh))
    }
}

/// The ledger as it is now, for whoever asks.
///
/// # Errors
/// [`BooksError`].
pub(crate) async fn read<E: TraderEnv>(env: &E, status: &Status) -> Result<Books, BooksError> {
    let mut books = Books::default();
    books.refresh(env, status).await?;
    Ok(books)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(write_offs: i64) -> Ledger {
        let text = format!(r#"{{"entries":[],"balances":[["write_offs",{write_offs}]]}}"#);
        serde_json::from_str(&text).expect("a ledger")
    }

    #[test]
    fn what_was_written_off_before_the_start_is_accepted_and_more_is_not() {
        let mut books = Books::default();
        assert_eq!(books.disagreement(), None, "nothing is known yet");
        books = Books { ledger: ledger(7), sequence: Some(Sequence(1)), ..books };
        assert_eq!(books.disagreement(), None);
        for (write_offs, fresh) in [(10, 3), (5, -2)] {
            books.ledger = ledger(write_offs);
            assert_eq!(books.disagreement(), Some(Disagreement::WrittenOff(SatsDelta::new(fresh))));
        }
        books.ledger = ledger(7);
        assert_eq!(books.disagreement(), None);
    }

    #[test]
    fn an_account_that_differs_is_a_reason_to_stop() {
        let point = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let account = point.parse().expect("the generator");
        let output = Some(Sats::constant(90));
        let difference = Difference { account, ledger: SatsDelta::new(100), value: Sats::constant(97), output };
        let mut books = Books { differences: vec![difference], ..Books::default() };
        assert_eq!((books.difference_sats(), books.disagreement()), (10, Some(Disagreement::Account(difference))));
        let sentence = Disagreement::Account(difference).to_string();
        assert!(sentence.contains("97 sat") && sentence.contains("100 sat"), "{sentence}");
    }
}
