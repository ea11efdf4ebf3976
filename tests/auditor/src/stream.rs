//! The batch stream: dispatch, and the handshake of each account.

use bitcoin::secp256k1::PublicKey;

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::keys::sha;
use crate::signature::{Verdict, message};
use crate::wire::rpc::client_auction_message::Msg as Said;
use crate::wire::rpc::server_auction_message::Msg as Told;
use crate::wire::{decode, hash, hexed, key, rpc};

/// A commitment and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    commitment: [u8; 32],
    challenge: Option<Vec<u8>>,
    batch_version: u32,
}

impl Auditor {
    /// A trader says something on its batch stream.
    pub fn client_message(&mut self, caller: &Caller, bytes: &[u8]) {
        let caller = &self.known_as(caller);
        self.counts.stream_messages += 1;
        match decode::<rpc::ClientAuctionMessage>(bytes) {
            Ok(rpc::ClientAuctionMessage { msg: Some(said) }) => self.said(caller, said),
            Ok(_) => self.breach(Party::Trader, caller, Rule::Decoding, &"stream", ("a message", &"an empty one")),
            Err(error) => self.breach(Party::Trader, caller, Rule::Decoding, &"stream", ("a message", &error)),
        }
    }

    /// The venue says something on a trader's batch stream.
    pub fn server_message(&mut self, caller: &Caller, bytes: &[u8]) {
        let caller = &self.known_as(caller);
        self.counts.stream_messages += 1;
        match decode::<rpc::ServerAuctionMessage>(bytes) {
            Ok(rpc::ServerAuctionMessage { msg: Some(told) }) => self.told(caller, told),
            Ok(_) => self.breach(Party::Venue, caller, Rule::Decoding, &"stream", ("a message", &"an empty one")),
            Err(error) => self.breach(Party::Venue, caller, Rule::Decoding, &"stream", ("a message", &error)),
        }
    }

    fn said(&mut self, caller: &Caller, said: Said) {
        match said {
            Said::Commit(commit) => match hash(&commit.commit_hash) {
                Some(commitment) => {
                    let handshake = Handshake { commitment, challenge: None, batch_version: commit.batch_version };
                    self.handshakes.entry(caller.clone()).or_default().push(handshake);
                }
                None => self.breach(Party::Trader, caller, Rule::Decoding, &"commitment", ("32 bytes", &"others")),
            },
            Said::Subscribe(subscribe) => self.subscribed(caller, &subscribe),
            Said::Accept(accept) => self.accepted(caller, &accept),
            Said::Reject(_) => self.rejected(caller),
            Said::Sign(sign) => self.signed(caller, &sign),
            Said::Recover(recover) => self.recovers(&recover.trader_key),
        }
    }

    fn told(&mut self, caller: &Caller, told: Told) {
        match told {
            Told::Challenge(challenge) => self.challenged(caller, &challenge),
            Told::Prepare(prepare) => self.prepared(caller, &prepare),
            Told::Sign(sign) => self.begun(caller, sign),
            Told::Finalize(finalize) => self.finalized(caller, &finalize),
            Told::Success(_) | Told::Error(_) | Told::Account(_) => {}
        }
    }

    fn challenged(&mut self, caller: &Caller, challenge: &rpc::ServerChallenge) {
        let handshakes = self.handshakes.entry(caller.clone()).or_default();
        let known = handshakes.iter_mut().rev().find(|one| one.commitment.as_slice() == challenge.commit_hash);
        match known {
            Some(handshake) => handshake.challenge = Some(challenge.challenge.clone()),
            None => {
                let found = hexed(&challenge.commit_hash);
                self.breach(Party::Venue, caller, Rule::Authentication, &"challenge", ("a commitment made", &found));
            }
        }
    }

    fn subscribed(&mut self, caller: &Caller, subscribe: &rpc::AccountSubscription) {
        let commitment = sha(&[&subscribe.trader_key, &subscribe.commit_nonce]);
        let handshakes = self.handshakes.get(caller);
        let handshake = handshakes.and_then(|all| all.iter().rev().find(|one| one.commitment == commitment)).cloned();
        let mut problems = Problems::default();
        let subject = format!("account {}", hexed(&subscribe.trader_key));
        let verdict = match (&handshake, PublicKey::from_slice(&subscribe.trader_key)) {
            (Some(Handshake { challenge: Some(challenge), .. }), Ok(key)) => {
                message(&key, &sha(&[&commitment, challenge]), &subscribe.auth_sig)
            }
            (_, Ok(_)) => Verdict::Invalid("no commitment with a challenge"),
            (_, Err(_)) => Verdict::Invalid("the account key is not a point"),
        };
        match verdict {
            Verdict::Invalid(reason) => {
                problems.add(Rule::Authentication, &subject, "a signed, challenged commitment", &reason);
            }
            Verdict::Valid | Verdict::Unjudged => {
                self.counts.message_signatures += 1;
                self.recognise(caller, &subscribe.trader_key);
            }
        }
        let account = key(&subscribe.trader_key).and_then(|key| self.accounts.get_mut(&key));
        if let (Some(account), Some(handshake)) = (account, handshake) {
            account.batch_version = Some(handshake.batch_version);
        }
        self.report(Party::Trader, Some(caller), problems);
    }

    /// Who signs for an account is its owner, by whatever name.
    fn recognise(&mut self, caller: &Caller, account: &[u8]) {
        let owner = key(account).and_then(|key| self.accounts.get(&key)).map(|account| account.owner.clone());
        let Some(owner) = owner.filter(|owner| owner != caller) else { return };
        let under_way = self.handshakes.remove(caller).unwrap_or_default();
        self.handshakes.entry(owner.clone()).or_default().extend(under_way);
        if let Some(quote) = self.quotes.remove(caller) {
            self.quotes.insert(owner.clone(), quote);
        }
        self.names.insert(caller.clone(), owner);
    }

    /// A recovery cancels the account's orders.
    fn recovers(&mut self, account: &[u8]) {
        let records = self.orders.values_mut();
        records.filter(|record| record.order.account_key == account).for_each(|record| record.cancelled = true);
    }
}
