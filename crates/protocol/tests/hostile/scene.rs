//! An honest conversation with one trader, and the tools to break it in one place.

use crate::generator::book::UNIT;
use crate::generator::draw::Draw;
use crate::generator::money::{Terms, chain_fee, outcome, signed};
use crate::generator::proposal::{DUST, Local, Proposal, commitment, sort_outputs};
use crate::generator::scripts::{point, secret};
use tidegate_protocol::account::{Account, AccountTerms};
use tidegate_protocol::batch::{AccountDiff, EndingState, Finalize, Match, Prepare, SignBegin};
use tidegate_protocol::bitcoin::secp256k1::PublicKey;
use tidegate_protocol::bitcoin::{Amount, ScriptBuf, TxOut};
use tidegate_protocol::channel::{CommitmentType, funding_script};
use tidegate_protocol::keys::{AccountKey, MultisigKey, OrderNonce};
use tidegate_protocol::order::{AskTerms, BidTerms, Order, OrderSide, OwnOrder};
use tidegate_protocol::units::{BlockCount, Sats};

/// Where a match stands in the message.
pub(crate) type Place = (BlockCount, OrderNonce, usize);

/// What one trader knows, and what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) draw: Draw,
    pub(crate) local: Local,
    pub(crate) prepare: Prepare,
    pub(crate) sign: SignBegin,
    pub(crate) finalize: Finalize,
}

impl Scene {
    pub(crate) fn of(proposal: &Proposal, seed: u64) -> Scene {
        Scene {
            draw: Draw::new(seed),
            local: proposal.local.clone(),
            prepare: proposal.prepare.clone(),
            sign: proposal.sign.clone(),
            finalize: proposal.finalize.clone(),
        }
    }

    pub(crate) fn stranger(&mut self) -> PublicKey {
        point(&secret(&mut self.draw))
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (duration, market) in &self.prepare.markets {
            for (nonce, matches) in &market.orders {
                places.extend((0..matches.len()).map(|index| (*duration, *nonce, index)));
            }
        }
        places
    }

    pub(crate) fn place(&mut self) -> Place {
        let places = self.places();
        self.draw.pick(&places)
    }

    /// A random match of which this holds.
    pub(crate) fn place_where(&mut self, holds: impl Fn(&OwnOrder, &Match) -> bool) -> Option<Place> {
        let mut places = self.places();
        places.retain(|place| holds(&self.local.orders[&place.1], self.look(*place)));
        (!places.is_empty()).then(|| self.draw.pick(&places))
    }

    pub(crate) fn look(&self, (duration, nonce, index): Place) -> &Match {
        &self.prepare.markets[&duration].orders[&nonce][index]
    }

    pub(crate) fn list(&mut self, (duration, nonce, _): Place) -> &mut Vec<Match> {
        self.prepare.markets.get_mut(&duration).unwrap().orders.get_mut(&nonce).unwrap()
    }

    pub(crate) fn at(&mut self, place: Place) -> &mut Match {
        let index = place.2;
        &mut self.list(place)[index]
    }

    pub(crate) fn other(&mut self, place: Place) -> &mut Order {
        &mut self.at(place).order.order
    }

    pub(crate) fn other_bid(&mut self, place: Place) -> Option<&mut BidTerms> {
        match &mut self.other(place).side {
            OrderSide::Bid(bid) => Some(bid),
            OrderSide::Ask(_) => None,
        }
    }

    pub(crate) fn other_ask(&mut self, place: Place) -> Option<&mut AskTerms> {
        match &mut self.other(place).side {
            OrderSide::Ask(ask) => Some(ask),
            OrderSide::Bid(_) => None,
        }
    }

    pub(crate) fn own(&mut self, place: Place) -> &mut OwnOrder {
        self.local.orders.get_mut(&place.1).unwrap()
    }

    /// The account behind a match.
    pub(crate) fn account(&mut self, place: Place) -> &mut Account {
        let key = self.local.orders[&place.1].order.account;
        self.local.accounts.get_mut(&key).unwrap()
    }

    /// A random change of an account that lives on, or of one that ends.
    pub(crate) fn change(&mut self, recreated: bool) -> Option<usize> {
        let fits = |diff: &AccountDiff| (diff.ending_state == EndingState::Recreated) == recreated;
        let all: Vec<usize> = (0..self.prepare.accounts.len()).filter(|at| fits(&self.prepare.accounts[*at])).collect();
        (!all.is_empty()).then(|| self.draw.pick(&all))
    }

    pub(crate) fn diff(&mut self, change: usize) -> &mut AccountDiff {
        &mut self.prepare.accounts[change]
    }

    pub(crate) fn stored(&self, change: usize) -> &Account {
        &self.local.accounts[&self.prepare.accounts[change].account]
    }

    /// The recreated output.
    pub(crate) fn output(&mut self, change: usize) -> &mut TxOut {
        let index = usize::try_from(self.prepare.accounts[change].output_index.unwrap()).unwrap();
        &mut self.prepare.transaction.output[index]
    }

    /// The account's input.
    pub(crate) fn input(&self, key: AccountKey) -> usize {
        let outpoint = self.local.accounts[&key].outpoint;
        self.prepare.transaction.input.iter().position(|input| Some(input.previous_output) == outpoint).unwrap()
    }

    /// An input that is not ours.
    pub(crate) fn foreign_input(&self) -> usize {
        let ours: Vec<_> = self.local.accounts.values().filter_map(|account| account.outpoint).collect();
        self.prepare.transaction.input.iter().position(|input| !ours.contains(&input.previous_output)).unwrap()
    }

    pub(crate) fn pair_commitment(&self, place: Place) -> CommitmentType {
        commitment(self.local.orders[&place.1].order.channel_type, self.look(place).order.order.channel_type)
    }

    pub(crate) fn funding(&self, place: Place, commitment: CommitmentType) -> ScriptBuf {
        let ours = MultisigKey::new(self.local.orders[&place.1].multisig.point);
        funding_script(ours, self.look(place).order.multisig, commitment).unwrap()
    }

    /// The output that funds a match.
    pub(crate) fn channel(&mut self, place: Place) -> &mut TxOut {
        let script = self.funding(place, self.pair_commitment(place));
        self.prepare.transaction.output.iter_mut().find(|output| output.script_pubkey == script).unwrap()
    }

    fn bid_balance(&self, place: Place) -> u64 {
        let (own, other) = (&self.local.orders[&place.1].order, &self.look(place).order.order);
        own.self_balance().get() + other.self_balance().get()
    }

    /// Makes the channel's output agree with what the match says now.
    pub(crate) fn fund(&mut self, place: Place) {
        let value = u64::from(self.look(place).units.get()) * UNIT + self.bid_balance(place);
        self.channel(place).value = Amount::from_sat(value);
        self.sort();
    }

    /// Puts the outputs into their order again.
    pub(crate) fn sort(&mut self) {
        let outputs = &self.prepare.transaction.output;
        let named = |(change, diff): (usize, &AccountDiff)| {
            let index = usize::try_from(diff.output_index?).unwrap();
            Some((change, outputs[index].script_pubkey.clone()))
        };
        let known: Vec<(usize, ScriptBuf)> = self.prepare.accounts.iter().enumerate().filter_map(named).collect();
        sort_outputs(&mut self.prepare.transaction.output);
        for (change, script) in known {
            let place = self.prepare.transaction.output.iter().position(|output| output.script_pubkey == script);
            self.diff(change).output_index = Some(u32::try_from(place.unwrap()).unwrap());
        }
    }

    /// Makes all balances agree with what the message says now, as a liar would who only lies once. Nothing when an
    /// account would not live on.
    pub(crate) fn rebalance(&mut self) -> Option<()> {
        for change in 0..self.prepare.accounts.len() {
            let (key, rate) = (self.prepare.accounts[change].account, self.prepare.fee_rate.get());
            let account = &self.local.accounts[&key];
            let mut balance = signed(account.value.get());
            let mut channels = 0;
            for place in self.places() {
                if self.local.orders[&place.1].order.account == key {
                    balance += self.delta(place);
                    channels += 1;
                }
            }
            balance -= signed(chain_fee(channels, rate, account.terms.version));
            self.set_balance(change, balance)?;
        }
        self.sort();
        Some(())
    }

    fn delta(&self, place: Place) -> i64 {
        let (own, market) = (&self.local.orders[&place.1].order, &self.prepare.markets[&place.0]);
        let terms = Terms {
            auction: own.auction,
            filled: u64::from(self.look(place).units.get()) * UNIT,
            self_balance: self.bid_balance(place),
            price: market.clearing_price.get(),
            duration: place.0.get(),
        };
        let fee = &self.prepare.execution_fee;
        let outcome = outcome(&terms, fee, fee);
        if own.is_ask() { outcome.maker } else { outcome.taker }
    }

    /// Reports a balance and pays it. The outputs are not sorted again.
    pub(crate) fn set_balance(&mut self, change: usize, balance: i64) -> Option<()> {
        let balance = u64::try_from(balance).ok().filter(|balance| *balance >= DUST)?;
        self.prepare.accounts[change].output_index?;
        self.diff(change).ending_balance = Sats::new(balance).unwrap();
        self.output(change).value = Amount::from_sat(balance);
        Some(())
    }

    /// Pays the account's output to a script with these terms instead.
    pub(crate) fn pay_to(&mut self, recreated: usize, edit: fn(&mut AccountTerms, PublicKey)) {
        let stranger = self.stranger();
        let mut terms = self.promised(recreated);
        edit(&mut terms, stranger);
        self.output(recreated).script_pubkey = terms.output_script().unwrap();
        self.sort();
    }

    /// The terms that an honest output has.
    pub(crate) fn promised(&self, recreated: usize) -> AccountTerms {
        let diff = &self.prepare.accounts[recreated];
        let mut terms = self.stored(recreated).terms.next().unwrap();
        terms.expiry = diff.new_expiry.unwrap_or(terms.expiry);
        if self.prepare.batch_version.upgrades_taproot() {
            terms.version = terms.version.max(diff.known_version().unwrap());
        }
        terms
    }

    /// Our previous output of a random account in the batch.
    pub(crate) fn own_prev(&mut self) -> &mut TxOut {
        let change = self.draw.index(self.prepare.accounts.len());
        let input = self.input(self.prepare.accounts[change].account);
        &mut self.sign.prev_outputs[input]
    }

    pub(crate) fn foreign_prev(&mut self) -> &mut TxOut {
        let input = self.foreign_input();
        &mut self.sign.prev_outputs[input]
    }

    /// A taproot account of ours in the batch.
    pub(crate) fn taproot_account(&self) -> Option<AccountKey> {
        self.sign.server_nonces.keys().next().copied()
    }
}
