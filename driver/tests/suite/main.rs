//! The driver as a process, spoken to over its sockets, on real loop devices and file systems.
//! Needs root.
// A panic is how a test fails, and it prints the log; a table of cases is one thing, however long.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::too_many_lines)]

mod attachment;
mod block;
mod codes;
mod copies;
mod crash;
mod crowd;
mod damage;
mod expansion;
mod flexvolume;
mod freezing;
mod groups;
mod health;
mod lifecycle;
mod loop_devices;
mod metadata;
mod model;
mod modification;
mod power;
mod promises;
mod registration;
mod restart;
mod sanity;
mod settings;
mod space;
mod support;
