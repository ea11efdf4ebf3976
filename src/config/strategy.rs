//! The strategy's own file.

use super::{ConfigError, File};
use std::path::Path;
use tidegate_strategies::{AnyStrategy, StrategyConfigError};

/// Reads the file that `strategy_file` names and makes its strategy.
///
/// # Errors
/// [`ConfigError`] by variant.
pub fn load_strategy(path: &Path) -> Result<AnyStrategy, ConfigError> {
    let text = File::Strategy.read(path)?;
    AnyStrategy::from_toml(&text).map_err(|error| match error {
        StrategyConfigError::Parse(error) => File::Strategy.unparsed(path, &text, &error),
        error => ConfigError::Strategy { path: path.to_owned(), reason: error.to_string() },
    })
}
