//! Loop devices: finding, binding and clearing them, by ioctl, and what `/sys` tells of them.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// How often another free device is asked for when somebody else was faster.
const ATTEMPTS: usize = 64;
/// Bytes of a label with the NUL at its end.
const LABEL_LEN: usize = 64;
/// The major number of loop devices.
const MAJOR: u32 = 7;
/// Bytes of a block. Nothing below them is asked of the device.
pub(crate) const BLOCK: u32 = 4096;

const READ_ONLY: u32 = 1;
const DIRECT_IO: u32 = 16;

/// The number of a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopDevice(pub(crate) u32);

/// What was not done, and why.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The system said no.
    #[error("{action} {device}")]
    System {
        /// What was asked.
        action: &'static str,
        /// Of what.
        device: String,
        /// What it said.
        source: io::Error,
    },
    /// Somebody else took every device that was free.
    #[error("no free loop device could be had in {ATTEMPTS} attempts")]
    Contended,
    /// The kernel would cache, so that what is flushed were not what was written.
    #[error("the kernel does not use direct I/O on {0}")]
    Cached(String),
    /// The kernel has not understood how large the file is.
    #[error("the kernel gives {device} {seen} bytes, and not the {wanted} that its device has")]
    Size {
        /// Which.
        device: String,
        /// Its bytes.
        seen: u64,
        /// What they should be.
        wanted: u64,
    },
}

impl LoopDevice {
    pub(crate) fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.0))
    }

    /// The number that it has among devices.
    pub(crate) fn device(self) -> rustix::fs::Dev {
        rustix::fs::makedev(MAJOR, self.0)
    }

    fn sys(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/loop{}/{file}", self.0))
    }

    fn system(self, action: &'static str) -> impl FnOnce(Errno) -> LoopError {
        move |source| LoopError::System { action, device: self.path().display().to_string(), source: source.into() }
    }

    /// Opens it, and makes its name in `/dev` where nobody does that, as in a container.
    pub(crate) fn open(self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let open = || rustix::fs::open(self.path(), flags | OFlags::CLOEXEC, Mode::empty());
        match open() {
            Err(Errno::NOENT) => {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mknodat(rustix::fs::CWD, self.path(), FileType::BlockDevice, mode, self.device())?;
                open()
            }
            other => other,
        }
    }

    /// Binds a file to a free device, under a label that it can be found by. The kernel asks the file on the way, and has the device locked meanwhile.
    pub(crate) fn bind(file: BorrowedFd<'_>, label: &str, writable: bool) -> Result<Self, LoopError> {
        let system = |action| {
            move |source: Errno| {
                let device = "/dev/loop-control".to_owned();
                LoopError::System { action, device, source: source.into() }
            }
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty()).map_err(system("open"))?;
        for _ in 0..ATTEMPTS {
            let device = Self(ioctl::free(&control).map_err(system("have a free device of"))?);
            let opened = device.open(OFlags::RDWR).map_err(device.system("open"))?;
            match ioctl::configure(&opened, &configuration(file, label, writable)) {
                Err(Errno::BUSY) => {}
                Err(error) => return Err(device.system("configure")(error)),
                Ok(()) if device.is_direct() => return Ok(device),
                Ok(()) => {
                    ioctl::clear(&opened).map_err(device.system("clear"))?;
                    return Err(LoopError::Cached(device.path().display().to_string()));
                }
            }
        }
        Err(LoopError::Contended)
    }

    fn is_direct(self) -> bool {
        fs::read_to_string(self.sys("loop/dio")).is_ok_and(|text| text.trim() == "1")
    }

    /// Its size in bytes.
    pub(crate) fn size(self) -> io::Result<u64> {
        let text = fs::read_to_string(self.sys("size"))?;
        let sectors: u64 = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(sectors * 512)
    }

    /// Fails unless it has so many bytes.
    pub(crate) fn expect_size(self, wanted: u64) -> Result<(), LoopError> {
        let device = self.path().display().to_string();
        match self.size() {
            Ok(seen) if seen == wanted => Ok(()),
            Ok(seen) => Err(LoopError::Size { device, seen, wanted }),
            Err(source) => Err(LoopError::System { action: "look at the size of", device, source }),
        }
    }

    /// Whether it may have been bound under this label; it was not if not. Neither the device nor whoever serves its file is asked.
    fn has_mark(self, label: &str) -> io::Result<bool> {
        let gone = |error: &io::Error| {
            let unbound = error.raw_os_error() == Some(Errno::NODEV.raw_os_error());
            unbound || error.kind() == io::ErrorKind::NotFound
        };
        match fs::read_to_string(self.sys("loop/sizelimit")) {
            Ok(text) => Ok(text.trim().parse() == Ok(mark(label))),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it was bound under this label. That it cannot be said is no answer: who took it for a no would bind a second device, or leave
    /// one that he was to clear.
    ///
    /// The kernel asks for the attributes of the bound file on the way, so somebody should serve it. Devices that are others' by their mark are
    /// not asked, since theirs may hang, or fail.
    pub(crate) fn has_label(self, label: &str) -> io::Result<bool> {
        if !self.has_mark(label)? {
            return Ok(false);
        }
        let found = self.open(OFlags::RDONLY).and_then(ioctl::label);
        match found {
            Ok(found) => Ok(found == padded(label)),
            // Nothing is bound to it any more, or it is gone.
            Err(Errno::NXIO | Errno::NODEV) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The devices that may have been bound under this label. None of them is asked.
    pub(crate) fn marked(label: &str) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|text| text.parse().ok());
            if let Some(device) = number.map(Self)
                && device.has_mark(label)?
            {
                found.push(device);
            }
        }
        Ok(found)
    }

    /// The device that was bound under this label.
    pub(crate) fn find(label: &str) -> io::Result<Option<Self>> {
        for device in Self::marked(label)? {
            if device.has_label(label)? {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// Has the kernel take the size that the file has now.
    pub(crate) fn take_size(self) -> Result<(), LoopError> {
        let opened = self.open(OFlags::RDONLY).map_err(self.system("open"))?;
        ioctl::take_size(&opened).map_err(self.system("make larger"))
    }

    /// Unbinds its file, at once or when the last who has it open closes it.
    pub(crate) fn clear(opened: &OwnedFd) -> Result<(), Errno> {
        match ioctl::clear(opened) {
            // It is not bound.
            Err(Errno::NXIO) => Ok(()),
            other => other,
        }
    }
}

fn padded(label: &str) -> [u8; LABEL_LEN] {
    let mut bytes = [0; LABEL_LEN];
    let len = label.len().min(LABEL_LEN - 1);
    bytes[..len].copy_from_slice(&label.as_bytes()[..len]);
    bytes
}

/// What shows in `/sys` whose a device is, where the kernel does not tell the label: a limit of its size beyond all sizes, which limits nothing,
/// made of the label by FNV-1a. Two labels may have one mark.
fn mark(label: &str) -> u64 {
    let hash = label
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The kernel takes no more than 63 bits.
    1 << 62 | hash >> 2
}

/// The longest label.
pub(crate) const MOST_LABEL_LEN: usize = LABEL_LEN - 1;

/// `struct loop_config`: the file, the size of a block, and in a `struct loop_info64` the mark, the flags and the label; all else is zero.
fn configuration(file: BorrowedFd<'_>, label: &str, writable: bool) -> [u8; ioctl::CONFIG_LEN] {
    let mut bytes = [0; ioctl::CONFIG_LEN];
    bytes[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    bytes[4..8].copy_from_slice(&BLOCK.to_ne_bytes());
    let info = &mut bytes[8..];
    let flags = DIRECT_IO | if writable { 0 } else { READ_ONLY };
    info[ioctl::LIMIT_AT..ioctl::LIMIT_AT + 8].copy_from_slice(&mark(label).to_ne_bytes());
    info[ioctl::FLAGS_AT..ioctl::FLAGS_AT + 4].copy_from_slice(&flags.to_ne_bytes());
    info[ioctl::LABEL_AT..ioctl::LABEL_AT + LABEL_LEN].copy_from_slice(&padded(label));
    bytes
}

/// The five calls that have no safe wrapper.
#[allow(unsafe_code, reason = "ioctl")]
mod ioctl {
    use super::{AsFd, Errno, LABEL_LEN};
    use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};
    use std::ffi::c_void;

    /// Bytes of a `struct loop_config`.
    pub(super) const CONFIG_LEN: usize = 304;
    /// Bytes of a `struct loop_info64`, and where in it what lies.
    const INFO_LEN: usize = 232;
    pub(super) const LIMIT_AT: usize = 32;
    pub(super) const FLAGS_AT: usize = 52;
    pub(super) const LABEL_AT: usize = 56;

    const LOOP_CLR_FD: Opcode = 0x4c01;
    const LOOP_GET_STATUS64: Opcode = 0x4c05;
    const LOOP_SET_CAPACITY: Opcode = 0x4c07;
    const LOOP_CONFIGURE: Opcode = 0x4c0a;
    const LOOP_CTL_GET_FREE: Opcode = 0x4c82;

    /// Takes nothing, and gives the number of a device as its result.
    struct GetFree;

    // SAFETY: the call takes no pointer, so it reads and writes no memory of this process.
    unsafe impl Ioctl for GetFree {
        type Output = IoctlOutput;

        const IS_MUTATING: bool = false;

        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }

        fn as_ptr(&mut self) -> *mut c_void {
            std::ptr::null_mut()
        }

        unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
            Ok(result)
        }
    }

    pub(super) fn free(control: impl AsFd) -> Result<u32, Errno> {
        // SAFETY: see the implementation above; on a file of another kind the call fails.
        let number = unsafe { ioctl(control, GetFree) }?;
        u32::try_from(number).map_err(|_| Errno::INVAL)
    }

    pub(super) fn configure(device: impl AsFd, configuration: &[u8; CONFIG_LEN]) -> Result<(), Errno> {
        // SAFETY: the call reads a `struct loop_config`, which has as many bytes, and writes nothing.
        let call = unsafe { Setter::<LOOP_CONFIGURE, [u8; CONFIG_LEN]>::new(*configuration) };
        // SAFETY: the call is the one that the argument is made for; on a file of another kind it fails.
        unsafe { ioctl(device, call) }
    }

    pub(super) fn label(device: impl AsFd) -> Result<[u8; LABEL_LEN], Errno> {
        // SAFETY: the call writes a `struct loop_info64`, which has as many bytes and of which any are valid.
        let call = unsafe { Getter::<LOOP_GET_STATUS64, [u8; INFO_LEN]>::new() };
        // SAFETY: the call is the one that the argument is made for; where it succeeds it has written all of it.
        let info = unsafe { ioctl(device, call) }?;
        let mut label = [0; LABEL_LEN];
        label.copy_from_slice(&info[LABEL_AT..LABEL_AT + LABEL_LEN]);
        Ok(label)
    }

    pub(super) fn take_size(device: impl AsFd) -> Result<(), Errno> {
        // SAFETY: the call takes no argument.
        let call = unsafe { NoArg::<LOOP_SET_CAPACITY>::new() };
        // SAFETY: the call reads and writes no memory of this process.
        unsafe { ioctl(device, call) }
    }

    pub(super) fn clear(device: impl AsFd) -> Result<(), Errno> {
        // SAFETY: the call takes no argument.
        let call = unsafe { NoArg::<LOOP_CLR_FD>::new() };
        // SAFETY: the call reads and writes no memory of this process.
        unsafe { ioctl(device, call) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_laid_out_as_the_kernel_reads_it() {
        let file = fs::File::open("/dev/null").unwrap();
        let bytes = configuration(file.as_fd(), "orlop:a", false);
        assert_eq!(bytes[..4], file.as_raw_fd().to_ne_bytes());
        assert_eq!(bytes[4..8], 4096_u32.to_ne_bytes());
        // After four more numbers of 64 bits: the limit of the size; after three of 32: the flags, then the name.
        assert_eq!(bytes[40..48], mark("orlop:a").to_ne_bytes());
        assert_eq!(bytes[60..64], 17_u32.to_ne_bytes());
        assert_eq!(&bytes[64..72], b"orlop:a\0");
        assert!(bytes[8..40].iter().chain(&bytes[48..60]).chain(&bytes[72..]).all(|byte| *byte == 0));
        assert_eq!(padded(&"n".repeat(100))[MOST_LABEL_LEN], 0);
        // Another process, and another version of this, must find it.
        assert_eq!(mark("orlop:a"), 0x5ac359effa5d2d4e);
        assert!(["", "orlop:b"].map(mark).iter().all(|other| *other >> 62 == 1 && *other != mark("orlop:a")));
    }
}
