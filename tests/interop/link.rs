//! The way from a venue to its node. It passes bytes on; a case may hold up what is said to the node, and lose it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::failure::{Context, Outcome};

/// For how long each word to the node is held up: far longer than it takes to see another program's message and to
/// kill its sender.
const HOLD: Duration = Duration::from_millis(500);

/// A relay on loopback in front of a node. It ends with the test process.
#[derive(Clone)]
pub(crate) struct NodeLink {
    address: String,
    slow: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
}

impl NodeLink {
    /// Starts a relay to `node`, `host:port`.
    pub(crate) fn start(node: String) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context(|| "bind a relay".to_owned())?;
        let address = listener.local_addr().context(|| "address of a relay".to_owned())?.to_string();
        let link = Self { address, slow: Arc::default(), lost: Arc::default() };
        let relay = link.clone();
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                if let Ok(node) = TcpStream::connect(&node) {
                    relay.join(caller, node);
                }
            }
        });
        Ok(link)
    }

    /// Where the relay listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on each word to the node arrives late.
    pub(crate) fn slow_down(&self) {
        self.slow.store(true, Ordering::SeqCst);
    }

    /// What has not reached the node never will.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// As at the beginning, for new connections.
    pub(crate) fn mend(&self) {
        self.slow.store(false, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
    }

    fn join(&self, caller: TcpStream, node: TcpStream) {
        let (Ok(from_node), Ok(to_caller)) = (node.try_clone(), caller.try_clone()) else { return };
        let link = self.clone();
        thread::spawn(move || link.pass(caller, node, true));
        let link = self.clone();
        thread::spawn(move || link.pass(from_node, to_caller, false));
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, to_node: bool) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer) {
            if to_node && self.slow.load(Ordering::SeqCst) {
                thread::sleep(HOLD);
            }
            if count == 0 || to_node && self.lost.load(Ordering::SeqCst) || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Either end may be gone already.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
