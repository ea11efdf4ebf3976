//! All ports of a flow behind one type parameter.

use crate::{Chain, Channels, Clock, Entropy, NodeData, Signer, Store, Traders, VenueLink, Wallet};

/// The ports of a trader.
pub trait TraderEnv: Send + Sync {
    /// On-chain wallet.
    type Wallet: Wallet;
    /// Keys.
    type Signer: Signer;
    /// Chain.
    type Chain: Chain;
    /// Channels.
    type Channels: Channels;
    /// Facts about the node.
    type NodeData: NodeData;
    /// Link to the venue.
    type Link: VenueLink;
    /// Durable state.
    type Store: Store;
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;

    /// On-chain wallet.
    fn wallet(&self) -> &Self::Wallet;
    /// Keys.
    fn signer(&self) -> &Self::Signer;
    /// Chain.
    fn chain(&self) -> &Self::Chain;
    /// Channels.
    fn channels(&self) -> &Self::Channels;
    /// Facts about the node.
    fn node(&self) -> &Self::NodeData;
    /// Link to the venue.
    fn link(&self) -> &Self::Link;
    /// Durable state.
    fn store(&self) -> &Self::Store;
    /// Time.
    fn clock(&self) -> &Self::Clock;
    /// Randomness.
    fn entropy(&self) -> &Self::Entropy;
}

/// The ports of a venue.
pub trait VenueEnv: Send + Sync {
    /// On-chain wallet.
    type Wallet: Wallet;
    /// Keys.
    type Signer: Signer;
    /// Chain.
    type Chain: Chain;
    /// Connected traders.
    type Traders: Traders;
    /// Durable state.
    type Store: Store;
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;

    /// On-chain wallet.
    fn wallet(&self) -> &Self::Wallet;
    /// Keys.
    fn signer(&self) -> &Self::Signer;
    /// Chain.
    fn chain(&self) -> &Self::Chain;
    /// Connected traders.
    fn traders(&self) -> &Self::Traders;
    /// Durable state.
    fn store(&self) -> &Self::Store;
    /// Time.
    fn clock(&self) -> &Self::Clock;
    /// Randomness.
    fn entropy(&self) -> &Self::Entropy;
}
