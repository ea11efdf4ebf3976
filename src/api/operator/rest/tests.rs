use super::*;
use std::collections::BTreeSet;

#[test]
fn every_call_has_a_route_except_those_that_deployed_daemons_serve_by_grpc_only() {
    let interface = Interface::new();
    let routed: BTreeSet<&str> = ROUTES.iter().map(|(_, _, call, _)| *call).collect();
    for (service, without) in [
        ("poolrpc.Trader", &["AccountModificationFees", "CancelSidecar", "DecodeSidecarTicket", "ListSidecars"][..]),
        ("tidegate.v1.Agent", &[]),
    ] {
        let missing: Vec<&str> =
            interface.methods(service).filter(|name| !routed.contains(format!("/{service}/{name}").as_str())).collect();
        assert_eq!(missing, without, "{service}");
    }
    for (_, pattern, call, _) in ROUTES {
        let method = interface.method(call).unwrap_or_else(|| panic!("{call} is no call"));
        for name in pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let known = interface.query(&method.request, [(name, "AA==")]);
            assert!(known.is_ok(), "{pattern}: {known:?}");
        }
    }
    let places: BTreeSet<(&str, &str)> = ROUTES.iter().map(|(verb, pattern, ..)| (*verb, *pattern)).collect();
    assert_eq!(places.len(), ROUTES.len(), "no route twice");
}

#[test]
fn paths_lead_to_calls_with_their_parameters() {
    let found = |method, path| find(method, path).map(|(call, _, parameters)| (call, parameters));
    let nonce = |text: &str| vec![("order_nonce", text.to_owned())];
    let cancel = "/poolrpc.Trader/CancelOrder";
    assert_eq!(found("DELETE", "/v1/pool/orders/AQ==").expect("known"), (cancel, nonce("AQ==")));
    assert_eq!(found("DELETE", "/v1/pool/orders/A%2fQ%3D%3D").expect("known"), (cancel, nonce("A/Q==")));
    // The sign is itself in a path.
    assert_eq!(found("DELETE", "/v1/pool/orders/A+Q").expect("known"), (cancel, nonce("A+Q")));
    let both = vec![("start_batch_id", "Ag".to_owned()), ("num_batches_back", "7".to_owned())];
    let snapshots = "/poolrpc.Trader/BatchSnapshots";
    assert_eq!(found("GET", "/v1/pool/batch/snapshots/Ag/7").expect("known"), (snapshots, both));
    let refused = |method, path| find(method, path).expect_err(path).code();
    assert_eq!(refused("PUT", "/v1/pool/orders/AQ=="), Code::Unimplemented);
    for path in
        ["/", "", "/v1/pool/orders/", "/v1/pool/orders/a/b", "/v1/pool/info/", "//v1/pool/info", "/v1/pool/orders/%zz"]
    {
        assert_eq!(refused("DELETE", path), Code::NotFound, "{path}");
    }
}

#[test]
fn escapes_are_undone_and_broken_ones_refused() {
    assert_eq!(unescape("a%20b+c", true).as_deref(), Some("a b c"));
    assert_eq!(unescape("a%2Bb+c", false).as_deref(), Some("a+b+c"));
    for broken in ["%", "%2", "%g0", "%ff", "%+1"] {
        assert_eq!(unescape(broken, true), None, "{broken}");
    }
}
