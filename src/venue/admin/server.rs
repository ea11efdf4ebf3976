//! The venue's end.

use super::paths;
use super::words::{
    BanRequest, BanTold, Bans, BumpRequest, Cleared, DepositRequest, DepositTold, Done, Offender, Payout, Refusal,
    VenueTold, WithdrawRequest,
};
use crate::api::HttpError;
use crate::runtime::Shutdown;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, TxOut};
use hex::DisplayHex as _;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_ports::NodeError;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};
use tidegate_venue::{Ban, Banned, Deposit, DepositState, Handle, OperatorWish, ServeClass, ServeError};
use tokio::net::TcpListener;

/// Largest request.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Longest ban by the operator: two years.
const MAX_BAN_BLOCKS: u32 = 105_120;
/// Highest chain fee rate that is taken for what somebody means: 2,000 sat per virtual byte.
const MAX_SAT_PER_KW: u64 = 500_000;

/// What the operator reaches through the door.
pub struct Admin {
    handle: Handle,
    network: Network,
    /// `Bearer` and the token.
    expected: String,
}

impl Admin {
    /// The door to this venue for whoever knows the token.
    pub fn new(handle: Handle, network: Network, token: [u8; 32]) -> Admin {
        Admin { handle, network, expected: format!("Bearer {}", token.to_lower_hex_string()) }
    }

    /// Compares without telling by its duration how much was right.
    fn is_open_to(&self, told: &[u8]) -> bool {
        let expected = self.expected.as_bytes();
        let differences = expected.iter().zip(told).fold(0, |sum, (left, right)| sum | (left ^ right));
        expected.len() == told.len() && differences == 0
    }
}

/// A bound listener that does not serve yet.
pub struct BoundAdmin {
    listener: TcpListener,
}

/// Binds, so that a port in use is found before anything else starts.
///
/// # Errors
/// [`HttpError`].
pub async fn bind_admin(address: SocketAddr) -> Result<BoundAdmin, HttpError> {
    let key = "api.admin_listen";
    let listener = TcpListener::bind(address).await.map_err(|source| HttpError { address, key, source })?;
    Ok(BoundAdmin { listener })
}

impl BoundAdmin {
    /// The address that was bound (its port may have been chosen by the system).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, admin: Admin, shutdown: Shutdown) -> std::io::Result<()> {
        let router = Router::new()
            .route(paths::STATUS, get(status))
            .route(paths::BANS, get(bans))
            .route(paths::BAN, post(ban))
            .route(paths::UNBAN, post(unban))
            .route(paths::DEPOSIT, post(deposit))
            .route(paths::WITHDRAW, post(withdraw))
            .route(paths::BUMP, post(bump))
            .route(paths::FORGET, post(forget))
            .route(paths::CLEAR, post(clear))
            .fallback(|_: Operator| async { Refused(StatusCode::NOT_FOUND, "there is no such call".to_owned()) })
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
            .with_state(Arc::new(admin));
        let stop = async move { shutdown.wanted().await };
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

/// Proof that the caller knows the token.
struct Operator;

impl FromRequestParts<Arc<Admin>> for Operator {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Operator, Refused> {
        match parts.headers.get(AUTHORIZATION) {
            Some(told) if admin.is_open_to(told.as_bytes()) => Ok(Operator),
            Some(_) | None => {
                let sentence = "this needs the header Authorization: Bearer TOKEN, with the token in admin.token of the \
                                venue's data folder";
                Err(Refused(StatusCode::UNAUTHORIZED, sentence.to_owned()))
            }
        }
    }
}

/// A refusal, as a sentence.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Refusal { error: self.1 })).into_response()
    }
}

impl From<ServeError> for Refused {
    fn from(error: ServeError) -> Refused {
        let code = match (&error, error.class()) {
            (ServeError::Node(NodeError::InsufficientFunds { .. } | NodeError::Permission { .. }), _) => {
                StatusCode::CONFLICT
            }
            (_, ServeClass::InvalidArgument) => StatusCode::BAD_REQUEST,
            (_, ServeClass::NotFound) => StatusCode::NOT_FOUND,
            (_, ServeClass::FailedPrecondition) => StatusCode::CONFLICT,
            (_, ServeClass::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            (_, ServeClass::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused(code, error.to_string())
    }
}

fn bad(sentence: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, sentence.into())
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the request is not understood: {error}")))
}

fn done(sentence: impl Into<String>) -> Json<Done> {
    Json(Done { done: sentence.into() })
}

type Answer<T> = Result<Json<T>, Refused>;

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn told(deposit: &Deposit) -> DepositTold {
    let state = match deposit.state {
        DepositState::Waiting => "waiting",
        DepositState::Confirmed => "confirmed",
        DepositState::Spent(_) => "spent",
        DepositState::Replaced => "replaced",
    };
    DepositTold { outpoint: deposit.outpoint.to_string(), value_sats: deposit.value.get(), state: state.to_owned() }
}

fn payout(output: &TxOut, network: Network) -> Payout {
    let address = Address::from_script(&output.script_pubkey, network);
    let address = address.map_or_else(|_| output.script_pubkey.to_hex_string(), |address| address.to_string());
    Payout { address, value_sats: output.value.to_sat() }
}

async fn status(_: Operator, State(admin): State<Arc<Admin>>) -> Answer<VenueTold> {
    let status = admin.handle.status().await?;
    Ok(Json(VenueTold {
        network: status.network,
        best_height: status.best_height.get(),
        next_batch: status.next_batch.to_string(),
        executing: status.executing,
        last_tick: status.last_tick.map(|tick| tick.reason.to_string()),
        traders: count(status.streams),
        open_asks: count(status.asks),
        open_bids: count(status.bids),
        batches: count(status.batches),
        unconfirmed_batches: count(status.unconfirmed),
        bans: count(status.banned),
        coin_sats: status.master.get(),
        deposits: status.deposits.iter().map(told).collect(),
        withdrawals: status.wish.withdrawals.iter().map(|output| payout(output, admin.network)).collect(),
        wished_sat_per_kw: status.wish.rate.map(SatPerKw::get),
    }))
}

async fn bans(_: Operator, State(admin): State<Arc<Admin>>) -> Answer<Bans> {
    let told = |ban: Ban| {
        let (account, node) = match ban.who {
            Banned::Account(key) => (Some(key.to_string()), None),
            Banned::Node(key) => (None, Some(key.to_string())),
        };
        BanTold { account, node, until_height: ban.until.get(), times: ban.count }
    };
    Ok(Json(Bans { bans: admin.handle.bans().await?.into_iter().map(told).collect() }))
}

fn offender(account: Option<&str>, node: Option<&str>) -> Result<Banned, Refused> {
    let not_a_key = |text: &str| bad(format!("{text:?} is not a key: write 66 hexadecimal digits"));
    match (account, node) {
        (Some(text), None) => text.parse().map(Banned::Account).map_err(|_| not_a_key(text)),
        (None, Some(text)) => text.parse().map(Banned::Node).map_err(|_| not_a_key(text)),
        (Some(_), Some(_)) | (None, None) => Err(bad("name either an account or a node")),
    }
}

async fn ban(_: Operator, State(admin): State<Arc<Admin>>, body: Bytes) -> Answer<Done> {
    let BanRequest { account, node, blocks } = read(&body)?;
    let who = offender(account.as_deref(), node.as_deref())?;
    if !(1..=MAX_BAN_BLOCKS).contains(&blocks) {
        return Err(bad(format!("a ban of {blocks} blocks is not possible: write 1 to {MAX_BAN_BLOCKS}")));
    }
    admin.handle.ban(who, Some(BlockCount::new(blocks))).await?;
    Ok(done(format!("banned for {blocks} blocks")))
}

async fn unban(_: Operator, State(admin): State<Arc<Admin>>, body: Bytes) -> Answer<Done> {
    let Offender { account, node } = read(&body)?;
    admin.handle.ban(offender(account.as_deref(), node.as_deref())?, None).await?;
    Ok(done("not banned any more"))
}

fn rate(sat_per_kw: u64) -> Result<SatPerKw, Refused> {
    let (least, most) = (SatPerKw::FLOOR.get(), MAX_SAT_PER_KW);
    if (least..=most).contains(&sat_per_kw) {
        Ok(SatPerKw::new(sat_per_kw))
    } else {
        Err(bad(format!("{sat_per_kw} sat/kW is no sensible fee rate: write {least} to {most}")))
    }
}

async fn deposit(_: Operator, State(admin): State<Arc<Admin>>, body: Bytes) -> Answer<DepositTold> {
    let DepositRequest { value_sats, sat_per_kw } = read(&body)?;
    let value = Sats::new(value_sats).map_err(|error| bad(error.to_string()))?;
    let rate = sat_per_kw.map(rate).transpose()?;
    Ok(Json(told(&admin.handle.deposit(value, rate).await?)))
}

/// What the operator wants so far, for a change of a part of it.
async fn wish(admin: &Admin) -> Result<OperatorWish, Refused> {
    Ok(admin.handle.status().await?.wish)
}

async fn withdraw(_: Operator, State(admin): State<Arc<Admin>>, body: Bytes) -> Answer<Done> {
    let WithdrawRequest { outputs } = read(&body)?;
    let mut withdrawals = Vec::new();
    for Payout { address, value_sats } in outputs {
        let parsed = address.parse::<Address<NetworkUnchecked>>().map_err(|error| error.to_string());
        let checked =
            parsed.and_then(|parsed| parsed.require_network(admin.network).map_err(|error| error.to_string()));
        let script_pubkey = checked
            .map_err(|error| bad(format!("{address:?} is not an address of this network: {error}")))?
            .script_pubkey();
        let value = Sats::new(value_sats).map_err(|error| bad(error.to_string()))?;
        withdrawals.push(TxOut { value: Amount::from(value), script_pubkey });
    }
    let found = withdrawals.len();
    let rate = wish(&admin).await?.rate;
    admin.handle.wish(OperatorWish { withdrawals, rate }).await?;
    Ok(done(format!("the next batch pays {found} outputs")))
}

async fn bump(_: Operator, State(admin): State<Arc<Admin>>, body: Bytes) -> Answer<Done> {
    let BumpRequest { sat_per_kw } = read(&body)?;
    let rate = rate(sat_per_kw)?;
    let withdrawals = wish(&admin).await?.withdrawals;
    admin.handle.wish(OperatorWish { withdrawals, rate: Some(rate) }).await?;
    Ok(done(format!("the next batch pays {rate}")))
}

async fn forget(_: Operator, State(admin): State<Arc<Admin>>) -> Answer<Done> {
    admin.handle.wish(OperatorWish::default()).await?;
    Ok(done("nothing is wanted of the next batch any more"))
}

async fn clear(_: Operator, State(admin): State<Arc<Admin>>) -> Answer<Cleared> {
    let outcome = admin.handle.tick().await.map_err(|_| Refused::from(ServeError::Gone))?;
    let batch = outcome.cleared.map(|batch| batch.to_string());
    Ok(Json(Cleared { batch, reason: outcome.reason.to_string(), cut: outcome.cut }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let config = tidegate_venue::VenueConfig::usual("regtest");
        let (handle, _) = tidegate_venue::venue(config);
        let admin = Admin::new(handle, Network::Regtest, [0xab; 32]);
        let right = format!("Bearer {}", "ab".repeat(32));
        assert!(admin.is_open_to(right.as_bytes()));
        let wrong = [String::new(), "ab".repeat(32), right[..70].to_owned(), format!("{right}a"), right.to_uppercase()];
        for text in wrong {
            assert!(!admin.is_open_to(text.as_bytes()), "{text}");
        }
    }
}
