//! What a batch does to the balance of each account.

use crate::pairing::{Market, Pair};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_protocol::account::{AccountVersion, MIN_RECREATED_VALUE};
use tidegate_protocol::fees::{ExecutionFee, MatchTerms, chain_fee};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, SatsDelta, UnitError};

/// An account before the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountValue {
    /// Value of its output, in satoshi.
    pub value: Sats,
    /// Version of that output: decides its share of the chain fee.
    pub version: AccountVersion,
}

/// An account after the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledAccount {
    /// Value before, in satoshi.
    pub starting: Sats,
    /// Value after, in satoshi; also claimed when no output is made.
    pub ending: Sats,
    /// Channels that it gets.
    pub channels: u32,
    /// Its share of the chain fee.
    pub chain_fee: Sats,
    /// Its execution fees.
    pub execution_fee: Sats,
    /// Whether it gets a new output. Without one the rest goes to the miners.
    pub recreated: bool,
}

/// All accounts of a batch, settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The accounts.
    pub accounts: BTreeMap<AccountKey, SettledAccount>,
    /// Execution fees of both sides of all pairs, in satoshi.
    pub execution_fees: Sats,
    /// What the traders pay for the chain: their shares, and rests too small for an output.
    pub chain_fees: Sats,
}

/// A batch that cannot be settled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettlementError {
    /// An account cannot pay: its orders leave the round.
    #[error("account {account} can not pay for its matches: {short} sat too little")]
    PoorTrader {
        /// The account.
        account: AccountKey,
        /// Missing satoshis; the highest number when they are more than all bitcoin.
        short: i64,
    },
    /// A pair names an account that was not given.
    #[error("account {0} of a matched order is not part of the batch")]
    UnknownAccount(AccountKey),
    /// A quantity failed.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

#[derive(Default)]
struct Tally {
    delta: SatsDelta,
    channels: u32,
    execution_fee: Sats,
}

/// Settles the matched markets: ending balances as every trader will compute them.
///
/// # Errors
/// [`SettlementError`] by variant.
///
/// # Source
/// Protocol notes, auctioneer §9 and §10, batch §2.
pub fn settle(
    markets: &BTreeMap<BlockCount, Market>,
    accounts: &BTreeMap<AccountKey, AccountValue>,
    fee: &ExecutionFee,
    rate: SatPerKw,
) -> Result<Settlement, SettlementError> {
    settle_each(markets, accounts, &|_| *fee, rate)
}

/// As [`settle`], with a fee schedule for each account.
///
/// # Errors
/// [`SettlementError`] by variant.
pub fn settle_each(
    markets: &BTreeMap<BlockCount, Market>,
    accounts: &BTreeMap<AccountKey, AccountValue>,
    fee_of: &dyn Fn(AccountKey) -> ExecutionFee,
    rate: SatPerKw,
) -> Result<Settlement, SettlementError> {
    let mut tallies: BTreeMap<AccountKey, Tally> = BTreeMap::new();
    for (duration, market) in markets {
        for pair in &market.pairs {
            tally_pair(&mut tallies, pair, *duration, market.price, fee_of)?;
        }
    }
    let mut settled = BTreeMap::new();
    let mut impossible = None;
    for (key, tally) in tallies {
        let before = accounts.get(&key).ok_or(SettlementError::UnknownAccount(key))?;
        match settle_account(key, before, &tally, rate) {
            Ok(after) => drop(settled.insert(key, after)),
            // Who gets more bitcoin than exist gets them from somebody who cannot pay: that account has to leave.
            Err(SettlementError::Unit(error)) => impossible = Some(error),
            Err(other) => return Err(other),
        }
    }
    if let Some(error) = impossible {
        return Err(error.into());
    }
    let mut settlement = Settlement::default();
    for (key, after) in settled {
        let rest = if after.recreated { Sats::ZERO } else { after.ending };
        settlement.execution_fees = sum(settlement.execution_fees, after.execution_fee)?;
        settlement.chain_fees = sum(sum(settlement.chain_fees, after.chain_fee)?, rest)?;
        settlement.accounts.insert(key, after);
    }
    Ok(settlement)
}

fn tally_pair(
    tallies: &mut BTreeMap<AccountKey, Tally>,
    pair: &Pair,
    duration: BlockCount,
    price: RatePerBillion,
    fee_of: &dyn Fn(AccountKey) -> ExecutionFee,
) -> Result<(), SettlementError> {
    let terms = MatchTerms {
        auction: pair.bid.order.auction,
        filled: pair.units.to_sats(),
        self_balance: pair.bid.order.self_balance(),
        price,
        duration,
    };
    if let Err(UnitError::TooManySats(_)) = terms.premium() {
        // A premium of more than all bitcoin: an order of one trader must not fail the round of all.
        return Err(SettlementError::PoorTrader { account: pair.bid.order.account, short: i64::MAX });
    }
    let (asker, bidder) = (pair.ask.order.account, pair.bid.order.account);
    let (makers, takers) = (fee_of(asker), fee_of(bidder));
    let maker = (asker, terms.maker_delta(&makers)?, makers.on(terms.filled)?);
    let taker = (bidder, terms.taker_delta(&takers)?, takers.on(terms.premium_base()?)?);
    for (account, delta, execution_fee) in [maker, taker] {
        let tally = tallies.entry(account).or_default();
        tally.delta = tally.delta.checked_add(delta).ok_or(UnitError::Overflow("balance change"))?;
        tally.channels = tally.channels.checked_add(1).ok_or(UnitError::Overflow("channels"))?;
        tally.execution_fee = sum(tally.execution_fee, execution_fee)?;
    }
    Ok(())
}

fn settle_account(
    account: AccountKey,
    before: &AccountValue,
    tally: &Tally,
    rate: SatPerKw,
) -> Result<SettledAccount, SettlementError> {
    let chain_fee = chain_fee(tally.channels, rate, before.version)?;
    let ending = before
        .value
        .to_delta()
        .checked_add(tally.delta)
        .and_then(|balance| balance.checked_sub(chain_fee.to_delta()))
        .ok_or(UnitError::Overflow("ending balance"))?;
    let ending = match ending.to_sats() {
        Some(ending) => ending,
        None if ending < SatsDelta::ZERO => {
            return Err(SettlementError::PoorTrader { account, short: ending.get().saturating_neg() });
        }
        None => return Err(UnitError::TooManySats(u64::try_from(ending.get()).unwrap_or(u64::MAX)).into()),
    };
    Ok(SettledAccount {
        starting: before.value,
        ending,
        channels: tally.channels,
        chain_fee,
        execution_fee: tally.execution_fee,
        recreated: ending >= MIN_RECREATED_VALUE,
    })
}

fn sum(a: Sats, b: Sats) -> Result<Sats, UnitError> {
    a.checked_add(b).ok_or(UnitError::Overflow("sum of fees"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ask, bid, point};

    const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 };

    fn market(units: u32, price: u32) -> BTreeMap<BlockCount, Market> {
        let (ask, bid) = (ask(1, 1, price, units).submitted, bid(2, 2, price, units).submitted);
        let pair = Pair { ask, bid, units: tidegate_protocol::units::UnitCount::new(units) };
        let market = Market { price: RatePerBillion::new(price), pairs: vec![pair] };
        BTreeMap::from([(BlockCount::new(2016), market)])
    }

    fn accounts(maker: u64, taker: u64) -> BTreeMap<AccountKey, AccountValue> {
        let account = |number, value| {
            let value = AccountValue { value: Sats::new(value).unwrap(), version: AccountVersion::V2 };
            (AccountKey::new(point("account", number)), value)
        };
        BTreeMap::from([account(1, maker), account(2, taker)])
    }

    /// The worked example of the protocol notes, auctioneer §9, before chain fees.
    #[test]
    fn settles_the_worked_example() {
        let settled = settle(&market(10, 4960), &accounts(100_000_000, 100_000_000), &FEE, SatPerKw::new(0)).unwrap();
        let ending: Vec<u64> =
            [1, 2].map(|number| settled.accounts[&AccountKey::new(point("account", number))].ending.get()).to_vec();
        assert_eq!(ending, vec![99_008_998, 99_989_000]);
        assert_eq!(settled.execution_fees, Sats::constant(2002));
    }

    #[test]
    fn each_side_pays_by_its_own_schedule() {
        let maker = AccountKey::new(point("account", 1));
        let half = ExecutionFee { base: Sats::ZERO, rate_ppm: 500 };
        let fee_of = |account| if account == maker { half } else { FEE };
        let (markets, accounts) = (market(10, 4960), accounts(100_000_000, 100_000_000));
        let settled = settle_each(&markets, &accounts, &fee_of, SatPerKw::new(0)).unwrap();
        let fees: Vec<u64> = settled.accounts.values().map(|account| account.execution_fee.get()).collect();
        assert_eq!((fees.iter().sum::<u64>(), settled.accounts[&maker].execution_fee.get()), (1_501, 500));
        assert_eq!(settled.accounts[&maker].ending.get(), 99_008_998 + 501);
    }

    #[test]
    fn charges_each_account_its_share_of_the_chain() {
        let settled =
            settle(&market(10, 4960), &accounts(100_000_000, 100_000_000), &FEE, SatPerKw::new(1000)).unwrap();
        // 4 * (43 + 41 + 22) + 66 weight units at 1000 sat/kW.
        assert!(settled.accounts.values().all(|account| account.chain_fee == Sats::constant(490)));
        assert_eq!(settled.chain_fees, Sats::constant(980));
    }

    #[test]
    fn names_the_account_that_can_not_pay() {
        let needed = 1_000_000 - 9_999 + 1_001 + 490;
        let poor = settle(&market(10, 4960), &accounts(needed - 7, 100_000_000), &FEE, SatPerKw::new(1000));
        let account = AccountKey::new(point("account", 1));
        assert_eq!(poor, Err(SettlementError::PoorTrader { account, short: 7 }));
        assert!(settle(&market(10, 4960), &accounts(needed, 100_000_000), &FEE, SatPerKw::new(1000)).is_ok());
    }

    /// Otherwise one absurd bid would fail every round, or drive out the seller whom it promises too much.
    #[test]
    fn whoever_owes_more_bitcoin_than_exist_is_the_poor_one() {
        let taker = AccountKey::new(point("account", 2));
        let account_of = |settled| match settled {
            Err(SettlementError::PoorTrader { account, short }) if short > 0 => account,
            other => panic!("{other:?}"),
        };
        let beyond_all = settle(&market(u32::MAX, u32::MAX), &accounts(1, 100_000_000), &FEE, SatPerKw::new(253));
        assert_eq!(account_of(beyond_all), taker);
        let maker_overflows = accounts(Sats::MAX.get(), 100_000_000);
        let too_rich = settle(&market(10, u32::MAX), &maker_overflows, &FEE, SatPerKw::new(253));
        assert_eq!(account_of(too_rich), taker);
    }

    /// Nobody is poor then: the books are wrong.
    #[test]
    fn an_account_of_more_bitcoin_than_exist_is_no_poor_trader() {
        let full = accounts(Sats::MAX.get(), 100_000_000);
        // A premium of 2,016,000 for 1,000,000 sat, less fees of 1,001 and 122.
        let ending = Sats::MAX.get() + 2_016_000 - 1_000_000 - 1_001 - 122;
        let settled = settle(&market(10, 1_000_000), &full, &FEE, SatPerKw::new(250));
        assert_eq!(settled, Err(SettlementError::Unit(UnitError::TooManySats(ending))));
    }

    #[test]
    fn an_account_is_recreated_from_435_satoshi_on() {
        let needed = 1_000_000 - 9_999 + 1_001 + 490;
        for (rest, recreated, chain_fees) in [(434, false, 980 + 434), (435, true, 980)] {
            let rich = accounts(needed + rest, 100_000_000);
            let settled = settle(&market(10, 4960), &rich, &FEE, SatPerKw::new(1000)).unwrap();
            let maker = settled.accounts[&AccountKey::new(point("account", 1))];
            assert_eq!((maker.ending.get(), maker.recreated), (rest, recreated));
            assert_eq!(settled.chain_fees.get(), chain_fees);
        }
    }
}
