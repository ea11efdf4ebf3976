//! Public nonces: none may serve two messages, nor two counterparts.

use std::collections::BTreeMap;

use crate::finding::{Problems, Rule};
use crate::keys::sha;
use crate::wire::hexed;

/// Every half of a nonce that was shown, with a digest of what it was shown for.
#[derive(Debug, Default)]
pub(crate) struct Nonces(BTreeMap<Vec<u8>, [u8; 32]>);

impl Nonces {
    /// A signer shows a nonce for a session: the message, and the counterpart's nonce as far as it is fixed by then.
    /// A second partial signature with the same nonce in any other session gives the key away.
    pub(crate) fn shown(&mut self, nonce: &[u8], session: &[&[u8]], problems: &mut Problems, subject: &str) {
        let session = sha(session);
        for half in nonce.chunks(33) {
            let known = *self.0.entry(half.to_vec()).or_insert(session);
            problems.demand(known == session, Rule::NonceReuse, subject, "a fresh nonce", &hexed(half));
        }
    }
}
