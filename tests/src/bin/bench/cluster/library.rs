//! lib-volume-populator: the examples that come with it, built from its sources and named by variables.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::cluster::{AuditLog, Mark};
use tests::image::Image;
use tests::process::Process;
use tests::shared::World;
use tests::tenant::Tenant;
use tests::wait::eventually;

use super::claims::Filled;

/// An example of the library.
pub struct Example {
    /// What it is called here.
    pub name: &'static str,
    /// The variable that names its program.
    variable: &'static str,
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// Where it makes its own PVCs and pods.
    namespace: &'static str,
    kubeconfig: &'static str,
    /// The image of its pods.
    image: Option<&'static str>,
}

/// example/provider-populator, whose functions do nothing.
pub const FUNCTIONS: Example = Example {
    name: "provider functions",
    variable: "PROVIDER_POPULATOR",
    group: "provider.example.com",
    kind: "Provider",
    plural: "providers",
    namespace: "provider",
    kubeconfig: "kubeconfig-path",
    image: None,
};

/// example/hello-populator, whose pods write a line.
pub const PODS: Example = Example {
    name: "pods",
    variable: "HELLO_POPULATOR",
    group: "hello.example.com",
    kind: "Hello",
    plural: "hellos",
    namespace: "hello",
    kubeconfig: "kubeconfig",
    image: Some("bench.example.com/hello-populator:bench"),
};

/// The name of what PVCs name.
const SOURCE: &str = "source";

/// What its informers watch, besides the kind of the example.
const WATCHED: [&str; 4] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "storageclasses",
];

/// How long it may take to watch.
const PATIENCE: Duration = Duration::from_secs(60);

/// An example that runs.
pub struct Library<'a> {
    example: &'a Example,
    program: PathBuf,
    process: Process,
}

impl<'a> Library<'a> {
    /// Starts it, with what PVCs of the tenant can name; none if no variable names its program.
    pub async fn start(
        world: &World,
        tenant: &Tenant<'_>,
        example: &'a Example,
    ) -> Result<Option<Self>> {
        let Some(program) = std::env::var_os(example.variable).map(PathBuf::from) else {
            return Ok(None);
        };
        let cluster = &world.cluster;
        let mut command = cluster.state().command(&program);
        command
            .arg("--mode=controller")
            .arg(format!("--namespace={}", example.namespace))
            .arg(format!(
                "--{}={}",
                example.kubeconfig,
                cluster.kubeconfig().display()
            ));
        if let Some(image) = example.image {
            cluster.load(Image::program(image, &program)?).await?;
            command.arg(format!("--image-name={image}"));
        }
        apply(world, &example.definition()).await?;
        let established = format!("crd/{}.{}", example.plural, example.group);
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        cluster
            .kubectl(&[&wait[..], &[&established]].concat())
            .await?;
        apply(world, &example.source(&tenant.name)).await?;
        let log = cluster.state().subfolder("logs")?.join(example.namespace);
        let mark = cluster.audit_log().mark()?;
        let process = Process::spawn(example.name, &mut command, &log)?;
        let library = Self {
            example,
            program,
            process,
        };
        library.watches(&cluster.audit_log(), mark).await?;
        Ok(Some(library))
    }

    /// Waits until its informers have listed what there is, and watch: then it works.
    async fn watches(&self, log: &AuditLog, mark: Mark) -> Result<()> {
        let name = self.name();
        eventually("lib-volume-populator watches", PATIENCE, async || {
            self.process.check()?;
            let mut events = log.since(mark)?;
            events
                .retain(|it| it.verb == "watch" && it.user_agent.split('/').next() == Some(&*name));
            for kind in WATCHED.iter().chain([&self.example.plural]) {
                let watched = events.iter().any(|event| event.resource == **kind);
                ensure!(watched, "it does not watch {kind} yet");
            }
            Ok(())
        })
        .await
    }

    /// Its program's name, by which the API server knows it.
    fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// PVCs that it fills.
    pub fn filled(&self, class: &str) -> Filled {
        let source = [self.example.group, self.example.kind, SOURCE];
        Filled::by(class, source, &self.name())
    }

    /// Ends it.
    pub fn stop(self) -> Result<()> {
        self.process.check()?;
        self.process.kill()
    }
}

impl Example {
    /// Its namespace and its kind.
    fn definition(&self) -> String {
        let (group, kind, plural) = (self.group, self.kind, self.plural);
        let schema = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        });
        let version = json!({
            "name": "v1alpha1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": schema},
        });
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.{group}")},
                "spec": {
                    "group": group, "scope": "Namespaced", "versions": [version],
                    "names": {"kind": kind, "plural": plural},
                },
            },
        ]})
        .to_string()
    }

    fn source(&self, namespace: &str) -> String {
        json!({
            "apiVersion": format!("{}/v1alpha1", self.group), "kind": self.kind,
            "metadata": {"name": SOURCE, "namespace": namespace},
            "spec": {"fileName": "greeting", "fileContents": "Hello."},
        })
        .to_string()
    }
}

async fn apply(world: &World, manifest: &str) -> Result<()> {
    let arguments = ["apply", "-f", "-"];
    let applied = world.cluster.kubectl_with_input(&arguments, manifest);
    applied.await.context("kubectl apply").map(drop)
}
