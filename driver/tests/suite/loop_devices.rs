//! Loop devices that somebody else has left something of.

use std::fs::File;

use driver::kernel::loop_device;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

#[test]
fn a_free_device_whose_node_is_mounted_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = |name: &str| {
        let path = folder.path().join(name);
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        path
    };
    let first = loop_device::attach(&image("first")).unwrap();
    let (left, shown) = (first.path().to_owned(), folder.path().join("shown"));
    File::create(&shown).unwrap();
    mount_bind(&left, &shown).unwrap();
    first.detach().unwrap();

    let next = ["a", "b", "c"].map(|name| loop_device::attach(&image(name)).unwrap());
    let taken = next.clone().map(|device| device.path().to_owned());
    for device in next {
        device.detach().unwrap();
    }
    unmount(&shown, UnmountFlags::empty()).unwrap();
    assert!(!taken.contains(&left), "{left:?} is among {taken:?}");
}
