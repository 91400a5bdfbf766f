//! Path addresses: the text that names a path, and what it says.
//!
//! | address | path |
//! |---|---|
//! | `emulated:IMAGE?port=N&group=N&state=S&size=BYTES&block=512&cache=none&wwid=W` | a port of the built-in array |
//! | `null:SIZE` | zeroes out, everything in |
//! | `iscsi://[user[%secret]@]host[:port]/target/lun` | a logical unit behind an iSCSI portal: [`IscsiAddress`] |
//! | `/dev/sgN`, `/dev/sdX`, `/dev/bsg/H:C:T:L`, `/dev/disk/by-path/...` | a SCSI device of the host, by any of its names: [`HostAddress`] |
//!
//! In IMAGE and in every value `%XX` stands for the byte XX, so that a path may contain `?`, `&`
//! and `%`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::scsi::alua::AccessState;

pub use cache::Cache;
pub use iscsi::{IscsiAddress, Secret, is_iscsi_name};
pub use naa::{Naa6, NaaError};

mod cache;
mod iscsi;
mod naa;
mod state;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// One port of the built-in array.
    Emulated(EmulatedAddress),
    /// A logical unit behind an iSCSI portal.
    Iscsi(IscsiAddress),
    /// The path that stores nothing.
    Null(NullAddress),
    /// A SCSI device of the host.
    Host(HostAddress),
}

/// `emulated:IMAGE?...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedAddress {
    /// The file or block device behind the logical unit.
    pub image: PathBuf,
    /// RELATIVE TARGET PORT IDENTIFIER; 1 unless said otherwise.
    pub port: u16,
    /// TARGET PORT GROUP; 1 unless said otherwise: ports are equals until somebody tells them apart.
    pub group: u16,
    /// The group's asymmetric access state; active/optimized unless said otherwise.
    pub state: AccessState,
    /// Bytes; needed only where the image does not exist yet.
    pub size: Option<u64>,
    /// Bytes of a logical block: 512 (unless said otherwise) or 4096.
    pub block: u32,
    /// Through the host's page cache, unless said otherwise.
    pub cache: Cache,
    /// The logical unit's name, where the user chooses it.
    pub wwid: Option<Naa6>,
}

/// `null:SIZE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NullAddress {
    /// Bytes.
    pub size: u64,
}

/// An absolute path to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The node, or a link to it.
    pub node: PathBuf,
}

/// Why a text is no path address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing that begins like this is known.
    #[error("path {0}: not an address; one begins with /dev/, emulated:, iscsi:// or null:")]
    UnknownKind(String),
    /// An `iscsi://` address that makes no sense. It is shown without what may be a secret.
    #[error("path {address}: {reason}")]
    Iscsi {
        /// The address, as far as it may be shown.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// `emulated:` and nothing behind it.
    #[error("path {0}: the image is missing")]
    NoImage(String),
    /// A setting that does not exist.
    #[error(
        "path {address}: unknown setting {key}; there are port, group, state, size, block, cache \
         and wwid"
    )]
    UnknownKey {
        /// The address as given.
        address: String,
        /// The setting.
        key: String,
    },
    /// A setting given twice.
    #[error("path {address}: {key} is given twice")]
    Duplicate {
        /// The address as given.
        address: String,
        /// The setting.
        key: String,
    },
    /// A setting whose value is not possible.
    #[error("path {address}: {key}={value}: {reason}")]
    BadValue {
        /// The address as given.
        address: String,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// What it should be.
        reason: String,
    },
    /// A `%` without two hexadecimal digits.
    #[error("path {0}: % stands before two hexadecimal digits; write %25 for the sign itself")]
    BadEscape(String),
}

impl Address {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        if text.starts_with("iscsi:") {
            return IscsiAddress::parse(text).map(Address::Iscsi);
        }
        if text.starts_with('/') {
            return Ok(Address::Host(HostAddress { node: PathBuf::from(text) }));
        }
        if let Some(rest) = text.strip_prefix("emulated:") {
            return parse_emulated(text, rest).map(Address::Emulated);
        }
        if let Some(size) = text.strip_prefix("null:") {
            let size = parse_size(size).map_err(|reason| bad_value(text, "size", size, reason))?;
            return Ok(Address::Null(NullAddress { size }));
        }
        Err(AddressError::UnknownKind(iscsi::without_secret(text)))
    }

    /// The `kind` of `query-paths`.
    pub fn kind(&self) -> &'static str {
        match self {
            Address::Emulated(_) => "emulated",
            Address::Iscsi(_) => "iscsi",
            Address::Null(_) => "null",
            Address::Host(_) => "sg",
        }
    }

    /// What a path is called when nobody names it: `disk.img:1` for port 1 of that image,
    /// `null-1G`, `sdc`. Two paths may come to the same; the path table keeps them apart.
    pub fn short_name(&self) -> String {
        match self {
            Address::Emulated(address) => {
                let file = address.image.file_name().unwrap_or(address.image.as_os_str());
                format!("{}:{}", file.to_string_lossy(), address.port)
            }
            Address::Iscsi(address) => address.short_name(),
            Address::Null(address) => format!("null-{}", Size(address.size)),
            Address::Host(address) => {
                let leaf = address.node.file_name().unwrap_or(address.node.as_os_str());
                leaf.to_string_lossy().into_owned()
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Address::parse(text)
    }
}

/// The address in full, with every setting that is not the default, and without secrets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Iscsi(address) => address.fmt(f),
            Address::Null(address) => write!(f, "null:{}", Size(address.size)),
            Address::Host(address) => address.node.display().fmt(f),
            Address::Emulated(address) => {
                write!(f, "emulated:{}?port={}", Escaped(&address.image), address.port)?;
                if address.group != 1 {
                    write!(f, "&group={}", address.group)?;
                }
                if address.state != AccessState::ActiveOptimized {
                    write!(f, "&state={}", address.state)?;
                }
                if let Some(size) = address.size {
                    write!(f, "&size={}", Size(size))?;
                }
                if address.block != 512 {
                    write!(f, "&block={}", address.block)?;
                }
                if address.cache != Cache::default() {
                    write!(f, "&cache={}", address.cache)?;
                }
                if let Some(wwid) = address.wwid {
                    write!(f, "&wwid={wwid}")?;
                }
                Ok(())
            }
        }
    }
}

fn parse_emulated(text: &str, rest: &str) -> Result<EmulatedAddress, AddressError> {
    let (image, query) = rest.split_once('?').unwrap_or((rest, ""));
    if image.is_empty() {
        return Err(AddressError::NoImage(text.to_owned()));
    }
    let mut address = EmulatedAddress {
        image: PathBuf::from(OsString::from_vec(unescape(text, image)?)),
        port: 1,
        group: 1,
        state: AccessState::ActiveOptimized,
        size: None,
        block: 512,
        cache: Cache::default(),
        wwid: None,
    };
    let mut seen: Vec<&str> = Vec::new();
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (key, raw) = setting.split_once('=').unwrap_or((setting, ""));
        if seen.contains(&key) {
            return Err(AddressError::Duplicate { address: text.to_owned(), key: key.to_owned() });
        }
        seen.push(key);
        let value = String::from_utf8_lossy(&unescape(text, raw)?).into_owned();
        let bad = |reason| bad_value(text, key, &value, reason);
        match key {
            "port" => address.port = parse_number(&value).map_err(bad)?,
            "group" => address.group = parse_number(&value).map_err(bad)?,
            "size" => address.size = Some(parse_size(&value).map_err(bad)?),
            "state" => {
                address.state = state::from_name(&value).ok_or_else(|| {
                    let names = state::STATES.map(|state| state.to_string());
                    bad(format!("one of {}", names.join(", ")))
                })?;
            }
            "block" => {
                address.block = match value.as_str() {
                    "512" => 512,
                    "4096" => 4096,
                    _ => return Err(bad("512 or 4096".to_owned())),
                }
            }
            "cache" => {
                let reason = "writeback (through the host's page cache) or none (O_DIRECT)";
                address.cache = Cache::from_name(&value).ok_or_else(|| bad(reason.to_owned()))?;
            }
            "wwid" => {
                let wwid = value.parse().map_err(|error: NaaError| bad(error.to_string()))?;
                address.wwid = Some(wwid);
            }
            _ => {
                let (address, key) = (text.to_owned(), key.to_owned());
                return Err(AddressError::UnknownKey { address, key });
            }
        }
    }
    Ok(address)
}

fn bad_value(address: &str, key: &str, value: &str, reason: String) -> AddressError {
    AddressError::BadValue {
        address: address.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        reason,
    }
}

fn parse_number(value: &str) -> Result<u16, String> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a number from 1 to 65535".to_owned()),
    }
}

fn parse_size(value: &str) -> Result<u64, String> {
    let digits = value.trim_end_matches(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']);
    let shift = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>());
    match (number, shift) {
        (Some(Ok(number)), Some(shift)) if number > 0 => number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= i64::MAX as u64)
            .ok_or_else(|| "more bytes than a file can have".to_owned()),
        _ => Err("a number of bytes, with K, M, G or T behind it if you like".to_owned()),
    }
}

fn unescape(address: &str, text: &str) -> Result<Vec<u8>, AddressError> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        let pair = digit().zip(digit());
        let (high, low) = pair.ok_or_else(|| AddressError::BadEscape(address.to_owned()))?;
        plain.push((high << 4 | low) as u8);
    }
    Ok(plain)
}

struct Escaped<'a>(&'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.as_os_str().as_encoded_bytes() {
            match byte {
                b'?' | b'&' | b'%' | 0..=b' ' | 0x7F.. => write!(f, "%{byte:02X}")?,
                _ => write!(f, "{}", *byte as char)?,
            }
        }
        Ok(())
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests;
