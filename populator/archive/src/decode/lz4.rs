//! lz4 (its frame format), frame by frame, so that each one's memory and checksums are known before it
//! is decoded.

use std::io::{self, Read as _};

use lz4_flex::frame::FrameDecoder;

use super::{Decoder, Input, Means, is_skippable, skip_frame};
use crate::budget::Share;
use crate::error::RestoreError;
use crate::stream::Stream as _;

const MAGIC: u32 = 0x184d_2204;

/// Magic, flags, block size: what is looked at of a header.
const LOOK: usize = 6;

/// How far back linked blocks refer, in bytes.
const LINK: u64 = 64 << 10;

pub(super) struct Lz4 {
    means: Means,
    state: State,
    checked: bool,
}

enum State {
    Between(Input),
    Within(Box<FrameDecoder<Frame>>, Option<Share>),
    /// For the moment of going from one to the other.
    Moving,
}

/// What the library reads of a frame: what was looked at, and then the object. That the object ends
/// is an error here, for the library takes it for the end of the frame.
struct Frame {
    header: [u8; LOOK],
    used: usize,
    begin: u64,
    input: Input,
    failure: Option<RestoreError>,
}

impl io::Read for Frame {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let known = &self.header[self.used..];
        if !known.is_empty() {
            let count = known.len().min(buffer.len());
            buffer[..count].copy_from_slice(&known[..count]);
            self.used += count;
            return Ok(count);
        }
        let error = match self.input.fill() {
            Ok([]) => cut(self.begin),
            Ok(bytes) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                self.input.consume(count);
                return Ok(count);
            }
            Err(error) => error,
        };
        self.failure = Some(error);
        Err(io::Error::other("see failure"))
    }
}

/// What a frame header says.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    /// Bytes of memory that decoding needs.
    memory: u64,
    checksum: bool,
}

impl Lz4 {
    pub(super) fn new(input: Input, means: Means) -> Self {
        Self {
            means,
            state: State::Between(input),
            checked: true,
        }
    }

    /// Opens the next frame with data; [`State::Between`] at the end of the object.
    fn next_frame(&mut self, mut input: Input) -> Result<State, RestoreError> {
        loop {
            let begin = input.position();
            let mut header = [0; LOOK];
            let magic = match input.read_full(&mut header[..4])? {
                0 => return Ok(State::Between(input)),
                4 => u32::from_le_bytes([header[0], header[1], header[2], header[3]]),
                _ => return Err(cut(begin)),
            };
            if is_skippable(magic) {
                if !skip_frame(&mut input)? {
                    return Err(cut(begin));
                }
                continue;
            }
            if magic != MAGIC {
                return Err(RestoreError::corrupt(format!(
                    "at byte {begin} of the object something follows that is not lz4"
                )));
            }
            if input.read_full(&mut header[4..])? != LOOK - 4 {
                return Err(cut(begin));
            }
            let declared = declared(header[4], header[5]);
            self.checked &= declared.checksum;
            let memory = self.means.window(declared.memory)?;
            let frame = Frame {
                header,
                used: 0,
                begin,
                input,
                failure: None,
            };
            return Ok(State::Within(Box::new(FrameDecoder::new(frame)), memory));
        }
    }
}

impl Decoder for Lz4 {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            match std::mem::replace(&mut self.state, State::Moving) {
                State::Between(input) => {
                    self.state = self.next_frame(input)?;
                    if let State::Between(_) = self.state {
                        return Ok(0);
                    }
                }
                State::Within(mut decoder, memory) => match decoder.read(output) {
                    Ok(0) => self.state = State::Between(decoder.into_inner().input),
                    Ok(count) => {
                        self.state = State::Within(decoder, memory);
                        return Ok(count);
                    }
                    Err(error) => {
                        let mut frame = decoder.into_inner();
                        let position = frame.input.position();
                        return Err(frame.failure.take().unwrap_or_else(|| {
                            RestoreError::corrupt(format!("lz4 says {error} near byte {position}"))
                        }));
                    }
                },
                State::Moving => return Err(RestoreError::corrupt("it was given up before")),
            }
        }
    }

    fn is_checked(&self) -> bool {
        self.checked
    }

    fn digest(&self) -> Option<[u8; 32]> {
        match &self.state {
            State::Between(input) => input.digest(),
            State::Within(..) | State::Moving => None,
        }
    }
}

fn cut(position: u64) -> RestoreError {
    RestoreError::truncated(format!("its lz4 frame at byte {position} is not complete"))
}

/// Reads the flags and the block size (LZ4 Frame Format 1.6.4). What makes no sense is left to the
/// library to refuse.
fn declared(flags: u8, sizes: u8) -> Declared {
    let block: u64 = match (sizes >> 4) & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        _ => 4 << 20,
    };
    let linked = flags & 0x20 == 0;
    let unpacked = if linked { 2 * block + LINK } else { block };
    Declared {
        memory: block + unpacked,
        // Of the content, or of each block.
        checksum: flags & (0x04 | 0x10) != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_headers_say_what_decoding_takes() {
        let usual = Declared {
            memory: 8 << 20,
            checksum: true,
        };
        assert_eq!(declared(0x64, 0x70), usual);
        let linked = Declared {
            memory: 3 * (64 << 10) + LINK,
            checksum: false,
        };
        assert_eq!(declared(0x40, 0x40), linked);
    }
}
