//! What the daemon may ask of lnd, call by call.
//!
//! One list per role serves three purposes: the `lncli bakemacaroon` command for the operator, the check at start,
//! and a gate in front of the connection that refuses any other call, even where the macaroon would allow it.

use std::path::Path;

/// For whom the daemon works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Buys and sells leases: accounts, signatures, channels.
    Trader,
    /// Runs an auction: signatures and chain; it can not touch channels, and spends the wallet's coins only for deposits of
    /// its operator, when the macaroon says so ([`deposit_permissions`]).
    Venue,
}

impl Role {
    /// The role as the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Trader => "trader",
            Role::Venue => "venue",
        }
    }
}

/// Methods that both roles call.
const COMMON: &[&str] = &[
    CHECK_PERMISSIONS,
    GET_INFO,
    GET_VERSION,
    DERIVE_KEY,
    NEXT_ADDR,
    ESTIMATE_FEE,
    PUBLISH_TRANSACTION,
    SIGN_OUTPUT_RAW,
    DERIVE_SHARED_KEY,
    MUSIG2_CREATE_SESSION,
    MUSIG2_REGISTER_NONCES,
    MUSIG2_SIGN,
    MUSIG2_COMBINE_SIG,
    MUSIG2_CLEANUP,
    REGISTER_CONFIRMATIONS,
    REGISTER_SPEND,
    REGISTER_BLOCKS,
];

/// Methods that only a trader calls: its wallet pays for accounts, its account keys sign orders, it has channels.
const TRADER: &[&str] = &[
    GET_TRANSACTIONS,
    WALLET_BALANCE,
    ESTIMATE_PAYMENT,
    SEND_OUTPUTS,
    FUND_PSBT,
    FINALIZE_PSBT,
    RELEASE_OUTPUT,
    BUMP_FEE,
    DERIVE_NEXT_KEY,
    SIGN_MESSAGE,
    LIST_CHANNELS,
    PENDING_CHANNELS,
    CONNECT_PEER,
    LIST_PEERS,
    SUBSCRIBE_PEER_EVENTS,
    SUBSCRIBE_CHANNEL_EVENTS,
    OPEN_CHANNEL,
    FUNDING_STATE_STEP,
    ABANDON_CHANNEL,
    CHANNEL_ACCEPTOR,
    EXPORT_CHANNEL_BACKUP,
];

/// Methods by which a venue pays deposits of its operator from the wallet. They are not needed for anything else, so the
/// usual macaroon does not allow them.
const DEPOSITS: &[&str] = &[FUND_PSBT, FINALIZE_PSBT, RELEASE_OUTPUT];

macro_rules! methods {
    ($($name:ident = $path:literal;)*) => {
        $(pub(super) const $name: &str = $path;)*
    };
}

methods! {
    CHECK_PERMISSIONS = "/lnrpc.Lightning/CheckMacaroonPermissions";
    GET_INFO = "/lnrpc.Lightning/GetInfo";
    GET_TRANSACTIONS = "/lnrpc.Lightning/GetTransactions";
    WALLET_BALANCE = "/lnrpc.Lightning/WalletBalance";
    ESTIMATE_PAYMENT = "/lnrpc.Lightning/EstimateFee";
    LIST_CHANNELS = "/lnrpc.Lightning/ListChannels";
    PENDING_CHANNELS = "/lnrpc.Lightning/PendingChannels";
    CONNECT_PEER = "/lnrpc.Lightning/ConnectPeer";
    LIST_PEERS = "/lnrpc.Lightning/ListPeers";
    SUBSCRIBE_PEER_EVENTS = "/lnrpc.Lightning/SubscribePeerEvents";
    SUBSCRIBE_CHANNEL_EVENTS = "/lnrpc.Lightning/SubscribeChannelEvents";
    OPEN_CHANNEL = "/lnrpc.Lightning/OpenChannel";
    FUNDING_STATE_STEP = "/lnrpc.Lightning/FundingStateStep";
    ABANDON_CHANNEL = "/lnrpc.Lightning/AbandonChannel";
    CHANNEL_ACCEPTOR = "/lnrpc.Lightning/ChannelAcceptor";
    EXPORT_CHANNEL_BACKUP = "/lnrpc.Lightning/ExportChannelBackup";
    GET_STATE = "/lnrpc.State/GetState";
    GET_VERSION = "/verrpc.Versioner/GetVersion";
    DERIVE_KEY = "/walletrpc.WalletKit/DeriveKey";
    DERIVE_NEXT_KEY = "/walletrpc.WalletKit/DeriveNextKey";
    NEXT_ADDR = "/walletrpc.WalletKit/NextAddr";
    ESTIMATE_FEE = "/walletrpc.WalletKit/EstimateFee";
    SEND_OUTPUTS = "/walletrpc.WalletKit/SendOutputs";
    PUBLISH_TRANSACTION = "/walletrpc.WalletKit/PublishTransaction";
    FUND_PSBT = "/walletrpc.WalletKit/FundPsbt";
    FINALIZE_PSBT = "/walletrpc.WalletKit/FinalizePsbt";
    RELEASE_OUTPUT = "/walletrpc.WalletKit/ReleaseOutput";
    BUMP_FEE = "/walletrpc.WalletKit/BumpFee";
    SIGN_MESSAGE = "/signrpc.Signer/SignMessage";
    SIGN_OUTPUT_RAW = "/signrpc.Signer/SignOutputRaw";
    DERIVE_SHARED_KEY = "/signrpc.Signer/DeriveSharedKey";
    MUSIG2_CREATE_SESSION = "/signrpc.Signer/MuSig2CreateSession";
    MUSIG2_REGISTER_NONCES = "/signrpc.Signer/MuSig2RegisterNonces";
    MUSIG2_SIGN = "/signrpc.Signer/MuSig2Sign";
    MUSIG2_COMBINE_SIG = "/signrpc.Signer/MuSig2CombineSig";
    MUSIG2_CLEANUP = "/signrpc.Signer/MuSig2Cleanup";
    REGISTER_CONFIRMATIONS = "/chainrpc.ChainNotifier/RegisterConfirmationsNtfn";
    REGISTER_SPEND = "/chainrpc.ChainNotifier/RegisterSpendNtfn";
    REGISTER_BLOCKS = "/chainrpc.ChainNotifier/RegisterBlockEpochNtfn";
}

/// Full names of the methods that the role calls with its macaroon, e.g. `/lnrpc.Lightning/GetInfo`.
///
/// `State.GetState` is called too; lnd answers it without a macaroon.
///
/// # Source
/// Protocol notes, accounts §13, as far as this program makes these calls.
pub fn methods(role: Role) -> Vec<&'static str> {
    let own: &[&str] = match role {
        Role::Trader => TRADER,
        Role::Venue => &[],
    };
    COMMON.iter().chain(own).copied().collect()
}

/// The same as macaroon permissions, e.g. `uri:/lnrpc.Lightning/GetInfo`.
pub fn permissions(role: Role) -> Vec<String> {
    methods(role).iter().map(|method| format!("uri:{method}")).collect()
}

/// What a venue's macaroon must allow besides, so that its operator may deposit coins of the node's wallet.
pub fn deposit_permissions() -> Vec<String> {
    DEPOSITS.iter().map(|method| format!("uri:{method}")).collect()
}

/// The shell command that makes a macaroon with exactly these permissions, in the file `tidegate-ROLE.macaroon` of the
/// current folder, for a node on mainnet.
pub fn bake_command(role: Role) -> String {
    bake_command_for(role, None, Path::new(&format!("tidegate-{}.macaroon", role.name())))
}

/// As [`bake_command`], into the file `save_to` and for a network as lnd names it; nothing means lncli's default,
/// mainnet.
pub fn bake_command_for(role: Role, network: Option<&str>, save_to: &Path) -> String {
    let network = network.map(|name| format!(" --network={}", shell_quoted(name))).unwrap_or_default();
    let file = shell_quoted(&save_to.display().to_string());
    let mut command = format!("lncli{network} bakemacaroon --save_to={file}");
    for permission in permissions(role) {
        command.push_str(" \\\n  ");
        command.push_str(&permission);
    }
    command
}

/// Whether the role may make this call.
pub(super) fn allowed(role: Role, method: &str) -> bool {
    let own = match role {
        Role::Trader => TRADER,
        Role::Venue => DEPOSITS,
    };
    method == GET_STATE || COMMON.contains(&method) || own.contains(&method)
}

fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_may_close_channels_or_pay() {
        for role in [Role::Trader, Role::Venue] {
            for method in
                ["/lnrpc.Lightning/CloseChannel", "/routerrpc.Router/SendPaymentV2", "/lnrpc.Lightning/SendCoins"]
            {
                assert!(!allowed(role, method), "{role:?} {method}");
            }
        }
        assert!(allowed(Role::Trader, OPEN_CHANNEL) && !allowed(Role::Venue, OPEN_CHANNEL));
        assert!(!allowed(Role::Venue, SEND_OUTPUTS), "a deposit is stored before it is published");
        for method in DEPOSITS {
            assert!(
                allowed(Role::Venue, method) && !methods(Role::Venue).contains(method),
                "on request only: {method}"
            );
        }
    }

    #[test]
    fn every_method_is_in_the_interface_files_and_listed_once() {
        for role in [Role::Trader, Role::Venue] {
            let all = methods(role);
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
            for method in all {
                let (service, name) =
                    method.strip_prefix('/').and_then(|m| m.split_once('/')).expect("/service/method");
                let text = String::from_utf8_lossy(tidegate_wire::FILE_DESCRIPTOR_SET);
                let (_, service) = service.split_once('.').expect("package.Service");
                assert!(text.contains(service) && text.contains(name), "{method}");
            }
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let command = bake_command_for(Role::Venue, Some("regtest"), Path::new("/my data/it's.macaroon"));
        assert!(
            command
                .starts_with("lncli --network=regtest bakemacaroon --save_to='/my data/it'\\''s.macaroon' \\\n  uri:/")
        );
        assert_eq!(command.lines().count(), 1 + methods(Role::Venue).len());
        assert!(bake_command(Role::Trader).starts_with("lncli bakemacaroon --save_to=tidegate-trader.macaroon "));
    }
}
