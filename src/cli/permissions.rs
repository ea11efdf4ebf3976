//! `tidegate permissions`: what a role's macaroon must allow, and nothing more; and baking one.

use super::console::Console;
use super::exit::Failure;
use super::link::{Closed, Gate, ask, open_pinned, unreadable};
use crate::config::NETWORKS;
use crate::node::permissions::{Role, bake_command_for, deposit_permissions, permissions};
use anyhow::Context as _;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use hex::FromHex as _;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tidegate_wire::lnd::lnrpc::lightning_client::LightningClient;
use tidegate_wire::lnd::lnrpc::{BakeMacaroonRequest, MacaroonPermission};

/// Which program the macaroon is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// `tidegate run`.
    Trader,
    /// `tidegate venue`.
    Venue,
}

const EXAMPLES: &str = "\
Examples:
  tidegate permissions --role trader                        print the command; run it where lncli is
  tidegate permissions --role venue --network regtest | sh  print it and run it
  tidegate permissions --role trader --json                 the list alone, to bake in another way
  tidegate permissions --role trader --bake --node 127.0.0.1:10009 --tls-cert ~/.lnd/tls.cert \\
      --admin-macaroon ~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon   bake it here

lncli needs its own options when lnd is not in its usual place: insert --lnddir or --rpcserver after `lncli`.
The macaroon can fund accounts from the node's wallet: guard it like a wallet. The admin macaroon is used for one call and
is not kept.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which program the macaroon is for.
    #[arg(long)]
    role: RoleArg,
    /// A venue's: allow deposits of the node's coins into the venue's own coin too (`tidegate venue-ctl`).
    #[arg(long)]
    deposits: bool,
    /// The node's network, as lncli must be told; lncli's own default is mainnet.
    #[arg(long, value_parser = PossibleValuesParser::new(NETWORKS), conflicts_with = "bake")]
    network: Option<String>,
    /// Where the macaroon is put [default: tidegate-ROLE.macaroon].
    #[arg(long)]
    save_to: Option<PathBuf>,
    /// Prints the list of permissions as JSON instead of the command; with --bake, the outcome as JSON.
    #[arg(long)]
    json: bool,
    /// Bakes the macaroon at lnd, instead of printing the command that does.
    #[arg(long, requires = "admin_macaroon", requires = "tls_cert")]
    bake: bool,
    /// lnd's gRPC address, for --bake.
    #[arg(long, default_value = "127.0.0.1:10009", value_name = "ADDRESS")]
    node: String,
    /// lnd's tls.cert, for --bake.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// A macaroon of lnd that may bake others, for --bake.
    #[arg(long, value_name = "FILE")]
    admin_macaroon: Option<PathBuf>,
}

pub(super) async fn execute(args: &Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let role = match args.role {
        RoleArg::Trader => Role::Trader,
        RoleArg::Venue => Role::Venue,
    };
    let more = match role {
        Role::Venue if args.deposits => deposit_permissions(),
        Role::Trader if args.deposits => {
            let sentence = "--deposits: only a venue's macaroon has them; a trader's pays for its accounts anyway";
            return Err(Failure::Usage(sentence.to_owned()).into());
        }
        Role::Trader | Role::Venue => Vec::new(),
    };
    let usual = || PathBuf::from(format!("tidegate-{}.macaroon", role.name()));
    let save_to = args.save_to.clone().unwrap_or_else(usual);
    match (&args.tls_cert, &args.admin_macaroon) {
        (Some(tls_cert), Some(admin)) if args.bake => {
            let wanted = [permissions(role), more].concat();
            let baked = bake(role, wanted, &args.node, tls_cert, admin, &save_to).await?;
            console.answer(args.json, &baked, |baked| {
                format!(
                    "baked {}: it allows the {} calls of role {} and no others",
                    baked.file, baked.permissions, baked.role
                )
            })
        }
        _ if args.json => console.say(&serde_json::to_string_pretty(&[permissions(role), more].concat())?),
        _ => {
            let more: String = more.iter().map(|permission| format!(" \\\n  {permission}")).collect();
            console.say(&(bake_command_for(role, args.network.as_deref(), &save_to) + &more))
        }
    }
}

/// What was baked.
#[derive(Debug, Serialize)]
struct Baked {
    role: &'static str,
    file: String,
    permissions: usize,
}

async fn bake(
    role: Role,
    wanted: Vec<String>,
    node: &str,
    tls_cert: &Path,
    admin: &Path,
    save_to: &Path,
) -> anyhow::Result<Baked> {
    if save_to.exists() {
        let sentence = format!("{} exists: remove it, or choose another file with --save-to", save_to.display());
        return Err(Failure::Refused(sentence).into());
    }
    let hint = "It is in lnd's folder";
    let pem = std::fs::read(tls_cert).map_err(|error| unreadable("lnd's certificate", tls_cert, &error, hint))?;
    let macaroon = std::fs::read(admin).map_err(|error| unreadable("the admin macaroon", admin, &error, hint))?;
    let channel =
        open_pinned(node, "--node", &pem, tls_cert).await.map_err(|error| match error.downcast::<Closed>() {
            Ok(closed) => anyhow::Error::new(Failure::Unreachable(format!("can not reach lnd at {node}: {closed}"))),
            Err(error) => error,
        })?;
    let count = wanted.len();
    // As `lncli bakemacaroon` sends `uri:/service/Method`.
    let permission = |text: String| MacaroonPermission {
        entity: "uri".to_owned(),
        action: text.strip_prefix("uri:").unwrap_or(&text).to_owned(),
    };
    let request = BakeMacaroonRequest {
        permissions: wanted.into_iter().map(permission).collect(),
        root_key_id: 0,
        allow_external_permissions: false,
    };
    let mut client = LightningClient::with_interceptor(channel, Gate::new(&macaroon));
    let answer = ask(client.bake_macaroon(request)).await?;
    let bytes = Vec::<u8>::from_hex(&answer.macaroon)
        .map_err(|_| Failure::Refused("lnd's answer is no macaroon: is this lnd?".to_owned()))?;
    save(save_to, &bytes)?;
    Ok(Baked { role: role.name(), file: save_to.display().to_string(), permissions: count })
}

/// Writes a new file whole or not at all, readable for this user alone.
fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what =
        || format!("can not write {}: make its folder writable, or choose another file with --save-to", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(what)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(what)?;
    file.persist_noclobber(path).map_err(|error| error.error).with_context(what)?;
    Ok(())
}
