//! The engine against real archives, made by GNU tar, gzip, zstd and others, and against hostile ones.
//!
//! Runs as root, in temporary directories on a real file system.

// Helpers of tests are tests too, and names in messages may hold any byte.
#![allow(clippy::unwrap_used, clippy::unnecessary_debug_formatting)]

mod bombs;
mod compare;
mod compressions;
mod concurrency;
mod encryption;
mod faults;
mod forged;
mod hostile;
mod image;
mod integrity;
mod limits;
mod order;
mod own_format;
mod ownership;
mod pack;
mod packers;
mod power;
mod resume;
mod round_trip;
mod sparse;
mod support;
mod tree;
mod volume;
