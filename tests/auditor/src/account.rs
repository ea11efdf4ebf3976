//! Accounts: reservation and opening.

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Txid};

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::state::{Account, Order, OrderRecord, Output, Quote, Reserved};
use crate::wire::{decode, hexed, key, rpc};

/// An account that existed before the auditor came.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Trader key.
    pub key: PublicKey,
    /// Auctioneer key.
    pub auctioneer: PublicKey,
    /// Batch key of the current output.
    pub batch_key: PublicKey,
    /// The secret shared with the auctioneer.
    pub secret: Option<[u8; 32]>,
    /// Current output.
    pub outpoint: OutPoint,
    /// Its value.
    pub value_sat: u64,
    /// Its script.
    pub script: ScriptBuf,
    /// Absolute height.
    pub expiry: u32,
    /// 0, 1 or 2.
    pub version: u32,
    /// Batch version that its trader announced.
    pub batch_version: u32,
}

impl Auditor {
    /// Takes over an account that was opened before the auditor came.
    pub fn adopt_account(&mut self, owner: &Caller, baseline: Baseline) {
        let Baseline { key, auctioneer, batch_key, secret, outpoint, value_sat, script, expiry, version, .. } =
            baseline;
        let output = Output { outpoint, value_sat, script, expiry, version, batch_key };
        let account = Account {
            owner: owner.clone(),
            key,
            auctioneer,
            secret,
            reserved: Reserved { batch_key, value_sat, expiry, version },
            outputs: vec![output],
            current: Some(outpoint),
            batch_version: Some(baseline.batch_version),
        };
        self.accounts.insert(key.serialize(), account);
    }

    /// Takes over an order that was submitted before the auditor came. The caller's quote has to be adopted first.
    pub fn adopt_order(&mut self, owner: &Caller, order: Order) {
        let quoted = self.quotes.get(owner).map(|quote| (quote.base_fee_sat, quote.fee_ppm));
        let record = OrderRecord { order, caller: owner.clone(), closed: false, cancelled: false, quoted };
        self.orders.insert(record.order.nonce, record);
    }

    /// Takes over what the venue quoted before the auditor came.
    pub fn adopt_quote(&mut self, owner: &Caller, quote: Quote) {
        self.quotes.insert(owner.clone(), quote);
    }

    pub(crate) fn quoted(&mut self, caller: &Caller, response: &[u8]) {
        match decode::<rpc::TermsResponse>(response) {
            Ok(rpc::TermsResponse { execution_fee: Some(fee), auto_renew_extension_blocks, .. }) => {
                let quote = Quote {
                    base_fee_sat: fee.base_fee,
                    fee_ppm: fee.fee_rate,
                    extension_blocks: auto_renew_extension_blocks,
                };
                self.quotes.insert(caller.clone(), quote);
            }
            Ok(_) => self.breach(Party::Venue, caller, Rule::Decoding, &"terms", ("an execution fee", &"none")),
            Err(error) => self.breach(Party::Venue, caller, Rule::Decoding, &"terms", ("a message", &error)),
        }
    }

    pub(crate) fn reserved(&mut self, caller: &Caller, request: &[u8], response: &[u8]) {
        let request = decode::<rpc::ReserveAccountRequest>(request);
        let response = decode::<rpc::ReserveAccountResponse>(response);
        let (Ok(request), Ok(response)) = (request, response) else {
            return self.breach(Party::Venue, caller, Rule::Decoding, &"reservation", ("messages", &"other bytes"));
        };
        let keys = [&request.trader_key, &response.auctioneer_key, &response.initial_batch_key];
        let [Ok(key), Ok(auctioneer), Ok(batch_key)] = keys.map(|bytes| PublicKey::from_slice(bytes)) else {
            let subject = hexed(&request.trader_key);
            return self.breach(Party::Venue, caller, Rule::Decoding, &subject, ("three points", &"other bytes"));
        };
        let secret = self.oracle.as_mut().and_then(|oracle| oracle(&key, &auctioneer));
        let account = Account {
            owner: caller.clone(),
            key,
            auctioneer,
            secret,
            reserved: Reserved {
                batch_key,
                value_sat: request.account_value,
                expiry: request.account_expiry,
                version: request.version,
            },
            outputs: Vec::new(),
            current: None,
            batch_version: None,
        };
        let known = self.accounts.get(&key.serialize());
        if known.is_some_and(|known| known.current.is_some()) {
            let claim = ("a fresh account key", &"the key of an account that is open");
            return self.breach(Party::Trader, caller, Rule::AccountOpening, &key, (claim.0, claim.1));
        }
        self.accounts.insert(key.serialize(), account);
    }

    pub(crate) fn opened(&mut self, caller: &Caller, request: &[u8]) {
        let Ok(init) = decode::<rpc::ServerInitAccountRequest>(request) else {
            return self.breach(Party::Trader, caller, Rule::Decoding, &"opening", ("a message", &"other bytes"));
        };
        let subject = hexed(&init.trader_key);
        let outpoint = init.account_point.as_ref().and_then(outpoint);
        let Some((key, outpoint)) = key(&init.trader_key).zip(outpoint) else {
            return self.breach(Party::Trader, caller, Rule::Decoding, &subject, ("key and outpoint", &"other bytes"));
        };
        let Some(account) = self.accounts.get_mut(&key) else {
            let claim = ("a reservation", &"none that was seen");
            return self.breach(Party::Trader, caller, Rule::AccountOpening, &subject, (claim.0, claim.1));
        };
        let mut problems = Problems::default();
        let reserved = account.reserved;
        let what = format!("account {subject}");
        let told = (init.account_value, init.account_expiry, init.version);
        let promised = (reserved.value_sat, reserved.expiry, reserved.version);
        problems.equal(Rule::AccountOpening, &what, &promised, &told);
        problems.equal(Rule::AccountOpening, &what, &account.owner, caller);
        let script = ScriptBuf::from_bytes(init.account_script);
        if account.secret.is_some() {
            let scripts = account.scripts(init.version, &reserved.batch_key, init.account_expiry);
            let expected = scripts.map(|scripts| scripts.output).unwrap_or_default();
            problems.equal(Rule::AccountOpening, &what, &expected, &script);
        }
        let output = Output {
            outpoint,
            value_sat: init.account_value,
            script,
            expiry: init.account_expiry,
            version: init.version,
            batch_key: reserved.batch_key,
        };
        match account.outputs.first() {
            // Told again after a restart.
            Some(first) => problems.equal(Rule::AccountOpening, &what, first, &output),
            None => {
                account.current = Some(outpoint);
                account.learn(output);
                self.counts.accounts += 1;
                self.counts.secrets += u64::from(account.secret.is_some());
            }
        }
        self.report(Party::Trader, Some(caller), problems);
    }
}

/// An outpoint whose txid is in internal order.
pub(crate) fn outpoint(message: &rpc::OutPoint) -> Option<OutPoint> {
    let txid = Txid::from_slice(&message.txid).ok()?;
    Some(OutPoint { txid, vout: message.output_index })
}
