//! Connections from clients that name the socket's path as `:authority`.
//!
//! Kubelet's plugin watcher dials a registration socket by its path, and grpc-go then sends that
//! path, percent-encoded, as the `:authority` of each request (Kubernetes 1.36,
//! `pkg/kubelet/pluginmanager`; older CSI clients do the same). A path is no authority (RFC 3986,
//! 3.2), and the HTTP/2 implementation below tonic refuses such requests with PROTOCOL_ERROR
//! (hyperium/h2, pull request 487). So header blocks are read here first, and an authority that is
//! none becomes `localhost`, which is what other clients send over Unix sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use loona_hpack::Decoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Length, type, flags and stream of a frame (RFC 9113, 4.1).
const FRAME_HEADER: usize = 9;
/// The largest payload that a peer may send before it is told otherwise (RFC 9113, 4.2).
const LARGEST_FRAME: usize = 16_384;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection of a Unix socket that serves HTTP/2.
pub struct Connection {
    stream: UnixStream,
    rewriter: Rewriter,
    ready: Vec<u8>,
    taken: usize,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            rewriter: Rewriter::new(),
            ready: Vec::new(),
            taken: 0,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.ready.len() {
            let mut raw = [0; 4096];
            let mut raw = ReadBuf::new(&mut raw);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.taken = 0;
            this.rewriter
                .feed(raw.filled(), &mut this.ready)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let rest = &this.ready[this.taken..];
        let fits = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..fits]);
        this.taken += fits;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why a client's bytes are not HTTP/2. The connection ends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("a header block of more than {LARGEST_FRAME} bytes")]
    TooLarge,
    #[error("a header block that cannot be decoded: {0}")]
    Undecodable(String),
    #[error("padding or priority without room for it")]
    Padding,
}

/// Copies what a client sends, with authorities put right.
struct Rewriter {
    preface: usize,
    /// The frame header that is being collected.
    header: Vec<u8>,
    /// What is left of the payload of the present frame.
    payload: usize,
    /// The payload, of a frame that is looked into.
    collected: Option<Vec<u8>>,
    /// The header block so far, and the flags and stream of its HEADERS frame.
    block: Vec<u8>,
    block_flags: u8,
    stream: [u8; 4],
    decoder: Decoder<'static>,
}

impl Rewriter {
    fn new() -> Self {
        Self {
            preface: PREFACE,
            header: Vec::with_capacity(FRAME_HEADER),
            payload: 0,
            collected: None,
            block: Vec::new(),
            block_flags: 0,
            stream: [0; 4],
            decoder: Decoder::new(),
        }
    }

    fn feed(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), Malformed> {
        while !input.is_empty() {
            if self.preface > 0 {
                let part = take(&mut input, self.preface);
                self.preface -= part.len();
                output.extend_from_slice(part);
            } else if self.header.len() < FRAME_HEADER {
                let part = take(&mut input, FRAME_HEADER - self.header.len());
                self.header.extend_from_slice(part);
                if self.header.len() == FRAME_HEADER {
                    self.begin(output)?;
                }
            } else {
                let part = take(&mut input, self.payload);
                self.payload -= part.len();
                match &mut self.collected {
                    Some(collected) => collected.extend_from_slice(part),
                    None => output.extend_from_slice(part),
                }
                if self.payload == 0 {
                    self.end(output)?;
                }
            }
        }
        Ok(())
    }

    /// A frame header is complete.
    fn begin(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        let header = &self.header;
        self.payload =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        if matches!(header[3], HEADERS | CONTINUATION) {
            if self.payload + self.block.len() > LARGEST_FRAME {
                return Err(Malformed::TooLarge);
            }
            self.collected = Some(Vec::with_capacity(self.payload));
        } else {
            output.extend_from_slice(header);
        }
        if self.payload == 0 {
            self.end(output)
        } else {
            Ok(())
        }
    }

    /// A frame's payload is complete.
    fn end(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        let header = std::mem::take(&mut self.header);
        let Some(payload) = self.collected.take() else {
            return Ok(());
        };
        let flags = header[4];
        if header[3] == HEADERS {
            self.block.clear();
            self.block.extend_from_slice(fragment(&payload, flags)?);
            self.block_flags = flags;
            self.stream.copy_from_slice(&header[5..9]);
        } else {
            self.block.extend_from_slice(&payload);
        }
        if flags & END_HEADERS != 0 {
            self.write_block(output)?;
        }
        Ok(())
    }

    fn write_block(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        let fields = self
            .decoder
            .decode(&self.block)
            .map_err(|error| Malformed::Undecodable(format!("{error:?}")))?;
        self.block.clear();
        let mut block = Vec::new();
        for (name, value) in &fields {
            let value: &[u8] = if name.as_slice() == b":authority" && !is_authority(value) {
                b"localhost"
            } else {
                value
            };
            literal(name, value, &mut block);
        }
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
        if block.len() > LARGEST_FRAME {
            return Err(Malformed::TooLarge);
        }
        output.extend_from_slice(&length[1..]);
        output.extend_from_slice(&[HEADERS, self.block_flags & END_STREAM | END_HEADERS]);
        output.extend_from_slice(&self.stream);
        output.extend_from_slice(&block);
        Ok(())
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}

/// The part of a HEADERS payload that is header block (RFC 9113, 6.2).
fn fragment(payload: &[u8], flags: u8) -> Result<&[u8], Malformed> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, behind) = rest.split_first().ok_or(Malformed::Padding)?;
        (padding, rest) = (usize::from(*length), behind);
    }
    if flags & PRIORITY != 0 {
        rest = rest.get(5..).ok_or(Malformed::Padding)?;
    }
    let length = rest.len().checked_sub(padding).ok_or(Malformed::Padding)?;
    Ok(&rest[..length])
}

/// Whether a server of HTTP may take it for a host, with or without a port.
fn is_authority(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]@".contains(byte);
    !value.is_empty() && value.iter().all(allowed)
}

/// A literal field that neither uses nor changes the receiver's table (RFC 7541, 6.2.2), so that
/// what the client's blocks did to the table here never matters there.
fn literal(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        integer(text.len(), block);
        block.extend_from_slice(text);
    }
}

/// An integer with a prefix of seven bits, no Huffman code (RFC 7541, 5.1 and 5.2).
fn integer(number: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = number.checked_sub(0x7f) else {
        return block.push(u8::try_from(number).unwrap_or(0));
    };
    block.push(0x7f);
    while rest >= 0x80 {
        block.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            literal(name.as_bytes(), value.as_bytes(), &mut block);
        }
        frame(HEADERS, flags, &block)
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What comes out, whatever pieces the input comes in.
    fn rewritten(input: &[u8]) -> Vec<u8> {
        let whole = {
            let mut output = Vec::new();
            Rewriter::new().feed(input, &mut output).unwrap();
            output
        };
        for size in [1, 2, 7, 100] {
            let (mut rewriter, mut output) = (Rewriter::new(), Vec::new());
            input
                .chunks(size)
                .for_each(|part| rewriter.feed(part, &mut output).unwrap());
            assert_eq!(output, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn a_path_becomes_localhost_and_all_else_stays() {
        let preface = [b'p'; PREFACE];
        let settings = frame(4, 0, &[0, 1, 0, 0, 16, 0]);
        let data = frame(0, END_STREAM, b"message");
        let long = "x".repeat(300);
        let path = "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fx-reg.sock";
        let sent = headers(
            &[(":method", "POST"), (":authority", path), ("long", &long)],
            END_HEADERS,
        );
        let meant = headers(
            &[
                (":method", "POST"),
                (":authority", "localhost"),
                ("long", &long),
            ],
            END_HEADERS,
        );
        let input = [&preface[..], &settings, &sent, &data, &settings].concat();
        let output = [&preface[..], &settings, &meant, &data, &settings].concat();
        assert_eq!(rewritten(&input), output);
    }

    #[test]
    fn a_real_authority_stays() {
        let preface = [b'p'; PREFACE];
        for authority in ["localhost", "[::1]:80", "example.com:443"] {
            let sent = headers(&[(":authority", authority)], END_HEADERS | END_STREAM);
            let input = [&preface[..], &sent].concat();
            assert_eq!(rewritten(&input), input);
        }
    }

    #[test]
    fn padding_priority_and_continuation_are_understood() {
        let mut block = Vec::new();
        literal(b":authority", b"/a/path", &mut block);
        let (one, two) = block.split_at(5);
        let padded = [&[3][..], &[0; 5], one, &[0; 3]].concat();
        let first = frame(HEADERS, PADDED | PRIORITY | END_STREAM, &padded);
        let second = frame(CONTINUATION, END_HEADERS, two);
        let input = [&[b'p'; PREFACE][..], &first, &second].concat();
        let meant = headers(&[(":authority", "localhost")], END_HEADERS | END_STREAM);
        assert_eq!(rewritten(&input)[PREFACE..], meant);
    }

    #[test]
    fn rubbish_ends_the_connection() {
        let preface = [b'p'; PREFACE];
        let feed = |frame: &[u8]| {
            Rewriter::new()
                .feed(&[&preface[..], frame].concat(), &mut Vec::new())
                .unwrap_err()
        };
        assert_eq!(
            feed(&frame(HEADERS, PADDED | END_HEADERS, &[9, 0])),
            Malformed::Padding
        );
        assert_eq!(
            feed(&frame(HEADERS, PRIORITY | END_HEADERS, &[0; 4])),
            Malformed::Padding
        );
        assert_eq!(
            feed(&frame(HEADERS, 0, &vec![0; LARGEST_FRAME + 1])),
            Malformed::TooLarge
        );
        let undecodable = feed(&frame(HEADERS, END_HEADERS, &[0xff; 20]));
        assert!(
            matches!(undecodable, Malformed::Undecodable(_)),
            "{undecodable}"
        );
    }
}
