//! Generates the protocol's types, clients and servers from `proto`, without protoc.

use std::error::Error;

use protox::prost_reflect::{DescriptorPool, MessageDescriptor};

/// The field option by which the CSI specification marks secrets.
const SECRET: &str = "csi.v1.csi_secret";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true);
    compiler.include_source_info(true);
    compiler.open_files(["csi.proto", "pluginregistration.proto"])?;
    let secretive = secretive(&compiler.descriptor_pool());
    if secretive.is_empty() {
        return Err(
            "no field of csi.proto has the option csi_secret: secrets would be logged".into(),
        );
    }
    tonic_prost_build::configure()
        // A server answers UNIMPLEMENTED to whatever it leaves out, as the specification wishes.
        .generate_default_stubs(true)
        // Sorted maps: two equal messages have equal bytes, which fingerprints of requests need.
        .btree_map(".")
        .skip_debug(secretive)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The paths of all messages with a field of secrets: those get no `Debug`, so that no log line
/// can ever print one.
fn secretive(pool: &DescriptorPool) -> Vec<String> {
    let Some(secret) = pool.get_extension_by_name(SECRET) else {
        return Vec::new();
    };
    let has_secret = |message: &MessageDescriptor| {
        message
            .fields()
            .any(|field| field.options().has_extension(&secret))
    };
    pool.all_messages()
        .filter(has_secret)
        .map(|message| format!(".{}", message.full_name()))
        .collect()
}
