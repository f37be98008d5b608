//! What an agent may do, tried with tokens as its pods have them, bound to their nodes: answer the
//! orders of its own node, and nothing by which a lost node could be used against the others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::{Value, json};
use tests::product::NAMESPACE;
use tests::wait::eventually;

use crate::request::{Request, core, ours, restore_order, volume_backup};
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test("an_agent_answers_orders_of_its_own_node_only", answers);
    suite.test("an_agent_renews_the_lease_of_its_own_node_only", leases);
    suite.test(
        "an_agent_without_a_node_in_its_token_answers_nothing",
        nameless,
    );
    suite.test("an_agent_reads_and_writes_nothing_else", agents_limits);
}

const OTHERS_ORDER: &str = "an agent may only answer orders of its own node";
const OTHERS_LEASE: &str = "an agent may only renew the Lease of its own node";
const NO_NODE: &str = "an agent needs a token that names its node; it must run as a pod";

/// The client of an agent on a node of its own, made for one test: `agent-NODE` runs there.
async fn agent_on(world: &World, node: &str) -> Result<Client> {
    // Unready as it is it gets no pods from the scheduler; without it ours would be collected.
    world
        .make("/api/v1/nodes", json!({"metadata": {"name": node}}))
        .await?;
    let name = format!("agent-{node}");
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "agent",
            "containers": [{"name": "agent", "image": "volume-populator/populator:dev"}],
        },
    });
    world.make(&core(NAMESPACE, "pods"), pod).await?;
    let pod = Api::<Pod>::namespaced(world.cluster.client(), NAMESPACE)
        .get(&name)
        .await?;
    let token = world.cluster.token(NAMESPACE, "agent", Some(&pod)).await?;
    let client = world.cluster.client_for_token(&token).await?;
    let review = Request::post(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json!({}),
    );
    let user = &review.send(&client).await?["status"]["userInfo"];
    let named = &user["extra"]["authentication.kubernetes.io/node-name"];
    ensure!(*named == json!([node]), "the token says {user}");
    Ok(client)
}

/// Orders in the populator's namespace.
fn orders() -> String {
    ours(NAMESPACE, "restoreorders")
}

fn lease_path() -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases")
}

fn restoring() -> Value {
    json!({"status": {"state": "Restoring", "attempt": 1}})
}

/// Waits until the policy is in force: the API server compiles it a moment after it was made.
async fn refused_in_the_end(request: &Request, client: &Client, words: &str) -> Result<()> {
    eventually(
        &format!("{request} is refused"),
        Duration::from_secs(20),
        || async { request.clone().trial().refusal(client).await?.says(words) },
    )
    .await?;
    let refusal = request.refusal(client).await?;
    ensure!(refusal.code == 403, "{request}: {refusal:?}");
    refusal.says(words)
}

async fn answers(world: &World) -> Result<()> {
    let admin = world.cluster.client();
    let (first, second) = (
        agent_on(world, "node-1").await?,
        agent_on(world, "node-2").await?,
    );
    let (own, others) = (
        format!("{}/on-node-1", orders()),
        format!("{}/on-node-2", orders()),
    );
    world
        .make(&orders(), restore_order("on-node-1", "node-1"))
        .await?;
    world
        .make(&orders(), restore_order("on-node-2", "node-2"))
        .await?;
    let before = Request::get(&others).send(&admin).await?;

    let listed = Request::get(&orders()).send(&first).await?;
    let names = listed["items"].as_array().into_iter().flatten();
    let names: Vec<_> = names
        .filter_map(|order| order["metadata"]["name"].as_str())
        .collect();
    ensure!(names.contains(&"on-node-1"), "it sees {names:?}");

    let answer = Request::patch(&format!("{others}/status"), restoring());
    refused_in_the_end(&answer, &first, OTHERS_ORDER).await?;
    // Claiming in the same breath that the order is its own helps nothing.
    let mut claiming = restoring();
    claiming["spec"] = json!({"nodeName": "node-1"});
    let claiming = Request::patch(&format!("{others}/status"), claiming)
        .refusal(&first)
        .await?;
    ensure!(claiming.code == 403, "{claiming:?}");
    claiming.says(OTHERS_ORDER)?;
    let after = Request::get(&others).send(&admin).await?;
    ensure!(before == after, "it wrote {after}");

    let answered = |answer: &Value| answer["status"]["state"] == "Restoring";
    let patch = Request::patch(&format!("{own}/status"), restoring());
    let accepted = patch.send(&first).await.context("its own order")?;
    ensure!(answered(&accepted), "{accepted}");
    let accepted = answer.send(&second).await.context("the other's agent")?;
    ensure!(answered(&accepted), "{accepted}");

    // What an order says is the controller's, by any way.
    let spec = json!({"spec": {"goal": "Deleted"}});
    Request::patch(&own, spec.clone())
        .is_forbidden(&first, &admin)
        .await?;
    let unheard = Request::patch(&format!("{own}/status"), spec)
        .send(&first)
        .await?;
    ensure!(unheard["spec"]["goal"] == "Filled", "{unheard}");
    Ok(())
}

async fn leases(world: &World) -> Result<()> {
    let agent = agent_on(world, "node-3").await?;
    let lease = |name: &str| {
        let now = "2025-01-01T10:00:00.000000Z";
        let spec = json!({
            "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now,
        });
        json!({"metadata": {"name": name}, "spec": spec})
    };
    for other in ["agent-node-30", "controller"] {
        let making = Request::post(&lease_path(), lease(other));
        refused_in_the_end(&making, &agent, OTHERS_LEASE).await?;
        world.make(&lease_path(), lease(other)).await?;
        let taking = json!({"spec": {"holderIdentity": "node-3"}});
        let taking = Request::patch(&format!("{}/{other}", lease_path()), taking);
        let refusal = taking.refusal(&agent).await?;
        ensure!(refusal.code == 403, "{taking}: {refusal:?}");
        refusal.says(OTHERS_LEASE)?;
        taking.is_allowed(&world.cluster.client()).await?;
    }
    Request::post(&lease_path(), lease("agent-node-3"))
        .send(&agent)
        .await?;
    let renewing = json!({"spec": {"renewTime": "2025-01-01T10:00:10.000000Z"}});
    let renewing = Request::patch(&format!("{}/agent-node-3", lease_path()), renewing);
    let renewed = renewing.send(&agent).await?;
    ensure!(
        renewed["spec"]["renewTime"] == "2025-01-01T10:00:10.000000Z",
        "{renewed}"
    );
    Ok(())
}

async fn nameless(world: &World) -> Result<()> {
    let token = world.cluster.token(NAMESPACE, "agent", None).await?;
    let client = world.cluster.client_for_token(&token).await?;
    world.make(&orders(), restore_order("nameless", "")).await?;
    let answer = Request::patch(&format!("{}/nameless/status", orders()), restoring());
    refused_in_the_end(&answer, &client, NO_NODE).await?;
    let lease = Request::post(
        &lease_path(),
        json!({"metadata": {"name": "agent-node-9"}, "spec": {}}),
    );
    refused_in_the_end(&lease, &client, NO_NODE).await
}

async fn agents_limits(world: &World) -> Result<()> {
    let admin = world.cluster.client();
    let agent = agent_on(world, "node-4").await?;
    world.namespace("agents-limits").await?;
    let backups = ours("agents-limits", "volumebackups");
    world.make(&backups, volume_backup("mine")).await?;
    world
        .make(
            &ours("agents-limits", "restoreorders"),
            restore_order("mine", "node-4"),
        )
        .await?;
    world
        .make(&orders(), restore_order("on-node-4", "node-4"))
        .await?;
    let own = format!("{}/on-node-4", orders());
    for allowed in [Request::get(&own), Request::get(&orders())] {
        allowed.is_allowed(&agent).await?;
    }
    for forbidden in [
        Request::post(&orders(), restore_order("made-up", "node-4")),
        Request::delete(&own),
        // One that a user put into a namespace of theirs is read by nobody.
        Request::get(&ours("agents-limits", "restoreorders")),
        Request::get("/apis/backup.example.com/v1/restoreorders"),
        Request::get("/api/v1/secrets"),
        Request::get(&core(NAMESPACE, "secrets")),
        Request::get(&core("agents-limits", "secrets")),
        Request::get("/api/v1/persistentvolumeclaims"),
        Request::get("/api/v1/persistentvolumes"),
        Request::get(&backups),
        Request::get(&format!("{backups}/mine")),
        Request::get(&ours("agents-limits", "backupstores")),
        Request::get(&ours("agents-limits", "volumerestores")),
        Request::get("/api/v1/pods"),
        Request::get("/api/v1/nodes"),
        Request::get(&core(NAMESPACE, "configmaps")),
        Request::post(
            &core(NAMESPACE, "serviceaccounts/controller/token"),
            json!({"spec": {}}),
        ),
        Request::get(&orders()).impersonating("system:serviceaccount:volume-populator:controller"),
    ] {
        forbidden.is_forbidden(&agent, &admin).await?;
    }
    Ok(())
}
