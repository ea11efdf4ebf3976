//! What the transactions of accounts cost.

use super::FeeArgs;
use crate::cli::exit::Failure;
use crate::cli::link::{Agent, ask};
use crate::cli::show;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::sizes::{self, transaction_weight};
use tidegate_protocol::units::{SatPerKw, Sats};
use tidegate_wire::poolrpc as rpc;

/// Smallest account: its quote tells a fee rate when there is no better one to ask for.
const SMALLEST_SATS: u64 = 100_000;

/// The fee rate that was typed, or the node's estimate.
pub(super) async fn rate(agent: &mut Agent, fees: &FeeArgs) -> Result<SatPerKw, Failure> {
    match fees.fee_rate {
        Some(rate) => Ok(rate),
        None => Ok(SatPerKw::new(quote(agent, SMALLEST_SATS, fees.conf_target).await?.miner_fee_rate_sat_per_kw)),
    }
}

/// The agent's quote of a new account.
pub(super) async fn quote(
    agent: &mut Agent,
    value_sats: u64,
    conf_target: u32,
) -> Result<rpc::QuoteAccountResponse, Failure> {
    let fees = Some(rpc::quote_account_request::Fees::ConfTarget(conf_target));
    let request = rpc::QuoteAccountRequest { account_value: value_sats, fees };
    ask(agent.trader.quote_account(request)).await.map_err(|failure| match failure {
        Failure::Refused(reason) => Failure::Refused(format!("{reason}. State a fee rate yourself with --fee-rate")),
        other => other,
    })
}

/// The fee of a transaction in which `account_inputs` (0 or 1) accounts and `coins` of the wallet are spent into
/// `outputs`, all of the larger kinds.
pub(super) fn fee(rate: SatPerKw, version: AccountVersion, account_inputs: u64, coins: u64, outputs: u64) -> Sats {
    let sizes_of = |size: u64, count: u64| (0..count).map(|_| size).collect::<Vec<_>>();
    let inputs = sizes_of(sizes::INPUT, account_inputs + coins);
    let mut witnesses = sizes_of(sizes::cooperative_witness_size(version), account_inputs);
    witnesses.extend(sizes_of(sizes::P2WKH_WITNESS, coins));
    let weight = transaction_weight(&inputs, &sizes_of(sizes::P2WSH_OUTPUT, outputs), &witnesses);
    // Rates and counts here are small.
    weight.and_then(|weight| rate.fee_floor(weight).ok()).unwrap_or(Sats::MAX)
}

/// The version of an account as it is stored.
pub(super) fn version_of(account: &rpc::Account) -> AccountVersion {
    match rpc::AccountVersion::try_from(account.version) {
        Ok(rpc::AccountVersion::Legacy) => AccountVersion::V0,
        Ok(rpc::AccountVersion::Taproot) => AccountVersion::V1,
        Ok(rpc::AccountVersion::TaprootV2 | rpc::AccountVersion::LndDependent) | Err(_) => AccountVersion::V2,
    }
}

/// A fee with its rate and its share of an amount.
pub(super) fn told(fee: Sats, rate: SatPerKw, of_sats: u64) -> String {
    let share = show::share(i128::from(fee.get()), of_sats);
    format!("{} at {} ({share})", show::sats(fee.get()), show::fee_rate(rate.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spend_of_an_account_costs_what_the_network_computes() {
        // One taproot account into two outputs: 4·(8+1+41+1+86)+2+66 = 616 weight units.
        let fee = |accounts, coins, outputs| fee(SatPerKw::new(1_000), AccountVersion::V2, accounts, coins, outputs);
        assert_eq!(fee(1, 0, 2).get(), 616);
        assert_eq!(fee(0, 1, 2).get(), 659);
        assert!(fee(1, 1, 2) > fee(1, 0, 2));
        assert_eq!(told(Sats::constant(616), SatPerKw::new(1_000), 100_000), "616 sat at 4.0 sat/vB (0.62 %)");
    }
}
