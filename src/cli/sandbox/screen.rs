//! The view: one picture of the market, drawn over the last one. What is drawn is plain text; only [`Screen`] knows
//! terminals.

use super::text::{short, yields};
use super::{coins, percent};
use crate::cli::harmless::harmless;
use crate::cli::show::grouped;
use crate::daemon::sandbox::live::{ClearingLine, LeaseLine, OrderLine, Scene};
use anyhow::Context as _;
use std::io::Write as _;

/// Size when the terminal does not tell its own.
const USUAL: (usize, usize) = (80, 40);
/// Rows of the chart.
const CHART_ROWS: usize = 5;
/// Columns left of the chart's bars.
const CHART_LABELS: usize = 8;
/// Eighths of a row, from nothing to all of it.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Leases and events that are always given room.
const LEASES: usize = 6;
const EVENTS: usize = 5;

/// Alternate screen, no cursor; cursor home; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const HOME: &str = "\x1b[H";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Clears the rest of a line, and the rest of the screen.
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// The terminal, taken over until this is dropped.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub(super) fn enter() -> anyhow::Result<Screen> {
        crate::cli::log::hold();
        write(ENTER)?;
        Ok(Screen(()))
    }

    /// Draws a picture.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub(super) fn draw(&mut self, scene: &Scene, events: &[String]) -> anyhow::Result<()> {
        let size = terminal_size::terminal_size()
            .map_or(USUAL, |(width, height)| (usize::from(width.0), usize::from(height.0)));
        self.put(&picture(scene, events, size), size)
    }

    /// Says what is waited for.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub(super) fn wait(&mut self, what: &str) -> anyhow::Result<()> {
        self.put(&[what.to_owned()], USUAL)
    }

    fn put(&mut self, lines: &[String], (width, height): (usize, usize)) -> anyhow::Result<()> {
        let mut out = HOME.to_owned();
        for (index, line) in lines.iter().take(height).enumerate() {
            if index > 0 {
                out.push_str("\r\n");
            }
            out.extend(harmless(line).chars().take(width));
            out.push_str(REST_OF_LINE);
        }
        out.push_str(REST_OF_SCREEN);
        write(&out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        drop(write(LEAVE));
        crate::cli::log::release();
    }
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can not write to the terminal")
}

/// The picture, line by line, in at most `height` lines.
fn picture(scene: &Scene, events: &[String], (width, height): (usize, usize)) -> Vec<String> {
    let mut top = head(scene);
    top.extend(chart(&scene.clearings, width));
    top.extend(accounts(scene));
    top.extend(orders(&scene.orders));
    let mut bottom = vec!["recent".to_owned()];
    bottom.extend(events.iter().rev().take(EVENTS).map(|event| format!("  {event}")));
    bottom.push(format!("metrics {}  status {}", scene.served.metrics, scene.served.status));
    bottom.push(format!("API {}  macaroon and certificate in {}", scene.served.rpc, scene.served.folder));
    // Leases take what is left.
    let room = height.saturating_sub(top.len().saturating_add(bottom.len()));
    top.extend(leases(scene, room.saturating_sub(3).max(LEASES)));
    let kept = height.saturating_sub(bottom.len());
    top.truncate(kept);
    top.extend(bottom);
    top
}

fn head(scene: &Scene) -> Vec<String> {
    let mut lines = vec![
        format!(
            "tidegate sandbox   seed {}   block {}   next clearing in {} blocks   {} blocks/s   Ctrl-C ends",
            scene.seed,
            grouped(scene.height.into()),
            scene.next_clearing_blocks,
            scene.speed
        ),
        format!(
            "role {}   chain fee {} sat/kW   faults on request: {}   last attempt: {}",
            scene.role, scene.fee_rate_sat_per_kw, scene.faults, scene.last_attempt
        ),
    ];
    lines.extend(scene.trouble.iter().map(|what| format!("! {what}")));
    lines.push(String::new());
    lines
}

/// The clearing rates as bars, newest to the right.
fn chart(clearings: &[ClearingLine], width: usize) -> Vec<String> {
    let Some(last) = clearings.last() else { return vec!["no batch yet".to_owned(), String::new()] };
    let title = format!(
        "clearing rate, ppb per block: {} (batch {}, {} leases, {} units){}",
        grouped(last.rate_ppb.into()),
        short(&last.batch),
        last.leases,
        last.units,
        if last.height.is_some() { "" } else { ", unconfirmed" }
    );
    let columns = width.saturating_sub(CHART_LABELS.saturating_add(1)).max(1);
    let from = clearings.len().saturating_sub(columns);
    let rates: Vec<u32> = clearings.iter().skip(from).map(|line| line.rate_ppb).collect();
    let (low, high) = (rates.iter().min().copied().unwrap_or(0), rates.iter().max().copied().unwrap_or(0));
    // The lowest bar has some height too, and equal rates make a line.
    let base = low.saturating_sub(high.saturating_sub(low) / 8).saturating_sub(1);
    let eighths = |rate: u32| level(rate.saturating_sub(base), high.saturating_sub(base), CHART_ROWS * 8);
    let mut lines = vec![title];
    for row in (0..CHART_ROWS).rev() {
        let label = match row {
            0 => grouped(low.into()),
            row if row == CHART_ROWS - 1 => grouped(high.into()),
            _ => String::new(),
        };
        let bar = |rate: &u32| BARS[eighths(*rate).saturating_sub(row * 8).min(8)];
        lines.push(format!("{label:>CHART_LABELS$} {}", rates.iter().map(bar).collect::<String>()));
    }
    lines.push(String::new());
    lines
}

/// `part` of `whole` in steps, rounded down; everything when there is no whole.
fn level(part: u32, whole: u32, steps: usize) -> usize {
    let steps_wide = u64::try_from(steps).unwrap_or(u64::MAX);
    let found = u64::from(part).saturating_mul(steps_wide).checked_div(u64::from(whole)).unwrap_or(steps_wide);
    usize::try_from(found).unwrap_or(steps).min(steps)
}

fn accounts(scene: &Scene) -> Vec<String> {
    let node = &scene.node;
    let mut lines = vec![format!(
        "our node: wallet {} sat; {} payments of {} sat through leases, {} sat earned by forwarding",
        coins(node.wallet_sats),
        grouped(node.payments),
        coins(node.paid_sats),
        grouped(node.forwarding_fees_msat / 1_000)
    )];
    for account in &scene.accounts {
        lines.push(format!(
            "our account {} {}: {} sat, {} reserved, expires at block {}",
            short(&account.account),
            account.state,
            grouped(account.value_sats),
            grouped(account.reserved_sats),
            grouped(account.expiry_height.into())
        ));
    }
    lines.push(String::new());
    lines
}

fn orders(orders: &[OrderLine]) -> Vec<String> {
    let mut lines = vec!["orders      side    ppb  filled  state, or why not filled".to_owned()];
    for order in orders {
        let told = match &order.why_not_filled {
            Some(why) if order.units_filled > 0 => format!("{}; {why}", order.state),
            Some(why) => why.clone(),
            None => order.state.to_owned(),
        };
        let filled = format!("{}/{}", order.units_filled, order.units);
        let rate = grouped(order.rate_ppb.into());
        lines.push(format!("{:<10}  {:<4} {rate:>6} {filled:>7}  {told}", short(&order.nonce), order.side));
    }
    lines.push(String::new());
    lines
}

fn leases(scene: &Scene, room: usize) -> Vec<String> {
    let mut lines = vec![
        format!("{} leases: {}", scene.leases.len(), yields(scene)),
        "side    with      amount  premium   matures  left   gross    net ppb   APR gross     net".to_owned(),
    ];
    lines.extend(scene.leases.iter().take(room).map(lease));
    lines.push(String::new());
    lines
}

fn lease(lease: &LeaseLine) -> String {
    format!(
        "{:<7} {:<8} {:>7} {:>8} {:>9} {:>5} {:>7.0} {:>9.0} {:>11} {:>8}",
        lease.side,
        short(&lease.counterparty),
        coins(lease.amount_sats),
        grouped(lease.premium_sats),
        grouped(lease.maturity_height.into()),
        lease.blocks_left,
        lease.gross_ppb,
        lease.net_ppb,
        percent(Some(lease.gross_apr_ratio)),
        percent(Some(lease.net_apr_ratio))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clearing(rate_ppb: u32) -> ClearingLine {
        ClearingLine {
            batch: "02ab".to_owned(),
            txid: String::new(),
            height: Some(1),
            rate_ppb,
            units: 10,
            leases: 2,
            fee_rate_sat_per_kw: 253,
        }
    }

    #[test]
    fn the_chart_shows_high_rates_high() {
        let rates = [1_000, 1_500, 2_000, 1_000];
        let lines = chart(&rates.map(clearing), 80);
        assert_eq!(lines.len(), CHART_ROWS + 2);
        let heights: Vec<usize> = (0..rates.len())
            .map(|column| {
                let cells = lines[1..=CHART_ROWS].iter().filter_map(|line| line.chars().nth(CHART_LABELS + 1 + column));
                cells.map(|cell| BARS.iter().position(|bar| *bar == cell).expect("a bar")).sum()
            })
            .collect();
        assert_eq!(heights[2], CHART_ROWS * 8, "{lines:?}");
        assert!(heights[0] > 0 && heights[0] < heights[1] && heights[1] < heights[2], "{heights:?}");
        assert_eq!(heights[0], heights[3]);
        assert!(lines[1].trim_start().starts_with("2,000") && lines[CHART_ROWS].trim_start().starts_with("1,000"));
    }

    #[test]
    fn the_chart_fits_and_needs_no_history() {
        assert_eq!(chart(&[], 80)[0], "no batch yet");
        let many: Vec<ClearingLine> = (0..200).map(|index| clearing(1_000 + index)).collect();
        assert!(chart(&many, 60).iter().skip(1).all(|line| line.chars().count() <= 60));
        assert_eq!(chart(&[clearing(7)], 80).len(), CHART_ROWS + 2, "one rate makes a chart too");
        assert_eq!(level(1, 0, 8), 8);
    }
}
