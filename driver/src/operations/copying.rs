//! Copying images by sharing their blocks: what snapshots, clones and groups have in common.
//!
//! All sources are shown at one moment: mounted file systems are frozen, all of them before the
//! first is copied, and none is thawed before the last. What that pins is booked in between, when
//! it cannot grow any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tonic::Code;

use super::Coded;
use crate::failpoint;
use crate::kernel::extents::Survey;
use crate::kernel::freezing::{self, FreezeError, LONGEST, Target};
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::MountTable;
use crate::kernel::{Attempt as _, Failed, files, reflink};
use crate::pool::{AdmissionError, Intent, Pool, Promise, RecordError};
use crate::volume::VolumeId;

/// A volume, and the new image that is to show it.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The volume. The caller holds its lock.
    pub source: VolumeId,
    /// The image, whose folder exists.
    pub image: PathBuf,
}

/// How volumes are to be copied.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// What, and where to.
    pub copies: &'a [Copy],
    /// Where to write down what is frozen meanwhile.
    pub intent: &'a Path,
    /// Whether mounted file systems are frozen. Without, a copy is as a power cut would leave it.
    pub freeze: bool,
}

/// What was copied.
#[derive(Debug)]
pub struct Copied<'a> {
    /// What the copies pin: to be kept once they are written down.
    pub promises: Vec<Promise<'a>>,
    /// For how long writers waited at most.
    pub frozen: Duration,
}

/// Why nothing was copied. What was begun is left to the caller.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The pool does not admit it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// A freeze would not last until all is copied.
    #[error(
        "the volumes lie in {extents} extents, which take {forecast:?} to copy, and writers are \
         held up for {LONGEST:?} at most; move the data to a new volume, or take snapshots with \
         freeze: \"false\" in the VolumeSnapshotClass, which hold writers up for as long as it takes"
    )]
    Fragmented {
        /// In how many pieces they lie.
        extents: u64,
        /// How long a copy takes on this machine when it is quick.
        forecast: Duration,
    },
    /// A file system could not be frozen, or did not stay so.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The intent cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for CopyError {
    fn code(&self) -> Code {
        match self {
            Self::Admission(error) => error.code(),
            Self::Fragmented { .. } => Code::FailedPrecondition,
            Self::Freeze(error) => error.code(),
            Self::Failed(failed) => failed.code(),
            Self::Record(error) => error.code(),
        }
    }
}

/// What has to happen to a source before it is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Quieting {
    /// Nothing writes to it.
    Nothing,
    /// A file system is mounted: it is frozen.
    Freeze(Target),
    /// The device is in use without a file system that could be frozen: what was written to it
    /// is brought to the image, and the rest is as a power cut would leave it.
    Sync(PathBuf),
}

/// Copies the images.
pub fn copy<'a>(pool: &'a Pool, plan: &Plan<'_>) -> Result<Copied<'a>, CopyError> {
    let before = survey(pool, plan.copies)?;
    let mut promises = vec![pool.pin(before.owned)?];
    let quietings = quietings(pool, plan)?;
    for quieting in &quietings {
        if let Quieting::Sync(device) = quieting {
            sync(device)?;
        }
    }
    let targets: Vec<_> = quietings
        .into_iter()
        .filter_map(|quieting| match quieting {
            Quieting::Freeze(target) => Some(target),
            Quieting::Nothing | Quieting::Sync(_) => None,
        })
        .collect();
    let frozen = if targets.is_empty() {
        None
    } else {
        let forecast = pool.fragments.forecast(before.extents);
        check_fragments(before.extents, forecast)?;
        let volumes = plan.copies.iter().map(|copy| copy.source.clone()).collect();
        Intent { volumes }.write(plan.intent)?;
        Some(failpoint::around("copy.freeze", || {
            freezing::freeze(&targets)
        })?)
    };
    // Without a measurement of the whole pool, which would take its time.
    let now = survey(pool, plan.copies)?;
    let grown = now.owned.saturating_sub(before.owned);
    if grown > 0 {
        promises.push(pool.books.pin(grown, pool.space()?)?);
    }
    let begin = Instant::now();
    let images = failpoint::around("copy.clone", || {
        plan.copies
            .iter()
            .map(|copy| reflink::copy(&pool.layout.image(&copy.source), &copy.image))
            .collect::<Result<Vec<_>, Failed>>()
    })?;
    pool.fragments.learn(now.extents, begin.elapsed());
    let frozen = match frozen {
        Some(frozen) => failpoint::around("copy.thaw", || frozen.thaw())?,
        None => Duration::ZERO,
    };
    for (copy, image) in plan.copies.iter().zip(images) {
        let attempt = || format!("sync {}", copy.image.display());
        image.sync_all().attempt(attempt)?;
        if let Some(folder) = copy.image.parent() {
            files::sync_directory(folder)?;
        }
    }
    files::remove(plan.intent)?;
    pool.freezes.observe(frozen);
    Ok(Copied { promises, frozen })
}

/// What the sources have for themselves, and in how many extents they lie, all together.
fn survey(pool: &Pool, copies: &[Copy]) -> Result<Survey, Failed> {
    let mut all = Survey::default();
    for copy in copies {
        let one = pool.survey(&copy.source)?;
        all.owned += one.owned;
        all.extents += one.extents;
    }
    Ok(all)
}

/// Writers who wait in vain are worse off than by a refusal: the guard would thaw before the copy
/// is complete, and so at every retry.
fn check_fragments(extents: u64, forecast: Option<Duration>) -> Result<(), CopyError> {
    match forecast {
        Some(forecast) if forecast >= LONGEST => Err(CopyError::Fragmented { extents, forecast }),
        _ => Ok(()),
    }
}

fn quietings(pool: &Pool, plan: &Plan<'_>) -> Result<Vec<Quieting>, Failed> {
    let table = MountTable::read()?;
    let quieting = |copy: &Copy| match pool.device(&copy.source)? {
        Some(device) => Ok(quieting(&device, &table, plan.freeze)),
        None => Ok(Quieting::Nothing),
    };
    plan.copies.iter().map(quieting).collect()
}

fn quieting(device: &LoopDevice, table: &MountTable, freeze: bool) -> Quieting {
    let path = device.path().to_owned();
    match table.of(device.number()).next() {
        Some(mount) if freeze => Quieting::Freeze(Target {
            point: mount.point.clone(),
            device: mount.device,
        }),
        Some(_) | None => Quieting::Sync(path),
    }
}

fn sync(device: &Path) -> Result<(), Failed> {
    std::fs::File::options()
        .write(true)
        .open(device)
        .and_then(|device| device.sync_all())
        .attempt(|| format!("sync {}", device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_that_would_not_last_is_not_begun() {
        assert!(check_fragments(u64::MAX, None).is_ok(), "nothing is known");
        assert!(check_fragments(1_000_000, Some(LONGEST / 3)).is_ok());
        let error = check_fragments(2_000_000, Some(LONGEST)).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains("2000000 extents"), "{error}");
    }
}
