//! What is wrong with a volume or the pool, judged by what was seen of it.

use std::path::PathBuf;

use crate::bytes::Bytes;
use crate::kernel::files::Space;
use crate::pool::Totals;

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
pub(super) struct Observed {
    /// Why its record cannot be used.
    pub damage: Option<String>,
    /// Its image.
    pub path: PathBuf,
    /// How long the image is; `None` when it is gone.
    pub length: Option<u64>,
    /// How long it has to be.
    pub size: u64,
    /// The volume's device, and what it says when it is read.
    pub device: Option<(PathBuf, Option<String>)>,
    /// Its file system, where it is mounted.
    pub mounted: Option<Mounted>,
    /// A path at which it was staged, and at which something else is mounted now.
    pub foreign: Option<PathBuf>,
    /// A path at which it was said to be, and is not.
    pub absent: Option<PathBuf>,
    /// Whether the kernel has noted errors in its file system.
    pub errors: bool,
    /// What is wrong with its pool.
    pub strain: Option<Strain>,
}

/// A file system in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub point: PathBuf,
    /// Whether it takes no writes although it is staged for writing.
    pub read_only: bool,
    /// What it says when it is opened.
    pub complaint: Option<String>,
}

/// A pool in which more is promised than there is, and little is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strain {
    pub used: u64,
    pub total: u64,
    pub promised: u64,
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

/// While every promise can be kept, a pool may be as full as it likes.
pub(super) fn strained(space: Space, totals: Totals, stop_percent: u64) -> Option<Strain> {
    let promised = totals.promised.saturating_add(totals.pinned);
    let percent = space.used.saturating_mul(100) / space.total.max(1);
    (promised > space.total && percent >= stop_percent).then_some(Strain {
        used: space.used,
        total: space.total,
        promised,
    })
}

/// No two findings have one reason.
pub(super) fn judge(observed: Observed) -> Vec<Finding> {
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

pub(super) fn nearly_full(strain: Strain) -> Finding {
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
