//! The folder that holds a process's durable state.

use anyhow::Context as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use tidegate_ports::Entropy;

/// Creates the folder for its owner alone; an existing one is left as it is.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can not create the data folder {} (data_dir)", path.display()))
}

/// The venue token of this folder, drawn and stored at the first call.
///
/// # Errors
/// When the file can be neither read nor written, or holds something else.
pub(crate) fn venue_token(folder: &Path, entropy: &impl Entropy) -> anyhow::Result<[u8; 32]> {
    let path = folder.join("venue.token");
    let what = || format!("can not use the venue token {}", path.display());
    if !path.exists() {
        let token = entropy.draw();
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(what)?;
        file.write_all(hex::DisplayHex::to_lower_hex_string(&token[..]).as_bytes()).with_context(what)?;
        file.sync_all().with_context(what)?;
        return Ok(token);
    }
    let text = std::fs::read_to_string(&path).with_context(what)?;
    let token: Result<[u8; 32], _> = hex::FromHex::from_hex(text.trim());
    token.map_err(|_| {
        anyhow::anyhow!(
            "{} is damaged: it must hold 64 hexadecimal characters. Restore it from a backup",
            path.display()
        )
    })
}
