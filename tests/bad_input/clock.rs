//! Clocks that jump ahead. That time never goes back is the system clock's own promise, in `src/runtime/clock.rs`.

use tidegate_ports::ServerMessage;
use tidegate_protocol::account::AccountVersion;
use tidegate_wire::poolrpc::client_auction_message::Msg;

use crate::rig::{Market, in_a_runtime};

const DAY_MS: u64 = 86_400_000;

#[test]
fn a_jump_ahead_between_the_steps_of_a_trade_is_no_obstacle() {
    in_a_runtime(async {
        let mut market = Market::open(41).await;
        market.clock.advance(400 * DAY_MS);
        market.join(&["anna", "carla"], 5_000_000, AccountVersion::V2).await;
        market.clock.advance(DAY_MS);
        market.ask("anna", 700, 10).await;
        market.clock.advance(DAY_MS);
        market.bid("carla", 900, 4).await;
        market.clock.advance(365 * DAY_MS);
        market.clear().await;
        assert_eq!(market.status("anna").await.leases.len(), 1);
    });
}

/// An hour passes while a batch is made: whatever deadline that ends, nobody signs twice, nothing is lost, and a later
/// batch clears.
#[test]
fn a_jump_ahead_within_a_batch_comes_to_rest() {
    in_a_runtime(async {
        for (seed, when) in [(42, "prepare"), (43, "sign"), (44, "finalize")] {
            let mut market = Market::open(seed).await;
            market.join(&["anna", "carla"], 5_000_000, AccountVersion::V2).await;
            market.ask("anna", 700, 10).await;
            market.bid("carla", 900, 4).await;
            let (clock, mark) = (market.clock.clone(), market.meddler.mark());
            market.meddler.lie(move |_, message| {
                let now = match &message {
                    ServerMessage::Prepare(_) => "prepare",
                    ServerMessage::Sign(_) => "sign",
                    ServerMessage::Finalize(_) => "finalize",
                    _ => "",
                };
                if now == when {
                    clock.advance(3_600_000);
                }
                vec![message]
            });
            let outcome = market.tick().await;
            market.meddler.be_honest();
            for name in ["anna", "carla"] {
                let said = market.meddler.said(name, mark);
                let signed = said.iter().filter(|message| matches!(message, Msg::Sign(_))).count();
                assert!(signed <= 1 || outcome.cleared.is_none(), "{when}: {name} signed {signed} times");
            }
            market.mine(6).await;
            // A round that the venue gave up stays open for who signed it, until the next batch takes its place.
            if outcome.cleared.is_none() {
                market.clear_at_last().await;
            }
            for name in ["anna", "carla"] {
                let settled = async || market.status(name).await.pending_batches.is_empty();
                market.until(&format!("{when}: nothing is open for {name}"), settled).await;
            }
            assert_eq!(market.status("anna").await.leases.len(), 1, "{when}");
        }
    });
}
