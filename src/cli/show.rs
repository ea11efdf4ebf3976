//! How results look to a person: numbers with their units, lists of facts, and tables of at most 80 columns.

use super::units::BLOCKS_PER_DAY;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Columns that a terminal has at least.
pub(super) const WIDTH: u16 = 80;
/// Digits of a key or nonce that tables show; commands take as many, or fewer.
const SHORT: usize = 12;

/// A whole number in groups of three digits: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same with a sign.
pub(super) fn signed(number: i128) -> String {
    let text = grouped(u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX));
    if number < 0 { format!("-{text}") } else { text }
}

/// `1,234 sat`.
pub(super) fn sats(number: u64) -> String {
    format!("{} sat", grouped(number))
}

/// Millionths of a percent as a percentage with two decimals, rounded to the nearest, or more of them when it is small.
pub(super) fn percent_micro(micro: i128) -> String {
    let (sign, micro) = (if micro < 0 { "-" } else { "" }, micro.unsigned_abs());
    let (places, unit) = if micro == 0 || micro >= 100_000 { (2, 10_000) } else { (4, 100) };
    let rounded = (micro + unit / 2) / unit;
    let scale = 10u128.pow(places);
    let width = usize::try_from(places).unwrap_or(2);
    format!("{sign}{}.{:0width$} %", rounded / scale, rounded % scale)
}

/// A part as a percentage of the whole; nothing of nothing is a dash.
pub(super) fn share(part: i128, whole: u64) -> String {
    share_micro(part, whole).map_or_else(|| "-".to_owned(), percent_micro)
}

/// The same in millionths of a percent.
pub(super) fn share_micro(part: i128, whole: u64) -> Option<i128> {
    part.checked_mul(100_000_000)?.checked_div(i128::from(whole))
}

/// Blocks with what they are in days: `4,320 blocks (30 days)`.
pub(super) fn blocks(count: u32) -> String {
    format!("{} block{} ({})", grouped(count.into()), if count == 1 { "" } else { "s" }, days(count))
}

/// Blocks as days, to the tenth.
pub(super) fn days(count: u32) -> String {
    let tenths = (u64::from(count) * 10 + u64::from(BLOCKS_PER_DAY) / 2) / u64::from(BLOCKS_PER_DAY);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    match (whole, tenth) {
        (1, 0) => "1 day".to_owned(),
        (whole, 0) => format!("{} days", grouped(whole)),
        (whole, tenth) => format!("{}.{tenth} days", grouped(whole)),
    }
}

/// A chain fee rate: `10.0 sat/vB`.
pub(super) fn fee_rate(sat_per_kw: u64) -> String {
    let tenths = (u128::from(sat_per_kw) * 10 + 125) / 250;
    format!("{}.{} sat/vB", tenths / 10, tenths % 10)
}

/// The first digits of a long hexadecimal name.
pub(super) fn short(hex: &str) -> String {
    hex.chars().take(SHORT).collect()
}

/// Unix seconds as a date in UTC; nothing for 0.
pub(super) fn time(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().filter(|s| *s > 0).and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M UTC").to_string())
}

/// Names and values, one pair a line, values in one column.
pub(super) fn facts(title: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = title.to_owned();
    for (name, value) in rows {
        text.push_str(format!("\n  {name:<width$}  {value}").trim_end());
    }
    text
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with these columns; `empty` is said when there is no row.
pub(super) fn table(columns: &[(&str, Align)], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(columns.iter().map(|(name, _)| *name));
    for row in rows {
        table.add_row(row);
    }
    let widths = table.column_max_content_widths();
    let fits =
        |gap: u16| widths.iter().fold(0u16, |sum, width| sum.saturating_add(*width).saturating_add(gap)) <= WIDTH;
    // A narrower gap only where it saves the table from breaking its cells.
    let gap = if !fits(2) && fits(1) { 1 } else { 2 };
    for (index, (_, align)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, gap));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let rows = [
            (grouped(0), "0"),
            (grouped(999), "999"),
            (grouped(1_000), "1,000"),
            (grouped(1_234_567), "1,234,567"),
            (signed(-1_234), "-1,234"),
            (sats(5_000_000), "5,000,000 sat"),
            (blocks(4_320), "4,320 blocks (30 days)"),
            (blocks(1), "1 block (0 days)"),
            (days(144), "1 day"),
            (days(216), "1.5 days"),
            (fee_rate(253), "1.0 sat/vB"),
            (fee_rate(2_500), "10.0 sat/vB"),
            (fee_rate(625), "2.5 sat/vB"),
            (percent_micro(7_821_000), "7.82 %"),
            (percent_micro(-7_825_000), "-7.83 %"),
            (percent_micro(0), "0.00 %"),
            (percent_micro(12_345), "0.0123 %"),
            (percent_micro(-12_345), "-0.0123 %"),
            (percent_micro(100_000), "0.10 %"),
            (share(2_999, 1_000_000), "0.30 %"),
            (share(1, 0), "-"),
            (time(0), "-"),
            (time(1_767_225_600), "2026-01-01 00:00 UTC"),
            (short("0279be667ef9dcbbac55"), "0279be667ef9"),
        ];
        for (shown, expected) in rows {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn tables_fit_a_terminal() {
        let columns = [("name", Align::Left), ("amount", Align::Right), ("why", Align::Left)];
        let rows = vec![
            vec!["a".to_owned(), "1,000".to_owned(), "word ".repeat(60)],
            vec!["bcd".to_owned(), "5".to_owned(), "short".to_owned()],
        ];
        let shown = table(&columns, rows, "none");
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{shown}");
        assert!(shown.starts_with("name  amount  why"), "{shown}");
        assert!(shown.contains("\na      1,000  word word"), "{shown}");
        assert!(shown.contains("\nbcd        5  short"), "{shown}");
        assert_eq!(table(&columns, Vec::new(), "none"), "none");
    }

    #[test]
    fn facts_stand_in_columns() {
        let shown = facts("Open an account", &[("value", "5".to_owned()), ("chain fee", "6".to_owned())]);
        assert_eq!(shown, "Open an account\n  value      5\n  chain fee  6");
    }
}
