//! Many leases on one market: a venue, a seller and a buyer with an account of each version.
//!
//! Every amount is seen four times: in both traders' reports, on the chain, in the nodes' channels, and computed here
//! from the batch's published price and fee rate. Everything that is said passes the auditor's proxy.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::audit::Audit;
use crate::btcd::{outputs, spent};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::link::NodeLink;
use crate::lnd::{Channel, Lnd};
use crate::matrix::{ChannelKind, Market, Pairing, SelfBalance, Setting, Timing, Visibility};
use crate::money::{Deal, chain_fee, rate_of_percent};
use crate::ours::{Venue, VenuePlan};
use crate::pool::{AccountVersion, BatchView, Order, PoolAccount, PoolLease};
use crate::process::{Wait, free_port};
use crate::regtest::Network;
use crate::trade::{
    ACCOUNT_BLOCKS, ASK_PERCENT, BID_PERCENT, CONFIRMATIONS, LEASE_BLOCKS, LeaseView, OrderTerms, Program, Side,
    known_channels, txid_of, wait_new_channel,
};

/// Value of each account.
pub(crate) const ACCOUNT_SAT: u64 = 30_000_000;
/// What the seller puts into a channel of the inbound market.
const AMOUNT_SAT: u64 = 2_000_000;
/// What the buyer puts into it, if anything.
const OWN_SAT: u64 = 1_000_000;
/// Both sides of the outbound market: the seller puts in one unit, the buyer what is traded.
const OUTBOUND_AMOUNT_SAT: u64 = 100_000;
const OUTBOUND_OWN_SAT: u64 = 2_000_000;
/// The opener pays for an anchor output of each side that has coins in the channel, besides the commitment's fee.
const ANCHOR_SAT: u64 = 330;

/// A running market.
pub(crate) struct Group<'n> {
    pub(crate) network: &'n Network,
    /// Between the venue and its node.
    pub(crate) link: NodeLink,
    pub(crate) venue: Venue,
    pub(crate) audit: Audit,
    pub(crate) seller: Party,
    pub(crate) buyer: Party,
    /// Leases traded so far.
    channels: u64,
    /// Batches on the chain so far, and the account inputs that they spent.
    batches: u64,
    inputs: u64,
    /// Modifications signed so far, closings too.
    modifications: u64,
}

/// A side of the market.
pub(crate) struct Party {
    pub(crate) side: Side,
    pub(crate) client: Client,
    /// Its accounts as they were last found, by version.
    pub(crate) accounts: Vec<PoolAccount>,
}

impl Party {
    /// Reads an account again; all others must be as they were.
    fn refresh(&mut self, index: usize) -> Outcome<PoolAccount> {
        for (at, known) in self.accounts.iter_mut().enumerate() {
            let now = self.client.cli().account(&known.trader_key)?;
            if at == index {
                *known = now;
            } else {
                assert_eq!(now, *known, "another account of the {:?} changed", self.side);
            }
        }
        Ok(self.accounts[index].clone())
    }

    /// Waits until the account is in this state at the venue and on the chain.
    pub(crate) fn wait_state(&self, trader_key: &str, state: &str) -> Outcome<PoolAccount> {
        Wait::new(format!("account {trader_key} of the {:?} {state}", self.side)).log(self.client.log()).until(|| {
            let account = self.client.cli().account(trader_key)?;
            match account.state == state {
                true => Ok(account),
                false => Err(Failure::new(format!("{account:?}"))),
            }
        })
    }
}

/// The two orders of a case, submitted.
struct Placed {
    nonces: [String; 2],
    deal: Deal,
}

impl<'n> Group<'n> {
    /// Starts a market in which every account is open.
    pub(crate) fn open(network: &'n Network, pairing: Pairing, folder: &Path) -> Outcome<Self> {
        Self::open_for(network, pairing, folder, ACCOUNT_BLOCKS)
    }

    /// As [`Group::open`], with accounts that expire after this many blocks.
    pub(crate) fn open_for(network: &'n Network, pairing: Pairing, folder: &Path, blocks: u64) -> Outcome<Self> {
        let link = NodeLink::start(network.venue.rpc_host())?;
        let plan = VenuePlan { grpc_port: free_port()?, tick_seconds: 0, node: link.address().to_owned() };
        let venue = Venue::start_with(&network.venue, &folder.join("venue"), &plan)?;
        let audit = Audit::start(network, venue.address())?;
        let party = |side, program, lnd: &Lnd, name: &str| -> Outcome<Party> {
            let client = Client::start(network, program, lnd, &audit.address(side), &folder.join(name))?;
            Ok(Party { side, client, accounts: Vec::new() })
        };
        let seller = party(Side::Seller, pairing.seller, &network.alice, "seller")?;
        let buyer = party(Side::Buyer, pairing.buyer, &network.bob, "buyer")?;
        let mut group =
            Self { network, link, venue, audit, seller, buyer, channels: 0, batches: 0, inputs: 0, modifications: 0 };
        group.open_accounts(blocks)?;
        Ok(group)
    }

    /// An account of each version on both sides, all confirmed by the same blocks.
    fn open_accounts(&mut self, blocks: u64) -> Outcome<()> {
        for version in AccountVersion::ALL {
            for party in [&mut self.seller, &mut self.buyer] {
                let cli = party.client.cli();
                let key = cli.open_account(ACCOUNT_SAT, version, blocks)?;
                let account = cli.account(&key)?;
                assert_eq!((account.version, account.state.as_str()), (version, "PENDING_OPEN"));
                self.network.chain.wait_for_transaction(txid_of(&account.outpoint)?)?;
                party.accounts.push(account);
            }
        }
        self.network.mine(CONFIRMATIONS)?;
        for party in [&mut self.seller, &mut self.buyer] {
            for at in 0..party.accounts.len() {
                let opened = party.wait_state(&party.accounts[at].trader_key, "OPEN")?;
                assert_eq!(opened.outpoint, party.accounts[at].outpoint);
                self.audit.transaction(&self.network.chain.transaction(txid_of(&opened.outpoint)?)?)?;
                check_account(self.network, &opened, ACCOUNT_SAT)?;
                party.accounts[at] = opened;
            }
        }
        Ok(())
    }

    /// One lease, from two orders to an active channel and two open accounts.
    pub(crate) fn lease(&mut self, setting: &Setting) -> Outcome<()> {
        self.lease_by(setting, |group| group.tick())
    }

    /// As [`Group::lease`], cleared by `clear`.
    pub(crate) fn lease_by(&mut self, setting: &Setting, clear: impl FnOnce(&mut Self) -> Outcome<()>) -> Outcome<()> {
        let before = known_channels(&self.network.alice)?;
        let placed = self.place(setting)?;
        let height = self.network.chain.height()?;
        clear(self)?;
        let logs = [self.venue.log(), self.seller.client.log(), self.buyer.client.log()];
        let point = wait_new_channel(self.network, [&self.network.alice, &self.network.bob], &before, &logs)?;
        if setting.timing == Timing::ZeroConf {
            self.check_used_unconfirmed(&point)?;
        }
        self.network.confirm(txid_of(&point)?, CONFIRMATIONS)?;
        self.check_channels(setting, &placed.deal, &point, height)?;
        let batch = self.buyer.client.cli().latest_batch(LEASE_BLOCKS)?;
        assert_eq!(batch.txid, txid_of(&point)?, "snapshot of another batch");
        assert_eq!(batch.clearing_rate_ppb, placed.deal.rate_ppb, "the lowest bid that got anything sets the price");
        self.check_balances(setting, &placed.deal, &batch)?;
        self.check_reports(setting, &placed, &batch, &point)?;
        self.audit.transaction(&self.network.chain.transaction(&batch.txid)?)?;
        self.traded(1, 1, 2)
    }

    /// Has the venue clear; a failure if nothing did.
    pub(crate) fn tick(&self) -> Outcome<()> {
        let outcome = self.venue.tick()?;
        match outcome.get("cleared").is_some_and(Value::is_string) {
            true => Ok(()),
            false => Err(Failure::new(format!("nothing cleared: {outcome}\n{}", self.tails()))),
        }
    }

    /// Takes note of batches, their channels and the account inputs that they spent, and reads every account again.
    pub(crate) fn traded(&mut self, channels: usize, batches: usize, inputs: usize) -> Outcome<()> {
        let count = |number: usize| u64::try_from(number).expect("few");
        self.channels += count(channels);
        self.batches += count(batches);
        self.inputs += count(inputs);
        for party in [&mut self.seller, &mut self.buyer] {
            for known in &mut party.accounts {
                *known = party.client.cli().account(&known.trader_key)?;
            }
        }
        self.check_audit()
    }

    /// Submits ask and bid, which meet and nothing else does.
    fn place(&self, setting: &Setting) -> Outcome<Placed> {
        let outbound = setting.market == Market::Outbound;
        let (amount_sat, own_sat, ask_min_sat) = match (setting.market, setting.own) {
            (Market::Inbound, SelfBalance::None) => (AMOUNT_SAT, 0, AMOUNT_SAT),
            (Market::Inbound, SelfBalance::Some) => (AMOUNT_SAT, OWN_SAT, AMOUNT_SAT),
            (Market::Outbound, _) => (OUTBOUND_AMOUNT_SAT, OUTBOUND_OWN_SAT, OUTBOUND_OWN_SAT),
        };
        let order = |side, account: &PoolAccount, percent, min_sat, own_sat| Order {
            side,
            account: account.trader_key.clone(),
            terms: OrderTerms { amount_sat, blocks: LEASE_BLOCKS, percent },
            min_sat,
            channel_type: match setting.channel {
                ChannelKind::PeerDependent => None,
                ChannelKind::ScriptEnforced => Some("script-enforced"),
                ChannelKind::SimpleTaproot => Some("simple-taproot"),
            },
            outbound,
            own_sat,
            unannounced: setting.visibility == Visibility::Unannounced,
            zero_conf: setting.timing == Timing::ZeroConf,
        };
        let (seller, buyer) = (setting.seller_version.index(), setting.buyer_version.index());
        let ask = order(Side::Seller, &self.seller.accounts[seller], ASK_PERCENT, ask_min_sat, 0);
        let bid = order(Side::Buyer, &self.buyer.accounts[buyer], BID_PERCENT, amount_sat, own_sat);
        let nonces = [self.seller.client.cli().submit(&ask)?, self.buyer.client.cli().submit(&bid)?];
        let rate_ppb = rate_of_percent(BID_PERCENT, LEASE_BLOCKS);
        Ok(Placed { nonces, deal: Deal { amount_sat, own_sat, outbound, blocks: LEASE_BLOCKS, rate_ppb } })
    }

    /// A zero-conf channel is active at both nodes while no block has its funding transaction.
    fn check_used_unconfirmed(&self, point: &str) -> Outcome<()> {
        for node in [&self.network.alice, &self.network.bob] {
            assert!(node.wait_active(point)?.zero_conf);
        }
        assert_eq!(self.network.chain.unspent(point)?.confirmations, 0);
        Ok(())
    }

    /// Both nodes and the chain have the channel that was agreed.
    fn check_channels(&self, setting: &Setting, deal: &Deal, point: &str, height: u64) -> Outcome<()> {
        let (alice, bob) = (&self.network.alice, &self.network.bob);
        let (commitment_type, script, thaw_height) = match setting.channel {
            ChannelKind::PeerDependent => ("ANCHORS", "0020", LEASE_BLOCKS),
            ChannelKind::ScriptEnforced => ("SCRIPT_ENFORCED_LEASE", "0020", height + LEASE_BLOCKS),
            ChannelKind::SimpleTaproot => ("SIMPLE_TAPROOT", "5120", LEASE_BLOCKS),
        };
        let (sold, bought) = (alice.wait_active(point)?, bob.wait_active(point)?);
        let anchors_sat = ANCHOR_SAT * if deal.own_sat > 0 { 2 } else { 1 };
        let left_sat = deal.amount_sat - sold.commit_fee_sat - anchors_sat;
        let sold_as = Channel {
            point: point.to_owned(),
            peer: bob.identity()?,
            capacity_sat: deal.capacity_sat(),
            initiator: true,
            active: true,
            commitment_type: commitment_type.to_owned(),
            local_sat: left_sat,
            remote_sat: deal.own_sat,
            commit_fee_sat: sold.commit_fee_sat,
            private: setting.visibility == Visibility::Unannounced,
            zero_conf: setting.timing == Timing::ZeroConf,
            thaw_height,
        };
        let bought_as = Channel {
            peer: alice.identity()?,
            initiator: false,
            local_sat: deal.own_sat,
            remote_sat: left_sat,
            ..sold_as.clone()
        };
        assert_eq!((sold, bought), (sold_as, bought_as));
        let output = self.network.chain.unspent(point)?;
        assert_eq!(output.value_sat, deal.capacity_sat());
        assert!(output.script_hex.starts_with(script), "{output:?}");
        Ok(())
    }

    /// The batch spends both accounts and makes them anew, each with what it must have; no other account changed.
    fn check_balances(&mut self, setting: &Setting, deal: &Deal, batch: &BatchView) -> Outcome<()> {
        let transaction = self.network.chain.transaction(&batch.txid)?;
        let inputs: BTreeSet<String> = spent(&transaction)?.into_iter().collect();
        let paid = outputs(&transaction)?;
        let versions = [setting.seller_version, setting.buyer_version];
        for (party, version) in [&mut self.seller, &mut self.buyer].into_iter().zip(versions) {
            let before = party.accounts[version.index()].clone();
            let settled = match party.side {
                Side::Seller => deal.seller_after(before.value_sat),
                Side::Buyer => deal.buyer_after(before.value_sat),
            };
            let expected_sat = settled - chain_fee(version, 1, batch.fee_rate_sat_per_kw);
            assert!(inputs.contains(&before.outpoint), "{:?}: spends {inputs:?}", party.side);
            party.wait_state(&before.trader_key, "OPEN")?;
            let after = party.refresh(version.index())?;
            let output = PoolAccount {
                outpoint: after.outpoint.clone(),
                value_sat: expected_sat,
                available_sat: expected_sat,
                latest_txid: batch.txid.clone(),
                ..before
            };
            assert_eq!(after, output, "report of the {:?}", party.side);
            assert_eq!(txid_of(&after.outpoint)?, batch.txid);
            assert!(paid.iter().any(|(value_sat, _)| *value_sat == expected_sat), "no {expected_sat} sat in {paid:?}");
            check_account(self.network, &after, expected_sat)?;
        }
        Ok(())
    }

    /// Orders and leases as both traders tell them.
    fn check_reports(&self, setting: &Setting, placed: &Placed, batch: &BatchView, point: &str) -> Outcome<()> {
        let Placed { nonces: [ask, bid], deal } = placed;
        let nodes = [self.network.bob.identity()?, self.network.alice.identity()?];
        let parties = [(&self.seller, [ask, bid]), (&self.buyer, [bid, ask])];
        for ((party, [own, other]), node) in parties.into_iter().zip(nodes) {
            let state = party.client.cli().order_state(own)?;
            assert_eq!(state, ("ORDER_EXECUTED".to_owned(), 0), "{:?}", party.side);
            let reported = party.client.cli().leases(Some(&batch.id));
            let deployed = party.client.program == Program::Poold;
            if deployed && setting.channel == ChannelKind::SimpleTaproot {
                // A defect of the deployed client: it looks for a P2WSH output.
                let text = reported.map_or_else(|failure| failure.to_string(), |leases| format!("{leases:?}"));
                assert!(text.contains("not found in batch transaction"), "{text}");
                continue;
            }
            let purchased = party.side == Side::Buyer;
            // In the outbound market the deployed client's report leaves the buyer's coins out of the seller's premium
            // and of the buyer's fee. Its balances do not.
            let premium_sat = if deployed && !purchased { deal.premium_on_amount_sat() } else { deal.premium_sat() };
            let fee_sat = if deployed || !purchased { deal.seller_fee_sat() } else { deal.buyer_fee_sat() };
            let expected = PoolLease {
                view: LeaseView {
                    channel_point: point.to_owned(),
                    amount_sat: deal.amount_sat,
                    premium_sat,
                    execution_fee_sat: fee_sat,
                    clearing_rate_ppb: batch.clearing_rate_ppb,
                    purchased,
                },
                blocks: LEASE_BLOCKS,
                order_nonce: own.clone(),
                matched_nonce: other.clone(),
                node,
                own_sat: if purchased { deal.own_sat } else { 0 },
            };
            assert_eq!(reported?, [expected], "leases of the {:?}", party.side);
        }
        Ok(())
    }

    /// A side of the market.
    pub(crate) fn party(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Seller => &mut self.seller,
            Side::Buyer => &mut self.buyer,
        }
    }

    /// The node of a side.
    pub(crate) fn node(&self, side: Side) -> &'n Lnd {
        match side {
            Side::Seller => &self.network.alice,
            Side::Buyer => &self.network.bob,
        }
    }

    /// Takes note that every account was changed by its owner.
    pub(crate) fn changed(&mut self, accounts: Vec<PoolAccount>) -> Outcome<()> {
        self.modifications += u64::try_from(accounts.len()).expect("six");
        let mut accounts = accounts.into_iter();
        for party in [&mut self.seller, &mut self.buyer] {
            for known in &mut party.accounts {
                *known = accounts.next().ok_or_else(|| Failure::fatal("an account is missing"))?;
            }
        }
        self.check_audit()
    }

    /// Takes note of changes by owners, and reads every account again.
    pub(crate) fn modified(&mut self, count: usize) -> Outcome<()> {
        self.modifications += u64::try_from(count).expect("few");
        self.traded(0, 0, 0)
    }

    /// Brings back what ended by itself: a deployed client does when its auctioneer dies at the wrong moment.
    pub(crate) fn revive(&mut self) -> Outcome<()> {
        self.seller.client.revive()?;
        self.buyer.client.revive()
    }

    /// Closes every account, and sees the coins leave for the wallets.
    pub(crate) fn close(&mut self) -> Outcome<()> {
        let mut closings = Vec::new();
        for party in [&self.seller, &self.buyer] {
            for account in &party.accounts {
                let txid = party.client.cli().close_account(&account.trader_key)?;
                let closing = self.network.chain.wait_for_transaction(&txid)?;
                assert_eq!(spent(&closing)?, std::slice::from_ref(&account.outpoint));
                closings.push(closing);
            }
        }
        self.network.mine(CONFIRMATIONS)?;
        for party in [&self.seller, &self.buyer] {
            for account in &party.accounts {
                let closed = party.wait_state(&account.trader_key, "CLOSED")?;
                assert_eq!(closed.value_sat, 0);
                assert!(self.network.chain.unspent(&account.outpoint).is_err());
            }
        }
        closings.iter().try_for_each(|closing| self.audit.transaction(closing))?;
        self.modifications += u64::try_from(closings.len()).expect("six");
        self.check_audit()
    }

    /// The auditor found nothing, and what it saw is all that happened here.
    pub(crate) fn check_audit(&self) -> Outcome<()> {
        let counts = self.audit.finish()?;
        assert_eq!((counts.accounts, counts.secrets), (6, 6), "{counts:?}");
        assert_eq!(counts.account_signatures, counts.account_signatures_verified, "{counts:?}");
        assert_eq!((counts.batches_conserved, counts.channels), (self.batches, self.channels), "{counts:?}");
        assert_eq!(counts.modifications, self.modifications, "{counts:?}");
        assert_eq!(counts.modifications_verified, self.modifications, "{counts:?}");
        let witnesses = self.inputs + self.modifications;
        assert_eq!((counts.witnesses_verified, counts.witnesses_unjudged), (witnesses, 0), "{counts:?}");
        Ok(())
    }

    fn tails(&self) -> String {
        let logs = [self.venue.log(), self.seller.client.log(), self.buyer.client.log()];
        logs.map(crate::process::tail).concat()
    }
}

/// Report, chain and expectation agree on an account.
pub(crate) fn check_account(network: &Network, account: &PoolAccount, expected_sat: u64) -> Outcome<()> {
    assert_eq!(account.value_sat, expected_sat, "{account:?}");
    let output = network.chain.unspent(&account.outpoint)?;
    assert_eq!(output.value_sat, expected_sat, "chain, {account:?}");
    assert!(output.script_hex.starts_with(account.version.script_prefix()), "{output:?} of {account:?}");
    Ok(())
}
