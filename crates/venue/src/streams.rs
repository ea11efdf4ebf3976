//! The traders' streams: handshakes, subscriptions, and where an answer of a batch belongs.

use crate::actor::Actor;
use crate::error::Halt;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{
    ClientMessage, Entropy, ServerMessage, StreamId, SubscribeErrorCode, Timestamp, TraderEvent, TraderId, Traders,
    VenueEnv,
};
use tidegate_protocol::auth::{AuthChallenge, CommitHash, verify_message};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::AccountKey;
use tracing::{debug, info};

/// Accounts on one stream, at most; also open challenges.
const MAX_ACCOUNTS: usize = 50;
/// A stream without a subscription is ended after this time, in milliseconds.
const FIRST_SUBSCRIPTION_MS: u64 = 10_000;
/// The latest batch version that we speak. Later ones are refused at the first step.
const LATEST: BatchVersion = BatchVersion(58);

/// One open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) trader: TraderId,
    pub(crate) version: BatchVersion,
    pub(crate) accounts: BTreeSet<AccountKey>,
    opened: Timestamp,
    challenges: BTreeMap<CommitHash, AuthChallenge>,
}

/// All open streams. An account is subscribed on one of them at most.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: BTreeMap<StreamId, Stream>,
    by_account: BTreeMap<AccountKey, StreamId>,
}

/// What follows from a step of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(ServerMessage),
    Close(&'static str),
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn subscribed(&self) -> usize {
        self.by_account.len()
    }

    /// The stream on which the account is subscribed.
    pub(crate) fn of_account(&self, account: AccountKey) -> Option<(StreamId, &Stream)> {
        let id = *self.by_account.get(&account)?;
        Some((id, self.open.get(&id)?))
    }

    pub(crate) fn ids(&self) -> Vec<StreamId> {
        self.open.keys().copied().collect()
    }

    /// Opens a stream; returns an older one of the same trader, which it replaces. The shared identity of traders
    /// without a token replaces nothing.
    pub(crate) fn open(&mut self, trader: TraderId, id: StreamId, now: Timestamp) -> Option<StreamId> {
        let shared = trader.0 == [0; 32];
        let older = self.open.iter().find(|(_, stream)| stream.trader == trader && !shared).map(|(id, _)| *id);
        if let Some(older) = older {
            self.close(older);
        }
        let stream = Stream {
            trader,
            version: BatchVersion(0),
            accounts: BTreeSet::new(),
            opened: now,
            challenges: BTreeMap::new(),
        };
        self.open.insert(id, stream);
        older
    }

    /// Forgets a stream and its subscriptions.
    pub(crate) fn close(&mut self, id: StreamId) {
        self.open.remove(&id);
        self.by_account.retain(|_, stream| *stream != id);
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.silent().map(|(_, stream)| stream.opened.plus_ms(FIRST_SUBSCRIPTION_MS)).min()
    }

    fn silent(&self) -> impl Iterator<Item = (&StreamId, &Stream)> {
        self.open.iter().filter(|(_, stream)| stream.accounts.is_empty())
    }

    /// Streams that subscribed nothing in time.
    fn overdue(&self, now: Timestamp) -> Vec<StreamId> {
        self.silent()
            .filter(|(_, stream)| stream.opened.plus_ms(FIRST_SUBSCRIPTION_MS) <= now)
            .map(|(id, _)| *id)
            .collect()
    }

    /// First step: a challenge to each commitment, so that handshakes may interleave.
    pub(crate) fn commit(
        &mut self,
        id: StreamId,
        commit: CommitHash,
        version: BatchVersion,
        nonce: &[u8; 32],
    ) -> Option<Step> {
        let stream = self.open.get_mut(&id)?;
        if version.0 > LATEST.0 {
            return Some(Step::Close("the batch version is later than this venue's (58)"));
        }
        if stream.challenges.len() >= MAX_ACCOUNTS || stream.accounts.len() >= MAX_ACCOUNTS {
            return Some(Step::Close("too many accounts on one stream, at most 50"));
        }
        stream.version = version;
        let challenge = AuthChallenge::of(commit, nonce);
        stream.challenges.insert(commit, challenge);
        Some(Step::Send(ServerMessage::Challenge { challenge, commit }))
    }

    /// Third step: whether the account key signed our challenge. A challenge is used once.
    pub(crate) fn authenticate(
        &mut self,
        id: StreamId,
        account: AccountKey,
        nonce: &[u8; 32],
        signature: &[u8],
    ) -> Result<(), &'static str> {
        let stream = self.open.get_mut(&id).ok_or("the stream is closed")?;
        let commit = CommitHash::of(account, nonce);
        let challenge = stream.challenges.remove(&commit).ok_or("no commitment was made to this account and nonce")?;
        if verify_message(account.point(), &challenge.auth_hash(commit), signature) {
            Ok(())
        } else {
            Err("the signature is not the account's")
        }
    }

    /// Subscribes an account here and nowhere else.
    pub(crate) fn subscribe(&mut self, id: StreamId, account: AccountKey) {
        if let Some(stream) = self.by_account.insert(account, id).and_then(|old| self.open.get_mut(&old)) {
            stream.accounts.remove(&account);
        }
        if let Some(stream) = self.open.get_mut(&id) {
            stream.accounts.insert(account);
        }
    }
}

impl<E: VenueEnv> Actor<'_, E> {
    pub(crate) async fn on_trader(&mut self, event: TraderEvent) -> Result<(), Halt> {
        match event {
            TraderEvent::Opened { trader, stream } => {
                let now = self.now();
                if let Some(older) = self.streams.open(trader, stream, now) {
                    self.gone(older);
                    self.env.traders().close(older, "replaced by a newer stream of the same trader").await;
                }
            }
            TraderEvent::Closed { stream, .. } => {
                self.streams.close(stream);
                self.gone(stream);
            }
            TraderEvent::Said { stream, message, .. } => self.on_message(stream, message).await?,
        }
        Ok(())
    }

    async fn on_message(&mut self, stream: StreamId, message: ClientMessage) -> Result<(), Halt> {
        let step = match message {
            ClientMessage::Commit { commit, version } => {
                let nonce = self.env.entropy().draw();
                self.streams.commit(stream, commit, version, &nonce)
            }
            ClientMessage::Subscribe { account, nonce, signature } => {
                Some(self.on_subscribe(stream, account, &nonce, &signature))
            }
            ClientMessage::Recover { account } => Some(self.recover(stream, account).await?),
            ClientMessage::Accept { .. } | ClientMessage::Reject(_) | ClientMessage::Sign(_) => {
                if let Some(collector) = &mut self.collector {
                    collector.hear(stream, message);
                } else {
                    debug!(stream = stream.0, "an answer to no batch is ignored");
                }
                None
            }
        };
        match step {
            None => {}
            Some(Step::Send(message)) => self.say(stream, message).await,
            Some(Step::Close(reason)) => self.hang_up(stream, reason).await,
        }
        Ok(())
    }

    fn on_subscribe(&mut self, stream: StreamId, account: AccountKey, nonce: &[u8; 32], signature: &[u8]) -> Step {
        if let Err(reason) = self.streams.authenticate(stream, account, nonce, signature) {
            return Step::Close(reason);
        }
        if self.book.accounts.contains_key(&account) {
            let before = self.streams.of_account(account).map(|(id, _)| id);
            self.streams.subscribe(stream, account);
            if before != Some(stream) {
                self.conflicts.lift(account);
            }
            info!(%account, stream = stream.0, "subscribed");
            Step::Send(ServerMessage::Success { account })
        } else if let Some(reserved) = self.book.reservations.get(&account) {
            let message = "the account was reserved, but never announced".to_owned();
            Step::Send(ServerMessage::Reserved { reservation: Box::new(reserved.told()), message })
        } else {
            let code = SubscribeErrorCode::AccountDoesNotExist;
            let message = "account does not exist".to_owned();
            Step::Send(ServerMessage::Error { account: Some(account), code, message })
        }
    }

    async fn say(&mut self, stream: StreamId, message: ServerMessage) {
        if !self.env.traders().send(stream, message).await {
            self.streams.close(stream);
            self.gone(stream);
        }
    }

    pub(crate) async fn hang_up(&mut self, stream: StreamId, reason: &'static str) {
        debug!(stream = stream.0, reason, "stream ended");
        self.streams.close(stream);
        self.gone(stream);
        self.env.traders().close(stream, reason).await;
    }

    /// A stream that is gone answers nothing any more.
    fn gone(&mut self, stream: StreamId) {
        if let Some(collector) = &mut self.collector {
            collector.lose(stream);
        }
    }

    pub(crate) async fn sweep_streams(&mut self) {
        for stream in self.streams.overdue(self.now()) {
            self.hang_up(stream, "no account was subscribed within 10 seconds").await;
        }
    }

    pub(crate) async fn say_goodbye(&mut self) {
        for stream in self.streams.ids() {
            let message = "the venue goes down".to_owned();
            let goodbye = ServerMessage::Error { account: None, code: SubscribeErrorCode::ServerShutdown, message };
            self.env.traders().send(stream, goodbye).await;
            self.env.traders().close(stream, "the venue goes down").await;
        }
    }
}
