//! Clearing beside sorting the same orders, and the worst books known.
//!
//! `cargo bench -p tidegate-market`, or with a part of a name: `cargo bench -p tidegate-market -- worst`.

mod books;

use books::{Book, Worst};
use core::cmp::Reverse;
use divan::{Bencher, black_box};
use tidegate_market::{BookOrder, Conflicts, MAX_PAIRS, PairingRules, TICK_WORK, clear, plan};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const WORST: usize = 100_000;

fn main() {
    divan::main();
}

fn rules(conflicts: &Conflicts, max_pairs: usize) -> PairingRules<'_> {
    PairingRules { conflicts, ratings_enabled: true, max_pairs }
}

/// What the plain walk needs before it can start: the orders by duration, asks by rising, bids by falling rate.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn sort_references(bencher: Bencher<'_, '_>, size: usize) {
    let orders = &Book::cached(size).orders;
    bencher.bench(|| {
        let (mut asks, mut bids): (Vec<&BookOrder>, Vec<&BookOrder>) =
            black_box(orders).iter().partition(|order| order.submitted.order.is_ask());
        asks.sort_by_key(|ask| (ask.submitted.order.duration, ask.submitted.order.rate));
        bids.sort_by_key(|bid| (bid.submitted.order.duration, Reverse(bid.submitted.order.rate)));
        (asks, bids)
    });
}

/// The same with the orders themselves in place of references.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn sort_orders(bencher: Bencher<'_, '_>, size: usize) {
    let orders = &Book::cached(size).orders;
    bencher.with_inputs(|| orders.clone()).bench_local_refs(|orders| {
        orders.sort_by_key(|order| {
            let terms = &order.submitted.order;
            (
                terms.duration,
                terms.is_ask(),
                if terms.is_ask() { terms.rate.get() } else { u32::MAX - terms.rate.get() },
            )
        });
    });
}

/// The whole book is paired and priced; pairs name their orders by place.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn plan_everything(bencher: Bencher<'_, '_>, size: usize) {
    let book = Book::cached(size);
    let rules = rules(&book.conflicts, usize::MAX);
    bencher.bench(|| plan(black_box(&book.orders), &rules, TICK_WORK));
}

/// The whole book is paired and priced; pairs are copies of the orders.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn clear_everything(bencher: Bencher<'_, '_>, size: usize) {
    let book = Book::cached(size);
    let rules = rules(&book.conflicts, usize::MAX);
    bencher.bench(|| clear(black_box(&book.orders), &rules));
}

/// One batch of the venue: as many pairs as fit one transaction.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn clear_one_batch(bencher: Bencher<'_, '_>, size: usize) {
    let book = Book::cached(size);
    let rules = rules(&book.conflicts, MAX_PAIRS);
    bencher.bench(|| clear(black_box(&book.orders), &rules));
}

/// Books made to be slow, within the work of one tick.
#[divan::bench(args = Worst::ALL, sample_count = 1, sample_size = 1)]
fn worst_books(bencher: Bencher<'_, '_>, worst: Worst) {
    let book = Book::worst(worst, WORST);
    let rules = rules(&book.conflicts, usize::MAX);
    bencher.bench_local(|| plan(black_box(&book.orders), &rules, TICK_WORK));
    let plan = plan(&book.orders, &rules, TICK_WORK);
    let pairs: usize = plan.markets.values().map(|market| market.meetings.len()).sum();
    report(worst, plan.work, pairs, plan.cut);
}

/// Says how the work ended: whether a tick with this book would be cut.
#[allow(clippy::print_stderr)]
fn report(worst: Worst, work: u64, pairs: usize, cut: bool) {
    eprintln!("{worst:?}: work {work}, {pairs} pairs{}", if cut { ", CUT" } else { "" });
}
