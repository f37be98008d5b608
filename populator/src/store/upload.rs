//! An object being made, in parts of which several are on the way at a time.

use std::future::Future;

use archive::{Sink, SourceError};
use object_store::{Error, MultipartUpload, ObjectStoreExt as _, RetryConfig};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::object::{locate, refusal, said};
use super::{OpenError, S3};

/// The smallest part that S3 takes is 5 MiB; fewer requests are faster.
const PART_MIN: u64 = 8 << 20;

/// The most parts that S3 takes are 10,000; an archive is no longer than what it is made of, nearly.
const PARTS: u64 = 9_000;

/// Parts on the way.
const IN_FLIGHT: usize = 2;

/// An object being made. Nobody sees it before it is complete; dropped before that, its parts are left
/// to the store's own cleaning.
pub struct Upload {
    object: Box<dyn MultipartUpload>,
    part: usize,
    buffer: Vec<u8>,
    sent: JoinSet<Result<(), Error>>,
    runtime: Handle,
}

impl Upload {
    /// Bytes of memory that the upload of about `length` bytes takes.
    pub fn memory(length: u64) -> u64 {
        (IN_FLIGHT as u64 + 1) * part(length)
    }

    /// Begins to make the object `url`, of about `length` bytes. One that is there is only replaced
    /// where that is allowed.
    pub async fn begin(
        url: &str,
        s3: &S3,
        length: u64,
        overwrite: bool,
    ) -> Result<Self, OpenError> {
        let (store, path) = locate(url, s3, RetryConfig::default())?;
        let refused = |error: Error| OpenError::Refused {
            url: url.to_owned(),
            why: said(&error),
        };
        match store.head(&path).await {
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(refused(error)),
            Ok(_) if overwrite => {}
            Ok(_) => {
                return Err(OpenError::Exists {
                    url: url.to_owned(),
                });
            }
        }
        let part = part(length);
        Ok(Self {
            object: store.put_multipart(&path).await.map_err(refused)?,
            // Memory for it is asked for.
            part: usize::try_from(part).unwrap_or(usize::MAX),
            buffer: Vec::new(),
            sent: JoinSet::new(),
            runtime: Handle::current(),
        })
    }

    /// Waits until no more than so many parts are on the way.
    async fn wait(sent: &mut JoinSet<Result<(), Error>>, most: usize) -> Result<(), Error> {
        while sent.len() > most {
            match sent.join_next().await {
                Some(Ok(result)) => result?,
                Some(Err(join)) => return Err(join.into()),
                None => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: Vec<u8>) -> impl Future<Output = Result<(), Error>> {
        self.sent
            .spawn_on(self.object.put_part(bytes.into()), &self.runtime);
        Self::wait(&mut self.sent, IN_FLIGHT - 1)
    }

    /// Makes the object what was written.
    pub async fn complete(mut self) -> Result<(), SourceError> {
        let last = std::mem::take(&mut self.buffer);
        let completed = async {
            self.send(last).await?;
            Self::wait(&mut self.sent, 0).await?;
            self.object.complete().await
        };
        match completed.await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.abandon().await;
                Err(refusal(&error))
            }
        }
    }

    /// Gives the object up.
    pub async fn abandon(mut self) {
        self.sent.shutdown().await;
        if let Err(error) = self.object.abort().await {
            tracing::debug!(%error, "the parts of an upload that was given up stay");
        }
    }
}

impl Sink for Upload {
    fn write(&mut self, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.buffer.extend_from_slice(&bytes);
        while self.buffer.len() >= self.part {
            let rest = self.buffer.split_off(self.part);
            let full = std::mem::replace(&mut self.buffer, rest);
            let runtime = self.runtime.clone();
            let sent = runtime.block_on(self.send(full));
            sent.map_err(|error| refusal(&error))?;
        }
        Ok(())
    }
}

/// Bytes in each part of an object of about `length` bytes.
fn part(length: u64) -> u64 {
    PART_MIN
        .max(length.div_ceil(PARTS))
        .next_multiple_of(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough() {
        assert_eq!(part(0), 8 << 20);
        assert_eq!(part(60 << 30), 8 << 20);
        for length in [1 << 40, 5 << 40] {
            assert!(length / part(length) < 10_000);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{}/a.tar.zst", folder.path().display());
        let s3 = S3 {
            endpoint: None,
            region: "us-east-1".to_owned(),
            anonymous: true,
        };
        let content: Vec<u8> = (0_u32..5 << 20).flat_map(u32::to_le_bytes).collect();
        for given_up in [true, false] {
            let mut upload = Upload::begin(&url, &s3, 1, false).await.unwrap();
            let written = content.clone();
            let upload = tokio::task::spawn_blocking(move || {
                for piece in written.chunks(3_000_000) {
                    upload.write(piece.to_vec()).unwrap();
                }
                upload
            });
            let upload = upload.await.unwrap();
            assert!(!std::fs::exists(&url).unwrap());
            if given_up {
                upload.abandon().await;
                assert!(!std::fs::exists(&url).unwrap());
            } else {
                upload.complete().await.unwrap();
            }
        }
        assert!(std::fs::read(&url).unwrap() == content);
        let again = Upload::begin(&url, &s3, 1, false).await;
        assert!(matches!(again, Err(OpenError::Exists { .. })));
        assert!(Upload::begin(&url, &s3, 1, true).await.is_ok());
    }
}
