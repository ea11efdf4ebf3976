//! The wire between traders and venue, in memory: every message is encoded and decoded as on a real connection.
//!
//! Does: carry calls to the venue that runs at the moment, and the messages of the batch streams in order; drop, delay
//! and repeat what the seed says. Never does: look into a message, but for a planted defect.

use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_auditor::{Auditor, Caller};
use tidegate_ports::{ClientMessage, Clock, LinkError, ServerMessage, StreamId, Timestamp, TraderEvent, TraderId};
use tidegate_sandbox::{Random, SimClock};
use tidegate_venue::Handle;
use tidegate_wire::poolrpc::{ClientAuctionMessage, ServerAuctionMessage};
use tidegate_wire::stream;

/// Waiting for a time.
type Nap<'a> = core::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How often the wire misbehaves, in parts of a million messages or calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireRates {
    /// A message is lost.
    pub drop: u32,
    /// A message, or a call, arrives twice.
    pub repeat: u32,
    /// A message is late; those after it wait.
    pub delay: u32,
    /// Longest delay, in milliseconds.
    pub max_delay_ms: u64,
    /// The stream breaks instead of carrying the message.
    pub cut: u32,
}

/// Changes what a venue says: a planted defect.
pub type Tamper = fn(&mut ServerMessage);

/// A trader as the auditor knows it.
pub(crate) fn caller(trader: TraderId) -> Caller {
    Caller(trader.0.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
}

/// Sends a message through its bytes.
pub(crate) fn carried<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded can be decoded")
}

#[derive(Debug)]
struct Stream {
    trader: TraderId,
    /// Bytes on their way to the trader, and when they arrive.
    down: VecDeque<(Timestamp, Vec<u8>)>,
    /// The venue's side is over; what is on its way still arrives.
    ended: bool,
}

struct Inner {
    venue: Option<Handle>,
    next: u64,
    streams: BTreeMap<StreamId, Stream>,
    /// Events on their way to the venue.
    up: VecDeque<(Timestamp, TraderEvent)>,
    wakers: Vec<Waker>,
    random: Random,
    rates: WireRates,
    tamper: Option<Tamper>,
}

/// The wire. Clones are the same.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Mutex<Inner>>,
    clock: SimClock,
    /// Sees every byte.
    auditor: Arc<Mutex<Auditor>>,
}

/// What a queue has for its reader.
enum Next<T> {
    Item(T),
    Later(Timestamp),
    Nothing,
}

impl Hub {
    /// A wire without a venue.
    pub(crate) fn new(seed: u64, clock: SimClock, auditor: Auditor) -> Hub {
        let inner = Inner {
            venue: None,
            next: 1,
            streams: BTreeMap::new(),
            up: VecDeque::new(),
            wakers: Vec::new(),
            random: Random::named(seed, "wire"),
            rates: WireRates::default(),
            tamper: None,
        };
        Hub { inner: Arc::new(Mutex::new(inner)), clock, auditor: Arc::new(Mutex::new(auditor)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows something to the auditor.
    pub(crate) fn audit<R>(&self, show: impl FnOnce(&mut Auditor) -> R) -> R {
        show(&mut self.auditor.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let (result, woken) = {
            let mut inner = self.lock();
            (change(&mut inner), core::mem::take(&mut inner.wakers))
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Sets how the wire misbehaves from now on.
    pub fn set_rates(&self, rates: WireRates) {
        self.lock().rates = rates;
    }

    /// Plants a defect.
    pub fn set_tamper(&self, tamper: Option<Tamper>) {
        self.lock().tamper = tamper;
    }

    /// A venue starts, or ends: every stream breaks, and what was on its way is lost.
    pub fn set_venue(&self, venue: Option<Handle>) {
        self.change(|inner| {
            inner.venue = venue;
            inner.up.clear();
            inner.streams.clear();
        });
    }

    /// The venue that runs.
    pub(crate) fn venue(&self) -> Option<Handle> {
        self.lock().venue.clone()
    }

    /// Whether a call is made twice.
    pub(crate) fn repeats(&self) -> bool {
        let mut inner = self.lock();
        let parts = inner.rates.repeat;
        inner.random.chance(parts)
    }

    /// Opens a stream.
    pub(crate) fn open(&self, trader: TraderId) -> Option<StreamId> {
        let now = self.clock.now();
        self.change(|inner| {
            inner.venue.as_ref()?;
            let stream = StreamId(inner.next);
            inner.next += 1;
            inner.streams.insert(stream, Stream { trader, down: VecDeque::new(), ended: false });
            inner.tell(now, TraderEvent::Opened { trader, stream });
            Some(stream)
        })
    }

    /// The trader's side of a stream is over.
    pub(crate) fn leave(&self, stream: StreamId) {
        let now = self.clock.now();
        self.change(|inner| {
            if let Some(Stream { trader, ended: false, .. }) = inner.streams.remove(&stream) {
                inner.tell(now, TraderEvent::Closed { trader, stream });
            }
        });
    }

    /// The venue's side of a stream is over: the trader reads what is on its way, then the end.
    pub(crate) fn end(&self, stream: StreamId) {
        self.change(|inner| {
            if let Some(stream) = inner.streams.get_mut(&stream) {
                stream.ended = true;
            }
        });
    }

    /// Carries a message of a trader. False when the stream is gone.
    pub(crate) fn say(&self, stream: StreamId, message: &ClientMessage) -> bool {
        let now = self.clock.now();
        let bytes = stream::to_client_message(message).encode_to_vec();
        self.change(|inner| {
            let Some(Stream { trader, ended: false, .. }) = inner.streams.get(&stream) else { return false };
            let trader = *trader;
            self.audit(|auditor| auditor.client_message(&caller(trader), &bytes));
            let (copies, due) = inner.fate(now);
            let decoded = ClientAuctionMessage::decode(bytes.as_slice()).ok();
            match (copies, decoded.map(stream::from_client_message)) {
                (Some(copies), Some(Ok(message))) => {
                    for _ in 0..copies {
                        inner.tell(due, TraderEvent::Said { trader, stream, message: message.clone() });
                    }
                    true
                }
                // The stream breaks, by chance or because the server can not read the message.
                (None, _) | (_, None | Some(Err(_))) => {
                    inner.streams.remove(&stream);
                    inner.tell(now, TraderEvent::Closed { trader, stream });
                    false
                }
            }
        })
    }

    /// Carries a message of the venue. False when the stream is gone.
    pub(crate) fn tell(&self, stream: StreamId, mut message: ServerMessage) -> bool {
        let now = self.clock.now();
        self.change(|inner| {
            if let Some(tamper) = inner.tamper {
                tamper(&mut message);
            }
            let Ok(encoded) = stream::to_server_message(&message) else { return false };
            let bytes = encoded.encode_to_vec();
            let (copies, due) = inner.fate(now);
            let Some(Stream { trader, ended: false, down }) = inner.streams.get_mut(&stream) else { return false };
            let due = down.back().map_or(due, |(last, _)| due.max(*last));
            match copies {
                Some(copies) => {
                    down.extend((0..copies).map(|_| (due, bytes.clone())));
                    true
                }
                None => {
                    let trader = *trader;
                    inner.streams.remove(&stream);
                    inner.tell(now, TraderEvent::Closed { trader, stream });
                    false
                }
            }
        })
    }

    /// The next message for a trader; an error when the stream is over.
    pub(crate) async fn hear(&self, stream: StreamId) -> Result<ServerMessage, LinkError> {
        let bytes = self
            .wait(|inner, now| match inner.streams.get_mut(&stream) {
                None => Next::Item(None),
                Some(stream) => match stream.down.front() {
                    Some((due, _)) if *due > now => Next::Later(*due),
                    Some(_) => Next::Item(stream.down.pop_front().map(|(_, bytes)| (stream.trader, bytes))),
                    None if stream.ended => Next::Item(None),
                    None => Next::Nothing,
                },
            })
            .await;
        let (trader, bytes) = bytes.ok_or_else(|| unreachable("the stream ended"))?;
        self.audit(|auditor| auditor.server_message(&caller(trader), &bytes));
        let bad = |reason: String| LinkError::BadAnswer { call: "SubscribeBatchAuction", reason };
        let message = ServerAuctionMessage::decode(bytes.as_slice()).map_err(|error| bad(error.to_string()))?;
        stream::from_server_message(message).map_err(|error| bad(error.to_string()))
    }

    /// The next event for the venue.
    pub(crate) async fn next_event(&self) -> TraderEvent {
        self.wait(|inner, now| match inner.up.front() {
            Some((due, _)) if *due > now => Next::Later(*due),
            Some(_) => inner.up.pop_front().map_or(Next::Nothing, |(_, event)| Next::Item(event)),
            None => Next::Nothing,
        })
        .await
    }

    /// Waits until a queue has something whose time has come. Giving up loses nothing.
    async fn wait<T>(&self, mut look: impl FnMut(&mut Inner, Timestamp) -> Next<T> + Send) -> T {
        let mut sleep: Option<(Timestamp, Nap<'_>)> = None;
        poll_fn(move |context| {
            loop {
                let next = {
                    let mut inner = self.lock();
                    let next = look(&mut inner, self.clock.now());
                    if !matches!(next, Next::Item(_)) && !inner.wakers.iter().any(|w| w.will_wake(context.waker())) {
                        inner.wakers.push(context.waker().clone());
                    }
                    next
                };
                match next {
                    Next::Item(item) => return Poll::Ready(item),
                    Next::Nothing => return Poll::Pending,
                    Next::Later(due) => {
                        if sleep.as_ref().is_none_or(|(at, _)| *at != due) {
                            sleep = Some((due, Box::pin(self.clock.sleep_until(due))));
                        }
                        match sleep.as_mut().map(|(_, sleep)| sleep.as_mut().poll(context)) {
                            Some(Poll::Ready(())) => sleep = None,
                            Some(Poll::Pending) | None => return Poll::Pending,
                        }
                    }
                }
            }
        })
        .await
    }
}

impl Inner {
    /// An event for the venue, not before those that are on their way.
    fn tell(&mut self, due: Timestamp, event: TraderEvent) {
        let due = self.up.back().map_or(due, |(last, _)| due.max(*last));
        self.up.push_back((due, event));
    }

    /// How many copies of a message arrive, and when; nothing when the stream breaks.
    fn fate(&mut self, now: Timestamp) -> (Option<usize>, Timestamp) {
        let rates = self.rates;
        let random = &mut self.random;
        let ms = if random.chance(rates.delay) { random.between(1, rates.max_delay_ms) } else { 0 };
        let copies = if random.chance(rates.cut) {
            None
        } else if random.chance(rates.drop) {
            Some(0)
        } else if random.chance(rates.repeat) {
            Some(2)
        } else {
            Some(1)
        };
        (copies, now.plus_ms(ms))
    }
}

/// The wire does not carry this.
pub(crate) fn unreachable(reason: &str) -> LinkError {
    LinkError::Unreachable { address: "venue".to_owned(), reason: reason.to_owned() }
}
