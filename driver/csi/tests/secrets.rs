//! Messages with secrets cannot be printed.

use std::fmt::Debug;
use std::marker::PhantomData;

use csi::v1;

struct Of<T>(PhantomData<T>);

/// Holds for every type, and gives way to the inherent constant below where that applies.
trait Silent {
    const PRINTS: bool = false;
}

impl<T> Silent for Of<T> {}

impl<T: Debug> Of<T> {
    const PRINTS: bool = true;
}

#[test]
fn a_message_with_secrets_has_no_debug() {
    const {
        assert!(!Of::<v1::CreateVolumeRequest>::PRINTS);
        assert!(!Of::<v1::NodeStageVolumeRequest>::PRINTS);
        assert!(!Of::<v1::NodePublishVolumeRequest>::PRINTS);
        assert!(!Of::<v1::NodeGetStorageHealthRequest>::PRINTS);
        assert!(
            Of::<v1::CreateVolumeResponse>::PRINTS,
            "and one without secrets has"
        );
    }
}
