//! Writes the CustomResourceDefinitions beside the crate: `make crds`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, content) in crds::yaml::files() {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}
