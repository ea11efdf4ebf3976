//! The one error of the harness: a sentence that says what was tried, what came back, and where the log is.

use std::fmt;

/// Why a step of an interop case could not be done. The text is shown to a person, never matched on.
pub(crate) struct Failure {
    text: String,
    /// Trying again cannot help.
    fatal: bool,
}

/// Result of every step of the harness.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), fatal: false }
    }

    /// A failure that ends all waiting at once.
    pub(crate) fn fatal(text: impl Into<String>) -> Self {
        Self { text: text.into(), fatal: true }
    }

    /// Whether trying again cannot help.
    pub(crate) fn is_fatal(&self) -> bool {
        self.fatal
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// A panic prints `Debug`; a quoted one-line string would hide the log tails in it.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

/// Adds "while doing what" to foreign errors.
pub(crate) trait Context<T> {
    /// Names the step that failed.
    fn context(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what())))
    }
}
