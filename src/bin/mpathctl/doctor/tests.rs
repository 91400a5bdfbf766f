//! Each finding, on trees of files that look like a host's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use vhost_user_scsi_mpath::control::{AccessState, PathKind, StateKeeping};

use super::*;
use crate::tests::{about, lun, path, reservation};

/// The disk of a path that the tests use: H:C:T:L 7:0:0:1, sg3 and sdc, over an iSCSI session.
const DISK: &str = "sys/devices/platform/host7/session12/target7:0:0/7:0:0:1";

/// A host of files; it goes with this value.
struct Tree {
    _folder: tempfile::TempDir,
    root: PathBuf,
    host: Host,
}

impl Tree {
    fn new() -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let of = |name: &str| root.join(name);
        let roots = Roots { sys: of("sys"), dev: of("dev"), proc: of("proc") };
        let host = Host { roots, qemus: Vec::new() };
        Tree { _folder: folder, root, host }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn link(&self, path: &str, to: &Path) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.root.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    /// The disk, held by nobody and with good timers, and its nodes.
    fn disk(&self) {
        for (class, name) in [("scsi_generic", "sg3"), ("block", "sdc"), ("bsg", "7:0:0:1")] {
            self.write(&format!("{DISK}/{class}/{name}/dev"), "8:32\n");
        }
        self.link(&format!("{DISK}/subsystem"), &self.root.join("sys/bus/scsi"));
        self.write(&format!("{DISK}/scsi_device/7:0:0:1/uevent"), "");
        self.link(&format!("{DISK}/scsi_device/7:0:0:1/device"), &self.root.join(DISK));
        let class = self.root.join(DISK).join("scsi_device/7:0:0:1");
        self.link("sys/class/scsi_device/7:0:0:1", &class);
        self.write("sys/class/iscsi_session/session12/recovery_tmo", "5\n");
        for node in ["dev/sg3", "dev/sdc"] {
            self.write(node, "");
            self.mode(node, 0o660);
        }
    }

    /// A process of this user and group, with these capabilities.
    fn process(&self, pid: u32, ids: (u32, u32), capabilities: u64, arguments: &[&str]) {
        let (uid, gid) = ids;
        self.write(
            &format!("proc/{pid}/status"),
            &format!(
                "Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n\
                 Groups:\t \nCapEff:\t{capabilities:016x}\n"
            ),
        );
        self.write(&format!("proc/{pid}/cmdline"), &format!("{}\0", arguments.join("\0")));
    }

    /// A backend with one path over the disk's node of that name, and a socket.
    fn patient(&self, node: &str) -> Patient {
        let mut path = path("left", 1, 1, AccessState::ActiveOptimized);
        path.kind = PathKind::Sg;
        path.address = self.root.join("dev").join(node).display().to_string();
        path.hctl = Some("7:0:0:1".to_owned());
        let mut about = about();
        about.pid = 100;
        about.socket = Some(self.write("lun0.sock", ""));
        self.mode("lun0.sock", 0o660);
        let reservation = Some(reservation());
        Patient { name: "lun0".to_owned(), about, lun: lun(), paths: vec![path], reservation }
    }

    fn devices(&self, node: &str) -> Vec<Finding> {
        devices::findings(&self.host.roots, &self.patient(node))
    }

    /// Runs a QEMU with these arguments beside its chardev.
    fn guests(&self, chardev: &str, arguments: &[&str], connected: bool) -> Vec<Finding> {
        let mut patient = self.patient("sg3");
        patient.lun.connected = connected;
        let socket = patient.about.socket.clone().unwrap();
        let chardev = format!("socket,id=c,path={}{chardev}", socket.display());
        let mut all = vec!["/usr/bin/qemu-system-x86_64", "-name", "guest=web1,debug-threads=on"];
        all.extend(["-chardev", &chardev]);
        all.extend(arguments);
        self.process(200, (64055, 64055), 0, &all);
        guests::findings(&self.host.roots, &patient)
    }
}

/// What is wrong by one check, as one text; `None` when it is content.
fn wrong(findings: &[Finding], check: &str) -> Option<String> {
    let mut of_check = findings.iter().filter(|finding| finding.check == check).peekable();
    assert!(of_check.peek().is_some(), "{check} was not looked at: {findings:?}");
    let text = |finding: &Finding| {
        let wrong = finding.wrong.clone()?;
        Some(format!("{} -- {}", wrong.what, wrong.mend))
    };
    of_check.find_map(text)
}

#[test]
fn devices_in_order_are_ok() {
    let tree = Tree::new();
    tree.disk();
    tree.process(100, (0, 0), u64::MAX, &["vhost-user-scsi-mpath"]);
    let findings = tree.devices("sg3");
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["holder", "privilege", "timer"]);
    assert!(!findings.iter().any(Finding::is_wrong), "{findings:?}");
}

#[test]
fn timer_is_told_once_for_all_paths() {
    let tree = Tree::new();
    tree.disk();
    tree.write("sys/class/iscsi_session/session12/recovery_tmo", "120\n");
    let mut patient = tree.patient("sg3");
    patient.paths.push(patient.paths[0].clone());
    let findings = devices::findings(&tree.host.roots, &patient);
    let text = wrong(&findings, "timer").unwrap();
    assert!(text.starts_with("recovery_tmo of session12 is 120: "), "{text}");
    assert!(text.contains("-- now: echo 5 > ") && text.contains("; for good: "), "{text}");
    assert_eq!(findings.iter().filter(|finding| finding.is_wrong()).count(), 1);
}

#[test]
fn holder_is_named_with_what_makes_it_let_go() {
    let tree = Tree::new();
    tree.disk();
    tree.write(&format!("{DISK}/block/sdc/holders/dm-3/dev"), "");
    tree.write("sys/class/block/dm-3/dm/name", "mpatha\n");
    tree.write("sys/class/block/dm-3/dm/uuid", "mpath-3600\n");
    let text = wrong(&tree.devices("sg3"), "holder").unwrap();
    assert!(text.contains("sdc is held by the multipath map mpatha (dm-3) -- "), "{text}");
    assert!(text.ends_with("multipath -f mpatha"), "{text}");
}

#[test]
fn privilege_of_the_node_is_the_processs() {
    let tree = Tree::new();
    tree.disk();
    // Neither the owner nor in the group of what this test has made.
    tree.process(100, (4_000_000, 4_000_000), 0, &["vhost-user-scsi-mpath"]);
    let text = wrong(&tree.devices("sg3"), "privilege").unwrap();
    assert!(text.contains("it may not read and write ") && text.contains("mode 660"), "{text}");
    assert!(text.contains("-- SupplementaryGroups="), "{text}");
    tree.mode("dev/sg3", 0o666);
    assert_eq!(wrong(&tree.devices("sg3"), "privilege"), None);
    // CAP_DAC_OVERRIDE, and no CAP_SYS_RAWIO.
    tree.process(100, (4_000_000, 4_000_000), 1 << 1, &["vhost-user-scsi-mpath"]);
    let text = wrong(&tree.devices("sdc"), "privilege").unwrap();
    assert!(text.contains("without CAP_SYS_RAWIO") && text.contains("dev/sg3 the path's address"));
    tree.process(100, (4_000_000, 4_000_000), 1 << 1 | 1 << 17, &["vhost-user-scsi-mpath"]);
    assert_eq!(wrong(&tree.devices("sdc"), "privilege"), None);
}

#[test]
fn device_that_is_none_is_said() {
    let tree = Tree::new();
    let mut patient = tree.patient("sg9");
    patient.paths[0].hctl = None;
    let text = wrong(&devices::findings(&tree.host.roots, &patient), "device").unwrap();
    assert!(text.contains("dev/sg9: ") && text.contains("lsscsi -g"), "{text}");
}

#[test]
fn memory_is_shared_where_every_object_is() {
    let tree = Tree::new();
    let memory = |objects: &[&str]| {
        let arguments: Vec<&str> = objects.iter().flat_map(|object| ["-object", *object]).collect();
        wrong(&tree.guests(",reconnect-ms=1000", &arguments, true), "memory")
    };
    assert!(memory(&[]).unwrap().contains("<access mode='shared'/>"));
    for bad in [
        "memory-backend-ram,id=m,size=1G",
        "memory-backend-file,id=m,mem-path=/dev/hugepages,share=off",
        "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"pc.ram\",\"share\":false}",
        "{\"qom-type\":\"memory-backend-ram\",\"id\":\"pc.ram\",\"size\":1}",
    ] {
        assert!(memory(&[bad]).is_some(), "{bad}");
        assert!(memory(&["memory-backend-memfd,id=n,share=on", bad]).is_some(), "{bad}");
    }
    for good in [
        "memory-backend-memfd,id=m,size=1G,share=on",
        "memory-backend-memfd,id=m,size=1G",
        "qom-type=memory-backend-file,id=m,share=on",
        "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"pc.ram\",\"share\":true}",
    ] {
        assert_eq!(memory(&["secret,id=s", good, "{\"qom-type\":\"secret\"}"]), None, "{good}");
    }
}

#[test]
fn guest_that_does_not_reconnect_is_told() {
    let tree = Tree::new();
    for (chardev, told) in [
        ("", true),
        (",reconnect-ms=0", true),
        (",reconnect-ms=1000", false),
        (",reconnect=1", false),
    ] {
        let findings = tree.guests(chardev, &[], true);
        assert_eq!(wrong(&findings, "reconnect").is_some(), told, "{chardev}");
        assert!(findings[0].looked_at.starts_with("QEMU 200 (web1): "), "{findings:?}");
    }
}

#[test]
fn guest_that_may_not_open_the_socket_is_told() {
    let tree = Tree::new();
    assert_eq!(wrong(&tree.guests("", &[], true), "connection"), None);
    let text = wrong(&tree.guests("", &[], false), "connection").unwrap();
    assert!(text.contains("it may not open ") && text.contains("socket_group"), "{text}");
    let mut patient = tree.patient("sg3");
    patient.lun.connected = false;
    tree.mode("lun0.sock", 0o666);
    let text = wrong(&guests::findings(&tree.host.roots, &patient), "connection").unwrap();
    assert!(text.starts_with("it is not connected"), "{text}");
}

#[test]
fn guests_are_the_qemus_of_this_socket_only() {
    let tree = Tree::new();
    let patient = tree.patient("sg3");
    let socket = patient.about.socket.clone().unwrap();
    let chardev = format!("socket,id=c,path={},reconnect-ms=1", socket.display());
    tree.process(201, (0, 0), 0, &["sudo", "qemu-system-x86_64", "-chardev", &chardev]);
    tree.process(202, (0, 0), 0, &["/usr/bin/qemu-kvm", "-chardev", "socket,id=c,path=/other"]);
    tree.process(203, (0, 0), 0, &["qemu-system-x86_64", "-chardev"]);
    tree.write("proc/204/status", "");
    tree.write("proc/self/cmdline", "qemu");
    assert_eq!(guests::findings(&tree.host.roots, &patient), []);
    tree.process(205, (0, 0), 0, &["qemu-system-x86_64", "--chardev", &chardev]);
    let findings = guests::findings(&tree.host.roots, &patient);
    assert!(findings[0].looked_at.starts_with("QEMU 205 (without a name): "), "{findings:?}");
}

#[test]
fn installed_qemu_is_asked_for_its_version() {
    let tree = Tree::new();
    let too_old =
        |text: &str| guests::too_old(text).map(|wrong| format!("{} -- {}", wrong.what, wrong.mend));
    assert_eq!(too_old("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), None);
    assert_eq!(too_old("QEMU emulator version 9.2.0\n"), None);
    assert!(too_old("QEMU emulator version 9.1.5").unwrap().starts_with("9.1.5 has no"));
    assert!(too_old("QEMU emulator version 8.2").unwrap().contains("bookworm-backports"));
    // A program that knows no version.
    let findings = guests::installed(&["/bin/true".into()]);
    assert!(wrong(&findings, "qemu-version").unwrap().starts_with("it does not tell one"));
    assert_eq!(guests::installed(&[tree.root.join("none")]), []);
}

#[test]
fn state_is_kept_or_the_setting_is_named() {
    let mut patient = Tree::new().patient("sg3");
    let told = |patient: &Patient| wrong(&[backends::state(patient)], "state");
    let reserved = |state, reason: &str| {
        Some(ReservationReport { state, reason: reason.to_owned(), ..reservation() })
    };
    assert_eq!(told(&patient), None);
    patient.reservation = reserved(StateKeeping::Opening, "it is being read");
    assert_eq!(told(&patient), None);
    patient.reservation = reserved(StateKeeping::Unavailable, "/x/state.toml: it is damaged");
    let text = told(&patient).unwrap();
    assert!(text.contains("refused: /x/state.toml: it is damaged"), "{text}");
    patient.reservation = reserved(StateKeeping::None, "there is none");
    let text = told(&patient).unwrap();
    assert!(text.contains("state_dir = \"/var/lib/vhost-user-scsi-mpath/lun0\""), "{text}");
    patient.about.state_dir = Some("/var/lib/x".into());
    let text = told(&patient).unwrap();
    assert!(text.contains("identity = "), "{text}");
}

/// Answers one client as a backend from before reservations does.
fn older_backend(control: &Path) -> std::thread::JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(control).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        writeln!(stream, "{}", json!({"QMP": {"version": {}, "capabilities": []}})).unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let (key, value) = match asked["execute"].as_str().unwrap() {
                "qmp_capabilities" => ("return", json!({})),
                "query-backend" => ("return", json!(about())),
                "query-lun" => ("return", json!(lun())),
                "query-paths" => ("return", json!([])),
                _ => ("error", json!({"class": "CommandNotFound", "desc": "what is that?"})),
            };
            writeln!(stream, "{}", json!({key: value, "id": asked["id"]})).unwrap();
        }
    })
}

#[test]
fn older_backend_is_looked_at_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let older = older_backend(&directory.path().join("old.ctl"));
    let (findings, patients) = backends::ask(None, directory.path()).unwrap();
    older.join().unwrap();
    assert_eq!(wrong(&findings, "control-socket"), None);
    let text = wrong(&[backends::state(&patients[0])], "state").unwrap();
    assert!(text.starts_with("its backend is of an older version"), "{text}");
    assert!(text.ends_with("-- start it again, from the version that is installed now"), "{text}");
}

#[test]
fn control_socket_that_nobody_answers_is_told() {
    let directory = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.ctl")).unwrap());
    let (findings, patients) = backends::ask(None, directory.path()).unwrap();
    let text = wrong(&findings, "control-socket").unwrap();
    assert!(text.contains("nobody listens on it") && text.ends_with("dead.ctl"), "{text}");
    assert!(patients.is_empty());
    let (findings, _) = backends::ask(None, &directory.path().join("none")).unwrap();
    assert_eq!(wrong(&findings, "control-socket"), None);
    let (findings, _) = backends::ask(Some(Path::new("/no/such.ctl")), directory.path()).unwrap();
    assert!(wrong(&findings, "control-socket").unwrap().starts_with("there is no such socket"));
}

#[test]
fn findings_are_lines_and_json() {
    let paint = crate::Paint { on: false };
    let mut finding = Finding {
        check: "memory",
        backend: Some("lun0".to_owned()),
        looked_at: "guest memory".to_owned(),
        wrong: None,
    };
    assert_eq!(finding.text(paint), "ok      lun0: guest memory\n");
    let wrong = finding::Wrong { what: "not shared".to_owned(), mend: "share it".to_owned() };
    finding.wrong = Some(wrong);
    let expected = "change  lun0: guest memory: not shared\n        mend: share it\n";
    assert_eq!(finding.text(paint), expected);
    let value = &finding::document(&[finding])["findings"][0];
    assert_eq!((&value["state"], &value["mend"]), (&"change".into(), &"share it".into()));
}
