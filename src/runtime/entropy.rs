//! The operating system's randomness.

use tidegate_ports::Entropy;

/// Bytes from the operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn draw(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Without randomness no nonce may be made: going on would risk keys, so the process ends.
        getrandom::fill(&mut bytes).expect("the operating system provides randomness");
        bytes
    }
}
