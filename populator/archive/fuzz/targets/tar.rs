//! The tar reader, on its own and beside the `tar` crate.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tar::Header;

const BLOCK: usize = 512;

fuzz_target!(|bytes: &[u8]| archive::fuzzing::compare(bytes));

// With sums that are wrong nothing but the first header would ever be read.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if !seed.is_multiple_of(16) {
        correct_sums(&mut data[..size]);
    }
    size
});

/// Makes the sum of every header right, as far as they can be found.
fn correct_sums(mut archive: &mut [u8]) {
    while let Some((block, rest)) = archive.split_first_chunk_mut::<BLOCK>() {
        let mut stored = 0;
        if block.iter().any(|byte| *byte != 0) {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
            let kind = header.entry_type();
            if !kind.is_dir() && !kind.is_symlink() && !kind.is_hard_link() {
                stored = header.entry_size().unwrap_or(0);
            }
        }
        let padded = usize::try_from(stored)
            .unwrap_or(usize::MAX)
            .div_ceil(BLOCK);
        let after = padded.saturating_mul(BLOCK).min(rest.len());
        archive = &mut rest[after..];
    }
}
