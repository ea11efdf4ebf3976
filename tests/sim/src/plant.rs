//! Defects that tests plant in a participant, to see that they are found.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tidegate_ports::{Chain, ChainEvent, Change, NodeError, Row, Sequence, Store, StoreError, Watch};
use tidegate_protocol::units::BlockHeight;
use tidegate_sandbox::{MemoryStore, SandboxNode};

/// A defect that a test plants in a participant, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The signer repeats its first nonce.
    RepeatedNonce,
    /// The store says that it wrote rows of this table, but does not.
    ForgottenRows(&'static str),
    /// The store says that it deleted rows of this table, but does not.
    KeptRows(&'static str),
    /// The store never writes that a batch was superseded.
    ForgottenSuperseding,
    /// The store writes only the first half of a commit with several changes, and fails.
    TornCommits,
    /// The trader says that it told the venue to cancel an order, but does not.
    UnsentCancel,
    /// What the chain says a second time, because a reorganisation undid it, is not listened to.
    IgnoredReorganisation,
}

/// The chain of a node, as heard by a participant that perhaps ignores reorganisations.
#[derive(Debug)]
pub(crate) struct PlantedChain {
    node: SandboxNode,
    deaf: bool,
    /// Watches that said something.
    told: Mutex<BTreeSet<String>>,
}

impl PlantedChain {
    /// The chain of this node, with this defect.
    pub(crate) fn new(node: SandboxNode, plant: Option<Plant>) -> PlantedChain {
        PlantedChain { node, deaf: plant == Some(Plant::IgnoredReorganisation), told: Mutex::default() }
    }

    fn heard(&self, event: &ChainEvent) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ChainEvent::Block { .. } => true,
            ChainEvent::Confirmed { name, .. } | ChainEvent::Spent { name, .. } => {
                !self.deaf || told.insert(name.clone())
            }
        }
    }
}

impl Chain for PlantedChain {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        self.node.best_height().await
    }

    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.node.watch(name, watch).await
    }

    async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.node.unwatch(name).await
    }

    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        loop {
            let event = self.node.next_event().await?;
            if self.heard(&event) {
                return Ok(event);
            }
        }
    }
}

/// A store with its planted defect, if any.
#[derive(Clone, Debug)]
pub(crate) struct PlantedStore {
    rows: MemoryStore,
    plant: Option<Plant>,
}

impl PlantedStore {
    /// These rows, and this defect.
    pub(crate) fn new(rows: MemoryStore, plant: Option<Plant>) -> PlantedStore {
        PlantedStore { rows, plant }
    }

    fn keeps(&self, change: &Change) -> bool {
        match (self.plant, change) {
            (Some(Plant::ForgottenRows(forgotten)), Change::Put { table, .. }) => *table != forgotten,
            (Some(Plant::ForgottenSuperseding), Change::Put { table, value, .. }) => {
                *table != "staged" || !value.contains("Superseded")
            }
            (Some(Plant::KeptRows(kept)), Change::Delete { table, .. }) => *table != kept,
            (Some(_) | None, _) => true,
        }
    }
}

impl Store for PlantedStore {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        self.rows.load(tables).await
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        if let (Some(Plant::TornCommits), 2..) = (self.plant, changes.len()) {
            let (half, _) = changes.split_at(changes.len() / 2);
            self.rows.apply(expected, half).await?;
            return Err(StoreError::Failed { reason: "the medium failed in the middle".to_owned() });
        }
        let kept: Vec<Change> = changes.iter().filter(|change| self.keeps(change)).cloned().collect();
        self.rows.apply(expected, &kept).await
    }
}
