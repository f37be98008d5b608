//! What the controller and the driver may do, asked with tokens of theirs: what their work needs,
//! and nothing by which they could be used against anybody.

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::json;
use tests::product::NAMESPACE;

use crate::request::Request;
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test(
        "the_controller_may_do_its_work_and_nothing_silly",
        controller,
    );
    suite.test("the_driver_sees_no_credentials_and_no_orders", driver);
}

async fn controller(world: &World) -> Result<()> {
    asked(world, "controller", CONTROLLER_MAY, CONTROLLER_MAY_NOT).await
}

/// It runs on every node: what it may read, a lost node may.
async fn driver(world: &World) -> Result<()> {
    asked(world, "driver", DRIVER_MAY, DRIVER_MAY_NOT).await
}

/// Verbs, a resource as `PLURAL[/SUBRESOURCE][.GROUP]`, and a namespace or [`ANYWHERE`].
type Right = (&'static str, &'static str, &'static str);

/// In every namespace, or in none.
const ANYWHERE: &str = "";

const READ: &str = "get list watch";
const WRITE: &str = "create update patch delete deletecollection";

const CONTROLLER_MAY: &[Right] = &[
    (READ, "persistentvolumeclaims", ANYWHERE),
    ("patch", "persistentvolumeclaims", ANYWHERE),
    ("get list watch create patch", "persistentvolumes", ANYWHERE),
    (
        "get list watch create delete",
        "volumeattachments.storage.k8s.io",
        ANYWHERE,
    ),
    ("get", "csidrivers.storage.k8s.io", ANYWHERE),
    ("create delete", "persistentvolumeclaims", NAMESPACE),
    ("list", "events", NAMESPACE),
    ("get", "secrets", ANYWHERE),
    ("get list", "nodes", ANYWHERE),
    ("get", "volumesnapshots.snapshot.storage.k8s.io", ANYWHERE),
    (
        "get",
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        ANYWHERE,
    ),
    ("create", "events", ANYWHERE),
    (READ, "storageclasses.storage.k8s.io", ANYWHERE),
    (
        "create",
        "volumepopulators.populator.storage.k8s.io",
        ANYWHERE,
    ),
    (READ, "volumebackups.backup.example.com", ANYWHERE),
    (READ, "backupstores.backup.example.com", ANYWHERE),
    (READ, "referencegrants.gateway.networking.k8s.io", ANYWHERE),
    (READ, "volumerestores.backup.example.com", ANYWHERE),
    (
        "create delete",
        "volumerestores.backup.example.com",
        ANYWHERE,
    ),
    ("patch", "volumebackups/status.backup.example.com", ANYWHERE),
    ("patch", "backupstores/status.backup.example.com", ANYWHERE),
    (
        "patch",
        "volumerestores/status.backup.example.com",
        ANYWHERE,
    ),
    (READ, "restoreorders.backup.example.com", NAMESPACE),
    (
        "create patch delete",
        "restoreorders.backup.example.com",
        NAMESPACE,
    ),
    (
        "get list watch create update",
        "leases.coordination.k8s.io",
        NAMESPACE,
    ),
];

const CONTROLLER_MAY_NOT: &[Right] = &[
    (WRITE, "pods", ANYWHERE),
    (WRITE, "pods", NAMESPACE),
    ("create", "pods/exec", ANYWHERE),
    (
        "create update delete deletecollection",
        "persistentvolumeclaims",
        ANYWHERE,
    ),
    (
        "update delete deletecollection",
        "persistentvolumes",
        ANYWHERE,
    ),
    (
        "update patch deletecollection",
        "volumeattachments.storage.k8s.io",
        ANYWHERE,
    ),
    ("patch", "volumeattachments/status.storage.k8s.io", ANYWHERE),
    (WRITE, "csidrivers.storage.k8s.io", ANYWHERE),
    ("list", "events", ANYWHERE),
    ("list watch", "secrets", ANYWHERE),
    (WRITE, "secrets", ANYWHERE),
    (WRITE, "nodes", ANYWHERE),
    (WRITE, "volumesnapshots.snapshot.storage.k8s.io", ANYWHERE),
    (WRITE, "serviceaccounts", ANYWHERE),
    ("create", "serviceaccounts/token", NAMESPACE),
    ("impersonate", "users", ANYWHERE),
    ("impersonate", "serviceaccounts", ANYWHERE),
    (
        WRITE,
        "clusterrolebindings.rbac.authorization.k8s.io",
        ANYWHERE,
    ),
    (
        "escalate bind",
        "clusterroles.rbac.authorization.k8s.io",
        ANYWHERE,
    ),
    (WRITE, "storageclasses.storage.k8s.io", ANYWHERE),
    (WRITE, "daemonsets.apps", NAMESPACE),
    (WRITE, "volumebackups.backup.example.com", ANYWHERE),
    (WRITE, "backupstores.backup.example.com", ANYWHERE),
    // Or it could open any namespace to any other.
    (WRITE, "referencegrants.gateway.networking.k8s.io", ANYWHERE),
    // Those that users put into namespaces of theirs are read by nobody.
    (READ, "restoreorders.backup.example.com", ANYWHERE),
    (WRITE, "leases.coordination.k8s.io", "kube-system"),
];

const DRIVER_MAY: &[Right] = &[
    (READ, "persistentvolumeclaims", ANYWHERE),
    ("create delete", "persistentvolumes", ANYWHERE),
    (READ, "storageclasses.storage.k8s.io", ANYWHERE),
    (READ, "nodes", ANYWHERE),
];

const DRIVER_MAY_NOT: &[Right] = &[
    (READ, "secrets", ANYWHERE),
    (READ, "secrets", NAMESPACE),
    (READ, "restoreorders.backup.example.com", NAMESPACE),
    (READ, "backupstores.backup.example.com", ANYWHERE),
    (WRITE, "pods", ANYWHERE),
    ("create delete", "persistentvolumeclaims", ANYWHERE),
    (WRITE, "nodes", ANYWHERE),
    ("create", "serviceaccounts/token", NAMESPACE),
    ("impersonate", "users", ANYWHERE),
];

async fn asked(
    world: &World,
    account: &str,
    may: &'static [Right],
    may_not: &'static [Right],
) -> Result<()> {
    let token = world.cluster.token(NAMESPACE, account, None).await?;
    let bearer = world.cluster.client_for_token(&token).await?;
    review(&bearer, may, true).await?;
    review(&bearer, may_not, false).await
}

/// That the bearer may, or may not, do each of these.
async fn review(bearer: &Client, rights: &[Right], expected: bool) -> Result<()> {
    for (verbs, resource, namespace) in rights {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (plural, subresource) = plural.split_once('/').unwrap_or((plural, ""));
        for verb in verbs.split(' ') {
            let attributes = json!({
                "verb": verb, "group": group, "resource": plural, "subresource": subresource,
                "namespace": namespace,
            });
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let review = json!({"spec": {"resourceAttributes": attributes}});
            let answer = Request::post(path, review).send(bearer).await?;
            let allowed = answer["status"]["allowed"] == true;
            ensure!(
                allowed == expected,
                "allowed: {allowed}, should be {expected}: {attributes}"
            );
        }
    }
    Ok(())
}
