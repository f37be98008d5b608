//! gzip: one member after the other, each with its CRC-32 and length.

use flate2::{Decompress, FlushDecompress, Status};

use super::Decoder;
use crate::error::RestoreError;
use crate::stream::Stream;

/// The largest window that deflate knows, 2 to this power bytes.
const WINDOW_BITS: u8 = 15;

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Decodes the members of a gzip file. zlib itself reads their headers and checks their trailers.
pub(super) struct Gzip {
    member: Decompress,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a member; the first begins with the object.
    Member,
    /// After one: there may come another, or zeros as tapes leave them, or the end.
    Between,
    Ended,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            member: Decompress::new_gzip(WINDOW_BITS),
            state: State::Member,
        }
    }

    /// Looks at what follows a member.
    fn next_member(&mut self, input: &mut dyn Stream) -> Result<State, RestoreError> {
        let Some(first) = input.fill()?.first().copied() else {
            return Ok(State::Ended);
        };
        if first == MAGIC[0] {
            self.member = Decompress::new_gzip(WINDOW_BITS);
            return Ok(State::Member);
        }
        match input.only_zeros_left()? {
            Ok(()) => Ok(State::Ended),
            Err(at) => Err(RestoreError::corrupt(format!(
                "at byte {at} of the object something follows that is not gzip"
            ))),
        }
    }

    /// Decodes until there is output or the member is complete.
    fn member(&mut self, input: &mut dyn Stream, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            let position = input.position();
            let bytes = input.fill()?;
            if bytes.is_empty() {
                return Err(RestoreError::truncated(format!(
                    "its gzip stream is not complete after {position} bytes"
                )));
            }
            let (read, written) = (self.member.total_in(), self.member.total_out());
            let status = self.member.decompress(bytes, output, FlushDecompress::None);
            // Both are bounded by the lengths of slices.
            let read = usize::try_from(self.member.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.member.total_out() - written).unwrap_or(usize::MAX);
            let status = status.map_err(|error| {
                let said = error
                    .message()
                    .map_or_else(|| error.to_string(), str::to_owned);
                RestoreError::corrupt(format!("gzip says {said} near byte {position}"))
            })?;
            input.consume(read);
            match status {
                Status::StreamEnd => {
                    self.state = State::Between;
                    return Ok(written);
                }
                Status::Ok | Status::BufError if written > 0 => return Ok(written),
                Status::Ok | Status::BufError if read > 0 => {}
                Status::Ok | Status::BufError => {
                    return Err(RestoreError::corrupt(format!(
                        "its gzip stream makes no sense near byte {position}"
                    )));
                }
            }
        }
    }
}

impl Decoder for Gzip {
    fn decode(&mut self, input: &mut dyn Stream, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            match self.state {
                State::Member => match self.member(input, output)? {
                    // An empty member, or a trailer alone: not the end yet.
                    0 => {}
                    written => return Ok(written),
                },
                State::Between => self.state = self.next_member(input)?,
                State::Ended => return Ok(0),
            }
        }
    }

    fn is_checked(&self) -> bool {
        true
    }
}
