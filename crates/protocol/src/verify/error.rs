//! Why a batch is refused.

use crate::account::AccountState;
use crate::batch::{BatchVersion, EndingState, RejectReason};
use crate::channel::CommitmentType;
use crate::keys::{AccountKey, BatchId, KeyError, MultisigKey, NodeId, OrderNonce};
use crate::order::{
    AnnouncementConstraint, AuctionType, ConfirmationConstraint, NodeTier, OrderChannelType, OrderState,
};
use crate::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, SatsDelta, UnitError};
use bitcoin::{OutPoint, ScriptBuf, Txid};

/// Why a batch is refused: one variant per check, with what was expected and found.
///
/// # Source
/// Protocol notes, batch §7 and §8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The batch speaks another version of the conversation.
    #[error("batch version {found:?}, expected {expected:?}")]
    BatchVersion {
        /// Ours.
        expected: BatchVersion,
        /// The batch's.
        found: BatchVersion,
    },
    /// The venue's height is too far from ours.
    #[error("height hint {found} is more than 3 blocks from {best}")]
    Height {
        /// Our best height.
        best: BlockHeight,
        /// The batch's.
        found: BlockHeight,
    },
    /// An order that is not ours.
    #[error("order {0} is unknown")]
    UnknownOrder(OrderNonce),
    /// An account that is not ours.
    #[error("account {0} is unknown")]
    UnknownAccount(AccountKey),
    /// The account can not take part in a batch now.
    #[error("account {account} is {found:?}, expected open or pending batch")]
    AccountState {
        /// Account.
        account: AccountKey,
        /// Its state.
        found: AccountState,
    },
    /// The account expired: its owner may spend it alone, and it takes part in no batch, whatever its state says yet.
    #[error("account {account} expired at height {expiry}, best is {best}")]
    AccountExpired {
        /// Account.
        account: AccountKey,
        /// Its expiry.
        expiry: BlockHeight,
        /// Our best height.
        best: BlockHeight,
    },
    /// The account has no output yet.
    #[error("account {0} has no output")]
    AccountWithoutOutput(AccountKey),
    /// The order can not be matched any more.
    #[error("order {order} is {found:?}")]
    OrderArchived {
        /// Our order.
        order: OrderNonce,
        /// Its state.
        found: OrderState,
    },
    /// No order of ours is matched.
    #[error("the batch has no match of ours")]
    NothingOfOurs,
    /// An order of ours is listed without any match.
    #[error("order {0} is listed without a match")]
    NoMatch(OrderNonce),
    /// Two asks, or two bids.
    #[error("order {ours} is matched with {theirs} of the same side")]
    SameSide {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
    },
    /// The other order is of another market.
    #[error("order {order} of the {expected:?} market is matched with one of the {found:?} market")]
    AuctionType {
        /// Our order.
        order: OrderNonce,
        /// Our market.
        expected: AuctionType,
        /// Theirs.
        found: AuctionType,
    },
    /// The other side is our own node.
    #[error("order {order} is matched with our own node")]
    OwnNode {
        /// Our order.
        order: OrderNonce,
    },
    /// The other side is an account of our own.
    #[error("order {order} is matched with our own account {found}")]
    OwnAccount {
        /// Our order.
        order: OrderNonce,
        /// The account.
        found: AccountKey,
    },
    /// The other side is an order of our own.
    #[error("order {order} is matched with our own order {found}")]
    OwnOrder {
        /// Our order.
        order: OrderNonce,
        /// The other one.
        found: OrderNonce,
    },
    /// The other side uses a funding key of ours.
    #[error("order {order} is matched with our own funding key {found}")]
    OwnKey {
        /// Our order.
        order: OrderNonce,
        /// The key.
        found: MultisigKey,
    },
    /// A lease of another duration than ours.
    #[error("order {order} for {expected} is matched for {found}")]
    Duration {
        /// Our order.
        order: OrderNonce,
        /// Our duration.
        expected: BlockCount,
        /// Duration of the market or of the other order.
        found: BlockCount,
    },
    /// The ask costs more than the bid offers.
    #[error("ask of {ask} is matched with a bid of {bid}")]
    Price {
        /// The ask's rate.
        ask: RatePerBillion,
        /// The bid's rate.
        bid: RatePerBillion,
    },
    /// The channel would not be of the type that we asked for.
    #[error("order {order} wants {expected:?}, but the pair gives {found:?}")]
    ChannelType {
        /// Our order.
        order: OrderNonce,
        /// Our wish.
        expected: OrderChannelType,
        /// What the pair resolves to.
        found: CommitmentType,
    },
    /// Announcement wishes of ask and bid exclude each other.
    #[error("order {ours} and {theirs} disagree on announcing: the ask wants {expected:?}, unannounced is {found}")]
    Announcement {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
        /// The ask's wish.
        expected: AnnouncementConstraint,
        /// Whether the bid wants the channel unannounced.
        found: bool,
    },
    /// Confirmation wishes of ask and bid exclude each other.
    #[error("order {ours} and {theirs} disagree on confirmation: the ask wants {expected:?}, zero-conf is {found}")]
    Confirmation {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
        /// The ask's wish.
        expected: ConfirmationConstraint,
        /// Whether the bid wants to use the channel without confirmation.
        found: bool,
    },
    /// The ask is too old for a bid with a self balance.
    #[error("ask {order} of version {version} is matched with a self balance of {found}")]
    SelfBalanceOnOldAsk {
        /// The ask.
        order: OrderNonce,
        /// Its version.
        version: u32,
        /// The bid's self balance.
        found: Sats,
    },
    /// A match of no unit.
    #[error("order {ours} and {theirs} are matched for no unit")]
    EmptyMatch {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
    },
    /// A channel smaller than our smallest match.
    #[error("order {order} gets a match of {found} units, at least {expected} expected")]
    MatchBelowMinimum {
        /// Our order.
        order: OrderNonce,
        /// Smallest match in units.
        expected: u32,
        /// Units of the match.
        found: u32,
    },
    /// The taker puts less into an outbound channel than our ask's smallest match.
    #[error("ask {order} wants a self balance of at least {expected}, the bid has {found}")]
    OutboundMinimum {
        /// Our ask.
        order: OrderNonce,
        /// Smallest match.
        expected: Sats,
        /// The bid's self balance.
        found: Sats,
    },
    /// A match smaller than the other side's smallest.
    #[error("order {ours} gets {found} units of {theirs}, which gives at least {expected}")]
    TheirMinimum {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
        /// Their smallest match in units.
        expected: u32,
        /// Units of the match.
        found: u32,
    },
    /// The matches take more of the other order than it has.
    #[error("order {ours}: {found} units are taken of {theirs}, which has {expected}")]
    TheirAmount {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
        /// Units of their order.
        expected: u32,
        /// Units taken by our orders.
        found: u64,
    },
    /// One pair of orders is listed twice.
    #[error("order {ours} and {theirs} are matched twice")]
    SamePairTwice {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
    },
    /// No output funds the channel.
    #[error("no output funds the channel of {ours} and {theirs}")]
    ChannelOutputMissing {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
    },
    /// The output that funds the channel has another value.
    #[error("output {index} funds the channel with {found}, expected {expected}")]
    ChannelOutputValue {
        /// Output.
        index: u32,
        /// Capacity.
        expected: Sats,
        /// Value.
        found: bitcoin::Amount,
    },
    /// Two channels claim one output.
    #[error("output {index} would fund two channels")]
    ChannelOutputShared {
        /// Output.
        index: u32,
    },
    /// A script of ours, a channel's or an account's, has a second output.
    #[error("the script of output {index} has another output too")]
    OutputTwice {
        /// The first of them.
        index: u32,
    },
    /// The clearing price is worse than our limit.
    #[error("order {order} with limit {expected} clears at {found}")]
    ClearingPrice {
        /// Our order.
        order: OrderNonce,
        /// Our limit.
        expected: RatePerBillion,
        /// The price.
        found: RatePerBillion,
    },
    /// The clearing price is worse than the other side's limit.
    #[error("order {ours} and {theirs} with limit {expected} clear at {found}")]
    TheirLimit {
        /// Our order.
        ours: OrderNonce,
        /// Their order.
        theirs: OrderNonce,
        /// Their limit.
        expected: RatePerBillion,
        /// The price.
        found: RatePerBillion,
    },
    /// More is filled than is left.
    #[error("order {order} has {expected} units left, but {found} are filled")]
    Overfilled {
        /// Our order.
        order: OrderNonce,
        /// Units left.
        expected: u32,
        /// Units filled.
        found: u64,
    },
    /// The chain fee rate is above our limit.
    #[error("order {order} allows {expected}, the batch charges {found}")]
    FeeRate {
        /// Our order.
        order: OrderNonce,
        /// Limit.
        expected: SatPerKw,
        /// Charged.
        found: SatPerKw,
    },
    /// The fixed execution fee is above what we agreed to.
    #[error("order {order} agreed to a base fee of {expected}, the batch charges {found}")]
    ExecutionFeeBase {
        /// Our order.
        order: OrderNonce,
        /// Ceiling.
        expected: Sats,
        /// Charged.
        found: Sats,
    },
    /// The variable execution fee is above what we agreed to.
    #[error("order {order} agreed to {expected} ppm, the batch charges {found}")]
    ExecutionFeeRate {
        /// Our order.
        order: OrderNonce,
        /// Ceiling, in parts per million.
        expected: u64,
        /// Charged.
        found: u64,
    },
    /// A change of an account that has no match.
    #[error("account {0} has no match, but is changed")]
    DiffForUninvolved(AccountKey),
    /// Two changes of one account.
    #[error("account {0} is changed twice")]
    DiffTwice(AccountKey),
    /// No change of an account that has a match.
    #[error("account {0} has a match, but no change")]
    DiffMissing(AccountKey),
    /// The account ends with another balance.
    #[error("account {account} ends with {found}, expected {expected}")]
    EndingBalance {
        /// Account.
        account: AccountKey,
        /// Our sum; may be negative.
        expected: SatsDelta,
        /// Reported.
        found: Sats,
    },
    /// The new expiry is not later than the old.
    #[error("account {account} expires at {expected}, new expiry {found} is not later")]
    ExpiryNotLater {
        /// Account.
        account: AccountKey,
        /// Old expiry.
        expected: BlockHeight,
        /// New expiry.
        found: BlockHeight,
    },
    /// The new expiry is too far ahead.
    #[error("account {account} would expire at {found}, at most {expected} allowed")]
    ExpiryTooFar {
        /// Account.
        account: AccountKey,
        /// Latest allowed.
        expected: BlockHeight,
        /// New expiry.
        found: BlockHeight,
    },
    /// The new expiry is later than the extension that was quoted allows.
    #[error("account {account} would be extended to {found}, at most {expected} was quoted")]
    ExtensionTooLong {
        /// Account.
        account: AccountKey,
        /// Latest allowed.
        expected: BlockHeight,
        /// New expiry.
        found: BlockHeight,
    },
    /// A new account version that does not exist.
    #[error("account {account} would get unknown version {found}")]
    AccountVersion {
        /// Account.
        account: AccountKey,
        /// Number.
        found: u32,
    },
    /// Too little is left for an output, but the account is said to go on.
    #[error("account {account} with {balance} left can not be {found:?}")]
    DustState {
        /// Account.
        account: AccountKey,
        /// Left.
        balance: Sats,
        /// Reported.
        found: EndingState,
    },
    /// Too little is left for an output, but one is named.
    #[error("account {account} has too little left for an output, but output {found} is named")]
    DustIndex {
        /// Account.
        account: AccountKey,
        /// Output.
        found: u32,
    },
    /// Enough is left for an output, but there is none.
    #[error("account {account} with {balance} left must be recreated, not {found:?}")]
    NotRecreated {
        /// Account.
        account: AccountKey,
        /// Left.
        balance: Sats,
        /// Reported.
        found: EndingState,
    },
    /// The new output is not named.
    #[error("account {0} is recreated, but no output is named")]
    OutputIndexMissing(AccountKey),
    /// The named output does not exist.
    #[error("account {account} names output {found} of {outputs}")]
    OutputIndexRange {
        /// Account.
        account: AccountKey,
        /// Outputs there are.
        outputs: usize,
        /// Named.
        found: u32,
    },
    /// The new output has another value.
    #[error("account {account} gets an output of {found}, expected {expected}")]
    OutputValue {
        /// Account.
        account: AccountKey,
        /// Ending balance.
        expected: Sats,
        /// Value.
        found: bitcoin::Amount,
    },
    /// The new output has another script.
    #[error("account {account} gets an output with script {found}, expected {expected}")]
    OutputScript {
        /// Account.
        account: AccountKey,
        /// Ours.
        expected: ScriptBuf,
        /// The output's.
        found: ScriptBuf,
    },
    /// The transaction has another version.
    #[error("transaction version {found}, expected 2")]
    TransactionVersion {
        /// Version.
        found: i32,
    },
    /// The transaction is locked.
    #[error("transaction lock time {found}, expected 0")]
    LockTime {
        /// Lock time.
        found: u32,
    },
    /// An input has another sequence.
    #[error("input {input} has sequence {found}, expected 0")]
    Sequence {
        /// Input.
        input: usize,
        /// Sequence.
        found: u32,
    },
    /// An input carries a script or a witness.
    #[error("input {input} is not empty")]
    NotUnsigned {
        /// Input.
        input: usize,
    },
    /// The transaction is heavier than a block.
    #[error("transaction of weight {found}, at most {expected} allowed")]
    TransactionWeight {
        /// Weight of a block.
        expected: u64,
        /// Weight.
        found: u64,
    },
    /// Inputs are not sorted.
    #[error("input {input} is out of order")]
    InputOrder {
        /// The first that should stand earlier.
        input: usize,
    },
    /// Outputs are not sorted.
    #[error("output {output} is out of order")]
    OutputOrder {
        /// The first that should stand earlier.
        output: usize,
    },
    /// Two inputs spend one output.
    #[error("{found} is spent twice")]
    InputTwice {
        /// Output.
        found: OutPoint,
    },
    /// The outputs are worth more than all bitcoin.
    #[error("the outputs are worth more than 21 million bitcoin")]
    OutputSum,
    /// The transaction does not spend the account that it changes.
    #[error("account {account} is changed, but its output {expected} is not spent")]
    OwnInputMissing {
        /// Account.
        account: AccountKey,
        /// Output.
        expected: OutPoint,
    },
    /// The transaction spends an account of ours that it does not report.
    #[error("account {account} is spent without being reported")]
    OwnInputSpent {
        /// Account.
        account: AccountKey,
    },
    /// Our node lists exclude the other node.
    #[error("order {order} excludes node {node}")]
    NodeRefused {
        /// Our order.
        order: OrderNonce,
        /// Other node.
        node: NodeId,
    },
    /// The other node is rated too low.
    #[error("order {order} wants {expected:?}, node {node} is {found:?}")]
    NodeTier {
        /// Our bid.
        order: OrderNonce,
        /// Other node.
        node: NodeId,
        /// Lowest tier.
        expected: NodeTier,
        /// Rating.
        found: NodeTier,
    },
    /// The other node's rating is not known, and we refuse such nodes.
    #[error("order {order} wants {expected:?}, node {node} has no recent rating")]
    NodeUnrated {
        /// Our bid.
        order: OrderNonce,
        /// Other node.
        node: NodeId,
        /// Lowest tier.
        expected: NodeTier,
    },
    /// The request to sign, or the final word, names another batch.
    #[error("batch {found} is named, expected {expected}")]
    BatchId {
        /// The verified batch.
        expected: BatchId,
        /// What was named, in hexadecimal.
        found: String,
    },
    /// Our account changed between verification and signing.
    #[error("account {0} changed since the batch was verified")]
    AccountChanged(AccountKey),
    /// Not one previous output per input.
    #[error("{found} previous outputs for {expected} inputs")]
    PrevOutputCount {
        /// Inputs.
        expected: usize,
        /// Previous outputs.
        found: usize,
    },
    /// The previous output of our account has another value.
    #[error("the output of account {account} has {expected}, not {found}")]
    PrevOutputValue {
        /// Account.
        account: AccountKey,
        /// Stored.
        expected: Sats,
        /// Claimed.
        found: bitcoin::Amount,
    },
    /// The previous output of our account has another script.
    #[error("the output of account {account} has script {expected}, not {found}")]
    PrevOutputScript {
        /// Account.
        account: AccountKey,
        /// Ours.
        expected: ScriptBuf,
        /// Claimed.
        found: ScriptBuf,
    },
    /// A previous output is not spent by a witness, so the transaction's name would change.
    #[error("the output spent by input {input} is no witness program: {found}")]
    PrevOutputNotWitness {
        /// Input.
        input: usize,
        /// Its script.
        found: ScriptBuf,
    },
    /// The inputs are worth less than the outputs, or more than all bitcoin.
    #[error("inputs of {inputs:?} for outputs of {outputs:?}")]
    InputSum {
        /// Sum; nothing above 21 million bitcoin.
        inputs: Option<Sats>,
        /// Sum; nothing above 21 million bitcoin.
        outputs: Option<Sats>,
    },
    /// No nonce of the venue for a taproot account.
    #[error("no nonce for taproot account {0}")]
    NonceMissing(AccountKey),
    /// A nonce of the venue is not two points.
    #[error("invalid nonce for account {account}: {cause}")]
    NonceInvalid {
        /// Account.
        account: AccountKey,
        /// What is wrong.
        cause: KeyError,
    },
    /// The venue finalized another transaction.
    #[error("transaction {found} was finalized, expected {expected}")]
    FinalizedTransaction {
        /// The verified one.
        expected: Txid,
        /// Named.
        found: Txid,
    },
    /// A quantity does not fit its type.
    #[error(transparent)]
    Arithmetic(#[from] UnitError),
    /// A key of the batch can not be computed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl VerifyError {
    /// Class of the refusal on the wire: a version mismatch, a doubt of ours (our own state, or wishes that the venue may
    /// not know yet), or a contradiction that an honest venue does not produce.
    ///
    /// # Source
    /// Protocol notes, batch §7.
    // Exhaustive, so that nobody adds a check without deciding its class.
    #[rustfmt::skip]
    pub fn reject_reason(&self) -> RejectReason {
        match self {
            Self::BatchVersion { .. } => RejectReason::BatchVersionMismatch,
            Self::Height { .. } | Self::UnknownOrder(_) | Self::UnknownAccount(_) | Self::AccountState { .. } |
            Self::AccountExpired { .. } | Self::AccountWithoutOutput(_) | Self::OrderArchived { .. } |
            Self::NodeRefused { .. } |
            Self::NodeTier { .. } | Self::NodeUnrated { .. } | Self::BatchId { .. } | Self::AccountChanged(_) =>
                RejectReason::Unknown,
            Self::NothingOfOurs | Self::OutputTwice { .. } | Self::TheirLimit { .. } |
            Self::NoMatch(_) | Self::SameSide { .. } | Self::AuctionType { .. } | Self::OwnNode { .. } |
            Self::OwnAccount { .. } | Self::OwnOrder { .. } | Self::OwnKey { .. } | Self::Duration { .. } |
            Self::Price { .. } | Self::ChannelType { .. } | Self::Announcement { .. } | Self::Confirmation { .. } |
            Self::SelfBalanceOnOldAsk { .. } | Self::EmptyMatch { .. } | Self::MatchBelowMinimum { .. } |
            Self::OutboundMinimum { .. } | Self::TheirMinimum { .. } | Self::TheirAmount { .. } |
            Self::SamePairTwice { .. } | Self::ChannelOutputMissing { .. } | Self::ChannelOutputValue { .. } |
            Self::ChannelOutputShared { .. } | Self::ClearingPrice { .. } | Self::Overfilled { .. } |
            Self::FeeRate { .. } | Self::ExecutionFeeBase { .. } | Self::ExecutionFeeRate { .. } |
            Self::DiffForUninvolved(_) | Self::DiffTwice(_) | Self::DiffMissing(_) | Self::EndingBalance { .. } |
            Self::ExpiryNotLater { .. } | Self::ExpiryTooFar { .. } | Self::ExtensionTooLong { .. } |
            Self::AccountVersion { .. } | Self::DustState { .. } | Self::DustIndex { .. } | Self::NotRecreated { .. } |
            Self::OutputIndexMissing(_) | Self::OutputIndexRange { .. } | Self::OutputValue { .. } |
            Self::OutputScript { .. } | Self::TransactionVersion { .. } | Self::LockTime { .. } |
            Self::Sequence { .. } | Self::NotUnsigned { .. } | Self::TransactionWeight { .. } |
            Self::InputOrder { .. } | Self::OutputOrder { .. } | Self::InputTwice { .. } | Self::OutputSum |
            Self::OwnInputMissing { .. } | Self::OwnInputSpent { .. } | Self::PrevOutputCount { .. } |
            Self::PrevOutputValue { .. } | Self::PrevOutputScript { .. } | Self::PrevOutputNotWitness { .. } |
            Self::InputSum { .. } | Self::NonceMissing(_) | Self::NonceInvalid { .. } |
            Self::FinalizedTransaction { .. } | Self::Arithmetic(_) | Self::Key(_) =>
                RejectReason::ServerMisbehavior,
        }
    }
}
