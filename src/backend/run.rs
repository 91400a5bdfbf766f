//! From a configuration to a running backend, and back down.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::BackendError;
use super::announce::Announcer;
use super::desk::Desk;
use super::discovery::Host;
use super::discovery::scan::Rules;
use super::fence::Bounds;
use super::history::History;
use super::members::{Member, identity, open_options};
use super::opener::Opener;
use super::reload::Reloads;
use super::reports;
use super::reservation::Reservations;
use super::takeover::{self, Taken};
use super::worker::Worker;
use crate::config::reread::CommandLine;
use crate::config::{Backend, Config, Listen};
use crate::confine::{self, Class, Foreman};
use crate::control::{Server, mail};
use crate::engine::mailbox::mailbox;
use crate::engine::{Deadlines, Hedging, Lanes, Manager, numa};
use crate::front::{End, Endpoint, FrontConfig, Listener};
use crate::limits::{HEDGE_SAMPLES_MIN, SG_TIMEOUT_MARGIN};
use crate::metrics;
use crate::multipath::{Aftermath, Event, Remains, Settings};
use crate::path::any::{AnyPath, OpenMode};
use crate::path::sg::host::Roots;
use crate::socket::{Access, Gift, SocketFile};
use crate::systemd::notify::Notifier;

/// How long the start waits to hear from every path whether they lead to the same logical unit.
/// A path that takes longer is judged when it answers.
const AGREEMENT_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until told to stop: by a signal, by the control socket, or by the end of an inherited
/// connection. `source` is where the configuration file is read again.
pub fn run(config: &Config, source: &CommandLine, bounds: Bounds) -> Result<(), BackendError> {
    let foreman = Foreman::start().map_err(BackendError::system("start a thread"))?;
    let taken = takeover::socket(config)?;
    let options = open_options(config, OpenMode::Serve);
    let members = Member::open_all(&config.paths, &options)?;
    let rules = Rules::of(config);
    if members.is_empty() && rules.is_none() {
        return Err(BackendError::NoPaths);
    }
    let (told_to_quit, quit) = quits()?;
    let reloads = reloads(config, source, &bounds, &foreman)?;
    let notifier = notifier()?;
    let mut manager = manager(config, &members)?;
    let hub = manager.hub().clone();
    let (orders_post, orders) = mailbox().map_err(BackendError::system("make a mailbox"))?;
    let (events, control_mail) = mail().map_err(BackendError::system("make a mailbox"))?;
    // All sockets first: nothing is started where one of them cannot be had.
    let control_file = control_file(&config.backend)?;
    let listener = listener(&config.backend, taken)?;
    let metrics = metrics(config)?;
    // Who had the sockets before has ended by now.
    let aftermath = aftermath(&listener, config, &members, rules.is_some());
    manager.apply(aftermath, Instant::now());
    let stop = eventfd()?;
    let (agreed, agreement) = channel();
    let (news_post, host_news) = mailbox().map_err(BackendError::system("make a mailbox"))?;
    let (opened_post, opened) = mailbox().map_err(BackendError::system("make a mailbox"))?;
    let host = Host::new(Roots::default(), rules, news_post, duplicate(&stop)?, foreman.clone())
        .map_err(BackendError::system("start a thread"))?;
    let worker = Worker {
        manager,
        members,
        reservations: reservations(&config.backend)?,
        opener: Opener::new(options, bounds, opened_post, foreman),
        opened,
        host,
        host_news,
        reloads,
        announcer: Announcer::new(notifier.clone(), Instant::now()),
        history: History::new(Instant::now()),
        orders,
        events: control_file.is_some().then_some(events),
        quit,
        stop: duplicate(&stop)?,
        agreed: Some(agreed),
        wwid_given: config.lun.wwid.is_some(),
    };
    let manager = worker.start().map_err(BackendError::system("start a thread"))?;
    agreed_on_one_lun(&agreement)?;
    let desk = Desk { orders: orders_post, about: reports::backend(&config.backend) };
    if let Some(metrics) = &metrics {
        metrics.start(name(&config.backend), Box::new(desk.clone()))?;
    }
    let gift = listener.gift().map_err(BackendError::system("duplicate a socket"))?;
    let control = control_file
        .map(|file| Server::start(file, control_mail, Box::new(desk), gift.clone()))
        .transpose()
        .map_err(BackendError::system("start a thread"))?;
    let served = serve(&listener, config, hub, told_to_quit.as_fd());
    if let Some(notifier) = notifier {
        notifier.stopping();
    }
    drop(control);
    // It listens to this until it ends; if it does not, the process does.
    let _ = stop.write(1);
    let remains = manager.join().unwrap_or(Remains::Unknown);
    let orderly = served.as_ref().is_ok_and(|end| is_orderly(*end, remains));
    close(listener, gift, orderly);
    served.map(|_| ())
}

/// Serves front ends, when all else is started: the rest is that, and the end.
fn serve<F: Lanes>(
    listener: &Listener,
    config: &Config,
    lanes: Arc<F>,
    told_to_quit: BorrowedFd<'_>,
) -> Result<End, BackendError> {
    // Read once, while files may be read.
    numa::host();
    confine::enter(Class::Main);
    listener.serves();
    crate::front::serve(listener, &front(config), lanes, told_to_quit)
        .map_err(BackendError::system("go on serving"))
}

/// Closes the socket when nothing is under way any more, and says so to whoever has it now.
fn close(listener: Listener, gift: Option<Gift>, orderly: bool) {
    if !orderly {
        log::warn!("a write may still be executed: the next start waits as after a crash");
        listener.leave_behind();
    } else if let Some(gift) = gift {
        gift.has_ended();
    }
}

/// True where a successor has nothing to fear but what the front end's in-flight region tells it.
fn is_orderly(end: End, remains: Remains) -> bool {
    let known = match remains {
        Remains::Nothing => true,
        // A front end that went may have taken the region along.
        Remains::GivenBack => end.connected,
        Remains::Unknown => false,
    };
    end.complete && known
}

/// What the front is told.
fn front(config: &Config) -> FrontConfig {
    FrontConfig {
        request_queues: config.backend.request_queues,
        stop_deadline: config.backend.stop_deadline,
    }
}

/// Waits a while for the paths' word on where they lead.
fn agreed_on_one_lun(agreement: &Receiver<Result<(), BackendError>>) -> Result<(), BackendError> {
    match agreement.recv_timeout(AGREEMENT_PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            log::info!("not every path has answered yet");
            Ok(())
        }
    }
}

/// A manager that asks all of them who they are.
fn manager(config: &Config, members: &[Member]) -> Result<Manager<AnyPath>, BackendError> {
    let now = Instant::now();
    let mut manager = Manager::new(settings(config), deadlines(config), now)
        .map_err(BackendError::system("make a mailbox"))?;
    manager.register_paths(now);
    for member in members {
        manager
            .add(member.name.clone(), member.placement, member.transport.clone(), now)
            .map_err(BackendError::system("open a path's channel"))?;
    }
    Ok(manager)
}

/// How long what a process before this one sent may still be executed. Which paths it had is not
/// known; it is taken to have had those that there are now.
fn aftermath(listener: &Listener, config: &Config, members: &[Member], discovers: bool) -> Event {
    let quiesce = config.lun.write_quiesce;
    let found = discovers.then(|| config.lun.path_timeout + SG_TIMEOUT_MARGIN + quiesce);
    let known = members.iter().map(|member| member.transport.aftermath(quiesce));
    let time = known.chain(found).max().unwrap_or_default();
    match listener.follows_a_crash() {
        true => Event::Aftermath(Aftermath::Crash, time),
        false => Event::Aftermath(Aftermath::Orderly, time),
    }
}

/// What the core is told.
pub fn settings(config: &Config) -> Settings {
    Settings {
        wwid: config.lun.wwid.as_ref().map(|wwid| wwid.as_str().to_owned()),
        policy: reports::policy(config.lun.iopolicy),
        no_path_retry: reports::core_no_path_retry(config.lun.no_path_retry),
        write_quiesce: config.lun.write_quiesce,
        failback: reports::core_failback(config.lun.failback),
        explicit_alua: config.lun.explicit_alua,
    }
}

/// What the lanes are told.
pub fn deadlines(config: &Config) -> Deadlines {
    Deadlines {
        path_timeout: config.lun.path_timeout,
        command_deadline: config.lun.command_deadline,
        hedging: config.lun.hedged_reads.then(|| Hedging {
            budget: config.lun.hedge_budget,
            permille: (config.lun.hedge_percentile * 10.0).round() as u32,
            samples_min: HEDGE_SAMPLES_MIN,
        }),
    }
}

fn control_file(backend: &Backend) -> Result<Option<SocketFile>, BackendError> {
    let Some(path) = &backend.control else { return Ok(None) };
    let access = Access { group: &backend.socket_group, ..Access::default() };
    Ok(Some(SocketFile::bind(path, access)?))
}

fn metrics(config: &Config) -> Result<Option<metrics::Server>, BackendError> {
    let bind = |listen| metrics::Server::bind(listen, &config.backend.socket_group);
    Ok(config.metrics.as_ref().map(bind).transpose()?)
}

/// What the backend is called in metrics: its control socket's name without the ending, as
/// `mpathctl` calls it; else that of the vhost-user socket.
fn name(backend: &Backend) -> String {
    let listen = match &backend.listen {
        Some(Listen::Path(path) | Listen::Activated { path, .. }) => Some(path),
        _ => None,
    };
    let stem = backend.control.as_ref().or(listen).and_then(|path| path.file_stem());
    stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// Where front ends come in: the socket that was taken over, or the one of the configuration.
fn listener(backend: &Backend, taken: Option<Taken>) -> Result<Listener, BackendError> {
    if let (Some(taken), Some(Listen::Path(path))) = (taken, &backend.listen) {
        return Ok(Listener::own(SocketFile::adopt(path, taken.socket, taken.orderly)?));
    }
    let group = Some(backend.socket_group.clone()).filter(|group| !group.is_empty());
    let endpoint = match &backend.listen {
        Some(Listen::Path(path)) => {
            Endpoint::Path { path: path.clone(), mode: backend.socket_mode, group }
        }
        Some(Listen::Fd(fd) | Listen::Activated { fd, .. }) => Endpoint::Fd(*fd),
        // The options' parser has seen to it that there is one.
        None => Endpoint::Fd(-1),
    };
    Ok(Listener::open(&endpoint)?)
}

/// True where paths are found that nobody lists.
pub fn discovers(config: &Config) -> bool {
    Rules::of(config).is_some()
}

/// SIGHUP has the configuration read again. Where there is none it ends the process, as ever.
fn reloads(
    config: &Config,
    source: &CommandLine,
    bounds: &Bounds,
    foreman: &Foreman,
) -> Result<Reloads, BackendError> {
    let source = Some(source.clone()).filter(|source| source.file().is_some());
    let hangups = source.is_some().then(hangups).transpose()?;
    let options = open_options(config, OpenMode::Serve);
    Reloads::new(source, config, options, bounds.clone(), hangups, foreman.clone())
        .map_err(BackendError::system("make a mailbox"))
}

/// What becomes readable when the process is to end, and what makes it so. A pipe of sockets: what
/// a signal handler writes is one byte, too little for an eventfd.
fn quits() -> Result<(UnixStream, UnixStream), BackendError> {
    let (told_to_quit, quit) =
        UnixStream::pair().map_err(BackendError::system("make a socket pair"))?;
    on_signals(&quit, &[SIGTERM, SIGINT])?;
    Ok((told_to_quit, quit))
}

/// What SIGHUP writes to from now on.
fn hangups() -> Result<UnixStream, BackendError> {
    let (hangups, hangup) =
        UnixStream::pair().map_err(BackendError::system("make a socket pair"))?;
    // A handler must not wait: bytes that do not fit say nothing new.
    hangup.set_nonblocking(true).map_err(BackendError::system("make a socket pair"))?;
    on_signals(&hangup, &[SIGHUP])?;
    Ok(hangups)
}

/// The way to the service manager, if there is one.
fn notifier() -> Result<Option<Arc<Notifier>>, BackendError> {
    let notifier = Notifier::from_environment(&|name| std::env::var_os(name), std::process::id());
    Ok(notifier.map_err(BackendError::system("reach $NOTIFY_SOCKET"))?.map(Arc::new))
}

/// These signals write to `pipe`.
fn on_signals(pipe: &UnixStream, signals: &[i32]) -> Result<(), BackendError> {
    for signal in signals {
        pipe.try_clone()
            .and_then(|pipe| signal_hook::low_level::pipe::register(*signal, pipe))
            .map_err(BackendError::system("handle signals"))?;
    }
    Ok(())
}

/// What is remembered of the guest's reservations, where anything can be.
fn reservations(backend: &Backend) -> Result<Reservations, BackendError> {
    Reservations::new(reports::state_dir(backend), identity(backend))
        .map_err(BackendError::system("start a thread"))
}

fn duplicate(eventfd: &EventFd) -> Result<EventFd, BackendError> {
    eventfd.try_clone().map_err(BackendError::system("duplicate an eventfd"))
}

fn eventfd() -> Result<EventFd, BackendError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(BackendError::system("make an eventfd"))
}
