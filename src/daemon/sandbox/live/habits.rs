//! How the simulated traders behave: plain rules with seeded prices, a dozen different ones, so that the agent meets a
//! market and not a mirror of itself.
//!
//! Pure: what a trader sees and draws → the one order it would like to have in the book.

use tidegate_sandbox::Random;

/// Rates are drawn within this share of their usual value, in percent.
const SPREAD_PERCENT: u64 = 20;
/// An order whose rate is this close to the wished one stays, in percent.
const STAYS_PERCENT: u32 = 3;
/// Largest and smallest rate that anybody here names.
const RATES: (u32, u32) = (50, 20_000);

/// A way to trade. Rates in ppb per block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Asks the same rate, always.
    Firm { rate: u32 },
    /// Asks a little less than the last clearing, but never less than this.
    Undercutter { floor: u32 },
    /// Starts high, and comes down at each clearing that passes it by.
    Patient { from: u32, floor: u32 },
    /// One large ask that wants large matches.
    Whale { rate: u32 },
    /// A merchant: customers use up its inbound capacity, and it bids more the longer it lacks some.
    Merchant { rate: u32, sats_per_block: u64, target_units: u32 },
    /// Bids for the same few units at every clearing.
    Regular { rate: u32, units: u32 },
    /// Bids low, and waits for a cheap day. It takes no dear batch.
    Bargain { rate: u32 },
    /// Nothing for a while, then a lot at once.
    Burst { rate: u32, every: u64 },
}

/// A simulated trader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) name: &'static str,
    pub(super) habit: Habit,
    /// What its account is opened with.
    pub(super) account_sats: u64,
}

const fn cast(name: &'static str, account_sats: u64, habit: Habit) -> Cast {
    Cast { name, habit, account_sats }
}

/// Everybody but the agent.
pub(super) const CAST: [Cast; 12] = [
    cast("anna", 300_000_000, Habit::Firm { rate: 1_800 }),
    cast("boris", 300_000_000, Habit::Firm { rate: 2_500 }),
    cast("chen", 200_000_000, Habit::Undercutter { floor: 1_800 }),
    cast("dora", 200_000_000, Habit::Undercutter { floor: 2_200 }),
    cast("emil", 250_000_000, Habit::Patient { from: 5_600, floor: 1_900 }),
    cast("fatou", 500_000_000, Habit::Whale { rate: 2_200 }),
    cast("gita", 20_000_000, Habit::Merchant { rate: 4_000, sats_per_block: 180_000, target_units: 120 }),
    cast("hugo", 20_000_000, Habit::Merchant { rate: 3_200, sats_per_block: 90_000, target_units: 60 }),
    cast("ines", 15_000_000, Habit::Regular { rate: 2_900, units: 12 }),
    cast("jonas", 15_000_000, Habit::Bargain { rate: 2_000 }),
    cast("kira", 25_000_000, Habit::Burst { rate: 5_000, every: 5 }),
    cast("liam", 10_000_000, Habit::Merchant { rate: 2_600, sats_per_block: 30_000, target_units: 25 }),
];

/// What a trader sees when it decides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// Rate of the last clearing.
    pub(super) last_rate: Option<u32>,
    /// Clearings since its last fill.
    pub(super) silent: u32,
    /// Clearings since its start.
    pub(super) round: u64,
    /// What can still be paid to it through leased channels, in satoshi.
    pub(super) inbound_sats: u64,
}

/// An order as a trader would like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wished {
    pub(super) ask: bool,
    pub(super) rate: u32,
    pub(super) units: u32,
    pub(super) min_units: u32,
    /// Highest chain fee rate of a batch, in sat/kW.
    pub(super) max_fee_rate: u64,
}

fn of_percent(rate: u32, percent: u64) -> u32 {
    let scaled = u64::from(rate).saturating_mul(percent) / 100;
    u32::try_from(scaled).unwrap_or(u32::MAX).clamp(RATES.0, RATES.1)
}

impl Habit {
    /// The habit with rates that the draws chose.
    pub(super) fn drawn(self, random: &mut Random) -> Habit {
        let percent = random.between(100 - SPREAD_PERCENT, 100 + SPREAD_PERCENT);
        let own = |rate| of_percent(rate, percent);
        match self {
            Habit::Firm { rate } => Habit::Firm { rate: own(rate) },
            Habit::Undercutter { floor } => Habit::Undercutter { floor: own(floor) },
            Habit::Patient { from, floor } => Habit::Patient { from: own(from), floor: own(floor) },
            Habit::Whale { rate } => Habit::Whale { rate: own(rate) },
            Habit::Merchant { rate, sats_per_block, target_units } => {
                Habit::Merchant { rate: own(rate), sats_per_block, target_units }
            }
            Habit::Regular { rate, units } => Habit::Regular { rate: own(rate), units },
            Habit::Bargain { rate } => Habit::Bargain { rate: own(rate) },
            Habit::Burst { rate, every } => Habit::Burst { rate: own(rate), every },
        }
    }

    /// Whether it sells.
    pub(super) fn sells(self) -> bool {
        match self {
            Habit::Firm { .. } | Habit::Undercutter { .. } | Habit::Patient { .. } | Habit::Whale { .. } => true,
            Habit::Merchant { .. } | Habit::Regular { .. } | Habit::Bargain { .. } | Habit::Burst { .. } => false,
        }
    }

    /// What its customers pay it per block, in satoshi.
    pub(super) fn receipts(self) -> u64 {
        match self {
            Habit::Merchant { sats_per_block, .. } => sats_per_block,
            Habit::Regular { .. } | Habit::Bargain { .. } | Habit::Burst { .. } => 20_000,
            Habit::Firm { .. } | Habit::Undercutter { .. } | Habit::Patient { .. } | Habit::Whale { .. } => 0,
        }
    }

    /// The order that it would like to have; nothing when it wants none.
    pub(super) fn wish(self, sight: Sight, random: &mut Random) -> Option<Wished> {
        let ask = |rate, units, min_units| Wished { ask: true, rate, units, min_units, max_fee_rate: 12_500 };
        let bid = |rate, units| Wished { ask: false, rate, units, min_units: 1, max_fee_rate: 12_500 };
        let silent = u64::from(sight.silent);
        Some(match self {
            Habit::Firm { rate } => ask(rate, 20, 1),
            Habit::Undercutter { floor } => {
                let last = sight.last_rate.unwrap_or(floor.saturating_mul(2));
                ask(of_percent(last, 97).max(floor), 20, 1)
            }
            Habit::Patient { from, floor } => {
                ask(of_percent(from, 100_u64.saturating_sub(silent.saturating_mul(7)).max(1)).max(floor), 20, 2)
            }
            Habit::Whale { rate } => ask(rate, 150, 30),
            Habit::Merchant { rate, target_units, .. } => {
                let held = u32::try_from(sight.inbound_sats / 100_000).unwrap_or(u32::MAX);
                let missing = target_units.saturating_sub(held);
                if missing < target_units / 8 {
                    return None;
                }
                bid(of_percent(rate, 70_u64.saturating_add(silent.saturating_mul(6)).min(130)), missing.clamp(1, 40))
            }
            Habit::Regular { rate, units } => bid(of_percent(rate, random.between(95, 105)), units),
            Habit::Bargain { rate } => {
                Wished { max_fee_rate: 1_000, ..bid(of_percent(rate, random.between(85, 110)), 20) }
            }
            Habit::Burst { rate, every } => {
                if !sight.round.is_multiple_of(every.max(1)) {
                    return None;
                }
                bid(rate, u32::try_from(random.between(25, 60)).unwrap_or(25))
            }
        })
    }
}

/// Whether a standing order is close enough to what is wished now.
pub(super) fn stays(wished: &Wished, rate: u32, open_units: u32) -> bool {
    let near = rate.abs_diff(wished.rate).saturating_mul(100) <= wished.rate.saturating_mul(STAYS_PERCENT);
    near && open_units >= wished.units / 2 && open_units >= wished.min_units
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_dozen_traders_of_different_kinds_meet_in_price() {
        let names: BTreeSet<&str> = CAST.iter().map(|trader| trader.name).collect();
        assert_eq!(names.len(), 12);
        let kinds: BTreeSet<_> =
            CAST.iter().map(|trader| core::mem::discriminant(&trader.habit)).map(|kind| format!("{kind:?}")).collect();
        assert_eq!(kinds.len(), 8);
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let wishes: Vec<Wished> = CAST
                .iter()
                .filter_map(|trader| {
                    trader.habit.drawn(&mut random).wish(Sight { silent: 6, ..Sight::default() }, &mut random)
                })
                .collect();
            let lowest = wishes.iter().filter(|wish| wish.ask).map(|wish| wish.rate).min();
            let highest = wishes.iter().filter(|wish| !wish.ask).map(|wish| wish.rate).max();
            assert!(lowest < highest, "seed {seed}: {wishes:?}");
        }
    }

    #[test]
    fn patience_lowers_an_ask_and_raises_a_bid() {
        let mut random = Random::new(1);
        let rates = |habit: Habit, random: &mut Random| {
            [0, 3, 30].map(|silent| habit.wish(Sight { silent, ..Sight::default() }, random).map(|wish| wish.rate))
        };
        let patient = Habit::Patient { from: 2_000, floor: 900 };
        assert_eq!(rates(patient, &mut random), [Some(2_000), Some(1_580), Some(900)]);
        let merchant = Habit::Merchant { rate: 1_000, sats_per_block: 1, target_units: 10 };
        assert_eq!(rates(merchant, &mut random), [Some(700), Some(880), Some(1_300)]);
        let served = Sight { inbound_sats: 1_000_000, ..Sight::default() };
        assert_eq!(merchant.wish(served, &mut random), None, "it has what it wants");
        let undercutter = Habit::Undercutter { floor: 800 };
        let after = |last_rate| Sight { last_rate, ..Sight::default() };
        assert_eq!(undercutter.wish(after(Some(1_000)), &mut random).map(|wish| wish.rate), Some(970));
        assert_eq!(undercutter.wish(after(Some(500)), &mut random).map(|wish| wish.rate), Some(800));
    }

    #[test]
    fn an_order_stays_while_it_is_close_and_large_enough() {
        let wished = Wished { ask: true, rate: 1_000, units: 40, min_units: 1, max_fee_rate: 1_000 };
        assert!(stays(&wished, 1_030, 20) && stays(&wished, 970, 40));
        assert!(!stays(&wished, 1_031, 40) && !stays(&wished, 1_000, 19));
    }
}
