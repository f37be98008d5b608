//! zstd: frame by frame, so that each one's window and checksum are known before it is decoded.

use zstd::stream::raw::{DParameter, Decoder as Context, Operation as _};

use super::{Decoder, Input, Means, is_skippable, skip_frame};
use crate::budget::{Share, WINDOW_MAX};
use crate::error::RestoreError;
use crate::stream::Stream as _;

const MAGIC: u32 = 0xfd2f_b528;

/// The longest frame header: magic, descriptor, window, dictionary, content size.
const HEADER_MAX: usize = 4 + 1 + 1 + 4 + 8;

/// Decodes the frames of a zstd file and passes over its skippable ones.
pub(super) struct Zstd {
    input: Input,
    means: Means,
    frame: Option<Frame>,
    /// Whether a frame with data has been seen, and whether all of those had a checksum.
    any: bool,
    checked: bool,
}

/// The frame being decoded.
struct Frame {
    context: Context<'static>,
    header: [u8; HEADER_MAX],
    /// The part of `header` that the context has not been given yet.
    pending: std::ops::Range<usize>,
    /// The memory of its window, unless that is included in what every restore has.
    _window: Option<Share>,
}

/// What a frame header says.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    /// Bytes of memory that decoding needs.
    window: u64,
    checksum: bool,
    dictionary: bool,
}

impl Zstd {
    pub(super) fn new(input: Input, means: Means) -> Self {
        Self {
            input,
            means,
            frame: None,
            any: false,
            checked: true,
        }
    }

    /// Opens the next frame with data; false at the end of the object.
    fn next_frame(&mut self) -> Result<bool, RestoreError> {
        let input = &mut self.input;
        loop {
            let position = input.position();
            let mut header = [0; HEADER_MAX];
            let magic = match input.read_full(&mut header[..4])? {
                0 => return Ok(false),
                4 => u32::from_le_bytes([header[0], header[1], header[2], header[3]]),
                _ => return Err(cut(position)),
            };
            if is_skippable(magic) {
                if !skip_frame(input)? {
                    return Err(cut(position));
                }
                continue;
            }
            if magic != MAGIC {
                return Err(RestoreError::corrupt(format!(
                    "at byte {position} of the object something follows that is not zstd"
                )));
            }
            if input.read_full(&mut header[4..5])? != 1 {
                return Err(cut(position));
            }
            let length = header_length(header[4]);
            if input.read_full(&mut header[5..length])? != length - 5 {
                return Err(cut(position));
            }
            self.open(header, length)?;
            return Ok(true);
        }
    }

    fn open(&mut self, header: [u8; HEADER_MAX], length: usize) -> Result<(), RestoreError> {
        let declared = declared(&header[..length]);
        if declared.dictionary {
            let found = "it is compressed with a zstd dictionary".to_owned();
            return Err(RestoreError::NotAnArchive { found });
        }
        let window = self.means.window(declared.window)?;
        let context = Context::new().and_then(|mut context| {
            context.set_parameter(DParameter::WindowLogMax(WINDOW_MAX.ilog2()))?;
            Ok(context)
        });
        let context = context.map_err(|error| RestoreError::NodeError {
            what: format!("starting zstd: {error}"),
        })?;
        self.any = true;
        self.checked &= declared.checksum;
        self.frame = Some(Frame {
            context,
            header,
            pending: 0..length,
            _window: window,
        });
        Ok(())
    }
}

fn cut(position: u64) -> RestoreError {
    RestoreError::truncated(format!("its zstd frame at byte {position} is not complete"))
}

impl Decoder for Zstd {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            let Some(frame) = &mut self.frame else {
                if self.next_frame()? {
                    continue;
                }
                return Ok(0);
            };
            let input = &mut self.input;
            let position = input.position();
            let pending = frame.pending.clone();
            let bytes = if pending.is_empty() {
                input.fill()?
            } else {
                &frame.header[pending]
            };
            // No input does not mean that there is no output: it may be waiting in the context.
            let dry = bytes.is_empty();
            let status = frame
                .context
                .run_on_buffers(bytes, output)
                .map_err(|error| {
                    RestoreError::corrupt(format!("zstd says {error} near byte {position}"))
                })?;
            if frame.pending.is_empty() {
                input.consume(status.bytes_read);
            } else {
                frame.pending.start += status.bytes_read;
            }
            if status.remaining == 0 {
                self.frame = None;
            } else if dry && status.bytes_written == 0 {
                return Err(cut(position));
            }
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
        }
    }

    fn is_checked(&self) -> bool {
        self.any && self.checked
    }

    fn digest(&self) -> Option<[u8; 32]> {
        self.input.digest()
    }
}

/// Bytes in the header whose descriptor byte is given (RFC 8878, 3.1.1.1).
fn header_length(descriptor: u8) -> usize {
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    5 + usize::from(!single) + dictionary + content
}

/// Reads a complete header.
fn declared(header: &[u8]) -> Declared {
    let descriptor = header[4];
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let rest = &header[5 + usize::from(!single)..];
    let window = if single {
        // The whole content is the window.
        let mut size = [0; 8];
        let content = &rest[dictionary..];
        size[..content.len()].copy_from_slice(content);
        u64::from_le_bytes(size) + if content.len() == 2 { 256 } else { 0 }
    } else {
        let base = 1_u64 << (10 + (header[5] >> 3));
        base + base / 8 * u64::from(header[5] & 7)
    };
    Declared {
        window,
        checksum: descriptor & 4 != 0,
        dictionary: rest[..dictionary].iter().any(|byte| *byte != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_headers_say_what_decoding_takes() {
        let plain = [0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58];
        assert_eq!(header_length(plain[4]), plain.len());
        let expected = Declared {
            window: 2 << 20,
            checksum: true,
            dictionary: false,
        };
        assert_eq!(declared(&plain), expected);

        let long = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88];
        assert_eq!(declared(&long).window, WINDOW_MAX);
        let longer = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x89];
        assert_eq!(declared(&longer).window, WINDOW_MAX / 8 * 9);

        let single = [0x28, 0xb5, 0x2f, 0xfd, 0x61, 7, 0x10, 0x00];
        assert_eq!(header_length(single[4]), single.len());
        let expected = Declared {
            window: 16 + 256,
            checksum: false,
            dictionary: true,
        };
        assert_eq!(declared(&single), expected);
    }
}
