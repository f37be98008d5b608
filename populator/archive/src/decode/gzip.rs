//! gzip (RFC 1952), by zlib-ng: each member has a CRC-32 and a length.

use serde::{Deserialize, Serialize};

use super::Means;
use super::inflate::{Inflate, WINDOW, crc32};
use super::members::{Fault, Member, Step};
use crate::error::RestoreError;

/// Bits of the flags (RFC 1952, 2.3.1).
const HEADER_SUM: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// One member.
pub(super) struct Gzip {
    part: Part,
    inflate: Inflate,
    /// Of what was decoded.
    sum: u32,
    /// Of that, modulo 2 to the power 32.
    length: u32,
    /// The last byte of deflate that was read.
    last: u8,
    /// Whether it is to stop behind a block.
    wanted: bool,
    /// Behind a block: how many bits of `last` belong to the next one.
    boundary: Option<u8>,
}

enum Part {
    Header(Header),
    Data,
    Trailer(Vec<u8>),
}

/// What it takes to go on within a member, behind a block.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    /// How many bits of the last byte before are still to be read, and those.
    bits: u8,
    value: u8,
    /// What was decoded last.
    #[serde(with = "hex")]
    window: Vec<u8>,
    sum: u32,
    length: u32,
}

impl Gzip {
    /// Goes on where [`Member::within`] was asked.
    pub(super) fn resume(within: Within) -> Result<Self, RestoreError> {
        let Within {
            bits,
            value,
            window,
            sum,
            length,
        } = within;
        if bits > 7 || window.len() > WINDOW {
            return Err(RestoreError::NodeError {
                what: "going on in a gzip stream: no such place".to_owned(),
            });
        }
        Ok(Self {
            part: Part::Data,
            inflate: Inflate::resume(bits, value, &window)?,
            sum,
            length,
            last: 0,
            wanted: false,
            boundary: None,
        })
    }

    /// Decodes a part of the data.
    fn data(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        let inflated = self.inflate.step(input, output, self.wanted);
        let inflated = inflated.map_err(Fault::Data)?;
        let bytes = &output[..inflated.written];
        self.sum = crc32(self.sum, bytes);
        // As the trailer has it.
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2 to the power 32")]
        let count = inflated.written as u32;
        self.length = self.length.wrapping_add(count);
        if let Some(last) = input[..inflated.read].last() {
            self.last = *last;
        }
        self.boundary = inflated.boundary;
        if inflated.ended {
            self.part = Part::Trailer(Vec::with_capacity(TRAILER));
        }
        Ok(Step {
            read: inflated.read,
            written: inflated.written,
            ended: false,
        })
    }

    /// Whether the trailer says what was decoded.
    fn check(&self, trailer: &[u8]) -> Result<(), Fault> {
        let expected = [self.sum.to_le_bytes(), self.length.to_le_bytes()].concat();
        if trailer[..4] != expected[..4] {
            return Err(Fault::Data("incorrect data check".to_owned()));
        }
        if trailer != expected {
            return Err(Fault::Data("incorrect length check".to_owned()));
        }
        Ok(())
    }
}

/// Bytes behind the data: CRC-32 and length.
const TRAILER: usize = 8;

impl Member for Gzip {
    const NAME: &'static str = "gzip";
    const FIRST: u8 = 0x1f;
    // gzip(1) reads nothing after zeros, and what it does not read is not what was stored.
    const PADDED: bool = false;

    fn begin() -> Result<Self, RestoreError> {
        Ok(Self {
            part: Part::Header(Header::default()),
            inflate: Inflate::new()?,
            sum: 0,
            length: 0,
            last: 0,
            wanted: false,
            boundary: None,
        })
    }

    fn step(&mut self, input: &[u8], output: &mut [u8], _: &Means) -> Result<Step, Fault> {
        let mut read = 0;
        while read < input.len() {
            match &mut self.part {
                Part::Header(header) => {
                    let ended = header.take(input[read]).map_err(Fault::Data)?;
                    read += 1;
                    if ended {
                        self.part = Part::Data;
                    }
                }
                Part::Data => {
                    let step = self.data(&input[read..], output)?;
                    read += step.read;
                    let ended = matches!(self.part, Part::Trailer(_));
                    // The end of a block, or of all, may come of bits that were read before.
                    let nothing = step.read == 0 && step.written == 0;
                    if step.written > 0 || (nothing && !ended && self.boundary.is_none()) {
                        let written = step.written;
                        return Ok(Step {
                            read,
                            written,
                            ended: false,
                        });
                    }
                }
                Part::Trailer(trailer) => {
                    let count = (TRAILER - trailer.len()).min(input.len() - read);
                    trailer.extend_from_slice(&input[read..read + count]);
                    read += count;
                    if trailer.len() == TRAILER {
                        let trailer = std::mem::take(trailer);
                        self.check(&trailer)?;
                        return Ok(Step {
                            read,
                            written: 0,
                            ended: true,
                        });
                    }
                }
            }
        }
        Ok(Step {
            read,
            written: 0,
            ended: false,
        })
    }

    fn within(&mut self) -> Option<Within> {
        let Some(bits) = self.boundary else {
            self.wanted = true;
            return None;
        };
        self.wanted = false;
        // Without it one only goes on from further back.
        let window = self.inflate.window().ok()?;
        Some(Within {
            bits,
            // The upper ones of the byte, since deflate begins with the lowest (RFC 1951, 3.1.1).
            value: u8::try_from(u16::from(self.last) >> (8 - bits)).unwrap_or_default(),
            window,
            sum: self.sum,
            length: self.length,
        })
    }

    fn is_checked(&self) -> bool {
        true
    }
}

/// The header of a member, which is passed over.
#[derive(Default)]
struct Header {
    field: Field,
    /// Bytes of the field that are read.
    count: usize,
    flags: u8,
    /// Of the field that is read, where it has two bytes: lowest first.
    number: u16,
    /// Of all that is read.
    sum: u32,
}

/// The parts of a header, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Field {
    /// Magic, method, flags, time, level, system.
    #[default]
    Fixed,
    ExtraLength,
    Extra,
    Name,
    Comment,
    Sum,
}

impl Header {
    /// Takes the next byte; whether it was the last.
    fn take(&mut self, byte: u8) -> Result<bool, String> {
        // The sum is that of what is before it (RFC 1952, 2.3.1).
        if self.field != Field::Sum {
            self.sum = crc32(self.sum, &[byte]);
        }
        self.count += 1;
        let ended = match self.field {
            Field::Fixed => {
                match (self.count, byte) {
                    (1, 0x1f) | (2, 0x8b) | (3, 8) | (5.., _) => {}
                    (3, _) => return Err("unknown compression method".to_owned()),
                    (4, flags) if flags & RESERVED != 0 => {
                        return Err("unknown header flags set".to_owned());
                    }
                    (4, flags) => self.flags = flags,
                    _ => return Err("incorrect header check".to_owned()),
                }
                self.count == 10
            }
            Field::ExtraLength | Field::Sum => {
                self.number = (self.number >> 8) | (u16::from(byte) << 8);
                self.count == 2
            }
            Field::Extra => self.count == usize::from(self.number),
            Field::Name | Field::Comment => byte == 0,
        };
        if ended && self.field == Field::Sum && u32::from(self.number) != self.sum & 0xffff {
            return Err("header crc mismatch".to_owned());
        }
        Ok(ended && self.is_last())
    }

    /// After a field: goes to the next one that there is; whether there is none.
    fn is_last(&mut self) -> bool {
        self.count = 0;
        let has = |flag| self.flags & flag != 0;
        loop {
            let (next, is_there) = match self.field {
                Field::Fixed => (Field::ExtraLength, has(EXTRA)),
                Field::ExtraLength => (Field::Extra, has(EXTRA) && self.number > 0),
                Field::Extra => (Field::Name, has(NAME)),
                Field::Name => (Field::Comment, has(COMMENT)),
                Field::Comment => (Field::Sum, has(HEADER_SUM)),
                Field::Sum => return true,
            };
            self.field = next;
            if is_there {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of `bytes` are a header, or what is wrong with it.
    fn header(bytes: &[u8]) -> Result<usize, String> {
        let mut header = Header::default();
        for (index, byte) in bytes.iter().enumerate() {
            if header.take(*byte)? {
                return Ok(index + 1);
            }
        }
        Err("cut off".to_owned())
    }

    #[test]
    fn headers_with_everything_in_them() {
        let with = |flags: u8, rest: &[u8]| {
            let fixed = [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
            [&fixed[..], rest].concat()
        };
        let summed = |flags: u8, rest: &[u8]| {
            let header = with(flags | HEADER_SUM, rest);
            let sum = crc32(0, &header).to_le_bytes();
            [&header[..], &sum[..2]].concat()
        };
        let all = b"\x03\0abcname\0a comment\0";
        for (header_bytes, data) in [
            (with(0, b""), "data"),
            (with(1, b""), "data"),
            (with(NAME, b"name\0"), "data"),
            (with(EXTRA, b"\0\0"), "data"),
            (with(EXTRA | NAME | COMMENT, all), ""),
            (summed(EXTRA | NAME | COMMENT, all), "data"),
            (summed(0, b""), "data"),
        ] {
            let whole = [&header_bytes[..], data.as_bytes()].concat();
            assert_eq!(header(&whole), Ok(header_bytes.len()), "{whole:?}");
        }
        let mut damaged = summed(NAME, b"name\0");
        damaged[11] ^= 1;
        assert_eq!(header(&damaged).unwrap_err(), "header crc mismatch");
        assert!(header(&with(0x20, b"")).is_err() && header(b"\x1f\x8b\x07").is_err());
        assert!(header(b"PK").is_err() && header(&with(NAME, b"name")).is_err());
    }
}
