//! Ways in which a venue may lie when it proposes a batch.
//!
//! Each row breaks one thing and makes the rest agree with it as far as a liar could: balances are recomputed, outputs are
//! paid and sorted. A row that does not apply to a scene answers nothing.

use crate::table::Row;
use tidegate_protocol::batch::{BatchVersion, EndingState};
use tidegate_protocol::bitcoin::absolute::LockTime;
use tidegate_protocol::bitcoin::secp256k1::Secp256k1;
use tidegate_protocol::bitcoin::transaction::Version;
use tidegate_protocol::bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, MultisigKey, NodeId, OrderNonce};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, OrderChannelType, OrderSide,
    OrderVersion,
};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

/// The conversation, the orders, the pairs.
pub(crate) const PAIRS: &[Row] = &[
    ("another batch version", "BatchVersion", |s| {
        s.prepare.batch_version = BatchVersion(s.prepare.batch_version.0 ^ 1);
        Some(())
    }),
    ("a flag less in the batch version", "BatchVersion", |s| {
        let spoken = s.prepare.batch_version.0;
        s.prepare.batch_version = BatchVersion(spoken & !0x30);
        (spoken & 0x30 != 0).then_some(())
    }),
    ("height hint too low", "Height", |s| {
        s.prepare.height_hint = BlockHeight::new(s.local.best_height.get() - 4);
        Some(())
    }),
    ("height hint too high", "Height", |s| {
        s.prepare.height_hint = BlockHeight::new(s.local.best_height.get() + 4);
        Some(())
    }),
    ("absurd height hint", "Height", |s| {
        s.prepare.height_hint = BlockHeight::new(u32::MAX);
        Some(())
    }),
    ("an order that is not ours", "UnknownOrder", |s| {
        let place = s.place();
        let nonce = OrderNonce::new(s.draw.bytes());
        let market = s.prepare.markets.get_mut(&place.0)?;
        let matches = market.orders.remove(&place.1)?;
        market.orders.insert(nonce, matches);
        Some(())
    }),
    ("an order without a match", "NoMatch", |s| {
        let place = s.place();
        s.list(place).clear();
        Some(())
    }),
    ("an order listed under a second duration", "Duration", |s| {
        let place = s.place();
        let market = s.prepare.markets[&place.0].clone();
        let other = BlockCount::new(place.0.get() + 2_016);
        if s.prepare.markets.contains_key(&other) {
            return None;
        }
        s.prepare.markets.insert(other, market);
        Some(())
    }),
    ("a market of another duration", "Duration", |s| {
        let place = s.place();
        let market = s.prepare.markets.remove(&place.0)?;
        s.prepare.markets.insert(BlockCount::new(place.0.get() - 144), market);
        Some(())
    }),
    ("the other order has another duration", "Duration", |s| {
        let place = s.place();
        s.other(place).duration = BlockCount::new(place.0.get() + 1);
        Some(())
    }),
    ("two orders of the same side", "SameSide", |s| {
        let place = s.place();
        s.other(place).side = match s.own(place).order.is_ask() {
            true => OrderSide::Ask(AskTerms::default()),
            false => OrderSide::Bid(BidTerms::default()),
        };
        Some(())
    }),
    ("an order of the other market", "AuctionType", |s| {
        let place = s.place();
        s.other(place).auction = match s.own(place).order.auction {
            AuctionType::Inbound => AuctionType::Outbound,
            AuctionType::Outbound => AuctionType::Inbound,
        };
        Some(())
    }),
    ("our own node", "OwnNode", |s| {
        let place = s.place();
        s.at(place).order.node = s.local.node;
        Some(())
    }),
    ("our own account", "OwnAccount", |s| {
        let place = s.place();
        s.other(place).account = s.account(place).key();
        Some(())
    }),
    ("our own order", "OwnOrder", |s| {
        let place = s.place();
        let own: Vec<OrderNonce> = s.local.orders.keys().copied().collect();
        s.other(place).nonce = s.draw.pick(&own);
        Some(())
    }),
    ("our own funding key", "OwnKey", |s| {
        let place = s.place();
        s.at(place).order.multisig = MultisigKey::new(s.own(place).multisig.point);
        Some(())
    }),
    ("our own funding key negated", "OwnKey", |s| {
        let place = s.place();
        let negated = s.own(place).multisig.point.negate(&Secp256k1::new());
        s.at(place).order.multisig = MultisigKey::new(negated);
        Some(())
    }),
    ("the funding key of another order of ours", "OwnKey", |s| {
        let place = s.place();
        let others: Vec<_> = s.local.orders.values().filter(|own| own.order.nonce != place.1).collect();
        let key = others.first()?.multisig.point;
        s.at(place).order.multisig = MultisigKey::new(key);
        Some(())
    }),
    ("an ask above the bid", "Price", |s| {
        let place = s.place();
        let (ask, rate) = (s.own(place).order.is_ask(), s.own(place).order.rate.get());
        s.other(place).rate = RatePerBillion::new(if ask { rate.checked_sub(1)? } else { rate + 1 });
        Some(())
    }),
    ("a price beyond our limit", "ClearingPrice", |s| {
        let place = s.place();
        let (ask, rate) = (s.own(place).order.is_ask(), s.own(place).order.rate.get());
        let price = if ask { rate.checked_sub(1)? } else { rate + 1 };
        s.prepare.markets.get_mut(&place.0)?.clearing_price = RatePerBillion::new(price);
        s.rebalance()
    }),
    ("a price beyond their limit", "TheirLimit", |s| {
        let place = s.place();
        let price = s.prepare.markets[&place.0].clearing_price.get();
        let (ask, rate) = (s.own(place).order.is_ask(), s.own(place).order.rate.get());
        let theirs = if ask { price.checked_sub(1)? } else { price + 1 };
        // Still at least as much as the ask wants.
        let crosses = if ask { rate <= theirs } else { rate >= theirs };
        s.other(place).rate = RatePerBillion::new(theirs);
        crosses.then_some(())
    }),
    ("no price", "ClearingPrice", |s| {
        let place = s.place_where(|own, _| own.order.is_ask())?;
        s.prepare.markets.get_mut(&place.0)?.clearing_price = RatePerBillion::new(0);
        s.rebalance()
    }),
    ("a match of no unit", "EmptyMatch", |s| {
        let place = s.place();
        s.at(place).units = UnitCount::ZERO;
        Some(())
    }),
    ("a match below our minimum", "MatchBelowMinimum", |s| {
        let place =
            s.place_where(|own, _| own.order.auction == AuctionType::Inbound && own.order.min_units.get() > 1)?;
        s.at(place).units = UnitCount::new(s.own(place).order.min_units.get() - 1);
        s.fund(place);
        s.rebalance()
    }),
    ("a match below our minimum, the sum above it", "MatchBelowMinimum", |s| {
        let place = s.place_where(|own, m| {
            let (min, units) = (own.order.min_units.get(), m.units.get());
            own.order.auction == AuctionType::Inbound
                && min > 1
                && units >= min
                && own.order.self_balance() == Sats::ZERO
        })?;
        let units = s.at(place).units.get();
        let part = s.own(place).order.min_units.get() - 1;
        let (key, nonce) = (MultisigKey::new(s.stranger()), OrderNonce::new(s.draw.bytes()));
        let mut second = s.at(place).clone();
        second.units = UnitCount::new(units - part);
        (second.order.multisig, second.order.order.nonce) = (key, nonce);
        s.at(place).units = UnitCount::new(part);
        s.list(place).push(second);
        Some(())
    }),
    ("a unit more than the order has", "Overfilled", |s| {
        let place = s.place();
        let more = s.own(place).units_unfulfilled.get() + 1;
        s.at(place).units = UnitCount::new(more);
        s.other(place).amount = UnitCount::new(1_000_000).to_sats();
        s.fund(place);
        s.rebalance()
    }),
    ("more units than the other order has", "TheirAmount", |s| {
        let place = s.place();
        let units = s.at(place).units.get();
        s.other(place).amount = UnitCount::new(units - 1).to_sats();
        Some(())
    }),
    ("fewer units than the other order gives", "TheirMinimum", |s| {
        let place = s.place_where(|own, _| own.order.auction == AuctionType::Inbound)?;
        let units = s.at(place).units.get();
        s.other(place).min_units = UnitCount::new(units + 1);
        Some(())
    }),
    ("units that wrap in 32 bits", "Overfilled|ChannelOutputMissing", |s| {
        let place = s.place();
        let mut second = s.at(place).clone();
        (second.order.multisig, second.order.order.nonce) =
            (MultisigKey::new(s.stranger()), OrderNonce::new(s.draw.bytes()));
        second.units = UnitCount::new(u32::MAX);
        s.list(place).insert(0, second);
        Some(())
    }),
    ("a pair listed twice, one channel", "SamePairTwice|Overfilled", |s| {
        let place = s.place();
        let again = s.at(place).clone();
        s.list(place).push(again);
        Some(())
    }),
    ("a pair listed twice, two channels", "SamePairTwice|Overfilled|OutputTwice", |s| {
        let place = s.place();
        let again = s.at(place).clone();
        let output = s.channel(place).clone();
        s.list(place).push(again);
        s.prepare.transaction.output.push(output);
        s.sort();
        Some(())
    }),
    ("one output for two matches", "ChannelOutputShared|Overfilled", |s| {
        let place = s.place();
        let mut again = s.at(place).clone();
        again.order.order.nonce = OrderNonce::new(s.draw.bytes());
        s.list(place).push(again);
        Some(())
    }),
];

/// What each side may expect of a channel.
pub(crate) const CHANNELS: &[Row] = &[
    ("no output for the channel", "ChannelOutputMissing", |s| {
        let place = s.place();
        let script = s.channel(place).script_pubkey.clone();
        s.prepare.transaction.output.retain(|output| output.script_pubkey != script);
        Some(())
    }),
    ("a stranger's key in the channel", "ChannelOutputMissing", |s| {
        let place = s.place();
        let other = s.at(place).order.multisig;
        s.at(place).order.multisig = MultisigKey::new(s.stranger());
        let script = s.funding(place, s.pair_commitment(place));
        s.at(place).order.multisig = other;
        s.channel(place).script_pubkey = script;
        s.sort();
        Some(())
    }),
    ("a channel of another type", "ChannelOutputMissing", |s| {
        use tidegate_protocol::channel::CommitmentType::{Negotiated, SimpleTaproot};
        let place = s.place();
        let other = if s.pair_commitment(place) == SimpleTaproot { Negotiated } else { SimpleTaproot };
        let script = s.funding(place, other);
        s.channel(place).script_pubkey = script;
        s.sort();
        Some(())
    }),
    ("a channel of one satoshi less", "ChannelOutputValue", |s| {
        let place = s.place();
        s.channel(place).value -= Amount::ONE_SAT;
        s.sort();
        Some(())
    }),
    ("a channel of one satoshi more", "ChannelOutputValue", |s| {
        let place = s.place();
        s.channel(place).value += Amount::ONE_SAT;
        s.sort();
        Some(())
    }),
    ("a channel without the self balance", "ChannelOutputValue", |s| {
        let place =
            s.place_where(|own, m| own.order.self_balance() > Sats::ZERO || m.order.order.self_balance() > Sats::ZERO)?;
        s.channel(place).value = s.at(place).units.to_sats().into();
        s.sort();
        Some(())
    }),
    ("a right output behind a wrong one", "ChannelOutputValue", |s| {
        let place = s.place();
        let mut small = s.channel(place).clone();
        small.value -= Amount::ONE_SAT;
        s.prepare.transaction.output.push(small);
        s.sort();
        Some(())
    }),
    ("another self balance", "EndingBalance|ChannelOutputValue|Outbound", |s| {
        let place = s.place_where(|own, m| own.order.is_ask() && m.order.order.self_balance() > Sats::ZERO)?;
        let bid = s.other_bid(place)?;
        bid.self_balance = Sats::new(bid.self_balance.get() - 1).ok()?;
        Some(())
    }),
    ("a self balance beyond all bitcoin", "Arithmetic", |s| {
        let place = s.place_where(|own, _| own.order.is_ask() && own.order.version >= OrderVersion::V4)?;
        s.other_bid(place)?.self_balance = Sats::MAX;
        Some(())
    }),
    ("a self balance for an ask of an old version", "SelfBalanceOnOldAsk", |s| {
        let place = s.place_where(|own, m| {
            own.order.is_ask()
                && own.order.version < OrderVersion::V4
                && own.order.auction == AuctionType::Inbound
                && m.order.order.self_balance() == Sats::ZERO
        })?;
        s.other_bid(place)?.self_balance = Sats::constant(1_000);
        s.fund(place);
        s.rebalance()
    }),
    ("a self balance that their ask does not know", "SelfBalanceOnOldAsk", |s| {
        let place = s.place_where(|own, _| own.order.self_balance() > Sats::ZERO)?;
        s.other(place).version = OrderVersion::V2;
        Some(())
    }),
    ("another channel type than ours", "ChannelType", |s| {
        let place = s.place_where(|own, _| own.order.channel_type == OrderChannelType::SimpleTaproot)?;
        let script = s.channel(place).script_pubkey.clone();
        let kinds = [OrderChannelType::PeerDependent, OrderChannelType::ScriptEnforced];
        s.other(place).channel_type = s.draw.pick(&kinds);
        let legacy = s.funding(place, s.pair_commitment(place));
        s.prepare.transaction.output.iter_mut().find(|output| output.script_pubkey == script)?.script_pubkey = legacy;
        s.sort();
        Some(())
    }),
    ("announced against our wish", "Announcement", |s| {
        let place = s.place_where(|own, _| {
            own.order.ask().is_some_and(|ask| ask.announcement != AnnouncementConstraint::None)
        })?;
        let bid = s.other_bid(place)?;
        bid.unannounced = !bid.unannounced;
        Some(())
    }),
    ("an ask that announces otherwise than our bid", "Announcement", |s| {
        let place = s.place_where(|own, _| own.order.bid().is_some())?;
        let unannounced = s.own(place).order.bid()?.unannounced;
        s.other_ask(place)?.announcement = match unannounced {
            true => AnnouncementConstraint::OnlyAnnounced,
            false => AnnouncementConstraint::OnlyUnannounced,
        };
        Some(())
    }),
    ("zero-conf against our wish", "Confirmation", |s| {
        let place = s.place_where(|own, _| {
            own.order.ask().is_some_and(|ask| ask.confirmation != ConfirmationConstraint::None)
        })?;
        let bid = s.other_bid(place)?;
        bid.zero_conf = !bid.zero_conf;
        Some(())
    }),
    ("an ask that confirms otherwise than our bid", "Confirmation", |s| {
        let place = s.place_where(|own, _| own.order.bid().is_some())?;
        let zero_conf = s.own(place).order.bid()?.zero_conf;
        s.other_ask(place)?.confirmation = match zero_conf {
            true => ConfirmationConstraint::OnlyConfirmed,
            false => ConfirmationConstraint::OnlyZeroConf,
        };
        Some(())
    }),
    ("a self balance below our smallest outbound match", "Outbound", |s| {
        let place = s.place_where(|own, _| {
            own.order.is_ask() && own.order.auction == AuctionType::Outbound && own.order.min_units.get() > 1
        })?;
        let min = s.own(place).order.min_units.get();
        s.other_bid(place)?.self_balance = UnitCount::new(min - 1).to_sats();
        s.fund(place);
        s.rebalance()
    }),
    ("a node that our allow list does not have", "NodeRefused", |s| {
        let place = s.place_where(|own, _| !own.order.allowed_nodes.is_empty())?;
        s.at(place).order.node = NodeId::new(s.stranger());
        Some(())
    }),
    ("a node on our deny list", "NodeRefused", |s| {
        let place = s.place_where(|own, _| !own.order.denied_nodes.is_empty())?;
        s.at(place).order.node = s.own(place).order.denied_nodes[0];
        Some(())
    }),
];

/// What is charged, and what becomes of the accounts.
pub(crate) const MONEY: &[Row] = &[
    ("a chain fee rate above our limit", "FeeRate", |s| {
        let place = s.place();
        s.prepare.fee_rate = SatPerKw::new(s.own(place).order.max_batch_fee_rate.get() + 1);
        s.rebalance()
    }),
    ("an absurd chain fee rate", "FeeRate", |s| {
        s.prepare.fee_rate = SatPerKw::new(u64::MAX);
        Some(())
    }),
    ("a base fee above the ceiling", "ExecutionFeeBase", |s| {
        let place = s.place();
        s.prepare.execution_fee.base = s.own(place).fee_ceiling.base.checked_add(Sats::constant(1))?;
        s.rebalance()
    }),
    ("a fee rate above the ceiling", "ExecutionFeeRate", |s| {
        let place = s.place();
        s.prepare.execution_fee.rate_ppm = s.own(place).fee_ceiling.rate_ppm + 1;
        s.rebalance()
    }),
    ("an absurd fee rate", "Arithmetic|ExecutionFeeRate", |s| {
        s.prepare.execution_fee.rate_ppm = u64::MAX;
        Some(())
    }),
    ("a satoshi less, reported and paid", "EndingBalance", |s| {
        let change = s.change(true)?;
        let balance = s.diff(change).ending_balance.get();
        s.set_balance(change, i64::try_from(balance).ok()? - 1)?;
        s.sort();
        Some(())
    }),
    ("a satoshi more, reported and paid", "EndingBalance", |s| {
        let change = s.change(true)?;
        let balance = s.diff(change).ending_balance.get();
        s.set_balance(change, i64::try_from(balance).ok()? + 1)?;
        s.sort();
        Some(())
    }),
    ("a satoshi less paid than reported", "OutputValue", |s| {
        let change = s.change(true)?;
        s.output(change).value -= Amount::ONE_SAT;
        s.sort();
        Some(())
    }),
    ("a satoshi more paid than reported", "OutputValue", |s| {
        let change = s.change(true)?;
        s.output(change).value += Amount::ONE_SAT;
        s.sort();
        Some(())
    }),
    ("all money said to be dust", "EndingBalance|NotRecreated", |s| {
        let change = s.change(true)?;
        let index = usize::try_from(s.diff(change).output_index?).ok()?;
        s.prepare.transaction.output.remove(index);
        let diff = s.diff(change);
        (diff.ending_balance, diff.ending_state, diff.output_index) = (Sats::ZERO, EndingState::FullySpent, None);
        Some(())
    }),
    ("an account that lives on said to be spent", "NotRecreated", |s| {
        let change = s.change(true)?;
        let states = [EndingState::FullySpent, EndingState::DustAddedToFees, EndingState::DustExtendedOffchain];
        s.diff(change).ending_state = s.draw.pick(&states);
        s.diff(change).output_index = None;
        Some(())
    }),
    ("dust said to be an output", "DustState", |s| {
        let change = s.change(false)?;
        s.diff(change).ending_state = EndingState::Recreated;
        Some(())
    }),
    ("an output named for dust", "DustIndex", |s| {
        let change = s.change(false)?;
        s.diff(change).output_index = Some(0);
        Some(())
    }),
    ("no output named", "OutputIndexMissing", |s| {
        let change = s.change(true)?;
        s.diff(change).output_index = None;
        Some(())
    }),
    ("an output behind the last one", "OutputIndexRange", |s| {
        let change = s.change(true)?;
        s.diff(change).output_index = Some(u32::try_from(s.prepare.transaction.output.len()).ok()?);
        Some(())
    }),
    ("another output named", "OutputValue|OutputScript", |s| {
        let change = s.change(true)?;
        let count = u32::try_from(s.prepare.transaction.output.len()).ok()?;
        let index = s.diff(change).output_index?;
        s.diff(change).output_index = Some((index + 1) % count);
        Some(())
    }),
    ("an account without report", "DiffMissing", |s| {
        let change = s.draw.index(s.prepare.accounts.len());
        s.prepare.accounts.remove(change);
        Some(())
    }),
    ("an account reported twice", "DiffTwice", |s| {
        let change = s.draw.index(s.prepare.accounts.len());
        let again = *s.diff(change);
        s.prepare.accounts.push(again);
        Some(())
    }),
    ("a report on a stranger's account", "DiffForUninvolved", |s| {
        let mut diff = *s.diff(0);
        diff.account = AccountKey::new(s.stranger());
        s.prepare.accounts.push(diff);
        Some(())
    }),
    ("a report on an account of ours that takes no part", "DiffForUninvolved", |s| {
        let idle = s.local.accounts.keys().find(|key| s.prepare.accounts.iter().all(|diff| diff.account != **key));
        let mut diff = *s.prepare.accounts.first()?;
        diff.account = *idle?;
        s.prepare.accounts.push(diff);
        Some(())
    }),
    ("an expiry that is not later", "ExpiryNotLater", |s| {
        let change = s.change(true).filter(|_| s.prepare.batch_version.extends_accounts())?;
        s.diff(change).new_expiry = Some(s.stored(change).terms.expiry);
        s.pay_to(change, |_, _| ());
        Some(())
    }),
    ("an expiry beyond the quoted extension", "ExtensionTooLong|ExpiryTooFar", |s| {
        let change = s.change(true).filter(|_| s.prepare.batch_version.extends_accounts())?;
        let quoted = s.local.orders.values().map(|own| own.extension_quoted).max()?;
        let latest = s.local.best_height.get() + 3 + quoted.max(s.local.extension_now).get();
        let found = BlockHeight::new(latest.max(s.stored(change).terms.expiry.get()) + 1);
        s.diff(change).new_expiry = Some(found);
        s.pay_to(change, |_, _| ());
        Some(())
    }),
    ("an expiry beyond the life of an account", "ExpiryTooFar", |s| {
        let change = s.change(true).filter(|_| s.prepare.batch_version.extends_accounts())?;
        s.diff(change).new_expiry = Some(BlockHeight::new(s.local.best_height.get() + 52_561));
        s.pay_to(change, |_, _| ());
        Some(())
    }),
    ("an unknown account version", "AccountVersion", |s| {
        let change = s.change(true).filter(|_| s.prepare.batch_version.upgrades_taproot())?;
        s.diff(change).new_version = 3;
        Some(())
    }),
];

/// The recreated outputs and the transaction.
pub(crate) const TRANSACTION: &[Row] = &[
    ("the old batch key", "OutputScript", |s| {
        let change = s.change(true)?;
        s.pay_to(change, |terms, _| terms.batch = terms.batch.prev().unwrap());
        Some(())
    }),
    ("the batch key two steps further", "OutputScript", |s| {
        let change = s.change(true)?;
        s.pay_to(change, |terms, _| terms.batch = terms.batch.next().unwrap());
        Some(())
    }),
    ("another auctioneer's key", "OutputScript", |s| {
        let change = s.change(true)?;
        s.pay_to(change, |terms, stranger| terms.auctioneer = AuctioneerKey::new(stranger));
        Some(())
    }),
    ("another trader's key", "OutputScript", |s| {
        let change = s.change(true)?;
        s.pay_to(change, |terms, stranger| terms.trader = AccountKey::new(stranger));
        Some(())
    }),
    ("another expiry in the script", "OutputScript", |s| {
        let change = s.change(true)?;
        s.pay_to(change, |terms, _| terms.expiry = BlockHeight::new(terms.expiry.get() + 1));
        Some(())
    }),
    ("another version in the script", "OutputScript", |s| {
        use tidegate_protocol::account::AccountVersion::{V0, V1, V2};
        let change = s.change(true)?;
        s.pay_to(change, |terms, _| {
            terms.version = match terms.version {
                V0 => V1,
                V1 => V2,
                V2 => V0,
            };
        });
        Some(())
    }),
    ("a script of anybody", "OutputScript", |s| {
        let change = s.change(true)?;
        s.output(change).script_pubkey = ScriptBuf::new_p2a();
        s.sort();
        Some(())
    }),
    ("transaction version 1", "TransactionVersion", |s| {
        s.prepare.transaction.version = Version::ONE;
        Some(())
    }),
    ("transaction version 3", "TransactionVersion", |s| {
        s.prepare.transaction.version = Version(3);
        Some(())
    }),
    ("a lock time of a far height", "LockTime", |s| {
        s.prepare.transaction.lock_time = LockTime::from_consensus(499_999_999);
        Some(())
    }),
    ("a lock time of a far day", "LockTime", |s| {
        s.prepare.transaction.lock_time = LockTime::from_consensus(u32::MAX);
        Some(())
    }),
    ("a sequence at our input", "Sequence", |s| {
        let input = s.input(s.prepare.accounts[0].account);
        s.prepare.transaction.input[input].sequence = Sequence::from_height(100);
        Some(())
    }),
    ("a final sequence at another input", "Sequence", |s| {
        let input = s.foreign_input();
        s.prepare.transaction.input[input].sequence = Sequence::MAX;
        Some(())
    }),
    ("an input script", "NotUnsigned", |s| {
        let input = s.foreign_input();
        s.prepare.transaction.input[input].script_sig = ScriptBuf::from_bytes(vec![0x51]);
        Some(())
    }),
    ("a witness", "NotUnsigned", |s| {
        let input = s.foreign_input();
        s.prepare.transaction.input[input].witness = Witness::from_slice(&[[0; 64]]);
        Some(())
    }),
    ("our input twice", "InputTwice", |s| {
        let input = s.input(s.prepare.accounts[0].account);
        let again = s.prepare.transaction.input[input].clone();
        s.prepare.transaction.input.insert(input, again);
        Some(())
    }),
    ("another input twice", "InputTwice", |s| {
        let input = s.foreign_input();
        let again = s.prepare.transaction.input[input].clone();
        s.prepare.transaction.input.insert(input, again);
        Some(())
    }),
    ("our input missing", "OwnInputMissing", |s| {
        let input = s.input(s.prepare.accounts[0].account);
        s.prepare.transaction.input.remove(input);
        Some(())
    }),
    ("an account of ours that takes no part is spent", "OwnInputSpent", |s| {
        let idle = s.local.accounts.values().find(|account| {
            s.prepare.accounts.iter().all(|diff| diff.account != account.key()) && account.outpoint.is_some()
        })?;
        let previous_output = idle.outpoint?;
        let input = TxIn { previous_output, sequence: Sequence::ZERO, ..TxIn::default() };
        s.prepare.transaction.input.push(input);
        s.prepare
            .transaction
            .input
            .sort_by_key(|input| (input.previous_output.txid.to_string(), input.previous_output.vout));
        Some(())
    }),
    ("more money than there is", "OutputSum", |s| {
        s.prepare.transaction.output.push(TxOut { value: Amount::MAX_MONEY, script_pubkey: ScriptBuf::new_p2a() });
        Some(())
    }),
    ("an amount that wraps", "OutputSum", |s| {
        s.prepare.transaction.output.push(TxOut { value: Amount::MAX, script_pubkey: ScriptBuf::new_p2a() });
        Some(())
    }),
    ("a transaction that no block holds", "TransactionWeight", |s| {
        let script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 1_000_001]);
        s.prepare.transaction.output.push(TxOut { value: Amount::MAX_MONEY, script_pubkey });
        Some(())
    }),
    ("inputs out of order", "InputOrder", |s| {
        s.prepare.transaction.input.reverse();
        (s.prepare.transaction.input.len() > 1).then_some(())
    }),
    ("outputs out of order", "OutputOrder", |s| {
        let last = s.prepare.transaction.output.len() - 1;
        let (first, end) = (u32::MIN, u32::try_from(last).ok()?);
        s.prepare.transaction.output.swap(0, last);
        for diff in &mut s.prepare.accounts {
            diff.output_index = match diff.output_index {
                Some(index) if index == first => Some(end),
                Some(index) if index == end => Some(first),
                other => other,
            };
        }
        Some(())
    }),
];
