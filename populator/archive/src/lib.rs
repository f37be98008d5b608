//! Streams an archive from ranged reads into a directory, confined, bounded and verified.
