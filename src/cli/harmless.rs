//! Texts of others, shown without harm.

/// Stands for a character that is not shown.
const HIDDEN: char = char::REPLACEMENT_CHARACTER;

/// One line without anything that a terminal obeys or that makes a reader see other text than is there: control characters
/// (so that an ANSI escape sequence is only its letters), line breaks of any kind, marks that turn the direction of
/// writing, characters without width, and tags. Each becomes a replacement character.
pub(crate) fn harmless(line: &str) -> String {
    line.chars().map(|c| if is_harmful(c) { HIDDEN } else { c }).collect()
}

/// As [`harmless`] for a text of ours that has several lines: their breaks stay.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_not_shown() {
        let rows = [
            ("plain", "batch 7 refused: fee > 3 %", "batch 7 refused: fee > 3 %"),
            ("other scripts stay", "Gebühr: 税 мало ₿", "Gebühr: 税 мало ₿"),
            ("colour", "\u{1b}[31mred\u{1b}[0m", "\u{fffd}[31mred\u{fffd}[0m"),
            ("title and bell", "\u{1b}]0;owned\u{7}", "\u{fffd}]0;owned\u{fffd}"),
            ("one-byte escape", "\u{9b}2J", "\u{fffd}2J"),
            ("a line of its own", "ok\r\nerror: none", "ok\u{fffd}\u{fffd}error: none"),
            ("line separator", "a\u{2028}b\u{2029}c\u{85}d", "a\u{fffd}b\u{fffd}c\u{fffd}d"),
            ("backspace", "100\u{8}\u{8}9", "100\u{fffd}\u{fffd}9"),
            ("turned direction", "\u{202e}001\u{202c}", "\u{fffd}001\u{fffd}"),
            ("isolates", "\u{2066}x\u{2069}\u{200f}", "\u{fffd}x\u{fffd}\u{fffd}"),
            ("no width", "pa\u{200b}id\u{feff}", "pa\u{fffd}id\u{fffd}"),
            ("tags", "a\u{e0041}", "a\u{fffd}"),
        ];
        for (name, text, shown) in rows {
            assert_eq!(harmless(text), shown, "{name}");
        }
    }

    #[test]
    fn the_lines_of_our_own_text_stay() {
        assert_eq!(harmless_lines("a\tb\nc\u{1b}d\n"), "a\u{fffd}b\nc\u{fffd}d\n");
    }
}
