//! What the node's wallet notes beside a transaction of an account, so that its history can be read again.
//!
//! # Source
//! Protocol notes, accounts §9: field order and names are read by existing tools.

use crate::account::Account;
use crate::keys::AccountKey;
use crate::modification::Modification;
use crate::spend::ClosePath;
use crate::units::{BlockHeight, Sats, SatsDelta};

/// Bytes that the wallet keeps.
const MAX_BYTES: usize = 500;

/// What a transaction does to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Funds it.
    Create,
    /// Adds to it.
    Deposit,
    /// Pays from it.
    Withdraw,
    /// Moves its expiry.
    Renew,
    /// Ends it.
    Close,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Deposit => "deposit",
            Action::Withdraw => "withdraw",
            Action::Renew => "renew",
            Action::Close => "close",
        }
    }
}

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Account.
    pub account: AccountKey,
    /// What is done.
    pub action: Action,
    /// Expiry, the new one if it changes.
    pub expiry: BlockHeight,
    /// Output of the account: the new one; of a close the spent one; 0 of a funding, where it is not known yet.
    pub output_index: u32,
    /// By the trader alone.
    pub expiry_spend: bool,
    /// Chain fee; not known of a funding.
    pub fee: Option<Sats>,
    /// Change of the account's value.
    pub balance_diff: SatsDelta,
}

impl Note {
    /// The funding of an account.
    pub fn create(account: &Account) -> Note {
        Note {
            account: account.key(),
            action: Action::Create,
            expiry: account.terms.expiry,
            output_index: 0,
            expiry_spend: false,
            fee: None,
            balance_diff: account.value.to_delta(),
        }
    }

    /// A change by the owner.
    pub fn of(action: Action, change: &Modification) -> Note {
        let (before, after) = (change.before.value.to_delta(), change.after.value.to_delta());
        Note {
            account: change.after.key(),
            action,
            expiry: change.after.terms.expiry,
            output_index: change.after.outpoint.map_or(0, |outpoint| outpoint.vout),
            expiry_spend: matches!(change.path, ClosePath::Expiry(_)),
            fee: Some(change.fee),
            balance_diff: after.checked_sub(before).expect("the difference of two amounts fits"),
        }
    }

    /// The label, after the owner's own prefix; cut where the wallet would cut it.
    pub fn label(&self, prefix: &str) -> String {
        let fee = self.fee.map_or_else(|| "null".to_owned(), |fee| fee.get().to_string());
        let json = format!(
            "{{\"account\":{{\"key\":\"{}\",\"action\":\"{}\",\"expiry_height\":{},\"output_index\":{},\
             \"expiry_spend\":{},\"tx_fee\":{fee},\"balance_diff\":{}}}}}",
            self.account,
            self.action.name(),
            self.expiry.get(),
            self.output_index,
            self.expiry_spend,
            self.balance_diff.get(),
        );
        let blank = if prefix.is_empty() { "" } else { " " };
        let mut text = format!("{prefix}{blank}poold -- {json}");
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        text
    }
}
