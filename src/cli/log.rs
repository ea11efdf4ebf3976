//! Where log lines go: to standard error, or, while a view owns the terminal, nowhere until it is given back.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are kept while a view owns the terminal: the newest.
const KEPT: usize = 200;

static HELD: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<VecDeque<Vec<u8>>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on lines are kept back.
pub(super) fn hold() {
    held().get_or_insert_default();
}

/// Lines go to standard error again, those that were kept back first.
pub(super) fn release() {
    let Some(lines) = held().take() else { return };
    let mut error = io::stderr().lock();
    for line in lines {
        // Standard error that is gone can not be told so.
        drop(error.write_all(&line));
    }
}

/// Writes one line of the log.
pub(super) fn writer() -> Line {
    Line(())
}

/// The place of one line.
pub(super) struct Line(());

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match held().as_mut() {
            Some(lines) => {
                lines.push_back(bytes.to_vec());
                let excess = lines.len().saturating_sub(KEPT);
                lines.drain(..excess);
                Ok(bytes.len())
            }
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
