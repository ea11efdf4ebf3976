//! Programs killed in the middle of a batch, at a message that the proxy waits for. Whatever dies, each lease happens
//! once, every satoshi is where both reports say, and the auditor finds nothing.

use std::time::Duration;

use crate::audit::Said;
use crate::failure::{Failure, Outcome};
use crate::group::Group;
use crate::json;
use crate::lnd::Wallet;
use crate::matrix::{ChannelKind, Market, SelfBalance, Setting, Timing, Visibility};
use crate::pool::AccountVersion::{self, V0, V1, V2};
use crate::process::{Killer, Wait, report};
use crate::trade::Side;

/// A step of the venue may take half a minute, and a batch may be tried again.
const ROUND_LIMIT: Duration = Duration::from_secs(150);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Our trader.
    Trader,
    /// Its node.
    Node,
}

/// When somebody is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) victim: Victim,
    /// The message at which it happens, before that is passed on, and who says or hears it.
    pub(crate) said: Said,
    pub(crate) by_ours: bool,
    /// The message never arrives.
    pub(crate) lost: bool,
    pub(crate) words: &'static str,
}

/// All moments at which our trader or its node dies.
///
/// The other side may wait for a channel in vain, and report so. The venue knows that ours left the round, and keeps nobody
/// apart for it.
pub(crate) const MOMENTS: [Moment; 8] = [
    moment(Victim::Trader, Said::Accept, true, true, "our trader killed after it accepted, nobody heard it"),
    moment(Victim::Trader, Said::Accept, true, false, "our trader killed after its acceptance had left"),
    moment(Victim::Trader, Said::Signatures, true, true, "our trader killed after it signed, nobody got the signature"),
    moment(Victim::Trader, Said::Signatures, true, false, "our trader killed after its signature had left"),
    moment(Victim::Trader, Said::Finalize, true, true, "our trader killed before it heard that the batch is final"),
    moment(Victim::Node, Said::Prepare, true, false, "our node killed after prepare"),
    moment(Victim::Node, Said::Signatures, false, false, "our node killed after the channel was opened"),
    moment(Victim::Node, Said::Signatures, true, false, "our node killed after our signature"),
];

const fn moment(victim: Victim, said: Said, by_ours: bool, lost: bool, words: &'static str) -> Moment {
    Moment { victim, said, by_ours, lost, words }
}

/// A lease of the plainest kind.
fn setting(version: AccountVersion) -> Setting {
    Setting {
        seller_version: version,
        buyer_version: version,
        channel: ChannelKind::PeerDependent,
        visibility: Visibility::Announced,
        timing: Timing::Confirmed,
        market: Market::Inbound,
        own: SelfBalance::None,
    }
}

/// A lease during which our side `ours` loses its trader or its node.
pub(crate) fn lease_with_a_kill(group: &mut Group<'_>, ours: Side, moment: Moment, round: usize) -> Outcome<()> {
    let version = [V2, V1, V0][round % 3];
    group.lease_by(&setting(version), |group| {
        let killer = match moment.victim {
            Victim::Trader => group.party(ours).client.killer()?,
            Victim::Node => group.node(ours).killer()?,
        };
        let at = if moment.by_ours { ours } else { other(ours) };
        arm(group, at, moment, killer);
        let first = group.tick();
        if !group.audit.trap.has_sprung() {
            return Err(Failure::new(format!("nothing was killed: {:?}", first.err())));
        }
        bring_back(group, ours, moment.victim)?;
        match first {
            Ok(()) => Ok(()),
            // The traders come back to their streams, and the batch is made anew.
            Err(_) => Wait::new("the batch is made anew").limit(ROUND_LIMIT).until(|| group.tick()),
        }
    })
}

/// Every account is back on a stream of the venue.
fn wait_subscribed(group: &Group<'_>) -> Outcome<()> {
    let expected = AccountVersion::ALL.len() * 2;
    Wait::new("every account is subscribed").log(group.venue.log()).until(|| {
        let status = group.venue.status()?;
        match json::number(&status, "/subscribed_accounts")? {
            found if usize::try_from(found).is_ok_and(|found| found == expected) => Ok(()),
            _ => Err(Failure::new(status.to_string())),
        }
    })
}

fn other(side: Side) -> Side {
    match side {
        Side::Seller => Side::Buyer,
        Side::Buyer => Side::Seller,
    }
}

fn arm(group: &Group<'_>, side: Side, moment: Moment, mut killer: Killer) {
    group.audit.trap.arm(side, moment.said, move || {
        if let Err(failure) = killer.kill() {
            report(&failure.to_string());
        }
        !moment.lost
    });
}

fn bring_back(group: &mut Group<'_>, ours: Side, victim: Victim) -> Outcome<()> {
    match victim {
        Victim::Trader => group.party(ours).client.start_again(),
        Victim::Node => {
            let node = group.node(ours);
            node.restart(Wallet::Opened)?;
            // Before that it answers, and opens no channel.
            node.wait_state("SERVER_ACTIVE")?;
            node.wait_synced(group.network.chain.height()?)
        }
    }
}

/// The venue dies when its first word that the batch is final has left it: the batch is stored, and not yet published,
/// since what it says to its node meanwhile is held up and lost. The word is lost too. It comes back, publishes, and both
/// traders learn from the chain.
pub(crate) fn venue_dies_before_it_publishes(group: &mut Group<'_>) -> Outcome<()> {
    group.lease_by(&setting(V2), |group| {
        wait_subscribed(group)?;
        let before = group.network.chain.mempool()?;
        let (link, mut killer) = (group.link.clone(), group.venue.killer()?);
        group.audit.trap.arm(Side::Buyer, Said::Finalize, move || {
            link.lose();
            if let Err(failure) = killer.kill() {
                report(&failure.to_string());
            }
            false
        });
        group.link.slow_down();
        // The venue dies before it can answer.
        let mut told = group.venue.tick();
        if !group.audit.trap.has_sprung() {
            // A deployed client that was cut off in a batch refuses the next one once.
            told = group.venue.tick();
        }
        if !group.audit.trap.has_sprung() {
            return Err(Failure::new(format!("nothing was killed: {told:?}")));
        }
        let after = group.network.chain.mempool()?;
        assert_eq!(after, before, "the batch was published before the venue died");
        group.link.mend();
        group.venue.start_again()?;
        group.revive()
    })
}
