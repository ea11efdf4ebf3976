//! Builds the six foreign programs from the Go module registry, pinned by the two modules under `go/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Context, Failure, Outcome};
use crate::process::report;

const LND_TAGS: &str = "autopilotrpc chainrpc invoicesrpc neutrinorpc peersrpc routerrpc signrpc walletrpc \
    watchtowerrpc wtclientrpc";

const NODE_PACKAGES: [&str; 4] = [
    "github.com/btcsuite/btcd",
    "github.com/btcsuite/btcd/cmd/btcctl",
    "github.com/lightningnetwork/lnd/cmd/lnd",
    "github.com/lightningnetwork/lnd/cmd/lncli",
];

const POOL_PACKAGES: [&str; 2] = ["github.com/lightninglabs/pool/cmd/poold", "github.com/lightninglabs/pool/cmd/pool"];

/// Where the foreign programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) btcd: PathBuf,
    pub(crate) btcctl: PathBuf,
    pub(crate) lnd: PathBuf,
    pub(crate) lncli: PathBuf,
    pub(crate) poold: PathBuf,
    pub(crate) pool: PathBuf,
}

impl Programs {
    fn in_folder(folder: &Path) -> Outcome<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(Failure::new(format!(
                    "{} is missing; the interop programs are made by `go build`",
                    path.display()
                ))),
            }
        };
        Ok(Self {
            btcd: find("btcd")?,
            btcctl: find("btcctl")?,
            lnd: find("lnd")?,
            lncli: find("lncli")?,
            poold: find("poold")?,
            pool: find("pool")?,
        })
    }
}

/// The programs, built if need be. `None` where Go is absent, which is an error on CI.
///
/// `TIDEGATE_INTEROP_BIN` names a folder with ready programs and spares the build. An up-to-date build costs the
/// seconds that `go build` needs to see that.
pub(crate) fn programs() -> Outcome<Option<Programs>> {
    if let Some(folder) = std::env::var_os("TIDEGATE_INTEROP_BIN") {
        return Programs::in_folder(Path::new(&folder)).map(Some);
    }
    if let Err(error) = Command::new("go").arg("version").output() {
        let why = format!("the Go toolchain is needed to build lnd, btcd and poold: go: {error}");
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            return Err(Failure::new(format!("interop must not be skipped on CI; {why}")));
        }
        report(&format!("INTEROP SKIPPED: {why}"));
        return Ok(None);
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-bin");
    fs::create_dir_all(&out).context(|| format!("create {}", out.display()))?;
    build("node", Some(LND_TAGS), &NODE_PACKAGES, &out)?;
    build("pool", None, &POOL_PACKAGES, &out)?;
    Programs::in_folder(&out).map(Some)
}

fn build(module: &str, tags: Option<&str>, packages: &[&str], out: &Path) -> Outcome<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go").join(module);
    report(&format!("go build of module {module} (minutes when cold)"));
    let mut command = Command::new("go");
    // readonly: what is built is what go.sum names, or nothing. No VCS stamp: the programs are not from this repository.
    command
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(out)
        .current_dir(&folder)
        .stdin(Stdio::null());
    if let Some(tags) = tags {
        command.args(["-tags", tags]);
    }
    let output = command.args(packages).output().context(|| format!("go build in {}", folder.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "go build in {} ({}):\n{}",
            folder.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
