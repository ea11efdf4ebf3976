//! "Verification never panics": an honest batch of the vectors, bent by the fuzzer, message and stored state alike.
//!
//! Whatever is accepted after that must still be honest, see [`crate::sheet`]. One of the operations repairs amounts
//! after others broke them, so that bent batches get past the first check.

use crate::bytes::Bytes;
use crate::material::{node, point, sats};
use crate::sheet;
use crate::vectors::{Recorded, recorded};
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut};
use std::collections::BTreeMap;
use tidegate_protocol::account::{Account, AccountState, AccountVersion, MIN_RECREATED_VALUE};
use tidegate_protocol::batch::{AccountDiff, BatchVersion, EndingState, Finalize, Match, Prepare, SignBegin};
use tidegate_protocol::channel::{CommitmentType, funding_script};
use tidegate_protocol::fees::{MatchTerms, chain_fee};
use tidegate_protocol::keys::{AccountKey, MultisigKey, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderSide, OrderState, OwnOrder};
use tidegate_protocol::spend::bip69_output;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, UnitCount};
use tidegate_protocol::verify::{
    LocalView, NodeRating, VerifiedBatch, VerifyError, verify_finalize, verify_prepare, verify_sign,
};
use tidegate_wire::{DecodeError, batch};

/// Bends of one input; more make nothing new.
const MAX_BENDS: usize = 24;

/// A batch, and what its receiver knows.
pub(crate) struct Case {
    pub(crate) node: NodeId,
    pub(crate) best_height: BlockHeight,
    batch_version: BatchVersion,
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) orders: BTreeMap<OrderNonce, OwnOrder>,
    pub(crate) extension_now: BlockCount,
    pub(crate) ratings: BTreeMap<NodeId, NodeRating>,
    pub(crate) reject_unrated: bool,
    pub(crate) prepare: Prepare,
    pub(crate) sign: SignBegin,
}

impl Case {
    fn of(recorded: &Recorded) -> Case {
        Case {
            node: recorded.node,
            best_height: recorded.best_height,
            batch_version: recorded.batch_version,
            accounts: recorded.accounts.clone(),
            orders: recorded.orders.clone(),
            extension_now: recorded.extension,
            ratings: BTreeMap::new(),
            reject_unrated: false,
            prepare: recorded.prepare.clone(),
            sign: recorded.sign.clone(),
        }
    }

    fn view(&self) -> LocalView<'_> {
        LocalView {
            node: self.node,
            best_height: self.best_height,
            batch_version: self.batch_version,
            accounts: &self.accounts,
            orders: &self.orders,
            extension_now: self.extension_now,
            ratings: &self.ratings,
            reject_unrated: self.reject_unrated,
        }
    }
}

/// First byte: which batch. Then bends, each a byte for its kind and what that kind reads.
pub fn verify(data: &[u8]) {
    if let Err(error) = verdict(data) {
        assert!(data.len() > 1, "an honest batch is refused: {error}");
        assert!(!error.to_string().is_empty());
        error.reject_reason();
    }
}

/// What [`verify`] judges, with the verdict: whether bent batches get far is itself worth a test.
///
/// # Errors
/// The verdict of the verifier.
pub fn verdict(data: &[u8]) -> Result<(), VerifyError> {
    let mut bytes = Bytes::new(data);
    let base = usize::from(bytes.u8()) % recorded().len();
    let mut case = Case::of(&recorded()[base]);
    for _ in 0..MAX_BENDS {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 8 {
            0 => bend_frame(&mut case, &mut bytes),
            1 => bend_transaction(&mut case, &mut bytes),
            2 => bend_match(&mut case, &mut bytes),
            3 => bend_markets(&mut case, &mut bytes),
            4 => bend_diff(&mut case, &mut bytes),
            5 => bend_account(&mut case, &mut bytes),
            6 => bend_order(&mut case, &mut bytes),
            _ if bytes.flag() => bend_sign(&mut case, &mut bytes),
            _ => repair(&mut case),
        }
    }
    judge(&case)
}

/// Why the batch is not signed, if so.
fn judge(case: &Case) -> Result<(), VerifyError> {
    let view = case.view();
    let batch = verify_prepare(&view, &case.prepare)?;
    sheet::assert_honest(case, &batch);
    assert_eq!(verify_prepare(&view, &case.prepare).as_ref(), Ok(&batch), "the same batch, another verdict");
    assert_travels(&case.prepare);
    verify_sign(&view, &batch, &case.sign)?;
    sheet::assert_signable(case, &batch);
    assert_final(&batch);
    Ok(())
}

/// What is accepted can be said on the wire, and means the same there.
fn assert_travels(prepare: &Prepare) {
    let wire = batch::to_prepare(prepare).expect("accepted batches can be encoded");
    // Where a seller can be reached is demanded by the decoder, not by the verifier.
    let mut others = prepare.markets.values().flat_map(|market| market.orders.values()).flatten().map(|it| &it.order);
    let homeless = others.any(|other| other.order.is_ask() && other.addresses.is_empty());
    let again = match batch::from_prepare(wire) {
        Ok(again) => again,
        Err(DecodeError::Missing { field: "ServerOrder.node_addr" }) if homeless => return,
        Err(error) => panic!("accepted batches can be decoded: {error}"),
    };
    assert_eq!(again.transaction, prepare.transaction);
    assert_eq!(again.accounts, prepare.accounts);
    assert_eq!(again.markets.len(), prepare.markets.len());
}

fn assert_final(batch: &VerifiedBatch) {
    let txid = batch.prepare().transaction.compute_txid();
    let named = |batch_id: Vec<u8>| Finalize { batch_id, txid };
    assert_eq!(verify_finalize(batch, &named(batch.prepare().batch_id.serialize().to_vec())), Ok(()));
    assert!(verify_finalize(batch, &named(Vec::new())).is_err());
}

fn bend_frame(case: &mut Case, bytes: &mut Bytes<'_>) {
    let prepare = &mut case.prepare;
    match bytes.u8() % 12 {
        0 => prepare.batch_version = BatchVersion(bytes.near32(prepare.batch_version.0)),
        1 => case.batch_version = BatchVersion(bytes.near32(case.batch_version.0)),
        2 => {
            // Both sides speak another version: what it allows changes.
            case.batch_version = BatchVersion(bytes.pick(&[0, 1, 2, 10, 11, 26, 27, 43, 58, 59]));
            prepare.batch_version = case.batch_version;
        }
        3 => prepare.height_hint = BlockHeight::new(bytes.near32(prepare.height_hint.get())),
        4 => case.best_height = BlockHeight::new(bytes.near32(case.best_height.get())),
        5 => prepare.fee_rate = SatPerKw::new(bytes.near(prepare.fee_rate.get())),
        6 => prepare.execution_fee.base = sats(bytes.near(prepare.execution_fee.base.get())),
        7 => prepare.execution_fee.rate_ppm = bytes.near(prepare.execution_fee.rate_ppm),
        8 => case.extension_now = BlockCount::new(bytes.near32(case.extension_now.get())),
        9 => case.reject_unrated ^= true,
        10 => rate_nodes(case, bytes),
        _ => case.node = node(bytes.below(64)),
    }
}

/// A rating for every node of the batch, each of any tier and age.
fn rate_nodes(case: &mut Case, bytes: &mut Bytes<'_>) {
    let matches = case.prepare.markets.values().flat_map(|market| market.orders.values()).flatten();
    for matched in matches {
        let tier = bytes.pick(&[NodeTier::Tier0, NodeTier::Tier1]);
        let age_seconds = bytes.pick(&[0, 86_399, 86_400, u64::MAX]);
        case.ratings.insert(matched.order.node, NodeRating { tier, age_seconds });
    }
}

fn bend_transaction(case: &mut Case, bytes: &mut Bytes<'_>) {
    let own = case.accounts.values().nth(bytes.below(case.accounts.len())).and_then(|account| account.outpoint);
    let transaction = &mut case.prepare.transaction;
    let (input, output) = (bytes.below(transaction.input.len()), bytes.below(transaction.output.len()));
    match bytes.u8() % 12 {
        0 => transaction.version.0 = bytes.pick(&[0, 1, 2, 3, -1, i32::MIN]),
        1 => transaction.lock_time = LockTime::from_consensus(bytes.near32(0)),
        2 if !transaction.input.is_empty() => transaction.input[input].sequence = Sequence(bytes.u32()),
        3 if !transaction.input.is_empty() => drop(transaction.input.remove(input)),
        4 => {
            let previous_output = if bytes.flag() { own.unwrap_or_default() } else { OutPoint::null() };
            let added = TxIn { previous_output, sequence: Sequence::ZERO, ..TxIn::default() };
            transaction.input.insert(input, added);
        }
        5 if !transaction.input.is_empty() => transaction.input[input].witness.push(bytes.take(4)),
        6 if !transaction.input.is_empty() => {
            transaction.input[input].script_sig = ScriptBuf::from_bytes(bytes.take(3).to_vec());
        }
        7 if !transaction.output.is_empty() => {
            let value = &mut transaction.output[output].value;
            *value = Amount::from_sat(bytes.near(value.to_sat()));
        }
        8 if !transaction.output.is_empty() => {
            transaction.output[output].script_pubkey = ScriptBuf::from_bytes(bytes.take(40).to_vec());
        }
        9 if !transaction.output.is_empty() => drop(transaction.output.remove(output)),
        10 if !transaction.output.is_empty() => {
            let copy = transaction.output[output].clone();
            transaction.output.insert(bytes.below(transaction.output.len()), copy);
        }
        _ => {
            let script_pubkey = ScriptBuf::from_bytes(bytes.take(34).to_vec());
            transaction.output.push(TxOut { value: Amount::from_sat(bytes.near(1_000)), script_pubkey });
        }
    }
}

fn bend_match(case: &mut Case, bytes: &mut Bytes<'_>) {
    let own_key = case.accounts.keys().nth(bytes.below(case.accounts.len())).copied();
    let own = case.orders.values().nth(bytes.below(case.orders.len())).cloned();
    let count = case.prepare.markets.values().flat_map(|market| market.orders.values()).map(Vec::len).sum();
    let at = bytes.below(count);
    let mut all = case.prepare.markets.values_mut().flat_map(|market| market.orders.values_mut()).flatten();
    let (Some(matched), Some(own)) = (all.nth(at), own) else { return };
    let other = &mut matched.order;
    match bytes.u8() % 14 {
        0 => matched.units = UnitCount::new(bytes.near32(matched.units.get())),
        1 => other.order.rate = RatePerBillion::new(bytes.near32(other.order.rate.get())),
        2 => other.order.duration = BlockCount::new(bytes.near32(other.order.duration.get())),
        3 => other.order.account = own_key.unwrap_or(other.order.account),
        4 => other.order.nonce = own.order.nonce,
        5 => other.multisig = MultisigKey::new(own.multisig.point),
        6 => other.multisig = MultisigKey::new(point(bytes.below(64))),
        7 => other.node = if bytes.flag() { case.node } else { node(bytes.below(64)) },
        8 => other.order.auction = own.order.auction,
        9 => other.order.channel_type = own.order.channel_type,
        10 => other.order.side = own.order.side.clone(),
        11 => other.order = crate::orders::order(bytes),
        12 => bend_side(&mut other.order.side, bytes),
        _ => other.addresses.clear(),
    }
}

fn bend_side(side: &mut OrderSide, bytes: &mut Bytes<'_>) {
    match side {
        OrderSide::Ask(terms) => {
            use tidegate_protocol::order::{
                AnnouncementConstraint as Announcement, ConfirmationConstraint as Confirmation,
            };
            let announcements = [Announcement::None, Announcement::OnlyAnnounced, Announcement::OnlyUnannounced];
            let confirmations = [Confirmation::None, Confirmation::OnlyConfirmed, Confirmation::OnlyZeroConf];
            terms.announcement = bytes.pick(&announcements);
            terms.confirmation = bytes.pick(&confirmations);
        }
        OrderSide::Bid(terms) => match bytes.u8() % 4 {
            0 => terms.unannounced ^= true,
            1 => terms.zero_conf ^= true,
            2 => terms.sidecar ^= true,
            _ => terms.self_balance = sats(bytes.near(terms.self_balance.get())),
        },
    }
}

fn bend_markets(case: &mut Case, bytes: &mut Bytes<'_>) {
    let markets = &mut case.prepare.markets;
    let Some(duration) = markets.keys().nth(bytes.below(markets.len())).copied() else { return };
    let kind = bytes.u8() % 8;
    if kind == 0 {
        let moved = markets.remove(&duration).unwrap_or_default();
        markets.insert(BlockCount::new(bytes.near32(duration.get())), moved);
        return;
    }
    let Some(market) = markets.get_mut(&duration) else { return };
    let Some(nonce) = market.orders.keys().nth(bytes.below(market.orders.len())).copied() else { return };
    let Some(matches) = market.orders.get_mut(&nonce) else { return };
    let at = bytes.below(matches.len());
    match kind {
        1 => market.clearing_price = RatePerBillion::new(bytes.near32(market.clearing_price.get())),
        2 => drop(market.orders.remove(&nonce)),
        3 => matches.clear(),
        4 if !matches.is_empty() => drop(matches.remove(at)),
        5 if !matches.is_empty() => {
            let copy = matches[at].clone();
            matches.push(copy);
        }
        6 => {
            let moved = market.orders.remove(&nonce).unwrap_or_default();
            let all: Vec<OrderNonce> = case.orders.keys().copied().collect();
            let to = all.get(bytes.below(all.len())).copied().unwrap_or(OrderNonce::new(bytes.bytes32()));
            market.orders.insert(to, moved);
        }
        _ => {
            let copy = market.clone();
            markets.insert(BlockCount::new(bytes.pick(&[144, 2_016, 4_032])), copy);
        }
    }
}

fn bend_diff(case: &mut Case, bytes: &mut Bytes<'_>) {
    let diffs = &mut case.prepare.accounts;
    let at = bytes.below(diffs.len());
    let Some(diff) = diffs.get_mut(at) else { return };
    match bytes.u8() % 9 {
        0 => diff.ending_balance = sats(bytes.near(diff.ending_balance.get())),
        1 => {
            let states = [
                EndingState::Recreated,
                EndingState::DustExtendedOffchain,
                EndingState::DustAddedToFees,
                EndingState::FullySpent,
            ];
            diff.ending_state = bytes.pick(&states);
        }
        2 => diff.output_index = bytes.flag().then(|| u32::from(bytes.u8() % 16)),
        3 => diff.output_index = Some(bytes.near32(0)),
        4 => diff.new_expiry = bytes.flag().then(|| BlockHeight::new(bytes.near32(case.best_height.get()))),
        5 => diff.new_version = bytes.near32(1),
        6 => diff.account = case.accounts.keys().nth(bytes.below(case.accounts.len())).copied().unwrap_or(diff.account),
        7 => drop(diffs.remove(at)),
        _ => {
            let copy = *diff;
            diffs.push(copy);
        }
    }
}

fn bend_account(case: &mut Case, bytes: &mut Bytes<'_>) {
    let Some(key) = case.accounts.keys().nth(bytes.below(case.accounts.len())).copied() else { return };
    let elsewhere = case.accounts.values().nth(bytes.below(case.accounts.len())).and_then(|other| other.outpoint);
    let Some(account) = case.accounts.get_mut(&key) else { return };
    let states = [
        AccountState::Initiated,
        AccountState::PendingOpen,
        AccountState::PendingUpdate,
        AccountState::Open,
        AccountState::Expired,
        AccountState::PendingClosed,
        AccountState::Closed,
        AccountState::CanceledAfterRecovery,
        AccountState::PendingBatch,
        AccountState::ExpiredPendingUpdate,
    ];
    match bytes.u8() % 8 {
        0 => account.value = sats(bytes.near(account.value.get())),
        1 => account.state = bytes.pick(&states),
        2 => account.terms.expiry = BlockHeight::new(bytes.near32(account.terms.expiry.get())),
        3 => account.terms.version = bytes.pick(&[AccountVersion::V0, AccountVersion::V1, AccountVersion::V2]),
        4 => account.outpoint = None,
        5 => account.outpoint = elsewhere,
        6 => account.terms.batch = tidegate_protocol::keys::BatchKey::new(point(bytes.below(64))),
        _ => drop(case.accounts.remove(&key)),
    }
}

fn bend_order(case: &mut Case, bytes: &mut Bytes<'_>) {
    let Some(nonce) = case.orders.keys().nth(bytes.below(case.orders.len())).copied() else { return };
    let Some(own) = case.orders.get_mut(&nonce) else { return };
    let states = [
        OrderState::Submitted,
        OrderState::Cleared,
        OrderState::PartiallyFilled,
        OrderState::Executed,
        OrderState::Canceled,
        OrderState::Expired,
        OrderState::Failed,
    ];
    match bytes.u8() % 16 {
        0 => own.units_unfulfilled = UnitCount::new(bytes.near32(own.units_unfulfilled.get())),
        1 => own.order.min_units = UnitCount::new(bytes.near32(own.order.min_units.get())),
        2 => own.order.rate = RatePerBillion::new(bytes.near32(own.order.rate.get())),
        3 => own.order.max_batch_fee_rate = SatPerKw::new(bytes.near(own.order.max_batch_fee_rate.get())),
        4 => own.fee_ceiling.base = sats(bytes.near(own.fee_ceiling.base.get())),
        5 => own.fee_ceiling.rate_ppm = bytes.near(own.fee_ceiling.rate_ppm),
        6 => own.state = bytes.pick(&states),
        7 => own.order.duration = BlockCount::new(bytes.near32(own.order.duration.get())),
        8 => own.order.denied_nodes.push(node(bytes.below(64))),
        9 => own.order.allowed_nodes.push(node(bytes.below(64))),
        10 => own.multisig.point = point(bytes.below(64)),
        11 => bend_side(&mut own.order.side, bytes),
        12 => own.order = crate::orders::order(bytes),
        13 => own.extension_quoted = BlockCount::new(bytes.near32(own.extension_quoted.get())),
        14 => own.order.account = case.accounts.keys().next().copied().unwrap_or(own.order.account),
        _ => drop(case.orders.remove(&nonce)),
    }
}

fn bend_sign(case: &mut Case, bytes: &mut Bytes<'_>) {
    let sign = &mut case.sign;
    let at = bytes.below(sign.prev_outputs.len());
    match bytes.u8() % 8 {
        0 => sign.batch_id = bytes.take(33).to_vec(),
        1 if !sign.prev_outputs.is_empty() => {
            let value = &mut sign.prev_outputs[at].value;
            *value = Amount::from_sat(bytes.near(value.to_sat()));
        }
        2 if !sign.prev_outputs.is_empty() => {
            sign.prev_outputs[at].script_pubkey = ScriptBuf::from_bytes(bytes.take(34).to_vec());
        }
        3 if !sign.prev_outputs.is_empty() => drop(sign.prev_outputs.remove(at)),
        4 if !sign.prev_outputs.is_empty() => {
            let to = bytes.below(sign.prev_outputs.len());
            sign.prev_outputs.swap(at, to);
        }
        5 => drop(sign.server_nonces.pop_first()),
        6 => {
            let nonce = bytes.take(66);
            if let Some(first) = sign.server_nonces.values_mut().next() {
                first.0[..nonce.len()].copy_from_slice(nonce);
            }
        }
        _ => sign.prev_outputs.push(TxOut { value: Amount::from_sat(bytes.u64()), script_pubkey: ScriptBuf::new() }),
    }
}

/// Makes amounts honest again: channel outputs, ending balances, recreated outputs, the venue's previous outputs.
/// Whatever cannot be computed stays as it is.
fn repair(case: &mut Case) {
    repair_channels(case);
    let mut diffs = std::mem::take(&mut case.prepare.accounts);
    for diff in &mut diffs {
        repair_account(case, diff);
    }
    case.prepare.accounts = diffs;
    sort_outputs(&mut case.prepare);
    for (input, previous) in case.prepare.transaction.input.iter().zip(&mut case.sign.prev_outputs) {
        let own = case.accounts.values().find(|account| account.outpoint == Some(input.previous_output));
        if let Some(Ok(output)) = own.map(|account| account.terms.output(account.value)) {
            *previous = output;
        }
    }
}

/// The order of BIP-69, with the claimed places following their outputs.
fn sort_outputs(prepare: &mut Prepare) {
    let mut sorted: Vec<(usize, TxOut)> = prepare.transaction.output.drain(..).enumerate().collect();
    sorted.sort_by(|(_, left), (_, right)| bip69_output(left, right));
    for diff in &mut prepare.accounts {
        let before = diff.output_index.and_then(|index| usize::try_from(index).ok());
        if let Some(after) = sorted.iter().position(|(index, _)| Some(*index) == before) {
            diff.output_index = u32::try_from(after).ok();
        }
    }
    prepare.transaction.output = sorted.into_iter().map(|(_, output)| output).collect();
}

/// Matches of the batch with our order for each.
fn pairs(case: &Case) -> Vec<(&OwnOrder, &Match, RatePerBillion)> {
    let listed =
        case.prepare.markets.values().flat_map(|market| {
            market.orders.iter().map(move |(nonce, matches)| (nonce, matches, market.clearing_price))
        });
    let known = listed.filter_map(|(nonce, matches, price)| Some((case.orders.get(nonce)?, matches, price)));
    known.flat_map(|(own, matches, price)| matches.iter().map(move |matched| (own, matched, price))).collect()
}

fn repair_channels(case: &mut Case) {
    let mut outputs = Vec::new();
    for (own, matched, _) in pairs(case) {
        let other = &matched.order.order;
        let (ask, bid) = if own.order.is_ask() { (&own.order, other) } else { (other, &own.order) };
        let commitment = CommitmentType::of_pair(ask.channel_type, bid.channel_type);
        let script = funding_script(MultisigKey::new(own.multisig.point), matched.order.multisig, commitment);
        let value = matched.units.to_sats().checked_add(bid.self_balance());
        if let (Ok(script_pubkey), Some(value)) = (script, value) {
            outputs.push(TxOut { value: value.into(), script_pubkey });
        }
    }
    for wanted in outputs {
        let present = &mut case.prepare.transaction.output;
        match present.iter_mut().find(|output| output.script_pubkey == wanted.script_pubkey) {
            Some(output) => output.value = wanted.value,
            None => present.push(wanted),
        }
    }
}

fn repair_account(case: &mut Case, diff: &mut AccountDiff) {
    let Some(account) = case.accounts.get(&diff.account).cloned() else { return };
    let fee = case.prepare.execution_fee;
    let (mut balance, mut channels) = (account.value.to_delta(), 0);
    for (own, matched, price) in pairs(case).into_iter().filter(|(own, ..)| own.order.account == diff.account) {
        let bid = if own.order.is_ask() { &matched.order.order } else { &own.order };
        let terms = MatchTerms {
            auction: own.order.auction,
            filled: matched.units.to_sats(),
            self_balance: bid.self_balance(),
            price,
            duration: bid.duration,
        };
        let delta = if own.order.is_ask() { terms.maker_delta(&fee) } else { terms.taker_delta(&fee) };
        let Some(sum) = delta.ok().and_then(|delta| balance.checked_add(delta)) else { return };
        (balance, channels) = (sum, channels + 1);
    }
    let Ok(chain_fee) = chain_fee(channels, case.prepare.fee_rate, account.terms.version) else { return };
    let Some(ending) = balance.checked_sub(chain_fee.to_delta()).and_then(|balance| balance.to_sats()) else { return };
    diff.ending_balance = ending;
    if ending < MIN_RECREATED_VALUE {
        (diff.ending_state, diff.output_index) = (EndingState::FullySpent, None);
        return;
    }
    let Ok(mut terms) = account.terms.next() else { return };
    if let (true, Some(expiry)) = (case.prepare.batch_version.extends_accounts(), diff.new_expiry) {
        terms.expiry = expiry;
    }
    if let (true, Some(version)) = (case.prepare.batch_version.upgrades_taproot(), diff.known_version()) {
        terms.version = terms.version.max(version);
    }
    let Ok(output) = terms.output(ending) else { return };
    let outputs = &mut case.prepare.transaction.output;
    diff.ending_state = EndingState::Recreated;
    let claimed =
        diff.output_index.and_then(|index| usize::try_from(index).ok()).and_then(|index| outputs.get_mut(index));
    match claimed {
        Some(place) => *place = output,
        None => {
            outputs.push(output);
            diff.output_index = u32::try_from(outputs.len() - 1).ok();
        }
    }
}
