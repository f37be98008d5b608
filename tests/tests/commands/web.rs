//! Archives behind URLs that somebody else has signed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use tempfile::TempDir;
use tests::pki::Authority;
use tests::tools;

use crate::{BUCKET, Shared, same};

/// Behind a certificate of its own authority, which the environment names.
pub async fn what_somebody_has_signed_comes_back(shared: &Shared) -> Result<()> {
    let to = TempDir::new()?;
    let authority = Authority::new()?;
    let trusted = to.path().join("ca.crt");
    fs::write(&trusted, &authority.certificate)?;
    let (_process, endpoint) = shared.server.by_tls(&authority).await?;
    let bucket = shared.server.store_at(BUCKET, &endpoint)?;
    let key = Key::from("odd.tar.gz");
    let hour = Duration::from_secs(3600);
    let url = bucket.signed_url(http::Method::GET, &key, hour).await?;
    let run = |url: &str, target: &Path| {
        Command::new(tools::product("populator")?)
            .args(["restore", url])
            .arg(target)
            .env("SSL_CERT_FILE", &trusted)
            .output()
            .map_err(anyhow::Error::from)
    };
    let made = to.path().join("made");
    let output = run(url.as_str(), &made)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{complaint}");
    ensure!(!complaint.contains("X-Amz-Signature"), "{complaint}");
    same(shared, &made)?;
    let forged = format!("{url}0");
    let output = run(&forged, &to.path().join("other"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1)
            && complaint.contains("does not give out")
            && !complaint.contains("X-Amz-Signature"),
        "{complaint}"
    );
    Ok(())
}
