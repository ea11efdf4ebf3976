//! The way to the running agent: where it listens, its certificate, a macaroon; and calls whose failure has an exit code.

use super::exit::Failure;
use crate::config::{AgentConfig, NETWORKS};
use crate::node::{PIN_MISMATCH, PinnedCertificate};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use std::error::Error as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_wire::poolrpc::trader_client::TraderClient;
use tidegate_wire::tidegate::v1::agent_client::AgentClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Where an agent listens when nothing else is said.
const USUAL_ADDRESS: &str = "127.0.0.1:12010";
/// Configuration that is looked for when nothing is said.
const USUAL_CONFIG: &str = "agent.toml";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer; the agent itself waits 30 s for its node or venue.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 200 << 20;

/// Which agent is asked, and how the answer is written.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Daemon {
    /// The agent's configuration: says where it listens and where its files are [default: agent.toml, if there].
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", help_heading = "Which agent", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent's data folder, instead of a configuration.
    #[arg(long, global = true, help_heading = "Which agent", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The network, when a data folder holds files for several.
    #[arg(long, global = true, help_heading = "Which agent", value_parser = PossibleValuesParser::new(NETWORKS))]
    network: Option<String>,
    /// The agent's gRPC address, host:port [default: from the configuration, else 127.0.0.1:12010].
    #[arg(long, global = true, help_heading = "Which agent", value_name = "ADDRESS")]
    rpc: Option<String>,
    /// The agent's certificate.
    #[arg(long, global = true, help_heading = "Which agent", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// A macaroon of the agent.
    #[arg(long, global = true, help_heading = "Which agent", value_name = "FILE")]
    macaroon: Option<PathBuf>,
    /// Writes the answer as JSON; its shape is described in docs/runbooks/cli.md.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Where an agent is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: String,
    pub(super) tls_cert: PathBuf,
    pub(super) macaroon: PathBuf,
}

impl Daemon {
    /// The configuration that was named, or the usual one when it is there and nothing else was named.
    pub(super) fn config_path(&self) -> Option<PathBuf> {
        let usual = || {
            let named = self.data_dir.is_some() || (self.tls_cert.is_some() && self.macaroon.is_some());
            Some(PathBuf::from(USUAL_CONFIG)).filter(|path| !named && path.exists())
        };
        // A folder that was typed is meant, whatever the environment says.
        self.config.clone().filter(|_| self.data_dir.is_none()).or_else(usual)
    }

    /// Where the agent is reached. Flags win over the configuration.
    ///
    /// # Errors
    /// [`Failure::Usage`] when that is not known; the configuration's own errors.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let (mut address, mut folder) = (None, None);
        if let Some(path) = self.config_path() {
            let config = AgentConfig::load(&path)?;
            let Some(api) = &config.api else {
                let sentence = format!(
                    "{} has no section [api], so its agent takes no commands: add [api] with rpc_listen, and restart it",
                    path.display()
                );
                return Err(Failure::Usage(sentence).into());
            };
            address = Some(api.rpc_listen.to_string());
            folder = Some(config.api_folder());
        } else if let Some(data_dir) = &self.data_dir {
            folder = Some(self.api_folder(data_dir)?);
        }
        let file = |typed: &Option<PathBuf>, name: &str| {
            let found = typed.clone().or_else(|| folder.as_ref().map(|folder| folder.join(name)));
            found.ok_or_else(|| {
                Failure::Usage(format!(
                    "which agent? There is no {USUAL_CONFIG} here: name its configuration with --config, its data \
                     folder with --data-dir, or --rpc, --tls-cert and --macaroon"
                ))
            })
        };
        Ok(Place {
            tls_cert: file(&self.tls_cert, "tls.cert")?,
            macaroon: file(&self.macaroon, "pool.macaroon")?,
            address: self.rpc.clone().or(address).unwrap_or_else(|| USUAL_ADDRESS.to_owned()),
        })
    }

    /// The folder of the API's files below a data folder, or that folder itself.
    fn api_folder(&self, data_dir: &Path) -> Result<PathBuf, Failure> {
        if data_dir.join("tls.cert").exists() {
            return Ok(data_dir.to_owned());
        }
        let api = data_dir.join("api");
        if let Some(network) = &self.network {
            return Ok(api.join(network));
        }
        let found: Vec<&str> = NETWORKS.into_iter().filter(|network| api.join(network).exists()).collect();
        match found.as_slice() {
            [one] => Ok(api.join(one)),
            [] => Err(Failure::Usage(format!(
                "{} is no data folder of an agent with a section [api] that was started: {} is missing in it",
                data_dir.display(),
                Path::new("api").join("NETWORK").join("tls.cert").display()
            ))),
            several => Err(Failure::Usage(format!(
                "{} holds files for {}: choose one with --network",
                data_dir.display(),
                several.join(" and ")
            ))),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Failure`] with a sentence that says what to do.
    pub(super) async fn connect(&self) -> anyhow::Result<Agent> {
        let place = self.place()?;
        let channel = open(&place).await?;
        let hint = "It is made at the first start of an agent with a section [api]";
        let path = &place.macaroon;
        let macaroon = std::fs::read(path).map_err(|error| unreadable("the agent's macaroon", path, &error, hint))?;
        let gate = Gate::new(&macaroon);
        let trader =
            TraderClient::with_interceptor(channel.clone(), gate.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let control = AgentClient::with_interceptor(channel, gate).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Agent { trader, control })
    }
}

async fn open(place: &Place) -> anyhow::Result<Channel> {
    let Place { address, tls_cert, .. } = place;
    let hint = "It is made at the first start of an agent with a section [api]";
    let pem = std::fs::read(tls_cert).map_err(|error| unreadable("the agent's certificate", tls_cert, &error, hint))?;
    open_pinned(address, "--rpc", &pem, tls_cert).await.map_err(|error| match error.downcast::<Closed>() {
        Ok(Closed::Another) => anyhow::Error::new(Failure::Unreachable(format!(
            "somebody else answers at {address}: its certificate is not the one in {}. Is that another agent's folder?",
            tls_cert.display()
        ))),
        Ok(Closed::Silent(reason)) => anyhow::Error::new(Failure::Unreachable(format!(
            "no agent answers at {address}: {reason}. Is `tidegate run` running, and is this its api.rpc_listen?"
        ))),
        Err(error) => error,
    })
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    /// The certificate is not the expected one.
    #[error("another certificate is shown there")]
    Another,
    /// Nobody answers.
    #[error("{0}")]
    Silent(String),
}

/// A connection to the one who shows exactly this certificate; `flag` names the address.
///
/// # Errors
/// [`Closed`], or [`Failure::Usage`] for a certificate that is none or an address that is none.
pub(super) async fn open_pinned(address: &str, flag: &str, pem: &[u8], path: &Path) -> anyhow::Result<Channel> {
    let pinned = PinnedCertificate::from_pem(pem)
        .map_err(|reason| Failure::Usage(format!("{} is not a certificate: {reason}", path.display())))?;
    let bad =
        || Failure::Usage(format!("{flag}: {address:?} is not an address: write host:port, e.g. {USUAL_ADDRESS}"));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| bad())?;
    if endpoint.uri().port().is_none() || endpoint.uri().path().len() > 1 {
        return Err(bad().into());
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_config_with_verifier(ClientTlsConfig::new(), Arc::new(pinned))
        .context("can not prepare TLS")?;
    endpoint.connect().await.map_err(|error| {
        let reason = last_cause(&error);
        if reason.contains(PIN_MISMATCH) { Closed::Another.into() } else { Closed::Silent(reason).into() }
    })
}

/// A file that can not be read; `hint` says where it comes from.
pub(super) fn unreadable(what: &str, path: &Path, error: &std::io::Error, hint: &str) -> Failure {
    Failure::Usage(format!("can not read {what} {}: {error}. {hint}", path.display()))
}

/// The innermost of the causes: the outer ones only say `transport error`.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Sends the macaroon with each call.
#[derive(Clone)]
pub(super) struct Gate(MetadataValue<Ascii>);

impl Gate {
    pub(super) fn new(macaroon: &[u8]) -> Gate {
        let text = hex::DisplayHex::to_lower_hex_string(macaroon);
        let mut value = MetadataValue::try_from(text).expect("hexadecimal is ASCII");
        value.set_sensitive(true);
        Gate(value)
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("macaroon", self.0.clone());
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Gate>;

/// A connected agent.
pub(super) struct Agent {
    /// What deployed daemons serve too.
    pub(super) trader: TraderClient<Service>,
    /// The rest.
    pub(super) control: AgentClient<Service>,
}

/// The answer to a question.
///
/// # Errors
/// [`Failure::Unreachable`] when there is none, else [`Failure::Refused`].
pub(super) async fn ask<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if is_broken(&status) => {
            Err(Failure::Unreachable(format!("the connection to the agent broke: {}", status_text(&status))))
        }
        Ok(Err(status)) => Err(match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => Failure::Unreachable(status_text(&status)),
            _ => Failure::Refused(status_text(&status)),
        }),
        Err(_) => Err(Failure::Unreachable(no_answer())),
    }
}

/// The outcome of something that moves money or orders; `look` is the command that shows whether it was done.
///
/// # Errors
/// [`Failure::Refused`] when the agent says that it was not done, [`Failure::Unknown`] when that is not certain.
pub(super) async fn change<T>(
    look: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let reason = match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(answer)) => return Ok(answer.into_inner()),
        Ok(Err(status)) if is_broken(&status) => format!("the connection to the agent broke: {}", status_text(&status)),
        Ok(Err(status)) => match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                status_text(&status)
            }
            _ => return Err(Failure::Refused(status_text(&status))),
        },
        Err(_) => no_answer(),
    };
    Err(Failure::Unknown(format!(
        "{reason}. It is not certain whether it was done: look with `{look}` before you repeat it"
    )))
}

/// A status that was made here: the connection broke. Those of the agent have no source.
fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}

fn no_answer() -> String {
    format!("the agent did not answer within {} s", CALL_TIMEOUT.as_secs())
}

fn status_text(status: &Status) -> String {
    if let Some(source) = status.source() {
        return last_cause(source);
    }
    match (status.code(), status.message()) {
        (Code::Unimplemented, message) => format!("the agent does not serve this: {message}"),
        (code, "") => format!("the agent answered {code:?} without a reason"),
        (_, message) => message.trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certain_and_what_not() {
        let rows = [
            (Code::FailedPrecondition, 1, 1),
            (Code::InvalidArgument, 1, 1),
            (Code::NotFound, 1, 1),
            (Code::PermissionDenied, 1, 1),
            (Code::Unauthenticated, 1, 1),
            (Code::Unimplemented, 1, 1),
            (Code::Unavailable, 3, 4),
            (Code::DeadlineExceeded, 3, 4),
            (Code::Internal, 1, 4),
            (Code::Unknown, 1, 4),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for (code, asked, changed) in rows {
            let answer = || async move { Err::<Response<()>, _>(Status::new(code, "why")) };
            let failure = runtime.block_on(ask(answer())).expect_err("refused");
            assert_eq!(failure.code(), asked, "{code:?}: {failure}");
            let failure = runtime.block_on(change("tidegate order list", answer())).expect_err("refused");
            assert_eq!(failure.code(), changed, "{code:?}: {failure}");
            assert!(failure.to_string().contains("why"), "{failure}");
            assert_eq!(failure.to_string().contains("tidegate order list"), changed == 4, "{failure}");
        }
    }

    #[test]
    fn flags_win_over_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let api = folder.path().join("api");
        let daemon = |network: Option<&str>| Daemon {
            data_dir: Some(folder.path().to_owned()),
            network: network.map(str::to_owned),
            ..Daemon::default()
        };
        let refusal = daemon(None).place().expect_err("nothing there").to_string();
        assert!(refusal.contains("is missing in it"), "{refusal}");
        std::fs::create_dir_all(api.join("regtest")).expect("a folder");
        let place = daemon(None).place().expect("one network");
        assert_eq!(place.address, USUAL_ADDRESS);
        assert_eq!(place.tls_cert, api.join("regtest").join("tls.cert"));
        std::fs::create_dir_all(api.join("signet")).expect("a folder");
        let refusal = daemon(None).place().expect_err("two").to_string();
        assert!(refusal.contains("signet and regtest") && refusal.contains("--network"), "{refusal}");
        let mut chosen = daemon(Some("signet"));
        chosen.rpc = Some("127.0.0.1:7".to_owned());
        chosen.macaroon = Some(PathBuf::from("my.macaroon"));
        let place = chosen.place().expect("all is said");
        assert_eq!((place.address.as_str(), place.macaroon), ("127.0.0.1:7", PathBuf::from("my.macaroon")));
        assert_eq!(place.tls_cert, api.join("signet").join("tls.cert"));
        std::fs::write(folder.path().join("tls.cert"), "x").expect("written");
        assert_eq!(daemon(None).place().expect("the folder itself").tls_cert, folder.path().join("tls.cert"));
    }
}
