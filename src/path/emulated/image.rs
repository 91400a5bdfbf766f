//! Opening an image: the file, its lock, its size, and the name beside it.
//!
//! What APTPL keeps of reservations is in `IMAGE.reservations` (see `reservations/keep.rs`).
//! The unit's name is kept in `IMAGE.wwid`, made with the first opening, so that it is the same
//! after a restart. A block device has no place beside it that lasts: there the name is given
//! by `wwid=` or derived from this machine and the device's path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::direct::{Direct, DirectError};
use super::reservations::{Keep, State};
use super::store_sys;
use crate::limits::EMULATED_LOCK_PATIENCE;
use crate::lock_sys::{self, LockError};
use crate::path::address::{Cache, EmulatedAddress, Naa6};

/// What a port is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// To be used: the image is locked, and made where it is missing and the size is known.
    Serve,
    /// To be looked at, beside a backend that may be running: nothing is locked, nothing is
    /// written, no file is made; writes are refused as on a write protected medium.
    Check,
}

/// Why an image cannot be opened.
#[derive(Debug, Error)]
pub enum ImageError {
    /// There is no file, and nobody said how large to make it.
    #[error("image {0} does not exist; give size= to have it made")]
    Missing(PathBuf),
    /// The file is there, without a single block.
    #[error("image {0} is smaller than a block; give size= to have it filled")]
    Empty(PathBuf),
    /// The file is neither a regular file nor a block device.
    #[error("image {0} is neither a file nor a block device")]
    NoImage(PathBuf),
    /// The size in the address is another.
    #[error("image {image} has {has} bytes, size={size} says {size}")]
    SizeDiffers {
        /// The image.
        image: PathBuf,
        /// Its size.
        has: u64,
        /// The setting.
        size: u64,
    },
    /// Another port of the same image says otherwise.
    #[error("image {image}: {key}={wanted}, but another port has it open with {has}")]
    PortsDiffer {
        /// The image.
        image: PathBuf,
        /// The setting.
        key: &'static str,
        /// This port's value.
        wanted: String,
        /// The other's.
        has: String,
    },
    /// There is no way past the page cache.
    #[error("image {image}: cache=none (O_DIRECT) is not possible: {reason}")]
    NotDirect {
        /// The image.
        image: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The name beside the image is another.
    #[error("image {image}: wwid={wanted}, but {file} says {has}")]
    WwidDiffers {
        /// The image.
        image: PathBuf,
        /// The setting.
        wanted: Naa6,
        /// Where the other stands.
        file: PathBuf,
        /// The other.
        has: Naa6,
    },
    /// The name beside the image is none.
    #[error("{file} holds no name of a unit: {content:?}")]
    WwidUnreadable {
        /// The file.
        file: PathBuf,
        /// What it holds, the beginning of it.
        content: String,
    },
    /// What was kept of reservations cannot be read.
    #[error("{0} holds no reservations; without that file the unit begins with none")]
    ReservationsUnreadable(PathBuf),
    /// Another process has the image.
    #[error("image {image} is in use by {holder}")]
    InUse {
        /// The image.
        image: PathBuf,
        /// Who.
        holder: String,
    },
    /// The host said no.
    #[error("{path}: {error}")]
    Host {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// What keeps other processes out; the kernel lets go of the lock with the file, and of the file
/// when all I/O on it has ended, also that of a process that is gone.
#[derive(Debug)]
pub(super) struct ImageGuard(#[allow(dead_code, reason = "held for its lock")] File);

/// An image that is open.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) bytes: u64,
    /// With `cache=none`: what direct I/O on it wants.
    pub(super) direct: Option<Direct>,
    pub(super) name: Naa6,
    pub(super) guard: Option<ImageGuard>,
    pub(super) keep: Keep,
    pub(super) reservations: State,
}

/// What is known of an image before it is locked.
pub(super) struct Found {
    pub(super) file: File,
    /// False where the file had to be made up in memory, to be looked at.
    pub(super) exists: bool,
    is_device: bool,
}

fn host(path: &Path) -> impl Fn(io::Error) -> ImageError + '_ {
    move |error| ImageError::Host { path: path.to_owned(), error }
}

/// Opens the file, or makes it.
pub(super) fn find(address: &EmulatedAddress, mode: OpenMode) -> Result<Found, ImageError> {
    let image = &address.image;
    let serve = mode == OpenMode::Serve;
    let file = match OpenOptions::new().read(true).write(serve).open(image) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let size = address.size.ok_or_else(|| ImageError::Missing(image.clone()))?;
            if !serve {
                let file = store_sys::memory_file("not-made-yet").map_err(host(image))?;
                file.set_len(size).map_err(host(image))?;
                return Ok(Found { file, exists: false, is_device: false });
            }
            // Not exclusively: who comes second finds the lock.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(image).map_err(host(image))?
        }
        Err(error) => return Err(host(image)(error)),
    };
    let kind = file.metadata().map_err(host(image))?.file_type();
    let is_device = kind.is_block_device();
    if !kind.is_file() && !is_device {
        return Err(ImageError::NoImage(image.clone()));
    }
    Ok(Found { file, exists: true, is_device })
}

/// Locks what was found, and reads what belongs to it.
pub(super) fn take(
    address: &EmulatedAddress,
    mode: OpenMode,
    found: Found,
) -> Result<Image, ImageError> {
    let image = &address.image;
    let Found { mut file, exists, is_device } = found;
    let mut guard = None;
    if mode == OpenMode::Serve {
        lock_sys::lock(&file, EMULATED_LOCK_PATIENCE).map_err(|error| match error {
            LockError::Held(holder) => ImageError::InUse { image: image.clone(), holder },
            LockError::Host(error) => host(image)(error),
        })?;
        guard = Some(ImageGuard(file.try_clone().map_err(host(image))?));
        if is_device {
            // Keeps out whoever mounts it, and is kept out by that.
            let mut exclusive = OpenOptions::new();
            exclusive.read(true).write(true).custom_flags(libc::O_EXCL);
            let open = || exclusive.open(image);
            file = lock_sys::open_alone(open, EMULATED_LOCK_PATIENCE).map_err(host(image))?;
        }
    }
    // Metadata says zero for block devices; the end is where seeking says.
    let mut bytes = file.seek(SeekFrom::End(0)).map_err(host(image))?;
    if let Some(size) = address.size {
        if bytes == 0 && mode == OpenMode::Serve && !is_device {
            file.set_len(size).map_err(host(image))?;
            bytes = size;
        }
        if bytes != size {
            return Err(ImageError::SizeDiffers { image: image.clone(), has: bytes, size });
        }
    }
    if bytes < u64::from(address.block) {
        return Err(ImageError::Empty(image.clone()));
    }
    let direct = match address.cache {
        // What is only looked at and not there yet may be made anywhere.
        Cache::None if exists => Some(direct(address, &file)?),
        _ => None,
    };
    let name = name(address, mode, exists, is_device)?;
    let (keep, reservations) = match mode {
        OpenMode::Serve if !is_device => Keep::beside(image)?,
        _ => (Keep::Nowhere, State::default()),
    };
    Ok(Image { file, bytes, direct, name, guard, keep, reservations })
}

/// Begins direct I/O on what is open, or says why not.
fn direct(address: &EmulatedAddress, file: &File) -> Result<Direct, ImageError> {
    let begun = Direct::begin(file, address.block).map_err(host(&address.image))?;
    begun.map_err(|error| {
        let reason = match error {
            DirectError::Memory => {
                "it is in memory, where there is nothing else; leave cache=none away".to_owned()
            }
            DirectError::Unsupported => "its file system has none; leave it away".to_owned(),
            DirectError::Blocks(4096) => format!(
                "it takes blocks of 4096 bytes there, and block={} is smaller; a unit that is \
                 made new can have block=4096",
                address.block
            ),
            DirectError::Blocks(bytes) => {
                format!("it takes blocks of {bytes} bytes there; leave it away")
            }
        };
        ImageError::NotDirect { image: address.image.clone(), reason }
    })
}

/// Where the name of `image` is kept.
fn name_file(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".wwid");
    PathBuf::from(name)
}

fn name(
    address: &EmulatedAddress,
    mode: OpenMode,
    exists: bool,
    is_device: bool,
) -> Result<Naa6, ImageError> {
    let image = &address.image;
    if is_device {
        return Ok(address.wwid.unwrap_or_else(|| derived_name(image)));
    }
    let file = name_file(image);
    let content = match fs::read_to_string(&file) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(host(&file)(error)),
    };
    // A name beside a file that is not there belongs to one that was.
    if let Some(content) = content.filter(|_| exists) {
        let has: Naa6 = content.trim().parse().map_err(|_| ImageError::WwidUnreadable {
            file: file.clone(),
            content: content.chars().take(40).collect(),
        })?;
        return match address.wwid {
            Some(wanted) if wanted != has => {
                Err(ImageError::WwidDiffers { image: image.clone(), wanted, file, has })
            }
            _ => Ok(has),
        };
    }
    if mode == OpenMode::Check {
        return Ok(address.wwid.unwrap_or_else(|| derived_name(image)));
    }
    let name = match address.wwid {
        Some(name) => name,
        None => Naa6::random().map_err(host(&file))?,
    };
    // Whole or not at all, also when the host goes down meanwhile.
    let mut draft = file.clone().into_os_string();
    draft.push(".new");
    fs::write(&draft, format!("{name}\n"))
        .and_then(|()| File::open(&draft)?.sync_all())
        .and_then(|()| fs::rename(&draft, &file))
        .map_err(host(&file))?;
    Ok(name)
}

fn derived_name(image: &Path) -> Naa6 {
    let mut text = fs::read("/etc/machine-id").unwrap_or_default();
    let path = fs::canonicalize(image).unwrap_or_else(|_| image.to_owned());
    text.extend_from_slice(path.as_os_str().as_encoded_bytes());
    Naa6::derived(&text)
}
