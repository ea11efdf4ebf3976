//! The asks of one kind, cheapest first, with a tree that finds the next one of a wanted size.

/// Asks that are looked at one by one below the leaves of the tree.
const BLOCK: usize = 16;
/// Most groups by smallest match.
const BANDS: usize = 16;

/// What an ask must have to be of use for a bid at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// At least so many units left.
    pub(super) least_left: u32,
    /// A smallest match of at most so many units.
    pub(super) most_min: u32,
}

/// Asks of one kind in order of their rank, and a tree over blocks of them.
///
/// A node of the tree knows, for each band `b`, the most units that an ask below it with a smallest match in the bands
/// `0..=b` has left: one comparison tells whether to descend. The bands are the distinct smallest matches while these
/// are few, else quantiles; only then a descent can be in vain.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    ranks: Vec<u32>,
    left: Vec<u32>,
    min: Vec<u32>,
    band: Vec<u8>,
    /// Lowest smallest match of each band.
    floors: Vec<u32>,
    /// Number of leaves, a power of two.
    leaves: usize,
    /// Node `i` (root 1, children `2i` and `2i + 1`) has the places from `i * floors.len()` on.
    most: Vec<u32>,
    /// Asks from here on are too dear for all bids to come.
    end: usize,
}

impl Shelf {
    /// A shelf of (rank, units left, smallest match), by rank. An ask that can not be filled any more has nothing left.
    pub(super) fn new(asks: &[(u32, u32, u32)]) -> Shelf {
        let min: Vec<u32> = asks.iter().map(|(_, _, min)| *min).collect();
        let floors = floors(&min);
        let band = min.iter().map(|min| u8::try_from(band_of(&floors, *min)).expect("fewer than 256 bands")).collect();
        let leaves = asks.len().div_ceil(BLOCK).next_power_of_two();
        let mut shelf = Shelf {
            ranks: asks.iter().map(|(rank, _, _)| *rank).collect(),
            left: asks.iter().map(|(_, left, _)| *left).collect(),
            min,
            band,
            most: vec![0; 2 * leaves * floors.len()],
            floors,
            leaves,
            end: asks.len(),
        };
        for block in 0..asks.len().div_ceil(BLOCK) {
            shelf.sum_up_block(block);
        }
        for node in (1..leaves).rev() {
            shelf.sum_up_node(node);
        }
        shelf
    }

    /// Rank of the ask at `slot`.
    pub(super) fn rank(&self, slot: usize) -> u32 {
        self.ranks[slot]
    }

    /// Leaves out the asks of rank `limit` and above, now and later: bids come with falling rates.
    pub(super) fn limit(&mut self, limit: u32) {
        while self.end > 0 && self.ranks[self.end - 1] >= limit {
            self.end -= 1;
        }
    }

    /// Sets what the ask at `slot` has left.
    pub(super) fn set_left(&mut self, slot: usize, left: u32) {
        self.left[slot] = left;
        let block = slot / BLOCK;
        let mut node = self.leaves + block;
        let mut changed = self.sum_up_block(block);
        while changed && node > 1 {
            node /= 2;
            changed = self.sum_up_node(node);
        }
    }

    /// The first ask from slot `from` on that is as needed. Adds the nodes and asks looked at to `work`.
    pub(super) fn next(&self, from: usize, need: Need, work: &mut u64) -> Option<usize> {
        if from >= self.end || self.floors[0] > need.most_min {
            return None;
        }
        let column = band_of(&self.floors, need.most_min);
        let mut node = self.leaves + from / BLOCK;
        *work += 1;
        if self.may_have(node, column, need)
            && let Some(slot) = self.scan(from, need, work)
        {
            return Some(slot);
        }
        loop {
            // Up to the next subtree on the right, then down to its first leaf with enough.
            node >>= node.trailing_ones();
            if node == 0 {
                return None;
            }
            node += 1;
            *work += 1;
            if !self.may_have(node, column, need) {
                continue;
            }
            while node < self.leaves {
                node *= 2;
                *work += 1;
                if !self.may_have(node, column, need) {
                    node += 1;
                }
            }
            let start = (node - self.leaves) * BLOCK;
            if start >= self.end {
                return None;
            }
            if let Some(slot) = self.scan(start, need, work) {
                return Some(slot);
            }
        }
    }

    fn may_have(&self, node: usize, column: usize, need: Need) -> bool {
        self.most[node * self.floors.len() + column] >= need.least_left
    }

    /// The first ask as needed from `start` to the end of its block.
    fn scan(&self, start: usize, need: Need, work: &mut u64) -> Option<usize> {
        let end = ((start / BLOCK + 1) * BLOCK).min(self.end);
        let fits = |(left, min): (&u32, &u32)| *left >= need.least_left && *min <= need.most_min;
        let found = self.left[start..end].iter().zip(&self.min[start..end]).position(fits);
        *work += u64::try_from(found.map_or(end - start, |at| at + 1)).unwrap_or(u64::MAX);
        found.map(|at| start + at)
    }

    /// Computes a leaf anew; whether it changed.
    fn sum_up_block(&mut self, block: usize) -> bool {
        let bands = self.floors.len();
        let slots = block * BLOCK..((block + 1) * BLOCK).min(self.left.len());
        let mut sums = [0u32; BANDS];
        for (left, band) in self.left[slots.clone()].iter().zip(&self.band[slots]) {
            let sum = &mut sums[usize::from(*band)];
            *sum = (*sum).max(*left);
        }
        let mut most = 0;
        for sum in &mut sums {
            most = most.max(*sum);
            *sum = most;
        }
        let at = (self.leaves + block) * bands;
        replace(&mut self.most[at..at + bands], &sums)
    }

    /// Computes an inner node anew; whether it changed.
    fn sum_up_node(&mut self, node: usize) -> bool {
        let bands = self.floors.len();
        let (above, below) = self.most.split_at_mut(2 * node * bands);
        let (left, right) = below.split_at(bands);
        let mut sums = [0u32; BANDS];
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum = *left.max(right);
        }
        replace(&mut above[node * bands..(node + 1) * bands], &sums)
    }
}

fn replace(old: &mut [u32], new: &[u32; BANDS]) -> bool {
    let new = &new[..old.len()];
    let changed = old != new;
    old.copy_from_slice(new);
    changed
}

/// The last band whose floor is at most `min`.
fn band_of(floors: &[u32], min: u32) -> usize {
    floors.partition_point(|floor| *floor <= min).saturating_sub(1)
}

/// At most [`BANDS`] values that divide the smallest matches evenly: all distinct ones when these are few.
fn floors(min: &[u32]) -> Vec<u32> {
    let mut sorted = min.to_vec();
    sorted.sort_unstable();
    let mut distinct = sorted.clone();
    distinct.dedup();
    if distinct.len() > BANDS {
        distinct = (0..BANDS).map(|band| sorted[band * sorted.len() / BANDS]).collect();
        distinct.dedup();
    }
    if distinct.is_empty() {
        distinct.push(0);
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(asks: &[(u32, u32, u32)], from: usize, end: usize, need: Need) -> Option<usize> {
        (from..end).find(|slot| asks[*slot].1 >= need.least_left && asks[*slot].2 <= need.most_min)
    }

    #[test]
    fn an_empty_shelf_has_nothing() {
        let shelf = Shelf::new(&[]);
        assert_eq!(shelf.next(0, Need { least_left: 1, most_min: 9 }, &mut 0), None);
    }

    proptest! {
        #[test]
        fn finds_what_a_walk_finds(
            sizes in prop::collection::vec((0u32..40, 0u32..40), 1..300),
            queries in prop::collection::vec((0usize..300, 1u32..40, 0u32..45, 0usize..300, 0u32..40), 1..60),
            cut in 0u32..300,
        ) {
            let mut asks: Vec<_> = (0u32..).zip(&sizes).map(|(rank, (left, min))| (rank, *left, *min)).collect();
            let mut shelf = Shelf::new(&asks);
            for (at, (from, least_left, most_min, slot, left)) in queries.iter().enumerate() {
                if at == queries.len() / 2 {
                    shelf.limit(cut);
                }
                let end = if at >= queries.len() / 2 { asks.len().min(usize::try_from(cut).unwrap()) } else { asks.len() };
                let need = Need { least_left: *least_left, most_min: *most_min };
                prop_assert_eq!(shelf.next(*from, need, &mut 0), plain(&asks, *from, end, need));
                let slot = slot % asks.len();
                asks[slot].1 = *left;
                shelf.set_left(slot, *left);
            }
        }
    }
}
