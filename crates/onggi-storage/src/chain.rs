//! ChainID: the identity of a layer on top of particular others (image-spec, "Layer ChainID").

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

/// `ChainID(L0) = DiffID(L0)`; `ChainID(L0|…|Ln) = sha256(ChainID(L0|…|Ln-1) + " " + DiffID(Ln))`.
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => diff_id.clone(),
        Some(parent) => {
            let text = format!("{} {}", parent.as_str(), diff_id.as_str());
            Digest::from_sha256(&Sha256::digest(text.as_bytes()).into())
        }
    }
}

/// The ChainIDs of a stack of layers, bottom first, as the image's `rootfs.diff_ids` are.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut out: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        out.push(chain_id(out.last(), diff_id));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_hashes_of_their_parts() {
        let a: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let b: Digest = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        let ids = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(ids[0], a);
        let text = format!("sha256:{} sha256:{}", "a".repeat(64), "b".repeat(64));
        assert_eq!(ids[1], Digest::from_sha256(&Sha256::digest(text).into()));
        assert_ne!(chain_id(Some(&b), &a), ids[1]);
    }
}
