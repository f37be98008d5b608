//! What Google Cloud Storage and Azure Blob Storage give out, on their emulators and without Kubernetes: found,
//! pinned, listed and read as the controller and the agents do it, and restored by hand.

mod emulator;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use archive::{Source as _, SourceErrorKind};
use crds::restore_order::SignedAccess;
use crds::volume_backup::ResolvedArchive;
use emulator::Emulator;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use populator::agent::source::{Clients, Intake, Limits, SignedSource};
use populator::store::{
    Access, Addresses, Credentials, Found, Location, ObjectUrl, Reach, StoreError,
};
use tempfile::TempDir;
use tests::state::State;
use tests::suite::Suite;
use tests::{odd_tree, tools, tree};
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<ExitCode> {
    let mut suite = Suite::from_arguments()?;
    let azurite = std::env::var_os("AZURITE");
    let state = Arc::new(State::create("clouds")?);
    let started = suite.block_on(async {
        if suite.only_lists() {
            return anyhow::Ok((None, None));
        }
        let google = Emulator::google(&state).await?;
        let azure = match &azurite {
            Some(program) => Some(Emulator::azure(&state, program.as_ref()).await?),
            None => None,
        };
        Ok((Some(Arc::new(google)), azure.map(Arc::new)))
    })?;
    add(&mut suite, "google", started.0.as_ref());
    if azurite.is_some() {
        add(&mut suite, "azure", started.1.as_ref());
    }
    Ok(suite.run(|_| async move { state.stop() }))
}

fn add(suite: &mut Suite, name: &str, emulator: Option<&Arc<Emulator>>) {
    macro_rules! tests {
        ($($test:ident),+ $(,)?) => {$({
            let emulator = emulator.cloned();
            suite.test(&format!("{name}::{}", stringify!($test)), || async move {
                let emulator = emulator.context("nothing was started")?;
                $test(&emulator).await
            });
        })+};
    }
    tests!(
        an_object_is_found_pinned_and_read,
        what_lies_under_a_prefix_is_listed,
        what_is_refused_has_its_reason,
        an_archive_comes_back,
    );
}

/// As the controller has it.
fn access(emulator: &Emulator, url: &str, by: &Credentials) -> Result<(Access, Location)> {
    let location = Location::parse(url)?;
    let reach = Reach {
        addresses: Addresses::anywhere(),
        ..Reach::default()
    };
    let access = Access::new(&location, "team", Some(&emulator.spec()), by, &reach)?;
    Ok((access, location))
}

async fn look(
    emulator: &Emulator,
    key: &str,
    by: &Credentials,
) -> Result<(Access, ObjectUrl, Result<Found, StoreError>)> {
    let (access, location) = access(emulator, &emulator.url(key), by)?;
    let Location::Object(url) = location else {
        bail!("{key} is a prefix");
    };
    let found = access.look(&url, None).await;
    Ok((access, url, found))
}

async fn an_object_is_found_pinned_and_read(emulator: &Emulator) -> Result<()> {
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    emulator.put("deep/er/object.tar", content.clone()).await?;
    let (access, url, found) = look(emulator, "deep/er/object.tar", &emulator.credentials).await?;
    let found = found?;
    ensure!(found.size == 100_000 && found.etag.is_some() && found.version.is_none());
    ensure!(found.last_modified.is_some());
    let signed = access.sign(&url, None, HOUR).await?;
    let (_sender, receiver) = watch::channel(SignedAccess {
        url: signed.url,
        signed: Time(signed.signed),
        expires: Time(signed.expires),
        ca_bundle: None,
        bytes_per_second: None,
    });
    let clients = Clients::new(Limits::default(), Addresses::anywhere(), None)?;
    let intake = Intake::new(
        Arc::new(clients),
        "store",
        receiver,
        prometheus_client::metrics::counter::Counter::default(),
    );
    let pinned = ResolvedArchive {
        url: url.to_string(),
        etag: found.etag,
        size: 100_000,
        ..ResolvedArchive::default()
    };
    let source = SignedSource::new(&pinned, intake).context("nothing pins it")?;
    let read = source.read_at(1000..90_000).await?;
    ensure!(read == content[1000..90_000]);
    emulator.put("deep/er/object.tar", vec![7; 100_000]).await?;
    match source.read_at(0..10).await {
        Err(error) => ensure!(error.kind == SourceErrorKind::Changed, "{error}"),
        Ok(_) => bail!("another object was read"),
    }
    Ok(())
}

async fn what_lies_under_a_prefix_is_listed(emulator: &Emulator) -> Result<()> {
    let keys = [
        "db/20250101T0300Z.tar",
        "db/20250102T0300Z.tar",
        "db/deep/x.tar",
    ];
    for key in keys.iter().chain(&["database.tar"]) {
        emulator.put(key, vec![1; 10]).await?;
    }
    let (access, location) = access(emulator, &emulator.url("db/"), &emulator.credentials)?;
    let Location::Prefix(prefix) = location else {
        bail!("one object");
    };
    let mut listed = Vec::new();
    access
        .list(&prefix, |entry| listed.push((entry.key, entry.size)))
        .await?;
    listed.sort();
    let expected = keys.map(|key| (key.to_owned(), 10));
    ensure!(listed == expected, "{listed:?}");
    Ok(())
}

async fn what_is_refused_has_its_reason(emulator: &Emulator) -> Result<()> {
    let reason = async |key: &str, by: &Credentials| match look(emulator, key, by).await?.2 {
        Err(error) => {
            let said = error.to_string();
            ensure!(said.contains("; "), "{said}");
            Ok(error.reason())
        }
        Ok(found) => bail!("{key}: {found:?}"),
    };
    let missing = reason("none.tar", &emulator.credentials).await?;
    ensure!(missing == "ObjectNotFound", "{missing}");
    if let Some(wrong) = emulator.wrong_credentials()? {
        emulator.put("forbidden.tar", vec![1; 10]).await?;
        let refused = reason("forbidden.tar", &wrong).await?;
        let words = ["CredentialsRefused", "AccessDenied"];
        ensure!(words.contains(&refused), "{refused}");
    }
    Ok(())
}

async fn an_archive_comes_back(emulator: &Emulator) -> Result<()> {
    let folder = TempDir::new()?;
    let (original, made) = (folder.path().join("tree"), folder.path().join("made"));
    let packed = folder.path().join("odd.tar.gz");
    odd_tree::make(&original)?;
    odd_tree::pack(&original, &packed, "tar.gz")?;
    emulator.put("odd.tar.gz", std::fs::read(&packed)?).await?;
    let output = Command::new(tools::product("populator")?)
        .arg("restore")
        .arg(emulator.url("odd.tar.gz"))
        .arg(&made)
        .envs(emulator.environment())
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}");
    let differences = tree::differences(&tree::read(&original)?, &tree::read(&made)?);
    ensure!(differences.is_empty(), "{differences:?}");
    Ok(())
}
