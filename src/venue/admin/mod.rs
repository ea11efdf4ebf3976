//! The operator's door to a venue: HTTP with JSON on loopback, behind a token that lies in the data folder.
//!
//! Every request needs `Authorization: Bearer TOKEN`. A refusal is an object with one sentence, `{"error": "…"}`.

mod client;
mod server;
mod words;

pub use client::{AdminClient, AdminError};
pub use server::{Admin, BoundAdmin, bind_admin};
pub use words::{
    BanRequest, BanTold, Bans, BumpRequest, Cleared, DepositRequest, DepositTold, Done, Offender, Payout, VenueTold,
    WithdrawRequest,
};

/// Name of the file in the data folder that holds the token.
pub const TOKEN_FILE: &str = "admin.token";

/// Paths, below which everything is.
pub mod paths {
    /// GET: [`super::VenueTold`].
    pub const STATUS: &str = "/v1/admin/status";
    /// GET: [`super::Bans`].
    pub const BANS: &str = "/v1/admin/bans";
    /// POST [`super::BanRequest`]: [`super::Done`].
    pub const BAN: &str = "/v1/admin/ban";
    /// POST [`super::Offender`]: [`super::Done`].
    pub const UNBAN: &str = "/v1/admin/unban";
    /// POST [`super::DepositRequest`]: [`super::DepositTold`].
    pub const DEPOSIT: &str = "/v1/admin/deposit";
    /// POST [`super::WithdrawRequest`]: [`super::Done`].
    pub const WITHDRAW: &str = "/v1/admin/withdraw";
    /// POST [`super::BumpRequest`]: [`super::Done`].
    pub const BUMP: &str = "/v1/admin/bump";
    /// POST, without content: [`super::Done`].
    pub const FORGET: &str = "/v1/admin/forget-wish";
    /// POST, without content: [`super::Cleared`].
    pub const CLEAR: &str = "/v1/admin/clear";
}
