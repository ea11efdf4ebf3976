//! Any strategy, chosen by the text of its configuration.

use crate::buyer::{Buyer, BuyerConfig};
use crate::common::ConfigProblem;
use crate::seller::{Seller, SellerConfig};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tidegate_engine::strategy::{Decision, Now, Reason, Strategy};
use tidegate_engine::view::MarketView;

/// A strategy's configuration that does not load.
#[derive(Debug, Error)]
pub enum StrategyConfigError {
    /// Not TOML, an unknown or missing key, a value of the wrong kind.
    #[error("the strategy's configuration does not parse: {0}")]
    Parse(#[from] toml::de::Error),
    /// The named strategy lacks its table.
    #[error("strategy = \"{0}\" needs a table [{0}]")]
    MissingTable(&'static str),
    /// A table of a strategy that is not the named one.
    #[error("strategy = \"{named}\" does not use the table [{extra}]: remove it")]
    ExtraTable {
        /// The chosen strategy.
        named: &'static str,
        /// The other table.
        extra: &'static str,
    },
    /// A value that makes no sense.
    #[error(transparent)]
    Value(#[from] ConfigProblem),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Seller,
    Buyer,
}

/// The file: which strategy, and its table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrategyFile {
    strategy: Kind,
    seller: Option<SellerConfig>,
    buyer: Option<BuyerConfig>,
}

/// One of the strategies of this package.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyStrategy {
    /// Sells leases.
    Seller(Seller),
    /// Buys leases.
    Buyer(Buyer),
}

impl AnyStrategy {
    /// The strategy that a TOML text describes: `strategy = "seller"` or `"buyer"`, and the table of that name.
    ///
    /// # Errors
    /// [`StrategyConfigError`], with the line where the text is at fault.
    pub fn from_toml(text: &str) -> Result<AnyStrategy, StrategyConfigError> {
        let file: StrategyFile = toml::from_str(text)?;
        match (file.strategy, file.seller, file.buyer) {
            (Kind::Seller, Some(config), None) => Ok(AnyStrategy::Seller(Seller::new(config)?)),
            (Kind::Buyer, None, Some(config)) => Ok(AnyStrategy::Buyer(Buyer::new(config)?)),
            (Kind::Seller, None, _) => Err(StrategyConfigError::MissingTable("seller")),
            (Kind::Buyer, _, None) => Err(StrategyConfigError::MissingTable("buyer")),
            (Kind::Seller, Some(_), Some(_)) => {
                Err(StrategyConfigError::ExtraTable { named: "seller", extra: "buyer" })
            }
            (Kind::Buyer, Some(_), Some(_)) => Err(StrategyConfigError::ExtraTable { named: "buyer", extra: "seller" }),
        }
    }
}

/// Decides with the typed state that the JSON holds, and puts the changed state back.
fn with_json_state<S: Strategy>(strategy: &S, view: &MarketView, state: &mut Value, now: Now) -> Decision {
    let parsed = if state.is_null() { Ok(S::State::default()) } else { serde_json::from_value(state.take()) };
    let reset = parsed.is_err();
    let mut typed = parsed.unwrap_or_default();
    let mut decision = strategy.decide(view, &mut typed, now);
    if reset {
        decision.reasons.insert(0, Reason::StateReset);
    }
    *state = serde_json::to_value(typed).unwrap_or_default();
    decision
}

impl Strategy for AnyStrategy {
    /// JSON of the chosen strategy's state; null at the start. What does not parse starts empty, and a reason says so.
    type State = Value;

    fn name(&self) -> &str {
        match self {
            AnyStrategy::Seller(seller) => seller.name(),
            AnyStrategy::Buyer(buyer) => buyer.name(),
        }
    }

    fn decide(&self, view: &MarketView, state: &mut Value, now: Now) -> Decision {
        match self {
            AnyStrategy::Seller(seller) => with_json_state(seller, view, state, now),
            AnyStrategy::Buyer(buyer) => with_json_state(buyer, view, state, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_preset_loads() {
        for (name, text) in [
            ("seller", crate::seller::PRESET),
            ("seller", crate::seller::SANDBOX_PRESET),
            ("buyer", crate::buyer::PRESET),
            ("buyer", crate::buyer::SANDBOX_PRESET),
        ] {
            assert_eq!(AnyStrategy::from_toml(text).unwrap().name(), name);
        }
    }

    #[test]
    fn unknown_keys_and_wrong_tables_are_refused() {
        let typo = crate::seller::PRESET.replace("min_match_units", "min_mach_units");
        assert!(matches!(AnyStrategy::from_toml(&typo), Err(StrategyConfigError::Parse(_))));
        let other = crate::seller::PRESET.replace("strategy = \"seller\"", "strategy = \"buyer\"");
        assert!(matches!(AnyStrategy::from_toml(&other), Err(StrategyConfigError::MissingTable("buyer"))));
        let tables = crate::buyer::PRESET.replace("strategy = \"buyer\"", "");
        let both = format!("{}{tables}", crate::seller::PRESET);
        assert!(matches!(AnyStrategy::from_toml(&both), Err(StrategyConfigError::ExtraTable { .. })));
        let unknown = crate::seller::PRESET.replace("strategy = \"seller\"", "strategy = \"sellor\"");
        assert!(matches!(AnyStrategy::from_toml(&unknown), Err(StrategyConfigError::Parse(_))));
        let zero = crate::seller::PRESET.replace("min_match_units = 10", "min_match_units = 0");
        assert!(matches!(AnyStrategy::from_toml(&zero), Err(StrategyConfigError::Value(_))));
    }

    #[test]
    fn state_survives_json_and_bad_state_starts_anew() {
        let strategy = AnyStrategy::from_toml(crate::seller::PRESET).unwrap();
        let view = fixtures::view();
        let now = fixtures::now(&view);
        let mut state = Value::Null;
        let first = strategy.decide(&view, &mut state, now);
        assert!(state.is_object());
        let text = state.to_string();
        let mut again: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(strategy.decide(&view, &mut again, now).intents, first.intents);
        let mut broken = Value::String("?".to_owned());
        assert_eq!(strategy.decide(&view, &mut broken, now).reasons.first(), Some(&Reason::StateReset));
        assert_eq!(broken, state);
    }
}
