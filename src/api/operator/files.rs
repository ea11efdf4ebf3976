//! Files that are made once and kept: secrets, and what clients need to reach us.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Something about the files of the API, or their content.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The file or folder can be neither read nor made.
    #[error("can not use {}: {source}. Make its folder and the files in it readable and writable for this user", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{} is damaged: {reason}. Restore it from a backup, or remove it to have a new one made", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No certificate could be made.
    #[error("can not make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> FilesError + '_ {
    |source| FilesError::Io { path: path.to_owned(), source }
}

/// Makes the folder, for this user alone.
pub(super) fn create_folder(folder: &Path) -> Result<(), FilesError> {
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(io(folder))
}

/// The content of a file, or nothing when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, FilesError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(path)(error)),
    }
}

/// Writes a whole file or nothing, readable for its owner alone, in place of an older one.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), FilesError> {
    prepared(path, content)?.persist(path).map_err(|error| io(path)(error.error))?;
    sync_folder(path)
}

/// As [`write`], but an existing file stays. Of two processes at once, both get the same.
pub(super) fn write_once(path: &Path, content: &[u8]) -> Result<Vec<u8>, FilesError> {
    match prepared(path, content)?.persist_noclobber(path) {
        Ok(_) => sync_folder(path)?,
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(path)(error.error)),
    }
    std::fs::read(path).map_err(io(path))
}

/// A temporary file beside `path`, with mode 0600 as tempfile makes it.
fn prepared(path: &Path, content: &[u8]) -> Result<tempfile::NamedTempFile, FilesError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io(path))?;
    file.write_all(content).map_err(io(path))?;
    file.as_file().sync_all().map_err(io(path))?;
    Ok(file)
}

/// The name must survive a power cut as well as the content.
fn sync_folder(path: &Path) -> Result<(), FilesError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(path))
}
