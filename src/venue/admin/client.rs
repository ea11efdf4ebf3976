//! The operator's end: one request per connection.

use super::words::Refusal;
use core::time::Duration;
use hex::DisplayHex as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::net::SocketAddr;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for an answer: an attempt to clear may be repeated ten times, and each of its steps takes half a minute.
const ANSWER_LIMIT: Duration = Duration::from_secs(900);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// A call to the venue that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdminError {
    /// Nobody there; nothing was asked.
    #[error("the venue at {address} can not be reached: {reason}. Does it run, with admin_listen at this address?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The venue refused; nothing was done.
    #[error("{reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// The request left, and no answer can be understood: it may have been done.
    #[error("whether it was done is not known: {reason}. Look at `tidegate venue-ctl status`")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// A client of one venue.
#[derive(Clone)]
pub struct AdminClient {
    address: SocketAddr,
    token: [u8; 32],
}

impl core::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AdminClient({}, secret)", self.address)
    }
}

fn unknown(reason: impl ToString) -> AdminError {
    AdminError::Unknown { reason: reason.to_string() }
}

impl AdminClient {
    /// A client of the venue that listens there.
    pub fn new(address: SocketAddr, token: [u8; 32]) -> AdminClient {
        AdminClient { address, token }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`AdminError`] by variant.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.call("GET", path, "").await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// [`AdminError`] by variant.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, AdminError> {
        let body = serde_json::to_string(body).map_err(unknown)?;
        self.call("POST", path, &body).await
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> Result<T, AdminError> {
        let unreachable = |reason: String| AdminError::Unreachable { address: self.address, reason };
        let stream = match timeout(CONNECT_LIMIT, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("no connection in time".to_owned())),
        };
        let (address, token, length) = (self.address, self.token.to_lower_hex_string(), body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = timeout(ANSWER_LIMIT, exchange(&stream, request.as_bytes()))
            .await
            .map_err(|_| unknown("no answer in time"))?;
        let (status, content) = parse(&answer.map_err(unknown)?)?;
        if status == 200 {
            return serde_json::from_slice(&content).map_err(unknown);
        }
        let reason = serde_json::from_slice::<Refusal>(&content)
            .map_or_else(|_| format!("the venue answers with status {status}"), |refusal| refusal.error);
        Err(AdminError::Refused { status, reason })
    }
}

/// Sends everything, then reads until the other side is done.
async fn exchange(stream: &TcpStream, mut request: &[u8]) -> std::io::Result<Vec<u8>> {
    while !request.is_empty() {
        stream.writable().await?;
        match stream.try_write(request) {
            Ok(sent) => request = request.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
    while answer.len() <= MAX_ANSWER_BYTES {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend(buffer.iter().take(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("the answer is too large"))
}

/// Status and content of an answer whose end is the end of the connection.
fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>), AdminError> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| unknown("the answer is cut"))?;
    let (head, content) = (&answer[..end], &answer[end + 4..]);
    let head = core::str::from_utf8(head).map_err(unknown)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| unknown("the answer is not HTTP"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if length != content.len() => Err(unknown("the answer is cut")),
        Some(_) | None => Ok((status, content.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart_and_cut_ones_are_found() {
        let parsed = |text: &str| parse(text.as_bytes());
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parsed(whole), Ok((200, b"{}".to_vec())));
        assert_eq!(parsed("HTTP/1.1 404 Not Found\r\n\r\n"), Ok((404, Vec::new())));
        for cut in ["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n"] {
            assert!(matches!(parsed(cut), Err(AdminError::Unknown { .. })), "{cut:?}");
        }
    }
}
