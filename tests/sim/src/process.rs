//! The processes: a trader and a venue, each started again from its store whenever it ends.

use crate::hub::Hub;
use crate::link::{SimLink, SimTraders};
use crate::plant::{Plant, PlantedChain, PlantedStore};
use crate::record::{Audited, Record, Violations};
use crate::tally::Tally;
use core::pin::pin;
use futures_util::future::{Either, select};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tidegate_ports::{StoreError, TraderEnv, TraderId, VenueEnv};
use tidegate_sandbox::{FaultyStore, Gate, Gated, MemoryStore, SandboxEntropy, SandboxNode, SimClock};
use tidegate_trader::TraderConfig;
use tidegate_venue::VenueConfig;

/// What the processes of one participant share from life to life.
pub struct Party {
    /// Name.
    pub name: String,
    /// Its node.
    pub node: SandboxNode,
    /// Its durable rows.
    pub rows: MemoryStore,
    /// Before its ports.
    pub gate: Gate,
    /// Its auditor.
    pub record: Record,
    /// Its identity at the venue.
    pub id: TraderId,
    /// Milliseconds from the end of a process to the next start.
    pub pause_ms: u64,
    /// How often it was started.
    pub lives: Cell<u64>,
    /// Defect planted in it.
    pub plant: Option<Plant>,
    violations: Violations,
}

/// Where everything that is noticed in a run goes.
#[derive(Clone, Default)]
pub(crate) struct Watched {
    /// What is wrong.
    pub(crate) violations: Violations,
    /// What happened.
    pub(crate) tally: Tally,
}

impl Party {
    /// A participant with a node of its own.
    pub(crate) fn new(name: &str, node: SandboxNode, gate: Gate, watched: Watched, plant: Option<Plant>) -> Party {
        let (rows, world) = (MemoryStore::new(), node.world().clone());
        let mut id = [0; 32];
        name.bytes().zip(&mut id).for_each(|(byte, place)| *place = byte);
        Party {
            name: name.to_owned(),
            node,
            rows: rows.clone(),
            gate,
            record: Record::new(name, world, rows, watched.clone()),
            id: TraderId(id),
            pause_ms: 3_000,
            lives: Cell::new(0),
            plant,
            violations: watched.violations,
        }
    }

    fn store(&self) -> FaultyStore<PlantedStore> {
        FaultyStore::new(self.gate.clone(), PlantedStore::new(self.rows.clone(), self.plant))
    }

    fn node(&self) -> Gated<SandboxNode> {
        Gated::new(self.gate.clone(), self.node.clone(), self.node.clone())
    }

    fn chain(&self) -> Gated<PlantedChain> {
        let chain = PlantedChain::new(self.node.clone(), self.plant);
        Gated::new(self.gate.clone(), chain, self.node.clone())
    }

    fn keys(&self, trader: bool) -> Gated<Audited> {
        let audited = Audited::new(self.node.clone(), self.record.clone(), self.plant, trader);
        Gated::new(self.gate.clone(), audited, self.node.clone())
    }

    /// A store that fails ends a process; nothing else may.
    fn ended(&self, why: &StoreError) {
        if !matches!(why, StoreError::Failed { .. }) {
            self.violations.add(format!("{}: halted: {why}", self.name));
        }
    }
}

/// The ports of a trader's process.
pub(crate) struct TraderPorts {
    keys: Gated<Audited>,
    chain: Gated<PlantedChain>,
    node: Gated<SandboxNode>,
    link: SimLink,
    store: FaultyStore<PlantedStore>,
    clock: SimClock,
    entropy: SandboxEntropy,
}

impl TraderEnv for TraderPorts {
    type Wallet = Gated<Audited>;
    type Signer = Gated<Audited>;
    type Chain = Gated<PlantedChain>;
    type Channels = Gated<SandboxNode>;
    type NodeData = Gated<SandboxNode>;
    type Link = SimLink;
    type Store = FaultyStore<PlantedStore>;
    type Clock = SimClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &Gated<Audited> {
        &self.keys
    }
    fn signer(&self) -> &Gated<Audited> {
        &self.keys
    }
    fn chain(&self) -> &Gated<PlantedChain> {
        &self.chain
    }
    fn channels(&self) -> &Gated<SandboxNode> {
        &self.node
    }
    fn node(&self) -> &Gated<SandboxNode> {
        &self.node
    }
    fn link(&self) -> &SimLink {
        &self.link
    }
    fn store(&self) -> &FaultyStore<PlantedStore> {
        &self.store
    }
    fn clock(&self) -> &SimClock {
        &self.clock
    }
    fn entropy(&self) -> &SandboxEntropy {
        &self.entropy
    }
}

/// The handle of the trader that runs at the moment.
pub(crate) type TraderHandle = Rc<RefCell<Option<tidegate_trader::Handle>>>;

/// Runs a trader for ever, life after life.
pub(crate) async fn run_trader(
    party: Rc<Party>,
    config: TraderConfig,
    handle: TraderHandle,
    hub: Hub,
    clock: SimClock,
) {
    loop {
        party.gate.revive();
        party.lives.set(party.lives.get() + 1);
        let (access, trader) = tidegate_trader::trader(config.clone());
        handle.replace(Some(access));
        let ports = TraderPorts {
            keys: party.keys(true),
            chain: party.chain(),
            node: party.node(),
            link: SimLink::new(hub.clone(), &party),
            store: party.store(),
            clock: clock.clone(),
            entropy: party.node.world().entropy(&party.name),
        };
        match select(pin!(party.gate.ended()), pin!(trader.run(&ports))).await {
            Either::Left(_) => {}
            Either::Right((Err(tidegate_trader::Halt::Store(why)), _)) => party.ended(&why),
            Either::Right((other, _)) => party.violations.add(format!("{}: ended: {other:?}", party.name)),
        }
        drop(ports);
        clock.sleep(party.pause_ms).await;
    }
}

/// The ports of a venue's process.
pub(crate) struct VenuePorts {
    keys: Gated<Audited>,
    chain: Gated<PlantedChain>,
    traders: SimTraders,
    store: FaultyStore<PlantedStore>,
    clock: SimClock,
    entropy: SandboxEntropy,
}

impl VenueEnv for VenuePorts {
    type Wallet = Gated<Audited>;
    type Signer = Gated<Audited>;
    type Chain = Gated<PlantedChain>;
    type Traders = SimTraders;
    type Store = FaultyStore<PlantedStore>;
    type Clock = SimClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &Gated<Audited> {
        &self.keys
    }
    fn signer(&self) -> &Gated<Audited> {
        &self.keys
    }
    fn chain(&self) -> &Gated<PlantedChain> {
        &self.chain
    }
    fn traders(&self) -> &SimTraders {
        &self.traders
    }
    fn store(&self) -> &FaultyStore<PlantedStore> {
        &self.store
    }
    fn clock(&self) -> &SimClock {
        &self.clock
    }
    fn entropy(&self) -> &SandboxEntropy {
        &self.entropy
    }
}

/// Runs a venue for ever, life after life, each with the configuration of its beginning.
pub(crate) async fn run_venue(party: Rc<Party>, config: Rc<RefCell<VenueConfig>>, hub: Hub, clock: SimClock) {
    loop {
        party.gate.revive();
        party.lives.set(party.lives.get() + 1);
        let (access, venue) = tidegate_venue::venue(config.borrow().clone());
        hub.set_venue(Some(access));
        let ports = VenuePorts {
            keys: party.keys(false),
            chain: party.chain(),
            traders: SimTraders::new(hub.clone(), party.gate.clone()),
            store: party.store(),
            clock: clock.clone(),
            entropy: party.node.world().entropy(&party.name),
        };
        match select(pin!(party.gate.ended()), pin!(venue.run(&ports))).await {
            Either::Left(_) => {}
            Either::Right((Err(tidegate_venue::Halt::Store(why)), _)) => party.ended(&why),
            Either::Right((other, _)) => party.violations.add(format!("{}: ended: {other:?}", party.name)),
        }
        hub.set_venue(None);
        clock.sleep(party.pause_ms).await;
    }
}
