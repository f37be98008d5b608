//! age (<https://age-encryption.org/v1>): what it gives is authenticated, chunk by chunk, to its end.

use std::io::{self, BufRead, Chain, Cursor, Read};
use std::sync::{Arc, OnceLock};

use age::stream::StreamReader;
use age::{DecryptError, Decryptor};

use super::{Decoder, Input, Means};
use crate::error::RestoreError;
use crate::identity::Identities;
use crate::stream::Stream as _;

/// Bytes in a decrypted chunk: what age encrypts at once.
pub(super) const CHUNK: usize = 64 << 10;

/// With what every header begins that is read here.
const FIRST_LINE: &[u8] = b"age-encryption.org/v1\n";

/// With what the last line of a header begins.
const LAST_LINE: &[u8] = b"---";

/// The most bytes and lines of a header that are read, some hundred recipients: the library takes time
/// that grows with the square of it.
const HEADER_MAX: usize = 32 << 10;
const LINES_MAX: usize = 1000;

/// An encrypted object as the library reads it: its header, which has been read already, and the rest.
type Whole = Chain<Cursor<Vec<u8>>, Encrypted>;

pub(super) struct Age {
    reader: StreamReader<Whole>,
    digest: Arc<OnceLock<[u8; 32]>>,
}

/// The stored object behind its header.
struct Encrypted {
    input: Input,
    /// [`Input::digest`], once there is one; the library does not give back what it reads from.
    digest: Arc<OnceLock<[u8; 32]>>,
}

impl BufRead for Encrypted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Not in one step, which would borrow it to the end.
        if self.input.fill().map_err(io::Error::other)?.is_empty()
            && let Some(digest) = self.input.digest()
        {
            self.digest.get_or_init(|| digest);
        }
        self.input.fill().map_err(io::Error::other)
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
    }
}

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Age {
    /// Reads the header and finds the key.
    pub(super) fn open(
        mut input: Input,
        identities: &Identities,
        work_factor: u8,
        means: &Means,
    ) -> Result<Self, RestoreError> {
        let header = Cursor::new(header(&mut input)?);
        let digest = Arc::new(OnceLock::new());
        let encrypted = Encrypted {
            input,
            digest: Arc::clone(&digest),
        };
        let decryptor = Decryptor::new_buffered(header.chain(encrypted))
            .map_err(|it| refused(it, work_factor))?;
        let passphrase = decryptor.is_scrypt();
        // The most that scrypt may take (RFC 7914; its r is 8 in age): at the usual work factor that is
        // all there is, so that one restore does so at a time.
        let share = passphrase.then(|| means.share(1024 << work_factor.min(32)));
        let share = share.transpose()?;
        let identities = identities.clone();
        // Elsewhere, since a second of scrypt cannot be stopped: it ends when nobody waits any more.
        let finding = means.runtime.spawn_blocking(move || {
            let identities = identities.for_age(passphrase, work_factor);
            if identities.is_empty() {
                let needed = if passphrase {
                    "the passphrase"
                } else {
                    "an identity of one of its recipients"
                };
                return Err(RestoreError::IdentityMissing { needed });
            }
            let found = decryptor.decrypt(identities.iter().map(|identity| &**identity));
            drop(share);
            found.map_err(|error| refused(error, work_factor))
        });
        let found = means.cancel.run_until_cancelled(finding);
        let found = means.runtime.block_on(found);
        let reader =
            found
                .ok_or(RestoreError::Cancelled)?
                .map_err(|died| RestoreError::NodeError {
                    what: format!("finding the key: {died}"),
                })??;
        Ok(Self { reader, digest })
    }
}

impl Decoder for Age {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        self.reader.read(output).map_err(failed)
    }

    fn is_checked(&self) -> bool {
        true
    }

    fn digest(&self) -> Option<[u8; 32]> {
        self.digest.get().copied()
    }
}

/// The header, to the end of its last line.
fn header(input: &mut Input) -> Result<Vec<u8>, RestoreError> {
    let mut header = Vec::new();
    let (mut line, mut lines) = (0, 0);
    loop {
        let bytes = input.fill()?;
        if bytes.is_empty() {
            return Err(RestoreError::truncated("its age header is not complete"));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(bytes.len(), |end| end + 1);
        lines += usize::from(end.is_some());
        if header.len() + count > HEADER_MAX || lines > LINES_MAX {
            return Err(RestoreError::corrupt(format!(
                "its age header has more than {HEADER_MAX} bytes or {LINES_MAX} lines"
            )));
        }
        header.extend_from_slice(&bytes[..count]);
        input.consume(count);
        if end.is_none() {
            continue;
        }
        if line == 0 && header != FIRST_LINE {
            return Err(RestoreError::NotAnArchive {
                found: "it is encrypted with a version of age that is not known".into(),
            });
        }
        if header[line..].starts_with(LAST_LINE) {
            return Ok(header);
        }
        line = header.len();
    }
}

/// Why no key was found.
fn refused(error: DecryptError, limit: u8) -> RestoreError {
    match error {
        DecryptError::Io(error) => failed(error),
        DecryptError::ExcessiveWork { required, .. } => RestoreError::WorkFactorTooHigh {
            factor: required,
            limit,
        },
        DecryptError::NoMatchingKeys
        | DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed => RestoreError::IdentityWrong,
        // Its form, or its authentication code.
        _ => RestoreError::corrupt("its age header was altered"),
    }
}

/// What reading came to, of this side or of the library.
fn failed(error: io::Error) -> RestoreError {
    let error = match error.downcast::<RestoreError>() {
        Ok(own) => return own,
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RestoreError::truncated("its age encryption does not end"),
        // Which one it was, the last chunk does not tell.
        _ => RestoreError::corrupt("what age encrypted was altered or cut off"),
    }
}
