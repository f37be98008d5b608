//! lib-volume-populator: the examples that come with it, built from its sources and named by variables.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::image::Image;
use tests::process::Process;
use tests::shared::World;
use tests::tenant::Tenant;

use super::burst::Filled;

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
        let process = Process::spawn(example.name, &mut command, &log)?;
        // Its informers.
        tokio::time::sleep(Duration::from_secs(3)).await;
        process.check()?;
        Ok(Some(Self {
            example,
            program,
            process,
        }))
    }

    /// PVCs that it fills.
    pub fn filled(&self, class: &str) -> Filled {
        let source = [self.example.group, self.example.kind, SOURCE];
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        Filled::by(class, source, &program.to_string_lossy())
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
