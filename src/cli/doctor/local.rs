//! What is on this machine: folders, files, their permissions, and room.

use super::Check;
use crate::config::AgentConfig;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Below this the database can not grow for long, and below the other it is about to fail.
const ROOM_WARN_KIB: u64 = 1 << 20;
const ROOM_FAIL_KIB: u64 = 100 << 10;

/// All checks of this kind.
pub(super) fn checks(config: &AgentConfig) -> Vec<Check> {
    vec![data_dir(&config.data_dir), secrets(config), room(&config.data_dir)]
}

/// The nearest folder above that exists.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|data| data.permissions().mode() & 0o777)
}

fn data_dir(path: &Path) -> Check {
    const NAME: &str = "data folder";
    let shown = path.display();
    let folder = existing(path);
    // The only way to know: a file without a name, gone at once.
    let writable = tempfile::tempfile_in(&folder).is_ok();
    match mode(path) {
        _ if !writable => {
            let advice = "make it writable for this user, or choose another data_dir";
            Check::fail(NAME, format!("{} is not writable", folder.display()), advice)
        }
        None => Check::ok(NAME, format!("{shown} is made at the first start")),
        Some(mode) if mode & 0o077 != 0 => {
            let advice = format!("chmod 700 {shown}");
            Check::warn(NAME, format!("{shown} is open to other users (mode {mode:o})"), advice)
        }
        Some(_) => Check::ok(NAME, format!("{shown} is writable, and for this user alone")),
    }
}

fn secrets(config: &AgentConfig) -> Check {
    const NAME: &str = "secrets";
    let api = config.api_folder();
    let mut files = vec![config.node.macaroon.clone(), config.data_dir.join("venue.token")];
    files.extend(["root.key", "tls.key", "pool.macaroon"].map(|name| api.join(name)));
    let open: Vec<String> = files
        .iter()
        .filter_map(|path| mode(path).filter(|mode| mode & 0o077 != 0).map(|_| path.display().to_string()))
        .collect();
    if open.is_empty() {
        return Check::ok(NAME, "macaroons, keys and token are for this user alone");
    }
    let found = format!("other users can read {}: whoever has it can move your coins", open.join(" and "));
    Check::warn(NAME, found, format!("chmod 600 {}", open.join(" ")))
}

fn room(path: &Path) -> Check {
    const NAME: &str = "disk";
    let folder = existing(path);
    let Some(free_kib) = free_kib(&folder) else {
        let advice = "look yourself: the agent stops when its disk is full";
        return Check::warn(NAME, format!("`df` does not say how much is free at {}", folder.display()), advice);
    };
    let found = format!("{} MiB free at {}", free_kib / 1024, folder.display());
    let advice = "make room: a decision that can not be stored is not made, and the agent ends";
    match free_kib {
        free if free < ROOM_FAIL_KIB => Check::fail(NAME, found, advice),
        free if free < ROOM_WARN_KIB => Check::warn(NAME, found, advice),
        _ => Check::ok(NAME, found),
    }
}

/// As the system's `df` says: the standard library has no way to ask.
fn free_kib(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok().filter(|output| output.status.success())?;
    available(&String::from_utf8(output.stdout).ok()?)
}

/// The fourth column of the second line.
fn available(table: &str) -> Option<u64> {
    table.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_portable_table_is_read() {
        let table = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 40 60 40% /\n";
        assert_eq!(available(table), Some(60));
        assert_eq!(available("df: no such file\n"), None);
        assert!(free_kib(Path::new("/")).is_some(), "every system has df");
    }

    #[test]
    fn a_folder_that_others_can_enter_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let set = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("ours");
        set(0o755);
        let check = data_dir(folder.path());
        assert_eq!(check.state, State::Warn);
        assert!(check.found.contains("755") && check.advice.expect("advice").contains("chmod 700"));
        set(0o700);
        assert_eq!(data_dir(folder.path()).state, State::Ok);
        let missing = data_dir(&folder.path().join("a/b"));
        assert!(missing.state == State::Ok && missing.found.contains("first start"), "{missing:?}");
    }
}
