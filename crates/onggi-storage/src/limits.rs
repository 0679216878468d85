//! Bounds on everything that an image decides the size of. Each has the reason for its value.

/// Longest entry name or link target: the kernel's own `PATH_MAX` less the terminating NUL.
pub const MAX_PATH: usize = 4095;

/// Longest name of one directory entry: `NAME_MAX` of every Linux filesystem.
pub const MAX_NAME: usize = 255;

/// Longest PAX extended header. GNU tar and Go write a few hundred bytes; 1 MiB holds 15 attributes of the
/// kernel's largest size.
pub const MAX_PAX: u64 = 1 << 20;

/// Longest value of an extended attribute: the kernel's `XATTR_SIZE_MAX`.
pub const MAX_XATTR_VALUE: usize = 65_536;

/// Longest name of an extended attribute: the kernel's `XATTR_NAME_MAX`.
pub const MAX_XATTR_NAME: usize = 255;

/// Data segments of one sparse file. 16 bytes each here, so 2 MiB; GNU tar makes one per hole of at least
/// 512 bytes, and database files in images stay far below this.
pub const MAX_SPARSE_SEGMENTS: usize = 1 << 17;

/// Inodes that one layer may create, directories made for missing parents included. The largest images
/// known (deep-learning stacks) have about 10^6.
pub const MAX_ENTRIES: u64 = 1 << 24;

/// Bytes of file content that one layer may hold, holes included: a layer of this size is no image but an
/// attack or an accident, and a 100 MB zstd stream can claim it.
pub const MAX_UNPACKED: u64 = 1 << 40;

/// Zeros behind the end of an archive: tar(1) pads to its record of 10 KiB, tapes and disks to some megabytes. More is a
/// stream without end, such as /dev/zero.
pub const MAX_TRAILING: u64 = 64 << 20;

/// Files of one layer that are kept in memory until its record is written: 2^18 take 30 MB, and the largest layers of
/// ordinary images have 10^5. Further ones are looked at again.
pub const MAX_REMEMBERED: usize = 1 << 18;

/// Memory for directories whose attributes are set at the end: names of 2 million directories.
pub const MAX_PENDING_BYTES: usize = 256 << 20;

/// Symbolic links followed while one path is looked up: the kernel's own limit (path_resolution(7)).
pub const MAX_LINKS: usize = 40;

/// Layers of one container: `OVL_MAX_STACK` of the kernel's overlay.
pub const MAX_LOWER: usize = 500;

/// Largest passwd or group file that is read: 16 MiB are about 200 000 users.
pub const MAX_ACCOUNT_FILE: u64 = 16 << 20;

/// Longest line of passwd or group: a group of 16 000 members.
pub const MAX_ACCOUNT_LINE: usize = 256 << 10;

/// Bytes read from the start of an executable to find its interpreter: the program headers of an ELF file
/// lie right behind its first 64 bytes; the kernel reads 256 bytes for `#!`.
pub const MAX_EXEC_HEAD: u64 = 64 << 10;

/// Interpreters of interpreters, as in fs/exec.c.
pub const MAX_INTERPRETERS: usize = 5;

/// KiB that decompression of one xz archive may take: the dictionary of `xz -9` is 64 MiB, the format allows 4 GiB.
pub const MAX_XZ_MEMORY: u32 = (64 << 10) + 512;

/// A buffer between decompression and extraction: large enough that hand-over costs nothing, and small enough that those in
/// flight stay in a second-level cache.
pub const CHUNK: usize = 1 << 18;

/// Buffers in flight per layer: 2 MiB keep both threads busy through bursts of small files.
pub const CHUNKS: usize = 8;
