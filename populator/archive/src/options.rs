//! What a caller may choose.

use std::sync::Arc;

use crate::budget::Budget;
use crate::fetch::Fetching;

/// How to restore.
#[derive(Debug, Clone)]
pub struct Options {
    /// The memory that this restore shares with the others of the process.
    pub budget: Arc<Budget>,
    /// How to read from the store; less than this where the budget is small.
    pub fetching: Fetching,
    /// What to do about device nodes in the archive.
    pub devices: Devices,
}

/// What to do about character and block devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// They fail the restore: whoever can open a device node in a volume has the device.
    Refuse,
    /// They are made.
    Create,
}

impl Options {
    /// The defaults: no device nodes.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            fetching: Fetching::default(),
            devices: Devices::Refuse,
        }
    }
}
