//! A CSI driver that keeps volumes as image files on a reflink file system.
//!
//! - [`cli`]: the command line, checked.
//! - [`server`]: everything started, and ended in order.
//! - [`rpc`]: CSI's services, thin: requests become operations, errors become codes.
//! - [`operations`]: what is done with volumes, one module each.
//! - [`volume`]: what a volume is, and what may be asked of one.
//! - [`pool`]: the images, their records, and the books of what is promised.
//! - [`kernel`]: loop devices, mounts, mkfs, reflinks, durable files.
//! - [`registration`]: how kubelet learns of the driver.
//! - [`http`], [`health`], [`metrics`]: how people and Kubernetes watch it.
//! - [`flexvolume`]: the same volumes for clusters that still have FlexVolume.
//! - [`failpoint`]: where tests may have it crash.
//! - [`bytes`]: amounts as people write them.

pub mod bytes;
pub mod cli;
pub mod failpoint;
pub mod flexvolume;
pub mod health;
pub mod http;
pub mod kernel;
pub mod metrics;
pub mod monitor;
pub mod operations;
pub mod pool;
pub mod registration;
pub mod rpc;
pub mod server;
pub mod volume;
