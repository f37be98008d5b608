//! What people may choose about a restore, and with which words the rest is refused.

use anyhow::Result;
use serde_json::json;

use crate::request::volume_backup;
use crate::rules::created;
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test("what_is_chosen_of_an_archive_makes_sense", entries);
    suite.test("owners_and_limits_make_sense", owners_and_limits);
    suite.test("a_file_with_an_image_has_no_files_in_it", image_file);
}

async fn entries(world: &World) -> Result<()> {
    const DIGEST: Option<&str> =
        Some("checksum.sha256 must be 64 hexadecimal digits, as sha256sum prints them");
    let digest = json!({"sha256": "0aF".repeat(21) + "0"});
    let cases = [
        ("/spec/checksum", digest, None),
        ("/spec/checksum", json!({"sha256": "0f"}), DIGEST),
        ("/spec/checksum", json!({"sha256": "g".repeat(64)}), DIGEST),
        (
            "/spec/checksum",
            json!({}),
            Some("spec.checksum.sha256: Required value"),
        ),
        ("/spec/requireVerified", json!("Stream"), None),
        ("/spec/requireVerified", json!("PerFile"), None),
        (
            "/spec/requireVerified",
            json!("Sha256"),
            Some(
                "requireVerified Sha256 needs checksum.sha256, which is what the data are verified by",
            ),
        ),
        (
            "/spec/requireVerified",
            json!("stream"),
            Some("spec.requireVerified: Unsupported value"),
        ),
        ("/spec/include", json!(["data/**/*.db", "etc"]), None),
        (
            "/spec/include",
            json!([""]),
            Some("spec.include[0]: Invalid value"),
        ),
        (
            "/spec/exclude",
            json!(vec!["a"; 65]),
            Some("spec.exclude: Too many"),
        ),
        ("/spec/stripComponents", json!(0), None),
        (
            "/spec/stripComponents",
            json!(-1),
            Some("spec.stripComponents: Invalid value"),
        ),
        ("/spec/subPath", json!("/var/lib/..data"), None),
        ("/spec/imageFile", json!("disk.img"), None),
        (
            "/spec/imageFile",
            json!("../disk.img"),
            Some("imageFile must be the name of a file"),
        ),
        (
            "/spec/subPath",
            json!("var/../lib"),
            Some(
                "subPath must be a directory of the archive, without .. in it, for example var/lib/data",
            ),
        ),
        ("/spec/metadataPolicy", json!("Strict"), None),
        (
            "/spec/metadataPolicy",
            json!("Ignore"),
            Some("spec.metadataPolicy: Unsupported value"),
        ),
    ];
    created(world, "volumebackups", &volume_backup("choices"), &cases).await
}

async fn image_file(world: &World) -> Result<()> {
    const NO_FILES: Option<&str> =
        Some("imageFile is for the image of a disk, in which no files are chosen: leave out");
    let mut object = volume_backup("image-file");
    object["spec"]["imageFile"] = json!("disk.img");
    let cases = [
        ("/spec/include", json!(["a"]), NO_FILES),
        ("/spec/subPath", json!("a"), NO_FILES),
        ("/spec/metadataPolicy", json!("Warn"), NO_FILES),
        (
            "/spec/ownership",
            json!({"map": {"users": ["0:1"]}}),
            NO_FILES,
        ),
        (
            "/spec/ownership",
            json!({"all": {"uid": 107, "gid": 107}}),
            None,
        ),
        ("/spec/requireVerified", json!("Stream"), None),
    ];
    created(world, "volumebackups", &object, &cases).await
}

async fn owners_and_limits(world: &World) -> Result<()> {
    const ONE: Option<&str> = Some(
        "ownership must have exactly one of names, map and all; leave ownership out to keep the \
         archive's numbers",
    );
    const RANGE: Option<&str> =
        Some("ownership.map.users must have FROM:TO or FIRST-LAST:TO, for example 1000-1999:5000");
    const UNPACKED: Option<&str> =
        Some("limits.unpacked must be a quantity above 0, for example 100Gi");
    let (owner, limits) = ("/spec/ownership", "/spec/limits");
    let cases = [
        (
            owner,
            json!({"names": {"users": [{"name": "lisa", "id": 1000}]}}),
            None,
        ),
        (
            owner,
            json!({"map": {"users": ["0:1", "1000-1999:5000"], "groups": ["5:6"]}}),
            None,
        ),
        (owner, json!({"map": {"users": ["1000-:5000"]}}), RANGE),
        (
            owner,
            json!({"all": {"uid": 4_294_967_294_u32, "gid": 0}}),
            None,
        ),
        (
            owner,
            json!({"all": {"uid": 4_294_967_295_u32, "gid": 0}}),
            Some("spec.ownership.all.uid: Invalid value"),
        ),
        (
            owner,
            json!({"all": {"uid": 1}}),
            Some("spec.ownership.all.gid: Required value"),
        ),
        (owner, json!({}), ONE),
        (owner, json!({"map": {}, "all": {"uid": 1, "gid": 1}}), ONE),
        (
            limits,
            json!({"entries": 1, "unpacked": "1.5Gi", "ratio": 9}),
            None,
        ),
        (
            limits,
            json!({"entries": 0}),
            Some("spec.limits.entries: Invalid value"),
        ),
        (limits, json!({"unpacked": "much"}), UNPACKED),
        (limits, json!({"unpacked": "0"}), UNPACKED),
    ];
    created(world, "volumebackups", &volume_backup("owners"), &cases).await
}
