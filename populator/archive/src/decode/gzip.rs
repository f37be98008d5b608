//! gzip (RFC 1952), by zlib-ng: each member has a CRC-32 and a length.

use flate2::{Decompress, FlushDecompress, Status};

use super::Means;
use super::members::{Fault, Member, Step};
use crate::error::RestoreError;

/// The largest window that deflate knows, 2 to this power bytes.
const WINDOW_BITS: u8 = 15;

pub(super) struct Gzip(Decompress);

impl Member for Gzip {
    const NAME: &'static str = "gzip";
    const FIRST: u8 = 0x1f;
    // gzip(1) reads nothing after zeros, and what it does not read is not what was stored.
    const PADDED: bool = false;

    fn begin() -> Result<Self, RestoreError> {
        Ok(Self(Decompress::new_gzip(WINDOW_BITS)))
    }

    fn step(&mut self, input: &[u8], output: &mut [u8], _: &Means) -> Result<Step, Fault> {
        let (read, written) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output, FlushDecompress::None);
        let status = status.map_err(|error| {
            let said = error.message().map(str::to_owned);
            Fault::Data(said.unwrap_or_else(|| error.to_string()))
        })?;
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
