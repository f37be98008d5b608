//! Fills Kubernetes volumes from archives in object storage, without a pod.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line of the program `populator` |
//! | [`controller`] | one leader: sees PVCs, pins archives, writes orders, makes PersistentVolumes |
//! | [`agent`] | one on each node: makes, fills and deletes volumes as its orders say |
//! | [`command`] | what people run by hand: an archive into a directory, without Kubernetes |
//! | [`choices`] | from what people choose in a VolumeBackup to what the engine does |
//! | [`store`] | object stores: which one serves a URL, what lies there, signed URLs |
//! | [`lease`] | how agents say that they live and what they serve: the contract of both |
//! | [`seal`] | what the controller hands to one agent alone |
//! | [`telemetry`] | logs, metrics and health, the same for both |
//! | [`units`] | bytes, rates and times as people read them; Kubernetes quantities |
//! | [`failpoint`] | named places where a test may have the process abort |
//!
//! The controller alone reads credentials and writes what Kubernetes sees; the agent alone touches
//! volumes. They speak through `RestoreOrder` objects and the agents' Leases, nothing else.

pub mod agent;
pub mod choices;
pub mod cli;
pub mod command;
pub mod controller;
pub mod failpoint;
pub mod lease;
pub mod seal;
pub mod store;
pub mod telemetry;
pub mod units;
