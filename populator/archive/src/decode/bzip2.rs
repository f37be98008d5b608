//! bzip2: each block has a CRC-32, and each stream one of those.

use bzip2::{Decompress, Status};

use super::Means;
use super::members::{Fault, Member, Step};
use crate::error::RestoreError;

/// Takes 3.7 MB at most (bzip2(1), "MEMORY MANAGEMENT"), which every restore has.
pub(super) struct Bzip2(Decompress);

impl Member for Bzip2 {
    const NAME: &'static str = "bzip2";
    const FIRST: u8 = b'B';
    const PADDED: bool = false;

    fn begin() -> Result<Self, RestoreError> {
        Ok(Self(Decompress::new(false)))
    }

    fn step(&mut self, input: &[u8], output: &mut [u8], _: &Means) -> Result<Step, Fault> {
        let (read, written) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output);
        let status = status.map_err(|error| Fault::Data(error.to_string()))?;
        Ok(Step::since(
            self.0.total_in() - read,
            self.0.total_out() - written,
            status == Status::StreamEnd,
        ))
    }

    fn is_checked(&self) -> bool {
        true
    }
}
