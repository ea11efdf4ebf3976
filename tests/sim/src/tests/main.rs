//! The simulation's tests: honest runs, faults, crashes at every call, and planted defects.

mod seeds;
