//!
//! | module | what lives there |
//! |---|---|
//! | [`cluster`] | a Kubernetes with nodes that run pods, started and taken away |
//! | [`s3`] | an S3 server, and a proxy in front of it that misbehaves on demand |
//! | [`image`] | container images from programs, without Docker |
//! | [`state`] | what is left on the machine under one name, and taking it away |
//! | [`suite`] | test programs that share what is expensive to start |
//! | [`tools`] | where the pinned programs are |
//! | [`wait`] | waiting for something to become true |
//! | [`addresses`], [`pki`], [`process`], [`command`] | what those stand on |

pub mod addresses;
pub mod cluster;
pub mod command;
pub mod image;
pub mod pki;
pub mod process;
pub mod s3;
pub mod state;
pub mod suite;
pub mod tools;
pub mod tree;
pub mod wait;

pub use cluster::Cluster;
pub use tools::Tools;
