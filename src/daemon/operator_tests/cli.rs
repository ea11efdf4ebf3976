//! The command line against a real agent: what it says, and its exit codes.

use super::bench::{Agent, Market, eventually, limits, until_open};
use crate::cli::{Console, run_in_process};
use serde_json::Value;
use std::collections::BTreeSet;
use tidegate_ports::{AddressKind, Wallet as _};

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: u8,
    out: String,
    err: String,
}

/// Runs a command against an agent; `typed` is what a person at a terminal types, nothing when there is none.
async fn run_with(agent: &Agent, args: &[&str], typed: Option<&str>) -> Ended {
    let (address, folder) = (agent.address.to_string(), agent.folder.display().to_string());
    let all = [args, &["--rpc", &address, "--data-dir", &folder]].concat();
    run_anywhere(&all, typed).await
}

async fn run_anywhere(args: &[&str], typed: Option<&str>) -> Ended {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = typed.unwrap_or_default().as_bytes();
    let interactive = typed.is_some();
    let mut console = Console { out: &mut out, err: &mut err, input: &mut input, interactive };
    let code = run_in_process(args, &mut console).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { code, out: text(out), err: text(err) }
}

/// The output of a command that does what it is asked for, without a person.
async fn run(agent: &Agent, line: &str) -> String {
    let ended = run_with(agent, &line.split(' ').collect::<Vec<_>>(), None).await;
    println!("$ tidegate {line}\n{}{}", ended.err, ended.out);
    assert_eq!(ended.code, 0, "{line}: {ended:?}");
    assert!(ended.out.lines().all(|line| line.chars().count() <= 80), "{line}: wider than 80 columns\n{}", ended.out);
    masked(&ended.out)
}

/// The same as JSON.
async fn json(agent: &Agent, line: &str) -> Value {
    let line = format!("{line} --json");
    let ended = run_with(agent, &line.split(' ').collect::<Vec<_>>(), None).await;
    assert_eq!(ended.code, 0, "{line}: {ended:?}");
    serde_json::from_str(&ended.out).expect("JSON and nothing else")
}

async fn refused(agent: &Agent, line: &str, code: u8, words: &[&str]) {
    let ended = run_with(agent, &line.split(' ').collect::<Vec<_>>(), None).await;
    assert_eq!(ended.code, code, "{line}: {ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "{line}: `{word}` is missing in: {}", ended.err);
    }
}

/// Keys, nonces and transactions differ from run to run: their digits become `x`.
fn masked(text: &str) -> String {
    let mut shown = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if digits.len() >= 8 && digits.chars().all(|c| c.is_ascii_hexdigit()) {
            shown.push_str(&"x".repeat(digits.len()));
            shown.push_str(&word[digits.len()..]);
        } else {
            shown.push_str(word);
        }
    }
    shown
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn bytes_of(value: &Value) -> Vec<u8> {
    hex::FromHex::from_hex(&text_of(value)).expect("hexadecimal")
}

/// Opens an account by command and waits until it trades: its key.
async fn open(market: &Market, agent: &Agent, amount: &str) -> String {
    let opened = json(agent, &format!("account open {amount} --fee-rate 1 --yes")).await;
    let key = &opened["account"]["account"];
    until_open(market, &mut agent.client().await, &bytes_of(key)).await;
    text_of(key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_by_command() {
    let market = Market::open(61).await;
    let agent = market.agent("anna", limits()).await;
    assert_eq!(run(&agent, "account list").await, "no account: open one with `tidegate account open AMOUNT`\n");
    refused(&agent, "account open 2M", 2, &["value", "2,000,000 sat", "nobody can be asked here", "--yes"]).await;
    let said_no = run_with(&agent, &["account", "open", "2M"], Some("n\n")).await;
    assert_eq!((said_no.code, said_no.out.as_str()), (1, ""), "{said_no:?}");
    assert!(said_no.err.contains("Proceed? [y/N]") && said_no.err.contains("nothing was done"), "{said_no:?}");
    let said_yes =
        run_with(&agent, &["account", "open", "2M", "--fee-rate", "2", "--expires", "60d"], Some("y\n")).await;
    assert_eq!(said_yes.code, 0, "{said_yes:?}");
    assert!(said_yes.out.contains("is opened with 2,000,000 sat"), "{said_yes:?}");
    let quote = "\
Open an account
  value              2,000,000 sat
  expires in         8,640 blocks (60 days)
  chain fee          329 sat at 2.0 sat/vB (0.0165 %)
                     with one coin of the wallet; each more adds to it
  leaves the wallet  2,000,329 sat
";
    assert!(said_yes.err.starts_with(quote), "{}", said_yes.err);
    let key = json(&agent, "account list").await["accounts"][0]["account"].clone();
    until_open(&market, &mut agent.client().await, &bytes_of(&key)).await;
    let list = "\
account       state  value (sat)  free (sat)  expires in  version
xxxxxxxxxxxx  open     2,000,000   2,000,000  60 days     musig2
";
    assert_eq!(run(&agent, "account list").await, list);
    account_changes(&market, &agent, &text_of(&key)).await;
}

async fn account_changes(market: &Market, agent: &Agent, key: &str) {
    let mut client = agent.client().await;
    let settle = async |client: &mut super::bench::Client| {
        let key: Vec<u8> = hex::FromHex::from_hex(key).expect("a key");
        until_open(market, client, &key).await.value
    };
    let deposit = run(agent, &format!("account deposit 500k --account {} --fee-rate 2 --yes", &key[..8])).await;
    assert!(deposit.contains("deposited: account xxxxxxxxxxxx holds 2,500,000 sat"), "{deposit}");
    assert_eq!(settle(&mut client).await, 2_500_000);

    let saver = market.world.add_node("saver").new_address(AddressKind::Taproot).await.expect("a node has addresses");
    let saver = bitcoin::Address::from_script(&saver, bitcoin::Network::Regtest).expect("it has one");
    let ended = run_with(
        agent,
        &["account", "withdraw", "0.003btc", "--to", &saver.to_string(), "--fee-rate", "2", "-y"],
        None,
    )
    .await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: u64 =
        ended.err.lines().last().and_then(|line| line.split_whitespace().nth(2)).map(number).expect("it says");
    let value = settle(&mut client).await;
    // The quote is for outputs of the larger kind.
    assert!((told..told + 50).contains(&value), "{told} was quoted, {value} is left");

    let renewed = json(agent, "account renew --expires 100d --fee-rate 2 --yes").await;
    let height = u64::from(market.world.height().get());
    assert_eq!(renewed["account"]["expiry_height"], height + 14_400);
    assert_eq!(renewed["txid"], renewed["account"]["latest_txid"]);
    settle(&mut client).await;
    refused(agent, "account bump --fee-rate 20 --yes", 1, &["Open"]).await;
    refused(
        agent,
        "account withdraw 1k --to bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 --fee-rate 2 --yes",
        1,
        &["regtest"],
    )
    .await;
    refused(agent, "account deposit 500k --account ffff --yes", 1, &["no open account begins with ffff"]).await;

    run(agent, "order ask 500k --rate 2000 --yes").await;
    refused(agent, "account close --yes", 1, &["still backs 1 open orders", "tidegate order cancel --all"]).await;
    assert!(run(agent, "order cancel --all").await.contains("is cancelled"));
    assert_eq!(run(agent, "order cancel --all").await, "no order is open\n");
    let closed = run(agent, "account close --fee-rate 2 --yes").await;
    assert!(closed.contains("is closed once transaction"), "{closed}");
    market.world.mine(6);
    eventually("the close confirms", async || {
        let list = json(agent, "account list --all").await;
        (list["accounts"][0]["state"] == "closed").then_some(())
    })
    .await;
}

/// A number with its groups.
fn number(text: &str) -> u64 {
    text.replace(',', "").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_quoted_placed_replaced_and_cancelled() {
    let market = Market::open(62).await;
    let agent = market.agent("anna", limits()).await;
    refused(&agent, "order ask 1M --rate 2000 --yes", 1, &["there is no account yet"]).await;
    open(&market, &agent, "3M").await;
    let args = ["order", "bid", "1M", "--apr", "10%", "--for", "14d", "--min-match", "500k", "--max-fee-rate", "10"];
    let bid = run_with(&agent, &args, Some("yes\n")).await;
    assert_eq!(bid.code, 0, "{bid:?}");
    let quote = "\
Buy capacity (bid)
  amount             1,000,000 sat in up to 2 matches
  for                2,016 blocks (14 days)
  rate at most       1,902 ppb per block (10.00 % a year)
  premium at most    3,834 sat (0.38 %)
  execution fee      1,001 sat when filled at once
";
    assert!(bid.err.starts_with(quote), "{}", bid.err);
    assert!(bid.err.contains("\n  worst case         you pay "), "{}", bid.err);
    assert!(masked(&bid.out) == "order xxxxxxxxxxxx is placed\n", "{}", bid.out);
    let list = "\
nonce         side  amount (sat)  filled    ppb   a year  for      state
xxxxxxxxxxxx  bid      1,000,000       0  1,902  10.00 %  14 days  submitted
";
    assert_eq!(run(&agent, "order list").await, list);

    let nonce = text_of(&json(&agent, "order list").await["orders"][0]["nonce"]);
    let replaced = json(&agent, &format!("order replace {} --premium 3000 --amount 800k --yes", &nonce[..10])).await;
    assert_eq!(replaced["replaces"], nonce);
    let orders = json(&agent, "order list").await["orders"].clone();
    assert_eq!((orders.as_array().map(Vec::len), &orders[0]["nonce"]), (Some(1), &replaced["nonce"]));
    assert_eq!((&orders[0]["amount_sats"], &orders[0]["min_match_sats"]), (&800_000.into(), &500_000.into()));
    // The highest rate that costs at most 3,000 sat.
    assert_eq!((&orders[0]["rate_ppb"], &replaced["quote"]["premium_sats"]), (&1_860.into(), &2_999.into()));

    refused(&agent, "order cancel ffff", 1, &["no open order begins with ffff"]).await;
    refused(&agent, "order ask 100M --rate 2000 --yes", 1, &["limit"]).await;
    refused(&agent, "order ask 1M --rate 2000 --for 15d --yes", 1, &["2160"]).await;
    refused(&agent, "order bid 100k --market outbound --rate 2000 --yes", 2, &["--self-balance"]).await;
    refused(&agent, "order ask 1M --rate 2000 --min-match 2M --yes", 2, &["--min-match", "not larger"]).await;
    let verbose = run(&agent, "order list --all --verbose").await;
    assert!(verbose.contains("canceled") && verbose.contains("OrderCreated"), "{verbose}");
    assert!(run(&agent, "order cancel --all").await.starts_with("order xxxxxxxxxxxx is cancelled"));
    assert!(run(&agent, "order list").await.starts_with("no order: place one"));
}

/// Two agents that trade.
async fn traded(seed: u64) -> (Market, Agent, Agent) {
    let market = Market::open(seed).await;
    let (seller, buyer) = (market.agent("anna", limits()).await, market.agent("boris", limits()).await);
    open(&market, &seller, "2M").await;
    open(&market, &buyer, "1M").await;
    run(&seller, "order ask 500k --rate 1000 --yes").await;
    run(&buyer, "order bid 300k --rate 3000 --yes").await;
    market.venue.tick().await.expect("it runs").cleared.expect("they meet");
    for agent in [&seller, &buyer] {
        eventually("the lease is booked", async || {
            let leases = json(agent, "lease list").await;
            leases["leases"].as_array().is_some_and(|leases| !leases.is_empty()).then_some(())
        })
        .await;
    }
    (market, seller, buyer)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_traded_is_told() {
    let (_market, seller, buyer) = traded(63).await;
    let leases = run(&seller, "lease list").await;
    assert!(leases.starts_with("side   amount  for  ends at    ppb"), "{leases}");
    assert!(leases.contains("\nsold  300,000  14d        -  3,000"), "{leases}");
    assert_eq!(run(&seller, "lease list --side bought").await, "no lease yet\n");
    let (sold, bought) = (json(&seller, "lease list").await, json(&buyer, "lease list").await);
    let (mine, yours) = (&sold["leases"][0], &bought["leases"][0]);
    assert_eq!((&mine["channel"], &mine["premium_sats"]), (&yours["channel"], &yours["premium_sats"]));
    assert_eq!((&mine["side"], &yours["side"]), (&"sold".into(), &"bought".into()));
    assert_eq!(sold["premium_earned_sats"], mine["premium_sats"]);
    assert!(bought["net_sats"].as_i64().expect("a number") < 0, "{bought}");

    let rates = run(&seller, "auction rates").await;
    assert!(rates.starts_with("time"), "{rates}");
    assert!(rates.contains("xxxxxxxxxxxx 14 days 3,000 15.77 %      300,000       1"), "{rates}");
    let snapshot = run(&seller, "auction snapshot").await;
    assert!(snapshot.contains("none, it is the first") && snapshot.contains("2,016 blocks (14 days) at"), "{snapshot}");
    let ratings = run(&seller, "auction ratings").await;
    assert!(ratings.contains("tier") && ratings.trim_end().ends_with('1'), "{ratings}");
    let next = run(&seller, "auction next").await;
    assert!(next.starts_with("Next batch\n") && next.contains("2,016 blocks (14 days)  open"), "{next}");

    let status = run(&seller, "status").await;
    let parts =
        ["Agent\n", "trading   on", "none: it does what it is asked", "connected", "Next batch\n", "Accounts\n"];
    for part in parts.into_iter().chain(["Open orders\n", "partially_filled", "sold    1, earned"]) {
        assert!(status.contains(part), "`{part}` is missing in\n{status}");
    }
    // Sentences, not tables: a terminal breaks them.
    let decisions = run_with(&seller, &["decisions", "--count", "5"], None).await;
    assert!(decisions.code == 0 && decisions.out.starts_with('#'), "{decisions:?}");
    assert!(decisions.out.contains("approved"), "{decisions:?}");
    assert!(run(&seller, "limits").await.starts_with("Limits\n  one order"));
    let help = json(&seller, "limits").await;
    assert_eq!(help["max_open_orders"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_by_command_holds_until_it_is_undone() {
    let market = Market::open(64).await;
    let agent = market.agent("anna", limits()).await;
    open(&market, &agent, "2M").await;
    run(&agent, "order ask 500k --rate 1000 --yes").await;
    refused(&agent, "stop", 2, &["every open order is cancelled", "--yes"]).await;
    let ended = run_with(&agent, &["stop", "--reason", "fees are mad", "--yes"], None).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("STOPPED by tidegate") && ended.out.contains("fees are mad"), "{ended:?}");
    assert!(masked(&ended.out).contains("order xxxxxxxxxxxx is cancelled"), "{ended:?}");
    refused(&agent, "order ask 500k --rate 1000 --yes", 1, &["stopped", "fees are mad"]).await;
    assert!(run(&agent, "status").await.contains("STOPPED by tidegate"));
    assert_eq!(run(&agent, "resume").await, "trading is on\n");
    run(&agent, "order ask 500k --rate 1000 --yes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_not_be_asked_has_an_exit_code() {
    let market = Market::open(65).await;
    let agent = market.agent("anna", limits()).await;
    let stranger = market.agent("boris", limits()).await;
    let waiting = market.agent_without_node("carol", limits()).await;
    refused(&waiting, "account list", 3, &["waiting for the node: it is away"]).await;
    refused(&waiting, "account open 1M --yes", 3, &["waiting for the node"]).await;
    let status = run(&waiting, "status").await;
    assert!(status.contains("WAITS     waiting for the node: it is away"), "{status}");

    let (address, folder) = (agent.address.to_string(), agent.folder.display().to_string());
    let foreign = stranger.folder.display().to_string();
    let macaroon = stranger.folder.join("pool.macaroon").display().to_string();
    let readonly = agent.folder.join("readonly.macaroon").display().to_string();
    let rows: [(&[&str], u8, &str); 5] = [
        (&["status", "--rpc", "127.0.0.1:1", "--data-dir", &folder], 3, "no agent answers at 127.0.0.1:1"),
        (&["status", "--rpc", &address, "--data-dir", &foreign], 3, "somebody else answers at"),
        (&["status", "--rpc", &address, "--data-dir", &folder, "--macaroon", &macaroon], 1, "not ours"),
        (&["status", "--rpc", &address, "--data-dir", &folder, "--macaroon", &readonly], 0, ""),
        (&["resume", "--rpc", &address, "--data-dir", &folder, "--macaroon", &readonly], 1, "does not allow"),
    ];
    for (args, code, words) in rows {
        let ended = run_anywhere(args, None).await;
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        assert!(ended.err.contains(words), "{args:?}: {ended:?}");
    }
    market.shutdown.trigger();
    eventually("the agent stops", async || {
        let ended = run_with(&agent, &["account", "list"], None).await;
        (ended.code == 3).then_some(())
    })
    .await;
}

/// Every name of the JSON answers is described where operators read.
#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_a_json_answer_is_documented() {
    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    found.insert(name.clone());
                    names(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let (market, seller, _buyer) = traded(66).await;
    let mut found = BTreeSet::new();
    for line in [
        "account list --all",
        "order list --all --verbose",
        "lease list",
        "auction rates",
        "auction snapshot",
        "auction ratings",
        "auction next",
        "status",
        "decisions",
        "limits",
        "order ask 100k --rate 1000 --yes",
        "order cancel --all",
        "account renew --fee-rate 1 --yes",
        "stop --yes",
        "resume",
    ] {
        names(&json(&seller, line).await, &mut found);
        if line == "account list --all" {
            market.world.mine(6);
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/cli.md");
    let text = std::fs::read_to_string(path).expect("the runbook is there");
    let missing: Vec<&String> = found.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/runbooks/cli.md does not describe {missing:?}");
}
