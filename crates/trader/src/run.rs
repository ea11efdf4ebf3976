//! The one task of a trader: start, and the flows that run side by side in it.

use crate::book::{Book, Update};
use crate::command::{Command, Inbox};
use crate::desk::{Backoff, Desk};
use crate::error::Halt;
use crate::handle::Handle;
use crate::upkeep::{Chore, Upkeep};
use crate::{accounts, changes, close, orders, subscribe, watch};
use core::convert::Infallible;
use futures_channel::{mpsc, oneshot};
use futures_util::{FutureExt, StreamExt, pin_mut, select_biased};
use std::sync::Arc;
use tidegate_ports::{Clock, NodeData, NodeError, NodeInfo, Signer, Timestamp, TraderEnv};
use tidegate_protocol::account::{Account, AccountState};

use crate::config::{OpenAccount, TraderConfig};
use crate::error::OpenError;

/// Commands that wait for the trader at most; callers wait beyond that.
const COMMANDS: usize = 64;

/// A trader that is not running yet, and its handle. Nothing happens until [`Trader::run`] is polled.
pub fn trader(config: TraderConfig) -> (Handle, Trader) {
    let (desk, writes) = Desk::new(config);
    let desk = Arc::new(desk);
    let (commands, command_inbox) = mpsc::channel(COMMANDS);
    let (stop, stop_inbox) = mpsc::channel(1);
    let inbox = Inbox { commands: command_inbox, stop: stop_inbox, writes };
    let handle = Handle::new(commands, stop, Arc::clone(&desk));
    (handle, Trader { ended: Ended(desk), inbox })
}

/// A trader. It does nothing until it runs.
pub struct Trader {
    ended: Ended,
    inbox: Inbox,
}

impl core::fmt::Debug for Trader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Trader")
    }
}

/// Says that the trader ended, however it does, also when it never ran.
struct Ended(Arc<Desk>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note(|moment| moment.ended = true);
        self.0.ring();
    }
}

impl Trader {
    /// Runs the trader until it is told to stop. It may be dropped at any time: what was begun goes on at the next
    /// start from the same store. A node or a venue that is away is waited for.
    ///
    /// # Errors
    /// [`Halt`]: the store or the node is not the one that it must be.
    pub async fn run<E: TraderEnv>(self, env: &E) -> Result<(), Halt> {
        let Trader { ended, inbox } = self;
        let desk: &Desk = &ended.0;
        let Inbox { commands, mut stop, writes } = inbox;
        let sequence = desk.load(env.store()).await?;
        desk.note(|moment| moment.ready = true);
        desk.ring();
        let writer = desk.write(env.store(), env.clock(), sequence, writes).fuse();
        let work = work(env, desk, commands).fuse();
        pin_mut!(writer, work);
        select_biased! {
            halt = writer => Err(halt),
            () = stop.select_next_some() => Ok(()),
            halted = work => match halted {
                Ok(never) => match never {},
                Err(halt) => Err(halt),
            },
        }
    }
}

/// Everything but the writer.
async fn work<E: TraderEnv>(env: &E, desk: &Desk, commands: mpsc::Receiver<Command>) -> Result<Infallible, Halt> {
    start(env, desk).await?;
    let chain = watch::follow(env, desk).fuse();
    let venue = subscribe::serve(env, desk).fuse();
    let owner = own(env, desk, commands).fuse();
    pin_mut!(chain, venue, owner);
    select_biased! {
        halted = chain => halted,
        halted = venue => halted,
        halted = owner => halted,
    }
}

/// Waits for the node, and checks that it is the one that the store belongs to.
///
/// # Source
/// Protocol notes, accounts §4 "Start-up order".
async fn start<E: TraderEnv>(env: &E, desk: &Desk) -> Result<(), Halt> {
    let mut backoff = Backoff::new(&desk.config);
    loop {
        match identify(env, desk).await? {
            Ok(node) => {
                tracing::info!(node = %node.id, height = %node.best_height, version = node.version, "node reached");
                let height = node.best_height;
                desk.note(|moment| moment.node = Some(node));
                watch::reached(desk, height).await;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for the node");
                backoff.pause(env.clock()).await;
            }
        }
    }
}

/// The node, when its identity and its keys fit the store.
async fn identify<E: TraderEnv>(env: &E, desk: &Desk) -> Result<Result<NodeInfo, NodeError>, Halt> {
    let node = match env.node().info().await {
        Ok(node) => node,
        Err(error) => return Ok(Err(error)),
    };
    match desk.read(|book| book.node) {
        Some(stored) if stored != node.id => {
            return Err(Halt::OtherNode { stored: stored.to_string(), found: node.id.to_string() });
        }
        Some(_) => {}
        None => {
            let id = node.id;
            desk.update(move |_| vec![Update::Node(id)]).await;
        }
    }
    let accounts: Vec<Account> = desk.read(|book: &Book| book.accounts.values().cloned().collect());
    for account in accounts {
        match env.signer().shared_secret(account.terms.auctioneer.point(), account.locator).await {
            Ok(secret) if secret == account.terms.secret => {}
            Ok(_) => return Err(Halt::WrongNode { account: account.key() }),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(node))
}

/// Commands and upkeep, one after the other: nothing is funded or submitted twice at a time.
async fn own<E: TraderEnv>(env: &E, desk: &Desk, mut commands: mpsc::Receiver<Command>) -> Result<Infallible, Halt> {
    let mut bell = desk.listen();
    let mut upkeep = Upkeep::default();
    loop {
        let next = upkeep.run(env, desk).await;
        let timer = until(env, next).fuse();
        pin_mut!(timer);
        select_biased! {
            command = commands.select_next_some() => execute(env, desk, &mut upkeep, command).await,
            () = bell.select_next_some() => {}
            () = timer => {}
        }
    }
}

async fn until<E: TraderEnv>(env: &E, at: Option<Timestamp>) {
    match at {
        Some(at) => env.clock().sleep_until(at).await,
        None => core::future::pending().await,
    }
}

async fn execute<E: TraderEnv>(env: &E, desk: &Desk, upkeep: &mut Upkeep, command: Command) {
    // An answer that nobody waits for any more is no reason to undo anything.
    fn answer<T>(way: oneshot::Sender<T>, answer: T) {
        drop(way.send(answer));
    }
    match command {
        Command::Open(request, way) => answer(way, open(env, desk, upkeep, request).await),
        Command::Quote(request, way) => answer(way, accounts::quote(env, desk, request).await),
        Command::Deposit(request, way) => answer(way, changes::deposit(env, desk, request).await),
        Command::Withdraw(request, way) => answer(way, changes::withdraw(env, desk, request).await),
        Command::Renew(request, way) => answer(way, changes::renew(env, desk, request).await),
        Command::Bump(request, way) => answer(way, changes::bump(env, desk, request).await),
        Command::Close(request, way) => answer(way, close::close(env, desk, request).await),
        Command::Submit(request, way) => answer(way, orders::submit(env, desk, *request).await),
        Command::Cancel(nonce, way) => answer(way, orders::cancel(env, desk, nonce).await),
        Command::Replace(old, request, way) => answer(way, orders::replace(env, desk, old, *request).await),
    }
}

/// Reserves and funds an account. When funding fails it is upkeep's from then on.
async fn open<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    upkeep: &mut Upkeep,
    request: OpenAccount,
) -> Result<Account, OpenError> {
    let account = accounts::reserve(env, desk, &request).await?;
    let key = account.key();
    match accounts::fund(env, desk, &account, request.fee_rate).await {
        Ok(account) if account.state == AccountState::CanceledAfterRecovery => Err(OpenError::TooLate(key)),
        Ok(account) => Ok(account),
        Err(source) => {
            upkeep.failed(Chore::Fund(key), desk, env.clock().now());
            Err(OpenError::Funding { account: key, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A multi-threaded runtime may drive a trader over any ports: checked by the compiler.
    #[allow(dead_code)]
    fn the_task_of_a_trader_is_send<E: TraderEnv>(
        trader: Trader,
        env: &E,
    ) -> impl Future<Output = Result<(), Halt>> + Send {
        trader.run(env)
    }
}
