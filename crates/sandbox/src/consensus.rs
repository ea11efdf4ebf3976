//! Script checks by Bitcoin Core's own code.

use bitcoin::{Transaction, TxOut, consensus};
use bitcoinconsensus::{Utxo, VERIFY_ALL_PRE_TAPROOT, VERIFY_TAPROOT, verify_with_flags};
use thiserror::Error;

/// Bitcoin Core's script interpreter refused an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScriptRefusal {
    /// The witness or the lock of an input does not satisfy the script of the output it spends.
    #[error("input {input} does not satisfy the script that it spends ({code:?})")]
    Unsatisfied {
        /// Index of the input.
        input: usize,
        /// Core's code; `ERR_SCRIPT` is the plain "script evaluated to false".
        code: bitcoinconsensus::Error,
    },
    /// Not one spent output per input, or an amount or length beyond what the interpreter's interface takes.
    #[error("the spent outputs can not be handed to the script interpreter")]
    SpentOutputs,
}

/// Checks every input of `transaction` against the output that it spends: all soft forks including taproot.
///
/// # Errors
/// [`ScriptRefusal`] of the first input that fails.
pub(crate) fn check_scripts(transaction: &Transaction, spent: &[TxOut]) -> Result<(), ScriptRefusal> {
    if spent.len() != transaction.input.len() {
        return Err(ScriptRefusal::SpentOutputs);
    }
    let bytes = consensus::serialize(transaction);
    // Taproot hashes commit to every spent output, so Core wants them all, by pointer; `spent` outlives the calls.
    let utxos: Vec<Utxo> = spent.iter().map(utxo).collect::<Option<_>>().ok_or(ScriptRefusal::SpentOutputs)?;
    for (input, output) in spent.iter().enumerate() {
        verify_with_flags(
            output.script_pubkey.as_bytes(),
            output.value.to_sat(),
            &bytes,
            Some(&utxos),
            input,
            VERIFY_ALL_PRE_TAPROOT | VERIFY_TAPROOT,
        )
        .map_err(|code| ScriptRefusal::Unsatisfied { input, code })?;
    }
    Ok(())
}

fn utxo(output: &TxOut) -> Option<Utxo> {
    Some(Utxo {
        script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
        script_pubkey_len: u32::try_from(output.script_pubkey.len()).ok()?,
        value: i64::try_from(output.value.to_sat()).ok()?,
    })
}
