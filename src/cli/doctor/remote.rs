//! What answers over the network: the node, the venue, the agent itself.

use super::Check;
use crate::cli::link::{Daemon, ask};
use crate::config::AgentConfig;
use crate::node::{LndNode, Look, Role};
use crate::runtime::SystemClock;
use crate::venue::{GrpcLink, Token};
use hex::FromHex as _;
use std::time::Duration;
use tidegate_ports::{Clock as _, VenueLink as _};
use tidegate_wire::tidegate::v1;

/// A block's time may be this far ahead of the network's.
///
/// # Source
/// Bitcoin Core refuses a block that is more than two hours ahead of its clock.
const AHEAD_S: u64 = 2 * 3_600;
/// On mainnet so long without a block is rare: the clock is wrong, or the node does not follow the chain.
const BEHIND_S: u64 = 4 * 3_600;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The node: that it answers, is the right one, lets us do what we must, and what its chain says of our clock.
pub(super) async fn node(config: &AgentConfig) -> Vec<Check> {
    const NAME: &str = "node";
    let lnd = config.node.lnd(&config.network);
    let look = match tokio::time::timeout(PATIENCE, LndNode::look(&lnd, Role::Trader)).await {
        Ok(Ok(look)) => look,
        Ok(Err(error)) => {
            let advice = if error.is_temporary() {
                "the agent waits for it and goes on by itself"
            } else {
                "the sentence says what to do; then run the doctor again"
            };
            return vec![Check::fail(NAME, error.to_string(), advice)];
        }
        Err(_) => {
            let found = format!("lnd at {} does not answer within {} s", lnd.address, PATIENCE.as_secs());
            return vec![Check::fail(NAME, found, "is it busy, or is this another service?")];
        }
    };
    let found = format!("lnd {} on {}, at block {}", look.info.version, look.info.network, look.info.best_height.get());
    let rights = Check::ok("permissions", "the macaroon allows every call of the agent");
    vec![Check::ok(NAME, found), rights, clock(&look, SystemClock.now().seconds())]
}

fn clock(look: &Look, now_s: u64) -> Check {
    const NAME: &str = "clock";
    let block_s = look.best_header_s;
    if block_s > now_s.saturating_add(AHEAD_S) {
        let found = format!("it is {} s behind the time of the last block", block_s - now_s);
        return Check::fail(NAME, found, "set the clock, and let a time service keep it");
    }
    let age_s = now_s.saturating_sub(block_s);
    if look.info.network == "mainnet" && age_s > BEHIND_S {
        let found = format!("the last block is {} minutes old", age_s / 60);
        return Check::warn(
            NAME,
            found,
            "compare the clock with another one; if it is right, look at the node's peers",
        );
    }
    Check::ok(NAME, "it fits the time of the last block")
}

/// The venue: that it answers and speaks the protocol.
pub(super) async fn venue(config: &AgentConfig) -> Check {
    const NAME: &str = "venue";
    let address = &config.venue.address;
    let away = "the agent waits for it; is venue.address right, and does your tunnel stand?";
    // Made at the agent's first start; an identity of nobody is as good for asking what everybody may know.
    let stored = std::fs::read_to_string(config.data_dir.join("venue.token")).ok();
    let token = stored.and_then(|text| <[u8; 32]>::from_hex(text.trim()).ok()).unwrap_or([0; 32]);
    let link = match GrpcLink::new(address, Token::new(token)) {
        Ok(link) => link,
        Err(error) => return Check::fail(NAME, error.to_string(), "correct venue.address"),
    };
    match tokio::time::timeout(PATIENCE, link.terms()).await {
        Ok(Ok(terms)) => {
            let durations = terms.durations.keys().map(|blocks| blocks.get().to_string()).collect::<Vec<_>>();
            Check::ok(NAME, format!("{address} answers; it trades leases of {} blocks", durations.join(", ")))
        }
        Ok(Err(error)) => Check::fail(NAME, error.to_string(), away),
        Err(_) => Check::fail(NAME, format!("{address} does not answer within {} s", PATIENCE.as_secs()), away),
    }
}

/// The running agent, if it runs.
pub(super) async fn agent(config: &AgentConfig, daemon: &Daemon) -> Check {
    const NAME: &str = "agent";
    if config.api.is_none() {
        let advice = "add [api] to command it with tidegate or pool";
        return Check::warn(NAME, "there is no section [api], so it can not be asked", advice);
    }
    let mut agent = match daemon.connect().await {
        Ok(agent) => agent,
        Err(error) => return Check::warn(NAME, error.to_string(), "start it with `tidegate run`"),
    };
    match ask(agent.control.status(v1::StatusRequest {})).await {
        Ok(status) if status.waiting.is_empty() => {
            Check::ok(NAME, format!("it runs (version {}), and accepts the macaroon", status.version))
        }
        Ok(status) => Check::warn(NAME, status.waiting, "it goes on by itself when that is over"),
        Err(failure) => Check::fail(NAME, failure.to_string(), "look at its log"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use tidegate_ports::NodeInfo;
    use tidegate_protocol::units::BlockHeight;

    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    #[test]
    fn a_clock_is_compared_with_the_chain() {
        let look = |network: &str| Look {
            info: NodeInfo {
                id: KEY.parse().expect("a key"),
                addresses: Vec::new(),
                network: network.to_owned(),
                best_height: BlockHeight::new(1),
                synced: true,
                zero_conf: false,
                taproot_channels: false,
                large_channels: false,
                version: String::new(),
            },
            best_header_s: 1_000_000,
        };
        let rows = [
            ("mainnet", 1_000_000, State::Ok),
            ("mainnet", 1_000_000 - AHEAD_S, State::Ok),
            ("mainnet", 1_000_000 - AHEAD_S - 1, State::Fail),
            ("mainnet", 1_000_000 + BEHIND_S + 1, State::Warn),
            ("regtest", 1_000_000 + BEHIND_S + 1, State::Ok),
        ];
        for (network, now_s, state) in rows {
            assert_eq!(clock(&look(network), now_s).state, state, "{network} {now_s}");
        }
    }
}
