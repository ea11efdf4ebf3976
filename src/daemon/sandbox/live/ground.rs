//! The world under the market, saved block by block: a start on the same data goes on where the last one ended.

use crate::daemon::data_dir;
use crate::store::SqliteStore;
use anyhow::{Context as _, ensure};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{OutPoint, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_ports::{Change, Row, Sequence, Store as _};
use tidegate_protocol::units::{BlockHeight, SatPerKw};
use tidegate_sandbox::{
    ChannelRecord, ChannelUse, GENESIS_HEIGHT, Keeper, NodeSnapshot, SandboxNode, World, WorldSnapshot,
};

const META: &str = "meta";
const BLOCK: &str = "block";
const NODE: &str = "node";
const CHANNEL: &str = "channel";
const LABEL: &str = "label";
const USE: &str = "use";
/// Keys of each family that are left out after a start that was not preceded by an orderly end: what was handed out
/// since the last saved block is not known.
const SKIPPED_KEYS: u32 = 64;
/// The seed when none is asked for.
const DEFAULT_SEED: u64 = 1;

/// What is known of the world as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    seed: u64,
    start: u64,
    fee_rate: SatPerKw,
    tip: u32,
    /// The mempool at an orderly end; nothing while the world runs.
    mempool: Option<Vec<String>>,
}

/// A node without what has rows of its own, and its place among the nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeRow {
    place: usize,
    head: NodeSnapshot,
}

/// A world with the file that keeps it.
pub(super) struct Ground {
    pub(super) world: World,
    store: SqliteStore,
    sequence: Sequence,
    keeper: Keeper,
    meta: Meta,
}

impl Ground {
    /// Opens the folder: a new world of this seed, or the one that is kept there, started once more.
    ///
    /// # Errors
    /// When the folder can not be used, belongs to another seed, or is damaged.
    pub(super) async fn open(folder: &Path, seed: Option<u64>) -> anyhow::Result<Ground> {
        data_dir::create(folder)?;
        let store = SqliteStore::open(&folder.join("world.sqlite"), "world").await?;
        let (sequence, rows) = store.load(&[META, BLOCK, NODE, CHANNEL, LABEL, USE]).await?;
        let kept = rows.iter().find(|row| row.table == META).map(parse::<Meta>).transpose()?;
        let (world, meta) = match &kept {
            None => {
                let seed = seed.unwrap_or(DEFAULT_SEED);
                let world = World::new(seed);
                let (start, fee_rate) = (0, world.fee_rate());
                (world, Meta { seed, start, fee_rate, tip: GENESIS_HEIGHT, mempool: None })
            }
            Some(meta) => {
                let asked = seed.unwrap_or(meta.seed);
                ensure!(
                    asked == meta.seed,
                    "{} holds the market of seed {}, not {asked}: leave --seed out to go on with it, or choose another --data-dir",
                    folder.display(),
                    meta.seed
                );
                let snapshot = assemble(meta, &rows).context("the saved world is damaged")?;
                let world = World::restore(&snapshot).context("the saved world is damaged")?;
                let start = meta.start.saturating_add(1);
                (world, Meta { start, mempool: None, ..meta.clone() })
            }
        };
        let mut ground = Ground { world, store, sequence, keeper: Keeper::default(), meta };
        // The number of this start is used up before anything is drawn under it.
        ground.write(Vec::new()).await?;
        Ok(ground)
    }

    /// Seed of the world.
    pub(super) fn seed(&self) -> u64 {
        self.meta.seed
    }

    /// How often it was started before.
    pub(super) fn start(&self) -> u64 {
        self.meta.start
    }

    /// The node of this name.
    pub(super) fn node(&self, name: &str) -> SandboxNode {
        self.world.add_node(name)
    }

    /// Saves the next block, then mines it.
    ///
    /// # Errors
    /// When it can not be saved.
    pub(super) async fn block(&mut self) -> anyhow::Result<BlockHeight> {
        let point = self.world.plan(&mut self.keeper);
        self.meta.tip = point.height.get();
        self.meta.fee_rate = point.fee_rate;
        let mut changes = Vec::new();
        if !point.block.transactions.is_empty() {
            let block: Vec<String> = point.block.transactions.iter().map(serialize_hex).collect();
            changes.push(put(BLOCK, format!("{:010}", point.height.get()), &block)?);
        }
        changes.extend(node_changes(&point.nodes)?);
        for (channel, usage) in &point.uses {
            changes.push(put(USE, channel.to_string(), usage)?);
        }
        self.write(changes).await?;
        Ok(self.world.mine_plan(&point.block))
    }

    /// Saves everything for the next start; nothing may happen in the world afterwards.
    ///
    /// # Errors
    /// When it can not be saved.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        let point = self.world.plan(&mut self.keeper);
        let mut changes = node_changes(&point.nodes)?;
        for (channel, usage) in &point.uses {
            changes.push(put(USE, channel.to_string(), usage)?);
        }
        self.meta.mempool = Some(self.world.mempool().iter().map(serialize_hex).collect());
        self.write(changes).await?;
        self.store.close().await;
        Ok(())
    }

    async fn write(&mut self, mut changes: Vec<Change>) -> anyhow::Result<()> {
        changes.push(put(META, META.to_owned(), &self.meta)?);
        self.sequence = self.store.apply(self.sequence, &changes).await.context("the world can not be saved")?;
        Ok(())
    }
}

fn put(table: &'static str, key: String, value: &impl Serialize) -> anyhow::Result<Change> {
    Ok(Change::Put { table, key, value: serde_json::to_string(value)? })
}

fn node_changes(nodes: &[(usize, NodeSnapshot)]) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (place, node) in nodes {
        let head = NodeSnapshot { labels: Vec::new(), channels: Vec::new(), ..node.clone() };
        changes.push(put(NODE, node.name.clone(), &NodeRow { place: *place, head })?);
        for channel in &node.channels {
            changes.push(put(CHANNEL, format!("{}/{}", node.name, channel.channel_point), channel)?);
        }
        for (txid, label) in &node.labels {
            changes.push(put(LABEL, format!("{}/{txid}", node.name), label)?);
        }
    }
    Ok(changes)
}

fn parse<T: serde::de::DeserializeOwned>(row: &Row) -> anyhow::Result<T> {
    serde_json::from_str(&row.value).with_context(|| format!("row {} of {} does not parse", row.key, row.table))
}

/// The owner and the rest of a key like `name/rest`.
fn split(key: &str) -> anyhow::Result<(&str, &str)> {
    key.split_once('/').with_context(|| format!("the key {key} has no owner"))
}

/// The world that the rows describe.
fn assemble(meta: &Meta, rows: &[Row]) -> anyhow::Result<WorldSnapshot> {
    let mut blocks: BTreeMap<u32, Vec<Transaction>> = BTreeMap::new();
    let mut nodes: BTreeMap<usize, NodeSnapshot> = BTreeMap::new();
    let mut channels: BTreeMap<&str, Vec<ChannelRecord>> = BTreeMap::new();
    let mut labels: BTreeMap<&str, Vec<(bitcoin::Txid, String)>> = BTreeMap::new();
    let mut uses: Vec<(OutPoint, ChannelUse)> = Vec::new();
    for row in rows {
        match row.table.as_str() {
            BLOCK => {
                blocks.insert(row.key.parse()?, transactions(&parse::<Vec<String>>(row)?)?);
            }
            NODE => {
                let NodeRow { place, head } = parse(row)?;
                nodes.insert(place, head);
            }
            CHANNEL => channels.entry(split(&row.key)?.0).or_default().push(parse(row)?),
            LABEL => {
                let (name, txid) = split(&row.key)?;
                labels.entry(name).or_default().push((txid.parse()?, parse(row)?));
            }
            USE => uses.push((row.key.parse()?, parse(row)?)),
            _ => {}
        }
    }
    let skipped = if meta.mempool.is_some() { 0 } else { SKIPPED_KEYS };
    let whole = |mut head: NodeSnapshot| {
        head.channels = channels.remove(head.name.as_str()).unwrap_or_default();
        head.labels = labels.remove(head.name.as_str()).unwrap_or_default();
        head.families.values_mut().for_each(|next| *next = next.saturating_add(skipped));
        // Whoever was away at the end is back at the start.
        head.listening = true;
        head
    };
    Ok(WorldSnapshot {
        seed: meta.seed,
        start: meta.start,
        fee_rate: meta.fee_rate,
        blocks: (GENESIS_HEIGHT + 1..=meta.tip).map(|height| blocks.remove(&height).unwrap_or_default()).collect(),
        mempool: transactions(meta.mempool.as_deref().unwrap_or_default())?,
        nodes: nodes.into_values().map(whole).collect(),
        uses,
    })
}

fn transactions(hex: &[String]) -> anyhow::Result<Vec<Transaction>> {
    hex.iter().map(|text| deserialize_hex(text).context("a saved transaction does not parse")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ports::{AddressKind, Wallet as _};
    use tidegate_protocol::units::Sats;

    #[tokio::test]
    async fn a_world_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let mut ground = Ground::open(&path, Some(9)).await.expect("new");
        assert_eq!(ground.start(), 0);
        let node = ground.node("alice");
        for amount in [50_000, 70_000] {
            let script = node.new_address(AddressKind::Taproot).await.expect("an address");
            ground.world.pay(script, Sats::constant(amount)).expect("paid");
            ground.block().await.expect("saved");
        }
        let script = node.new_address(AddressKind::Taproot).await.expect("an address");
        ground.world.pay(script, Sats::constant(90_000)).expect("paid, unconfirmed");
        let (height, mempool, id) = (ground.world.height(), ground.world.mempool(), node.id());
        ground.close().await.expect("saved");

        let mut again = Ground::open(&path, None).await.expect("kept");
        assert_eq!((again.seed(), again.start()), (9, 1));
        assert_eq!((again.world.height(), again.world.mempool()), (height, mempool));
        let node = again.node("alice");
        assert_eq!(node.id(), id);
        assert_eq!(node.confirmed_balance().await, Ok(Sats::constant(120_000)));
        again.block().await.expect("saved");
        assert_eq!(node.confirmed_balance().await, Ok(Sats::constant(210_000)));
        drop(again);

        // Not closed in order: the last block is there all the same.
        let third = Ground::open(&path, Some(9)).await.expect("kept");
        assert_eq!((third.start(), third.world.height().get()), (2, height.get() + 1));
        drop(third);
        let refusal = Ground::open(&path, Some(10)).await.err().expect("another seed").to_string();
        assert!(refusal.contains("seed 9") && refusal.contains("--data-dir"), "{refusal}");
    }
}
