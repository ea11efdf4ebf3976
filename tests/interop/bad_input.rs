//! What a real node refuses, what is waited for, and that nothing is lost when a part of the market crashes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::case;
use crate::failure::{Context, Failure, Outcome};
use crate::json;
use crate::lnd::{Lnd, Wallet};
use crate::ours::{Agent, AgentSetup, Venue, VenuePlan, exact_macaroon, printed_permissions};
use crate::process::{Stages, Wait, free_port};
use crate::regtest::Network;
use crate::trade::{
    ACCOUNT_SAT, AccountView, CONFIRMATIONS, LEASE_SAT, OrderTerms, Side, known_channels, txid_of, wait_new_channel,
};

/// An agent at `lnd` that finds no venue.
fn lonely<'a>(lnd: &'a Lnd, nobody: &'a str, terms: &'a OrderTerms) -> AgentSetup<'a> {
    AgentSetup { lnd, venue: nobody, side: Side::Seller, account_sat: ACCOUNT_SAT, terms }
}

fn nobody() -> Outcome<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn log_of(agent: &Agent) -> Outcome<String> {
    fs::read_to_string(agent.log()).context(|| format!("read {}", agent.log().display()))
}

fn contains_all(text: &str, words: &[&str]) -> Outcome<()> {
    match words.iter().find(|word| !text.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(Failure::new(format!("`{word}` is missing in: {text}"))),
    }
}

/// The agent ends by itself with code 1, and its last line is a sentence with these words.
fn assert_refused(mut agent: Agent, words: &[&str]) -> Outcome<()> {
    let code = agent.wait_exit_code()?;
    let log = log_of(&agent)?;
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "the last line is not the error:\n{log}");
    contains_all(last, words)?;
    assert_eq!(code, Some(1), "{log}");
    Ok(())
}

/// Everything that the node's own checks find at the start.
#[test]
fn bad_input_wrong_node_is_refused_with_a_sentence() {
    case("wrong_node", |network, folder, stages| {
        let (alice, bob) = (&network.alice, &network.bob);
        let (nobody, terms) = (nobody()?, OrderTerms::of(Side::Seller));
        let setup = lonely(alice, &nobody, &terms);
        let right = exact_macaroon(alice, "trader", folder)?;
        let launch = |name: &str, macaroon: &Path, change: &dyn Fn(String) -> String| {
            Agent::launch(&setup, macaroon, &folder.join(name), change)
        };

        let network_of = |config: String| config.replace("network = \"regtest\"", "network = \"testnet\"");
        let words =
            [&alice.rpc_host(), "is on regtest, but testnet is configured", "correct the address or the network"];
        assert_refused(launch("network", &right, &network_of)?, &words)?;
        stages.done("wrong network");

        let theirs = bob.certificate().display().to_string();
        let mine = alice.certificate().display().to_string();
        let words = [&alice.rpc_host(), "shows another certificate than", &theirs, "copy lnd's tls.cert again"];
        assert_refused(launch("certificate", &right, &|config| config.replace(&mine, &theirs))?, &words)?;
        stages.done("wrong certificate");

        let foreign = exact_macaroon(bob, "trader", &folder.join("bob"))?;
        let words = [&alice.rpc_host(), "does not accept the macaroon", "trader.macaroon", "copy or bake it again"];
        assert_refused(launch("macaroon", &foreign, &|config| config)?, &words)?;
        stages.done("another node's macaroon");

        let garbage = folder.join("garbage.macaroon");
        fs::write(&garbage, "this is no macaroon").context(|| format!("write {}", garbage.display()))?;
        let words = [&alice.rpc_host(), "does not accept the macaroon", "garbage.macaroon", "copy or bake it again"];
        assert_refused(launch("garbage", &garbage, &|config| config)?, &words)?;
        stages.done("no macaroon at all");
        Ok(())
    });
}

/// A macaroon that lacks one permission is refused, and the sentence names the call that it does not allow.
#[test]
fn bad_input_missing_permission_is_named() {
    case("missing_permission", |network, folder, stages| {
        let (nobody, terms) = (nobody()?, OrderTerms::of(Side::Seller));
        let setup = lonely(&network.alice, &nobody, &terms);
        let all = printed_permissions("trader")?;
        for method in ["/walletrpc.WalletKit/SendOutputs", "/lnrpc.Lightning/CheckMacaroonPermissions"] {
            let without: Vec<String> = all.iter().filter(|one| !one.ends_with(method)).cloned().collect();
            assert_eq!(without.len() + 1, all.len(), "{method} is asked for once");
            let dir = folder.join(method.rsplit('/').next().unwrap_or_default());
            fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
            let macaroon = dir.join("narrow.macaroon");
            network.alice.bake_macaroon(&without, &macaroon)?;
            let words = ["narrow.macaroon does not allow", method, "`tidegate permissions --role trader`"];
            assert_refused(Agent::launch(&setup, &macaroon, &dir, |config| config)?, &words)?;
            stages.done(&format!("without {method}"));
        }
        Ok(())
    });
}

/// A node without wallet needs a person; a locked one is waited for, and so is one that went away.
#[test]
fn bad_input_locked_node_is_waited_for() {
    case("locked_node", |network, folder, stages| {
        let (nobody, terms) = (nobody()?, OrderTerms::of(Side::Seller));
        let dave = Lnd::start_with(&network.programs, &network.chain, "dave", &folder.join("dave"), Wallet::LeftAlone)?;
        dave.wait_state("NON_EXISTING")?;
        let any = folder.join("any.macaroon");
        fs::write(&any, "not looked at").context(|| format!("write {}", any.display()))?;
        let agent = Agent::launch(&lonely(&dave, &nobody, &terms), &any, &folder.join("early"), |config| config)?;
        assert_refused(agent, &[&dave.rpc_host(), "has no wallet: make one with `lncli create`"])?;
        stages.done("no wallet: refused");

        dave.restart(Wallet::Opened)?;
        dave.wait_rpc()?;
        dave.wait_synced(network.chain.height()?)?;
        let macaroon = exact_macaroon(&dave, "trader", folder)?;
        dave.restart(Wallet::LeftAlone)?;
        dave.wait_state("LOCKED")?;
        let setup = lonely(&dave, &nobody, &terms);
        let mut agent = Agent::launch(&setup, &macaroon, &folder.join("agent"), |config| config)?;
        let locked = [dave.rpc_host(), "is locked: unlock it with `lncli unlock`".to_owned()];
        let words = locked.each_ref().map(String::as_str);
        Wait::new("the agent says what it waits for")
            .log(agent.log())
            .until(|| contains_all(&log_of(&agent)?, &words))?;
        agent.check_well()?;
        let page = agent.status().err().map(|failure| failure.to_string()).unwrap_or_default();
        contains_all(&page, &["503", "waiting for the node: ", words[0], words[1]])?;
        // `lncli unlock` can not open a wallet that lnd made by itself: it has two passwords. lnd can.
        dave.restart(Wallet::Opened)?;
        agent.wait_ready()?;
        stages.done("locked: waited for, then reached");

        dave.kill()?;
        network.mine(1)?;
        agent.check_well()?;
        dave.restart(Wallet::Opened)?;
        dave.wait_rpc()?;
        let height = network.mine(1)?;
        dave.wait_synced(height)?;
        wait_status(&agent, "knows the best block again", |status| {
            json::number(status, "/best_height").ok() == Some(height)
        })?;
        agent.check_well()?;
        stages.done("restarted: found again");
        Ok(())
    });
}

fn wait_status(agent: &Agent, what: &str, holds: impl Fn(&Value) -> bool) -> Outcome<()> {
    Wait::new(format!("agent: {what}")).log(agent.log()).until(|| match agent.status()? {
        status if holds(&status) => Ok(()),
        status => Err(Failure::new(status.to_string())),
    })
}

fn subscribed(status: &Value) -> bool {
    json::flag(status, "/subscribed").is_ok_and(|subscribed| subscribed)
}

/// The one account that the agent funded.
fn wait_funded(agent: &Agent) -> Outcome<AccountView> {
    Wait::new("the agent has published its account").log(agent.log()).until(|| {
        let accounts = agent.accounts()?;
        match accounts.as_slice() {
            [account] if !account.outpoint.is_empty() => Ok(account.clone()),
            _ => Err(Failure::new(format!("{accounts:?}"))),
        }
    })
}

/// The agent has this account open and no other.
fn wait_open(agent: &Agent, account: &AccountView) -> Outcome<()> {
    let expected = [AccountView { open: true, ..account.clone() }];
    Wait::new("the account is open").log(agent.log()).until(|| match agent.accounts()? {
        accounts if accounts == expected => Ok(()),
        accounts => Err(Failure::new(format!("{accounts:?}"))),
    })
}

/// The venue has both orders in its book and both accounts on its streams.
fn wait_both_at_venue(venue: &Venue) -> Outcome<()> {
    Wait::new("both traders are subscribed with their orders").log(venue.log()).until(|| {
        let status = venue.status()?;
        let count = |name: &str| json::number(&status, name);
        match (count("/subscribed_accounts")?, count("/open_asks")?, count("/open_bids")?) {
            (2, 1, 1) => Ok(()),
            _ => Err(Failure::new(status.to_string())),
        }
    })
}

/// Seller and buyer with a venue that they find late, and a node for the seller that may be killed.
struct Market {
    carol: Lnd,
    venue: Venue,
    seller: Agent,
    buyer: Agent,
}

impl Market {
    /// The agents start before their venue does.
    fn open(network: &Network, folder: &Path, stages: &mut Stages) -> Outcome<Self> {
        let carol = funded_node(network, &folder.join("carol"))?;
        stages.done("a node for the seller is funded");
        let plan = VenuePlan { grpc_port: free_port()?, tick_seconds: 0, node: network.venue.rpc_host() };
        let address = format!("127.0.0.1:{}", plan.grpc_port);
        let start = |lnd: &Lnd, side, dir: PathBuf| {
            let terms = OrderTerms::of(side);
            let setup = AgentSetup { lnd, venue: &address, side, account_sat: ACCOUNT_SAT, terms: &terms };
            Agent::start(&setup, &dir)
        };
        let mut seller = start(&carol, Side::Seller, folder.join("seller"))?;
        let mut buyer = start(&network.bob, Side::Buyer, folder.join("buyer"))?;
        for agent in [&mut seller, &mut buyer] {
            let unreachable = format!("the venue at {address} can not be reached");
            Wait::new("the agent says that there is no venue")
                .log(agent.log())
                .until(|| contains_all(&log_of(agent)?, &[&unreachable]))?;
            agent.check_well()?;
            assert!(!subscribed(&agent.status()?) && agent.accounts()?.is_empty());
        }
        stages.done("the agents run without a venue");
        let venue = Venue::start_with(&network.venue, &folder.join("venue"), &plan)?;
        Ok(Self { carol, venue, seller, buyer })
    }

    /// Agent and node of the seller crash between the account's publication and its confirmation.
    fn crash_while_opening(&mut self, network: &Network, stages: &mut Stages) -> Outcome<[AccountView; 2]> {
        let coins_before = self.carol.confirmed_balance()?;
        let accounts = [wait_funded(&self.seller)?, wait_funded(&self.buyer)?];
        for account in &accounts {
            network.chain.wait_for_transaction(txid_of(&account.outpoint)?)?;
        }
        stages.done("accounts published, after the venue came up");
        self.seller.kill()?;
        network.mine(CONFIRMATIONS / 2)?;
        self.seller.start_again()?;
        assert_eq!(self.seller.accounts()?.len(), 1, "the account was stored");
        stages.done("seller killed and back");
        self.carol.kill()?;
        let height = network.mine(CONFIRMATIONS - CONFIRMATIONS / 2)?;
        self.seller.check_well()?;
        self.carol.restart(Wallet::Opened)?;
        self.carol.wait_rpc()?;
        self.carol.wait_synced(height)?;
        wait_open(&self.seller, &accounts[0])?;
        wait_open(&self.buyer, &accounts[1])?;
        let spent_sat = coins_before - self.carol.confirmed_balance()?;
        let value_sat = accounts[0].value_sat;
        assert!((value_sat..value_sat + value_sat / 10).contains(&spent_sat), "funded once: {spent_sat} sat");
        stages.done("seller's node killed and back, both accounts open");
        Ok(accounts)
    }

    /// The venue crashes with open accounts and orders in its book.
    fn crash_the_venue(&mut self, stages: &mut Stages) -> Outcome<()> {
        wait_both_at_venue(&self.venue)?;
        self.venue.kill()?;
        for agent in [&mut self.seller, &mut self.buyer] {
            wait_status(agent, "is not subscribed", |status| !subscribed(status))?;
            agent.check_well()?;
        }
        self.venue.start_again()?;
        wait_both_at_venue(&self.venue)?;
        stages.done("venue killed and back, traders subscribed again, orders kept");
        Ok(())
    }

    /// The next batch clears, and every satoshi is where the reports say.
    fn trade(&self, network: &Network, funded: &[AccountView; 2], stages: &mut Stages) -> Outcome<()> {
        let before = known_channels(&self.carol)?;
        let outcome = self.venue.tick()?;
        assert!(outcome.get("cleared").is_some_and(Value::is_string), "nothing cleared: {outcome}");
        let logs = [self.venue.log(), self.seller.log(), self.buyer.log()];
        let point = wait_new_channel(network, [&self.carol, &network.bob], &before, &logs)?;
        let height = network.confirm(txid_of(&point)?, CONFIRMATIONS)?;
        self.carol.wait_synced(height)?;
        for node in [&self.carol, &network.bob] {
            assert_eq!(node.wait_active(&point)?.capacity_sat, LEASE_SAT);
        }
        stages.done("the next batch cleared, channel active");
        for (agent, old) in [&self.seller, &self.buyer].into_iter().zip(funded) {
            let account = Wait::new("the account is open after the batch").log(agent.log()).until(|| {
                let accounts = agent.accounts()?;
                match accounts.as_slice() {
                    [account] if account.open && account.outpoint != old.outpoint => Ok(account.clone()),
                    _ => Err(Failure::new(format!("{accounts:?}"))),
                }
            })?;
            assert_eq!(account.trader_key, old.trader_key);
            assert_eq!(network.chain.unspent(&account.outpoint)?.value_sat, account.value_sat);
            let leases = agent.leases()?;
            let points: Vec<&str> = leases.iter().map(|lease| lease.channel_point.as_str()).collect();
            assert_eq!(points, [point.as_str()]);
        }
        stages.done("accounts agree with the chain");
        Ok(())
    }
}

/// A node of our own with coins, since the shared ones are not to be killed.
fn funded_node(network: &Network, dir: &Path) -> Outcome<Lnd> {
    let carol = Lnd::start(&network.programs, &network.chain, "carol", dir)?;
    carol.wait_rpc()?;
    carol.wait_synced(network.chain.height()?)?;
    let txid = network.venue.send_coins(&carol.new_address()?, 3 * ACCOUNT_SAT)?;
    let height = network.confirm(&txid, 1)?;
    carol.wait_synced(height)?;
    Wait::new("coins of carol").until(|| match carol.confirmed_balance()? {
        0 => Err(Failure::new("none yet")),
        _ => Ok(()),
    })?;
    Ok(carol)
}

/// One market in which every part but the chain is killed once.
#[test]
fn bad_input_nothing_is_lost_when_agent_node_or_venue_crash() {
    case("crashes", |network, folder, stages| {
        let mut market = Market::open(network, folder, stages)?;
        let accounts = market.crash_while_opening(network, stages)?;
        market.crash_the_venue(stages)?;
        market.trade(network, &accounts, stages)
    });
}
