//! What is wrong with volumes and with the pool, judged by what is really seen: records, images,
//! loop devices, mounts, superblocks.
//!
//! Nothing is changed and no lock is taken, so a volume's health can be asked for at any time,
//! while an operation on it hangs too.

mod finding;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use finding::{Finding, Severity, unwritable};
use finding::{Mounted, Observed, Strain, judge, nearly_full, strained};

use super::list::{self, ListError, Listed, Page};
use super::validate::LookupError;
use crate::kernel::Failed;
use crate::kernel::files::Space;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{MountTable, existing, is_node};
use crate::kernel::superblock::{self, Superblock};
use crate::pool::{Pool, RecordError, StagingRecord, VolumeRecord};
use crate::volume::{FileSystem, OfVolume, VolumeId};

/// What all volumes share at one moment, looked at once for all.
#[derive(Debug)]
struct Surroundings {
    table: MountTable,
    strain: Option<Strain>,
}

impl Surroundings {
    fn look(pool: &Pool) -> Result<Self, Failed> {
        Ok(Self {
            table: MountTable::read()?,
            // A pool that does not tell its space has worse to say of itself.
            strain: pool.space().ok().and_then(|space| strain(pool, space)),
        })
    }
}

/// What is wrong with a volume: nothing, if it is well. `at` are the paths at which it is said to
/// be mounted.
pub fn volume(pool: &Pool, id: &VolumeId, at: &[PathBuf]) -> Result<Vec<Finding>, LookupError> {
    let around = Surroundings::look(pool).map_err(RecordError::from)?;
    let observed = observe(pool, id, &around, at);
    observed
        .map(judge)
        .ok_or_else(|| LookupError::NotFound(id.to_string()))
}

/// The volumes on a page of those with which something is wrong.
pub fn volumes(
    pool: &Pool,
    page: &Page<OfVolume>,
) -> Result<Listed<OfVolume, Vec<Finding>>, ListError> {
    let ids = list::ids(&pool.layout.volumes())?;
    let around = Surroundings::look(pool)?;
    Ok(list::gather(ids, page, |id| {
        let findings = observe(pool, id, &around, &[]).map(judge)?;
        (!findings.is_empty()).then_some(findings)
    }))
}

/// Something that is wrong with a volume, or, without one, with the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The volume.
    pub volume: Option<VolumeId>,
    /// What is wrong.
    pub finding: Finding,
}

/// All that is wrong, each thing once.
pub fn everything(pool: &Pool) -> Result<Vec<Trouble>, ListError> {
    let of_pool = self::pool(pool)?.into_iter().map(|finding| Trouble {
        volume: None,
        finding,
    });
    let mut all: Vec<_> = of_pool.collect();
    let around = Surroundings {
        // Said of the pool already.
        strain: None,
        ..Surroundings::look(pool)?
    };
    for id in list::ids::<OfVolume>(&pool.layout.volumes())? {
        let findings = observe(pool, &id, &around, &[]).map(judge);
        all.extend(findings.into_iter().flatten().map(|finding| Trouble {
            volume: Some(id.clone()),
            finding,
        }));
    }
    Ok(all)
}

/// What is wrong with the pool, apart from writes that fail.
pub fn pool(pool: &Pool) -> Result<Vec<Finding>, Failed> {
    let strain = strain(pool, pool.space()?);
    Ok(strain.map(nearly_full).into_iter().collect())
}

fn strain(pool: &Pool, space: Space) -> Option<Strain> {
    strained(space, pool.books.totals(), pool.books.stop_percent())
}

/// `None` when there is no such volume.
fn observe(pool: &Pool, id: &VolumeId, around: &Surroundings, at: &[PathBuf]) -> Option<Observed> {
    let path = pool.layout.image(id);
    let record = match pool.layout.load::<VolumeRecord>(id) {
        Ok(Some(record)) => record,
        Ok(None) => return None,
        Err(error) => {
            return Some(Observed {
                damage: Some(error.to_string()),
                path,
                ..Observed::default()
            });
        }
    };
    let device = pool.device(id).ok().flatten();
    let staging = pool.layout.load::<StagingRecord>(id).ok().flatten();
    let mounted = device
        .as_ref()
        .and_then(|device| mounted(device, &around.table, staging.as_ref()));
    let staged_at = staging.filter(|_| record.file_system.is_some() && mounted.is_none());
    let foreign = staged_at.and_then(|staging| {
        let mount = around.table.at(&staging.path)?;
        Some(mount.point.clone())
    });
    let content = device.as_ref().map_or(path.as_path(), LoopDevice::path);
    let errors = record.formatted
        && record.file_system == Some(FileSystem::Ext4)
        && matches!(
            superblock::read(content),
            Ok(Superblock::Ext4 { errors: true, .. })
        );
    let absent = at
        .iter()
        .find(|path| !is_at(path, &record, device.as_ref(), &around.table));
    Some(Observed {
        damage: None,
        length: path.symlink_metadata().ok().map(|it| it.len()),
        path,
        size: record.size_bytes,
        absent: absent.cloned(),
        device: device.map(|device| {
            let complaint = device.probe().err().map(|error| error.to_string());
            (device.path().to_owned(), complaint)
        }),
        mounted,
        foreign,
        errors,
        strain: around.strain,
    })
}

/// The file system on the device, where it is staged, or else wherever it is mounted.
fn mounted(
    device: &LoopDevice,
    table: &MountTable,
    staging: Option<&StagingRecord>,
) -> Option<Mounted> {
    let staged = |point: &Path| staging.is_some_and(|staging| staging.path == point);
    let mount = table
        .of(device.number())
        .find(|mount| staged(&mount.point))
        .or_else(|| table.of(device.number()).next())?;
    let writable = staging.is_none_or(|staging| {
        let flags = staging.mount_flags.iter();
        let read_only = flags.flat_map(|it| it.split(',')).any(|flag| flag == "ro");
        !staging.read_only && !read_only
    });
    Some(Mounted {
        point: mount.point.clone(),
        read_only: mount.file_system_read_only && writable,
        complaint: complaint(&mount.point, mount.shut_down),
    })
}

/// What a file system says when it is opened and asked for its space: one that the kernel has shut
/// down gives errors for everything, or says so in the mount table.
fn complaint(point: &Path, shut_down: bool) -> Option<String> {
    let asked = File::open(point).and_then(|open| Ok(rustix::fs::fstatvfs(&open)?));
    match asked {
        Err(error) => Some(error.to_string()),
        Ok(_) => shut_down.then(|| "it is shut down".to_owned()),
    }
}

fn is_at(
    path: &Path,
    record: &VolumeRecord,
    device: Option<&LoopDevice>,
    table: &MountTable,
) -> bool {
    let (Some(device), Ok(Some(path))) = (device, existing(path)) else {
        return false;
    };
    match record.file_system {
        None => is_node(&path, device.number()),
        Some(_) => table
            .at(&path)
            .is_some_and(|mount| mount.device == device.number()),
    }
}
