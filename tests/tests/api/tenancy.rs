//! What users may do, tried with tokens of their own: all in their namespace, nothing beyond it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tests::product::NAMESPACE;
use tests::wait::eventually;

use crate::request::{
    Request, backup_store, core, ours, restore_order, volume_backup, volume_restore,
};
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test("a_tenant_with_every_right_in_a_namespace_uses_it", at_home);
    suite.test(
        "a_tenant_with_every_right_in_a_namespace_gets_no_further",
        confined,
    );
    suite.test(
        "no_object_of_a_tenant_can_name_another_namespace",
        references,
    );
    suite.test(
        "the_roles_view_edit_and_admin_include_our_objects",
        built_in_roles,
    );
}

/// A namespace, and the client of its ServiceAccount `user`, which is bound to `role`.
async fn tenant(world: &World, namespace: &str, role: Value) -> Result<Client> {
    world.namespace(namespace).await?;
    user(world, namespace, "user", role).await
}

/// A ServiceAccount in a namespace, bound there to `role`; its client.
async fn user(world: &World, namespace: &str, name: &str, role: Value) -> Result<Client> {
    world
        .make(
            &core(namespace, "serviceaccounts"),
            json!({"metadata": {"name": name}}),
        )
        .await?;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    world
        .make(&rbac(namespace, "rolebindings"), binding)
        .await?;
    let token = world.cluster.token(namespace, name, None).await?;
    world.cluster.client_for_token(&token).await
}

/// A namespace whose ServiceAccount may do there whatever there is to do; that one's client.
async fn almighty(world: &World, namespace: &str) -> Result<Client> {
    let role = json!({
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "everything",
    });
    let client = tenant(world, namespace, role).await?;
    let everything = json!({
        "metadata": {"name": "everything"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    world.make(&rbac(namespace, "roles"), everything).await?;
    let homes = Request::get(&core(namespace, "secrets"));
    eventually("the role counts", PATIENCE, || homes.is_allowed(&client)).await?;
    Ok(client)
}

const PATIENCE: Duration = Duration::from_secs(20);

fn rbac(namespace: &str, plural: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{plural}")
}

/// What a namespace holds that is nobody else's business, all of it named `mine`.
async fn furnish(world: &World, namespace: &str) -> Result<()> {
    let secret = json!({"metadata": {"name": "mine"}, "stringData": {"AWS_ACCESS_KEY_ID": "key"}});
    world.make(&core(namespace, "secrets"), secret).await?;
    world
        .make(&core(namespace, "persistentvolumeclaims"), claim("mine"))
        .await?;
    world
        .make(&ours(namespace, "volumebackups"), volume_backup("mine"))
        .await?;
    world
        .make(&ours(namespace, "backupstores"), backup_store("mine"))
        .await?;
    world
        .make(&ours(namespace, "volumerestores"), volume_restore("mine"))
        .await
}

fn claim(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "fast-csi-storage",
        },
    })
}

/// A PersistentVolume that says which volume of the driver it is, and for whom.
fn persistent_volume(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": "fast-csi-storage",
            "claimRef": {"namespace": "tenant-b", "name": "nobody"},
            "csi": {"driver": "fastcopy.csi.example.com", "volumeHandle": name},
        },
    })
}

async fn at_home(world: &World) -> Result<()> {
    let client = almighty(world, "tenant-home").await?;
    for (plural, object) in [
        ("volumebackups", volume_backup("own")),
        ("backupstores", backup_store("own")),
        ("volumerestores", volume_restore("own")),
    ] {
        let collection = ours("tenant-home", plural);
        let one = format!("{collection}/own");
        Request::post(&collection, object)
            .send(&client)
            .await
            .context(plural)?;
        let label = json!({"metadata": {"labels": {"changed": "yes"}}});
        Request::patch(&one, label)
            .send(&client)
            .await
            .context(plural)?;
        let read = Request::get(&one).send(&client).await.context(plural)?;
        ensure!(
            read["metadata"]["labels"]["changed"] == "yes",
            "{plural}: {read}"
        );
        let listed = Request::get(&collection)
            .send(&client)
            .await
            .context(plural)?;
        ensure!(
            listed["items"]
                .as_array()
                .is_some_and(|items| items.len() == 1),
            "{listed}"
        );
        Request::delete(&one).send(&client).await.context(plural)?;
        let gone = Request::get(&one).refusal(&client).await?;
        ensure!(gone.code == 404, "{plural}: {gone:?}");
    }
    Ok(())
}

async fn confined(world: &World) -> Result<()> {
    let client = almighty(world, "tenant-a").await?;
    world.namespace("tenant-b").await?;
    furnish(world, "tenant-b").await?;
    let secret = json!({"metadata": {"name": "kept"}, "stringData": {"key": "value"}});
    world.make(&core(NAMESPACE, "secrets"), secret).await?;
    let orders = ours(NAMESPACE, "restoreorders");
    world
        .make(&orders, restore_order("tenancy", "node-1"))
        .await?;
    world
        .make("/api/v1/persistentvolumes", persistent_volume("tenancy"))
        .await?;
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");

    let mut forbidden: Vec<Request> = Vec::new();
    // Another's archives, credentials and data.
    for collection in [
        ours("tenant-b", "volumebackups"),
        ours("tenant-b", "backupstores"),
        ours("tenant-b", "volumerestores"),
        core("tenant-b", "secrets"),
        core("tenant-b", "persistentvolumeclaims"),
    ] {
        let one = format!("{collection}/mine");
        let label = json!({"metadata": {"labels": {"changed": "yes"}}});
        forbidden.extend([
            Request::get(&collection),
            Request::get(&one),
            Request::patch(&one, label),
            Request::delete(&one),
        ]);
    }
    forbidden.extend([
        Request::post(
            &ours("tenant-b", "volumebackups"),
            volume_backup("slipped-in"),
        ),
        Request::post(
            &ours("tenant-b", "backupstores"),
            backup_store("slipped-in"),
        ),
        Request::get("/api/v1/secrets"),
        Request::get("/apis/backup.example.com/v1/volumebackups"),
        Request::get("/apis/backup.example.com/v1/backupstores"),
        Request::get("/apis/backup.example.com/v1/restoreorders"),
    ]);
    // The populator's own: which volume becomes whose PV, signed URLs, who is alive.
    let deleted = json!({"spec": {"goal": "Deleted"}});
    let filled =
        json!({"status": {"state": "Filled", "volume": {"handle": "x", "capacityBytes": 1}}});
    forbidden.extend([
        Request::get(&orders),
        Request::get(&format!("{orders}/tenancy")),
        Request::post(&orders, restore_order("slipped-in", "node-1")),
        Request::patch(&format!("{orders}/tenancy"), deleted),
        Request::patch(&format!("{orders}/tenancy/status"), filled),
        Request::delete(&format!("{orders}/tenancy")),
        Request::get(&core(NAMESPACE, "secrets")),
        Request::get(&core(NAMESPACE, "secrets/kept")),
        Request::get(&leases),
        Request::post(
            &leases,
            json!({"metadata": {"name": "agent-node-9"}, "spec": {}}),
        ),
        Request::post(&core(NAMESPACE, "pods"), pod()),
    ]);
    // Volume handles, and what rules them.
    forbidden.extend([
        Request::get("/api/v1/persistentvolumes"),
        Request::post("/api/v1/persistentvolumes", persistent_volume("slipped-in")),
        Request::patch(
            "/api/v1/persistentvolumes/tenancy",
            json!({"spec": {"claimRef": {"namespace": "tenant-a", "name": "stolen"}}}),
        ),
        Request::delete("/apis/storage.k8s.io/v1/storageclasses/fast-csi-storage"),
        Request::delete(&format!(
            "{ADMISSION}/validatingadmissionpolicies/volume-populator-agent"
        )),
    ]);
    // Being somebody else.
    let token = json!({"spec": {}});
    forbidden.extend([
        Request::post(
            &core(NAMESPACE, "serviceaccounts/agent/token"),
            token.clone(),
        ),
        Request::post(&core(NAMESPACE, "serviceaccounts/controller/token"), token),
        Request::get(&core("tenant-b", "secrets/mine")).impersonating(CONTROLLER),
        Request::get(&orders).impersonating(CONTROLLER),
    ]);
    for request in &forbidden {
        request
            .is_forbidden(&client, &world.cluster.client())
            .await?;
    }
    Ok(())
}

const CONTROLLER: &str = "system:serviceaccount:volume-populator:controller";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

fn pod() -> Value {
    json!({
        "metadata": {"name": "slipped-in"},
        "spec": {
            "serviceAccountName": "controller",
            "containers": [{"name": "main", "image": "busybox:1.35"}],
        },
    })
}

/// The schemas have no field for it, and Kubernetes forgets the whole data source of a PVC that
/// names one: who wants another's archive cannot even ask.
async fn references(world: &World) -> Result<()> {
    let client = almighty(world, "tenant-c").await?;
    let mut backup = volume_backup("reaching");
    backup["spec"]["storeRef"] = json!({"name": "mine", "namespace": "tenant-b"});
    let mut store = backup_store("reaching");
    store["spec"]["credentialsSecretRef"] = json!({"name": "mine", "namespace": "tenant-b"});
    let mut restore = volume_restore("reaching");
    restore["spec"]["persistentVolumeClaim"]["namespace"] = json!("tenant-b");
    for (collection, object, reference) in [
        (ours("tenant-c", "volumebackups"), backup, "/spec/storeRef"),
        (
            ours("tenant-c", "backupstores"),
            store,
            "/spec/credentialsSecretRef",
        ),
        (
            ours("tenant-c", "volumerestores"),
            restore,
            "/spec/persistentVolumeClaim",
        ),
    ] {
        let made = Request::post(&collection, object)
            .send(&client)
            .await
            .context(reference)?;
        let reference = made.pointer(reference).context(reference)?;
        ensure!(reference["name"].is_string(), "{collection}: {reference}");
        ensure!(
            reference.get("namespace").is_none(),
            "{collection}: {reference}"
        );
    }
    let claims = core("tenant-c", "persistentvolumeclaims");
    let mut wish = claim("own");
    wish["spec"]["dataSourceRef"] = json!({
        "apiGroup": "backup.example.com", "kind": "VolumeBackup", "name": "mine",
    });
    let made = Request::post(&claims, wish.clone()).send(&client).await?;
    ensure!(made["spec"]["dataSourceRef"]["name"] == "mine", "{made}");
    wish["metadata"]["name"] = json!("reaching");
    wish["spec"]["dataSourceRef"]["namespace"] = json!("tenant-b");
    let made = Request::post(&claims, wish).send(&client).await?;
    ensure!(made["spec"].get("dataSourceRef").is_none(), "{made}");
    Ok(())
}

async fn built_in_roles(world: &World) -> Result<()> {
    let (namespace, admin) = ("tenant-d", world.cluster.client());
    world.namespace(namespace).await?;
    furnish(world, namespace).await?;
    let [backups, stores, restores, orders] = [
        "volumebackups",
        "backupstores",
        "volumerestores",
        "restoreorders",
    ]
    .map(|plural| ours(namespace, plural));
    let reads = |collection: &String| {
        [
            Request::get(collection),
            Request::get(&format!("{collection}/mine")),
        ]
    };
    let label = json!({"metadata": {"labels": {"changed": "yes"}}});
    let writes = |collection: &String, object: Value| {
        let one = format!("{collection}/mine");
        [
            Request::post(collection, object),
            Request::patch(&one, label.clone()),
            Request::delete(&one),
        ]
    };
    let seen = [&backups, &stores, &restores].map(reads).concat();
    let edited = [
        writes(&backups, volume_backup("new")).to_vec(),
        writes(&stores, backup_store("new")).to_vec(),
        // They pause it, and deleting one has a failed restore tried again.
        vec![
            Request::patch(
                &format!("{restores}/mine"),
                json!({"spec": {"paused": true}}),
            ),
            Request::delete(&format!("{restores}/mine")),
        ],
    ]
    .concat();
    let controllers = [
        Request::post(&restores, volume_restore("new")),
        Request::patch(&format!("{restores}/mine/status"), json!({"status": {}})),
        Request::patch(&format!("{backups}/mine/status"), json!({"status": {}})),
        Request::get(&orders),
        Request::post(&orders, restore_order("new", "node-1")),
        Request::get(&ours(NAMESPACE, "restoreorders")),
    ];
    for name in ["view", "edit", "admin"] {
        let role = json!({
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
        });
        let client = user(world, namespace, name, role).await?;
        // Aggregating the roles is the work of a controller, and takes it a moment.
        eventually(name, PATIENCE, || seen[0].is_allowed(&client)).await?;
        for request in &seen {
            request.is_allowed(&client).await.context(name)?;
        }
        for request in &edited {
            match name {
                "view" => request.is_forbidden(&client, &admin).await.context(name)?,
                _ => eventually(name, PATIENCE, || request.is_allowed(&client)).await?,
            }
        }
        for request in &controllers {
            request.is_forbidden(&client, &admin).await.context(name)?;
        }
    }
    Ok(())
}
