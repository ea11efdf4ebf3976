//! What happens, as sentences without any control character.

use super::coins;
use crate::cli::harmless::harmless;
use crate::cli::show::grouped;
use crate::daemon::sandbox::live::{Event, LeaseLine, Scene};

/// An event in one line.
pub(super) fn line(event: &Event) -> String {
    let text = match event {
        Event::Opened { height, start, served } => {
            let again = if *start == 0 { "is open" } else { "goes on" };
            format!(
                "block {height}: the market {again}; metrics {}, status {}, API {} (certificate and macaroon in {}), venue {}",
                served.metrics, served.status, served.rpc, served.folder, served.venue
            )
        }
        Event::Batch(batch) => format!(
            "batch {}: {} leases, {} units at {} ppb per block",
            short(&batch.batch),
            batch.leases,
            batch.units,
            grouped(batch.rate_ppb.into())
        ),
        Event::NoBatch { height, reason } => format!("block {height}: no batch, {reason}"),
        Event::Lease(lease) => format!("our lease: {}", lease_line(lease)),
        Event::Lied { lie, refusal: Some(rule) } => format!("the venue lied ({lie}); our agent refused: {rule}"),
        Event::Lied { lie, refusal: None } => format!("the venue lied ({lie}) and our agent did NOT notice"),
        Event::Fault { height, what } => format!("block {height}: {what}"),
        Event::Stopped { height } => format!("stopped in order at block {height}"),
    };
    harmless(&text)
}

fn lease_line(lease: &LeaseLine) -> String {
    let (way, earns) = if lease.side == "sold" { ("sold to", "earns") } else { ("bought from", "costs") };
    format!(
        "{} sat {way} {} until block {}, premium {} sat, {earns} {:.2} % a year gross, {:.2} % net",
        grouped(lease.amount_sats),
        lease.counterparty,
        lease.maturity_height,
        grouped(lease.premium_sats),
        lease.gross_apr_ratio * 100.0,
        lease.net_apr_ratio * 100.0
    )
}

/// First digits of a long name.
pub(super) fn short(name: &str) -> String {
    name.chars().take(10).collect()
}

/// How our agent stands, in a few lines.
pub(super) fn summary(scene: &Scene) -> String {
    let mut lines = vec![format!(
        "block {}: {} batches, open asks {} units, open bids {} units, chain fee {} sat/kW",
        scene.height, scene.batches, scene.open_units[0], scene.open_units[1], scene.fee_rate_sat_per_kw
    )];
    for account in &scene.accounts {
        lines.push(format!(
            "  account {} {}: {} sat, {} reserved, expires at block {}",
            short(&account.account),
            account.state,
            grouped(account.value_sats),
            grouped(account.reserved_sats),
            account.expiry_height
        ));
    }
    for order in &scene.orders {
        let why = order.why_not_filled.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        lines.push(format!(
            "  {} {} {} at {} ppb, {} of {} units filled{why}",
            order.side,
            short(&order.nonce),
            order.state,
            grouped(order.rate_ppb.into()),
            order.units_filled,
            order.units
        ));
    }
    lines.push(format!("  leases {}: {}", scene.leases.len(), yields(scene)));
    lines.extend(scene.trouble.iter().map(|what| format!("  ! {what}")));
    lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n")
}

/// What all leases together earned, cost and bring.
pub(super) fn yields(scene: &Scene) -> String {
    let sum = |side: &str, of: &dyn Fn(&LeaseLine) -> u64| {
        scene.leases.iter().filter(|lease| lease.side == side).map(of).fold(0, u64::saturating_add)
    };
    let fees = |lease: &LeaseLine| lease.execution_fee_sats.saturating_add(lease.chain_fee_sats);
    let premium = |lease: &LeaseLine| lease.premium_sats;
    let yearly = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
    format!(
        "sold {} for {} sat (fees {}), {} gross, {} net a year; bought {} for {} sat (fees {})",
        coins(sum("sold", &|lease| lease.amount_sats)),
        grouped(sum("sold", &premium)),
        grouped(sum("sold", &fees)),
        yearly(scene.gross_yield_ratio),
        yearly(scene.net_yield_ratio),
        coins(sum("bought", &|lease| lease.amount_sats)),
        grouped(sum("bought", &premium)),
        grouped(sum("bought", &fees)),
    )
}
