//! The auditor against the golden vectors, and against planted lies.

mod arithmetic;
mod calls;
mod lies;
mod passage;
mod support;
mod vectors;
