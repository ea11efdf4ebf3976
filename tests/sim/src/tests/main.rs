//! The simulation's tests: honest runs, faults, crashes at every call, and planted defects.

#![allow(clippy::print_stdout, reason = "a run tells what it did and how to repeat it")]

mod crash;
mod planted;
mod pool;
mod seeds;
