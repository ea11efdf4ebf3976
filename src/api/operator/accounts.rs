//! Accounts.

use super::service::{Operator, gone, malformed, mixed_up, node_failed, quote_failed};
use super::wish::harmless;
use super::{Done, Wish};
use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::Hash as _;
use bitcoin::{Address, Amount, ScriptBuf, TxOut};
use tidegate_ports::{Chain as _, TraderEnv, Wallet as _};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats};
use tidegate_trader::{
    BumpAccount, CloseAccount, CloseTo, DepositAccount, Modified, OpenAccount, QuoteAccount, RenewAccount,
    Status as State, WithdrawAccount,
};
use tidegate_wire::{operator as wire, poolrpc as rpc};
use tonic::Status;

/// Who asks, when a request does not say.
const CLIENT: &str = "a client";
/// Outputs of one request: more do not fit a standard transaction.
const MAX_OUTPUTS: usize = 2_000;

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

/// Whether an account counts as active.
///
/// # Source
/// Protocol notes, rpc §6.1.
pub(super) fn is_active(state: AccountState) -> bool {
    !matches!(state, AccountState::Closed | AccountState::CanceledAfterRecovery)
}

/// Value of an account less what its orders reserve.
fn available(state: &State, account: &tidegate_protocol::account::Account) -> Sats {
    let reserved = state.reserved.get(&account.key()).copied().unwrap_or(Sats::ZERO);
    account.value.checked_sub(reserved).unwrap_or(Sats::ZERO)
}

impl<E: TraderEnv> Operator<E> {
    pub(super) async fn quote_account(
        &self,
        request: rpc::QuoteAccountRequest,
    ) -> Result<rpc::QuoteAccountResponse, Status> {
        use rpc::quote_account_request::Fees;
        let value = wire::from_sats("QuoteAccountRequest.account_value", request.account_value).map_err(malformed)?;
        let Some(Fees::ConfTarget(conf_target)) = request.fees else {
            return Err(missing("QuoteAccountRequest.conf_target"));
        };
        let quote = self.trader.quote_account(QuoteAccount { value, conf_target }).await.map_err(quote_failed)?;
        Ok(rpc::QuoteAccountResponse {
            miner_fee_rate_sat_per_kw: quote.fee_rate.get(),
            miner_fee_total: quote.fee.get(),
        })
    }

    pub(super) async fn init_account(&self, request: rpc::InitAccountRequest) -> Result<rpc::Account, Status> {
        use rpc::init_account_request::{AccountExpiry, Fees};
        let value = wire::from_sats("InitAccountRequest.account_value", request.account_value).map_err(malformed)?;
        let version = wire::from_version("InitAccountRequest.version", request.version).map_err(malformed)?;
        let expiry_blocks = match request.account_expiry {
            Some(AccountExpiry::RelativeHeight(blocks)) => BlockCount::new(blocks),
            Some(AccountExpiry::AbsoluteHeight(height)) => {
                let best = self.env.chain().best_height().await.map_err(node_failed)?;
                BlockHeight::new(height).blocks_since(best)
            }
            None => return Err(missing("InitAccountRequest.absolute_height or InitAccountRequest.relative_height")),
        };
        let fee_rate = match request.fees {
            Some(Fees::FeeRateSatPerKw(rate)) => SatPerKw::new(rate),
            Some(Fees::ConfTarget(target)) => self.estimate("InitAccountRequest.conf_target", target).await?,
            None => return Err(missing("InitAccountRequest.conf_target or InitAccountRequest.fee_rate_sat_per_kw")),
        };
        let version = version.unwrap_or(AccountVersion::V2);
        let wish = OpenAccount { value, expiry_blocks, version, fee_rate: Some(fee_rate) };
        match self.ask(Wish::Open(wish), &request.initiator).await? {
            // What it will have free is told by the list, as deployed daemons do it.
            Done::Account(account) => Ok(wire::to_account(&account, Sats::ZERO)),
            _ => Err(mixed_up()),
        }
    }

    /// The fee rate for a confirmation target, at least the floor.
    async fn estimate(&self, field: &'static str, target: u32) -> Result<SatPerKw, Status> {
        if target == 0 {
            return Err(Status::invalid_argument(format!("{field} must be at least 1 block")));
        }
        self.env.wallet().estimate_fee(target).await.map_err(node_failed)
    }

    pub(super) async fn list_accounts(
        &self,
        request: rpc::ListAccountsRequest,
    ) -> Result<rpc::ListAccountsResponse, Status> {
        let state = self.trader.status().await.map_err(gone)?;
        let shown = state.accounts.iter().filter(|account| !request.active_only || is_active(account.state));
        let accounts = shown.map(|account| wire::to_account(account, available(&state, account))).collect();
        Ok(rpc::ListAccountsResponse { accounts })
    }

    pub(super) async fn close_account(
        &self,
        request: rpc::CloseAccountRequest,
    ) -> Result<rpc::CloseAccountResponse, Status> {
        use rpc::close_account_request::FundsDestination;
        let account =
            wire::from_account_key("CloseAccountRequest.trader_key", &request.trader_key).map_err(malformed)?;
        let to = match request.funds_destination {
            Some(FundsDestination::OutputWithFee(output)) => self.output_with_fee(output).await?,
            Some(FundsDestination::Outputs(outputs)) => {
                CloseTo::Outputs(self.outputs("CloseAccountRequest.outputs", &outputs.outputs)?)
            }
            None => return Err(missing("CloseAccountRequest.output_with_fee or CloseAccountRequest.outputs")),
        };
        match self.ask(Wish::Close(CloseAccount { account, to }), CLIENT).await? {
            Done::Closed(txid) => Ok(rpc::CloseAccountResponse { close_txid: txid.to_byte_array().to_vec() }),
            _ => Err(mixed_up()),
        }
    }

    async fn output_with_fee(&self, output: rpc::OutputWithFee) -> Result<CloseTo, Status> {
        use rpc::output_with_fee::Fees;
        let script = match output.address.as_str() {
            "" => None,
            address => Some(self.script("OutputWithFee.address", address)?),
        };
        let fee_rate = match output.fees {
            Some(Fees::FeeRateSatPerKw(rate)) => SatPerKw::new(rate),
            Some(Fees::ConfTarget(target)) => self.estimate("OutputWithFee.conf_target", target).await?,
            None => return Err(missing("OutputWithFee.conf_target or OutputWithFee.fee_rate_sat_per_kw")),
        };
        Ok(CloseTo::Output { script, fee_rate: Some(fee_rate) })
    }

    /// The script of an address of this network.
    fn script(&self, field: &str, address: &str) -> Result<ScriptBuf, Status> {
        let shown: String = address.chars().filter(|c| !c.is_control()).take(100).collect();
        let bad = |reason: String| Status::invalid_argument(harmless(&format!("{field}: {shown:?} {reason}")));
        let parsed: Address<NetworkUnchecked> =
            address.parse().map_err(|error| bad(format!("is not an address ({error})")))?;
        let checked = parsed.require_network(self.network);
        Ok(checked.map_err(|_| bad(format!("is not an address of {}", self.network)))?.script_pubkey())
    }

    fn outputs(&self, field: &str, outputs: &[rpc::Output]) -> Result<Vec<TxOut>, Status> {
        if outputs.is_empty() {
            return Err(missing(field));
        }
        if outputs.len() > MAX_OUTPUTS {
            return Err(Status::invalid_argument(format!("{field}: at most {MAX_OUTPUTS} outputs fit a transaction")));
        }
        let read = |output: &rpc::Output| {
            let value = wire::from_sats("Output.value_sat", output.value_sat).map_err(malformed)?;
            Ok(TxOut { value: Amount::from(value), script_pubkey: self.script("Output.address", &output.address)? })
        };
        outputs.iter().map(read).collect()
    }

    pub(super) async fn deposit_account(
        &self,
        request: rpc::DepositAccountRequest,
    ) -> Result<rpc::DepositAccountResponse, Status> {
        use rpc::deposit_account_request::AccountExpiry;
        let expiry = match request.account_expiry {
            Some(AccountExpiry::AbsoluteExpiry(height)) => Some(Expiry::At(height)),
            Some(AccountExpiry::RelativeExpiry(blocks)) => Some(Expiry::In(blocks)),
            None => None,
        };
        let account =
            wire::from_account_key("DepositAccountRequest.trader_key", &request.trader_key).map_err(malformed)?;
        let amount = wire::from_sats("DepositAccountRequest.amount_sat", request.amount_sat).map_err(malformed)?;
        let version =
            wire::from_version("DepositAccountRequest.new_version", request.new_version).map_err(malformed)?;
        let (expiry, fee_rate) = (self.height(expiry).await?, SatPerKw::new(request.fee_rate_sat_per_kw));
        let wish = Wish::Deposit(DepositAccount { account, amount, fee_rate, expiry, version });
        let (account, deposit_txid) = self.modify(wish).await?;
        Ok(rpc::DepositAccountResponse { account: Some(account), deposit_txid })
    }

    pub(super) async fn withdraw_account(
        &self,
        request: rpc::WithdrawAccountRequest,
    ) -> Result<rpc::WithdrawAccountResponse, Status> {
        use rpc::withdraw_account_request::AccountExpiry;
        let expiry = match request.account_expiry {
            Some(AccountExpiry::AbsoluteExpiry(height)) => Some(Expiry::At(height)),
            Some(AccountExpiry::RelativeExpiry(blocks)) => Some(Expiry::In(blocks)),
            None => None,
        };
        let account =
            wire::from_account_key("WithdrawAccountRequest.trader_key", &request.trader_key).map_err(malformed)?;
        let outputs = self.outputs("WithdrawAccountRequest.outputs", &request.outputs)?;
        let version =
            wire::from_version("WithdrawAccountRequest.new_version", request.new_version).map_err(malformed)?;
        let (expiry, fee_rate) = (self.height(expiry).await?, SatPerKw::new(request.fee_rate_sat_per_kw));
        let wish = Wish::Withdraw(WithdrawAccount { account, outputs, fee_rate, expiry, version });
        let (account, withdraw_txid) = self.modify(wish).await?;
        Ok(rpc::WithdrawAccountResponse { account: Some(account), withdraw_txid })
    }

    pub(super) async fn renew_account(
        &self,
        request: rpc::RenewAccountRequest,
    ) -> Result<rpc::RenewAccountResponse, Status> {
        use rpc::renew_account_request::AccountExpiry;
        let expiry = match request.account_expiry {
            Some(AccountExpiry::AbsoluteExpiry(height)) => Some(Expiry::At(height)),
            Some(AccountExpiry::RelativeExpiry(blocks)) => Some(Expiry::In(blocks)),
            None => None,
        };
        let account =
            wire::from_account_key("RenewAccountRequest.account_key", &request.account_key).map_err(malformed)?;
        let version = wire::from_version("RenewAccountRequest.new_version", request.new_version).map_err(malformed)?;
        let expiry = self.height(expiry).await?;
        let either = "RenewAccountRequest.absolute_expiry or RenewAccountRequest.relative_expiry";
        let expiry = expiry.ok_or_else(|| missing(either))?;
        let fee_rate = SatPerKw::new(request.fee_rate_sat_per_kw);
        let wish = Wish::Renew(RenewAccount { account, fee_rate, expiry, version });
        let (account, renewal_txid) = self.modify(wish).await?;
        Ok(rpc::RenewAccountResponse { account: Some(account), renewal_txid })
    }

    /// The height that an operator means.
    async fn height(&self, expiry: Option<Expiry>) -> Result<Option<BlockHeight>, Status> {
        match expiry {
            None => Ok(None),
            Some(Expiry::At(height)) => Ok(Some(BlockHeight::new(height))),
            Some(Expiry::In(blocks)) => {
                let best = self.env.chain().best_height().await.map_err(node_failed)?;
                let height = best.checked_add(BlockCount::new(blocks));
                let height = height.ok_or_else(|| Status::invalid_argument("relative_expiry: no chain is so long"))?;
                Ok(Some(height))
            }
        }
    }

    /// The changed account and its transaction.
    async fn modify(&self, wish: Wish) -> Result<(rpc::Account, Vec<u8>), Status> {
        match self.ask(wish, CLIENT).await? {
            Done::Modified(modified) => {
                let Modified { account, txid } = *modified;
                let state = self.trader.status().await.map_err(gone)?;
                Ok((wire::to_account(&account, available(&state, &account)), txid.to_byte_array().to_vec()))
            }
            _ => Err(mixed_up()),
        }
    }

    pub(super) async fn bump_account_fee(
        &self,
        request: rpc::BumpAccountFeeRequest,
    ) -> Result<rpc::BumpAccountFeeResponse, Status> {
        let account =
            wire::from_account_key("BumpAccountFeeRequest.trader_key", &request.trader_key).map_err(malformed)?;
        let fee_rate = SatPerKw::new(request.fee_rate_sat_per_kw);
        match self.ask(Wish::Bump(BumpAccount { account, fee_rate }), CLIENT).await? {
            Done::Nothing => Ok(rpc::BumpAccountFeeResponse {}),
            _ => Err(mixed_up()),
        }
    }
}

/// An expiry as an operator states it.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    /// At a height.
    At(u32),
    /// In so many blocks.
    In(u32),
}
