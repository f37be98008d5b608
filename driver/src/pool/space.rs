//! What the pool's file system has, and how much of it no volume has for itself.

use std::io;
use std::sync::PoisonError;

use super::Pool;
use super::books::{AdmissionError, Promise};
use crate::kernel::extents::{self, Survey};
use crate::kernel::files::Space;
use crate::kernel::{Attempt as _, Failed, files};
use crate::volume::VolumeId;

impl Pool {
    /// What the pool's file system has at this moment.
    pub fn space(&self) -> Result<Space, Failed> {
        files::space(self.layout.root())
    }

    /// The size of the largest volume that can be made now, in bytes.
    pub fn available(&self) -> Result<u64, Failed> {
        self.refresh()?;
        Ok(self.books.available(self.space()?))
    }

    /// Books a volume that is to be made, or to grow to this size.
    pub fn promise(&self, id: &VolumeId, size: u64) -> Result<Promise<'_>, AdmissionError> {
        self.admitted(|space| self.books.promise(id, size, space))
    }

    /// Books the blocks of a volume that are about to be shared.
    pub fn pin(&self, bytes: u64) -> Result<Promise<'_>, AdmissionError> {
        self.admitted(|space| self.books.pin(bytes, space))
    }

    /// What was deleted since the last measurement may have made the room that is missing.
    fn admitted<'a>(
        &'a self,
        ask: impl Fn(Space) -> Result<Promise<'a>, AdmissionError>,
    ) -> Result<Promise<'a>, AdmissionError> {
        match ask(self.space()?) {
            Err(AdmissionError::Full { .. }) => {
                self.refresh()?;
                ask(self.space()?)
            }
            answer => answer,
        }
    }

    /// Measures if there is reason to, or waits for whoever does so at this moment: what they find
    /// is as good.
    fn refresh(&self) -> Result<(), Failed> {
        let _one = self
            .measuring
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.books.is_stale() {
            self.measure()?;
        }
        Ok(())
    }

    /// Measures what is pinned: what is in use less what volumes have for themselves.
    ///
    /// What is in use is asked for last, so that blocks that are written meanwhile make the result
    /// too large, never too small. The cost grows with the extents of all volumes.
    pub(super) fn measure(&self) -> Result<(), Failed> {
        let mark = self.books.begin_measurement();
        let volumes = self.layout.volumes();
        let attempt = || format!("list {}", volumes.display());
        let mut owned = 0;
        for entry in std::fs::read_dir(&volumes).attempt(attempt)? {
            let name = entry.attempt(attempt)?.file_name();
            if let Some(id) = name.to_str().and_then(VolumeId::parse) {
                owned += self.survey(&id)?.owned;
            }
        }
        let used = self.space()?.used;
        self.books.measured(mark, used.saturating_sub(owned));
        Ok(())
    }

    /// What the volume has for itself, and in how many extents it lies; nothing when it is gone.
    pub fn survey(&self, id: &VolumeId) -> Result<Survey, Failed> {
        match extents::survey(&self.layout.image(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Survey::default()),
            Err(error) => Err(error),
            Ok(survey) => {
                self.fragments.observe(id, survey.extents);
                Ok(survey)
            }
        }
    }
}
