//! Hand-made values for this crate's tests.

use crate::book::{ChangeKind, Lease, OwnChange, StagedAccount, StagedBatch, StagedMatch, StagedOrder, Standing};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use std::collections::BTreeMap;
use tidegate_ports::Timestamp;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{
    AccountKey, AuctioneerKey, BatchKey, KeyDescriptor, KeyLocator, NodeId, OrderNonce, PendingChannelId, SharedSecret,
};
use tidegate_protocol::order::{
    AskTerms, AuctionType, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder,
};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

pub(crate) fn point(seed: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[seed.max(1); 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

pub(crate) fn account_key(seed: u8) -> AccountKey {
    AccountKey::new(point(seed))
}

pub(crate) fn batch_key(seed: u8) -> BatchKey {
    BatchKey::new(point(seed))
}

pub(crate) fn node(seed: u8) -> NodeId {
    NodeId::new(point(seed))
}

pub(crate) fn nonce(seed: u8) -> OrderNonce {
    OrderNonce::new([seed; 32])
}

pub(crate) fn outpoint(seed: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([seed; 32]), 0)
}

/// An open account of 1,000,000 sat at [`outpoint`]`(seed)`.
pub(crate) fn account(seed: u8) -> Account {
    Account {
        terms: AccountTerms {
            version: AccountVersion::V2,
            trader: account_key(seed),
            auctioneer: AuctioneerKey::new(point(100)),
            batch: batch_key(101),
            secret: SharedSecret::new([seed; 32]),
            expiry: BlockHeight::new(5_000),
        },
        locator: KeyLocator { family: 220, index: u32::from(seed) },
        value: Sats::constant(1_000_000),
        state: AccountState::Open,
        height_hint: BlockHeight::new(600),
        outpoint: Some(outpoint(seed)),
        latest_tx: None,
    }
}

pub(crate) fn spend_of(spent: OutPoint) -> Transaction {
    let script = ScriptBuf::from_bytes([vec![0x51, 0x20], vec![7; 32]].concat());
    let input = TxIn {
        previous_output: spent,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ZERO,
        witness: Witness::new(),
    };
    let output = TxOut { value: Amount::from_sat(900_000), script_pubkey: script };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// The account of the same seed while its unsigned close is unconfirmed.
pub(crate) fn closing_account(seed: u8) -> Account {
    let latest_tx = Some(spend_of(outpoint(seed)));
    Account { state: AccountState::PendingClosed, value: Sats::ZERO, latest_tx, ..account(seed) }
}

/// A change of the account of this seed, not confirmed yet; a deposit spends the coin at [`outpoint`]`(200)`.
pub(crate) fn own_change(seed: u8, kind: ChangeKind) -> OwnChange {
    let before = account(seed);
    let mut transaction = spend_of(outpoint(seed));
    let script = ScriptBuf::from_bytes([vec![0x00, 0x14], vec![9; 20]].concat());
    let coins = match kind {
        ChangeKind::Deposit => vec![(outpoint(200), script)],
        ChangeKind::Withdraw | ChangeKind::Renew | ChangeKind::Close => Vec::new(),
    };
    for (coin, _) in &coins {
        transaction.input.push(TxIn { previous_output: *coin, ..transaction.input[0].clone() });
    }
    transaction.input.iter_mut().for_each(|input| input.witness = Witness::from_slice(&[[1u8; 64]]));
    let terms = before.terms.next().unwrap();
    if kind != ChangeKind::Close {
        transaction.output = vec![terms.output(Sats::constant(800_000)).unwrap()];
    }
    let txid = transaction.compute_txid();
    let latest_tx = Some(transaction);
    let after = match kind {
        ChangeKind::Close => {
            Account { state: AccountState::PendingClosed, value: Sats::ZERO, latest_tx, ..before.clone() }
        }
        ChangeKind::Deposit | ChangeKind::Withdraw | ChangeKind::Renew => Account {
            terms,
            state: AccountState::PendingUpdate,
            value: Sats::constant(800_000),
            outpoint: Some(OutPoint::new(txid, 0)),
            latest_tx,
            ..before.clone()
        },
    };
    OwnChange {
        kind,
        before,
        after,
        label: "poold -- {}".into(),
        fee: Sats::constant(200),
        coins,
        void: false,
        signed_at: Timestamp(1),
        height: BlockHeight::new(700),
    }
}

/// A submitted ask of 5 units on the account of the same seed.
pub(crate) fn own_ask(seed: u8) -> OwnOrder {
    OwnOrder {
        order: Order {
            nonce: nonce(seed),
            version: OrderVersion::V5,
            account: account_key(seed),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(700),
            amount: Sats::constant(500_000),
            min_units: UnitCount::new(1),
            duration: BlockCount::new(2016),
            max_batch_fee_rate: SatPerKw::new(1_000),
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side: OrderSide::Ask(AskTerms::default()),
        },
        preimage: None,
        state: OrderState::Submitted,
        units_unfulfilled: UnitCount::new(5),
        multisig: KeyDescriptor { point: point(50), locator: KeyLocator { family: 0, index: 3 } },
        fee_ceiling: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        extension_quoted: BlockCount::new(3024),
    }
}

/// A signed batch that leases 2 units of the ask of seed 1.
pub(crate) fn staged_batch() -> StagedBatch {
    let before = account(1);
    let spent = outpoint(1);
    let transaction = spend_of(spent);
    let txid = transaction.compute_txid();
    let after = Account {
        state: AccountState::PendingBatch,
        value: Sats::constant(900_000),
        outpoint: Some(OutPoint::new(txid, 0)),
        latest_tx: Some(transaction.clone()),
        terms: AccountTerms { batch: batch_key(102), ..before.terms },
        ..before
    };
    let lease = Lease {
        batch_id: batch_key(60),
        txid,
        channel: OutPoint::new(txid, 1),
        account: after.key(),
        ours: nonce(1),
        theirs: nonce(2),
        node: node(70),
        maker: true,
        units: UnitCount::new(2),
        duration: BlockCount::new(2016),
        clearing_price: RatePerBillion::new(800),
        premium: Sats::constant(322),
        execution_fee: Sats::constant(201),
        chain_fee: Sats::constant(300),
        self_balance: Sats::ZERO,
        booked_at: Timestamp(0),
        height: BlockHeight::new(700),
    };
    StagedBatch {
        batch_id: batch_key(60),
        transaction,
        standing: Standing::Active,
        height_hint: BlockHeight::new(700),
        fee_rate: SatPerKw::new(500),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        prices: BTreeMap::from([(BlockCount::new(2016), RatePerBillion::new(800))]),
        accounts: vec![StagedAccount { spent, before: account(1).terms, after, recreated: true }],
        orders: vec![StagedOrder {
            nonce: nonce(1),
            state: OrderState::PartiallyFilled,
            units_unfulfilled: UnitCount::new(3),
        }],
        matches: vec![StagedMatch { lease, pending_id: PendingChannelId::new([9; 32]) }],
        signed_at: Timestamp(1),
    }
}
