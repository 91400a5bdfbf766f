//! What a configuration that was read again means for the paths there are. Pure.

use std::collections::BTreeSet;

use crate::backend::BackendError;
use crate::backend::members::Listed;
use crate::config::{Config, PathConfig};

/// A path there is.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Its address, without secrets.
    pub address: String,
    /// It is being removed.
    pub leaving: bool,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Paths to open, with the names they will have.
    pub add: Vec<(String, PathConfig)>,
    /// Names of those to remove.
    pub remove: Vec<String>,
    /// Old and new names.
    pub rename: Vec<(String, String)>,
    /// Settings that cannot change while the backend runs.
    pub kept: Vec<String>,
}

/// Compares. What a person has added or removed by the control socket is left alone as far as the
/// file says nothing of it: only what the file listed before is removed, and all that it lists now
/// is there then.
pub fn plan(old: &Config, new: &Config, known: &[Known]) -> Result<Plan, BackendError> {
    let (before, after) = (listed(&old.paths)?, listed(&new.paths)?);
    let mut plan = Plan { kept: kept(old, new), ..Plan::default() };
    let there = |address: &str| known.iter().find(|known| known.address == address);
    for path in &after {
        match there(&path.address) {
            Some(known) if known.leaving => {
                return Err(BackendError::Leaving(known.name.clone()));
            }
            Some(known) if known.name != path.name => {
                plan.rename.push((known.name.clone(), path.name.clone()));
            }
            Some(_) => {}
            None => plan.add.push((path.name.clone(), path.config.clone())),
        }
        let earlier = before.iter().find(|earlier| earlier.address == path.address);
        if let (Some(earlier), Some(_)) = (earlier, there(&path.address)) {
            plan.kept.extend(kept_of_path(earlier, path));
        }
    }
    let now: BTreeSet<&str> = after.iter().map(|path| path.address.as_str()).collect();
    for path in before.iter().filter(|path| !now.contains(path.address.as_str())) {
        let there = there(&path.address).filter(|known| !known.leaving);
        plan.remove.extend(there.map(|known| known.name.clone()));
    }
    names_differ(&plan, known)?;
    Ok(plan)
}

fn listed(paths: &[PathConfig]) -> Result<Vec<Listed>, BackendError> {
    paths.iter().map(Listed::of).collect()
}

/// Two paths of one name could not be told apart afterwards.
fn names_differ(plan: &Plan, known: &[Known]) -> Result<(), BackendError> {
    let goes = |name: &String| plan.remove.contains(name);
    let renamed = |name: &String| plan.rename.iter().find(|(from, _)| from == name);
    let stay = known.iter().filter(|known| !goes(&known.name));
    let names = stay.map(|known| renamed(&known.name).map_or(&known.name, |(_, to)| to));
    let mut seen = BTreeSet::new();
    for name in names.chain(plan.add.iter().map(|(name, _)| name)) {
        if !seen.insert(name) {
            return Err(BackendError::DuplicateName(name.clone()));
        }
    }
    Ok(())
}

/// Settings that are read once, at the start.
fn kept(old: &Config, new: &Config) -> Vec<String> {
    let (backend, new_backend) = (&old.backend, &new.backend);
    let (lun, new_lun) = (&old.lun, &new.lun);
    let compared = [
        ("backend.socket", backend.listen != new_backend.listen),
        ("backend.control", backend.control != new_backend.control),
        ("backend.socket_group", backend.socket_group != new_backend.socket_group),
        ("backend.socket_mode", backend.socket_mode != new_backend.socket_mode),
        ("backend.identity", backend.identity != new_backend.identity),
        ("backend.state_dir", backend.state_dir != new_backend.state_dir),
        ("backend.request_queues", backend.request_queues != new_backend.request_queues),
        ("backend.stop_deadline", backend.stop_deadline != new_backend.stop_deadline),
        ("lun.wwid", lun.wwid != new_lun.wwid),
        ("lun.explicit_alua", lun.explicit_alua != new_lun.explicit_alua),
        ("lun.hedged_reads", lun.hedged_reads != new_lun.hedged_reads),
        ("lun.hedge_budget", lun.hedge_budget != new_lun.hedge_budget),
        ("lun.hedge_percentile", lun.hedge_percentile != new_lun.hedge_percentile),
        ("[iscsi]", old.iscsi != new.iscsi),
        ("[discovery]", old.discovery != new.discovery),
        ("metrics.listen", old.metrics != new.metrics),
        ("[confinement]", old.confinement != new.confinement),
    ];
    compared.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect()
}

/// The same for one path.
fn kept_of_path(old: &Listed, new: &Listed) -> Vec<String> {
    let (name, old, new) = (&new.name, &old.config, &new.config);
    let compared = [
        // What is shown of both addresses is the same, so it is the secret.
        ("secret", old.address != new.address),
        ("group", old.group != new.group),
        ("preferred", old.preferred != new.preferred),
        ("direct_io", old.direct_io != new.direct_io),
    ];
    let differ = compared.iter().filter(|(_, differs)| *differs);
    differ.map(|(setting, _)| format!("{setting} of path {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use std::path::Path;

    fn config(text: &str) -> Config {
        file::parse(Path::new("lun.toml"), text).unwrap()
    }

    fn paths(paths: &[(&str, &str)]) -> Config {
        let path = |(name, address): &(&str, &str)| {
            format!("[[path]]\nname = \"{name}\"\naddress = \"{address}\"\n")
        };
        config(&paths.iter().map(path).collect::<String>())
    }

    fn known(paths: &[(&str, &str)]) -> Vec<Known> {
        let known = |(name, address): &(&str, &str)| Known {
            name: (*name).to_owned(),
            address: (*address).to_owned(),
            leaving: false,
        };
        paths.iter().map(known).collect()
    }

    #[test]
    fn plan_adds_removes_and_renames() {
        let old = paths(&[("a", "null:1G"), ("b", "null:2G"), ("", "null:3G")]);
        let new = paths(&[("b", "null:1G"), ("c", "null:4G"), ("", "null:3G")]);
        let there = known(&[("a", "null:1G"), ("b", "null:2G"), ("null-3G", "null:3G")]);
        let plan = plan(&old, &new, &there).unwrap();
        let added: Vec<_> = plan.add.iter().map(|(name, path)| (&**name, &*path.address)).collect();
        assert_eq!(added, [("c", "null:4G")]);
        assert_eq!(plan.remove, ["b"]);
        assert_eq!(plan.rename, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(plan.kept, [] as [&str; 0]);
    }

    #[test]
    fn plan_leaves_alone_what_a_person_added_and_brings_back_what_one_removed() {
        let file = paths(&[("a", "null:1G"), ("b", "null:2G")]);
        let there = known(&[("a", "null:1G"), ("by-hand", "null:9G")]);
        let plan = plan(&file, &file, &there).unwrap();
        let added: Vec<_> = plan.add.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((added, plan.remove.len(), plan.rename.len()), (vec!["b"], 0, 0));
    }

    #[test]
    fn plan_refuses_one_name_for_two_paths() {
        let old = paths(&[("a", "null:1G")]);
        let new = paths(&[("by-hand", "null:1G")]);
        let there = known(&[("a", "null:1G"), ("by-hand", "null:9G")]);
        let error = plan(&old, &new, &there).unwrap_err();
        assert!(error.to_string().starts_with("path by-hand: the name is given twice"), "{error}");
        // Names that change places are no such thing.
        let (old, new) = (paths(&[("a", "null:1G"), ("b", "null:2G")]), [("b", "null:1G")]);
        let new = paths(&[new[0], ("a", "null:2G")]);
        let there = known(&[("a", "null:1G"), ("b", "null:2G")]);
        assert_eq!(plan(&old, &new, &there).unwrap().rename.len(), 2);
    }

    #[test]
    fn plan_refuses_a_path_that_is_still_leaving() {
        let file = paths(&[("a", "null:1G")]);
        let mut there = known(&[("a", "null:1G")]);
        there[0].leaving = true;
        let error = plan(&file, &file, &there).unwrap_err();
        assert!(error.to_string().contains("still being removed"), "{error}");
    }

    #[test]
    fn plan_names_what_cannot_change_now() {
        let old = config("[[path]]\naddress = \"null:1G\"\nname = \"a\"\n");
        let new = config(
            "[backend]\nsocket = \"/run/x\"\nstop_deadline = 9.0\n[iscsi]\nrelogin_is_proof = true\n\
             [lun]\nexplicit_alua = true\niopolicy = \"numa\"\n\
             [[path]]\naddress = \"null:1G\"\nname = \"a\"\ngroup = \"3\"\n",
        );
        let plan = plan(&old, &new, &known(&[("a", "null:1G")])).unwrap();
        let kept = [
            "backend.socket",
            "backend.stop_deadline",
            "lun.explicit_alua",
            "[iscsi]",
            "group of path a",
        ];
        assert_eq!(plan.kept, kept);
        // A secret is told by no one, and its change is.
        let secret = |word: &str| {
            paths(&[("a", &format!("iscsi://u%{word}@192.0.2.1/iqn.2003-01.org.x:y/0"))])
        };
        let there = known(&[("a", &Listed::of(&secret("one").paths[0]).unwrap().address)]);
        assert!(!there[0].address.contains("one"), "{}", there[0].address);
        let plan = super::plan(&secret("one"), &secret("two"), &there).unwrap();
        assert_eq!(plan.kept, ["secret of path a"]);
    }
}
