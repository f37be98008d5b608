//! The steps of a restore at which it is met by an event.

/// A step, of the direct way or of the prime way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter)]
pub enum Step {
    /// No pod wants the volume yet.
    Waiting,
    /// The archive is pinned, and the order about to be made.
    Ordering,
    /// The agent has had the volume made, and has not written that down.
    Creating,
    /// It has had it staged.
    Staging,
    /// It is writing.
    Streaming,
    /// All is written, and the volume about to be unmounted.
    Unmounting,
    /// The order says that the volume is published, and the PV is about to be made.
    Publishing,
    /// The PVC is bound.
    Bound,
    /// The order is made, and the prime PVC about to be.
    PrimeMaking,
    /// The provisioner has made the volume, and it is about to be attached.
    PrimeAttaching,
    /// As [`Self::Staging`].
    PrimeStaging,
    /// As [`Self::Streaming`].
    PrimeStreaming,
    /// As [`Self::Unmounting`].
    PrimeUnmounting,
    /// The order says that the volume is published, and it is about to be detached.
    PrimeDetaching,
    /// The PV is about to be pointed to the user's PVC.
    PrimeRebinding,
    /// As [`Self::Bound`].
    PrimeBound,
}

/// Who makes the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The agent.
    Direct,
    /// The driver's own provisioner.
    Prime,
}

/// What is done with the archive by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was looked at; what is there when it matters is what counts.
    Unpinned,
    /// It is known which object exactly, and nothing of it is read.
    Pinned,
    /// It is being read.
    Reading,
    /// All of it is in the volume, and the controller does not know yet.
    Read,
    /// The volume is the user's, or recorded to become that.
    Published,
}

/// How a restore is kept at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No pod asks for the PVC.
    NoConsumer,
    /// At this fail point.
    Place(&'static str),
    /// The store is slow.
    SlowStore,
    /// It is over.
    Done,
}

impl Step {
    /// Its way.
    pub fn way(self) -> Way {
        match self {
            Self::Waiting
            | Self::Ordering
            | Self::Creating
            | Self::Staging
            | Self::Streaming
            | Self::Unmounting
            | Self::Publishing
            | Self::Bound => Way::Direct,
            Self::PrimeMaking
            | Self::PrimeAttaching
            | Self::PrimeStaging
            | Self::PrimeStreaming
            | Self::PrimeUnmounting
            | Self::PrimeDetaching
            | Self::PrimeRebinding
            | Self::PrimeBound => Way::Prime,
        }
    }

    /// How far the archive's way into the volume is.
    pub fn progress(self) -> Progress {
        match self {
            Self::Waiting => Progress::Unpinned,
            Self::Ordering
            | Self::Creating
            | Self::Staging
            | Self::PrimeMaking
            | Self::PrimeAttaching
            | Self::PrimeStaging => Progress::Pinned,
            Self::Streaming | Self::PrimeStreaming => Progress::Reading,
            Self::Unmounting | Self::PrimeUnmounting => Progress::Read,
            Self::Publishing
            | Self::Bound
            | Self::PrimeDetaching
            | Self::PrimeRebinding
            | Self::PrimeBound => Progress::Published,
        }
    }

    /// What the table calls it, within its way.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ordering => "ordering",
            Self::Creating => "creating",
            Self::Staging | Self::PrimeStaging => "staging",
            Self::Streaming | Self::PrimeStreaming => "streaming",
            Self::Unmounting | Self::PrimeUnmounting => "unmounting",
            Self::Publishing => "publishing",
            Self::Bound | Self::PrimeBound => "bound",
            Self::PrimeMaking => "making",
            Self::PrimeAttaching => "attaching",
            Self::PrimeDetaching => "detaching",
            Self::PrimeRebinding => "rebinding",
        }
    }

    /// The name of the PVC that is met at it.
    pub fn claim(self) -> String {
        let way = match self.way() {
            Way::Direct => "direct",
            Way::Prime => "prime",
        };
        format!("{way}-{}", self.name())
    }

    /// How a restore is kept there.
    pub fn hold(self) -> Hold {
        match self {
            Self::Waiting => Hold::NoConsumer,
            Self::Ordering => Hold::Place("controller.create-order.before"),
            Self::Creating => Hold::Place("agent.create.after"),
            Self::Staging | Self::PrimeStaging => Hold::Place("agent.stage.after"),
            Self::Streaming | Self::PrimeStreaming => Hold::SlowStore,
            Self::Unmounting | Self::PrimeUnmounting => Hold::Place("agent.unpublish.before"),
            Self::Publishing => Hold::Place("controller.create-volume.before"),
            Self::PrimeMaking => Hold::Place("controller.create-prime.before"),
            Self::PrimeAttaching => Hold::Place("controller.attach.before"),
            Self::PrimeDetaching => Hold::Place("controller.detach.before"),
            Self::PrimeRebinding => Hold::Place("controller.rebind.before"),
            Self::Bound | Self::PrimeBound => Hold::Done,
        }
    }
}
