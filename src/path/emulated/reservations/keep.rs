//! What APTPL keeps: registrations and reservation through a power loss.
//!
//! An image has them beside it in `IMAGE.reservations`, as the parameter data of READ FULL STATUS,
//! which says all of it. The file is there as long as there is something to keep.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::State;
use crate::path::emulated::image::ImageError;
use crate::scsi::reservation::FullStatus;

/// Where it is kept.
#[derive(Debug)]
pub(in crate::path::emulated) enum Keep {
    /// There is no place that lasts: APTPL is refused.
    Nowhere,
    /// With the unit, which ends with its ports and so never loses its power before.
    WithUnit,
    /// In a file.
    File(PathBuf),
}

impl Keep {
    /// The file beside an image, and what it holds.
    pub(in crate::path::emulated) fn beside(image: &Path) -> Result<(Self, State), ImageError> {
        let mut file = image.as_os_str().to_owned();
        file.push(".reservations");
        let file = PathBuf::from(file);
        let state = match fs::read(&file) {
            Ok(data) => FullStatus::parse(&data)
                .and_then(State::restored)
                .ok_or_else(|| ImageError::ReservationsUnreadable(file.clone()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(ImageError::Host { path: file, error }),
        };
        Ok((Keep::File(file), state))
    }

    /// True where there is a place.
    pub(super) fn can(&self) -> bool {
        !matches!(self, Keep::Nowhere)
    }

    /// Goes over from one state to the next. When this returns, the next one lasts.
    pub(super) fn store(&self, before: &State, after: &State) -> io::Result<()> {
        let Keep::File(file) = self else { return Ok(()) };
        let (old, new) = (before.kept(), after.kept());
        if old == new {
            return Ok(());
        }
        match new {
            Some(status) => {
                // Whole or not at all, also when the host goes down meanwhile.
                let mut draft = file.clone().into_os_string();
                draft.push(".new");
                fs::write(&draft, status.bytes())?;
                File::open(&draft)?.sync_all()?;
                fs::rename(&draft, file)?;
            }
            None => fs::remove_file(file)?,
        }
        // The folder has the file's name, and with it whether the file is there.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}
