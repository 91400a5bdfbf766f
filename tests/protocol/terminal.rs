//! mpathctl where a person uses it: completion under bash, and `top` on a terminal that tmux
//! plays, whose screen can be read.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::backend::{Backend, Setup, directory, path_name};
use crate::load::Load;
use crate::sys;

const MPATHCTL: &str = env!("CARGO_BIN_EXE_mpathctl");
/// Room for a busy machine, for something to appear on a screen.
const SOON: Duration = Duration::from_secs(20);

/// What bash offers behind `line`.
fn complete(backend: &Backend, line: &str) -> Vec<String> {
    let socket = backend.control_socket();
    let line = line.replace("SOCKET", &socket.display().to_string());
    let script = r#"
        eval "$(mpathctl completions bash)"
        COMP_LINE=$1 COMP_POINT=${#1} COMP_KEY=9 COMP_TYPE=9
        read -ra COMP_WORDS <<<"$1"
        [[ $1 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        set -- mpathctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        $(complete -p mpathctl | sed 's/.*-F \([^ ]*\) .*/\1/') "$@"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let folder = Path::new(MPATHCTL).parent().expect("a program is in a folder");
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let mut command = Command::new("/bin/bash");
    command.args(["--norc", "-c", script, "bash", &line]).env("PATH", path);
    let output = command.output().expect("bash can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "bash: {said}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn completion_under_bash_knows_the_paths_that_there_are() {
    let backend = Setup::ports(2).start();
    assert_eq!(complete(&backend, "mpathctl -s SOCKET fail d"), ["disk.img:1", "disk.img:2"]);
    // Bash has the part before the colon already.
    assert_eq!(complete(&backend, "mpathctl -s SOCKET why disk.img:"), ["1", "2"]);
    assert_eq!(complete(&backend, "mpathctl why --socket SOCKET disk.img:2"), ["2"]);
    assert!(complete(&backend, "mpathctl -s SOCKET fail q").concat().is_empty());
    let options = complete(&backend, "mpathctl -s SOCKET inject disk.img:1 --mi");
    assert_eq!(options, ["--milliseconds"]);
    let commands = complete(&backend, "mpathctl rein");
    assert_eq!(commands, ["reinstate"]);
}

#[test]
fn completion_scripts_are_there_for_other_shells() {
    for (shell, mark) in [("zsh", "#compdef mpathctl"), ("fish", "complete -c mpathctl")] {
        let output = Command::new(MPATHCTL).args(["completions", shell]).output();
        let text = String::from_utf8(output.expect("mpathctl runs").stdout).expect("text");
        assert!(text.contains(mark) && text.contains("reinstate"), "{shell}: {text}");
    }
}

/// A terminal in which a shell runs `top`.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// `None` where tmux is not installed, which tests/run sees to.
    fn start(command: &str) -> Option<Self> {
        if !Path::new("/usr/bin/tmux").exists() {
            let why = "tmux is not there; tests/install terminal installs it";
            assert!(std::env::var_os("TESTS_RUN").is_none(), "{why}");
            let _ = writeln!(std::io::stderr(), "skipped: {why}");
            return None;
        }
        let terminal = Terminal { folder: directory() };
        // The shell stays, so that what is left of the screen can be seen.
        let shell = "PS1='$ ' exec /bin/bash --norc --noprofile";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell]);
        terminal.send(&[command, "Enter"]);
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("/usr/bin/tmux");
        tmux.arg("-S").arg(self.folder.path().join("tmux")).args(["-u"]).args(arguments);
        tmux.env_remove("TMUX").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = tmux.output().expect("tmux can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn send(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", ":0.0"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", ":0.0"])
    }

    fn wait(&self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let screen = self.screen();
            if seen(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {what} on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Back in the shell, with a terminal that echoes and breaks lines as before.
    fn wait_for_shell(&self) {
        self.wait("shell", |screen| !screen.contains("LATENCY") && screen.contains("$ "));
        self.send(&["stty -a | grep -o ' echo ' | tr -d ' '; echo b''ack", "Enter"]);
        let screen = self.wait_for("\nback");
        assert!(screen.contains("\necho\n"), "the terminal is not as it was:\n{screen}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("/usr/bin/tmux");
        tmux.arg("-S").arg(self.folder.path().join("tmux")).arg("kill-server");
        // It may be gone already.
        let _ = tmux.stderr(Stdio::null()).status();
    }
}

fn top(backend: &Backend) -> String {
    format!("{MPATHCTL} -s {} top", backend.control_socket().display())
}

#[test]
fn top_shows_the_paths_and_asks_before_it_changes_anything() {
    let backend = Setup::ports(2).start();
    let mut device = backend.guest(1);
    device.queue().settle();
    backend.qmp().execute("set-iopolicy", json!({"iopolicy": "round-robin"}));
    let load = Load::start(std::mem::take(&mut device.queues), 4);
    let Some(terminal) = Terminal::start(&top(&backend)) else { return };
    terminal.wait_for("disk.img:2 up");
    // Both carry half of it, give or take the one that was sent in between.
    let screen = terminal.wait("shares", |screen| {
        screen.contains("   50%") && screen.lines().any(|line| line.contains('█'))
    });
    let (_queues, report) = load.stop();
    report.assert_clean();
    assert!(screen.contains("guest connected"), "{screen}");
    assert!(screen.contains("PATH ") && screen.contains("state=healthy"), "{screen}");
    assert!(screen.contains("f: fail  r: reinstate  p: policy  q: quit"), "{screen}");
    terminal.send(&["Down", "f"]);
    terminal.wait_for("Stop using disk.img:2? y/n");
    terminal.send(&["n"]);
    terminal.wait_for("nothing was changed");
    terminal.send(&["f", "y"]);
    terminal.wait_for("disk.img:2 disabled");
    terminal.wait_for("PATH_STATE_CHANGED disk.img:2: up -> disabled");
    terminal.send(&["r", "y"]);
    terminal.wait_for("disk.img:2 up");
    terminal.send(&["p", "y"]);
    terminal.wait_for("policy=queue-depth");
    terminal.send(&["q"]);
    terminal.wait_for_shell();
    let mut qmp = backend.qmp();
    assert_eq!(path_name(&mut qmp, 2), "disk.img:2");
    assert_eq!(qmp.execute("query-lun", json!({}))["iopolicy"], "queue-depth");
}

#[test]
fn top_follows_the_size_of_the_terminal_and_leaves_it_as_it_was() {
    let backend = Setup::ports(2).start();
    let Some(terminal) = Terminal::start(&top(&backend)) else { return };
    terminal.wait_for("disk.img:2 up");
    terminal.tmux(&["resize-window", "-t", ":0", "-x", "50", "-y", "10"]);
    terminal.wait("10 lines with the keys in the last", |screen| {
        screen.lines().count() == 10
            && screen.lines().last().is_some_and(|one| one.contains("q: quit"))
    });
    terminal.tmux(&["resize-window", "-t", ":0", "-x", "120", "-y", "30"]);
    terminal.wait("30 lines with the keys in the last", |screen| {
        screen.lines().nth(29).is_some_and(|one| one.contains("q: quit"))
    });
    terminal.send(&["C-c"]);
    terminal.wait_for_shell();
    // Another end: the signal that ends programs.
    terminal.send(&["clear", "Enter"]);
    let pid = terminal.folder.path().join("pid");
    terminal
        .send(&[&format!("(echo $BASHPID >{}; exec {})", pid.display(), top(&backend)), "Enter"]);
    terminal.wait_for("disk.img:2 up");
    let pid = std::fs::read_to_string(pid).expect("the shell has written it");
    sys::signal(pid.trim().parse().expect("a number"), sys::SIGTERM);
    terminal.wait_for_shell();
}
