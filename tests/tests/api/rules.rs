//! What the API server refuses of our objects, and with which words.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::request::{Request, backup_store, ours, restore_order, volume_backup, volume_restore};
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test("a_backup_url_names_one_object_of_a_bucket", backup_urls);
    suite.test(
        "a_restore_point_is_required_and_a_point_in_time",
        restore_points,
    );
    suite.test("a_store_has_a_bucket_and_a_server", stores);
    suite.test("what_a_restore_is_of_never_changes", restores);
    suite.test("only_goal_attempt_and_access_of_an_order_change", orders);
    suite.test("unknown_fields_are_refused_strictly", unknown_fields);
}

/// A value at a place in an object, and the words it is refused with; none if it is accepted.
pub type Case<'a> = (&'a str, Value, Option<&'a str>);

/// Creates `object` with each of the values in turn, as a trial.
pub async fn created(
    world: &World,
    plural: &str,
    object: &Value,
    cases: &[Case<'_>],
) -> Result<()> {
    let path = ours("default", plural);
    let client = world.cluster.client();
    Request::post(&path, object.clone())
        .is_allowed(&client)
        .await
        .context("as it is")?;
    for (pointer, value, expected) in cases {
        let request = Request::post(&path, with(object, pointer, value)?);
        judged(world, &request, *expected)
            .await
            .with_context(|| format!("{pointer} = {value}"))?;
    }
    Ok(())
}

/// Changes the stored `object` by each of the values in turn, as a trial.
async fn changed(world: &World, plural: &str, object: Value, cases: &[Case<'_>]) -> Result<()> {
    let path = ours("default", plural);
    let name = object["metadata"]["name"]
        .as_str()
        .context("its name")?
        .to_owned();
    world.make(&path, object).await?;
    for (pointer, value, expected) in cases {
        let patch = with(&json!({}), pointer, value)?;
        let request = Request::patch(&format!("{path}/{name}"), patch);
        judged(world, &request, *expected)
            .await
            .with_context(|| format!("{pointer} = {value}"))?;
    }
    Ok(())
}

async fn judged(world: &World, request: &Request, expected: Option<&str>) -> Result<()> {
    let client = world.cluster.client();
    let Some(words) = expected else {
        return request.is_allowed(&client).await;
    };
    let refusal = request.clone().trial().refusal(&client).await?;
    ensure!(refusal.code == 422 || refusal.code == 400, "{refusal:?}");
    refusal.says(words)
}

/// `object` with `value` at `pointer`; null takes away what is there.
fn with(object: &Value, pointer: &str, value: &Value) -> Result<Value> {
    let mut object = object.clone();
    let (parents, last) = pointer
        .rsplit_once('/')
        .context("a pointer begins with /")?;
    let mut place = &mut object;
    for key in parents.split('/').skip(1) {
        place = &mut place[key];
    }
    match value {
        Value::Null => {
            let fields = place.as_object_mut().context("not an object")?;
            fields
                .remove(last)
                .with_context(|| format!("{pointer} is not there"))?;
        }
        value => place[last] = value.clone(),
    }
    Ok(object)
}

async fn backup_urls(world: &World) -> Result<()> {
    const FORM: Option<&str> = Some("backupURL must be s3://BUCKET/KEY, gs://BUCKET/KEY");
    let at = "/spec/backupURL";
    let long = |length: usize| json!(format!("s3://my-bucket/{}", "k".repeat(length - 15)));
    let cases = [
        (
            at,
            json!("s3://b-1.c/deep/er/key with spaces and ünï.tar"),
            None,
        ),
        (at, long(8192), None),
        (
            at,
            long(8193),
            Some("spec.backupURL: Too long: may not be more than 8192 bytes"),
        ),
        (at, json!("http://my-bucket/key"), FORM),
        (at, json!("S3://my-bucket/key"), FORM),
        (at, json!("s3://my-bucket"), FORM),
        (at, json!("s3://my-bucket/"), None),
        (at, json!("s3://My_Bucket/key"), FORM),
        (at, json!("s3://b/key"), FORM),
        (at, json!("s3:///key"), FORM),
        (at, json!("gs://my_bucket/deep/er/ünï key.tar"), None),
        (at, json!("gs://my-bucket/a%20b"), FORM),
        (at, json!("az://my-container/deep/key.tar"), None),
        (at, json!("az://my-container/a b"), FORM),
        (
            at,
            json!("https://h.example.com:8443/a/key.tar?X=a/b%2F&Y="),
            None,
        ),
        (at, json!("https://user:word@h.example.com/key.tar"), FORM),
        (at, json!("https://h.example.com/"), FORM),
        (at, json!("https://h.example.com/folder/"), FORM),
        (at, json!("https://h.example.com/folder/?X=a"), FORM),
        (at, json!("https://h.example.com/key#part"), FORM),
        (at, json!("file:///key.tar"), None),
        (at, json!("file:///"), None),
        (at, json!("file://host/key.tar"), FORM),
        (at, json!(""), FORM),
        (at, json!("s3://my-bucket/folder/"), None),
        (at, json!(7), Some("spec.backupURL: Invalid value")),
        (at, Value::Null, Some("spec.backupURL: Required value")),
        ("/spec/storeRef", json!({"name": "store"}), None),
        (
            "/spec/storeRef",
            json!({}),
            Some("spec.storeRef.name: Required value"),
        ),
        (
            "/spec/storeRef",
            json!({"name": ""}),
            Some("spec.storeRef.name: Invalid value"),
        ),
    ];
    created(world, "volumebackups", &volume_backup("urls"), &cases).await
}

async fn restore_points(world: &World) -> Result<()> {
    let at = "/spec/restorePoint";
    let malformed = Some("spec.restorePoint: Invalid value");
    let cases = [
        (at, json!("2025-01-01T12:00:00.5+02:00"), None),
        (at, Value::Null, Some("spec.restorePoint: Required value")),
        (at, json!("yesterday"), malformed),
        (at, json!("2025-01-01"), malformed),
        (at, json!("2025-13-01T10:00:00Z"), malformed),
        (at, json!(1_735_725_600), malformed),
    ];
    created(world, "volumebackups", &volume_backup("points"), &cases).await
}

async fn stores(world: &World) -> Result<()> {
    const URL: Option<&str> = Some("url must be s3://BUCKET, gs://BUCKET");
    const ACCOUNT: Option<&str> = Some("account names the storage account of a store");
    const PLAIN: Option<&str> = Some("what https:// and file:// name is read without credentials");
    const LENT: Option<&str> =
        Some("without credentialsSecretRef, the controller's own credentials");
    const ENDPOINT: Option<&str> =
        Some("endpoint must be http://HOST[:PORT] or https://HOST[:PORT]");
    let secret = "/spec/credentialsSecretRef";
    let cases = [
        ("/spec/url", json!("s3://my-bucket"), None),
        ("/spec/url", json!("s3://my-bucket/"), None),
        ("/spec/url", json!("gs://my-bucket/prefix"), None),
        ("/spec/url", json!("az://my-container"), ACCOUNT),
        ("/spec/account", json!("myaccount"), ACCOUNT),
        ("/spec/url", json!("https://my-host"), PLAIN),
        ("/spec/url", json!("file:///folder"), PLAIN),
        ("/spec/url", json!("https://my-host/key?sig"), URL),
        ("/spec/url", json!("ftp://my-host"), URL),
        ("/spec/url", json!("my-bucket"), URL),
        ("/spec/url", json!("s3://"), URL),
        ("/spec/url", json!("s3://my bucket"), URL),
        ("/spec/url", Value::Null, Some("spec.url: Required value")),
        ("/spec/endpoint", Value::Null, None),
        ("/spec/endpoint", json!("http://10.0.0.1:9000/"), None),
        ("/spec/endpoint", json!("s3.example.com"), ENDPOINT),
        ("/spec/endpoint", json!("ftp://s3.example.com"), ENDPOINT),
        (
            "/spec/endpoint",
            json!("https://s3.example.com/bucket"),
            ENDPOINT,
        ),
        ("/spec/endpoint", json!("https://"), ENDPOINT),
        (
            "/spec/caBundle",
            json!("-----BEGIN CERTIFICATE-----\n"),
            None,
        ),
        (
            "/spec/caBundle",
            json!("aWQK"),
            Some("caBundle must be certificates in PEM"),
        ),
        (
            "/spec/pathStyle",
            json!("yes"),
            Some("spec.pathStyle: Invalid value"),
        ),
        (secret, Value::Null, LENT),
        (
            secret,
            json!({"name": ""}),
            Some("spec.credentialsSecretRef.name: Invalid value"),
        ),
    ];
    created(world, "backupstores", &backup_store("stores"), &cases).await?;
    let path = ours("default", "backupstores");
    let made = Request::post(&path, backup_store("defaults")).trial();
    let made = made.send(&world.cluster.client()).await?;
    let defaults = (&made["spec"]["region"], &made["spec"]["pathStyle"]);
    ensure!(
        defaults == (&json!("us-east-1"), &json!(true)),
        "defaults: {defaults:?}"
    );
    Ok(())
}

async fn restores(world: &World) -> Result<()> {
    const FIXED: Option<&str> =
        Some("only spec.paused may change; delete the VolumeRestore to have it made anew");
    let cases = [
        ("/metadata/labels", json!({"seen": "yes"}), None),
        ("/spec/volumeBackupName", json!("database-backup-v1"), None),
        ("/spec/paused", json!(true), None),
        ("/spec/volumeBackupName", json!("another"), FIXED),
        ("/spec/volumeBackupNamespace", json!("another"), FIXED),
        ("/spec/persistentVolumeClaim/name", json!("another"), FIXED),
        ("/spec/persistentVolumeClaim/uid", json!("another"), FIXED),
    ];
    changed(world, "volumerestores", volume_restore("rules"), &cases).await
}

async fn orders(world: &World) -> Result<()> {
    const FIXED: Option<&str> = Some(
        "claim, nodeName, volume, prime, archive, options and content are fixed; only goal, attempt, \
         paused, access and provisioned may change",
    );
    let goal = Some("spec.goal: Unsupported value: \"Forgotten\"");
    let cases = [
        ("/spec/goal", json!("Published"), None),
        ("/spec/goal", json!("Deleted"), None),
        ("/spec/goal", json!("Forgotten"), goal),
        ("/spec/attempt", json!(2), None),
        ("/spec/paused", json!(true), None),
        (
            "/spec/access/url",
            json!("https://s3.example.com/renewed"),
            None,
        ),
        ("/spec/access/expires", json!("2025-01-01T12:00:00Z"), None),
        (
            "/spec/provisioned",
            json!({"persistentVolumeName": "pvc-1", "claimUid": "1", "volume": {"handle": "h", "capacityBytes": 1}}),
            Some("provisioned is for orders with prime"),
        ),
        (
            "/spec/prime",
            json!({"attachRequired": true, "podInfoOnMount": false}),
            FIXED,
        ),
        (
            "/spec/content",
            json!({"key": "another", "backup": "default/backup"}),
            FIXED,
        ),
        ("/spec/nodeName", json!("node-2"), FIXED),
        ("/spec/claim/namespace", json!("kube-system"), FIXED),
        ("/spec/claim/uid", json!("another"), FIXED),
        ("/spec/volume/driver", json!("another.example.com"), FIXED),
        ("/spec/volume/name", json!("pvc-another"), FIXED),
        ("/spec/volume/requiredBytes", json!(2), FIXED),
        ("/spec/volume/parameters", json!({"pool": "another"}), FIXED),
        ("/spec/archive/url", json!("s3://another/key"), FIXED),
        ("/spec/archive/etag", json!("\"another\""), FIXED),
        ("/spec/options", json!({"include": ["another"]}), FIXED),
    ];
    changed(
        world,
        "restoreorders",
        restore_order("rules", "node-1"),
        &cases,
    )
    .await
}

async fn unknown_fields(world: &World) -> Result<()> {
    let apply = [
        "apply",
        "-n",
        "default",
        "--validate=strict",
        "--dry-run=server",
        "-f",
        "-",
    ];
    for (object, pointer) in [
        (volume_backup("strict"), "/spec/restorePiont"),
        (volume_backup("strict"), "/spec/storeRef/namespace"),
        (
            backup_store("strict"),
            "/spec/credentialsSecretRef/namespace",
        ),
        (volume_restore("strict"), "/spec/pause"),
        (
            restore_order("strict", "node-1"),
            "/spec/access/credentials",
        ),
    ] {
        let mut known = object;
        if pointer.starts_with("/spec/storeRef") {
            known["spec"]["storeRef"] = json!({"name": "store"});
        }
        world
            .cluster
            .kubectl_with_input(&apply, &known.to_string())
            .await?;
        let unknown = with(&known, pointer, &json!("x"))?.to_string();
        let field = pointer.trim_start_matches('/').replace('/', ".");
        match world.cluster.kubectl_with_input(&apply, &unknown).await {
            Ok(printed) => bail!("{field} was accepted: {printed}"),
            Err(error) => {
                let words = format!("unknown field \"{field}\"");
                ensure!(
                    error.to_string().contains(&words),
                    "{words} is not in: {error:#}"
                );
            }
        }
    }
    Ok(())
}
