//! Reading a fuzzer's bytes as choices. Total: an exhausted input reads as zeros.

/// Bytes not read yet.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Bytes<'a> {
        Bytes(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// At most `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn bytes32(&mut self) -> [u8; 32] {
        self.array()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A place in a list of `count` entries; 0 when it is empty.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.u16()).checked_rem(count).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number that is likely to be close to `value` or to the end of a range.
    pub(crate) fn near(&mut self, value: u64) -> u64 {
        match self.u8() % 10 {
            0 => value.saturating_add(1),
            1 => value.saturating_sub(1),
            2 => value.saturating_add(u64::from(self.u16())),
            3 => value.saturating_sub(u64::from(self.u16())),
            4 => 0,
            5 => u64::MAX,
            6 => u64::from(self.u32()),
            7 => value / 2,
            8 => value.saturating_mul(2),
            _ => self.u64(),
        }
    }

    /// As [`Bytes::near`], cut to 32 bits.
    pub(crate) fn near32(&mut self, value: u32) -> u32 {
        u32::try_from(self.near(value.into())).unwrap_or(u32::MAX)
    }
}
