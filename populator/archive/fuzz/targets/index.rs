//! The index of our own archives: the seek table that locates it, its header and its records.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    archive::fuzzing::index(bytes);
});
