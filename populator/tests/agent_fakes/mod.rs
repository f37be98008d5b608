//! What stands in for the world outside the agent: a store that misbehaves on demand, a CSI driver
//! that really mounts, and orders.

// Each test program uses some of it.
#![allow(dead_code)]

pub mod bench;
pub mod driver;
pub mod store;

use std::time::Duration;

use crds::RestoreOptions;
use crds::restore_order::{
    Goal, OrderClaim, OrderVolume, RestoreOrder, RestoreOrderSpec, SignedAccess, VolumeMode,
};
use crds::volume_backup::ResolvedArchive;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use populator::store::{Addresses, Allowance};

/// A URL that is good for so many seconds.
pub fn access(url: &str, seconds: i64) -> SignedAccess {
    let expires = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    SignedAccess {
        url: url.to_owned(),
        signed: Time(Timestamp::now()),
        expires: Time(expires),
        ca_bundle: None,
        bytes_per_second: None,
    }
}

/// Where the store that stands in for one is.
pub fn nearby() -> Addresses {
    Addresses::from(&Allowance {
        allow_store_network: vec!["127.0.0.0/8".parse().unwrap()],
    })
}

/// An archive of this size, pinned.
pub fn archive(size: usize, etag: &str) -> ResolvedArchive {
    ResolvedArchive {
        url: "s3://bucket/key".into(),
        etag: Some(etag.to_owned()),
        size: i64::try_from(size).unwrap(),
        ..ResolvedArchive::default()
    }
}

/// An order for a volume of one MiB at least, made by the fake driver.
pub fn order(archive: ResolvedArchive, access: SignedAccess) -> RestoreOrder {
    let mut order = RestoreOrder::new(
        "order",
        RestoreOrderSpec {
            goal: Goal::Filled,
            attempt: 1,
            paused: false,
            priority: 0,
            prime: None,
            provisioned: None,
            node_name: "node".into(),
            claim: OrderClaim {
                namespace: "default".into(),
                name: "claim".into(),
                uid: "claim-uid".into(),
            },
            volume: OrderVolume {
                driver: driver::NAME.into(),
                name: "pvc-claim-uid".into(),
                required_bytes: 1 << 20,
                limit_bytes: 0,
                volume_mode: VolumeMode::Filesystem,
                fs_type: "ext4".into(),
                mount_options: Vec::new(),
                access_modes: vec!["ReadWriteOnce".into()],
                parameters: [("pool".to_owned(), "fast".to_owned())].into(),
            },
            archive,
            options: RestoreOptions::default(),
            content: None,
            basis: None,
            access,
        },
    );
    order.metadata.uid = Some("order-uid".into());
    order
}

/// A tar archive with a directory and a few files, of about this many bytes.
pub fn tar(bytes: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, data).unwrap();
    };
    add("folder/", tar::EntryType::Directory, b"");
    add("folder/hello", tar::EntryType::Regular, b"hello\n");
    let body: Vec<u8> = (0..bytes)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    add("folder/large", tar::EntryType::Regular, &body);
    builder.into_inner().unwrap()
}

/// Waits until `what` holds, for ten seconds at most.
pub async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen in ten seconds");
}
