//! How a command ends: the exit codes, and the sentences that come with them.

use thiserror::Error;

/// A command that did not end well. The variant fixes the exit code; the text is a sentence for its user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    /// Refused or failed; nothing was changed unless the sentence says so.
    #[error("{0}")]
    Refused(String),
    /// The command line is wrong or incomplete; nothing was asked.
    #[error("{0}")]
    Usage(String),
    /// The agent does not answer, or is not ready to; nothing was asked of it that changes anything.
    #[error("{0}")]
    Unreachable(String),
    /// Whether it was done is not known, or only a part of it was.
    #[error("{0}")]
    Unknown(String),
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Unknown(_) => 4,
        }
    }
}

/// The exit code of any error: that of the [`Failure`] in it, else 1.
pub(super) fn code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failure>().map_or(1, Failure::code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_failure_keeps_its_code_under_a_context() {
        let rows = [
            (Failure::Refused(String::new()), 1),
            (Failure::Usage(String::new()), 2),
            (Failure::Unreachable(String::new()), 3),
            (Failure::Unknown(String::new()), 4),
        ];
        for (failure, code) in rows {
            let wrapped = Err::<(), _>(failure).context("while it went on").expect_err("it failed");
            assert_eq!(code_of(&wrapped), code);
        }
        assert_eq!(code_of(&anyhow::anyhow!("anything else")), 1);
    }
}
