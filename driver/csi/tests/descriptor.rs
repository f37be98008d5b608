//! Our protocol files against the published ones, fact by fact.
//!
//! The published files come from the Go modules that `tests/tools` pins, and so through Go's
//! checksums. Comments, order and file options (Go's package path) may differ; nothing
//! that reaches the wire, or that a program may act on, does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, ServiceDescriptor,
};
use serde_json::Value;

/// A Go module, and the folder of `tests/tools` whose go.mod pins it.
type Pinned = (&'static str, &'static str);

/// csi-sanity brings it; kubelet itself is still a version behind.
const SPECIFICATION: Pinned = ("github.com/container-storage-interface/spec", "sanity");
const KUBELET: Pinned = ("k8s.io/kubelet", "kubernetes");

/// Everything that a package defines: the thing by its full name, and what is said of it.
type Facts = BTreeMap<String, String>;

#[test]
fn csi_equals_the_published_specification() -> Result<()> {
    let published = facts(&compile(&module(SPECIFICATION)?, "csi.proto")?, "csi.v1");
    let ours = facts(&compile(&protocols(), "csi.proto")?, "csi.v1");
    // The sizes of 1.13, so that two empty lists are not equal.
    let count = |kind| ours.keys().filter(|name| name.starts_with(kind)).count();
    assert_eq!(
        (count("service "), count("method "), count("extension ")),
        (5, 36, 7)
    );
    assert_equal(&ours, &published);
    Ok(())
}

#[test]
fn registration_equals_the_published_one_of_kubelet() -> Result<()> {
    let folder = module(KUBELET)?.join("pkg/apis/pluginregistration/v1");
    let published = facts(&compile(&folder, "api.proto")?, "pluginregistration");
    let ours = facts(
        &compile(&protocols(), "pluginregistration.proto")?,
        "pluginregistration",
    );
    assert!(ours.contains_key("method pluginregistration.Registration.GetInfo"));
    assert_equal(&ours, &published);
    Ok(())
}

/// The comparison sees each kind of deviation: what is changed in the text, and the names of all
/// facts that must then differ.
#[test]
fn every_kind_of_deviation_is_found() -> Result<()> {
    const CHANGES: [(&str, &str, &[&str]); 12] = [
        (
            "int64 limit_bytes = 2;",
            "int64 limit_bytes = 3;",
            &["field csi.v1.CapacityRange.limit_bytes"],
        ),
        (
            "int64 limit_bytes = 2;",
            "",
            &["field csi.v1.CapacityRange.limit_bytes"],
        ),
        (
            "int64 limit_bytes = 2;",
            "uint64 limit_bytes = 2;",
            &["field csi.v1.CapacityRange.limit_bytes"],
        ),
        (
            "int64 limit_bytes = 2;",
            "int64 limit_bytes = 2; bool soft = 3;",
            &["field csi.v1.CapacityRange.soft"],
        ),
        (
            "repeated Topology preferred",
            "Topology preferred",
            &["field csi.v1.TopologyRequirement.preferred"],
        ),
        (
            "CapacityRange capacity_range = 3;",
            "Topology capacity_range = 3;",
            &["field csi.v1.NodeExpandVolumeRequest.capacity_range"],
        ),
        (
            "map<string, string> secrets = 1 [(csi_secret) = true];",
            "map<string, string> secrets = 1;",
            &["field csi.v1.NodeGetStorageHealthRequest.secrets"],
        ),
        (
            "ONLINE = 1;",
            "ONLINE = 3;",
            &["value csi.v1.PluginCapability.VolumeExpansion.Type.ONLINE"],
        ),
        (
            "reserved 11;",
            "",
            &["enum csi.v1.ControllerServiceCapability.RPC.Type"],
        ),
        (
            "oneof access_type {",
            "oneof access {",
            &[
                "field csi.v1.VolumeCapability.block",
                "field csi.v1.VolumeCapability.mount",
                "message csi.v1.VolumeCapability",
            ],
        ),
        (
            "returns (stream GetMetadataDeltaResponse)",
            "returns (GetMetadataDeltaResponse)",
            &["method csi.v1.SnapshotMetadata.GetMetadataDelta"],
        ),
        (
            "option (alpha_service) = true;",
            "rpc GetMore(ProbeRequest) returns (ProbeResponse);",
            &[
                "method csi.v1.SnapshotMetadata.GetMore",
                "service csi.v1.SnapshotMetadata",
            ],
        ),
    ];
    let text = fs::read_to_string(protocols().join("csi.proto"))?;
    let right = facts(&compile(&protocols(), "csi.proto")?, "csi.v1");
    let folder = tempfile::tempdir()?;
    for (from, to, expected) in CHANGES {
        ensure!(
            text.matches(from).count() == 1,
            "{from:?} is not once in csi.proto"
        );
        fs::write(folder.path().join("csi.proto"), text.replace(from, to))?;
        let wrong = facts(&compile(folder.path(), "csi.proto")?, "csi.v1");
        let found = differences(&wrong, &right);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected,
            "{from:?} became {to:?}: {found:#?}"
        );
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            differences(&right, &wrong).keys().collect::<Vec<_>>()
        );
    }
    Ok(())
}

fn assert_equal(ours: &Facts, published: &Facts) {
    let found = differences(ours, published);
    let lines: Vec<_> = found
        .iter()
        .map(|(name, how)| format!("{name}: {how}"))
        .collect();
    assert!(
        lines.is_empty(),
        "{} differences:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// What one of the two has and the other lacks or says differently.
fn differences(ours: &Facts, published: &Facts) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, said) in published {
        match ours.get(name) {
            None => found.insert(name.clone(), format!("missing; published as {said}")),
            Some(own) if own != said => {
                found.insert(name.clone(), format!("ours is {own}; published is {said}"))
            }
            Some(_) => None,
        };
    }
    for (name, own) in ours
        .iter()
        .filter(|(name, _)| !published.contains_key(*name))
    {
        found.insert(name.clone(), format!("ours alone: {own}"));
    }
    found
}

fn facts(pool: &DescriptorPool, package: &str) -> Facts {
    let mut facts = Facts::new();
    for message in pool
        .all_messages()
        .filter(|message| message.package_name() == package)
    {
        facts.extend(about_message(&message));
    }
    for one in pool.all_enums().filter(|one| one.package_name() == package) {
        facts.extend(about_enum(&one));
    }
    for service in pool
        .services()
        .filter(|service| service.package_name() == package)
    {
        facts.extend(about_service(&service));
    }
    for extension in pool
        .all_extensions()
        .filter(|extension| extension.package_name() == package)
    {
        let said = format!(
            "{} of {}: {} {}",
            extension.number(),
            extension.containing_message().full_name(),
            label(extension.cardinality()),
            kind(&extension.kind()),
        );
        facts.insert(format!("extension {}", extension.full_name()), said);
    }
    facts
}

fn about_message(message: &MessageDescriptor) -> Facts {
    let oneofs: Vec<_> = message.oneofs().map(|one| one.name().to_owned()).collect();
    let ranges: Vec<_> = message.reserved_ranges().collect();
    let names: Vec<_> = message.reserved_names().collect();
    let said = format!(
        "oneofs {oneofs:?}, reserved {ranges:?} {names:?}, {}",
        options(&message.options())
    );
    let mut facts = Facts::from([(format!("message {}", message.full_name()), said)]);
    facts.extend(
        message
            .fields()
            .map(|field| (format!("field {}", field.full_name()), about_field(&field))),
    );
    facts
}

fn about_field(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map(|one| one.name().to_owned());
    format!(
        "{} = {}, {} {}, oneof {oneof:?}, presence {}, packed {}, json {}, {}",
        field.name(),
        field.number(),
        label(field.cardinality()),
        kind(&field.kind()),
        field.supports_presence(),
        field.is_packed(),
        field.json_name(),
        options(&field.options()),
    )
}

fn about_enum(one: &EnumDescriptor) -> Facts {
    let ranges: Vec<_> = one.reserved_ranges().collect();
    let names: Vec<_> = one.reserved_names().collect();
    let said = format!("reserved {ranges:?} {names:?}, {}", options(&one.options()));
    let mut facts = Facts::from([(format!("enum {}", one.full_name()), said)]);
    facts.extend(one.values().map(|value| {
        let said = format!("{}, {}", value.number(), options(&value.options()));
        (format!("value {}.{}", one.full_name(), value.name()), said)
    }));
    facts
}

fn about_service(service: &ServiceDescriptor) -> Facts {
    let said = options(&service.options());
    let mut facts = Facts::from([(format!("service {}", service.full_name()), said)]);
    facts.extend(service.methods().map(|method| {
        let stream = |yes| if yes { "stream " } else { "" };
        let said = format!(
            "{}{} to {}{}, {}",
            stream(method.is_client_streaming()),
            method.input().full_name(),
            stream(method.is_server_streaming()),
            method.output().full_name(),
            options(&method.options()),
        );
        (format!("method {}", method.full_name()), said)
    }));
    facts
}

/// The options that are set, extensions among them. None and an empty `{}` are the same.
fn options(options: &DynamicMessage) -> String {
    let own = options
        .fields()
        .map(|(field, value)| format!("{} = {value:?}", field.name()));
    let extended = options
        .extensions()
        .map(|(field, value)| format!("({}) = {value:?}", field.full_name()));
    format!(
        "options [{}]",
        own.chain(extended).collect::<Vec<_>>().join(", ")
    )
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => format!("message {}", message.full_name()),
        Kind::Enum(one) => format!("enum {}", one.full_name()),
        scalar => format!("{scalar:?}"),
    }
}

fn label(cardinality: Cardinality) -> &'static str {
    match cardinality {
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    }
}

fn compile(folder: &Path, file: &str) -> Result<DescriptorPool> {
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.include_imports(true);
    compiler
        .open_file(file)
        .with_context(|| format!("{} of {}", file, folder.display()))?;
    Ok(compiler.descriptor_pool())
}

/// Our protocol files.
fn protocols() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// The folder of a pinned Go module, downloaded if need be.
fn module((name, tool): Pinned) -> Result<PathBuf> {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/tools")
        .join(tool);
    let output = Command::new("go")
        .args(["mod", "download", "-json", name])
        .current_dir(&pins)
        .output()
        .with_context(|| {
            format!(
                "cannot run `go` in {}; install Go, which fetches the published protocol",
                pins.display()
            )
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`go mod download -json {name}` failed: {said}"))?;
    let folder = answer["Dir"].as_str();
    let folder = folder.with_context(|| format!("Go has no {name}: {answer}"))?;
    Ok(folder.into())
}
