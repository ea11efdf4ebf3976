//! Matches: every pair of orders, what it does to our balance, and the output that funds its channel.

use super::{EndingOrder, LocalView, NodeRating, UnverifiedTier, VerifiedMatch, VerifyError};
use crate::account::{Account, AccountState};
use crate::batch::{Match, MatchedMarket, Prepare};
use crate::channel::{
    AcceptorRule, CommitmentType, FundingShim, OpenChannel, announcement_matches, confirmation_matches, funding_script,
    pending_channel_id,
};
use crate::fees::MatchTerms;
use crate::keys::{AccountKey, MultisigKey, OrderNonce, PendingChannelId};
use crate::order::{
    AskTerms, AuctionType, BidTerms, NodeTier, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder,
};
use crate::units::{BlockCount, BlockHeight, RatePerBillion, Sats, SatsDelta, UnitCount, UnitError};
use bitcoin::{Amount, OutPoint, Script, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// Highest version of an ask of ours that opts out of push amounts.
///
/// # Source
/// Protocol notes, auctioneer §8.2 "self balance".
const LAST_VERSION_WITHOUT_PUSH: OrderVersion = OrderVersion::V3;

/// The same for an ask of theirs: whether one of version 3 opts out, the sources disagree, and so a venue may think.
const THEIR_LAST_VERSION_WITHOUT_PUSH: OrderVersion = OrderVersion::V2;

/// What our matches do to one account, before the chain fee.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Stored value plus all changes; may be negative.
    pub(super) balance: SatsDelta,
    /// Channels created.
    pub(super) channels: u32,
    /// Longest extension of the expiry that was quoted: now, or when one of the matched orders was signed.
    pub(super) extension: BlockCount,
}

impl Tally {
    /// One more channel, which changes the balance so.
    fn add(&mut self, delta: SatsDelta) -> Result<(), UnitError> {
        self.balance = self.balance.checked_add(delta).ok_or(UnitError::Overflow("account balance"))?;
        self.channels = self.channels.checked_add(1).ok_or(UnitError::Overflow("channels of an account"))?;
        Ok(())
    }
}

/// Outcome of judging all matches.
pub(super) struct JudgedMatches {
    /// By our nonce, then as in the message.
    pub(super) matches: Vec<VerifiedMatch>,
    /// By our nonce.
    pub(super) orders: Vec<EndingOrder>,
    /// Every account that takes part.
    pub(super) tallies: BTreeMap<AccountKey, Tally>,
}

/// An order of ours with what the batch says about it.
struct Listed<'a> {
    own: &'a OwnOrder,
    account: &'a Account,
    duration: BlockCount,
    price: RatePerBillion,
}

/// Ask and bid of a pair, whichever is ours.
struct Pair<'a> {
    ask: &'a Order,
    ask_terms: &'a AskTerms,
    bid: &'a Order,
    bid_terms: &'a BidTerms,
    /// Ours is the ask.
    maker: bool,
}

/// Judges all matches of a batch.
pub(super) fn judge(view: &LocalView<'_>, prepare: &Prepare) -> Result<JudgedMatches, VerifyError> {
    let mut judge = Judge {
        view,
        prepare,
        txid: prepare.transaction.compute_txid(),
        outputs: first_outputs(&prepare.transaction),
        claimed_outputs: BTreeSet::new(),
        pending_ids: BTreeSet::new(),
        taken: BTreeMap::new(),
        own_keys: own_keys(view),
        done: JudgedMatches { matches: Vec::new(), orders: Vec::new(), tallies: BTreeMap::new() },
    };
    for (nonce, duration, market) in by_nonce(&prepare.markets) {
        judge.order(nonce, duration, market)?;
    }
    // Nobody is asked to take part in a batch that is not about him.
    if judge.done.matches.is_empty() { Err(VerifyError::NothingOfOurs) } else { Ok(judge.done) }
}

/// Keys that nobody else may bring into a channel: of our orders, our accounts and our node. Nor their negations.
fn own_keys(view: &LocalView<'_>) -> BTreeSet<[u8; 32]> {
    let orders = view.orders.values().map(|own| own.multisig.point.serialize());
    let accounts = view.accounts.keys().map(AccountKey::serialize);
    orders.chain(accounts).chain([view.node.serialize()]).map(without_parity).collect()
}

/// A key as taproot sees it: a point and its negation are one.
fn without_parity([_, key @ ..]: [u8; 33]) -> [u8; 32] {
    key
}

/// An output that was looked for by its script.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// The first one with the script.
    index: u32,
    value: Amount,
    /// Another one has it too.
    twice: bool,
}

/// Every script of the transaction's outputs, with the first output that has it.
fn first_outputs(transaction: &Transaction) -> BTreeMap<&Script, Found> {
    let mut outputs = BTreeMap::new();
    for (index, output) in (0u32..).zip(&transaction.output) {
        let first = Found { index, value: output.value, twice: false };
        let again = |found: &mut Found| found.twice = true;
        outputs.entry(output.script_pubkey.as_script()).and_modify(again).or_insert(first);
    }
    outputs
}

/// Every listing of an order of ours, in order of the nonces.
fn by_nonce(markets: &BTreeMap<BlockCount, MatchedMarket>) -> Vec<(OrderNonce, BlockCount, &MatchedMarket)> {
    let mut listings: Vec<_> = markets
        .iter()
        .flat_map(|(duration, market)| market.orders.keys().map(move |nonce| (*nonce, *duration, market)))
        .collect();
    listings.sort_by_key(|(nonce, duration, _)| (*nonce, *duration));
    listings
}

/// Refuses pairs whose other node our lists exclude.
pub(super) fn check_node_lists(view: &LocalView<'_>, matches: &[VerifiedMatch]) -> Result<(), VerifyError> {
    for matched in matches {
        let own = view.orders.get(&matched.ours).ok_or(VerifyError::UnknownOrder(matched.ours))?;
        if !own.order.accepts_node(matched.node) {
            return Err(VerifyError::NodeRefused { order: matched.ours, node: matched.node });
        }
    }
    Ok(())
}

/// Refuses pairs whose other node is rated below what our bid wants; names those whose rating is not known.
///
/// # Source
/// Protocol notes, batch §7: "node tier as far as a rating is known".
pub(super) fn check_node_tiers(
    view: &LocalView<'_>,
    matches: &[VerifiedMatch],
) -> Result<Vec<UnverifiedTier>, VerifyError> {
    let mut unverified = Vec::new();
    for matched in matches {
        let Some(bid) = view.orders.get(&matched.ours).and_then(|own| own.order.bid()) else { continue };
        let (order, node, expected) = (matched.ours, matched.node, bid.min_node_tier);
        match (expected, view.ratings.get(&node).and_then(NodeRating::known)) {
            // Any node will do.
            (NodeTier::Tier0, _) => {}
            (NodeTier::Tier1, Some(found)) if found < expected => {
                return Err(VerifyError::NodeTier { order, node, expected, found });
            }
            (NodeTier::Tier1, Some(_)) => {}
            (NodeTier::Tier1, None) if view.reject_unrated => {
                return Err(VerifyError::NodeUnrated { order, node, expected });
            }
            (NodeTier::Tier1, None) => unverified.push(UnverifiedTier { order, node }),
        }
    }
    Ok(unverified)
}

struct Judge<'a> {
    view: &'a LocalView<'a>,
    prepare: &'a Prepare,
    txid: Txid,
    /// Script → the first output with it: the one that nodes will look for.
    outputs: BTreeMap<&'a Script, Found>,
    claimed_outputs: BTreeSet<u32>,
    pending_ids: BTreeSet<PendingChannelId>,
    /// Their order → units that all our orders together take of it.
    taken: BTreeMap<OrderNonce, u64>,
    /// Keys of ours that nobody else may use.
    own_keys: BTreeSet<[u8; 32]>,
    done: JudgedMatches,
}

impl<'a> Judge<'a> {
    fn order(&mut self, nonce: OrderNonce, duration: BlockCount, market: &'a MatchedMarket) -> Result<(), VerifyError> {
        let own = self.view.orders.get(&nonce).ok_or(VerifyError::UnknownOrder(nonce))?;
        let key = own.order.account;
        let account = self.view.accounts.get(&key).ok_or(VerifyError::UnknownAccount(key))?;
        check_own_state(nonce, own, account, self.view.best_height)?;
        let matches = market.orders.get(&nonce).map_or(&[][..], Vec::as_slice);
        let listed = Listed { own, account, duration, price: market.clearing_price };
        let fresh = Tally { balance: account.value.to_delta(), channels: 0, extension: self.view.extension_now };
        let mut tally = self.done.tallies.get(&key).copied().unwrap_or(fresh);
        tally.extension = tally.extension.max(own.extension_quoted);
        let (mut filled, mut left) = (0u64, own.units_unfulfilled);
        for matched in matches {
            tally.add(self.matched(&listed, matched)?)?;
            filled = filled.checked_add(u64::from(matched.units.get())).ok_or(UnitError::Overflow("filled units"))?;
            // Checked at once, so that a flood of matches costs no more than the order has units.
            left = check_not_overfilled(nonce, own, filled)?;
        }
        check_limit(nonce, &own.order, market.clearing_price)?;
        check_charges(nonce, own, self.prepare)?;
        // That the sum reaches the smallest match follows: there is a match, and each of them reaches it.
        if matches.is_empty() {
            return Err(VerifyError::NoMatch(nonce));
        }
        self.done.tallies.insert(key, tally);
        self.done.orders.push(ending_order(nonce, own, left));
        Ok(())
    }

    /// Change of the account's balance.
    fn matched(&mut self, listed: &Listed<'a>, matched: &'a Match) -> Result<SatsDelta, VerifyError> {
        let pair = self.check_pair(listed, matched)?;
        let (ours, theirs) = (listed.own.order.nonce, matched.order.order.nonce);
        let terms = MatchTerms {
            auction: listed.own.order.auction,
            filled: matched.units.to_sats(),
            self_balance: pair.bid_terms.self_balance,
            price: listed.price,
            duration: pair.bid.duration,
        };
        let fee = &self.prepare.execution_fee;
        let (delta, execution_fee) = if pair.maker {
            (terms.maker_delta(fee)?, terms.maker_execution_fee(fee)?)
        } else {
            (terms.taker_delta(fee)?, terms.taker_execution_fee(fee)?)
        };
        check_wishes(listed.own, matched, &pair)?;
        check_their_limit(listed, matched)?;
        let commitment = CommitmentType::of_pair(pair.ask.channel_type, pair.bid.channel_type);
        let shim = self.shim(listed, matched, &pair, commitment)?;
        self.check_their_size(ours, matched)?;
        let open = OpenChannel {
            node: matched.order.node,
            shim: shim.clone(),
            push: pair.bid_terms.self_balance,
            commitment,
            private: pair.bid_terms.unannounced,
            zero_conf: pair.bid_terms.zero_conf,
        };
        self.done.matches.push(VerifiedMatch {
            ours,
            theirs,
            account: listed.account.key(),
            node: matched.order.node,
            addresses: matched.order.addresses.clone(),
            units: matched.units,
            clearing_price: listed.price,
            duration: pair.bid.duration,
            maker: pair.maker,
            self_balance: pair.bid_terms.self_balance,
            premium: terms.premium()?,
            execution_fee,
            shim,
            open,
            acceptor: AcceptorRule::for_bid(pair.bid_terms, pair.bid.channel_type),
        });
        Ok(delta)
    }

    /// What both orders must agree on, and that the other side is really another.
    fn check_pair(&self, listed: &Listed<'a>, matched: &'a Match) -> Result<Pair<'a>, VerifyError> {
        let (own, other) = (&listed.own.order, &matched.order);
        let (ours, theirs) = (own.nonce, other.order.nonce);
        let pair = pair(own, &other.order).ok_or(VerifyError::SameSide { ours, theirs })?;
        if own.auction != other.order.auction {
            return Err(VerifyError::AuctionType { order: ours, expected: own.auction, found: other.order.auction });
        }
        if other.node == self.view.node {
            return Err(VerifyError::OwnNode { order: ours });
        }
        for found in [listed.duration, other.order.duration] {
            if found != own.duration {
                return Err(VerifyError::Duration { order: ours, expected: own.duration, found });
            }
        }
        if pair.ask.rate > pair.bid.rate {
            return Err(VerifyError::Price { ask: pair.ask.rate, bid: pair.bid.rate });
        }
        if self.view.accounts.contains_key(&other.order.account) {
            return Err(VerifyError::OwnAccount { order: ours, found: other.order.account });
        }
        if self.view.orders.contains_key(&theirs) {
            return Err(VerifyError::OwnOrder { order: ours, found: theirs });
        }
        if self.own_keys.contains(&without_parity(other.multisig.serialize())) {
            return Err(VerifyError::OwnKey { order: ours, found: other.multisig });
        }
        Ok(pair)
    }

    /// A match is no smaller than the other side allows, and all of them together take no more than it has.
    fn check_their_size(&mut self, ours: OrderNonce, matched: &Match) -> Result<(), VerifyError> {
        let other = &matched.order.order;
        let (theirs, expected, found) = (other.nonce, other.min_units.get(), matched.units.get());
        // In the outbound market the minimum is about the self balance, and theirs is their affair.
        if other.auction == AuctionType::Inbound && found < expected {
            return Err(VerifyError::TheirMinimum { ours, theirs, expected, found });
        }
        let taken = self.taken.entry(theirs).or_default();
        *taken = taken.checked_add(u64::from(found)).ok_or(UnitError::Overflow("units of their order"))?;
        let (expected, found) = (other.units()?.get(), *taken);
        if found > u64::from(expected) {
            return Err(VerifyError::TheirAmount { ours, theirs, expected, found });
        }
        Ok(())
    }

    /// Finds the output that funds the channel, which no other match may claim.
    fn shim(
        &mut self,
        listed: &Listed<'_>,
        matched: &Match,
        pair: &Pair<'_>,
        commitment: CommitmentType,
    ) -> Result<FundingShim, VerifyError> {
        let (ours, theirs) = (listed.own.order.nonce, matched.order.order.nonce);
        let pending_id = pending_channel_id(pair.ask.nonce, pair.bid.nonce);
        if !self.pending_ids.insert(pending_id) {
            return Err(VerifyError::SamePairTwice { ours, theirs });
        }
        let capacity = matched
            .units
            .to_sats()
            .checked_add(pair.bid_terms.self_balance)
            .ok_or(UnitError::Overflow("channel capacity"))?;
        let script = funding_script(MultisigKey::new(listed.own.multisig.point), matched.order.multisig, commitment)?;
        let found = self.outputs.get(script.as_script());
        let Found { index, value, twice } = *found.ok_or(VerifyError::ChannelOutputMissing { ours, theirs })?;
        if value != capacity.into() {
            return Err(VerifyError::ChannelOutputValue { index, expected: capacity, found: value });
        }
        if !self.claimed_outputs.insert(index) {
            return Err(VerifyError::ChannelOutputShared { index });
        }
        if twice {
            return Err(VerifyError::OutputTwice { index });
        }
        let thaw_height = commitment.thaw_height(pair.bid.duration, self.prepare.height_hint);
        Ok(FundingShim {
            pending_id,
            capacity,
            channel_point: OutPoint { txid: self.txid, vout: index },
            local_key: listed.own.multisig,
            remote_key: matched.order.multisig,
            thaw_height: thaw_height.ok_or(UnitError::Overflow("lease expiry"))?,
            musig2: commitment == CommitmentType::SimpleTaproot,
        })
    }
}

fn pair<'a>(own: &'a Order, other: &'a Order) -> Option<Pair<'a>> {
    match (&own.side, &other.side) {
        (OrderSide::Ask(ask_terms), OrderSide::Bid(bid_terms)) => {
            Some(Pair { ask: own, ask_terms, bid: other, bid_terms, maker: true })
        }
        (OrderSide::Bid(bid_terms), OrderSide::Ask(ask_terms)) => {
            Some(Pair { ask: other, ask_terms, bid: own, bid_terms, maker: false })
        }
        (OrderSide::Ask(_), OrderSide::Ask(_)) | (OrderSide::Bid(_), OrderSide::Bid(_)) => None,
    }
}

/// The order is still to be filled, and its account may take part in batches.
///
/// # Source
/// Protocol notes, accounts §3: an account whose expiry height is reached trades no more. Its state may not say so yet.
pub(super) fn check_own_state(
    nonce: OrderNonce,
    own: &OwnOrder,
    account: &Account,
    best: BlockHeight,
) -> Result<(), VerifyError> {
    if own.state.is_archived() {
        return Err(VerifyError::OrderArchived { order: nonce, found: own.state });
    }
    match account.state {
        AccountState::Open | AccountState::PendingBatch if account.terms.expiry <= best => {
            Err(VerifyError::AccountExpired { account: account.key(), expiry: account.terms.expiry, best })
        }
        AccountState::Open | AccountState::PendingBatch => Ok(()),
        AccountState::Initiated
        | AccountState::PendingOpen
        | AccountState::PendingUpdate
        | AccountState::Expired
        | AccountState::PendingClosed
        | AccountState::Closed
        | AccountState::CanceledAfterRecovery
        | AccountState::ExpiredPendingUpdate => {
            Err(VerifyError::AccountState { account: account.key(), found: account.state })
        }
    }
}

/// What we wish beyond the price: size, self balance, channel type, announcement, confirmation.
fn check_wishes(own: &OwnOrder, matched: &Match, pair: &Pair<'_>) -> Result<(), VerifyError> {
    let (ours, theirs) = (own.order.nonce, matched.order.order.nonce);
    let (expected, found) = (own.order.min_units.get(), matched.units.get());
    if matched.units == UnitCount::ZERO {
        return Err(VerifyError::EmptyMatch { ours, theirs });
    }
    if own.order.auction == AuctionType::Inbound && found < expected {
        return Err(VerifyError::MatchBelowMinimum { order: ours, expected, found });
    }
    let self_balance = pair.bid_terms.self_balance;
    // Where the taker funds the channel, the smallest match of an ask is about what the taker puts in.
    let smallest = own.order.min_units.to_sats();
    if pair.maker && own.order.auction == AuctionType::Outbound && self_balance < smallest {
        return Err(VerifyError::OutboundMinimum { order: ours, expected: smallest, found: self_balance });
    }
    if pair.maker && own.order.version <= LAST_VERSION_WITHOUT_PUSH && self_balance != Sats::ZERO {
        let version = own.order.version.number();
        return Err(VerifyError::SelfBalanceOnOldAsk { order: ours, version, found: self_balance });
    }
    if !pair.maker && pair.ask.version <= THEIR_LAST_VERSION_WITHOUT_PUSH && self_balance != Sats::ZERO {
        let version = pair.ask.version.number();
        return Err(VerifyError::SelfBalanceOnOldAsk { order: theirs, version, found: self_balance });
    }
    let commitment = CommitmentType::of_pair(pair.ask.channel_type, pair.bid.channel_type);
    let satisfied = match own.order.channel_type {
        OrderChannelType::PeerDependent => true,
        OrderChannelType::ScriptEnforced => commitment == CommitmentType::ScriptEnforcedLease,
        OrderChannelType::SimpleTaproot => commitment == CommitmentType::SimpleTaproot,
    };
    if !satisfied {
        return Err(VerifyError::ChannelType { order: ours, expected: own.order.channel_type, found: commitment });
    }
    if !announcement_matches(pair.ask_terms, pair.bid_terms) {
        let (expected, found) = (pair.ask_terms.announcement, pair.bid_terms.unannounced);
        return Err(VerifyError::Announcement { ours, theirs, expected, found });
    }
    if !confirmation_matches(pair.ask_terms, pair.bid_terms) {
        let (expected, found) = (pair.ask_terms.confirmation, pair.bid_terms.zero_conf);
        return Err(VerifyError::Confirmation { ours, theirs, expected, found });
    }
    Ok(())
}

/// The price is one that the other side can live with as well: else it will not sign, and the price was never cleared.
fn check_their_limit(listed: &Listed<'_>, matched: &Match) -> Result<(), VerifyError> {
    let (ours, other, found) = (listed.own.order.nonce, &matched.order.order, listed.price);
    let kept = if other.is_ask() { other.rate <= found } else { other.rate >= found };
    let (theirs, expected) = (other.nonce, other.rate);
    if kept { Ok(()) } else { Err(VerifyError::TheirLimit { ours, theirs, expected, found }) }
}

fn check_limit(nonce: OrderNonce, own: &Order, price: RatePerBillion) -> Result<(), VerifyError> {
    let kept = if own.is_ask() { own.rate <= price } else { own.rate >= price };
    if kept { Ok(()) } else { Err(VerifyError::ClearingPrice { order: nonce, expected: own.rate, found: price }) }
}

fn check_charges(nonce: OrderNonce, own: &OwnOrder, prepare: &Prepare) -> Result<(), VerifyError> {
    let (expected, found) = (own.order.max_batch_fee_rate, prepare.fee_rate);
    if found > expected {
        return Err(VerifyError::FeeRate { order: nonce, expected, found });
    }
    let (ceiling, charged) = (own.fee_ceiling, prepare.execution_fee);
    if charged.base > ceiling.base {
        return Err(VerifyError::ExecutionFeeBase { order: nonce, expected: ceiling.base, found: charged.base });
    }
    if charged.rate_ppm > ceiling.rate_ppm {
        return Err(VerifyError::ExecutionFeeRate {
            order: nonce,
            expected: ceiling.rate_ppm,
            found: charged.rate_ppm,
        });
    }
    Ok(())
}

/// The units left after `filled`.
fn check_not_overfilled(nonce: OrderNonce, own: &OwnOrder, filled: u64) -> Result<UnitCount, VerifyError> {
    let left = own.units_unfulfilled;
    let rest = u32::try_from(filled).ok().and_then(|filled| left.checked_sub(UnitCount::new(filled)));
    rest.ok_or(VerifyError::Overfilled { order: nonce, expected: left.get(), found: filled })
}

/// State of an order with these units left. Less than the smallest match can never be filled, but is remembered.
///
/// # Source
/// Protocol notes, batch §10.
fn ending_order(nonce: OrderNonce, own: &OwnOrder, left: UnitCount) -> EndingOrder {
    let done = left == UnitCount::ZERO || left < own.order.min_units;
    let state = if done { OrderState::Executed } else { OrderState::PartiallyFilled };
    EndingOrder { nonce, state, units_unfulfilled: left }
}
