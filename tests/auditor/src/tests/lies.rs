//! Planted lies: each changes one thing in an honest story, and has to be found under the right rule.

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Sequence};
use prost::Message as _;
use serde_json::Value;

use super::support::{Story, account_of_version, auditor_of, me, report, rules, vectors};
use crate::wire::rpc;
use crate::{Auditor, Order, Party, Quote, Rule};

type Change = fn(&mut Story, &mut Auditor, &Value);

struct Lie {
    name: &'static str,
    rule: Rule,
    party: Party,
    change: Change,
}

fn venue(name: &'static str, rule: Rule, change: Change) -> Lie {
    Lie { name, rule, party: Party::Venue, change }
}

fn trader(name: &'static str, rule: Rule, change: Change) -> Lie {
    Lie { name, rule, party: Party::Trader, change }
}

/// Every matched order of the story.
fn matched(story: &mut Story) -> impl Iterator<Item = &mut rpc::MatchedOrder> {
    story.prepare().matched_markets.values_mut().flat_map(|market| market.matched_orders.values_mut())
}

/// The first bid that one of our asks is matched with.
fn first_bid(story: &mut Story) -> &mut rpc::MatchedBid {
    matched(story).find_map(|order| order.matched_bids.first_mut()).unwrap()
}

fn bid_details(story: &mut Story) -> &mut rpc::ServerOrder {
    first_bid(story).bid.as_mut().unwrap().details.as_mut().unwrap()
}

/// Changes all own orders as they were submitted.
fn orders(auditor: &mut Auditor, change: impl Fn(&mut Order)) {
    auditor.orders.values_mut().for_each(|record| change(&mut record.order));
}

fn about_matches() -> Vec<Lie> {
    vec![
        venue("a match for an order that nobody submitted", Rule::KnownOrder, |story, _, _| {
            for market in story.prepare().matched_markets.values_mut() {
                if let Some((_, order)) = market.matched_orders.pop_first() {
                    market.matched_orders.insert("17".repeat(32), order);
                }
            }
        }),
        venue("a match for a cancelled order", Rule::KnownOrder, |_, auditor, _| {
            auditor.orders.values_mut().for_each(|record| record.closed = true);
        }),
        venue("a counterpart of another duration", Rule::MatchKind, |story, _, _| {
            first_bid(story).bid.as_mut().unwrap().lease_duration_blocks += 1;
        }),
        venue("a counterpart of the other market", Rule::MatchKind, |story, _, _| {
            bid_details(story).auction_type = 1;
        }),
        venue("asks and bids for one order", Rule::MatchKind, |story, _, _| {
            let order = matched(story).find(|order| !order.matched_bids.is_empty()).unwrap();
            let ask =
                rpc::ServerAsk { details: order.matched_bids[0].bid.clone().unwrap().details, ..Default::default() };
            order.matched_asks.push(rpc::MatchedAsk { ask: Some(ask), units_filled: 1 });
        }),
        venue("our own node on the other side", Rule::SelfMatch, |story, auditor, _| {
            bid_details(story).node_pub = auditor.orders.values().next().unwrap().order.node_key.to_vec();
        }),
        venue("our own account on the other side", Rule::SelfMatch, |story, auditor, _| {
            bid_details(story).trader_key = auditor.accounts.keys().next().unwrap().to_vec();
        }),
        venue("a clearing price above our bids", Rule::PriceLimit, |story, _, _| {
            story.prepare().matched_markets.values_mut().for_each(|market| market.clearing_price_rate = 9_999);
        }),
        venue("a clearing price below our asks", Rule::PriceLimit, |story, _, _| {
            story.prepare().matched_markets.values_mut().for_each(|market| market.clearing_price_rate = 10);
        }),
        venue("a counterpart that did not bid enough", Rule::PriceLimit, |story, _, _| {
            bid_details(story).rate_fixed = 1;
        }),
        venue("another price for old clients", Rule::OneBatch, |story, _, _| {
            #[expect(deprecated, reason = "it still has to be true")]
            let flat = &mut story.prepare().clearing_price_rate;
            *flat = 4_959;
        }),
    ]
}

fn about_limits() -> Vec<Lie> {
    vec![
        venue("more units than are open", Rule::UnitsOpen, |_, auditor, _| {
            orders(auditor, |order| order.units_open = order.units_open.min(1));
        }),
        venue("fewer units than the minimum", Rule::UnitsMinimum, |_, auditor, _| {
            orders(auditor, |order| order.min_units = 3);
        }),
        venue("a chain fee rate above the order's limit", Rule::FeeRateLimit, |_, auditor, _| {
            orders(auditor, |order| order.max_fee_rate_sat_per_kw = 1_999);
        }),
        venue("a higher execution fee than quoted", Rule::ExecutionFee, |_, auditor, _| {
            auditor.orders.values_mut().for_each(|record| record.quoted = Some((0, 1_000)));
        }),
        venue("a node that the order excludes", Rule::NodeFilter, |story, auditor, _| {
            let node = bid_details(story).node_pub.clone();
            orders(auditor, |order| order.denied = vec![node.clone()]);
        }),
        venue("a node that the order does not list", Rule::NodeFilter, |_, auditor, _| {
            orders(auditor, |order| order.allowed = vec![vec![2; 33]]);
        }),
        venue("an announced channel against the ask's wish", Rule::ChannelConstraint, |_, auditor, _| {
            orders(auditor, |order| order.announcement = 2);
        }),
        venue("a confirmed channel against the ask's wish", Rule::ChannelConstraint, |_, auditor, _| {
            orders(auditor, |order| order.confirmation = 2);
        }),
        venue("a self balance for an old ask", Rule::ChannelConstraint, |_, auditor, _| {
            orders(auditor, |order| order.version = if order.is_ask { 3 } else { order.version });
        }),
        venue("a match without channel", Rule::ChannelOutput, |story, _, _| {
            let order = matched(story).find(|order| !order.matched_bids.is_empty()).unwrap();
            let again = order.matched_bids[0].clone();
            order.matched_bids.push(again);
        }),
        venue("a channel key that nobody gave", Rule::ChannelOutput, |story, _, _| {
            bid_details(story).multi_sig_key = bid_details(story).node_pub.clone();
        }),
        venue("a self balance that is not in the channel", Rule::ChannelOutput, |story, _, _| {
            first_bid(story).bid.as_mut().unwrap().self_chan_balance += 1;
        }),
    ]
}

fn about_accounts() -> Vec<Lie> {
    vec![
        venue("a satoshi too little", Rule::EndingBalance, |story, _, _| {
            story.prepare().charged_accounts.iter_mut().for_each(|diff| diff.ending_balance -= 1);
        }),
        venue("a satoshi too much, in the output as well", Rule::EndingBalance, |story, _, _| {
            let diff = story.prepare().charged_accounts[0].clone();
            story.prepare().charged_accounts[0].ending_balance += 1;
            let vout = usize::try_from(diff.outpoint_index).unwrap();
            story.change_tx(|tx| tx.output[vout].value += Amount::ONE_SAT);
        }),
        venue("an account without diff", Rule::AccountDiffs, |story, _, _| {
            story.prepare().charged_accounts.pop();
        }),
        venue("two diffs for an account", Rule::AccountDiffs, |story, _, _| {
            let again = story.prepare().charged_accounts[0].clone();
            story.prepare().charged_accounts.push(again);
        }),
        venue("a diff for a stranger", Rule::AccountDiffs, |story, _, _| {
            story.prepare().charged_accounts[0].trader_key[5] ^= 1;
        }),
        venue("a balance kept without output", Rule::EndingState, |story, _, _| {
            story.prepare().charged_accounts[0].ending_state = 3;
        }),
        venue("dust that gets an output", Rule::EndingState, |story, _, _| {
            let diffs = story.prepare().charged_accounts.iter_mut();
            let dust = diffs.filter(|diff| diff.ending_balance < 435);
            dust.for_each(|diff| (diff.ending_state, diff.outpoint_index) = (0, 0));
        }),
        venue("an output index out of range", Rule::EndingState, |story, _, _| {
            story.prepare().charged_accounts[0].outpoint_index = 99;
        }),
        venue("an output that is a channel", Rule::AccountOutput, |story, _, _| {
            story.prepare().charged_accounts[0].outpoint_index = 2;
        }),
        venue("an account script with another key", Rule::AccountOutput, |story, auditor, _| {
            let first: [u8; 33] = story.prepare().charged_accounts[0].trader_key.clone().try_into().unwrap();
            auditor.accounts.get_mut(&first).unwrap().secret = Some([1; 32]);
        }),
        venue("an account script of another expiry", Rule::AccountOutput, |story, _, _| {
            story.prepare().charged_accounts[0].new_expiry += 1;
        }),
        venue("an expiry beyond what was quoted", Rule::Expiry, |_, auditor, _| {
            let quote = Quote { base_fee_sat: 1, fee_ppm: 1_000, extension_blocks: 3_024 };
            auditor.adopt_quote(&me(), quote);
        }),
        venue("an expiry that comes nearer", Rule::Expiry, |story, _, _| {
            story.prepare().charged_accounts[0].new_expiry = 849_500;
        }),
        venue("an unknown account version", Rule::AccountVersion, |story, _, _| {
            story.prepare().charged_accounts[0].new_version = 3;
        }),
        venue("an account that is not spent", Rule::AccountInput, |story, auditor, _| {
            let first: [u8; 33] = story.prepare().charged_accounts[0].trader_key.clone().try_into().unwrap();
            let before = auditor.accounts[&first].outputs[0].outpoint;
            story.change_tx(|tx| tx.input.retain(|input| input.previous_output != before));
        }),
        venue("an account that has no match is spent", Rule::AccountInput, |story, _, _| {
            story.prepare().charged_accounts.remove(0);
            // The ask of the first account is the only order with bids of 2,016 blocks.
            let market = story.prepare().matched_markets.get_mut(&2_016).unwrap();
            market.matched_orders.retain(|_, order| order.matched_bids.is_empty());
        }),
        venue("another batch version", Rule::BatchVersion, |story, _, _| story.prepare().batch_version = 42),
    ]
}

fn about_the_transaction() -> Vec<Lie> {
    vec![
        venue("a lock time", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.lock_time = LockTime::from_height(900_000).unwrap());
        }),
        venue("a transaction version", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.version = bitcoin::transaction::Version::ONE);
        }),
        venue("a sequence", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.input[0].sequence = Sequence::MAX);
        }),
        venue("inputs in another order", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.input.swap(0, 1));
        }),
        venue("outputs in another order", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.output.reverse());
        }),
        venue("an input twice", Rule::TransactionForm, |story, _, _| {
            story.change_tx(|tx| tx.input.insert(0, tx.input[0].clone()));
        }),
        venue("a transaction that is none", Rule::Decoding, |story, _, _| story.prepare().batch_transaction.clear()),
        venue("a batch id that is no point", Rule::Decoding, |story, _, _| story.prepare().batch_id = vec![5; 33]),
        venue("no execution fee", Rule::Decoding, |story, _, _| story.prepare().execution_fee = None),
    ]
}

fn about_requests() -> Vec<Lie> {
    vec![
        venue("a previous output with another value", Rule::PreviousOutputs, |story, _, _| {
            story.begin().prev_outputs.iter_mut().for_each(|output| output.value += 1);
        }),
        venue("a previous output with another script", Rule::PreviousOutputs, |story, _, _| {
            story.begin().prev_outputs.iter_mut().for_each(|output| output.pk_script[3] ^= 1);
        }),
        venue("a previous output missing", Rule::PreviousOutputs, |story, _, _| {
            story.begin().prev_outputs.pop();
        }),
        venue("a legacy input", Rule::PreviousOutputs, |story, _, _| {
            story.begin().prev_outputs.iter_mut().for_each(|output| output.pk_script = vec![0x51]);
        }),
        venue("outputs above inputs", Rule::Conservation, |story, _, _| {
            story.begin().prev_outputs.iter_mut().for_each(|output| output.value = 1);
        }),
        venue("a nonce missing", Rule::Decoding, |story, _, _| {
            story.begin().server_nonces.pop_first();
        }),
        venue("one nonce for two accounts", Rule::NonceReuse, |story, _, _| {
            let first = story.begin().server_nonces.values().next().unwrap().clone();
            story.begin().server_nonces.values_mut().for_each(|nonce| *nonce = first.clone());
        }),
        venue("signatures asked for another batch", Rule::MessageOrder, |story, _, _| story.begin().batch_id[5] ^= 1),
        venue("signatures asked before acceptance", Rule::MessageOrder, |story, _, _| story.accepts = false),
    ]
}

fn about_signatures() -> Vec<Lie> {
    vec![
        trader("a signature before acceptance", Rule::MessageOrder, |story, _, _| story.accepts = false),
        trader("a signature that nobody asked for", Rule::MessageOrder, |story, _, _| story.begin = None),
        trader("a signature without batch", Rule::MessageOrder, |story, _, _| story.prepare = None),
        trader("acceptance of a bad batch", Rule::AcceptedRefused, |story, _, _| {
            story.prepare().charged_accounts[0].ending_balance -= 1;
        }),
        trader("signatures for a bad batch", Rule::SignedRefused, |story, _, _| {
            story.begin().prev_outputs[0].value += 1;
        }),
        trader("a signature too few", Rule::SignatureSet, |story, _, _| {
            story.sign().account_sigs.pop_last();
        }),
        trader("a signature for a stranger", Rule::SignatureSet, |story, _, _| {
            story.sign().account_sigs.insert("02".repeat(33), vec![1; 32]);
        }),
        trader("a wrong ECDSA signature", Rule::AccountSignature, |story, _, entry| swap(story, entry, 0)),
        trader("a wrong partial signature of version 1", Rule::AccountSignature, |story, _, entry| {
            swap(story, entry, 1)
        }),
        trader("a wrong partial signature of version 2", Rule::AccountSignature, |story, _, entry| {
            swap(story, entry, 2)
        }),
        trader("a trader's nonce missing", Rule::AccountSignature, |story, _, _| story.sign().trader_nonces.clear()),
        trader("one trader's nonce for two accounts", Rule::NonceReuse, |story, _, _| {
            let first = story.sign().trader_nonces.values().next().unwrap().clone();
            story.sign().trader_nonces.values_mut().for_each(|nonce| *nonce = first.clone());
        }),
        trader("half a nonce used again", Rule::NonceReuse, |story, _, _| {
            let first = story.sign().trader_nonces.values().next().unwrap()[..33].to_vec();
            let last = story.sign().trader_nonces.values_mut().next_back().unwrap();
            last.splice(33.., first);
        }),
        trader("a channel that is not in the batch", Rule::ChannelInfos, |story, _, _| {
            story.sign().channel_infos.insert(format!("{}:0", "0".repeat(64)), rpc::ChannelInfo::default());
        }),
        trader("a channel missing", Rule::ChannelInfos, |story, _, _| {
            story.sign().channel_infos.pop_first();
        }),
    ]
}

/// Spoils the signature of the first account of a version.
fn swap(story: &mut Story, entry: &Value, version: u32) {
    let signature = story.sign().account_sigs.get_mut(&account_of_version(entry, version)).unwrap();
    *signature.last_mut().unwrap() ^= 1;
}

fn about_the_end() -> Vec<Lie> {
    vec![
        venue("another transaction finalized", Rule::Finalize, |story, _, _| {
            story.finalize.as_mut().unwrap().batch_txid[0] ^= 1;
        }),
        venue("another batch finalized", Rule::Finalize, |story, _, _| {
            story.finalize.as_mut().unwrap().batch_id[5] ^= 1;
        }),
        venue("a batch finalized that was not signed", Rule::Finalize, |story, _, _| story.sign = None),
        Lie {
            name: "a batch on the chain that was not signed",
            rule: Rule::AgreedSpend,
            party: Party::Chain,
            change: |story, _, _| (story.sign, story.finalize) = (None, None),
        },
        Lie {
            name: "a batch on the chain that was not even proposed",
            rule: Rule::AgreedSpend,
            party: Party::Chain,
            change: |story, _, _| {
                *story = Story { chain: story.chain.clone(), ..Story::default() };
            },
        },
        Lie {
            name: "a witness for another transaction",
            rule: Rule::Witness,
            party: Party::Chain,
            change: |story, _, _| {
                story.chain.as_mut().unwrap().output[0].value -= Amount::ONE_SAT;
            },
        },
    ]
}

fn all() -> Vec<Lie> {
    [
        about_matches(),
        about_limits(),
        about_accounts(),
        about_the_transaction(),
        about_requests(),
        about_signatures(),
        about_the_end(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_planted_lie_is_found_under_its_rule() {
    let entry = vectors("batch_accept.json");
    for lie in all() {
        let mut auditor = auditor_of(&entry, true);
        let mut story = Story::of(&entry);
        (lie.change)(&mut story, &mut auditor, &entry);
        story.tell(&mut auditor);
        let found = auditor.findings().iter().any(|finding| finding.rule == lie.rule && finding.party == lie.party);
        assert!(found, "{}: {:?} by {:?} expected in\n{}", lie.name, lie.rule, lie.party, report(&auditor));
    }
    assert!(all().len() >= 60, "{}", all().len());
}

/// A batch of the same id with another transaction may follow a failed round; another account of it is kept.
#[test]
fn a_repeated_round_is_counted_and_allowed() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let mut first = Story::of(&entry);
    (first.finalize, first.chain) = (None, None);
    first.tell(&mut auditor);
    assert_eq!(report(&auditor), "");
    let mut second = first;
    // Something that no rule of the receiver is about: the auctioneer's own output, which keeps its place.
    second.change_tx(|tx| {
        let own = tx.output.iter().position(|output| output.script_pubkey.is_p2wpkh()).unwrap_or(tx.output.len() - 1);
        tx.output[own].value -= Amount::ONE_SAT;
    });
    second.begin().server_nonces.values_mut().for_each(|nonce| nonce.rotate_left(33));
    second.tell(&mut auditor);
    assert_eq!(auditor.counts().repeated_rounds, 5);
    assert!(!rules(&auditor).contains(&Rule::DoubleSigned), "{}", report(&auditor));
    // The old signatures are not good for the new transaction, and the old nonces must not come back.
    assert!(rules(&auditor).contains(&Rule::AccountSignature) && rules(&auditor).contains(&Rule::NonceReuse));
}

/// After finalize, an output is spent for good: a further batch that spends it is signed twice.
#[test]
fn a_second_spend_after_finalize_is_found() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let mut first = Story::of(&entry);
    first.chain = None;
    first.tell(&mut auditor);
    let mut second = first;
    second.change_tx(|tx| {
        let last = tx.output.len() - 1;
        tx.output[last].value -= Amount::ONE_SAT;
    });
    second.tell(&mut auditor);
    assert!(rules(&auditor).contains(&Rule::DoubleSigned), "{}", report(&auditor));
}

/// Two traders are told the same transaction with different prices, and one of them another size of their match.
#[test]
fn traders_that_are_told_different_things_are_found() {
    let entry = vectors("batch_accept.json");
    type Told = (Rule, fn(&mut Story));
    let lies: [Told; 3] = [
        (Rule::OneBatch, |story| story.prepare().fee_rate_sat_per_kw += 1),
        (Rule::OneBatch, |story| {
            story.prepare().matched_markets.values_mut().for_each(|market| market.clearing_price_rate += 1);
        }),
        (Rule::CounterpartyTruth, |story| first_bid(story).units_filled += 1),
    ];
    for (rule, change) in lies {
        let mut auditor = auditor_of(&entry, true);
        Story { sign: None, finalize: None, chain: None, begin: None, ..Story::of(&entry) }.tell(&mut auditor);
        assert_eq!(report(&auditor), "");
        // The first view becomes somebody else's.
        let txid = *auditor.current.get(&me()).unwrap();
        let record = auditor.batches.get_mut(&txid).unwrap();
        let view = record.views.remove(&me()).unwrap();
        record.views.insert(crate::Caller("the other".to_owned()), view);
        let mut story = Story { sign: None, finalize: None, chain: None, begin: None, ..Story::of(&entry) };
        change(&mut story);
        story.tell(&mut auditor);
        assert!(rules(&auditor).contains(&rule), "{rule:?} expected in\n{}", report(&auditor));
    }
}

/// A counterpart whose order was seen is shown with another price.
#[test]
fn a_counterpart_that_is_not_shown_as_it_is_is_found() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let mut story = Story::of(&entry);
    let mut real = crate::wire::bid(first_bid(&mut story).bid.as_ref().unwrap()).unwrap();
    auditor.adopt_order(&crate::Caller("the other".to_owned()), real.clone());
    story.tell(&mut auditor);
    assert_eq!(report(&auditor), "");

    let mut auditor = auditor_of(&entry, true);
    real.rate_ppb += 1;
    auditor.adopt_order(&crate::Caller("the other".to_owned()), real);
    story.tell(&mut auditor);
    assert!(rules(&auditor).contains(&Rule::CounterpartyTruth));
}

/// A finalize that got lost is made up for by the next batch, or by the chain.
#[test]
fn a_missed_finalize_is_made_up_for_by_the_chain() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let mut story = Story::of(&entry);
    let txid = story.chain.as_ref().unwrap().compute_txid();
    story.finalize = None;
    story.tell(&mut auditor);
    assert_eq!(report(&auditor), "");
    assert!(auditor.batches[&txid].views[&me()].settled);
}

/// The wire may carry a message twice: what came of a proposal that is told again, word for word, stays.
#[test]
fn a_proposal_that_is_told_again_keeps_its_acceptance() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let whole = Story::of(&entry);
    let only = |story: Story| Story { accepts: false, ..story };
    Story { begin: None, sign: None, finalize: None, chain: None, ..whole.clone() }.tell(&mut auditor);
    let again = Story { prepare: whole.prepare.clone(), ..Story::default() };
    only(again.clone()).tell(&mut auditor);
    Story { begin: whole.begin.clone(), sign: whole.sign.clone(), ..Story::default() }.tell(&mut auditor);
    only(again).tell(&mut auditor);
    Story { finalize: whole.finalize.clone(), chain: whole.chain, ..Story::default() }.tell(&mut auditor);
    assert_eq!(report(&auditor), "");
    assert_eq!(auditor.counts().finalized, 1);
}

/// A round may be repeated at a greater height; but all who sign it were told the same one.
#[test]
fn signers_of_different_rounds_are_found_on_the_chain() {
    let entry = vectors("batch_accept.json");
    for (shift, found) in [(0, false), (1, true)] {
        let mut auditor = auditor_of(&entry, true);
        let story = Story::of(&entry);
        Story { finalize: None, chain: None, ..story.clone() }.tell(&mut auditor);
        let txid = *auditor.current.get(&me()).unwrap();
        let record = auditor.batches.get_mut(&txid).unwrap();
        let mut other = record.views[&me()].clone();
        other.common.height_hint += shift;
        record.views.insert(crate::Caller("the other".to_owned()), other);
        Story { chain: story.chain, ..Story::default() }.tell(&mut auditor);
        assert_eq!(rules(&auditor).contains(&Rule::OneBatch), found, "{}", report(&auditor));
    }
}

/// The venue takes a late answer for the present one and asks too early; the trader does all in order.
#[test]
fn a_request_that_comes_too_early_is_the_fault_of_the_venue_alone() {
    let entry = vectors("batch_accept.json");
    let mut auditor = auditor_of(&entry, true);
    let whole = Story::of(&entry);
    let id = whole.prepare.as_ref().unwrap().batch_id.clone();
    Story { accepts: false, sign: None, finalize: None, chain: None, ..whole.clone() }.tell(&mut auditor);
    let msg = Some(rpc::client_auction_message::Msg::Accept(rpc::OrderMatchAccept { batch_id: id }));
    auditor.client_message(&me(), &rpc::ClientAuctionMessage { msg }.encode_to_vec());
    Story { sign: whole.sign.clone(), finalize: whole.finalize.clone(), chain: whole.chain, ..Story::default() }
        .tell(&mut auditor);
    let found: Vec<(Party, Rule)> = auditor.findings().iter().map(|finding| (finding.party, finding.rule)).collect();
    assert_eq!(found, [(Party::Venue, Rule::MessageOrder)], "{}", report(&auditor));
}
