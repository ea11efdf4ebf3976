//! Witness and transaction sizes that every participant must estimate alike.
//!
//! Worst case of a 73-byte ECDSA signature; counts of elements included.
//!
//! # Source
//! Protocol notes, scripts §5.

use crate::account::AccountVersion;

/// Bytes of an input without witness.
pub const INPUT: u64 = 41;
/// Bytes of a P2WKH output.
pub const P2WKH_OUTPUT: u64 = 31;
/// Bytes of a P2SH output.
pub const P2SH_OUTPUT: u64 = 32;
/// Bytes of a P2WSH output.
pub const P2WSH_OUTPUT: u64 = 43;
/// Bytes of a P2TR output.
pub const P2TR_OUTPUT: u64 = 43;
/// Weight units of the witness of a wallet's P2WKH input, nested or not.
pub const P2WKH_WITNESS: u64 = 109;
/// Weight units of the witness of a wallet's P2TR input, and of an account's key spend.
pub const P2TR_WITNESS: u64 = 66;

/// Weight units of the witness that spends an account cooperatively.
pub fn cooperative_witness_size(version: AccountVersion) -> u64 {
    match version {
        AccountVersion::V0 => 229,
        AccountVersion::V1 | AccountVersion::V2 => P2TR_WITNESS,
    }
}

/// Weight units of the witness that spends an account after expiry.
pub fn expiry_witness_size(version: AccountVersion) -> u64 {
    match version {
        AccountVersion::V0 => 155,
        AccountVersion::V1 | AccountVersion::V2 => 140,
    }
}

/// Weight of a segwit transaction with these inputs and outputs in bytes, and these witnesses in weight units.
/// Nothing when it leaves 64 bits.
///
/// # Source
/// Protocol notes, scripts §5: `4·(8 + varint(#in) + inputs + varint(#out) + outputs) + 2 + witnesses`.
pub fn transaction_weight(input_bytes: &[u64], output_bytes: &[u64], witness_weights: &[u64]) -> Option<u64> {
    let inputs = sum(input_bytes)?.checked_add(count_size(input_bytes.len()))?;
    let outputs = sum(output_bytes)?.checked_add(count_size(output_bytes.len()))?;
    let stripped = 8u64.checked_add(inputs)?.checked_add(outputs)?;
    stripped.checked_mul(4)?.checked_add(2)?.checked_add(sum(witness_weights)?)
}

fn sum(sizes: &[u64]) -> Option<u64> {
    sizes.iter().try_fold(0u64, |total, size| total.checked_add(*size))
}

fn count_size(count: usize) -> u64 {
    match count {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_recreated_value_pays_for_its_own_spend() {
        let weight = transaction_weight(&[INPUT], &[P2WKH_OUTPUT], &[cooperative_witness_size(AccountVersion::V0)]);
        assert_eq!(weight, Some(559));
        let fee = crate::units::SatPerKw::FLOOR.fee_floor(559).unwrap();
        assert_eq!(fee.get() + 294, crate::account::MIN_RECREATED_VALUE.get());
    }
}
