//! Formats of members one after the other, each complete in itself: gzip, xz, bzip2.

use super::gzip::Within;
use super::{Decoder, Input, Means, Place};
use crate::error::RestoreError;
use crate::stream::Stream as _;

/// A library's decoder of one member. It reads the member's header and checks its trailer.
pub(super) trait Member: Send + Sized {
    /// The format's name, for messages.
    const NAME: &'static str;

    /// With what a member begins.
    const FIRST: u8;

    /// Whether zeros may lie between members and not only after the last.
    const PADDED: bool;

    /// Begins a member.
    fn begin() -> Result<Self, RestoreError>;

    /// Decodes a part; neither slice is empty.
    fn step(&mut self, input: &[u8], output: &mut [u8], means: &Means) -> Result<Step, Fault>;

    /// What it takes to go on within it, if that is possible where it is. Once asked, the member
    /// stops at the next such place.
    fn within(&mut self) -> Option<Within> {
        None
    }

    /// Whether a checksum covers all of the member; known at its end.
    fn is_checked(&self) -> bool;
}

/// What came of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) read: usize,
    pub(super) written: usize,
    /// The member is complete and right.
    pub(super) ended: bool,
}

impl Step {
    /// What a library's counters say; both are bounded by the lengths of slices.
    pub(super) fn since(read: u64, written: u64, ended: bool) -> Self {
        Self {
            read: usize::try_from(read).unwrap_or(usize::MAX),
            written: usize::try_from(written).unwrap_or(usize::MAX),
            ended,
        }
    }
}

/// Why there was no step.
pub(super) enum Fault {
    /// What the library says of the data.
    Data(String),
    /// Something else.
    Other(RestoreError),
}

/// The members of an object.
pub(super) struct Members<M> {
    input: Input,
    means: Means,
    state: State<M>,
    checked: bool,
}

enum State<M> {
    /// Within a member; the first begins with the object.
    Within(M),
    /// After one: there may come another, or zeros as tapes leave them, or the end.
    Between,
    Ended,
}

impl<M: Member> Members<M> {
    pub(super) fn new(input: Input, means: Means) -> Result<Self, RestoreError> {
        Ok(Self {
            input,
            means,
            state: State::Within(M::begin()?),
            checked: true,
        })
    }

    /// Goes on within a member or between two, with whether all before was checked.
    pub(super) fn resume(input: Input, means: Means, member: Option<M>, checked: bool) -> Self {
        Self {
            input,
            means,
            state: member.map_or(State::Between, State::Within),
            checked,
        }
    }

    /// Looks at what follows a member.
    fn next(&mut self) -> Result<State<M>, RestoreError> {
        if M::PADDED {
            self.input.skip_zeros()?;
        }
        let Some(first) = self.input.fill()?.first().copied() else {
            return Ok(State::Ended);
        };
        if first == M::FIRST {
            return Ok(State::Within(M::begin()?));
        }
        match self.input.only_zeros_left()? {
            Ok(()) => Ok(State::Ended),
            Err(at) => Err(RestoreError::corrupt(format!(
                "at byte {at} of the object something follows that is not {}",
                M::NAME
            ))),
        }
    }
}

impl<M: Member> Decoder for Members<M> {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        loop {
            let member = match &mut self.state {
                State::Within(member) => member,
                State::Between => {
                    self.state = self.next()?;
                    continue;
                }
                State::Ended => return Ok(0),
            };
            let position = self.input.position();
            let bytes = self.input.fill()?;
            let name = M::NAME;
            if bytes.is_empty() {
                return Err(RestoreError::truncated(format!(
                    "its {name} stream is not complete after {position} bytes"
                )));
            }
            let step = member.step(bytes, output, &self.means);
            let step = step.map_err(|fault| match fault {
                Fault::Data(said) => {
                    RestoreError::corrupt(format!("{name} says {said} near byte {position}"))
                }
                Fault::Other(error) => error,
            })?;
            self.input.consume(step.read);
            if step.ended {
                self.checked &= member.is_checked();
                self.state = State::Between;
            } else if step.read == 0 && step.written == 0 {
                return Err(RestoreError::corrupt(format!(
                    "its {name} stream makes no sense near byte {position}"
                )));
            }
            // Nothing may have come of an empty member, or of a header alone: not the end yet.
            if step.written > 0 {
                return Ok(step.written);
            }
        }
    }

    fn is_checked(&self) -> bool {
        self.checked
    }

    fn point(&mut self) -> Option<Place> {
        let boundary = self.input.boundary()?;
        let within = match &mut self.state {
            State::Within(member) => Some(member.within()?),
            State::Between => None,
            State::Ended => return None,
        };
        Some(Place {
            packed: self.input.position(),
            boundary,
            checked: self.checked,
            within,
        })
    }

    fn digest(&self) -> Option<[u8; 32]> {
        self.input.digest()
    }
}
