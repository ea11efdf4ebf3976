//! What is refused because of what we know, and lies about signing and about the end.

use crate::scene::Scene;
use crate::table::Row;
use tidegate_protocol::account::AccountState;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::musig2::PublicNonce;
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{Sats, UnitCount};
use tidegate_protocol::verify::NodeRating;

fn in_state(s: &mut Scene, state: OrderState) -> Option<()> {
    let place = s.place();
    s.own(place).state = state;
    Some(())
}

fn with_account(s: &mut Scene, state: AccountState) -> Option<()> {
    let place = s.place();
    s.account(place).state = state;
    Some(())
}

fn rated(s: &mut Scene, tier: NodeTier, age_seconds: u64) -> Option<()> {
    let place = s.place_where(|own, _| own.order.bid().is_some_and(|bid| bid.min_node_tier == NodeTier::Tier1))?;
    let node = s.at(place).order.node;
    s.local.ratings.insert(node, NodeRating { tier, age_seconds });
    Some(())
}

/// Honest proposals that come when something of ours has changed.
pub(crate) const OWN_STATE: &[Row] = &[
    ("an executed order", "OrderArchived", |s| in_state(s, OrderState::Executed)),
    ("a canceled order", "OrderArchived", |s| in_state(s, OrderState::Canceled)),
    ("an expired order", "OrderArchived", |s| in_state(s, OrderState::Expired)),
    ("a failed order", "OrderArchived", |s| in_state(s, OrderState::Failed)),
    ("an unfunded account", "AccountState", |s| with_account(s, AccountState::Initiated)),
    ("an unconfirmed account", "AccountState", |s| with_account(s, AccountState::PendingOpen)),
    ("an account being changed", "AccountState", |s| with_account(s, AccountState::PendingUpdate)),
    ("an expired account", "AccountState", |s| with_account(s, AccountState::Expired)),
    ("an account being closed", "AccountState", |s| with_account(s, AccountState::PendingClosed)),
    ("a closed account", "AccountState", |s| with_account(s, AccountState::Closed)),
    ("an account that never was", "AccountState", |s| with_account(s, AccountState::CanceledAfterRecovery)),
    ("an account expired while changed", "AccountState", |s| with_account(s, AccountState::ExpiredPendingUpdate)),
    ("an account that expires in this block and still counts as open", "AccountExpired", |s| {
        let place = s.place();
        let best = s.local.best_height;
        s.account(place).terms.expiry = best;
        Some(())
    }),
    ("an account without output", "AccountWithoutOutput", |s| {
        let place = s.place();
        s.account(place).outpoint = None;
        Some(())
    }),
    ("an account that is gone", "UnknownAccount", |s| {
        let place = s.place();
        let key = s.account(place).key();
        s.local.accounts.remove(&key);
        Some(())
    }),
    ("an account at another output", "OwnInputMissing", |s| {
        let place = s.place();
        s.account(place).outpoint = Some(OutPoint { txid: Txid::all_zeros(), vout: 1 });
        Some(())
    }),
    ("an account of another value", "EndingBalance", |s| {
        let place = s.place();
        let account = s.account(place);
        account.value = account.value.checked_add(Sats::constant(1))?;
        Some(())
    }),
    ("an order filled in the meantime", "Overfilled", |s| {
        let place = s.place();
        let filled: u32 = s.list(place).iter().map(|matched| matched.units.get()).sum();
        s.own(place).units_unfulfilled = UnitCount::new(filled - 1);
        Some(())
    }),
    ("a seller below the tier that we want", "NodeTier", |s| rated(s, NodeTier::Tier0, 86_399)),
    ("a seller whose rating is old, unrated ones refused", "NodeUnrated", |s| {
        s.local.reject_unrated = true;
        rated(s, NodeTier::Tier1, 86_400)
    }),
    ("a seller without rating, unrated ones refused", "NodeUnrated", |s| {
        rated(s, NodeTier::Tier1, 0)?;
        s.local.ratings.clear();
        s.local.reject_unrated = true;
        Some(())
    }),
];

fn nonce(s: &mut Scene, edit: fn(&mut [u8; 66])) -> Option<()> {
    let key = s.taproot_account()?;
    edit(&mut s.sign.server_nonces.get_mut(&key)?.0);
    Some(())
}

/// Lies when signatures are asked for.
pub(crate) const SIGN: &[Row] = &[
    ("sign: a stranger's batch", "BatchId", |s| {
        s.sign.batch_id = s.stranger().serialize().to_vec();
        Some(())
    }),
    ("sign: half a batch id", "BatchId", |s| {
        s.sign.batch_id.truncate(32);
        Some(())
    }),
    ("sign: no batch id", "BatchId", |s| {
        s.sign.batch_id.clear();
        Some(())
    }),
    ("sign: no previous outputs", "PrevOutputCount", |s| {
        s.sign.prev_outputs.clear();
        Some(())
    }),
    ("sign: a previous output less", "PrevOutputCount", |s| s.sign.prev_outputs.pop().map(drop)),
    ("sign: a previous output more", "PrevOutputCount", |s| {
        let again = s.sign.prev_outputs.first()?.clone();
        s.sign.prev_outputs.push(again);
        Some(())
    }),
    ("sign: a satoshi more in our output", "PrevOutputValue", |s| {
        s.own_prev().value += Amount::ONE_SAT;
        Some(())
    }),
    ("sign: a satoshi less in our output", "PrevOutputValue", |s| {
        s.own_prev().value -= Amount::ONE_SAT;
        // What is missing is added elsewhere.
        s.foreign_prev().value += Amount::ONE_SAT;
        Some(())
    }),
    ("sign: another script of our output", "PrevOutputScript", |s| {
        s.own_prev().script_pubkey = ScriptBuf::new_p2a();
        Some(())
    }),
    ("sign: no script of our output", "PrevOutputNotWitness", |s| {
        s.own_prev().script_pubkey = ScriptBuf::new();
        Some(())
    }),
    ("sign: previous outputs swapped", "PrevOutputValue|PrevOutputScript", |s| {
        let (ours, other) = (s.input(s.prepare.accounts[0].account), s.foreign_input());
        s.sign.prev_outputs.swap(ours, other);
        Some(())
    }),
    ("sign: an input that others can rename", "PrevOutputNotWitness", |s| {
        let hash = s.draw.bytes();
        s.foreign_prev().script_pubkey = ScriptBuf::from_bytes([&[0xa9, 0x14][..], &hash[..20], &[0x87]].concat());
        Some(())
    }),
    ("sign: inputs below the outputs", "InputSum", |s| {
        let ours: Vec<usize> = s
            .local
            .accounts
            .values()
            .filter_map(|account| account.outpoint)
            .filter_map(|outpoint| {
                s.prepare.transaction.input.iter().position(|input| input.previous_output == outpoint)
            })
            .collect();
        for (input, output) in s.sign.prev_outputs.iter_mut().enumerate() {
            if !ours.contains(&input) {
                output.value = Amount::ZERO;
            }
        }
        let paid: Amount = s.prepare.transaction.output.iter().map(|output| output.value).sum();
        let spent: Amount = s.sign.prev_outputs.iter().map(|output| output.value).sum();
        (spent < paid).then_some(())
    }),
    ("sign: an amount that wraps", "InputSum", |s| {
        s.foreign_prev().value = Amount::MAX;
        Some(())
    }),
    ("sign: a nonce is missing", "NonceMissing", |s| {
        let key = s.taproot_account()?;
        s.sign.server_nonces.remove(&key).map(drop)
    }),
    ("sign: a nonce for another account", "NonceMissing", |s| {
        let key = s.taproot_account()?;
        let nonce = s.sign.server_nonces.remove(&key)?;
        let stranger = AccountKey::new(s.stranger());
        s.sign.server_nonces.insert(stranger, nonce);
        Some(())
    }),
    ("sign: a nonce of zeros", "NonceInvalid", |s| {
        let key = s.taproot_account()?;
        s.sign.server_nonces.insert(key, PublicNonce([0; 66])).map(drop)
    }),
    ("sign: a nonce whose first half is no point", "NonceInvalid", |s| nonce(s, |bytes| bytes[..33].fill(0x05))),
    ("sign: a nonce whose second half is no point", "NonceInvalid", |s| nonce(s, |bytes| bytes[34..].fill(0xff))),
];

/// Requests that come when something of ours has changed since the proposal.
pub(crate) const SIGN_OWN_STATE: &[Row] = &[
    ("sign: our account is gone", "UnknownAccount", |s| {
        s.local.accounts.clear();
        Some(())
    }),
    ("sign: our account is elsewhere", "AccountChanged", |s| {
        let place = s.place();
        s.account(place).outpoint = Some(OutPoint { txid: Txid::all_zeros(), vout: 0 });
        Some(())
    }),
    ("sign: our account has another value", "PrevOutputValue", |s| {
        let place = s.place();
        let account = s.account(place);
        account.value = account.value.checked_add(Sats::constant(1))?;
        Some(())
    }),
    ("sign: our account has another script", "PrevOutputScript", |s| {
        let place = s.place();
        let account = s.account(place);
        account.terms = account.terms.next().ok()?;
        Some(())
    }),
];

/// Lies about the end.
pub(crate) const FINALIZE: &[Row] = &[
    ("finalize: a stranger's batch", "BatchId", |s| {
        s.finalize.batch_id = s.stranger().serialize().to_vec();
        Some(())
    }),
    ("finalize: half a batch id", "BatchId", |s| {
        s.finalize.batch_id.truncate(32);
        Some(())
    }),
    ("finalize: no batch id", "BatchId", |s| {
        s.finalize.batch_id.clear();
        Some(())
    }),
    ("finalize: a batch id and more", "BatchId", |s| {
        s.finalize.batch_id.push(0);
        Some(())
    }),
    ("finalize: no transaction", "FinalizedTransaction", |s| {
        s.finalize.txid = Txid::all_zeros();
        Some(())
    }),
    ("finalize: another transaction", "FinalizedTransaction", |s| {
        let mut bytes = s.finalize.txid.to_byte_array();
        let place = s.draw.index(32);
        bytes[place] ^= 0x10;
        s.finalize.txid = Txid::from_byte_array(bytes);
        Some(())
    }),
];
