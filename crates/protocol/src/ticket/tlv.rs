//! Type-length-value streams: numbers in their shortest form, ascending types.
//!
//! # Source
//! BOLT 1, "Type-Length-Value Format" and "BigSize".

use super::TicketError;

/// Reads a number in its shortest form off the front.
fn read_big_size(bytes: &mut &[u8]) -> Result<u64, TicketError> {
    let (number, smallest) = match take::<1>(bytes)?[0] {
        0xfd => (u64::from(u16::from_be_bytes(take(bytes)?)), 0xfd),
        0xfe => (u64::from(u32::from_be_bytes(take(bytes)?)), 0x1_0000),
        0xff => (u64::from_be_bytes(take(bytes)?), 0x1_0000_0000),
        short => (u64::from(short), 0),
    };
    if number < smallest { Err(TicketError::NotMinimal) } else { Ok(number) }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], TicketError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(TicketError::Truncated)?;
    *bytes = rest;
    Ok(*head)
}

/// Appends a number in its shortest form.
fn write_big_size(out: &mut Vec<u8>, number: u64) {
    if let Ok(short) = u8::try_from(number)
        && short < 0xfd
    {
        out.push(short);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(0xfd);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(0xfe);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(0xff);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// The records of a stream, in its order.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    last: Option<u64>,
}

impl<'a> Records<'a> {
    /// Reads this stream.
    pub(super) fn of(stream: &'a [u8]) -> Records<'a> {
        Records { rest: stream, last: None }
    }

    fn read(&mut self) -> Result<(u64, &'a [u8]), TicketError> {
        let found = read_big_size(&mut self.rest)?;
        if let Some(after) = self.last.filter(|after| found <= *after) {
            return Err(TicketError::RecordOrder { after, found });
        }
        self.last = Some(found);
        let length = read_big_size(&mut self.rest)?;
        let length = usize::try_from(length).map_err(|_| TicketError::Truncated)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(TicketError::Truncated)?;
        self.rest = rest;
        Ok((found, value))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u64, &'a [u8]), TicketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// A value of a fixed length.
pub(super) fn exactly<const N: usize>(record: u64, value: &[u8]) -> Result<[u8; N], TicketError> {
    <[u8; N]>::try_from(value).map_err(|_| TicketError::RecordLength { record, expected: N, found: value.len() })
}

/// A stream under construction. The caller writes ascending types.
#[derive(Default)]
pub(super) struct Stream(Vec<u8>);

impl Stream {
    /// Appends a record.
    pub(super) fn record(&mut self, kind: u64, value: &[u8]) {
        write_big_size(&mut self.0, kind);
        write_big_size(&mut self.0, u64::try_from(value.len()).expect("lengths fit 64 bits"));
        self.0.extend_from_slice(value);
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BOLT 1, appendix A: number and its only form.
    #[test]
    fn numbers_have_one_form() {
        let rows: [(u64, &[u8]); 8] = [
            (0, &[0]),
            (252, &[0xfc]),
            (253, &[0xfd, 0, 0xfd]),
            (65_535, &[0xfd, 0xff, 0xff]),
            (65_536, &[0xfe, 0, 1, 0, 0]),
            (4_294_967_295, &[0xfe, 0xff, 0xff, 0xff, 0xff]),
            (4_294_967_296, &[0xff, 0, 0, 0, 1, 0, 0, 0, 0]),
            (u64::MAX, &[0xff; 9]),
        ];
        for (number, bytes) in rows {
            let mut out = Vec::new();
            write_big_size(&mut out, number);
            assert_eq!(out, bytes);
            let mut rest = bytes;
            assert_eq!((read_big_size(&mut rest), rest), (Ok(number), &[][..]));
        }
        let long: [&[u8]; 3] =
            [&[0xfd, 0, 0xfc], &[0xfe, 0, 0, 0xff, 0xff], &[0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]];
        for mut bytes in long {
            assert_eq!(read_big_size(&mut bytes), Err(TicketError::NotMinimal));
        }
        let short: [&[u8]; 7] = [&[], &[0xfd], &[0xfd, 0], &[0xfe, 0, 0, 0], &[0xff], &[0xff, 0, 0], &[0xff; 8]];
        for mut bytes in short {
            assert_eq!(read_big_size(&mut bytes), Err(TicketError::Truncated));
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_without_allocating() {
        let mut records = Records::of(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(records.next(), Some(Err(TicketError::Truncated)));
        assert_eq!(records.next(), None);
    }
}
