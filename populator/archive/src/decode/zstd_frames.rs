//! zstd: frame by frame, so that each one's window and checksum are known before it is decoded.
//!
//! Frames that say how little they unpack to are decoded as a whole, several at a time and ahead of the
//! reader, as long as there is memory to spare; all others as a stream.

use std::collections::VecDeque;

use zstd::stream::raw::{DParameter, Decoder as Context, Operation as _};

use super::zstd_workers::{Ahead, FRAME_MAX, Job, Ready, Workers};
use super::{Decoder, Input, Means, Place, is_skippable, skip_frame};
use crate::budget::{Share, WINDOW_MAX};
use crate::error::RestoreError;
use crate::fetch::Boundary;
use crate::stream::Stream as _;

const MAGIC: u32 = 0xfd2f_b528;

/// The longest frame header: magic, descriptor, window, dictionary, content size.
const HEADER_MAX: usize = 4 + 1 + 1 + 4 + 8;

/// Decodes the frames of a zstd file and passes over its skippable ones.
pub(super) struct Zstd {
    input: Input,
    means: Means,
    /// None where frames are decoded one after the other.
    workers: Option<Workers>,
    /// Frames that are being decoded, in order.
    ahead: VecDeque<Ahead>,
    /// Where those begin, and from where on they can be fetched.
    begins: VecDeque<(u64, Option<Boundary>)>,
    /// The decoded frame that is being read, and how far.
    current: Option<(Ready, usize)>,
    /// The frame behind all of those, if it is decoded as a stream.
    stream: Option<Frame>,
    /// Whether there are no more frames behind all of those.
    ended: bool,
    /// Whether a frame with data has been seen, and whether all of those had a checksum.
    any: bool,
    checked: bool,
}

/// A frame being decoded as a stream.
struct Frame {
    context: Context<'static>,
    /// What of it was read before it was known how to decode it, and how much of that the context has
    /// been given.
    start: Vec<u8>,
    given: usize,
    /// The memory of its window, unless that is included in what every restore has.
    _window: Option<Share>,
}

/// What a frame header says.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    /// Bytes of memory that decoding needs.
    window: u64,
    /// Bytes that it unpacks to, where it says so.
    content: Option<u64>,
    checksum: bool,
    dictionary: bool,
}

impl Zstd {
    pub(super) fn new(input: Input, means: Means) -> Self {
        Self {
            input,
            means,
            workers: None,
            ahead: VecDeque::new(),
            begins: VecDeque::new(),
            current: None,
            stream: None,
            ended: false,
            any: false,
            checked: true,
        }
    }

    /// The same with several threads.
    pub(super) fn in_parallel(input: Input, means: Means) -> Result<Self, RestoreError> {
        Ok(Self {
            workers: Workers::start()?,
            ..Self::new(input, means)
        })
    }

    /// The same between two frames, with whether all before were checked.
    pub(super) fn resumed(self, checked: bool) -> Self {
        Self {
            any: true,
            checked,
            ..self
        }
    }

    /// Begins with the next frame that has data, if there is one.
    fn next_frame(&mut self) -> Result<(), RestoreError> {
        let input = &mut self.input;
        loop {
            let position = input.position();
            let boundary = input.boundary();
            let mut header = [0; HEADER_MAX];
            let magic = match input.read_full(&mut header[..4])? {
                0 => {
                    self.ended = true;
                    return Ok(());
                }
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
            return self.open(position, boundary, &header[..length]);
        }
    }

    fn open(
        &mut self,
        position: u64,
        boundary: Option<Boundary>,
        header: &[u8],
    ) -> Result<(), RestoreError> {
        let declared = declared(header);
        if declared.dictionary {
            let found = "it is compressed with a zstd dictionary".to_owned();
            return Err(RestoreError::NotAnArchive { found });
        }
        self.any = true;
        self.checked &= declared.checksum;
        let mut start = header.to_vec();
        if let Some((content, share)) = self.room(&declared) {
            // No frame that makes sense is larger than this, whatever it holds.
            let most = content + content / 128 + 1024;
            if read_frame(
                &mut self.input,
                &mut start,
                declared.checksum,
                most,
                position,
            )? && let Some(workers) = &mut self.workers
            {
                let job = Job {
                    packed: start,
                    content,
                    position,
                    share,
                };
                self.ahead.push_back(workers.begin(job)?);
                self.begins.push_back((position, boundary));
                return Ok(());
            }
        }
        self.stream(start, declared.window)
    }

    /// What a frame unpacks to, if it may be decoded as a whole, and the memory for that.
    fn room(&mut self, declared: &Declared) -> Option<(usize, Share)> {
        let workers = self.workers.as_mut()?;
        let content = declared.content.filter(|content| *content <= FRAME_MAX)?;
        let Some(share) = self.means.budget.spare(2 * content + (64 << 10)) else {
            workers.free();
            return None;
        };
        Some((usize::try_from(content).ok()?, share))
    }

    /// Decodes a frame, of which `start` has been read, as a stream.
    fn stream(&mut self, start: Vec<u8>, window: u64) -> Result<(), RestoreError> {
        let window = self.means.window(window)?;
        let context = Context::new().and_then(|mut context| {
            context.set_parameter(DParameter::WindowLogMax(WINDOW_MAX.ilog2()))?;
            Ok(context)
        });
        let context = context.map_err(|error| RestoreError::NodeError {
            what: format!("starting zstd: {error}"),
        })?;
        self.stream = Some(Frame {
            context,
            start,
            given: 0,
            _window: window,
        });
        Ok(())
    }

    /// Reads on as long as that is of use before the first frame of those ahead is decoded. That one.
    fn next_ahead(&mut self) -> Result<Option<Ready>, RestoreError> {
        loop {
            if let Some(first) = self.ahead.pop_front() {
                match first.ready()? {
                    Ok(ready) => {
                        self.begins.pop_front();
                        return Ok(Some(ready));
                    }
                    Err(first) => self.ahead.push_front(first),
                }
            }
            let enough = self.workers.as_ref().map_or(0, |workers| workers.count + 1);
            if self.ended || self.stream.is_some() || self.ahead.len() >= enough.max(1) {
                break;
            }
            self.next_frame()?;
        }
        self.begins.pop_front();
        self.ahead.pop_front().map(Ahead::wait).transpose()
    }

    /// A part of the frame that is decoded as a stream; 0 at its end.
    fn streamed(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        while let Some(frame) = &mut self.stream {
            let input = &mut self.input;
            let position = input.position();
            let from_start = frame.given < frame.start.len();
            let bytes = if from_start {
                &frame.start[frame.given..]
            } else {
                input.fill()?
            };
            // No input does not mean that there is no output: it may be waiting in the context.
            let dry = bytes.is_empty();
            let status = frame
                .context
                .run_on_buffers(bytes, output)
                .map_err(|error| {
                    RestoreError::corrupt(format!("zstd says {error} near byte {position}"))
                })?;
            if from_start {
                frame.given += status.bytes_read;
            } else {
                input.consume(status.bytes_read);
            }
            if status.remaining == 0 {
                self.stream = None;
            } else if dry && status.bytes_written == 0 {
                return Err(cut(position));
            }
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
        }
        Ok(0)
    }
}

/// Reads the blocks of a frame and its checksum behind the header (RFC 8878, 3.1.1). False, with what
/// was read so far, if it is larger than `most` bytes.
fn read_frame(
    input: &mut Input,
    frame: &mut Vec<u8>,
    checksum: bool,
    most: usize,
    position: u64,
) -> Result<bool, RestoreError> {
    let mut append = |frame: &mut Vec<u8>, count: usize| {
        let start = frame.len();
        frame.resize(start + count, 0);
        let read = input.read_full(&mut frame[start..])?;
        if read < count {
            return Err(cut(position));
        }
        Ok(())
    };
    loop {
        append(frame, 3)?;
        let [.., low, middle, high] = frame.as_slice() else {
            return Ok(false);
        };
        let header = u32::from_le_bytes([*low, *middle, *high, 0]);
        let last = header & 1 == 1;
        let size = match header >> 1 & 3 {
            // A byte that is repeated.
            1 => 1,
            _ => (header >> 3) as usize,
        };
        if frame.len() + size > most {
            return Ok(false);
        }
        append(frame, size)?;
        if last {
            append(frame, if checksum { 4 } else { 0 })?;
            return Ok(true);
        }
    }
}

fn cut(position: u64) -> RestoreError {
    RestoreError::truncated(format!("its zstd frame at byte {position} is not complete"))
}

impl Decoder for Zstd {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            if let Some((ready, used)) = &mut self.current {
                let rest = &ready.bytes[*used..];
                let count = rest.len().min(output.len());
                output[..count].copy_from_slice(&rest[..count]);
                *used += count;
                if *used == ready.bytes.len()
                    && let Some((ready, _)) = self.current.take()
                    && let Some(workers) = &mut self.workers
                {
                    drop(ready.share);
                    workers.give_back(ready.bytes);
                }
                if count > 0 {
                    return Ok(count);
                }
            } else if let Some(ready) = self.next_ahead()? {
                self.current = Some((ready, 0));
            } else if self.stream.is_some() {
                let count = self.streamed(output)?;
                if count > 0 {
                    return Ok(count);
                }
            } else if self.ended {
                return Ok(0);
            }
        }
    }

    fn is_checked(&self) -> bool {
        self.any && self.checked
    }

    fn point(&mut self) -> Option<Place> {
        let (packed, boundary) = match (&self.current, self.begins.front(), &self.stream) {
            (None, Some((begin, boundary)), _) => (*begin, boundary.clone()?),
            (None, None, None) => (self.input.position(), self.input.boundary()?),
            _ => return None,
        };
        Some(Place {
            packed,
            boundary,
            checked: self.is_checked(),
            within: None,
        })
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

/// How many bytes the first frame unpacks to, if its header is there and says so; otherwise 0.
pub(crate) fn declared_content(start: &[u8]) -> u64 {
    let header = start
        .get(4)
        .and_then(|descriptor| start.get(..header_length(*descriptor)));
    match header {
        Some(header) if header.starts_with(&MAGIC.to_le_bytes()) => {
            declared(header).content.unwrap_or(0)
        }
        _ => 0,
    }
}

/// Reads a complete header.
fn declared(header: &[u8]) -> Declared {
    let descriptor = header[4];
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let rest = &header[5 + usize::from(!single)..];
    let content = match &rest[dictionary..] {
        [] => None,
        [low, high] => Some(u64::from(u16::from_le_bytes([*low, *high])) + 256),
        field => {
            let mut size = [0; 8];
            size[..field.len()].copy_from_slice(field);
            Some(u64::from_le_bytes(size))
        }
    };
    let window = match content {
        // The whole content is the window.
        Some(content) if single => content,
        _ => {
            let base = 1_u64 << (10 + (header[5] >> 3));
            base + base / 8 * u64::from(header[5] & 7)
        }
    };
    Declared {
        window,
        content,
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
            content: None,
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
            content: Some(16 + 256),
            checksum: false,
            dictionary: true,
        };
        assert_eq!(declared(&single), expected);
    }
}
