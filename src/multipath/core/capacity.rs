//! The LUN has grown: the guest is told once, when all usable paths tell the new size. Before that
//! it keeps the old one, since a command for the new blocks could go over any path.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::events::{Action, News};
use crate::ids::PathId;
use crate::lun::Face;
use crate::multipath::path::Path;
use crate::multipath::state::PathState;
use crate::scsi::Asc;

impl Core {
    /// A path tells a larger size than the guest knows: the others are asked.
    pub(super) fn grown(&mut self, id: PathId, blocks: u64, now: Instant) {
        for path in self.paths.values_mut() {
            if path.id != id && path.is_usable() && path.blocks != Some(blocks) {
                path.check.full_soon(now);
            }
        }
        if let Some(path) = self.paths.get(&id) {
            let name = path.name.clone();
            self.actions.push(Action::Tell(News::Grown { name, blocks }));
        }
    }

    /// A port that was not active may have told no size, or an old one, and another path's answer can
    /// make it active: it is asked before it carries a command for blocks that it may not have.
    pub(super) fn doubt_short_paths(&mut self, now: Instant) {
        let Some(blocks) = self.face.as_ref().map(|face| face.capacity.blocks) else { return };
        let short = |path: &&Path| path.is_usable() && path.blocks.is_none_or(|own| own < blocks);
        let short: Vec<PathId> = self.paths.values().filter(short).map(|path| path.id).collect();
        for id in short {
            self.change(id, PathState::Checking, "its size is read again before it is used", now);
            if let Some(path) = self.paths.get_mut(&id) {
                // Not at once for ever: an array may say that it is active and tell no size.
                path.check.doubtful(now);
            }
        }
    }

    /// Publishes a larger size that all usable paths tell.
    pub(super) fn agree_on_size(&mut self) {
        let Some(face) = &self.face else { return };
        let mut sizes = self.paths.values().filter(|path| path.is_usable()).map(|path| path.blocks);
        let Some(Some(blocks)) = sizes.next() else { return };
        if blocks <= face.capacity.blocks || !sizes.all(|size| size == Some(blocks)) {
            return;
        }
        let mut grown = Face::clone(face);
        grown.capacity = face.capacity.with_blocks(blocks);
        self.face = Some(Arc::new(grown));
        self.dirty = true;
        self.actions.push(Action::Attention(Asc::CAPACITY_DATA_HAS_CHANGED));
        self.actions.push(Action::Resized);
        self.actions.push(Action::Tell(News::Resized { blocks }));
    }
}
