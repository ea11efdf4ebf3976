//! Why a file cannot be used.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// A configuration that cannot be used. Each says what, where, and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} {}: {source}. {}", file.unreadable(), path.display(), file.where_it_is_named())]
    Read {
        /// Which file.
        file: File,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("the {file} {}{} is not valid: {reason}. Compare it with {}", path.display(), place(*line), file.example())]
    Parse {
        /// Which file.
        file: File,
        /// Where.
        path: PathBuf,
        /// Line, counted from 1, where it is known.
        line: Option<usize>,
        /// What.
        reason: String,
    },
    /// A value that contradicts a rule.
    #[error("the {file} {}: {key} {rule}", path.display())]
    Rule {
        /// Which file.
        file: File,
        /// Where.
        path: PathBuf,
        /// Key.
        key: &'static str,
        /// What must hold.
        rule: String,
    },
    /// The strategy refuses its values.
    #[error("the {} {} is not valid: {reason}. Compare it with {}", File::Strategy, path.display(), File::Strategy.example())]
    Strategy {
        /// Where.
        path: PathBuf,
        /// What must hold.
        reason: String,
    },
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// What `--config` names.
    Configuration,
    /// What `strategy_file` names.
    Strategy,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            File::Configuration => "configuration",
            File::Strategy => "strategy",
        })
    }
}

impl File {
    fn unreadable(self) -> &'static str {
        match self {
            File::Configuration => "can not read the configuration",
            File::Strategy => "can not read the strategy",
        }
    }

    fn where_it_is_named(self) -> &'static str {
        match self {
            File::Configuration => "Give an existing file with --config; examples are in config/",
            File::Strategy => "Correct strategy_file; it is relative to the configuration that names it",
        }
    }

    fn example(self) -> &'static str {
        match self {
            File::Configuration => "the example in config/",
            File::Strategy => "the preset in strategies/",
        }
    }

    /// The error of a text that does not parse, in one line that names the line of the text.
    pub(super) fn unparsed(self, path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count().saturating_add(1));
        // An error of a value does not name its key: the line does.
        let shown = line.and_then(|line| text.lines().nth(line.saturating_sub(1))).map(str::trim).unwrap_or_default();
        let shown = if shown.is_empty() { String::new() } else { format!(" (`{}`)", cut(shown)) };
        let reason = format!("{}{shown}", error.message().trim().replace('\n', "; "));
        ConfigError::Parse { file: self, path: path.to_owned(), line, reason }
    }

    /// The text of the file.
    pub(super) fn read(self, path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: self, path: path.to_owned(), source })
    }
}

/// At most 80 characters of a line; what is in a wrong file may be long.
fn cut(line: &str) -> String {
    line.chars().take(80).collect()
}

fn place(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line},"))
}
