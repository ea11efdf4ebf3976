//! The folder that holds a process's durable state.

use crate::venue::admin::TOKEN_FILE;
use anyhow::Context as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use tidegate_ports::Entropy;

/// Creates the folder for its owner alone; an existing one is left as it is.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        let path = path.display();
        format!("can not create the data folder {path}: choose another data_dir, or mend the permissions of its parent")
    })
}

/// The venue token of this folder, drawn and stored at the first call. A crash leaves either no token or a whole one,
/// and of two processes that start at once both get the same.
///
/// # Errors
/// When the file can be neither read nor written, or holds something else.
pub(crate) fn venue_token(folder: &Path, entropy: &impl Entropy) -> anyhow::Result<[u8; 32]> {
    token(&folder.join("venue.token"), "venue", entropy)
}

/// As [`venue_token`]: what opens the operator's door to the venue of this folder.
///
/// # Errors
/// As of [`venue_token`].
pub(crate) fn admin_token(folder: &Path, entropy: &impl Entropy) -> anyhow::Result<[u8; 32]> {
    token(&folder.join(TOKEN_FILE), "operator's", entropy)
}

fn token(path: &Path, whose: &str, entropy: &impl Entropy) -> anyhow::Result<[u8; 32]> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let what = || {
        let path = path.display();
        format!("can not use the {whose} token {path}: make data_dir and the files in it writable for this user")
    };
    if !path.try_exists().with_context(what)? {
        // Readable for its owner alone, as tempfile makes it.
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(what)?;
        file.write_all(hex::DisplayHex::to_lower_hex_string(&entropy.draw()[..]).as_bytes()).with_context(what)?;
        file.as_file().sync_all().with_context(what)?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(other) if other.error.kind() == ErrorKind::AlreadyExists => {}
            Err(other) => return Err(other.error).with_context(what),
        }
        // The name must survive a power cut as well as the content.
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(what)?;
    }
    let text = std::fs::read_to_string(path).with_context(what)?;
    let token: Result<[u8; 32], _> = hex::FromHex::from_hex(text.trim());
    token.map_err(|_| {
        anyhow::anyhow!(
            "{} is damaged: it must hold 64 hexadecimal characters. Restore it from a backup",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::OsEntropy;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_drawn_once_and_is_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = venue_token(folder.path(), &OsEntropy).expect("drawn");
        assert_eq!(venue_token(folder.path(), &OsEntropy).expect("read"), first);
        let mode = std::fs::metadata(folder.path().join("venue.token")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing is left over");
    }

    #[test]
    fn processes_that_start_at_once_get_the_same_token() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens: std::collections::BTreeSet<[u8; 32]> = std::thread::scope(|scope| {
            let draw = || venue_token(folder.path(), &OsEntropy).expect("a token");
            let all: Vec<_> = (0..8).map(|_| scope.spawn(draw)).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(tokens.len(), 1);
    }

    #[test]
    fn a_damaged_token_is_kept_and_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("venue.token");
        for text in ["", "abc", "zz"] {
            std::fs::write(&path, text).expect("written");
            let refusal = venue_token(folder.path(), &OsEntropy).expect_err(text).to_string();
            assert!(refusal.contains("venue.token") && refusal.contains("Restore it"), "{refusal}");
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), text);
        }
    }
}
