//! What the auditor says.

use std::fmt;

/// Who breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The auctioneer claims or does what it must not. Harmless as long as no trader accepts it.
    Venue,
    /// A trader claims, accepts or signs what it must not.
    Trader,
    /// The chain has what neither side's messages explain.
    Chain,
}

/// Whoever is behind one token: the authorization that a caller presents, or any other name that tells callers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub String);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The rules that are judged. A finding names the one that was broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)+];
        }
    };
}

rules! {
    /// Every message decodes, and its keys are points.
    Decoding,
    /// `InitAccount` restates the reservation; its script is the account's.
    AccountOpening,
    /// An order's signature is its account's, over the order's digest.
    OrderSignature,
    /// A submitted order belongs to an account of the caller.
    OrderAccount,
    /// Commitment, challenge and subscription belong together, and the account signed them.
    Authentication,
    /// The batch version is the one that the trader announced.
    BatchVersion,
    /// Version 2, lock time and sequences zero, BIP-69 order, empty input scripts, no input twice.
    TransactionForm,
    /// A match is for an open order of the receiver.
    KnownOrder,
    /// A match joins an ask and a bid of one market and one duration.
    MatchKind,
    /// Nobody trades with himself.
    SelfMatch,
    /// The clearing price is within both orders' limits.
    PriceLimit,
    /// One price, execution fee, chain fee rate, version and height per batch, whoever is told.
    OneBatch,
    /// Filled at most what is open.
    UnitsOpen,
    /// Filled at least the minimum, in each match.
    UnitsMinimum,
    /// Chain fee rate within both orders' limits.
    FeeRateLimit,
    /// Execution fee at most what was quoted when the order was submitted.
    ExecutionFee,
    /// Node allow and deny lists.
    NodeFilter,
    /// Announcement, confirmation and self balance constraints.
    ChannelConstraint,
    /// The counterparty's order is shown as it was submitted, and both sides are told the same match.
    CounterpartyTruth,
    /// One channel output per match, with its script and value.
    ChannelOutput,
    /// Exactly one diff for every account of the batch, and none for others.
    AccountDiffs,
    /// Balance after the batch, to the satoshi.
    EndingBalance,
    /// Fate of the account output.
    EndingState,
    /// Value and script of the new account output, claimed by nothing else.
    AccountOutput,
    /// New expiry within its bounds.
    Expiry,
    /// Known account version.
    AccountVersion,
    /// The account's output is spent exactly once, and nothing else of the trader.
    AccountInput,
    /// The trader accepts nothing that breaks a rule.
    AcceptedRefused,
    /// Order of the messages: prepare, accept, sign, sign, finalize.
    MessageOrder,
    /// One previous output per input, true, all native segwit.
    PreviousOutputs,
    /// No satoshi made or lost.
    Conservation,
    /// The trader signs nothing that breaks a rule.
    SignedRefused,
    /// A signature for every account of the batch, and for nothing else.
    SignatureSet,
    /// A signature over an account's input is valid for the transaction that was prepared.
    AccountSignature,
    /// No nonce for two messages or two counterparts.
    NonceReuse,
    /// No second transaction for an output before the first is superseded.
    DoubleSigned,
    /// Channel infos name the channels of the batch.
    ChannelInfos,
    /// Finalize names the batch and transaction that were signed.
    Finalize,
    /// An account modification is for an own account and conserves satoshi.
    Modification,
    /// A spend of an account on the chain verifies.
    Witness,
    /// A spend of an account on the chain was agreed on, or follows its expiry.
    AgreedSpend,
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Who broke it.
    pub party: Party,
    /// On whose connection; nothing for the chain.
    pub caller: Option<Caller>,
    /// What it is about: an account, an order, a batch.
    pub subject: String,
    /// What the rule demands.
    pub expected: String,
    /// What was seen.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { rule, party, caller, subject, expected, found } = self;
        write!(f, "{rule:?} by {party:?}")?;
        if let Some(caller) = caller {
            write!(f, " (connection {caller})")?;
        }
        write!(f, ", {subject}: expected {expected}, found {found}")
    }
}

/// A breach whose party and connection are known to the caller of a judgement.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) rule: Rule,
    pub(crate) subject: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Collects problems.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, rule: Rule, subject: &dyn fmt::Display, expected: &str, found: &dyn fmt::Display) {
        let (subject, found) = (subject.to_string(), found.to_string());
        self.0.push(Problem { rule, subject, expected: expected.to_owned(), found });
    }

    /// Adds a problem unless the two are equal.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(&mut self, rule: Rule, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.add(rule, &what, &format!("{expected:?}"), &format!("{found:?}"));
        }
    }

    /// Adds a problem unless a condition holds.
    pub(crate) fn demand(&mut self, holds: bool, rule: Rule, subject: &str, expected: &str, found: &dyn fmt::Display) {
        if !holds {
            self.add(rule, &subject, expected, found);
        }
    }
}

/// How much was seen. A run without findings says something only if these are above zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stream messages of both directions.
    pub stream_messages: u64,
    /// Unary calls, answered or not.
    pub unary_calls: u64,
    /// Accounts that were opened.
    pub accounts: u64,
    /// Of these, accounts whose scripts can be recomputed because the shared secret is known.
    pub secrets: u64,
    /// Orders submitted.
    pub orders: u64,
    /// Valid order and authentication signatures.
    pub message_signatures: u64,
    /// Proposed batches, per trader.
    pub proposals: u64,
    /// Acceptances.
    pub acceptances: u64,
    /// Rejections.
    pub rejections: u64,
    /// Signatures over account inputs of batches that left a trader.
    pub account_signatures: u64,
    /// Of these, found valid when they left. The others are judged by their witness on the chain.
    pub account_signatures_verified: u64,
    /// Finalized batches, per trader.
    pub finalized: u64,
    /// Rounds that were repeated under the same batch id with another transaction after signatures had left.
    pub repeated_rounds: u64,
    /// Signed and never finalized batches that a later batch or modification replaced.
    pub superseded: u64,
    /// Account modifications that the venue signed.
    pub modifications: u64,
    /// Of these, found valid when they left the venue.
    pub modifications_verified: u64,
    /// Modifications that replaced an earlier one of the same output.
    pub modifications_replaced: u64,
    /// Transactions of the chain.
    pub transactions: u64,
    /// Spends of account outputs on the chain whose witness was verified.
    pub witnesses_verified: u64,
    /// Spends whose witness could not be judged, because a spent output of the transaction is unknown.
    pub witnesses_unjudged: u64,
    /// Batches on the chain in which both sides of every match were seen and the satoshi of all added up to nothing.
    pub batches_conserved: u64,
    /// Channels in batches on the chain.
    pub channels: u64,
}
