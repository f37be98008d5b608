//! The calls that no safe library offers: the ioctls of loop devices, of frozen file systems, of
//! extents and their sizes, and of growing, and `mount_setattr`.
//!
//! The one module with `unsafe`. Everything here is a thin, safe wrapper; all thought about when
//! to call what is in its neighbours. Layouts and numbers: `linux/loop.h`, `linux/fs.h`, `linux/fiemap.h`,
//! `linux/mount.h`, and ext4's `EXT4_IOC_RESIZE_FS`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use super::DeviceNumber;
use super::extents::Extent;

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_ADD: libc::c_ulong = 0x4C80;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

/// `BLKRASET`: how much is read ahead, in sectors of 512 bytes.
const BLKRASET: libc::c_ulong = 0x1262;
/// `BLKROSET`.
const BLKROSET: libc::c_ulong = 0x125D;
/// `FIFREEZE`: `_IOWR('X', 119, int)`.
const FIFREEZE: libc::c_ulong = 0xC004_5877;
/// `FITHAW`: `_IOWR('X', 120, int)`.
const FITHAW: libc::c_ulong = 0xC004_5878;
/// `FS_IOC_FIEMAP`: `_IOWR('f', 11, struct fiemap)`.
const FIEMAP: libc::c_ulong = 0xC020_660B;
/// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
const EXT4_RESIZE: libc::c_ulong = 0x4008_6610;
/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`.
const FSGETXATTR: libc::c_ulong = 0x801C_581F;
/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`.
const FSSETXATTR: libc::c_ulong = 0x401C_5820;
/// `FS_XFLAG_EXTSIZE`.
const XFLAG_EXTSIZE: u32 = 0x800;
/// `FIEMAP_FLAG_SYNC`: what is on its way to the disk gets there first.
const FIEMAP_SYNC: u32 = 1;
/// `FIEMAP_EXTENT_LAST`.
const FIEMAP_LAST: u32 = 1;

/// `LO_FLAGS_DIRECT_IO`: the loop device reads and writes its file past the page cache.
const DIRECT_IO: u32 = 16;

/// `struct loop_info64`. Plain numbers throughout: every bit pattern is valid, zero included.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(
    size_of::<LoopInfo>() == 232,
    "the kernel's struct loop_info64"
);

impl LoopInfo {
    const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(
    size_of::<LoopConfig>() == 304,
    "the kernel's struct loop_config"
);

/// What a loop device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoopStatus {
    /// The device that the backing file lies on.
    pub(super) device: DeviceNumber,
    /// The backing file's inode there.
    pub(super) inode: u64,
    /// Whether it goes past the page cache.
    pub(super) direct_io: bool,
}

/// Turns the C convention, -1 and errno, into a result.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The number of a loop device that is free at this moment; the kernel makes one where all are
/// taken.
pub(super) fn loop_get_free(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours; the descriptor
    // is open, for it is borrowed.
    let number = checked(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Makes the loop device of this number, unless there is one.
pub(super) fn loop_add(control: impl AsFd, number: u32) -> io::Result<()> {
    // SAFETY: LOOP_CTL_ADD takes a number and touches no memory of ours; the descriptor is open, for it is
    // borrowed.
    let added = checked(unsafe {
        libc::ioctl(
            control.as_fd().as_raw_fd(),
            LOOP_CTL_ADD,
            libc::c_ulong::from(number),
        )
    });
    match added {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Binds the free loop device to the file in one step, with this block size and direct I/O.
pub(super) fn loop_configure(
    device: impl AsFd,
    file: impl AsFd,
    block_size: u32,
) -> io::Result<()> {
    let fd = u32::try_from(file.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let info = LoopInfo {
        flags: DIRECT_IO,
        ..LoopInfo::ZERO
    };
    let config = LoopConfig {
        fd,
        block_size,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE only reads a `struct loop_config`, which `config` is (its size is
    // asserted above), and which outlives the call. Both descriptors are open, for they are
    // borrowed; the kernel takes a reference of its own to the file.
    let result = unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            LOOP_CONFIGURE,
            &raw const config,
        )
    };
    checked(result).map(drop)
}

/// The status of a loop device; `None` when it is bound to no file.
pub(super) fn loop_status(device: impl AsFd) -> io::Result<Option<LoopStatus>> {
    let mut info = LoopInfo::ZERO;
    // SAFETY: LOOP_GET_STATUS64 writes a `struct loop_info64`, which `info` is (its size is
    // asserted above); any bits are valid in it, and it outlives the call.
    let result =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match checked(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
        // lo_device is packed as the kernel does (`huge_encode_dev`), and so does the C library
        // for numbers of this size.
        Ok(_) => Ok(Some(LoopStatus {
            device: DeviceNumber::from_dev(info.device),
            inode: info.inode,
            direct_io: info.flags & DIRECT_IO != 0,
        })),
    }
}

/// Unbinds a loop device, at once or when the last that has it open closes it.
pub(super) fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument and touches no memory of ours; the descriptor is
    // open, for it is borrowed.
    checked(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CLR_FD) }).map(drop)
}

/// Sets and clears attributes (`MOUNT_ATTR_*`) of the mount that `mount` is.
pub(super) fn set_mount_attributes(mount: impl AsFd, set: u64, clear: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: mount_setattr only reads the path, a NUL-terminated literal, and as many bytes of
    // the structure as its size says; both outlive the call. The descriptor is borrowed, so open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Has the loop device take its file's present size as its own.
pub(super) fn loop_set_capacity(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument and touches no memory of ours; the descriptor
    // is open, for it is borrowed.
    checked(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_SET_CAPACITY) }).map(drop)
}

/// Has the kernel read ahead so many sectors of 512 bytes on the block device.
pub(super) fn set_read_ahead(device: impl AsFd, sectors: u32) -> io::Result<()> {
    // SAFETY: BLKRASET takes its argument by value and touches no memory of ours; the descriptor
    // is open, for it is borrowed.
    checked(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            BLKRASET,
            libc::c_ulong::from(sectors),
        )
    })
    .map(drop)
}

/// Makes the block device read-only, or writable.
pub(super) fn set_read_only(device: impl AsFd, read_only: bool) -> io::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: BLKROSET reads one `int`, which `value` is and which outlives the call; the
    // descriptor is open, for it is borrowed.
    checked(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKROSET, &raw const value) })
        .map(drop)
}

/// Freezes the file system that the open directory lies on.
pub(super) fn freeze(directory: impl AsFd) -> io::Result<()> {
    // SAFETY: FIFREEZE ignores its argument and touches no memory of ours; the descriptor is
    // open, for it is borrowed.
    checked(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FIFREEZE, 0) }).map(drop)
}

/// Thaws it again.
pub(super) fn thaw(directory: impl AsFd) -> io::Result<()> {
    // SAFETY: as for FIFREEZE.
    checked(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FITHAW, 0) }).map(drop)
}

/// Has the mounted ext4 that the open directory lies on grow to so many blocks.
pub(super) fn ext4_resize(directory: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one `__u64`, which `blocks` is and which outlives the call;
    // the descriptor is open, for it is borrowed.
    checked(unsafe {
        libc::ioctl(
            directory.as_fd().as_raw_fd(),
            EXT4_RESIZE,
            &raw const blocks,
        )
    })
    .map(drop)
}

/// `struct fiemap` without its array.
#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapHeader {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

const _: () = assert!(
    size_of::<FiemapHeader>() == 32 && size_of::<FiemapExtent>() == 56,
    "the kernel's struct fiemap and struct fiemap_extent"
);

/// Up to `count` extents of a file from the byte `start` on, and whether they reach its end.
pub(super) fn fiemap(file: impl AsFd, start: u64, count: usize) -> io::Result<(Vec<Extent>, bool)> {
    // A buffer of whole 8-byte words, which both structures are: 4 for the header, 7 an extent.
    let mut buffer = vec![0_u64; 4 + 7 * count];
    let header = FiemapHeader {
        start,
        length: u64::MAX - start,
        flags: FIEMAP_SYNC,
        mapped_extents: 0,
        extent_count: u32::try_from(count).map_err(io::Error::other)?,
        reserved: 0,
    };
    let begin = buffer.as_mut_ptr().cast::<FiemapHeader>();
    // SAFETY: the buffer is aligned to 8 bytes and at least as long as the header.
    unsafe { begin.write(header) };
    // SAFETY: FS_IOC_FIEMAP reads the header and writes it and at most `extent_count` extents
    // behind it, for which the buffer has room; it outlives the call. The descriptor is open, for
    // it is borrowed.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FIEMAP, begin) })?;
    // SAFETY: the header is there still, and plain numbers throughout.
    let mapped = unsafe { begin.read() }.mapped_extents as usize;
    // SAFETY: the extents begin right behind the header, within the same buffer.
    let first = unsafe { begin.add(1) }.cast::<FiemapExtent>();
    // SAFETY: the kernel wrote `mapped` extents, never more than were asked for; zeroed or
    // written, every bit pattern is valid, and nothing changes the buffer meanwhile.
    let extents = unsafe { std::slice::from_raw_parts(first, mapped.min(count)) };
    let last = extents.last().is_none_or(|it| it.flags & FIEMAP_LAST != 0);
    let extents = extents
        .iter()
        .map(|it| Extent::new(it.logical, it.physical, it.length, it.flags));
    Ok((extents.collect(), last))
}

/// `struct fsxattr`. Plain numbers throughout: every bit pattern is valid, zero included.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fsxattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const _: () = assert!(size_of::<Fsxattr>() == 28, "the kernel's struct fsxattr");

/// Has the file system place the file, which is empty still, in pieces of so many bytes.
pub(super) fn set_extent_size(file: impl AsFd, bytes: u32) -> io::Result<()> {
    let mut attributes = Fsxattr::default();
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: FS_IOC_FSGETXATTR writes a `struct fsxattr`, which `attributes` is (its size is
    // asserted above); any bits are valid in it, and it outlives the call. The descriptor is
    // open, for it is borrowed.
    checked(unsafe { libc::ioctl(fd, FSGETXATTR, &raw mut attributes) })?;
    attributes.flags |= XFLAG_EXTSIZE;
    attributes.extent_size = bytes;
    // SAFETY: FS_IOC_FSSETXATTR only reads a `struct fsxattr`, as above.
    checked(unsafe { libc::ioctl(fd, FSSETXATTR, &raw const attributes) }).map(drop)
}
