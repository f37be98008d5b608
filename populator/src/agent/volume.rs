//! What CSI is told about a volume, and what it may answer: pure functions over its messages.
//!
//! Access modes follow external-provisioner (CreateVolume) and kubelet (the node's calls).

use std::collections::BTreeMap;

use crds::restore_order::{MadeVolume, OrderVolume, RestoreOrderSpec, VolumeMode};
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use csi::v1::volume_content_source::{SnapshotSource, Type};
use csi::v1::{
    CapacityRange, CreateVolumeRequest, Topology, TopologyRequirement, Volume, VolumeCapability,
    VolumeContentSource,
};

/// What a driver and its node have to offer.
// Each is a capability of the specification that is there or not.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Abilities {
    /// It makes and deletes volumes at this socket.
    pub makes_volumes: bool,
    /// Its controller tells apart the writers of one node.
    pub controller_modes: bool,
    /// It says how much room it has.
    pub tells_capacity: bool,
    /// It makes snapshots at this socket, and volumes of them.
    pub snapshots: bool,
    /// Its node service stages.
    pub stages: bool,
    /// Its node service tells apart the writers of one node.
    pub node_modes: bool,
    /// Where this node is, if volumes cannot be reached from everywhere.
    pub topology: Option<Topology>,
}

/// The volume that an order wants, as it is mounted: one that was given says itself how.
pub fn wanted(spec: &RestoreOrderSpec) -> OrderVolume {
    let mut volume = spec.volume.clone();
    if let Some(given) = &spec.provisioned {
        volume.fs_type.clone_from(&given.fs_type);
        volume.mount_options.clone_from(&given.mount_options);
    }
    volume
}

/// What the driver is told of a pod on whose behalf a volume is published (CSIDriver `podInfoOnMount`).
///
/// Source: kubelet, `pkg/volume/csi/csi_mounter.go`, `getPodInfoAttrs`.
pub fn pod_info(pod: &Pod) -> BTreeMap<String, String> {
    [
        ("csi.storage.k8s.io/pod.name", &pod.name),
        ("csi.storage.k8s.io/pod.namespace", &pod.namespace),
        ("csi.storage.k8s.io/pod.uid", &pod.uid),
        (
            "csi.storage.k8s.io/serviceAccount.name",
            &pod.service_account,
        ),
        ("csi.storage.k8s.io/ephemeral", &"false".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value.clone()))
    .into()
}

/// The pod that this program runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
}

/// What CreateVolume shall make: of the snapshot `source`, if one is named.
pub fn creation(
    volume: &OrderVolume,
    abilities: &Abilities,
    source: Option<&str>,
) -> CreateVolumeRequest {
    let here = abilities.topology.clone();
    CreateVolumeRequest {
        name: volume.name.clone(),
        capacity_range: Some(CapacityRange {
            required_bytes: volume.required_bytes,
            limit_bytes: volume.limit_bytes,
        }),
        volume_capabilities: volume
            .access_modes
            .iter()
            .map(|mode| capability(volume, requested(mode, abilities.controller_modes)))
            .collect(),
        parameters: volume.parameters.clone(),
        volume_content_source: source.map(|snapshot| VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: snapshot.to_owned(),
            })),
        }),
        accessibility_requirements: here.map(|here| TopologyRequirement {
            requisite: vec![here.clone()],
            preferred: vec![here],
        }),
        ..CreateVolumeRequest::default()
    }
}

/// How the volume is staged and published to be filled: as the PVC will use it, but always writable.
pub fn filling(volume: &OrderVolume, abilities: &Abilities) -> VolumeCapability {
    let modes = volume.access_modes.iter().map(String::as_str);
    let mode = match modes.into_iter().find(|mode| *mode != "ReadOnlyMany") {
        Some(mode) => requested(mode, abilities.node_modes),
        None => Mode::SingleNodeWriter,
    };
    capability(volume, mode)
}

fn capability(volume: &OrderVolume, mode: Mode) -> VolumeCapability {
    let access_type = match volume.volume_mode {
        VolumeMode::Filesystem => AccessType::Mount(MountVolume {
            fs_type: volume.fs_type.clone(),
            mount_flags: volume.mount_options.clone(),
            volume_mount_group: String::new(),
        }),
        VolumeMode::Block => AccessType::Block(BlockVolume {}),
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(access_type),
    }
}

fn requested(mode: &str, tells_writers_apart: bool) -> Mode {
    match (mode, tells_writers_apart) {
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        (_, true) => Mode::SingleNodeMultiWriter,
        (_, false) => Mode::SingleNodeWriter,
    }
}

/// Why the volume that CreateVolume answered cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    /// There is none in the answer, or one without an id.
    #[error("it answered no volume id")]
    Nameless,
    /// It is smaller than the PVC asks for.
    #[error("it made a volume of {made} bytes where {required} are required")]
    Small {
        /// What it made.
        made: i64,
        /// What the PVC requires.
        required: i64,
    },
    /// It is larger than the PVC allows.
    #[error("it made a volume of {made} bytes where {limit} are allowed")]
    Large {
        /// What it made.
        made: i64,
        /// What the PVC allows.
        limit: i64,
    },
    /// This node cannot reach it.
    #[error("it made a volume that this node cannot reach")]
    Elsewhere,
}

/// The volume as the order's status shows it. A capacity of 0 means that the driver does not know
/// it, and the request counts.
pub fn made(answer: Option<&Volume>, volume: &OrderVolume) -> Result<MadeVolume, Unfit> {
    let answer = answer.ok_or(Unfit::Nameless)?;
    if answer.volume_id.is_empty() {
        return Err(Unfit::Nameless);
    }
    Ok(MadeVolume {
        handle: answer.volume_id.clone(),
        capacity_bytes: match answer.capacity_bytes {
            0 => volume.required_bytes,
            bytes => bytes,
        },
        volume_mode: volume.volume_mode,
        context: answer.volume_context.clone(),
        topology: answer
            .accessible_topology
            .iter()
            .map(|topology| topology.segments.clone())
            .collect(),
    })
}

/// Whether the volume is what the order wants, where it wants it.
pub fn fits(made: &MadeVolume, volume: &OrderVolume, abilities: &Abilities) -> Result<(), Unfit> {
    let bytes = made.capacity_bytes;
    if bytes < volume.required_bytes {
        return Err(Unfit::Small {
            made: bytes,
            required: volume.required_bytes,
        });
    }
    if volume.limit_bytes > 0 && bytes > volume.limit_bytes {
        return Err(Unfit::Large {
            made: bytes,
            limit: volume.limit_bytes,
        });
    }
    match &abilities.topology {
        Some(here) if !reachable(&made.topology, &here.segments) => Err(Unfit::Elsewhere),
        Some(_) | None => Ok(()),
    }
}

/// No topology at all means from everywhere.
fn reachable(places: &[BTreeMap<String, String>], here: &BTreeMap<String, String>) -> bool {
    let holds = |place: &BTreeMap<String, String>| {
        place
            .iter()
            .all(|(key, value)| here.get(key) == Some(value))
    };
    places.is_empty() || places.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(modes: &[&str]) -> OrderVolume {
        OrderVolume {
            driver: "driver.example.com".into(),
            name: "pvc-1".into(),
            required_bytes: 100,
            limit_bytes: 200,
            volume_mode: VolumeMode::Filesystem,
            fs_type: "ext4".into(),
            mount_options: vec!["noatime".into()],
            access_modes: modes.iter().map(ToString::to_string).collect(),
            parameters: [("pool".into(), "fast".into())].into(),
        }
    }

    fn here() -> Abilities {
        Abilities {
            topology: Some(Topology {
                segments: [("node".into(), "a".into()), ("zone".into(), "z".into())].into(),
            }),
            ..Abilities::default()
        }
    }

    fn modes(capabilities: &[VolumeCapability]) -> Vec<Mode> {
        capabilities
            .iter()
            .map(|capability| capability.access_mode.as_ref().unwrap().mode())
            .collect()
    }

    #[test]
    fn access_modes_are_those_of_the_provisioner_and_of_kubelet() {
        let all = [
            "ReadWriteOnce",
            "ReadWriteOncePod",
            "ReadOnlyMany",
            "ReadWriteMany",
        ];
        let plain = creation(&wanted(&all), &Abilities::default(), None);
        assert_eq!(
            modes(&plain.volume_capabilities),
            [
                Mode::SingleNodeWriter,
                Mode::SingleNodeWriter,
                Mode::MultiNodeReaderOnly,
                Mode::MultiNodeMultiWriter,
            ]
        );
        let able = Abilities {
            controller_modes: true,
            ..Abilities::default()
        };
        assert_eq!(
            modes(&creation(&wanted(&all[..2]), &able, None).volume_capabilities),
            [Mode::SingleNodeMultiWriter, Mode::SingleNodeSingleWriter]
        );
        let fill = |modes: &[&str], node_modes| {
            let abilities = Abilities {
                node_modes,
                ..Abilities::default()
            };
            filling(&wanted(modes), &abilities)
                .access_mode
                .unwrap()
                .mode()
        };
        assert_eq!(fill(&["ReadWriteOnce"], false), Mode::SingleNodeWriter);
        assert_eq!(
            fill(&["ReadWriteOncePod"], true),
            Mode::SingleNodeSingleWriter
        );
        assert_eq!(fill(&["ReadOnlyMany"], true), Mode::SingleNodeWriter);
        assert_eq!(
            fill(&["ReadOnlyMany", "ReadWriteMany"], false),
            Mode::MultiNodeMultiWriter
        );
    }

    #[test]
    fn the_request_says_all_that_the_order_does() {
        let request = creation(&wanted(&["ReadWriteOnce"]), &here(), None);
        assert_eq!(request.name, "pvc-1");
        assert_eq!(request.parameters["pool"], "fast");
        let range = request.capacity_range.unwrap();
        assert_eq!((range.required_bytes, range.limit_bytes), (100, 200));
        let requirement = request.accessibility_requirements.unwrap();
        assert_eq!(requirement.requisite, requirement.preferred);
        assert_eq!(requirement.requisite, [here().topology.unwrap()]);
        let Some(AccessType::Mount(mount)) = &request.volume_capabilities[0].access_type else {
            panic!("not a file system");
        };
        assert_eq!(
            (mount.fs_type.as_str(), &mount.mount_flags[..]),
            ("ext4", &["noatime".into()][..])
        );
        let device = OrderVolume {
            volume_mode: VolumeMode::Block,
            ..wanted(&["ReadWriteOnce"])
        };
        let asked = creation(&device, &here(), None)
            .volume_capabilities
            .remove(0);
        for capability in [asked, filling(&device, &here())] {
            assert_eq!(
                capability.access_type,
                Some(AccessType::Block(BlockVolume {}))
            );
        }
        let anywhere = creation(&wanted(&["ReadWriteOnce"]), &Abilities::default(), None);
        assert_eq!(anywhere.accessibility_requirements, None);
    }

    #[test]
    fn the_answer_is_checked() {
        let wanted = wanted(&["ReadWriteOnce"]);
        let answer = |bytes, topology: &[(&str, &str)]| Volume {
            volume_id: "h".into(),
            capacity_bytes: bytes,
            accessible_topology: topology
                .iter()
                .map(|(key, value)| Topology {
                    segments: [((*key).to_owned(), (*value).to_owned())].into(),
                })
                .collect(),
            ..Volume::default()
        };
        let judge = |volume: &Volume| {
            let made = made(Some(volume), &wanted)?;
            fits(&made, &wanted, &here()).map(|()| made.capacity_bytes)
        };
        assert_eq!(judge(&answer(150, &[("node", "a")])), Ok(150));
        assert_eq!(
            judge(&answer(0, &[])),
            Ok(100),
            "an unknown capacity is the request"
        );
        assert_eq!(
            judge(&answer(100, &[("node", "b"), ("zone", "z")])),
            Ok(100)
        );
        assert_eq!(
            judge(&answer(99, &[])),
            Err(Unfit::Small {
                made: 99,
                required: 100
            })
        );
        assert_eq!(
            judge(&answer(201, &[])),
            Err(Unfit::Large {
                made: 201,
                limit: 200
            })
        );
        for elsewhere in [("node", "b"), ("rack", "1")] {
            assert_eq!(judge(&answer(100, &[elsewhere])), Err(Unfit::Elsewhere));
        }
        assert_eq!(judge(&Volume::default()), Err(Unfit::Nameless));
        assert_eq!(made(None, &wanted), Err(Unfit::Nameless));
        let anywhere = Abilities::default();
        let far = made(Some(&answer(100, &[("node", "b")])), &wanted).unwrap();
        assert_eq!(fits(&far, &wanted, &anywhere), Ok(()));
    }
}
