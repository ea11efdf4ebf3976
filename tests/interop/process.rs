//! Child processes, loopback ports and waiting.
//!
//! A daemon never outlives the test process, not even when that is killed: each runs under a few lines of shell that
//! end it when the pipe from us closes. That also lets the shared network live in a static, which Rust never drops.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Context, Failure, Outcome};

/// Pause between two looks at a condition. The only sleep of the harness.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// What a daemon gets to end by itself before it is killed; the watchdog's own limit is 15 s.
const STOP_LIMIT: Duration = Duration::from_secs(25);
const LOG_TAIL_LINES: usize = 25;

/// Reads signal names from its standard input and passes them on; at the end of input: TERM, and KILL after 15 s.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
(
  while read -r signal <&3; do kill -s "$signal" "$child"; done
  kill -s TERM "$child"
  left=75
  while kill -0 "$child"; do
    if [ "$left" -eq 0 ]; then kill -s KILL "$child"; break; fi
    left=$((left - 1)); sleep 0.2
  done
) 2>/dev/null &
watcher=$!
wait "$child"
code=$?
kill "$watcher" 2>/dev/null
exit "$code"
"#;

/// A running program with its output in a log file.
pub(crate) struct Daemon {
    name: String,
    shell: Child,
    control: Option<ChildStdin>,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` with `args`; output is appended to `NAME.log` in `log_dir`.
    pub(crate) fn spawn(name: &str, program: &Path, args: &[String], log_dir: &Path) -> Outcome<Self> {
        fs::create_dir_all(log_dir).context(|| format!("create {}", log_dir.display()))?;
        let log = log_dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).context(|| format!("open {}", log.display()))?;
        let err = out.try_clone().context(|| format!("share {}", log.display()))?;
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context(|| format!("start {}", program.display()))?;
        let control = shell.stdin.take();
        Ok(Self { name: name.to_owned(), shell, control, log })
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// An error as soon as the program has ended: nobody should wait for a daemon that is gone.
    pub(crate) fn check_running(&mut self) -> Outcome<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(Failure::fatal(format!("{} ended ({status})\n{}", self.name, tail(&self.log)))),
        }
    }

    /// Asks the program to end and waits for it; after 15 s it is killed.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        drop(self.control.take());
        self.wait_for_end()
    }

    /// Ends the program without notice, as a crash would, and waits for it.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        if let Some(control) = &mut self.control {
            control.write_all(b"KILL\n").context(|| format!("kill {}", self.name))?;
        }
        self.wait_for_end()
    }

    /// Lets somebody else end the program without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        let control = self.control.as_ref().ok_or_else(|| Failure::new(format!("{} has ended", self.name)))?;
        let pipe = control.as_fd().try_clone_to_owned().context(|| format!("share the pipe to {}", self.name))?;
        Ok(Killer { name: self.name.clone(), pipe: File::from(pipe), shell: self.shell.id() })
    }

    /// Waits for the program to end by itself and returns its exit code.
    pub(crate) fn wait_exit_code(&mut self) -> Outcome<Option<i32>> {
        self.wait_for_end()?;
        Ok(self.exit_status()?.and_then(|status| status.code()))
    }

    fn exit_status(&mut self) -> Outcome<Option<ExitStatus>> {
        self.shell.try_wait().context(|| format!("look at {}", self.name))
    }

    fn wait_for_end(&mut self) -> Outcome<()> {
        let log = self.log.clone();
        Wait::new(format!("{} ends", self.name)).limit(STOP_LIMIT).log(&log).until(|| match self.exit_status()? {
            Some(_) => Ok(()),
            None => Err(Failure::new("still running")),
        })
    }
}

/// Ends a program without notice, from any thread.
pub(crate) struct Killer {
    name: String,
    pipe: File,
    shell: u32,
}

impl Killer {
    /// Kills the program, and returns when it has ended.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.pipe.write_all(b"KILL\n").context(|| format!("kill {}", self.name))?;
        let stat = PathBuf::from(format!("/proc/{}/stat", self.shell));
        // The shell ends with its child. Nobody has waited for it, so it stays as a zombie.
        Wait::new(format!("{} ends", self.name)).limit(STOP_LIMIT).until(|| match fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => Err(Failure::new("still running")),
            _ => Ok(()),
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(failure) = self.stop() {
            report(&failure.to_string());
        }
    }
}

/// A condition that is looked at again and again until it holds or its time is over.
pub(crate) struct Wait {
    what: String,
    limit: Duration,
    logs: Vec<PathBuf>,
}

impl Wait {
    /// Waits for `what`, one minute unless told otherwise.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), limit: Duration::from_secs(60), logs: Vec::new() }
    }

    /// Gives up after this time.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Shows the end of this file when giving up.
    pub(crate) fn log(mut self, log: &Path) -> Self {
        self.logs.push(log.to_owned());
        self
    }

    /// Calls `probe` until it succeeds. On timeout the failure carries its last error and the log tails.
    pub(crate) fn until<T>(self, mut probe: impl FnMut() -> Outcome<T>) -> Outcome<T> {
        let deadline = Instant::now() + self.limit;
        loop {
            let last = match probe() {
                Ok(value) => return Ok(value),
                Err(failure) if failure.is_fatal() => return Err(failure),
                Err(failure) => failure,
            };
            if Instant::now() >= deadline {
                let tails: String = self.logs.iter().map(|log| tail(log)).collect();
                let limit = self.limit.as_secs();
                return Err(Failure::new(format!("waited {limit} s for: {}\nlast answer: {last}\n{tails}", self.what)));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A loopback port nobody listens on. Taken below the range for outgoing connections, so that none of the many
/// connections of the daemons grabs it before its owner starts.
pub(crate) fn free_port() -> Outcome<u16> {
    const FIRST: u16 = 14_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + u16::try_from((u32::from(start) + u32::from(step)) % u32::from(COUNT)).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new("no free loopback port between 14000 and 32000"))
}

/// Runs a program to its end and returns its standard output; its error output is the failure.
pub(crate) fn run(program: &Path, args: &[String]) -> Outcome<String> {
    let shown = || {
        let name = program.file_name().unwrap_or(program.as_os_str());
        format!("{} {}", name.to_string_lossy(), args.join(" "))
    };
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().context(shown)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{} ({}): {} {}", shown(), output.status, stderr.trim(), stdout.trim())))
}

/// As [`run`], for programs that answer in JSON; bare words (a transaction id) become a JSON string.
pub(crate) fn run_json(program: &Path, args: &[String]) -> Outcome<Value> {
    let text = run(program, args)?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim().to_owned())))
}

/// Arguments as owned strings, so that fixed and computed ones mix.
pub(crate) fn args<const N: usize>(parts: [&str; N]) -> Vec<String> {
    parts.map(str::to_owned).to_vec()
}

/// The last lines of a log, for a failure's text.
pub(crate) fn tail(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    };
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    format!("--- end of {}\n{}\n", log.display(), lines.get(from..).unwrap_or_default().join("\n"))
}

/// Writes a line past the test runner's capture: progress and "SKIPPED" must be seen in passing runs too.
pub(crate) fn report(line: &str) {
    // Nothing sensible can be done where the terminal is gone.
    let _ = writeln!(std::io::stderr().lock(), "[interop] {line}");
}

/// Measures the stages of a run and reports each.
pub(crate) struct Stages {
    name: String,
    since: Instant,
}

impl Stages {
    /// Starts the clock.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), since: Instant::now() }
    }

    /// Reports what has just been done and the seconds since the last call.
    pub(crate) fn done(&mut self, what: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        report(&format!("{}: {what} ({seconds:.1} s)", self.name));
        self.since = Instant::now();
    }
}
