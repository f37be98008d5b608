//! Starts real Kubernetes, S3 and CSI components, and proves the product on them.
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
//! | [`product`], [`tenant`], [`shared`] | `deploy/` installed, and what suites do with it |
//! | [`host_path`] | a driver of others, where the machine has it |
//! | [`large`], [`metrics`] | a large restore and its memory; what our programs count |
//! | [`storage_suite`] | Kubernetes' own end-to-end suite for external storage |
//! | [`sample`], [`odd_tree`], [`tree`] | files to archive, and whether they came back |
//! | [`addresses`], [`pki`], [`process`], [`command`] | what those stand on |

pub mod addresses;
pub mod cluster;
pub mod command;
pub mod host_path;
pub mod image;
pub mod large;
pub mod metrics;
pub mod odd_tree;
pub mod original;
pub mod pki;
pub mod process;
pub mod product;
pub mod s3;
pub mod sample;
pub mod shared;
pub mod state;
pub mod storage_suite;
pub mod suite;
pub mod tenant;
pub mod tools;
pub mod tree;
pub mod wait;

pub use cluster::Cluster;
pub use tools::Tools;
