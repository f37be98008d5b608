//! The second stage: decompression, on a thread of its own, a few chunks ahead of the reader.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::budget::{Budget, Share};
use crate::error::RestoreError;
use crate::fetch::{Boundary, Fetched};
use crate::format::Compression;
use crate::identity::Identities;
use crate::outcome::Verified;
use crate::stream::Stream;
use decryption::Age;
use members::{Member, Members};
use pipe::Pipe;
pub(crate) use pipe::lost_thread;
pub(crate) use zstd_frames::declared_content;

mod bzip2;
mod decryption;
mod gzip;
mod inflate;
mod lz4;
mod members;
mod pipe;
mod xz;
mod zstd_frames;
mod zstd_workers;

/// Bytes in a decoded chunk.
const CHUNK: usize = 256 << 10;

/// Chunks that exist: one being filled, one being read, the others waiting.
const CHUNKS: usize = 6;

/// Windows up to this size (every level of zstd up to 16, gzip, bzip2, xz up to level 3) are part of what a restore takes at its
/// start, so that it never waits for one that a restore with a larger window holds for hours.
const WINDOW_INCLUDED: u64 = 4 << 20;

/// Bytes of memory the stage takes, larger windows apart.
pub(crate) const MEMORY: u64 = (CHUNK * CHUNKS) as u64 + WINDOW_INCLUDED;

/// Bytes of memory that decryption takes: its chunks, and what the library holds of two.
pub(crate) const DECRYPTION: u64 = (decryption::CHUNK * (CHUNKS + 2)) as u64;

/// Bytes of output between two places where decoding can go on; with what such a place takes, no more
/// than a few exist at a time.
const POINTS: u64 = 1 << 20;

/// Where decoding can go on, and what that takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    /// Bytes of the object before it.
    pub(crate) packed: u64,
    /// Bytes that those unpack to.
    pub(crate) unpacked: u64,
    /// From where the object is to be fetched.
    pub(crate) boundary: Boundary,
    /// Whether a checksum covered everything before it, or will.
    checked: bool,
    /// Where it is not between two members of the object.
    within: Option<gzip::Within>,
}

/// One compression format, or encryption, and the [`Input`] that it decodes.
pub(crate) trait Decoder: Send {
    /// Fills a part of `output` and says how much; 0 says that the input ended where it should and
    /// that every checksum in it was right.
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError>;

    /// Whether a checksum covered everything that was decoded.
    fn is_checked(&self) -> bool;

    /// Where the decoder is, if decoding can go on there. Asked when that would be of use, and again
    /// after every part of the output until there is such a place.
    fn point(&mut self) -> Option<Place> {
        None
    }

    /// [`Input::digest`], once that has been decoded to its end.
    fn digest(&self) -> Option<[u8; 32]>;
}

/// What a decoder says of a [`Point`].
pub(crate) struct Place {
    packed: u64,
    boundary: Boundary,
    checked: bool,
    within: Option<gzip::Within>,
}

/// What is known once a stream has been read to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) verified: Verified,
    /// SHA-256 of the stored object.
    pub(crate) digest: [u8; 32],
}

/// The object as a [`Stream`], before a decoder and after it.
pub(crate) enum Input {
    /// As it is stored.
    Fetched(Box<Fetched>),
    /// What a thread makes of it.
    Thread(Pipe),
}

/// What the decoding stage needs besides its input.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) budget: Arc<Budget>,
    /// The largest window that is opened.
    pub(crate) window_max: u64,
    pub(crate) cancel: CancellationToken,
    pub(crate) runtime: Handle,
}

impl Means {
    /// Waits for the memory of a window of so many bytes, unless it is included in what every restore
    /// has. The one before has been given back.
    fn window(&self, bytes: u64) -> Result<Option<Share>, RestoreError> {
        if bytes > self.window_max {
            let (window, limit) = (bytes, self.window_max);
            return Err(RestoreError::WindowTooLarge { window, limit });
        }
        if bytes <= WINDOW_INCLUDED {
            return Ok(None);
        }
        self.share(bytes).map(Some)
    }

    /// Waits for so many bytes of what there is for windows, or for all of that.
    fn share(&self, bytes: u64) -> Result<Share, RestoreError> {
        let waiting = self.cancel.run_until_cancelled(self.budget.window(bytes));
        let share = self.runtime.block_on(waiting);
        share.ok_or(RestoreError::Cancelled)
    }
}

/// Whether a frame is one of those that zstd and lz4 alike pass over, by its first four bytes.
fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184d_2a50
}

/// Passes over a frame after its first four bytes; false if the object ends before it does.
fn skip_frame(input: &mut Input) -> Result<bool, RestoreError> {
    let mut size = [0; 4];
    Ok(input.read_full(&mut size)? == 4 && input.skip(u64::from(u32::from_le_bytes(size)))?)
}

/// Starts what `compression` needs, at its beginning or where it is to go on: `input` is there.
pub(crate) fn start(
    compression: Compression,
    input: Input,
    from: Option<Point>,
    means: Means,
) -> Result<Input, RestoreError> {
    let cancel = means.cancel.clone();
    let position = from.as_ref().map_or(0, |point| point.unpacked);
    let decoder: Box<dyn Decoder> = match compression {
        Compression::None => return Ok(input),
        Compression::Gzip => Box::new(match from {
            None => Members::<gzip::Gzip>::new(input, means)?,
            Some(point) => {
                let within = point.within.map(gzip::Gzip::resume).transpose()?;
                Members::resume(input, means, within, point.checked)
            }
        }),
        Compression::Zstd => Box::new(match from {
            None => zstd_frames::Zstd::in_parallel(input, means)?,
            Some(point) => zstd_frames::Zstd::in_parallel(input, means)?.resumed(point.checked),
        }),
        Compression::Xz => Box::new(members::<xz::Xz>(input, from, means)?),
        Compression::Bzip2 => Box::new(members::<bzip2::Bzip2>(input, from, means)?),
        // Has no points.
        Compression::Lz4 => Box::new(lz4::Lz4::new(input, means)),
    };
    pipe::spawn("archive-decode", decoder, position, CHUNK, cancel).map(Input::Thread)
}

/// A decoder of zstd that works when it is asked.
pub(crate) fn zstd(input: Input, means: Means) -> Box<dyn Decoder> {
    Box::new(zstd_frames::Zstd::new(input, means))
}

/// For formats whose points lie between members.
fn members<M: Member>(
    input: Input,
    from: Option<Point>,
    means: Means,
) -> Result<Members<M>, RestoreError> {
    match from {
        None => Members::new(input, means),
        Some(point) => Ok(Members::resume(input, means, None, point.checked)),
    }
}

/// Finds the key of an object that is encrypted with age, and starts to decrypt it.
pub(crate) fn decrypt(
    input: Input,
    identities: &Identities,
    work_factor: u8,
    means: &Means,
) -> Result<Input, RestoreError> {
    let decoder = Box::new(Age::open(input, identities, work_factor, means)?);
    let cancel = means.cancel.clone();
    pipe::spawn("archive-decrypt", decoder, 0, decryption::CHUNK, cancel).map(Input::Thread)
}

impl Point {
    /// In an object that is read as it is stored.
    pub(crate) fn stored(position: u64, boundary: Boundary) -> Self {
        Self {
            packed: position,
            unpacked: position,
            boundary,
            checked: false,
            within: None,
        }
    }
}

impl Place {
    fn after(self, unpacked: u64) -> Arc<Point> {
        Arc::new(Point {
            packed: self.packed,
            unpacked,
            boundary: self.boundary,
            checked: self.checked,
            within: self.within,
        })
    }
}

impl Input {
    /// What is known about a stream that has been read to its end.
    pub(crate) fn finished(&self) -> Option<Finished> {
        match self {
            Self::Fetched(fetched) => fetched.digest().map(|digest| Finished {
                verified: Verified::None,
                digest,
            }),
            Self::Thread(pipe) => pipe.finished(),
        }
    }

    /// Where fetching can go on so that all from the position on comes again; `None` where that is
    /// only at the object's begin.
    fn boundary(&self) -> Option<Boundary> {
        match self {
            Self::Fetched(fetched) => Some(fetched.boundary().clone()),
            Self::Thread(_) => None,
        }
    }

    /// SHA-256 of the stored object; known once the stream has been read to its end.
    fn digest(&self) -> Option<[u8; 32]> {
        self.finished().map(|finished| finished.digest)
    }
}

impl Stream for Input {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        match self {
            Self::Fetched(fetched) => fetched.fill(),
            Self::Thread(pipe) => pipe.fill(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Fetched(fetched) => fetched.consume(count),
            Self::Thread(pipe) => pipe.consume(count),
        }
    }

    fn position(&self) -> u64 {
        match self {
            Self::Fetched(fetched) => fetched.position(),
            Self::Thread(pipe) => pipe.position(),
        }
    }

    fn point(&self) -> Option<Arc<Point>> {
        match self {
            Self::Fetched(fetched) => fetched.point(),
            Self::Thread(pipe) => pipe.point(),
        }
    }
}
