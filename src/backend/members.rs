//! A path as configured: its address, its name, and its transport.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::BackendError;
use super::fence::Bounds;
use crate::config::{self, Config, Listen, PathConfig};
use crate::control::PathKind;
use crate::multipath::Placement;
use crate::path::address::Address;
use crate::path::any::{AnyPath, IscsiSettings, OpenMode, OpenOptions, ReloginIsProof};
use crate::path::sg::SgSettings;
use crate::path::sg::host::holders::held_or_claimed;
use crate::path::sg::host::{Device, DeviceId, NodeError, Roots};

/// A path, opened.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its address, as written, but without secrets.
    pub address: String,
    /// Where an iSCSI session leads. Two of one backend to the same place would take each other's.
    pub place: Option<String>,
    /// What the configuration says of its group, for arrays that have none.
    pub placement: Placement,
    /// What makes channels.
    pub transport: Arc<AnyPath>,
    /// The node of a host device.
    pub node: Option<PathBuf>,
    /// The device behind it, as far as it is known.
    pub device: Option<DeviceId>,
    /// It was found by discovery, and goes when its device does.
    pub found: bool,
}

/// A path of a configuration, not opened.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name, given or the address's own.
    pub name: String,
    /// Its address, as written, but without secrets.
    pub address: String,
    /// As written.
    pub config: PathConfig,
}

impl Listed {
    /// Reads the address.
    pub fn of(config: &PathConfig) -> Result<Self, BackendError> {
        Listed::parse(config).map(|(_, listed)| listed)
    }

    fn parse(config: &PathConfig) -> Result<(Address, Self), BackendError> {
        let address: Address = config.address.parse()?;
        let name = match config.name.as_str() {
            "" => address.short_name(),
            name => name.to_owned(),
        };
        let shown = match &address {
            Address::Iscsi(_) => address.to_string(),
            _ => config.address.clone(),
        };
        Ok((address, Listed { name, address: shown, config: config.clone() }))
    }
}

impl Member {
    /// Opens a path that is added to a backend that runs, where it may be opened at all.
    pub fn open_within(
        bounds: &Bounds,
        config: &PathConfig,
        options: &OpenOptions,
    ) -> Result<Self, BackendError> {
        let name = Listed::of(config)?.name;
        bounds.permit(config).map_err(|source| BackendError::Outside { name, source })?;
        Member::open(config, options)
    }

    /// Opens the path of `config`.
    pub fn open(config: &PathConfig, options: &OpenOptions) -> Result<Self, BackendError> {
        let (address, Listed { name, address: shown, .. }) = Listed::parse(config)?;
        let node = node_of(&config.address);
        let device = match &node {
            Some(node) => free_device(&name, node)?,
            None => None,
        };
        let mut options = options.clone();
        options.sg.direct_io = config.direct_io;
        let transport = AnyPath::open(&address, &options)
            .map_err(|source| BackendError::Open { name: name.clone(), source })?;
        let place = match &address {
            Address::Iscsi(iscsi) => Some(iscsi.place()),
            _ => None,
        };
        Ok(Member {
            name,
            address: shown,
            place,
            placement: Placement { group: config.group, preferred: config.preferred },
            transport: Arc::new(transport),
            node,
            device: device.as_ref().map(|device| device.id),
            found: false,
        })
    }

    /// Opens all paths of a configuration; their names differ, and where they lead.
    pub fn open_all(
        configs: &[PathConfig],
        options: &OpenOptions,
    ) -> Result<Vec<Self>, BackendError> {
        let mut members: Vec<Member> = Vec::new();
        for config in configs {
            let member = Member::open(config, options)?;
            member.differs(&members)?;
            members.push(member);
        }
        Ok(members)
    }

    /// Can it stand beside `others`?
    pub fn differs(&self, others: &[Member]) -> Result<(), BackendError> {
        if others.iter().any(|other| other.name == self.name) {
            return Err(BackendError::DuplicateName(self.name.clone()));
        }
        if let Some(device) = self.device
            && let Some(first) = others.iter().find(|other| other.device == Some(device))
        {
            return Err(BackendError::SamePlace {
                other: self.name.clone(),
                first: first.name.clone(),
                place: format!("the device {}", device.hctl),
            });
        }
        let Some(place) = &self.place else { return Ok(()) };
        match others.iter().find(|other| other.place.as_ref() == Some(place)) {
            None => Ok(()),
            Some(first) => Err(BackendError::SamePlace {
                other: self.name.clone(),
                first: first.name.clone(),
                place: place.clone(),
            }),
        }
    }

    /// Its kind, for reports.
    pub fn kind(&self) -> PathKind {
        match *self.transport {
            AnyPath::Emulated(_) => PathKind::Emulated,
            #[cfg(feature = "iscsi")]
            AnyPath::Iscsi(_) => PathKind::Iscsi,
            AnyPath::Null(_) => PathKind::Null,
            AnyPath::Sg(_) => PathKind::Sg,
        }
    }

    /// Host, channel, target and LUN of a host device.
    pub fn hctl(&self) -> Option<String> {
        match &*self.transport {
            AnyPath::Sg(path) => path.hctl(),
            _ => None,
        }
    }

    /// The nodes of a host device.
    pub fn devices(&self) -> Vec<String> {
        match &*self.transport {
            AnyPath::Sg(path) => path.devices(),
            _ => Vec::new(),
        }
    }
}

/// The node that an address names, where it names one.
pub fn node_of(address: &str) -> Option<PathBuf> {
    address.starts_with("/dev/").then(|| PathBuf::from(address))
}

/// The device behind a node; `None` where it may come later. One that somebody else holds is
/// refused.
fn free_device(name: &str, node: &Path) -> Result<Option<Device>, BackendError> {
    let roots = Roots::default();
    let device = match Device::of_node(&roots, node) {
        Ok(device) => device,
        // Whether it is there and may be opened is the path's state, which changes.
        Err(NodeError::Missing { .. }) => return Ok(None),
        Err(source) => return Err(BackendError::Node { name: name.to_owned(), source }),
    };
    match held_or_claimed(&roots, &device) {
        Some(held) => Err(BackendError::Held { name: name.to_owned(), held }),
        None => Ok(Some(device)),
    }
}

/// What `config`'s paths are opened with.
pub fn open_options(config: &Config, mode: OpenMode) -> OpenOptions {
    OpenOptions {
        mode,
        iscsi: IscsiSettings {
            initiator_name: config.iscsi.initiator_name.clone(),
            identity: identity(&config.backend).unwrap_or_else(passing_identity),
            secret_file: config.iscsi.secret_file.clone(),
            relogin_is_proof: match config.iscsi.relogin_is_proof {
                config::ReloginIsProof::Auto => ReloginIsProof::Auto,
                config::ReloginIsProof::Yes => ReloginIsProof::Yes,
                config::ReloginIsProof::No => ReloginIsProof::No,
            },
        },
        sg: SgSettings { path_timeout: config.lun.path_timeout, direct_io: false },
    }
}

/// What tells this backend from others at an array, and stays the same when it is started again;
/// `None` where nothing does.
pub fn identity(backend: &config::Backend) -> Option<String> {
    if !backend.identity.is_empty() {
        return Some(backend.identity.clone());
    }
    match &backend.listen {
        Some(Listen::Path(path) | Listen::Activated { path, .. }) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Some(path.to_string_lossy().into_owned())
        }
        Some(Listen::Fd(_)) | None => None,
    }
}

/// Nothing here outlives the process, and two such backends must not be taken for one.
fn passing_identity() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos());
    format!("process {} of {now}", std::process::id())
}
