//! Finding accounts on the chain without the venue's help: which scripts they may have.
//!
//! Does: every script that a key's account may have had, and the script after a recreation. Pure: whoever looks at
//! transactions and blocks asks here what to look for.
//!
//! Costs of one script: an addition of points per version 0 candidate and batch key, shared by all expiries; then hashes,
//! and of the taproot versions one more addition per expiry.
//!
//! # Source
//! Protocol notes, accounts §11. Versions 1 and 2 are tried as well, which the network's software does not do.

use crate::account::{AccountTerms, AccountVersion};
use crate::keys::{AccountKey, AuctioneerKey, BatchKey, KeyError, KeyLocator, SharedSecret};
use crate::units::{BlockCount, BlockHeight};
use bitcoin::{Script, ScriptBuf, Transaction};
use core::ops::Range;
use std::collections::BTreeMap;

/// Keys that are tried unless told otherwise.
pub const DEFAULT_KEYS: u32 = 500;
/// Batch keys that are tried: the initial one and its successors.
pub const BATCH_KEYS: u32 = 5_000;
/// First block with accounts on the main network.
pub const FIRST_BLOCK_MAINNET: BlockHeight = BlockHeight::new(648_168);
/// First block with accounts on testnet3.
pub const FIRST_BLOCK_TESTNET: BlockHeight = BlockHeight::new(1_834_898);
/// The venue's key on the main network.
pub const AUCTIONEER_MAINNET: &str = "028e87bdd134238f8347f845d9ecc827b843d0d1e27cdcb46da704d916613f4fce";
/// The venue's key on testnet3.
pub const AUCTIONEER_TESTNET: &str = "025dea8f5c67fb3bdfffb3123d2b7045dc0a3c75e822fabb39eb357480e64c4a8a";
/// Every version that accounts have had.
pub const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];

/// A key of the node's wallet that may have been an account's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The key.
    pub trader: AccountKey,
    /// Its place.
    pub locator: KeyLocator,
    /// What it shares with the venue.
    pub secret: SharedSecret,
}

impl Candidate {
    fn terms(
        &self,
        version: AccountVersion,
        auctioneer: AuctioneerKey,
        batch: BatchKey,
        expiry: BlockHeight,
    ) -> AccountTerms {
        AccountTerms { version, trader: self.trader, auctioneer, batch, secret: self.secret, expiry }
    }
}

/// The first batch keys from `first` on: `B`, `B + G`, and so on. Ends early only where a key has no successor.
///
/// # Source
/// Protocol notes, scripts §1 "Batch key sequence".
pub fn batch_keys(first: BatchKey, count: u32) -> impl Iterator<Item = BatchKey> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    core::iter::successors(Some(first), |key| key.next().ok()).take(count)
}

/// Every expiry that an account may have: from the first block with accounts up to one year ahead.
pub fn expiries(first: BlockHeight, best: BlockHeight) -> Range<u32> {
    let year = crate::account::MAX_EXPIRY_AHEAD;
    first.get()..best.checked_add(year).map_or(u32::MAX, BlockHeight::get)
}

/// Every account that this key may have had under one batch key, with its script: all versions, all expiries.
///
/// An expiry whose script cannot be computed is told as an error and does not end the sequence.
pub fn scripts<'a>(
    candidate: &'a Candidate,
    auctioneer: AuctioneerKey,
    batch: BatchKey,
    versions: &'a [AccountVersion],
    expiries: Range<u32>,
) -> impl Iterator<Item = Result<(AccountTerms, ScriptBuf), KeyError>> + 'a {
    let families = versions.iter().map(move |version| {
        let any = candidate.terms(*version, auctioneer, batch, BlockHeight::new(0));
        any.script_family().map(|family| (any, family))
    });
    families.flat_map(move |family| {
        let (failed, family) = match family {
            Ok(family) => (None, Some(family)),
            Err(error) => (Some(Err(error)), None),
        };
        let expiries = expiries.clone();
        let found = family.into_iter().flat_map(move |(any, family)| {
            expiries.clone().map(move |expiry| {
                let expiry = BlockHeight::new(expiry);
                Ok((AccountTerms { expiry, ..any }, family.output_script(expiry)?))
            })
        });
        failed.into_iter().chain(found)
    })
}

/// Scripts of the outputs that a wallet knows of: what accounts are looked for in.
#[derive(Clone, Debug, Default)]
pub struct KnownOutputs(BTreeMap<ScriptBuf, Vec<(usize, u32)>>);

impl KnownOutputs {
    /// Notes every output, by place of its transaction and index; oldest transaction first.
    pub fn of<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> KnownOutputs {
        let mut known = KnownOutputs::default();
        for (place, transaction) in transactions.into_iter().enumerate() {
            for (vout, output) in (0u32..).zip(&transaction.output) {
                known.0.entry(output.script_pubkey.clone()).or_default().push((place, vout));
            }
        }
        known
    }

    /// The outputs with this script.
    pub fn with(&self, script: &Script) -> &[(usize, u32)] {
        self.0.get(script).map_or(&[], Vec::as_slice)
    }
}

/// An account that an output was found for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which candidate.
    pub candidate: usize,
    /// Its terms.
    pub terms: AccountTerms,
    /// Place of the transaction among those that were searched.
    pub transaction: usize,
    /// Index of the output.
    pub vout: u32,
}

/// What a search covers.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// The venue's key.
    pub auctioneer: AuctioneerKey,
    /// Keys that may have been accounts'.
    pub candidates: &'a [Candidate],
    /// Versions that are tried.
    pub versions: &'a [AccountVersion],
    /// Expiries that are tried.
    pub expiries: Range<u32>,
}

impl Search<'_> {
    /// The accounts among `known` outputs that were made under one of these batch keys, in the order of the keys.
    ///
    /// A candidate is found once: under the earliest batch key, from where [`Search::successor`] follows it. It ends when
    /// every candidate is found, so callers that want to stop or report in between hand in a few keys at a time together
    /// with what was found before.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] when a script cannot be computed.
    ///
    /// # Source
    /// Protocol notes, accounts §11 step 2.
    pub fn accounts(
        &self,
        known: &KnownOutputs,
        batch_keys: impl IntoIterator<Item = BatchKey>,
        found: &mut BTreeMap<usize, Found>,
    ) -> Result<(), KeyError> {
        for batch in batch_keys {
            for (place, candidate) in self.candidates.iter().enumerate() {
                if found.contains_key(&place) {
                    continue;
                }
                if let Some(account) = self.account(known, place, candidate, batch)? {
                    found.insert(place, account);
                }
            }
            if found.len() == self.candidates.len() {
                break;
            }
        }
        Ok(())
    }

    fn account(
        &self,
        known: &KnownOutputs,
        place: usize,
        candidate: &Candidate,
        batch: BatchKey,
    ) -> Result<Option<Found>, KeyError> {
        for script in scripts(candidate, self.auctioneer, batch, self.versions, self.expiries.clone()) {
            let (terms, script) = script?;
            // The oldest is the account's; a later payment to the same script is not the venue's doing.
            if let Some((transaction, vout)) = known.with(&script).first().copied() {
                return Ok(Some(Found { candidate: place, terms, transaction, vout }));
            }
        }
        Ok(None)
    }

    /// The account's next output in the transaction that spends it: the same expiry and version first, then every other
    /// expiry, and every version that is not lower. Nothing when the account ended.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] when a script cannot be computed.
    ///
    /// # Source
    /// Protocol notes, accounts §11 step 3.
    pub fn successor(
        &self,
        account: &AccountTerms,
        spend: &Transaction,
    ) -> Result<Option<(AccountTerms, u32)>, KeyError> {
        let next = account.next()?;
        if let Some(vout) = crate::script::find_output(spend, &next.output_script()?) {
            return Ok(Some((next, vout)));
        }
        let known = KnownOutputs::of([spend]);
        for version in self.versions.iter().filter(|version| **version >= account.version) {
            let family = AccountTerms { version: *version, ..next }.script_family()?;
            for expiry in self.expiries.clone().map(BlockHeight::new) {
                if let Some((_, vout)) = known.with(&family.output_script(expiry)?).first() {
                    return Ok(Some((AccountTerms { version: *version, expiry, ..next }, *vout)));
                }
            }
        }
        Ok(None)
    }
}

/// How many scripts a search looks at, at most: to say how long it takes before it begins. Nothing on overflow.
pub fn effort(candidates: u32, batch_keys: u32, versions: u32, expiries: BlockCount) -> Option<u64> {
    let factors = [candidates, batch_keys, versions, expiries.get()].map(u64::from);
    factors.into_iter().try_fold(1u64, u64::checked_mul)
}

#[cfg(test)]
mod tests;
