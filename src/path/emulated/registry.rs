//! The units that this process has open: all ports of an image share one.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::array::{Array, Identity};
use super::image::{self, Found, ImageError, OpenMode};
use super::reservations::Reservations;
use super::store::Store;
use crate::path::address::{Cache, EmulatedAddress};

/// What makes two images the same, however they are spelt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    File {
        device: u64,
        inode: u64,
        mode: OpenMode,
    },
    Device {
        number: u64,
        mode: OpenMode,
    },
    /// Not made yet, and only looked at.
    Absent(PathBuf),
}

/// A unit, not kept open, and the cache that its ports name: an image that is not made yet has none.
type Known = (Weak<Array>, Cache);

/// Looked at when a path is opened, never after.
static OPEN: Mutex<Option<HashMap<Key, Known>>> = Mutex::new(None);

/// The unit of an image: the one that is open, or a new one.
pub(super) fn open(address: &EmulatedAddress, mode: OpenMode) -> Result<Arc<Array>, ImageError> {
    // Held to the end, so that two ports opened at once come to one unit.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    let found = image::find(address, mode)?;
    let key = key(address, mode, &found)?;
    open.retain(|_, (array, _)| array.strong_count() > 0);
    if let Some((array, cache)) = open.get(&key)
        && let Some(array) = array.upgrade()
    {
        agree(address, &array, *cache)?;
        return Ok(array);
    }
    let image = image::take(address, mode, found)?;
    let identity = Identity {
        name: image.name,
        product: b"VIRTUAL-DISK    ",
        block_size: address.block,
        blocks: image.bytes / u64::from(address.block),
        read_only: mode == OpenMode::Check,
        reservations: Reservations::new(image.keep, image.reservations),
    };
    let store = match image.direct {
        Some(direct) => Store::direct(image.file, direct),
        None => Store::file(image.file),
    };
    let array = Array::new(store, identity, image.guard);
    open.insert(key, (Arc::downgrade(&array), address.cache));
    Ok(array)
}

fn key(address: &EmulatedAddress, mode: OpenMode, found: &Found) -> Result<Key, ImageError> {
    let host = |error| ImageError::Host { path: address.image.clone(), error };
    if !found.exists {
        let path = std::path::absolute(&address.image).map_err(host)?;
        // The folder may be spelt in several ways; the file itself does not exist.
        let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
        return Ok(Key::Absent(match (folder, path.file_name()) {
            (Some(folder), Some(file)) => folder.join(file),
            _ => path,
        }));
    }
    let metadata = found.file.metadata().map_err(host)?;
    Ok(if metadata.file_type().is_block_device() {
        Key::Device { number: metadata.rdev(), mode }
    } else {
        Key::File { device: metadata.dev(), inode: metadata.ino(), mode }
    })
}

/// All ports of an image say the same of it.
fn agree(address: &EmulatedAddress, array: &Array, cache: Cache) -> Result<(), ImageError> {
    let differ = |key, wanted: String, has: String| {
        Err(ImageError::PortsDiffer { image: address.image.clone(), key, wanted, has })
    };
    if address.block != array.block_size() {
        return differ("block", address.block.to_string(), array.block_size().to_string());
    }
    if address.cache != cache {
        return differ("cache", address.cache.to_string(), cache.to_string());
    }
    let bytes = array.blocks() * u64::from(array.block_size());
    match (address.wwid, address.size) {
        (Some(wwid), _) if wwid != array.wwid() => {
            differ("wwid", wwid.to_string(), array.wwid().to_string())
        }
        // The last block of the image may have been cut.
        (_, Some(size)) if size / u64::from(address.block) != array.blocks() => {
            differ("size", size.to_string(), bytes.to_string())
        }
        _ => Ok(()),
    }
}
