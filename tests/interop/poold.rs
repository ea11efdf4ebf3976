//! The deployed client, driven through its own command line. It recomputes every script and balance, so it is the
//! judge of both our venue and, through the venue, of our trader.

use std::path::{Path, PathBuf};

use crate::failure::Outcome;
use crate::go::Programs;
use crate::lnd::Lnd;
use crate::pool::Cli;
use crate::process::{Daemon, Killer, Wait, args, free_port};

/// A poold that works for one node.
pub(crate) struct Poold {
    name: String,
    poold: PathBuf,
    dir: PathBuf,
    daemon_args: Vec<String>,
    daemon: Daemon,
    /// Its command line.
    pub(crate) cli: Cli,
}

impl Poold {
    /// Starts a client of the auctioneer at `auctioneer` (`host:port`, plaintext) with its data in `dir`. An existing
    /// folder is continued.
    pub(crate) fn start(programs: &Programs, lnd: &Lnd, auctioneer: &str, dir: &Path) -> Outcome<Self> {
        let (rpc_port, rest_port) = (free_port()?, free_port()?);
        let daemon_args = args([
            "--network=regtest",
            "--insecure",
            "--fakeauth",
            "--debuglevel=trace",
            &format!("--auctionserver={auctioneer}"),
            &format!("--basedir={}", dir.display()),
            &format!("--lnd.host={}", lnd.rpc_host()),
            &format!("--lnd.macaroonpath={}", lnd.admin_macaroon().display()),
            &format!("--lnd.tlspath={}", lnd.certificate().display()),
            &format!("--rpclisten=127.0.0.1:{rpc_port}"),
            &format!("--restlisten=127.0.0.1:{rest_port}"),
        ]);
        let name = format!("poold-{}", lnd.name());
        let daemon = Daemon::spawn(&name, &programs.poold, &daemon_args, dir)?;
        Ok(Self {
            name,
            poold: programs.poold.clone(),
            dir: dir.to_owned(),
            daemon_args,
            daemon,
            cli: Cli::new(programs, dir.to_owned(), rpc_port),
        })
    }

    /// Waits until the command line gets an answer.
    pub(crate) fn wait_ready(&mut self) -> Outcome<()> {
        let log = self.daemon.log().to_owned();
        Wait::new(format!("{} answers", self.name))
            .log(&log)
            .until(|| {
                self.daemon.check_running()?;
                self.cli.call(&["getinfo"])
            })
            .map(|_| ())
    }

    /// Starts the daemon again if it has ended by itself.
    pub(crate) fn revive(&mut self) -> Outcome<()> {
        if self.daemon.check_running().is_err() {
            self.daemon = Daemon::spawn(&self.name, &self.poold, &self.daemon_args, &self.dir)?;
        }
        self.wait_ready()
    }

    /// Ends the daemon as a crash would and starts it again on the same data.
    pub(crate) fn crash_and_restart(&mut self) -> Outcome<()> {
        self.daemon.kill()?;
        self.daemon = Daemon::spawn(&self.name, &self.poold, &self.daemon_args, &self.dir)?;
        self.wait_ready()
    }

    /// Lets somebody else end the daemon without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        self.daemon.killer()
    }

    /// Log of the daemon, for failures.
    pub(crate) fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Ends the daemon in good order.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        self.daemon.stop()
    }
}
