//! Layers against a model in memory that knows nothing of files. The same is a fuzz target (`fuzz/src/layers.rs`); here it
//! has some thousand archives, the same in every run.

#[path = "../../../fuzz/src/layers.rs"]
#[allow(unreachable_pub, reason = "the fuzz crate offers them")]
mod layers;

/// xorshift: a failure repeats.
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 24) as u8
}

#[test]
fn every_archive_becomes_what_the_model_says_or_is_refused_with_it() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for _ in 0..3000 {
        let length = 3 + usize::from(random(&mut state) % 60);
        let bytes: Vec<u8> = (0..length).map(|_| random(&mut state)).collect();
        layers::layer_apply(&bytes);
        layers::tar_entries(&bytes);
    }
}
