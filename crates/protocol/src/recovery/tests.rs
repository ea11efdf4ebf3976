use super::*;
use crate::curve::SECP;
use crate::script::INITIAL_BATCH_KEY;
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, TxOut};

fn point(seed: u8) -> PublicKey {
    SecretKey::from_slice(&[seed; 32]).unwrap().public_key(&SECP)
}

fn auctioneer() -> AuctioneerKey {
    AuctioneerKey::new(point(100))
}

fn candidates(count: u8) -> Vec<Candidate> {
    let candidate = |seed: u8| Candidate {
        trader: AccountKey::new(point(seed)),
        locator: KeyLocator { family: 220, index: u32::from(seed) },
        secret: SharedSecret::new([seed; 32]),
    };
    (1..=count).map(candidate).collect()
}

fn first_key() -> BatchKey {
    INITIAL_BATCH_KEY.parse().unwrap()
}

/// Pays these scripts, in this order.
fn paying(scripts: impl IntoIterator<Item = ScriptBuf>) -> Transaction {
    let output = |script_pubkey| TxOut { value: Amount::from_sat(100_000), script_pubkey };
    let output = scripts.into_iter().map(output).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output }
}

fn search(candidates: &[Candidate]) -> Search<'_> {
    Search { auctioneer: auctioneer(), candidates, versions: &VERSIONS, expiries: 1_000..1_020 }
}

fn terms(candidate: &Candidate, version: AccountVersion, batch: u32, expiry: u32) -> AccountTerms {
    let batch = batch_keys(first_key(), batch + 1).last().unwrap();
    candidate.terms(version, auctioneer(), batch, BlockHeight::new(expiry))
}

#[test]
fn accounts_of_all_versions_are_found_under_any_batch_key_and_expiry() {
    let candidates = candidates(4);
    let accounts = [
        terms(&candidates[0], AccountVersion::V0, 0, 1_000),
        terms(&candidates[1], AccountVersion::V1, 3, 1_019),
        terms(&candidates[2], AccountVersion::V2, 5, 1_010),
    ];
    let scripts: Vec<ScriptBuf> = accounts.iter().map(|terms| terms.output_script().unwrap()).collect();
    let other = ScriptBuf::new_p2a();
    let transactions = [
        paying([other.clone()]),
        paying([other, scripts[2].clone()]),
        paying([scripts[0].clone(), scripts[1].clone()]),
        paying([scripts[0].clone()]),
    ];
    let known = KnownOutputs::of(&transactions);
    let mut found = BTreeMap::new();
    search(&candidates).accounts(&known, batch_keys(first_key(), 6), &mut found).unwrap();
    let places: Vec<_> = found.values().map(|found| (found.candidate, found.transaction, found.vout)).collect();
    assert_eq!(places, [(0, 2, 0), (1, 2, 1), (2, 1, 1)], "the fourth key was never an account's");
    for (found, expected) in found.values().zip(accounts) {
        assert_eq!(found.terms, expected);
    }
}

#[test]
fn what_lies_outside_of_the_search_is_not_found() {
    let candidates = candidates(1);
    let find = |terms: AccountTerms, count: u32, versions: &[AccountVersion]| {
        let known = KnownOutputs::of([&paying([terms.output_script().unwrap()])]);
        let mut found = BTreeMap::new();
        let search = Search { versions, ..search(&candidates) };
        search.accounts(&known, batch_keys(first_key(), count), &mut found).unwrap();
        found.len()
    };
    let account = |batch, expiry| terms(&candidates[0], AccountVersion::V1, batch, expiry);
    assert_eq!(find(account(2, 1_000), 3, &VERSIONS), 1);
    assert_eq!(find(account(3, 1_000), 3, &VERSIONS), 0, "the batch key is beyond");
    assert_eq!(find(account(2, 999), 3, &VERSIONS), 0, "the expiry is too early");
    assert_eq!(find(account(2, 1_020), 3, &VERSIONS), 0, "the expiry is too late");
    assert_eq!(find(account(2, 1_000), 3, &[AccountVersion::V0, AccountVersion::V2]), 0, "the version is not tried");
}

#[test]
fn a_found_key_is_not_searched_again_and_the_search_ends_with_the_last() {
    let candidates = candidates(1);
    let [first, second] = [0, 1].map(|batch| terms(&candidates[0], AccountVersion::V2, batch, 1_005));
    let known = KnownOutputs::of([&paying([second.output_script().unwrap(), first.output_script().unwrap()])]);
    let mut found = BTreeMap::new();
    let mut asked = 0;
    let keys = batch_keys(first_key(), BATCH_KEYS).inspect(|_| asked += 1);
    search(&candidates).accounts(&known, keys, &mut found).unwrap();
    assert_eq!((asked, found[&0].terms, found[&0].vout), (1, first, 1));
}

#[test]
fn an_account_is_followed_from_output_to_output() {
    let candidates = candidates(1);
    let search = search(&candidates);
    let account = terms(&candidates[0], AccountVersion::V1, 4, 1_005);
    let next = |change: fn(&mut AccountTerms)| {
        let mut terms = account.next().unwrap();
        change(&mut terms);
        terms
    };
    let follow = |terms: AccountTerms| {
        let spend = paying([ScriptBuf::new_p2a(), terms.output_script().unwrap()]);
        search.successor(&account, &spend).unwrap().map(|(found, vout)| (found == terms, vout))
    };
    assert_eq!(follow(next(|_| {})), Some((true, 1)));
    assert_eq!(follow(next(|terms| terms.expiry = BlockHeight::new(1_019))), Some((true, 1)), "extended");
    assert_eq!(follow(next(|terms| terms.version = AccountVersion::V2)), Some((true, 1)), "upgraded");
    assert_eq!(follow(next(|terms| terms.version = AccountVersion::V0)), None, "versions only rise");
    assert_eq!(follow(account), None, "the batch key moves on");
    assert_eq!(follow(next(|terms| terms.expiry = BlockHeight::new(1_020))), None);
    // The same expiry even where it is outside of the search.
    let late = AccountTerms { expiry: BlockHeight::new(2_000), ..account };
    let spend = paying([late.next().unwrap().output_script().unwrap()]);
    assert_eq!(search.successor(&late, &spend), Ok(Some((late.next().unwrap(), 0))));
    assert_eq!(search.successor(&account, &paying([])), Ok(None), "closed");
}

#[test]
fn scripts_come_by_version_then_expiry_and_equal_those_of_the_terms() {
    let candidates = candidates(1);
    let found: Vec<_> =
        scripts(&candidates[0], auctioneer(), first_key(), &VERSIONS, 5..8).map(Result::unwrap).collect();
    let order: Vec<_> = found.iter().map(|(terms, _)| (terms.version, terms.expiry.get())).collect();
    let expected: Vec<_> = VERSIONS.iter().flat_map(|version| (5..8).map(move |expiry| (*version, expiry))).collect();
    assert_eq!(order, expected);
    for (terms, script) in found {
        assert_eq!(terms.output_script(), Ok(script));
    }
}

#[test]
fn ranges_and_effort_do_not_overflow() {
    assert_eq!(expiries(FIRST_BLOCK_MAINNET, BlockHeight::new(850_000)), 648_168..902_560);
    assert_eq!(expiries(FIRST_BLOCK_MAINNET, BlockHeight::new(u32::MAX)).end, u32::MAX);
    assert_eq!(effort(500, 5_000, 3, BlockCount::new(254_392)), Some(1_907_940_000_000));
    assert_eq!(effort(u32::MAX, u32::MAX, u32::MAX, BlockCount::new(1)), None);
    assert_eq!(batch_keys(first_key(), 0).count(), 0);
}
