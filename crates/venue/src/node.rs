//! The venue's node with a bounded patience: whoever waits for an answer gets one, if only that there is none.

use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction};
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicU64, Ordering};
use futures_util::{FutureExt, select_biased};
use std::sync::Arc;
use tidegate_ports::{
    AddressKind, Chain, Clock, CoinLock, FundedPsbt, Musig2Request, NodeError, SessionId, SignInput, Signer, Timestamp,
    VenueEnv, Wallet, Watch,
};
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, SharedSecret};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::units::{BlockHeight, SatPerKw};
use tracing::warn;

/// How long one call may take, in milliseconds.
pub(crate) const PATIENCE_MS: u64 = 10_000;
/// After a call that took longer, all others fail at once for this time, in milliseconds: a node that hangs would else
/// cost its patience call by call.
pub(crate) const RESPITE_MS: u64 = 20_000;

/// The node's ports. A call that takes too long fails as [`NodeError::NotReady`]; its effect is unknown. Clones share
/// what they learn.
#[derive(Debug)]
pub(crate) struct Node<'e, E> {
    env: &'e E,
    /// Until when no call is tried.
    hung_until_ms: Arc<AtomicU64>,
}

impl<E> Clone for Node<'_, E> {
    fn clone(&self) -> Self {
        Node { env: self.env, hung_until_ms: Arc::clone(&self.hung_until_ms) }
    }
}

impl<'e, E: VenueEnv> Node<'e, E> {
    pub(crate) fn new(env: &'e E) -> Node<'e, E> {
        Node { env, hung_until_ms: Arc::default() }
    }

    async fn bounded<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, NodeError>>,
    ) -> Result<T, NodeError> {
        let now = self.env.clock().now();
        if now < Timestamp(self.hung_until_ms.load(Ordering::Relaxed)) {
            return Err(NodeError::NotReady {
                reason: format!("it did not answer a moment ago, {call} was not tried"),
            });
        }
        let mut sleep = pin!(self.env.clock().sleep_until(now.plus_ms(PATIENCE_MS)).fuse());
        let mut future = pin!(future.fuse());
        select_biased! {
            answer = future => answer,
            () = sleep => {
                let until = self.env.clock().now().plus_ms(RESPITE_MS);
                self.hung_until_ms.store(until.0, Ordering::Relaxed);
                warn!(call, "the node hangs");
                Err(NodeError::NotReady { reason: format!("{call} took longer than {} seconds", PATIENCE_MS / 1000) })
            }
        }
    }

    pub(crate) async fn estimate_fee(&self, conf_target: u32) -> Result<SatPerKw, NodeError> {
        self.bounded("estimate_fee", self.env.wallet().estimate_fee(conf_target)).await
    }

    pub(crate) async fn new_address(&self) -> Result<ScriptBuf, NodeError> {
        self.bounded("new_address", self.env.wallet().new_address(AddressKind::Taproot)).await
    }

    pub(crate) async fn fund_psbt(&self, template: &Psbt, sat_per_vbyte: u64) -> Result<FundedPsbt, NodeError> {
        self.bounded("fund_psbt", self.env.wallet().fund_psbt(template, sat_per_vbyte)).await
    }

    pub(crate) async fn finalize_psbt(&self, psbt: &Psbt) -> Result<Transaction, NodeError> {
        self.bounded("finalize_psbt", self.env.wallet().finalize_psbt(psbt)).await
    }

    pub(crate) async fn release(&self, lock: &CoinLock) -> Result<(), NodeError> {
        self.bounded("release", self.env.wallet().release(lock)).await
    }

    pub(crate) async fn publish(&self, transaction: &Transaction, label: &str) -> Result<(), NodeError> {
        self.bounded("publish", self.env.wallet().publish(transaction, label)).await
    }

    pub(crate) async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        self.bounded("best_height", self.env.chain().best_height()).await
    }

    pub(crate) async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        self.bounded("watch", self.env.chain().watch(name, watch)).await
    }

    pub(crate) async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.bounded("unwatch", self.env.chain().unwatch(name)).await
    }
}

/// A watch and its name.
pub(crate) type Watched = (String, Watch);

/// Sets watches, up to the first that fails.
pub(crate) async fn set<E: VenueEnv>(node: &Node<'_, E>, watches: &[Watched]) -> Result<(), NodeError> {
    for (name, watch) in watches {
        node.watch(name, watch.clone()).await?;
    }
    Ok(())
}

impl<E: VenueEnv> Signer for Node<'_, E> {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        self.bounded("derive_next_key", self.env.signer().derive_next_key(family)).await
    }

    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        self.bounded("derive_key", self.env.signer().derive_key(locator)).await
    }

    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        self.bounded("shared_secret", self.env.signer().shared_secret(other, locator)).await
    }

    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        self.bounded("sign_message", self.env.signer().sign_message(message, locator)).await
    }

    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        self.bounded("sign_input", self.env.signer().sign_input(request)).await
    }

    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        self.bounded("musig2_begin", self.env.signer().musig2_begin(request)).await
    }

    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        self.bounded("musig2_register", self.env.signer().musig2_register(session, other)).await
    }

    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        self.bounded("musig2_sign", self.env.signer().musig2_sign(session, message, last)).await
    }

    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.bounded("musig2_combine", self.env.signer().musig2_combine(session, other)).await
    }

    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.bounded("musig2_cleanup", self.env.signer().musig2_cleanup(session)).await
    }
}
