//! The form of a row.

use crate::scene::Scene;

/// Name, reasons of which one must be given (`|` between them, each the beginning of a variant's name), and what breaks
/// the scene; that answers nothing when it does not apply.
pub(crate) type Row = (&'static str, &'static str, fn(&mut Scene) -> Option<()>);

/// The name of an error's variant.
pub(crate) fn variant(error: &tidegate_protocol::verify::VerifyError) -> String {
    format!("{error:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect()
}

/// Whether an error is one that the row expects.
pub(crate) fn expected(row: &Row, error: &tidegate_protocol::verify::VerifyError) -> bool {
    let found = variant(error);
    row.1.split('|').any(|name| found.starts_with(name))
}
