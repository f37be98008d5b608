//! The Container Storage Interface 1.13 protocol, and sockets to speak it over.
//!
//! - [`v1`]: the messages, clients and servers of CSI, generated from `proto/csi.proto`.
//! - [`registration`]: those by which kubelet takes note of a plugin.
//! - [`endpoint`]: where a plugin listens, as users write it.
//! - [`authority`]: connections from clients that name a path as `:authority`, as kubelet does.
//! - [`socket`]: Unix sockets, to serve on and to call.

pub mod authority;
pub mod endpoint;
pub mod socket;

/// CSI 1.13, package `csi.v1`.
///
/// A method that a server does not write answers UNIMPLEMENTED. Messages that carry secrets have
/// no `Debug`, so they cannot be logged. Maps are sorted: equal messages encode to equal bytes.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// Registration of plugins with kubelet, package `pluginregistration`, version v1.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
