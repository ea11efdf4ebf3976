//! Many runs on all cores. Each run is one thread's alone; which thread has no influence on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tidegate_sim::{Plan, Report, run};

/// Runs a plan; a failure of any kind becomes a text that says how to run it again.
pub(crate) fn attempt(plan: &Plan) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| run(plan))) {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(format!("seed {} panics: {text}\nrerun: {}", plan.seed, plan.rerun))
        }
    }
}

/// Runs all plans, in their order as far as anybody can see, and says of every one that failed how to run it again.
pub(crate) fn all(plans: &[Plan]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some((index, plan)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            plans.get(index).map(|plan| (index, plan))
        } {
            let result = attempt(plan);
            if let Err(failure) = &result {
                // At once: whoever waits wants to see it.
                println!("{failure}");
            }
            results.lock().expect("nobody panics with it").push((index, result));
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().expect("nobody panics with it");
    results.sort_by_key(|(index, _)| *index);
    let failed = |(index, result): &(usize, Result<Report, String>)| result.is_err().then(|| &plans[*index].rerun);
    let failures: Vec<&String> = results.iter().filter_map(failed).collect();
    assert!(failures.is_empty(), "{} of {} runs fail: {failures:#?}", failures.len(), results.len());
    results.into_iter().filter_map(|(_, result)| result.ok()).collect()
}
