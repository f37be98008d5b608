//! An object in memory that can misbehave, and a restore of it.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use archive::source::{Source, SourceError};
use archive::{Budget, Fetching, Options, Outcome, Progress, RestoreError};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

type Answer = Box<dyn Fn(&Bytes, Range<u64>) -> Result<Bytes, SourceError> + Send + Sync>;

/// An object in memory; `answer` decides what a read of it gives.
pub struct Memory {
    bytes: Bytes,
    answer: Answer,
}

impl Memory {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::with(bytes, |bytes, range| Ok(cut(bytes, range)))
    }

    pub fn with(
        bytes: impl Into<Bytes>,
        answer: impl Fn(&Bytes, Range<u64>) -> Result<Bytes, SourceError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            bytes: bytes.into(),
            answer: Box::new(answer),
        }
    }
}

pub fn cut(bytes: &Bytes, range: Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

impl Source for Memory {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        async move { (self.answer)(&self.bytes, range) }.boxed()
    }
}

/// The defaults, with ranges so small that archives of tests have many of them.
pub fn options() -> Options {
    let mut options = Options::new(Budget::new(Budget::DEFAULT));
    options.fetching = Fetching {
        range: 64 << 10,
        pause: Duration::from_millis(1),
        ..Fetching::default()
    };
    options
}

pub fn restore_from(
    source: impl Source + 'static,
    to: &Path,
    options: &Options,
) -> Result<Outcome, RestoreError> {
    let directory = File::open(to).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    archive::restore(
        Arc::new(source),
        directory.as_fd(),
        options,
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
}

pub fn restore(bytes: impl Into<Bytes>, to: &Path) -> Result<Outcome, RestoreError> {
    restore_from(Memory::new(bytes), to, &options())
}

/// Restores into a directory that is thrown away.
pub fn try_restore(bytes: impl Into<Bytes>) -> Result<Outcome, RestoreError> {
    let to = tempfile::tempdir().unwrap();
    restore(bytes, to.path())
}

/// The reason and the message of a failure that must happen.
pub fn failure(bytes: impl Into<Bytes>) -> (&'static str, String) {
    let error = try_restore(bytes).expect_err("this must not be restored");
    (error.reason(), error.to_string())
}

/// The same numbers for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Bytes that compress somewhat, as files do.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            let word = self.next().to_le_bytes();
            for _ in 0..=self.below(4) {
                bytes.extend_from_slice(&word);
            }
        }
        bytes.truncate(length);
        bytes
    }
}
