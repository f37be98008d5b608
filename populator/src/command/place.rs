//! Where an archive lies, as the command line has it.

use clap::Args;

use crate::store::{Object, OpenError, S3, Upload};

/// Where an archive lies.
#[derive(Args, Debug)]
pub struct Place {
    /// The archive: s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, file:///PATH or a path, and to be
    /// read https://HOST/PATH, with a signature in its query perhaps
    pub url: String,

    /// The server of s3:// URLs, where it is not Amazon's: http://HOST:PORT or https://HOST:PORT
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    endpoint: Option<String>,

    /// The region of s3:// URLs
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    region: String,

    /// Ask without credentials. Otherwise they are taken from where each cloud's own tools have them:
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `GOOGLE_APPLICATION_CREDENTIALS`,
    /// `AZURE_STORAGE_ACCOUNT` and `AZURE_STORAGE_KEY`, web identity, or the machine's role
    #[arg(long)]
    anonymous: bool,
}

impl Place {
    pub(super) async fn open(&self) -> Result<Object, OpenError> {
        Object::open(&self.url, &self.s3()).await
    }

    /// Begins to make the object, of about so many bytes.
    pub(super) async fn create(&self, length: u64, overwrite: bool) -> Result<Upload, OpenError> {
        Upload::begin(&self.url, &self.s3(), length, overwrite).await
    }

    fn s3(&self) -> S3 {
        S3 {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            anonymous: self.anonymous,
        }
    }
}
