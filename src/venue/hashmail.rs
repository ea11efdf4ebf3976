//! The venue's mailboxes: messages between the parties of a sidecar ticket, in memory, first come first served.
//!
//! Everything is bounded: boxes, messages in a box, their bytes, and their rate. A box that nobody used for a day goes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidegate_ports::{BoxId, BoxOwner};
use tidegate_venue::Handle;
use tidegate_wire::hashmail;
use tidegate_wire::poolrpc::hash_mail_server::HashMail;
use tidegate_wire::poolrpc::{CipherBox, CipherBoxAuth, CipherBoxDesc, CipherInitResp, DelCipherBoxResp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

/// Boxes at a time.
const BOXES: usize = 10_000;
/// Boxes of one account.
const BOXES_OF_ONE: usize = 100;
/// Messages that wait in a box.
const WAITING: usize = 20;
/// A box that was not used for this long goes.
const IDLE: Duration = Duration::from_secs(86_400);
/// One message per this time and box, after a burst.
const INTERVAL: Duration = Duration::from_millis(500);
/// Messages that may come at once.
const BURST: u32 = 10;

/// A mailbox.
struct Mailbox {
    owner: BoxOwner,
    messages: VecDeque<Vec<u8>>,
    arrived: Arc<Notify>,
    reading: bool,
    writing: bool,
    used: Instant,
    /// When the allowance of messages is full again.
    full_at: Instant,
}

/// All mailboxes, behind gRPC.
#[derive(Clone)]
pub(super) struct Mailboxes {
    handle: Handle,
    boxes: Arc<Mutex<HashMap<BoxId, Mailbox>>>,
}

/// One end of a mailbox; lets go of it when dropped.
struct End {
    boxes: Mailboxes,
    id: BoxId,
    writes: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(mailbox) = self.boxes.all().get_mut(&self.id) {
            *(if self.writes { &mut mailbox.writing } else { &mut mailbox.reading }) = false;
        }
    }
}

/// How long a message waits that moved the time at which the allowance is full again to `full_at`.
fn pause(full_at: Instant, now: Instant) -> Duration {
    full_at.saturating_duration_since(now).saturating_sub(INTERVAL * BURST)
}

fn unknown() -> Status {
    Status::not_found("there is no such mailbox")
}

impl Mailboxes {
    pub(super) fn new(handle: Handle) -> Mailboxes {
        Mailboxes { handle, boxes: Arc::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<BoxId, Mailbox>> {
        // A panic while the map was held leaves it whole: every change is one step.
        self.boxes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn open(&self, id: BoxId, owner: BoxOwner, now: Instant) -> Result<(), Status> {
        let mut boxes = self.all();
        boxes.retain(|_, mailbox| mailbox.reading || mailbox.writing || now.duration_since(mailbox.used) < IDLE);
        if boxes.contains_key(&id) {
            return Err(Status::already_exists("the mailbox exists already"));
        }
        let of_owner = boxes.values().filter(|mailbox| mailbox.owner.account() == owner.account()).count();
        if boxes.len() >= BOXES || of_owner >= BOXES_OF_ONE {
            return Err(Status::resource_exhausted("too many mailboxes, try again later"));
        }
        let mailbox = Mailbox {
            owner,
            messages: VecDeque::new(),
            arrived: Arc::default(),
            reading: false,
            writing: false,
            used: now,
            full_at: now,
        };
        boxes.insert(id, mailbox);
        Ok(())
    }

    fn delete(&self, id: BoxId, owner: BoxOwner) -> Result<(), Status> {
        let mut boxes = self.all();
        match boxes.get(&id) {
            None => Err(unknown()),
            Some(mailbox) if mailbox.owner != owner => {
                Err(Status::permission_denied("the mailbox was opened by somebody else"))
            }
            Some(mailbox) => {
                // Remembered until the reader looks, unlike a call to those who wait at this moment.
                mailbox.arrived.notify_one();
                boxes.remove(&id);
                Ok(())
            }
        }
    }

    /// Takes one end of a box: each has one holder at a time.
    fn take(&self, id: BoxId, writes: bool) -> Result<End, Status> {
        let mut boxes = self.all();
        let mailbox = boxes.get_mut(&id).ok_or_else(unknown)?;
        let taken = if writes { &mut mailbox.writing } else { &mut mailbox.reading };
        if core::mem::replace(taken, true) {
            return Err(Status::failed_precondition("the mailbox is in use on this side"));
        }
        Ok(End { boxes: self.clone(), id, writes })
    }
}

impl End {
    /// Puts a message in, when the allowance is spent as late as it permits.
    async fn put(&self, message: Vec<u8>) -> Result<(), Status> {
        let now = Instant::now();
        let pause = {
            let mut boxes = self.boxes.all();
            let mailbox = boxes.get_mut(&self.id).ok_or_else(unknown)?;
            mailbox.full_at = mailbox.full_at.max(now) + INTERVAL;
            pause(mailbox.full_at, now)
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.push(message)
    }

    fn push(&self, message: Vec<u8>) -> Result<(), Status> {
        let mut boxes = self.boxes.all();
        let mailbox = boxes.get_mut(&self.id).ok_or_else(unknown)?;
        if mailbox.messages.len() >= WAITING {
            return Err(Status::resource_exhausted("the mailbox is full: nobody reads it"));
        }
        mailbox.messages.push_back(message);
        mailbox.used = Instant::now();
        mailbox.arrived.notify_one();
        Ok(())
    }

    /// The next message, once there is one.
    async fn get(&self) -> Result<Vec<u8>, Status> {
        loop {
            let arrived = {
                let mut boxes = self.boxes.all();
                let mailbox = boxes.get_mut(&self.id).ok_or_else(unknown)?;
                if let Some(message) = mailbox.messages.pop_front() {
                    mailbox.used = Instant::now();
                    return Ok(message);
                }
                Arc::clone(&mailbox.arrived)
            };
            arrived.notified().await;
        }
    }
}

#[tonic::async_trait]
impl HashMail for Mailboxes {
    async fn new_cipher_box(&self, request: Request<CipherBoxAuth>) -> Result<Response<CipherInitResp>, Status> {
        let (id, claim) = hashmail::from_auth(request.into_inner()).map_err(super::server::malformed)?;
        let owner = self.handle.box_owner(id, claim).await.map_err(super::server::refuse)?;
        self.open(id, owner, Instant::now())?;
        Ok(Response::new(hashmail::to_opened(id)))
    }

    async fn del_cipher_box(&self, request: Request<CipherBoxAuth>) -> Result<Response<DelCipherBoxResp>, Status> {
        let (id, claim) = hashmail::from_auth(request.into_inner()).map_err(super::server::malformed)?;
        let owner = self.handle.box_owner(id, claim).await.map_err(super::server::refuse)?;
        self.delete(id, owner)?;
        Ok(Response::new(DelCipherBoxResp::default()))
    }

    async fn send_stream(&self, request: Request<Streaming<CipherBox>>) -> Result<Response<CipherBoxDesc>, Status> {
        let mut incoming = request.into_inner();
        let mut end: Option<End> = None;
        while let Some(mail) = incoming.next().await {
            let (id, message) = hashmail::from_mail(mail?).map_err(super::server::malformed)?;
            let taken = match end.take() {
                Some(taken) => taken,
                None => {
                    self.take(id.ok_or_else(|| Status::invalid_argument("the first message names the mailbox"))?, true)?
                }
            };
            taken.put(message).await?;
            end = Some(taken);
        }
        match end {
            Some(end) => Ok(Response::new(hashmail::to_desc(end.id))),
            None => Err(Status::invalid_argument("the first message names the mailbox")),
        }
    }

    async fn recv_stream(
        &self,
        request: Request<CipherBoxDesc>,
    ) -> Result<Response<tonic::codegen::BoxStream<CipherBox>>, Status> {
        let id = hashmail::from_desc("CipherBoxDesc", Some(request.get_ref())).map_err(super::server::malformed)?;
        let end = self.take(id, false)?;
        let messages = futures_util::stream::unfold(Some(end), |end| async move {
            let end = end?;
            match end.get().await {
                Ok(message) => Some((Ok(hashmail::to_mail(end.id, message)), Some(end))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocol::keys::AccountKey;

    fn mailboxes() -> (Mailboxes, BoxOwner) {
        let (handle, _venue) = tidegate_venue::venue(tidegate_venue::VenueConfig::usual("regtest"));
        let key = "02824d0cbac65e01712124c50ff2cc74ce22851d7b444c1bf2ae66afefb8eaf27f";
        (Mailboxes::new(handle), BoxOwner::Account(key.parse::<AccountKey>().expect("a key")))
    }

    const ID: BoxId = BoxId([7; 64]);

    #[tokio::test]
    async fn messages_arrive_in_order_and_wait_for_their_reader() {
        let (boxes, owner) = mailboxes();
        assert_eq!(boxes.take(ID, true).err().map(|status| status.code()), Some(tonic::Code::NotFound));
        boxes.open(ID, owner, Instant::now()).expect("new");
        let again = boxes.open(ID, owner, Instant::now()).expect_err("exists");
        assert_eq!(again.code(), tonic::Code::AlreadyExists);
        let writer = boxes.take(ID, true).expect("free");
        assert!(boxes.take(ID, true).is_err(), "one writer");
        for number in 0..3 {
            writer.put(vec![number]).await.expect("taken");
        }
        let reader = boxes.take(ID, false).expect("free");
        assert!(boxes.take(ID, false).is_err(), "one reader");
        for number in 0..3 {
            assert_eq!(reader.get().await.expect("there"), vec![number]);
        }
        // A reader waits for what comes; an end is free again when its holder is gone.
        let (late, ()) = tokio::join!(reader.get(), async { writer.put(vec![9]).await.expect("taken") });
        assert_eq!(late.expect("there"), vec![9]);
        drop((reader, writer));
        assert!(boxes.take(ID, true).is_ok() && boxes.take(ID, false).is_ok());
    }

    #[test]
    fn after_a_burst_of_ten_a_message_passes_every_half_second() {
        let now = Instant::now();
        let mut full_at = now;
        let mut pauses = Vec::new();
        for _ in 0..13 {
            full_at += INTERVAL;
            pauses.push(pause(full_at, now));
        }
        assert!(pauses[..10].iter().all(Duration::is_zero));
        assert_eq!(pauses[10..], [INTERVAL, INTERVAL * 2, INTERVAL * 3]);
        assert_eq!(pause(full_at, now + INTERVAL * 13), Duration::ZERO, "the allowance comes back");
    }

    #[test]
    fn a_box_that_nobody_reads_fills_and_goes_after_a_day() {
        let (boxes, owner) = mailboxes();
        let now = Instant::now();
        boxes.open(ID, owner, now).expect("new");
        let writer = boxes.take(ID, true).expect("free");
        for _ in 0..WAITING {
            writer.push(Vec::new()).expect("taken");
        }
        assert_eq!(writer.push(Vec::new()).expect_err("full").code(), tonic::Code::ResourceExhausted);
        drop(writer);
        boxes.open(BoxId([8; 64]), owner, now + IDLE / 2).expect("new");
        assert!(boxes.take(ID, false).is_ok(), "not yet");
        boxes.open(BoxId([9; 64]), owner, now + IDLE * 2).expect("new");
        assert!(boxes.take(ID, false).is_err(), "swept");
    }

    #[tokio::test]
    async fn only_its_owner_deletes_a_box_and_a_waiting_reader_is_told() {
        let (boxes, owner) = mailboxes();
        boxes.open(ID, owner, Instant::now()).expect("new");
        let reader = boxes.take(ID, false).expect("free");
        let stranger = match owner {
            BoxOwner::Account(key) | BoxOwner::Ticket(key) => BoxOwner::Ticket(key),
        };
        assert_eq!(boxes.delete(ID, stranger).expect_err("not its own").code(), tonic::Code::PermissionDenied);
        let (told, deleted) = tokio::join!(reader.get(), async { boxes.delete(ID, owner) });
        deleted.expect("deleted");
        assert_eq!(told.expect_err("gone").code(), tonic::Code::NotFound);
    }
}
