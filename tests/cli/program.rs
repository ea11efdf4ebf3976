//! The binary as a child process, and a folder with configurations that are right but for what a case changes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than any case takes on a busy machine, shorter than a person waits.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Any PEM text of this kind passes as certificate until a server shows another.
pub(crate) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\ncGlubmVk\n-----END CERTIFICATE-----\n";
/// Nothing listens there: binding it takes root, and no service is registered for it.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    Agent,
    Venue,
}

impl Daemon {
    /// Its subcommand.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Daemon::Agent => "run",
            Daemon::Venue => "venue",
        }
    }

    fn example(self) -> PathBuf {
        let name = match self {
            Daemon::Agent => "config/agent.example.toml",
            Daemon::Venue => "config/venue.example.toml",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }
}

/// A folder with the shipped example of a daemon, made to fit: nothing is wrong but that nobody is at the node's
/// address, so that a start with it waits for ever.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    daemon: Daemon,
}

impl Bench {
    pub(crate) fn new(daemon: Daemon) -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let bench = Bench { folder, daemon };
        bench.write("tls.cert", CERTIFICATE);
        bench.write("node.macaroon", "not looked at before the node answers");
        let strategy = Path::new(env!("CARGO_MANIFEST_DIR")).join("strategies/seller/seller.toml");
        bench.write("strategy.toml", &fs::read_to_string(strategy).expect("the preset is readable"));
        let text = fs::read_to_string(daemon.example()).expect("the example is readable");
        bench.write("tidegate.toml", &text);
        let data = format!("\"{}\"", bench.path("data").display());
        let (cert, macaroon) = (bench.quoted("tls.cert"), bench.quoted("node.macaroon"));
        match daemon {
            Daemon::Agent => {
                bench.set("\"data/agent\"", &data);
                bench.set("\"127.0.0.1:12081\"", "\"127.0.0.1:0\"");
                bench.set("\"127.0.0.1:10009\"", &format!("\"{NOBODY}\""));
                bench.set("\"127.0.0.1:12009\"", &format!("\"{NOBODY}\""));
                bench.set("\"127.0.0.1:12010\"", "\"127.0.0.1:0\"");
                bench.set("\"/var/lib/lnd/tls.cert\"", &cert);
                bench.set("\"/var/lib/tidegate/trader.macaroon\"", &macaroon);
                bench.set("\"../strategies/seller/seller.toml\"", "\"strategy.toml\"");
            }
            Daemon::Venue => {
                bench.set("\"data/venue\"", &data);
                bench.set("\"127.0.0.1:12082\"", "\"127.0.0.1:0\"");
                bench.set("\"127.0.0.1:12009\"", "\"127.0.0.1:0\"");
                bench.set("\"127.0.0.1:10010\"", &format!("\"{NOBODY}\""));
                bench.set("\"/var/lib/lnd-venue/tls.cert\"", &cert);
                bench.set("\"/var/lib/tidegate/venue.macaroon\"", &macaroon);
            }
        }
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn quoted(&self, name: &str) -> String {
        format!("\"{}\"", self.path(name).display())
    }

    /// Writes a file of the folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("folders can be made");
        fs::write(path, text).expect("the temporary folder is writable");
    }

    /// Replaces what must stand once in the configuration.
    pub(crate) fn set(&self, from: &str, to: &str) {
        self.edit("tidegate.toml", from, to);
    }

    /// Replaces what must stand once in a file of the folder.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("the file is readable");
        assert_eq!(text.matches(from).count(), 1, "{name}: `{from}` must stand there once");
        self.write(name, &text.replace(from, to));
    }

    /// Starts the daemon with this folder's configuration.
    pub(crate) fn start(&self) -> Running {
        let config = self.path("tidegate.toml").display().to_string();
        Running::start(&[self.daemon.command(), "--config", &config], self.folder.path())
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running program; ended without notice when dropped.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Starts the binary; its output goes to files in `folder`.
    pub(crate) fn start(args: &[&str], folder: &Path) -> Running {
        Running::start_in(args, folder, Path::new("."))
    }

    /// The same, in the current folder `here`.
    pub(crate) fn start_in(args: &[&str], folder: &Path, here: &Path) -> Running {
        let file = |name: String| {
            let path = folder.join(name);
            (File::create(&path).expect("the temporary folder is writable"), path)
        };
        let number = fs::read_dir(folder).expect("the temporary folder is readable").count();
        let ((stdout, out), (stderr, err)) = (file(format!("{number}.out")), file(format!("{number}.err")));
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(args)
            .current_dir(here)
            .env_remove("TIDEGATE_CONFIG")
            .env_remove("TIDEGATE_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        Running { child, out, err }
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.err).expect("the output is text")
    }

    /// Waits until standard error says this; the program must still run then.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.stderr().contains(text) {
            let ended = self.child.try_wait().expect("the child can be looked at");
            assert!(ended.is_none(), "it ended ({ended:?}) before it said `{text}`:\n{}", self.stderr());
            assert!(Instant::now() < deadline, "it never said `{text}`:\n{}", self.stderr());
            thread::sleep(LOOK);
        }
        assert!(self.runs());
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("the child can be looked at").is_none()
    }

    /// Where the status pages are, from the log.
    pub(crate) fn status_address(&mut self) -> SocketAddr {
        self.wait_for("serving /healthz");
        let log = self.stderr();
        let (_, rest) = log.split_once(" status=").expect("the address is logged");
        rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("an address and a port")
    }

    /// Asks the program to end, as a supervisor does.
    pub(crate) fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(done.expect("kill exists").success());
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be looked at") {
                let stdout = fs::read_to_string(&self.out).expect("the output is text");
                return Ended { code: status.code(), stdout, stderr: self.stderr() };
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.stderr());
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status code and body of a plain request on loopback.
pub(crate) fn http(method: &str, address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit can be set");
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: x\r\n\r\n").expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    (code.expect("a status code"), body.to_owned())
}
