//! The venue's mailboxes: who may open and close one, and what goes through.
//!
//! # Source
//! Protocol notes, rpc §11.

use crate::error::DecodeError;
use crate::poolrpc;
use crate::read;
use tidegate_ports::{BoxClaim, BoxId};
use tidegate_protocol::keys::AccountKey;

/// Bytes of one message: a ticket has a few hundred.
pub const MAX_MAIL_BYTES: usize = 16 * 1024;

/// A mailbox, and why the caller may open or close it.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning.
pub fn from_auth(request: poolrpc::CipherBoxAuth) -> Result<(BoxId, BoxClaim), DecodeError> {
    use poolrpc::cipher_box_auth::Auth;
    let id = from_desc("CipherBoxAuth.desc", request.desc.as_ref())?;
    let claim = match read::required("CipherBoxAuth.auth", request.auth)? {
        Auth::AcctAuth(auth) => BoxClaim::Account {
            account: read::key("PoolAccountAuth.acct_key", &auth.acct_key, AccountKey::from_slice)?,
            signature: read::signature("PoolAccountAuth.stream_sig", auth.stream_sig)?,
        },
        Auth::SidecarAuth(auth) => match auth.ticket.parse() {
            Ok(ticket) => BoxClaim::Ticket(Box::new(ticket)),
            Err(_) => return Err(DecodeError::Unsupported { what: "this text as a sidecar ticket" }),
        },
    };
    Ok((id, claim))
}

/// A mailbox by its 64 bytes.
///
/// # Errors
/// [`DecodeError`] when it is missing or has another length.
pub fn from_desc(field: &'static str, desc: Option<&poolrpc::CipherBoxDesc>) -> Result<BoxId, DecodeError> {
    let desc = desc.ok_or(DecodeError::Missing { field })?;
    read::fixed(field, &desc.stream_id).map(BoxId)
}

/// One message and, in the first of a stream, its mailbox.
///
/// # Errors
/// [`DecodeError`] for another length of the name, or a message that is too long.
pub fn from_mail(mail: poolrpc::CipherBox) -> Result<(Option<BoxId>, Vec<u8>), DecodeError> {
    read::at_most("CipherBox.msg", mail.msg.len(), MAX_MAIL_BYTES)?;
    let id = mail.desc.as_ref().map(|desc| from_desc("CipherBox.desc", Some(desc))).transpose()?;
    Ok((id, mail.msg))
}

/// One message as it is handed on.
pub fn to_mail(id: BoxId, message: Vec<u8>) -> poolrpc::CipherBox {
    poolrpc::CipherBox { desc: Some(to_desc(id)), msg: message }
}

/// The name of a mailbox.
pub fn to_desc(id: BoxId) -> poolrpc::CipherBoxDesc {
    poolrpc::CipherBoxDesc { stream_id: id.0.to_vec() }
}

/// A mailbox was opened.
pub fn to_opened(id: BoxId) -> poolrpc::CipherInitResp {
    use poolrpc::cipher_init_resp::Resp;
    poolrpc::CipherInitResp { resp: Some(Resp::Success(poolrpc::CipherSuccess { desc: Some(to_desc(id)) })) }
}
