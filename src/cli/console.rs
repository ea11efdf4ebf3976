//! What a command says to, and hears from, its user.

use super::exit::Failure;
use super::harmless::harmless_lines;
use anyhow::Context as _;
use serde::Serialize;
use std::io::{BufRead, ErrorKind, Write};

/// The three streams of a command. Everything that is said passes [`harmless_lines`].
pub(crate) struct Console<'a> {
    /// Results.
    pub(crate) out: &'a mut dyn Write,
    /// Questions, quotes and remarks.
    pub(crate) err: &'a mut dyn Write,
    /// Answers to questions.
    pub(crate) input: &'a mut dyn BufRead,
    /// Somebody sits at both ends of a question.
    pub(crate) interactive: bool,
}

impl Console<'_> {
    /// Says a result. A reader that has seen enough (`| head`) is no failure.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        write_all(self.out, text).context("can not write to standard output")
    }

    /// Says a result as JSON, or as text for a person.
    ///
    /// # Errors
    /// As [`Console::say`].
    pub(super) fn answer<T: Serialize>(
        &mut self,
        json: bool,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if json { self.say(&serde_json::to_string_pretty(value)?) } else { self.say(&text(value)) }
    }

    /// Says something beside the result: on standard error, so that results stay clean.
    ///
    /// # Errors
    /// When standard error cannot be written.
    pub(super) fn remark(&mut self, text: &str) -> anyhow::Result<()> {
        write_all(self.err, text).context("can not write to standard error")
    }

    /// Shows what something costs, and goes on only with a yes: typed, or given beforehand.
    ///
    /// # Errors
    /// [`Failure::Usage`] when nobody can be asked, [`Failure::Refused`] when the answer is not yes.
    pub(super) fn confirm(&mut self, quote: &str, yes: bool) -> anyhow::Result<()> {
        self.remark(quote)?;
        if yes {
            return Ok(());
        }
        if !self.interactive {
            let sentence = "nothing was done: nobody can be asked here. Add --yes to do it without a question";
            return Err(Failure::Usage(sentence.to_owned()).into());
        }
        write!(self.err, "Proceed? [y/N] ").and_then(|()| self.err.flush()).context("can not ask")?;
        let mut answer = String::new();
        self.input.read_line(&mut answer).context("can not read the answer")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::Refused("nothing was done, as you wished".to_owned()).into()),
        }
    }
}

fn write_all(to: &mut dyn Write, text: &str) -> std::io::Result<()> {
    let text = harmless_lines(text);
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(typed: &str, interactive: bool, yes: bool) -> (Result<(), u8>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err, input: &mut typed.as_bytes(), interactive };
        let outcome = console.confirm("it costs 7 sat", yes).map_err(|error| super::super::exit::code_of(&error));
        assert!(out.is_empty(), "results stay clean");
        (outcome, String::from_utf8(err).expect("text"))
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let rows = [
            ("y\n", true, false, Ok(())),
            ("YES\n", true, false, Ok(())),
            ("n\n", true, false, Err(1)),
            ("\n", true, false, Err(1)),
            ("", true, false, Err(1)),
            ("yes please\n", true, false, Err(1)),
            ("y\n", false, false, Err(2)),
            ("", false, true, Ok(())),
            ("n\n", true, true, Ok(())),
        ];
        for (typed, interactive, yes, expected) in rows {
            let (outcome, told) = confirm(typed, interactive, yes);
            assert_eq!(outcome, expected, "{typed:?} {interactive} {yes}");
            assert!(told.starts_with("it costs 7 sat\n"), "{told}");
            assert_eq!(told.contains("Proceed? [y/N]"), interactive && !yes, "{told}");
        }
    }

    #[test]
    fn whatever_is_said_is_harmless() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err, input: &mut "".as_bytes(), interactive: false };
        console.say("a\u{1b}[2J\nb").expect("written");
        console.answer(true, &["\u{202e}x"], |_| String::new()).expect("written");
        console.remark("c\u{7}").expect("written");
        let text = String::from_utf8([out, err].concat()).expect("text");
        assert_eq!(text, "a\u{fffd}[2J\nb\n[\n  \"\u{fffd}x\"\n]\nc\u{fffd}\n");
    }
}
