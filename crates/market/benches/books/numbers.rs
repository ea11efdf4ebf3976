//! Random numbers, the same on every machine.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).expect("a rest below 32 bits")
    }

    /// True with a chance of `percent`.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let bound = u32::try_from(all.len()).expect("few");
        &all[usize::try_from(self.below(bound)).expect("an index")]
    }

    /// Failures before a success of chance one in `mean`.
    pub(super) fn geometric(&mut self, mean: u32) -> u32 {
        let mut count = 0;
        while count < 20 * mean && self.below(mean) != 0 {
            count += 1;
        }
        count
    }

    /// About lognormal (sigma 0.45): twelve factors, each from 4/5 to 5/4 with equal logarithmic weight on both sides.
    pub(super) fn around(&mut self, median: u32) -> u32 {
        let scaled = (0..12).fold(u64::from(median) << 20, |product, _| {
            let (factor, up) = (u64::from(1_000 + self.below(251)), self.chance(50));
            if up { product * factor / 1_000 } else { product * 1_000 / factor }
        });
        u32::try_from(scaled >> 20).expect("at most 15 times the median")
    }
}
