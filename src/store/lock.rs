//! At most one process per owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A lock that the operating system drops with the process, however it ends.
#[derive(Debug)]
pub(super) struct OwnerLock {
    // Held, never read: closing the file releases the lock.
    _file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum LockFailure {
    /// Another process holds it.
    Held(PathBuf),
    /// The file can not be made or locked.
    Io(PathBuf, io::Error),
}

impl OwnerLock {
    /// Takes the lock of `owner` beside the database, without waiting.
    pub(super) fn take(database: &Path, owner: &str) -> Result<OwnerLock, LockFailure> {
        let path = lock_path(database, owner);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(&path).map_err(|error| LockFailure::Io(path.clone(), error))?;
        match file.try_lock() {
            Ok(()) => Ok(OwnerLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockFailure::Held(path)),
            Err(TryLockError::Error(error)) => Err(LockFailure::Io(path, error)),
        }
    }
}

/// `DATABASE.OWNER.lock`; anything but letters, digits, `-` and `_` in the owner becomes hexadecimal, so that two
/// owners never share a lock.
fn lock_path(database: &Path, owner: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    for byte in owner.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte).to_string());
        } else {
            name.push(format!("%{byte:02x}"));
        }
    }
    name.push(".lock");
    database.with_file_name(name)
}

/// Readable and writable for nobody but us.
#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// The platform's default protection.
#[cfg(not(unix))]
pub(super) fn private(_options: &mut OpenOptions) {}
