//! What is wrong with volumes and with the pool, judged by what is really seen: records, images,
//! loop devices, mounts, superblocks.
//!
//! Nothing is changed and no lock is taken, so a volume's health can be asked for at any time,
//! while an operation on it hangs too.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::list::{self, ListError, Listed, Page};
use super::validate::LookupError;
use crate::bytes::Bytes;
use crate::kernel::Failed;
use crate::kernel::files::Space;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{MountTable, existing, is_node};
use crate::kernel::superblock::{self, Superblock};
use crate::pool::{Pool, RecordError, StagingRecord, Totals, VolumeRecord};
use crate::volume::{FileSystem, OfVolume, VolumeId};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It works, but worse than it should.
    Degraded,
    /// It cannot be used now.
    Inaccessible,
    /// Some of its data is gone.
    DataLoss,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a word for programs.
    pub reason: &'static str,
    /// What it is and what to do, in a sentence for people.
    pub message: String,
}

/// What is seen of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Observed {
    /// Why its record cannot be used.
    damage: Option<String>,
    /// Its image.
    path: PathBuf,
    /// How long the image is; `None` when it is gone.
    length: Option<u64>,
    /// How long it has to be.
    size: u64,
    /// The volume's device, and what it says when it is read.
    device: Option<(PathBuf, Option<String>)>,
    /// Its file system, where it is mounted.
    mounted: Option<Mounted>,
    /// A path at which it was staged, and at which something else is mounted now.
    foreign: Option<PathBuf>,
    /// A path at which it was said to be, and is not.
    absent: Option<PathBuf>,
    /// Whether the kernel has noted errors in its file system.
    errors: bool,
    /// What is wrong with its pool.
    strain: Option<Strain>,
}

/// A file system in use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    point: PathBuf,
    /// Whether it takes no writes although it is staged for writing.
    read_only: bool,
    /// What it says when it is opened.
    complaint: Option<String>,
}

/// A pool in which more is promised than there is, and little is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Strain {
    used: u64,
    total: u64,
    promised: u64,
}

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

/// What is wrong with the pool, apart from writes that fail.
pub fn pool(pool: &Pool) -> Result<Vec<Finding>, Failed> {
    let strain = strain(pool, pool.space()?);
    Ok(strain.map(nearly_full).into_iter().collect())
}

/// What it means that the pool does not take a write.
pub fn unwritable(complaint: &str) -> Finding {
    Finding {
        severity: Severity::Inaccessible,
        reason: "PoolNotWritable",
        message: format!(
            "{complaint}; every volume of this node is about to fail: look at the pool's disk and \
             at the kernel's log"
        ),
    }
}

fn strain(pool: &Pool, space: Space) -> Option<Strain> {
    strained(space, pool.books.totals(), pool.books.stop_percent())
}

/// While every promise can be kept, a pool may be as full as it likes.
fn strained(space: Space, totals: Totals, stop_percent: u64) -> Option<Strain> {
    let promised = totals.promised.saturating_add(totals.pinned);
    let percent = space.used.saturating_mul(100) / space.total.max(1);
    (promised > space.total && percent >= stop_percent).then_some(Strain {
        used: space.used,
        total: space.total,
        promised,
    })
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

/// No two findings have one reason.
fn judge(observed: Observed) -> Vec<Finding> {
    let found = |severity, reason, message| Finding {
        severity,
        reason,
        message,
    };
    if let Some(damage) = observed.damage {
        return vec![found(Severity::Inaccessible, "RecordDamaged", damage)];
    }
    let mut findings = Vec::new();
    let image = observed.path.display();
    match observed.length {
        None => findings.push(found(
            Severity::DataLoss,
            "ImageMissing",
            format!("the image {image} is gone; restore the volume from a snapshot or a backup"),
        )),
        Some(length) if length < observed.size => findings.push(found(
            Severity::DataLoss,
            "ImageShort",
            format!(
                "the image {image} has {length} bytes of {}; end the pods that use the volume, and \
                 restore it from a snapshot or a backup",
                observed.size
            ),
        )),
        Some(_) => {}
    }
    if let Some(point) = observed.foreign {
        findings.push(found(
            Severity::DataLoss,
            "ImageReplaced",
            format!(
                "what is mounted at {} is not the image {image} any more; copy away what is \
                 needed before the pods that use the volume end",
                point.display()
            ),
        ));
    }
    if let Some((device, Some(complaint))) = observed.device {
        findings.push(found(
            Severity::Inaccessible,
            "DeviceFailed",
            format!(
                "{complaint}; look at the pool's disk and at the kernel's log for {}, then \
                 restart the pods that use the volume",
                device.display()
            ),
        ));
    }
    if let Some(mounted) = &observed.mounted
        && let Some(complaint) = &mounted.complaint
    {
        findings.push(found(
            Severity::Inaccessible,
            "FileSystemShutDown",
            format!(
                "the file system at {} does not work any more ({complaint}); look at the kernel's \
                 log, then end the pods that use the volume: it is recovered when it is staged \
                 anew",
                mounted.point.display()
            ),
        ));
    }
    if let Some(mounted) = observed.mounted.filter(|mounted| mounted.read_only) {
        findings.push(found(
            Severity::Degraded,
            "FileSystemReadOnly",
            format!(
                "the file system at {} takes no writes any more; look at the kernel's log, then \
                 end the pods that use the volume: it is checked when it is staged anew",
                mounted.point.display()
            ),
        ));
    }
    if observed.errors {
        findings.push(found(
            Severity::Degraded,
            "FileSystemErrors",
            format!(
                "the kernel met errors in the file system of {image}; take a snapshot, then end \
                 the pods that use the volume: it is checked when it is staged anew"
            ),
        ));
    }
    if let Some(path) = observed.absent {
        findings.push(found(
            Severity::Inaccessible,
            "NotMounted",
            format!(
                "the volume is not mounted at {}; delete the pod, so that kubelet publishes it \
                 anew",
                path.display()
            ),
        ));
    }
    findings.extend(observed.strain.map(nearly_full));
    findings
}

fn nearly_full(strain: Strain) -> Finding {
    Finding {
        severity: Severity::Degraded,
        reason: "PoolNearlyFull",
        message: format!(
            "{} of the pool's {} are in use, and {} are promised; writes fail when it is full: \
             delete volumes or snapshots, or give it a larger pool",
            Bytes(strain.used),
            Bytes(strain.total),
            Bytes(strain.promised)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Observed {
        Observed {
            path: "/pool/image".into(),
            length: Some(4096),
            size: 4096,
            device: Some(("/dev/loop7".into(), None)),
            mounted: Some(Mounted {
                point: "/staging".into(),
                read_only: false,
                complaint: None,
            }),
            ..Observed::default()
        }
    }

    #[test]
    fn what_is_well_has_nothing_said_of_it() {
        assert_eq!(judge(well()), []);
        let unstaged = Observed {
            device: None,
            mounted: None,
            length: Some(8192),
            ..well()
        };
        assert_eq!(judge(unstaged), [], "an expansion may be under way");
    }

    #[test]
    fn each_trouble_has_its_reason() {
        use Severity::{DataLoss, Degraded, Inaccessible};
        let mounted = |read_only, complaint: Option<&str>| Observed {
            mounted: Some(Mounted {
                point: "/staging".into(),
                read_only,
                complaint: complaint.map(str::to_owned),
            }),
            ..well()
        };
        let failed = Some("cannot read /dev/loop7: input/output error".to_owned());
        let strain = strained(
            Space {
                total: 100,
                used: 90,
            },
            Totals {
                promised: 90,
                pinned: 20,
                volumes: 1,
            },
            90,
        );
        for (observed, severity, reason) in [
            (
                Observed {
                    damage: Some("damaged".into()),
                    ..Observed::default()
                },
                Inaccessible,
                "RecordDamaged",
            ),
            (
                Observed {
                    length: None,
                    ..well()
                },
                DataLoss,
                "ImageMissing",
            ),
            (
                Observed {
                    length: Some(4095),
                    ..well()
                },
                DataLoss,
                "ImageShort",
            ),
            (
                Observed {
                    foreign: Some("/staging".into()),
                    ..well()
                },
                DataLoss,
                "ImageReplaced",
            ),
            (
                Observed {
                    device: Some(("/dev/loop7".into(), failed)),
                    ..well()
                },
                Inaccessible,
                "DeviceFailed",
            ),
            (
                mounted(false, Some("input/output error")),
                Inaccessible,
                "FileSystemShutDown",
            ),
            (mounted(true, None), Degraded, "FileSystemReadOnly"),
            (
                Observed {
                    errors: true,
                    ..well()
                },
                Degraded,
                "FileSystemErrors",
            ),
            (
                Observed {
                    absent: Some("/target".into()),
                    ..well()
                },
                Inaccessible,
                "NotMounted",
            ),
            (Observed { strain, ..well() }, Degraded, "PoolNearlyFull"),
        ] {
            let findings = judge(observed);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(
                (findings[0].severity, findings[0].reason),
                (severity, reason)
            );
        }
    }

    #[test]
    fn a_full_pool_that_keeps_its_promises_is_well() {
        let totals = |promised| Totals {
            promised,
            pinned: 0,
            volumes: 1,
        };
        let used = |used| Space { total: 100, used };
        assert!(strained(used(100), totals(97), 90).is_none());
        assert!(strained(used(89), totals(150), 90).is_none());
        assert!(strained(used(90), totals(150), 90).is_some());
        assert!(strained(Space::default(), Totals::default(), 90).is_none());
    }
}
