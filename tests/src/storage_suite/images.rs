//! The images that the suite's pods name, made here: its machine has no registry.

use anyhow::{Result, ensure};

use crate::{cluster::Cluster, command, image::Image};

/// Loads what the pods of storage specs run into every node: `e2e.test` says under which names.
pub(super) async fn load(cluster: &Cluster) -> Result<()> {
    let tools = cluster.tools();
    let mut list = cluster.state().command(&tools.built("e2e.test"));
    let listed = command::run(list.arg("--list-images"))?;
    let mut loaded = 0;
    for name in listed
        .lines()
        .filter(|name| name.contains("/e2e-test-images/"))
    {
        let program = name
            .rsplit('/')
            .next()
            .and_then(|last| last.split(':').next());
        let image = match program {
            // A shell is all that is asked of them.
            Some("busybox" | "nginx") => Image::busybox(name)?,
            // This one writes to block devices as only GNU's dd can; busybox's shell would not look
            // for it, since it has one itself.
            Some("glibc-dns-testing") => Image::busybox_with(name, &["dd", "sh"])?,
            Some("agnhost") => Image::agnhost(name, tools)?,
            _ => continue,
        };
        cluster.load(image).await?;
        loaded += 1;
    }
    ensure!(loaded >= 4, "only {loaded} images of {listed}");
    Ok(())
}
