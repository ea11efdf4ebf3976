//! What makes plans wide: markets, kinds of channels, replacements, raises of fees, and what an operator does. Drawn
//! after everything else, so that what seeds meant before stays what it was.

use crate::plan::{NAMES, Plan, PlannedBump, PlannedOrder, PlannedTrader, small};
use tidegate_protocol::order::{AnnouncementConstraint, AuctionType, ConfirmationConstraint, OrderChannelType};
use tidegate_protocol::units::Sats;
use tidegate_sandbox::Random;
use tidegate_trader::FeeRise;
use tidegate_venue::Sweep;

/// Satoshi of a unit.
const UNIT: u64 = 100_000;

/// Adds what a seed draws besides.
pub(crate) fn widen(plan: &mut Plan) {
    let mut random = Random::named(plan.seed, "wide");
    let span_ms = plan.faults_ms;
    for trader in &mut plan.traders {
        trader.orders.iter_mut().for_each(|order| channel(&mut random, order));
        trader.orders.iter_mut().for_each(|order| whims(&mut random, order));
    }
    if random.chance(500_000) {
        outbound(&mut random, &mut plan.traders, span_ms);
    }
    if random.chance(400_000) {
        several(&mut random, &mut plan.traders, span_ms);
    }
    for trader in &mut plan.traders {
        let bumps = (0..random.between(0, 2)).map(|_| bump(&mut random, trader.accounts.len(), span_ms));
        trader.bumps = bumps.collect();
        trader.on_fee_rise = if random.chance(500_000) { FeeRise::Cancel } else { FeeRise::Resign };
        trader.new_nodes_only = random.chance(50_000);
    }
    let operator = &mut plan.operator;
    if random.chance(300_000) {
        let (above, keep) = (Sats::constant(800), Sats::constant(400));
        operator.sweep = Some(Sweep { above, keep });
    }
    if random.chance(300_000) {
        operator.withdrawals = vec![(random.between(span_ms / 3, span_ms), random.between(400, 3_000))];
    }
    if random.chance(250_000) {
        operator.fee_rise = Some((random.between(span_ms / 4, span_ms), small(random.between(1_200, 3_000))));
    }
}

fn part_of(random: &mut Random, accounts: usize) -> usize {
    usize::try_from(random.below(u64::try_from(accounts).unwrap_or(1))).unwrap_or(0)
}

/// What kind of channel an order wants.
fn channel(random: &mut Random, order: &mut PlannedOrder) {
    let taproot = order.channel_type == OrderChannelType::SimpleTaproot;
    let anchors = order.channel_type != OrderChannelType::PeerDependent;
    order.announcement = match (order.ask, random.below(10)) {
        // Taproot channels are not announced: an ask has to allow that, a bid to want it.
        (false, _) if taproot => AnnouncementConstraint::OnlyUnannounced,
        (false, 0..4) => AnnouncementConstraint::OnlyUnannounced,
        (true, 0) => AnnouncementConstraint::OnlyUnannounced,
        (true, 1) if !taproot => AnnouncementConstraint::OnlyAnnounced,
        (true | false, _) => AnnouncementConstraint::None,
    };
    order.confirmation = match (order.ask, random.below(10)) {
        (false, 0..4) if anchors => ConfirmationConstraint::OnlyZeroConf,
        (true, 0) if anchors => ConfirmationConstraint::OnlyZeroConf,
        (true, 1) => ConfirmationConstraint::OnlyConfirmed,
        (true | false, _) => ConfirmationConstraint::None,
    };
}

/// Another order takes its place, or it denies a node.
fn whims(random: &mut Random, order: &mut PlannedOrder) {
    if random.chance(200_000) {
        let change = random.between(0, 200);
        let rate =
            if order.ask { order.rate.saturating_sub(small(change)).max(50) } else { order.rate + small(change) };
        order.replaced = Some((order.at_ms + random.between(1_000, 150_000), rate));
    }
    if random.chance(50_000) {
        order.denies = Some(part_of(random, NAMES.len()));
    }
}

/// Orders of the market in which the taker brings most of the money: of one unit each.
fn outbound(random: &mut Random, traders: &mut [PlannedTrader], span_ms: u64) {
    let begin = random.between(0, span_ms / 2);
    for (index, trader) in traders.iter_mut().enumerate() {
        let ask = index % 2 == 0;
        let own = random.between(1, 3);
        let mut order = PlannedOrder {
            at_ms: begin + random.between(0, 30_000),
            account: part_of(random, trader.accounts.len()),
            ask,
            rate: small(if ask { random.between(50, 400) } else { random.between(300, 900) }),
            min_units: if ask { small(random.between(1, own)) } else { 1 },
            max_fee_rate: random.between(500, 5_000),
            self_balance: if ask { 0 } else { own * UNIT },
            auction: AuctionType::Outbound,
            ..PlannedOrder::default()
        };
        channel(random, &mut order);
        trader.orders.push(order);
    }
}

/// Two nodes place several orders each at the same time.
fn several(random: &mut Random, traders: &mut [PlannedTrader], span_ms: u64) {
    let at_ms = random.between(0, span_ms / 2);
    let units = small(random.between(1, 2));
    for (index, trader) in traders.iter_mut().enumerate().take(2) {
        let order = PlannedOrder {
            at_ms,
            account: part_of(random, trader.accounts.len()),
            ask: index == 0,
            rate: if index == 0 { 100 } else { 1_200 },
            units,
            min_units: units,
            max_fee_rate: random.between(1_500, 5_000),
            ..PlannedOrder::default()
        };
        trader.orders.extend([order, order]);
    }
}

fn bump(random: &mut Random, accounts: usize, span_ms: u64) -> PlannedBump {
    PlannedBump {
        at_ms: random.between(0, span_ms),
        account: part_of(random, accounts),
        fee_rate: random.between(1_000, 5_000),
    }
}
