//! `--check`: asks every path who it is, prints what would be served, and leaves no trace.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use super::discovery::HostNews;
use super::discovery::scan::{Rules, Scanner};
use super::members::{Member, open_options};
use super::{BackendError, reports, run};
use crate::config::{Config, PathConfig};
use crate::engine::Manager;
use crate::multipath::Core;
use crate::path::any::{AnyPath, OpenMode, OpenOptions};
use crate::path::sg::host::tuning::warnings;
use crate::path::sg::host::{Device, DeviceId, Roots};

/// How often the paths' answers are looked for.
const STEP: Duration = Duration::from_millis(2);

/// Tries the configuration and prints the LUN and its paths to `out`.
pub fn check(config: &Config, out: &mut impl Write) -> Result<(), BackendError> {
    let options = open_options(config, OpenMode::Check);
    let mut members = Member::open_all(&config.paths, &options)?;
    if let Some(rules) = Rules::of(config) {
        let wwid = rules.wwid.clone();
        let found = found(rules, &members, &options);
        members.extend(found);
        if members.is_empty() {
            let none = format!(": discovery found no free disk of this host that is {wwid}");
            return Err(BackendError::NoUsablePath(none));
        }
    }
    if members.is_empty() {
        return Err(BackendError::NoPaths);
    }
    let start = Instant::now();
    let mut manager = Manager::new(run::settings(config), run::deadlines(config), start)
        .map_err(BackendError::system("make a mailbox"))?;
    for member in &members {
        manager
            .add(member.name.clone(), member.placement, member.transport.clone(), start)
            .map_err(BackendError::system("open a path's channel"))?;
    }
    ask(&mut manager, start + config.lun.path_timeout * 2);
    if config.lun.wwid.is_none() {
        same_lun(manager.core())?;
    }
    print(&manager, &members, out)
        .and_then(|()| warn(&Roots::default(), &members, out))
        .map_err(BackendError::system("print"))?;
    if manager.core().paths().any(|path| path.is_usable()) {
        return Ok(());
    }
    let now = Instant::now();
    let reason =
        |path: &crate::multipath::path::Path| format!("{}: {}", path.name, path.explanation(now));
    let reasons: Vec<String> = manager.core().paths().map(reason).collect();
    Err(BackendError::NoUsablePath(format!(" ({})", reasons.join("; "))))
}

/// The paths that discovery would find now.
fn found(rules: Rules, members: &[Member], options: &OpenOptions) -> Vec<Member> {
    let used: BTreeSet<DeviceId> = members.iter().filter_map(|member| member.device).collect();
    let open = |news| {
        let HostNews::Found(candidate) = news else { return None };
        let (address, name) = (candidate.address, candidate.name);
        let config = PathConfig { address, name, ..PathConfig::default() };
        Member::open(&config, options)
            .and_then(|member| member.differs(members).map(|()| member))
            .inspect_err(|why| log::warn!("discovery: {} is not used: {why}", config.name))
            .ok()
    };
    let news = Scanner::new(Roots::default(), Some(rules)).scan(&used);
    news.into_iter().filter_map(open).collect()
}

/// The host's timers that would keep commands for long, each once.
fn warn(roots: &Roots, members: &[Member], out: &mut impl Write) -> std::io::Result<()> {
    let devices = members.iter().filter_map(|member| Device::of_hctl(roots, member.device?.hctl));
    let warnings: BTreeSet<String> = devices
        .flat_map(|device| warnings(roots, &device))
        .map(|warning| warning.to_string())
        .collect();
    warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

/// Turns the manager until every path has answered, or the time is up.
fn ask(manager: &mut Manager<AnyPath>, until: Instant) {
    loop {
        let now = Instant::now();
        manager.turn(now);
        if now >= until || !manager.core().paths().any(|path| path.is_checking()) {
            return;
        }
        std::thread::sleep(STEP);
    }
}

/// Do all paths that told a name lead to the same logical unit?
pub fn same_lun(core: &Core) -> Result<(), BackendError> {
    let named = || core.paths().filter_map(|path| Some((path, path.wwid.as_ref()?)));
    let Some((first, first_wwid)) = named().next() else { return Ok(()) };
    match named().find(|(_, wwid)| *wwid != first_wwid) {
        None => Ok(()),
        Some((other, other_wwid)) => Err(BackendError::DifferentLuns {
            first: first.name.clone(),
            first_wwid: first_wwid.to_string(),
            other: other.name.clone(),
            other_wwid: other_wwid.to_string(),
        }),
    }
}

fn print(
    manager: &Manager<AnyPath>,
    members: &[Member],
    out: &mut impl Write,
) -> std::io::Result<()> {
    if let Some(face) = manager.core().face() {
        let (vendor, product, revision) = face.vendor();
        writeln!(out, "{} {vendor},{product} {revision}", face.wwid)?;
        writeln!(
            out,
            "size={} bytes, {} blocks of {}, serial \"{}\"",
            face.capacity.bytes(),
            face.capacity.blocks,
            face.capacity.block_size,
            face.serial
        )?;
    }
    for path in reports::paths(manager, members, Instant::now()) {
        let group = path.group.map_or_else(|| "-".to_owned(), |group| group.to_string());
        writeln!(
            out,
            "path {}: {}, {}, group {group}: {}",
            path.name, path.state, path.access_state, path.reason
        )?;
    }
    Ok(())
}
