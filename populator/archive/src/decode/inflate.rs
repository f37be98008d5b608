//! Inflate (RFC 1951) by zlib-ng, which can stop between two blocks and go on there later.
//!
//! What is safe of zlib-ng (the `flate2` crate) cannot: it neither tells where a block begins nor hands
//! out the window, and takes no single bits. So its C functions are called here and nowhere else; the
//! unsafe code of this crate is in this module.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use libz_ng_sys as zlib;

use crate::error::RestoreError;

/// Bytes before a place that the data after it may refer to (RFC 1951, 2).
pub(super) const WINDOW: usize = 32 << 10;

/// No header and no trailer, and the largest window, 2 to this power bytes.
const RAW: c_int = -15;

// Not among what `libz-ng-sys` declares (zlib.h, "inflateGetDictionary").
unsafe extern "C" {
    fn zng_inflateGetDictionary(
        stream: *mut zlib::z_stream,
        to: *mut u8,
        length: *mut u32,
    ) -> c_int;
}

/// A deflate stream that is being decoded.
pub(super) struct Inflate {
    /// Never moved: zlib's own state points back to it. Not a reference anywhere, since what zlib puts
    /// into it in place of defaults is not valid before.
    stream: Box<MaybeUninit<zlib::z_stream>>,
}

/// What came of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inflated {
    pub(super) read: usize,
    pub(super) written: usize,
    pub(super) ended: bool,
    /// Right behind a block that is not the last: how many bits of the last byte read belong to the
    /// next one.
    pub(super) boundary: Option<u8>,
}

// SAFETY: the stream and all it points to belong to this value alone, and zlib-ng keeps nothing of it
// in thread-local or static memory.
unsafe impl Send for Inflate {}

impl Inflate {
    pub(super) fn new() -> Result<Self, RestoreError> {
        // All zeros is what zlib.h asks for: null pointers, and default allocation functions.
        let mut stream = Box::new(MaybeUninit::zeroed());
        // SAFETY: a stream as zlib.h asks for, which stays where it is.
        let done = unsafe { zlib::zng_inflateInit2(stream.as_mut_ptr(), RAW) };
        if done == zlib::Z_OK {
            Ok(Self { stream })
        } else {
            Err(failed("starting it", done))
        }
    }

    /// Goes on behind a block: with the `bits` that are left of a byte (fewer than 8, in the low end of
    /// `value`), and what was decoded last.
    pub(super) fn resume(bits: u8, value: u8, window: &[u8]) -> Result<Self, RestoreError> {
        let mut inflate = Self::new()?;
        let stream = inflate.stream.as_mut_ptr();
        // SAFETY: an initialised stream.
        let done = unsafe { zlib::inflatePrime(stream, bits.into(), value.into()) };
        if done != zlib::Z_OK {
            return Err(failed("going on", done));
        }
        let length = u32::try_from(window.len()).unwrap_or(u32::MAX);
        // SAFETY: an initialised stream, and a slice of that length, which is copied.
        let done = unsafe { zlib::inflateSetDictionary(stream, window.as_ptr(), length) };
        if done == zlib::Z_OK {
            Ok(inflate)
        } else {
            Err(failed("going on", done))
        }
    }

    /// Decodes a part, no further than to the end of a block if `to_boundary`.
    pub(super) fn step(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        to_boundary: bool,
    ) -> Result<Inflated, String> {
        let available_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let available_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        let flush = if to_boundary {
            zlib::Z_BLOCK
        } else {
            zlib::Z_NO_FLUSH
        };
        let stream = self.stream.as_mut_ptr();
        // SAFETY: an initialised stream; the slices are as long as it is told and outlive the call,
        // after which zlib uses them no more. It does not write to its input.
        let (done, left_in, left_out, kind, said) = unsafe {
            (*stream).next_in = input.as_ptr().cast_mut();
            (*stream).avail_in = available_in;
            (*stream).next_out = output.as_mut_ptr();
            (*stream).avail_out = available_out;
            let done = zlib::inflate(stream, flush);
            (*stream).next_in = std::ptr::null_mut();
            (*stream).next_out = std::ptr::null_mut();
            (
                done,
                (*stream).avail_in,
                (*stream).avail_out,
                (*stream).data_type,
                (*stream).msg,
            )
        };
        let ended = match done {
            // No progress is for the caller to judge.
            zlib::Z_OK | zlib::Z_BUF_ERROR => false,
            zlib::Z_STREAM_END => true,
            _ if said.is_null() => return Err(format!("error {done}")),
            _ => {
                // SAFETY: not null, so a constant of zlib's.
                let said = unsafe { CStr::from_ptr(said) };
                return Err(said.to_string_lossy().into_owned());
            }
        };
        Ok(Inflated {
            read: (available_in - left_in) as usize,
            written: (available_out - left_out) as usize,
            ended,
            boundary: boundary(kind).filter(|_| to_boundary && !ended),
        })
    }

    /// What was decoded last, as much as the following may refer to.
    pub(super) fn window(&mut self) -> Result<Vec<u8>, RestoreError> {
        let mut window = vec![0; WINDOW];
        let mut length = 0;
        let stream = self.stream.as_mut_ptr();
        // SAFETY: an initialised stream, and room for the largest window there is.
        let done =
            unsafe { zng_inflateGetDictionary(stream, window.as_mut_ptr(), &raw mut length) };
        if done != zlib::Z_OK {
            return Err(failed("reading its window", done));
        }
        window.truncate(length as usize);
        Ok(window)
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: an initialised stream that nobody uses any more.
        unsafe { zlib::inflateEnd(self.stream.as_mut_ptr()) };
    }
}

/// What `data_type` says after a step (zlib.h, "inflate").
fn boundary(kind: c_int) -> Option<u8> {
    let (behind_block, last) = (kind & 128 != 0, kind & 64 != 0);
    let bits = u8::try_from(kind & 63).ok().filter(|bits| *bits < 8)?;
    (behind_block && !last).then_some(bits)
}

/// CRC-32 (RFC 1952, 8) of what `sum` is that of, and of `bytes` after it.
pub(super) fn crc32(mut sum: u32, bytes: &[u8]) -> u32 {
    for part in bytes.chunks(1 << 30) {
        let length = u32::try_from(part.len()).expect("at most 1 GiB");
        // SAFETY: a slice of that length.
        sum = unsafe { zlib::crc32(sum, part.as_ptr(), length) };
    }
    sum
}

fn failed(doing: &str, code: c_int) -> RestoreError {
    RestoreError::NodeError {
        what: format!("zlib, {doing}: error {code}"),
    }
}
