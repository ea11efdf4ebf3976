//! The ports of a process, put together. One node type serves all node ports, real or simulated.

use crate::venue::{GrpcLink, GrpcTraders};
use tidegate_ports::{Chain, Channels, Clock, Entropy, NodeData, Signer, Store, TraderEnv, VenueEnv, Wallet};

/// What an agent's flows run on.
pub(crate) struct TraderParts<N, S, C, E> {
    pub(crate) node: N,
    pub(crate) link: GrpcLink,
    pub(crate) store: S,
    pub(crate) clock: C,
    pub(crate) entropy: E,
}

/// What a venue's flows run on.
pub(crate) struct VenueParts<N, S, C, E> {
    pub(crate) node: N,
    pub(crate) traders: GrpcTraders,
    pub(crate) store: S,
    pub(crate) clock: C,
    pub(crate) entropy: E,
}

impl<N, S, C, E> TraderEnv for TraderParts<N, S, C, E>
where
    N: Wallet + Signer + Chain + Channels + NodeData,
    S: Store,
    C: Clock,
    E: Entropy,
{
    type Wallet = N;
    type Signer = N;
    type Chain = N;
    type Channels = N;
    type NodeData = N;
    type Link = GrpcLink;
    type Store = S;
    type Clock = C;
    type Entropy = E;

    fn wallet(&self) -> &N {
        &self.node
    }
    fn signer(&self) -> &N {
        &self.node
    }
    fn chain(&self) -> &N {
        &self.node
    }
    fn channels(&self) -> &N {
        &self.node
    }
    fn node(&self) -> &N {
        &self.node
    }
    fn link(&self) -> &GrpcLink {
        &self.link
    }
    fn store(&self) -> &S {
        &self.store
    }
    fn clock(&self) -> &C {
        &self.clock
    }
    fn entropy(&self) -> &E {
        &self.entropy
    }
}

impl<N, S, C, E> VenueEnv for VenueParts<N, S, C, E>
where
    N: Wallet + Signer + Chain,
    S: Store,
    C: Clock,
    E: Entropy,
{
    type Wallet = N;
    type Signer = N;
    type Chain = N;
    type Traders = GrpcTraders;
    type Store = S;
    type Clock = C;
    type Entropy = E;

    fn wallet(&self) -> &N {
        &self.node
    }
    fn signer(&self) -> &N {
        &self.node
    }
    fn chain(&self) -> &N {
        &self.node
    }
    fn traders(&self) -> &GrpcTraders {
        &self.traders
    }
    fn store(&self) -> &S {
        &self.store
    }
    fn clock(&self) -> &C {
        &self.clock
    }
    fn entropy(&self) -> &E {
        &self.entropy
    }
}
