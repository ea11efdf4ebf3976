//! The kept corpus, and seeded mutations of it, through every target: in the plain test command.
//!
//! `TIDEGATE_FUZZ_MUTATIONS` replaces the number of mutations per target (a soak); `TIDEGATE_FUZZ_TARGET`, `_FILE` and
//! `_SEED` repeat one input.

#![allow(clippy::unwrap_used)] // helpers of tests

mod hostile;
mod mutate;

use mutate::{Random, mutate};
use peak_alloc::PeakAlloc;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_fuzz::{TARGETS, Target, verdict};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Most memory that an input of at most [`hostile::LARGEST_INPUT`] bytes may occupy at once, in bytes, the decoded
/// message, its plain form and the encoding that a target makes of it included.
const MAX_PEAK: usize = 64 << 20;

/// Mutations of each target's corpus, unless the environment says otherwise.
const MUTATIONS: u64 = 600;

/// The allocator counts for the whole process: tests that look at it run one after another.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One kept input.
struct Kept {
    file: String,
    bytes: Vec<u8>,
}

fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(target: &str) -> Vec<Kept> {
    let folder = corpus_folder().join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut kept: Vec<Kept> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| Kept {
            file: path.file_name().unwrap().to_str().unwrap().to_owned(),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect();
    kept.sort_by(|left, right| left.file.cmp(&right.file));
    assert!(!kept.is_empty(), "{target} has no corpus");
    kept
}

/// The input that a seed makes of a kept one.
fn mutated(kept: &[Kept], at: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(&kept[at].file, seed);
    let other = random.below(kept.len());
    mutate(&kept[at].bytes, &kept[other].bytes, &mut random)
}

/// Runs a target on one input; on a defect says what it was and how to see it again.
fn feed(target: &Target, file: &str, seed: Option<u64>, input: &[u8]) -> Result<(), String> {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let peak = HEAP.peak_usage().saturating_sub(before);
    let what = match outcome {
        Ok(()) if peak <= MAX_PEAK => return Ok(()),
        Ok(()) => format!("{peak} bytes occupied at once by an input of {}", input.len()),
        Err(panic) => panic_text(panic.as_ref()),
    };
    let saved = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failing-input", target.name));
    let saved = std::fs::write(&saved, input).map_or_else(|error| error.to_string(), |()| saved.display().to_string());
    let seed = seed.map_or(String::new(), |seed| format!(" TIDEGATE_FUZZ_SEED={seed}"));
    Err(format!(
        "{}: {what}\n  input: {saved} (put it into fuzz/corpus/{}/ once it is mended)\n  again: \
         TIDEGATE_FUZZ_TARGET={} TIDEGATE_FUZZ_FILE={file}{seed} cargo test -p tidegate-fuzz --test replay",
        target.name, target.name, target.name
    ))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Feeds what `files` and `seeds` select; the first failure of each target.
fn replay(target: &Target, only_file: Option<&str>, only_seed: Option<u64>, mutations: u64) -> Result<(), String> {
    let kept = corpus(target.name);
    for one in kept.iter().filter(|one| only_file.is_none_or(|file| file == one.file)) {
        feed(target, &one.file, None, &one.bytes)?;
    }
    let each = mutations.div_ceil(u64::try_from(kept.len()).unwrap());
    for (at, one) in kept.iter().enumerate().filter(|(_, one)| only_file.is_none_or(|file| file == one.file)) {
        let seeds = only_seed.map_or(0..each, |seed| seed..seed + 1);
        for seed in seeds {
            feed(target, &one.file, Some(seed), &mutated(&kept, at, seed))?;
        }
    }
    Ok(())
}

#[test]
fn kept_inputs_and_their_mutations_find_no_defect() {
    let _alone = alone();
    let only_target = environment("TIDEGATE_FUZZ_TARGET");
    let only_file = environment("TIDEGATE_FUZZ_FILE");
    let only_seed = environment("TIDEGATE_FUZZ_SEED").map(|seed| seed.parse().expect("a number"));
    let mutations = environment("TIDEGATE_FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    let selected = TARGETS.iter().filter(|target| only_target.as_deref().is_none_or(|name| name == target.name));
    let mut failures = Vec::new();
    for target in selected {
        let started = std::time::Instant::now();
        let outcome = replay(target, only_file.as_deref(), only_seed, mutations);
        println!("{}: {:?}", target.name, started.elapsed());
        failures.extend(outcome.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn inputs_made_to_be_large_stay_within_the_limit() {
    let _alone = alone();
    let mut failures = Vec::new();
    for (name, kind, input) in hostile::inputs() {
        let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
        assert!(input.len() <= hostile::LARGEST_INPUT, "{name}, {kind}: {}", input.len());
        let started = std::time::Instant::now();
        failures.extend(feed(target, kind, None, &input).err().map(|failure| format!("{kind}: {failure}")));
        println!("{name}, {kind}: {:?}", started.elapsed());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_target_has_a_corpus_and_a_fuzzer_and_no_folder_is_left_over() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let files_in = |folder: PathBuf| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(names.len(), TARGETS.len());
    assert_eq!(files_in(corpus_folder()), names);
    let fuzzers = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    assert_eq!(files_in(fuzzers.join("fuzz_targets")), names);
    let manifest = std::fs::read_to_string(fuzzers.join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

/// Bends that stop at the first check would prove nothing.
#[test]
fn bent_batches_reach_every_depth_of_the_verifier() {
    let _alone = alone();
    let kept = corpus("verify");
    let inputs = (0..kept.len()).flat_map(|at| (0..12).map(move |seed| (at, seed)));
    let (mut accepted, mut refusals) = (BTreeSet::new(), BTreeSet::new());
    for (at, seed) in inputs {
        let input = mutated(&kept, at, seed);
        match verdict(&input) {
            Ok(()) if input.len() > 1 => drop(accepted.insert(input)),
            Ok(()) => {}
            Err(error) => drop(refusals.insert(format!("{error:?}").split([' ', '(']).next().unwrap().to_owned())),
        }
    }
    println!("{} bent batches accepted; refusals of {} kinds: {refusals:?}", accepted.len(), refusals.len());
    assert!(accepted.len() >= 150, "{} accepted", accepted.len());
    assert!(refusals.len() >= 55, "{refusals:?}");
}

/// A decoder that fails for one input in a few hundred mutations, as a real defect would.
fn planted(data: &[u8]) {
    assert!(data.len() != 37 || data.first() == Some(&3), "planted");
    drop(std::hint::black_box(vec![0_u8; if data.last() == Some(&0x80) { MAX_PEAK + 1 } else { 1 }]));
}

#[test]
fn a_planted_panic_and_a_planted_allocation_are_found_and_repeatable() {
    let _alone = alone();
    let target = Target { name: "finalize", run: planted };
    let failure = replay(&target, None, None, 5_000).expect_err("the planted defect is not found");
    let words = failure.split_whitespace();
    let value = |name: &str| words.clone().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    assert_eq!(value("TIDEGATE_FUZZ_TARGET=").as_deref(), Some("finalize"), "{failure}");
    let (file, seed) = (value("TIDEGATE_FUZZ_FILE=").unwrap(), value("TIDEGATE_FUZZ_SEED=").unwrap().parse().unwrap());
    let again = replay(&target, Some(&file), Some(seed), 5_000).expect_err("not repeatable");
    assert_eq!(again, failure);

    let panicking = (0..5_000).map(|seed| mutated(&corpus("finalize"), 0, seed)).find(|input| input.len() == 37);
    let panic = feed(&target, "x", None, &panicking.expect("a length among thousands")).expect_err("a panic");
    assert!(panic.contains("planted"), "{panic}");
    let allocation = feed(&target, "x", None, &[0x80]).expect_err("an allocation");
    assert!(allocation.contains("occupied at once"), "{allocation}");
    assert!(feed(&target, "x", None, &[1]).is_ok());
}
