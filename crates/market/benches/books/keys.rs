//! Traders with keys that are points of the curve, the same on every machine.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use tidegate_protocol::keys::{AccountKey, MultisigKey, NodeId};

/// Who places orders.
#[derive(Clone, Debug)]
pub(super) struct Trader {
    pub(super) node: NodeId,
    pub(super) account: AccountKey,
    pub(super) multisig: MultisigKey,
    pub(super) owner: [u8; 32],
}

/// The first `count` traders: sums of the generator, one step apart.
pub(super) fn traders(count: usize) -> Vec<Trader> {
    let one = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[1; 32]).expect("a valid secret"));
    let step = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[2; 32]).expect("a valid secret"));
    let mut points = core::iter::successors(Some(one), |point| point.combine(&step).ok());
    let mut next = || points.next().expect("the sum is never the point at infinity in so few steps");
    (0..count)
        .map(|_| {
            let (node, account, multisig) = (next(), next(), next());
            let mut owner = [0; 32];
            owner.copy_from_slice(&account.serialize()[1..]);
            let (node, account) = (NodeId::new(node), AccountKey::new(account));
            Trader { node, account, multisig: MultisigKey::new(multisig), owner }
        })
        .collect()
}
