//! xz, by liblzma: a check of each block by choice of who packed it, and always one of the index.

use liblzma::stream::{Action, Error, Status, Stream, TELL_NO_CHECK};

use super::members::{Fault, Member, Step};
use super::{Means, WINDOW_INCLUDED};
use crate::budget::{Share, WINDOW_MAX};
use crate::error::RestoreError;

/// In what steps memory for the dictionary is asked for, since liblzma tells only whether some is
/// enough.
const STEP: u64 = 4 << 20;

pub(super) struct Xz {
    stream: Stream,
    checked: bool,
    /// The memory of its dictionary, unless that is included in what every restore has.
    window: Option<Share>,
}

impl Xz {
    /// Waits for as much memory as the dictionary takes.
    fn make_room(&mut self, means: &Means) -> Result<(), Fault> {
        let mut limit = WINDOW_INCLUDED;
        loop {
            limit += if limit < WINDOW_MAX { STEP } else { limit };
            match self.stream.set_memlimit(limit) {
                Ok(()) => break,
                Err(Error::MemLimit) => {}
                Err(error) => return Err(Fault::Data(error.to_string())),
            }
        }
        // The one before, of an earlier block, is given back first.
        drop(self.window.take());
        self.window = means.window(limit).map_err(Fault::Other)?;
        Ok(())
    }
}

impl Member for Xz {
    const NAME: &'static str = "xz";
    const FIRST: u8 = 0xfd;
    const PADDED: bool = true;

    fn begin() -> Result<Self, RestoreError> {
        let stream = Stream::new_stream_decoder(WINDOW_INCLUDED, TELL_NO_CHECK);
        let stream = stream.map_err(|error| RestoreError::NodeError {
            what: format!("starting xz: {error}"),
        })?;
        Ok(Self {
            stream,
            checked: true,
            window: None,
        })
    }

    fn step(&mut self, input: &[u8], output: &mut [u8], means: &Means) -> Result<Step, Fault> {
        let (begin_in, begin_out) = (self.stream.total_in(), self.stream.total_out());
        loop {
            let read = self.stream.total_in() - begin_in;
            // At most the length of the slice.
            let rest = &input[usize::try_from(read).unwrap_or(input.len())..];
            let ended = match self.stream.process(rest, output, Action::Run) {
                Ok(status) => status == Status::StreamEnd,
                // Both come before anything is decoded, and decoding goes on after them.
                Err(Error::MemLimit) => {
                    self.make_room(means)?;
                    continue;
                }
                Err(Error::NoCheck) => {
                    self.checked = false;
                    continue;
                }
                Err(error) => return Err(Fault::Data(error.to_string())),
            };
            return Ok(Step::since(
                self.stream.total_in() - begin_in,
                self.stream.total_out() - begin_out,
                ended,
            ));
        }
    }

    fn is_checked(&self) -> bool {
        self.checked
    }
}
