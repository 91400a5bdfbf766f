//! The devices behind paths: which it is now, and how it is doing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::HostNews;
use crate::path::sg::host::holders::held;
use crate::path::sg::host::uevent::Attention;
use crate::path::sg::host::watch::{Condition, Sight, Watch};
use crate::path::sg::host::{Device, DeviceId, Hctl, Roots};

#[derive(Debug)]
struct One {
    node: PathBuf,
    watch: Option<Watch>,
    /// What was told last.
    condition: Condition,
    /// What the kernel's ALUA handler thought at the last look.
    access: Option<String>,
    /// Who was found to hold the device besides us, and was told of.
    held: Option<String>,
}

/// All paths over host devices, by their names.
#[derive(Debug)]
pub struct Watched {
    roots: Roots,
    paths: BTreeMap<String, One>,
}

impl Watched {
    /// Nothing yet.
    pub fn new(roots: Roots) -> Self {
        Watched { roots, paths: BTreeMap::new() }
    }

    /// A path over `node`. Until something else is seen it counts as running: its first questions
    /// find out anyway.
    pub fn add(&mut self, path: String, node: PathBuf) -> Vec<HostNews> {
        let one =
            One { node, watch: None, condition: Condition::Running, access: None, held: None };
        self.paths.insert(path, one);
        self.resolve()
    }

    /// The path is gone.
    pub fn remove(&mut self, path: &str) {
        self.paths.remove(path);
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The devices in use.
    pub fn devices(&self) -> BTreeSet<DeviceId> {
        self.paths.values().filter_map(|one| Some(one.watch.as_ref()?.id())).collect()
    }

    /// The paths over this device.
    pub fn at(&self, hctl: Hctl) -> Vec<String> {
        let leads = |one: &One| one.watch.as_ref().is_some_and(|watch| watch.id().hctl == hctl);
        self.paths.iter().filter(|(_, one)| leads(one)).map(|(path, _)| path.clone()).collect()
    }

    /// Finds the devices of nodes that lead to none, or to one that has been removed.
    pub fn resolve(&mut self) -> Vec<HostNews> {
        let mut news = Vec::new();
        for (path, one) in &mut self.paths {
            if one.watch.as_ref().is_some_and(|watch| watch.device().is_there()) {
                continue;
            }
            let Ok(device) = Device::of_node(&self.roots, &one.node) else { continue };
            news.push(HostNews::Leads(path.clone(), device.id));
            let watch = Watch::new(&self.roots, device);
            one.access = watch.look().access;
            one.watch = Some(watch);
        }
        news
    }

    /// Somebody may have taken a device after its path was opened: multipathd does when a device
    /// comes back. What is new about that, as path and holder; the path serves on, for to stop it
    /// could stop the guest, and the other may never write.
    pub fn warnings(&mut self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        for (path, one) in &mut self.paths {
            let Some(watch) = &one.watch else { continue };
            let now = held(&self.roots, watch.device()).map(|held| held.to_string());
            if let Some(text) = now.as_ref().filter(|_| now != one.held) {
                warnings.push((path.clone(), text.clone()));
            }
            one.held = now;
        }
        warnings
    }

    /// Looks at each; what is new.
    pub fn look(&mut self) -> Vec<HostNews> {
        let mut news = Vec::new();
        for (path, one) in &mut self.paths {
            let Some(watch) = &one.watch else { continue };
            let Sight { condition, access } = watch.look();
            if condition == Condition::Gone {
                one.watch = None;
            } else if access != one.access {
                one.access = access;
                news.push(HostNews::Attention(path.clone(), Attention::Access));
            }
            if condition != one.condition {
                one.condition = condition.clone();
                news.push(HostNews::Condition(path.clone(), condition));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::sg::host::testing::Tree;

    /// A path over a device of the tree. Device nodes cannot be made in a tree, so it is put behind
    /// the path by hand.
    fn watched(tree: &Tree) -> (Watched, PathBuf) {
        let directory = tree.disk("1:0:0:0", "pci0000:00", 3, "sdc");
        let mut watched = Watched::new(tree.roots.clone());
        assert!(watched.add("a".to_owned(), tree.roots.dev.join("sg3")).is_empty());
        lead(&mut watched, tree);
        (watched, directory)
    }

    fn lead(watched: &mut Watched, tree: &Tree) {
        let device = Device::of_hctl(&tree.roots, "1:0:0:0".parse().unwrap()).unwrap();
        watched.paths.get_mut("a").unwrap().watch = Some(Watch::new(&tree.roots, device));
    }

    #[test]
    fn look_tells_only_what_is_new() {
        let tree = Tree::new();
        let (mut watched, directory) = watched(&tree);
        assert!(watched.look().is_empty(), "running is what everybody thinks");
        std::fs::write(directory.join("state"), "blocked\n").unwrap();
        let news = watched.look();
        assert!(
            matches!(&news[..], [HostNews::Condition(path, Condition::Blocked(_))] if path == "a")
        );
        assert!(watched.look().is_empty());
        std::fs::write(directory.join("state"), "running\n").unwrap();
        assert_eq!(watched.look(), [HostNews::Condition("a".into(), Condition::Running)]);
    }

    #[test]
    fn look_at_a_device_that_went_tells_so_once_and_waits_for_the_next() {
        let tree = Tree::new();
        let (mut watched, directory) = watched(&tree);
        assert_eq!(watched.devices().len(), 1);
        std::fs::write(directory.join("state"), "deleted\n").unwrap();
        assert_eq!(watched.look(), [HostNews::Condition("a".into(), Condition::Gone)]);
        assert!(watched.look().is_empty() && watched.devices().is_empty());
        std::fs::write(directory.join("state"), "running\n").unwrap();
        lead(&mut watched, &tree);
        assert_eq!(watched.look(), [HostNews::Condition("a".into(), Condition::Running)]);
        watched.remove("a");
        assert!(watched.is_empty());
    }

    #[test]
    fn warnings_tell_once_of_somebody_who_came_later() {
        let tree = Tree::new();
        let (mut watched, directory) = watched(&tree);
        assert!(watched.warnings().is_empty());
        let holder = directory.join("block/sdc/holders/md0");
        std::fs::create_dir_all(&holder).unwrap();
        let warnings = watched.warnings();
        assert_eq!(warnings[0].0, "a");
        assert!(warnings[0].1.contains("held by the RAID md0"), "{warnings:?}");
        assert!(watched.warnings().is_empty(), "it has been told");
        std::fs::remove_dir(&holder).unwrap();
        assert!(watched.warnings().is_empty());
        std::fs::create_dir(&holder).unwrap();
        assert_eq!(watched.warnings().len(), 1);
    }

    #[test]
    fn look_passes_on_what_the_alua_handler_heard() {
        let tree = Tree::new();
        let (mut watched, directory) = watched(&tree);
        std::fs::write(directory.join("access_state"), "active/optimized\n").unwrap();
        lead(&mut watched, &tree);
        watched.look();
        std::fs::write(directory.join("access_state"), "standby\n").unwrap();
        assert_eq!(watched.look(), [HostNews::Attention("a".into(), Attention::Access)]);
        assert!(watched.look().is_empty());
        assert_eq!(watched.at("1:0:0:0".parse().unwrap()), ["a"]);
        assert!(watched.at("2:0:0:0".parse().unwrap()).is_empty());
    }
}
