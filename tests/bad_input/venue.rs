//! Venues that make no sense.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tidegate_ports::ServerMessage;
use tidegate_protocol::account::AccountVersion;
use tidegate_wire::poolrpc::channel_auctioneer_server::{ChannelAuctioneer, ChannelAuctioneerServer};
use tidegate_wire::poolrpc::client_auction_message::Msg;
use tidegate_wire::poolrpc::order_match_reject::RejectReason;
use tidegate_wire::poolrpc::{TermsRequest, TermsResponse};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::lnd::FakeLnd;
use crate::program::{Bench, Daemon, NOBODY, Running};
use crate::rig::{Market, in_a_runtime};
use crate::{assert_at_rest, bench_at, metric, until};

const FAILURES: &str = "tidegate_failures_total{counterpart=\"venue\"}";

/// A server that does this with every connection.
fn raw(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn noise(mut stream: TcpStream) {
    let bytes: Vec<u8> = (0..65_536_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    // Whoever is at the other end may have left.
    while stream.write_all(&bytes).is_ok() {}
}

fn silence(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// A venue over gRPC that only knows its terms, and those are strange.
struct Strange(fn() -> Result<TermsResponse, Status>);

#[tonic::async_trait]
impl ChannelAuctioneer for Strange {
    async fn terms(&self, _: Request<TermsRequest>) -> Result<Response<TermsResponse>, Status> {
        self.0().map(Response::new)
    }
}

/// Its address, and what it needs to live.
fn strange(terms: fn() -> Result<TermsResponse, Status>) -> (SocketAddr, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let service = ChannelAuctioneerServer::new(Strange(terms)).max_encoding_message_size(64 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { drop(serving.await) });
        address
    });
    (address, runtime)
}

/// An agent on a good node at this venue.
fn agent_at(lnd: &FakeLnd, venue: SocketAddr) -> (Bench, Running) {
    let bench = bench_at(Daemon::Agent, lnd);
    bench.set(&format!("[venue]\naddress = \"{NOBODY}\""), &format!("[venue]\naddress = \"{venue}\""));
    let mut running = bench.start();
    running.wait_for("the agent runs");
    (bench, running)
}

/// The agent says what is wrong, counts it, does not trade and goes on.
fn assert_complains(lnd: &FakeLnd, venue: SocketAddr, words: &[&str]) {
    let (_bench, mut running) = agent_at(lnd, venue);
    for word in words {
        running.wait_for(word);
    }
    until(&mut running, "the failures are counted", |running| metric(running, FAILURES) > 0.5);
    assert!(metric(&mut running, "tidegate_venue_subscribed") < 0.5);
    assert_at_rest(running);
}

#[test]
fn a_venue_that_sends_garbage_is_named() {
    let lnd = FakeLnd::start(|_| ());
    let venue = raw(noise);
    assert_complains(
        &lnd,
        venue,
        &[&format!("the venue at {venue} can not be reached"), "the venue's terms are not known"],
    );
}

#[test]
fn a_venue_that_never_answers_is_given_up_and_asked_again() {
    let lnd = FakeLnd::start(|_| ());
    let venue = raw(silence);
    assert_complains(&lnd, venue, &[&format!("the venue at {venue} can not be reached")]);
    // Nobody waits for an answer when the agent is to stop.
    let (_bench, running) = agent_at(&lnd, venue);
    assert_at_rest(running);
}

#[test]
fn a_venue_of_another_version_is_named() {
    let lnd = FakeLnd::start(|_| ());
    let (venue, _runtime) = strange(|| Err(Status::unimplemented("unknown method Terms")));
    assert_complains(&lnd, venue, &["the venue refused Terms: unknown method Terms"]);
}

#[test]
fn terms_that_make_no_sense_are_named() {
    let lnd = FakeLnd::start(|_| ());
    let (venue, _runtime) = strange(|| Ok(TermsResponse { max_account_value: u64::MAX, ..TermsResponse::default() }));
    assert_complains(&lnd, venue, &["the venue's answer to Terms makes no sense"]);
}

#[test]
fn an_answer_that_is_too_large_is_refused() {
    let lnd = FakeLnd::start(|_| ());
    let (venue, _runtime) = strange(|| {
        let buckets = (0..2_000_000).map(|blocks| (blocks, 1)).collect();
        Ok(TermsResponse { lease_duration_buckets: buckets, ..TermsResponse::default() })
    });
    assert_complains(&lnd, venue, &["decoded message length too large"]);
}

/// Traders with orders that meet.
async fn market(seed: u64) -> Market {
    let mut market = Market::open(seed).await;
    market.join(&["anna", "carla"], 5_000_000, AccountVersion::V2).await;
    market.ask("anna", 700, 10).await;
    market.bid("carla", 900, 4).await;
    market
}

#[test]
fn a_batch_of_another_version_is_refused_as_such() {
    in_a_runtime(async {
        let market = market(21).await;
        market.meddler.lie(|_, mut message| {
            if let ServerMessage::Prepare(prepare) = &mut message {
                prepare.batch_version.0 += 1;
            }
            vec![message]
        });
        let mark = market.meddler.mark();
        assert_eq!(market.tick().await.cleared, None);
        for name in ["anna", "carla"] {
            let mismatch = |message: &Msg| match message {
                Msg::Reject(reject) => reject.reason_code() == RejectReason::BatchVersionMismatch,
                _ => false,
            };
            let said = market.meddler.said(name, mark);
            assert!(said.iter().any(mismatch), "{name}: {said:?}");
            assert!(!said.iter().any(|message| matches!(message, Msg::Sign(_))), "{name}: {said:?}");
        }
        market.meddler.be_honest();
        market.clear().await;
    });
}

/// Copies of everything, thousands of times: the trader answers what is to be answered, stays responsive, signs once.
#[test]
fn a_venue_that_floods_is_endured() {
    const COPIES: usize = 2_000;
    in_a_runtime(async {
        let market = market(22).await;
        let mark = market.meddler.mark();
        market.meddler.lie(|_, message| match &message {
            ServerMessage::Finalize(_) => vec![message],
            _ => vec![message; COPIES],
        });
        let looks = Arc::new(AtomicUsize::new(0));
        let handle = market.handle("anna");
        let watching = tokio::spawn({
            let looks = Arc::clone(&looks);
            async move {
                while handle.status().await.is_ok() {
                    looks.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            }
        });
        let outcome = market.tick().await;
        market.meddler.be_honest();
        assert!(looks.load(Ordering::SeqCst) > 0, "nobody could ask for the status");
        for name in ["anna", "carla"] {
            let said = market.meddler.said(name, mark);
            let signed = said.iter().filter(|message| matches!(message, Msg::Sign(_))).count();
            assert!(signed <= 1, "{name} signed {signed} times");
        }
        watching.abort();
        // Whether a batch was made under the flood is the venue's affair; one that it gave up is replaced by the next.
        if outcome.cleared.is_none() {
            market.clear_at_last().await;
        }
        let settled = async || market.status("anna").await.pending_batches.is_empty();
        market.until("the flood is over", settled).await;
        assert_eq!(market.status("anna").await.leases.len(), 1);
    });
}

/// What the venue says out of turn is answered or ignored, and the next batch clears.
#[test]
fn words_out_of_turn_change_nothing() {
    in_a_runtime(async {
        let market = market(23).await;
        let before = market.status("anna").await;
        let kept: Arc<Mutex<Vec<ServerMessage>>> = Arc::default();
        let keep = Arc::clone(&kept);
        // Signing and the end are asked for before the proposal, with what another round said.
        market.meddler.lie(move |_, message| {
            let mut kept = keep.lock().unwrap();
            let mut all = kept.clone();
            kept.push(message.clone());
            all.push(message);
            all
        });
        let first = market.tick().await;
        market.clock.advance(2 * 3_600_000);
        let second = market.tick().await;
        market.meddler.be_honest();
        // A round that the venue gave up stays open for who signed it, until the next batch takes its place.
        if first.cleared.or(second.cleared).is_none() {
            market.clear_at_last().await;
        }
        let settled = async || market.status("anna").await.pending_batches.is_empty();
        market.until("nothing is open", settled).await;
        let after = market.status("anna").await;
        assert!(after.leases.len() <= before.leases.len() + 1);
        let account = market.account("anna").await;
        let output = market.world.utxo(account.outpoint.unwrap()).expect("the account is where the book says");
        assert_eq!(output.value, account.value.into());
        assert!(!kept.lock().unwrap().is_empty());
    });
}
