//! Runs by seed.

use tidegate_sim::{Plan, run};

#[test]
fn honest() {
    let (mut batches, mut leases) = (0, 0);
    for seed in 0..20 {
        let started = std::time::Instant::now();
        let report = run(&Plan::honest(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{seed}: {report:?} {:?}", started.elapsed());
        batches += report.batches;
        leases += report.leases;
    }
    assert!(batches > 10 && leases > 10, "{batches} {leases}");
}
