//! What the driver can do, in the words of the suite: what is not declared is not tested.

use serde_json::{Value, json};

use super::Shape;

/// The file for `-storage.testdriver`.
pub(super) fn of(shape: Shape) -> Value {
    // Where one node is all there is, also what sidecars do that ask the driver beside them for any
    // node's volumes.
    let one_node = shape != Shape::TwoNodes;
    // The specs of provisioning and of changes at scale want volumes that wait for no pod; those of
    // capacity want the scheduler to ask for it.
    let immediate = shape == Shape::Attached;
    let class = if immediate {
        "fast-csi-storage-immediate"
    } else {
        "fast-csi-storage"
    };
    let capabilities = json!({
        "persistence": true,
        "block": true,
        "exec": true,
        "fsGroup": true,
        "multipods": true,
        "multiplePVsSameID": true,
        "readWriteOncePod": true,
        "snapshotDataSource": true,
        "pvcDataSource": true,
        "groupSnapshot": one_node,
        "controllerExpansion": true,
        "nodeExpansion": true,
        "singleNodeVolume": true,
        "topology": true,
        "capacity": !immediate,
    });
    let mut declaration = json!({
        // The classes that are installed with the driver, not some of the suite's own.
        "StorageClass": {"FromExistingClassName": class},
        "SnapshotClass": {"FromExistingClassName": "fast-csi-storage"},
        "DriverInfo": {
            "Name": "fastcopy.csi.example.com",
            "SupportedSizeRange": {"Min": "1Gi"},
            "SupportedFsType": {"": {}, "ext4": {}, "xfs": {}},
            "SupportedMountOption": {"noatime": {}},
            "MaxFileSize": 100 << 20,
            "TopologyKeys": ["topology.fastcopy.csi.example.com/node"],
            "Capabilities": capabilities,
            "StressTestOptions": {"NumPods": 8, "NumRestarts": 4},
            "VolumeSnapshotStressTestOptions": {"NumPods": 8, "NumSnapshots": 4},
            // What is demanded is a bound far from what is needed: the suite is not a benchmark.
            "PerformanceTestOptions": {
                "ProvisioningOptions": {
                    "VolumeSize": "1Gi",
                    "Count": 50,
                    "ExpectedMetrics": {"AvgLatency": 120_000_000_000_u64, "Throughput": 0.5},
                },
            },
        },
    });
    if one_node {
        declaration["GroupSnapshotClass"] = json!({"FromExistingClassName": "fast-csi-storage"});
        declaration["VolumeAttributesClass"] =
            json!({"FromExistingClassName": "fast-csi-sequential"});
        let info = &mut declaration["DriverInfo"];
        if immediate {
            info["VolumeModifyStressTestOptions"] = json!({"NumPods": 8});
        }
        info["VolumeGroupSnapshotStressTestOptions"] = json!({"NumPods": 4, "NumSnapshots": 4});
    }
    declaration
}
