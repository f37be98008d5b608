//! A CSI driver that keeps volumes as image files on a reflink file system.
