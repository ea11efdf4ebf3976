//! A trader that the deployed command line drives: the deployed daemon, or ours.

use std::path::Path;

use crate::failure::Outcome;
use crate::lnd::Lnd;
use crate::ours::Agent;
use crate::pool::Cli;
use crate::poold::Poold;
use crate::process::Killer;
use crate::regtest::Network;
use crate::trade::Program;

/// A running trader.
pub(crate) struct Client {
    pub(crate) program: Program,
    running: Running,
}

enum Running {
    Poold(Poold),
    Ours { agent: Agent, cli: Cli },
}

impl Client {
    /// Starts `program` for the node `lnd` at the venue's address, and waits until it answers.
    pub(crate) fn start(network: &Network, program: Program, lnd: &Lnd, venue: &str, dir: &Path) -> Outcome<Self> {
        let running = match program {
            Program::Poold => {
                let mut poold = Poold::start(&network.programs, lnd, venue, dir)?;
                poold.wait_ready()?;
                Running::Poold(poold)
            }
            Program::Agent => {
                let (agent, cli) = Agent::start_manual(&network.programs, lnd, venue, dir)?;
                Running::Ours { agent, cli }
            }
        };
        Ok(Self { program, running })
    }

    /// Its command line.
    pub(crate) fn cli(&self) -> &Cli {
        match &self.running {
            Running::Poold(poold) => &poold.cli,
            Running::Ours { cli, .. } => cli,
        }
    }

    /// Lets somebody else end the daemon without notice.
    pub(crate) fn killer(&self) -> Outcome<Killer> {
        match &self.running {
            Running::Poold(poold) => poold.killer(),
            Running::Ours { agent, .. } => agent.killer(),
        }
    }

    /// Starts the daemon again on the data that it left, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Outcome<()> {
        match &mut self.running {
            Running::Poold(poold) => poold.crash_and_restart(),
            Running::Ours { agent, cli } => {
                agent.start_again()?;
                agent.wait_api(cli)
            }
        }
    }

    /// Starts a deployed client again if it has ended by itself. Ours must not.
    pub(crate) fn revive(&mut self) -> Outcome<()> {
        match &mut self.running {
            Running::Poold(poold) => poold.revive(),
            Running::Ours { agent, .. } => agent.check_well(),
        }
    }

    /// Log of the daemon, for failures.
    pub(crate) fn log(&self) -> &Path {
        match &self.running {
            Running::Poold(poold) => poold.log(),
            Running::Ours { agent, .. } => agent.log(),
        }
    }
}
