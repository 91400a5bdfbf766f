use super::*;

fn named(names: &[&str]) -> Vec<(String, PathBuf)> {
    names.iter().map(|name| ((*name).to_owned(), format!("/run/{name}.sock").into())).collect()
}

#[test]
fn document_is_what_virsh_edit_takes() {
    let options = Options { queues: Some(4), boot: Some(1), windows: true, ..Options::default() };
    let text = document::text(&disks(&named(&["lun0", "lun1"]), &options).unwrap());
    let expected = r#"<!-- For the domain's XML (virsh edit): xmlns:qemu goes into its <domain>, the rest below it. -->
<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <qemu:commandline>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=mpath-lun0-socket,path=/run/lun0.sock,reconnect-ms=1000'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='{"driver":"vhost-user-scsi-pci","id":"mpath-lun0","chardev":"mpath-lun0-socket","bus":"pcie.0","addr":"0x10","num_queues":4,"max_sectors":2048,"bootindex":1}'/>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=mpath-lun1-socket,path=/run/lun1.sock,reconnect-ms=1000'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='{"driver":"vhost-user-scsi-pci","id":"mpath-lun1","chardev":"mpath-lun1-socket","bus":"pcie.0","addr":"0x11","num_queues":4,"max_sectors":2048,"bootindex":2}'/>
  </qemu:commandline>
</domain>
"#;
    assert_eq!(text, expected);
}

#[test]
fn paths_are_escaped_for_qemu_and_for_xml() {
    let sockets = [("a,b".to_owned(), PathBuf::from("/r/a,b&<'\">.sock"))];
    let text = document::text(&disks(&sockets, &Options::default()).unwrap());
    assert!(text.contains("path=/r/a,,b&amp;&lt;&apos;\"&gt;.sock,reconnect-ms="), "{text}");
    assert!(text.contains("\"id\":\"mpath-a-b\""), "{text}");
    for bad in ["/r/new\nline", "/r/\u{7}", "/r/\u{FFFF}"] {
        let refused = disks(&[("x".to_owned(), bad.into())], &Options::default());
        assert!(matches!(refused, Err(LibvirtError::Path { .. })), "{bad:?}");
    }
}

#[test]
fn ids_are_qemus_and_no_two_are_the_same() {
    let ids = |options: &Options| -> Vec<String> {
        let disks = disks(&named(&["a b", "a/b", "a.b"]), options).unwrap();
        disks.into_iter().map(|disk| disk.id).collect()
    };
    assert_eq!(ids(&Options::default()), ["mpath-a-b", "mpath-a-b-2", "mpath-a.b"]);
    let given = |id: &str| Options { id: Some(id.to_owned()), ..Options::default() };
    assert_eq!(ids(&given("root")), ["root", "root-2", "root-3"]);
    for bad in ["", "0x", "a,b", "ä"] {
        assert!(matches!(disks(&named(&["a"]), &given(bad)), Err(LibvirtError::Id(_))), "{bad}");
    }
}

#[test]
fn slots_are_those_that_libvirt_leaves() {
    let many: Vec<String> = (0..12).map(|at| format!("lun{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let last = |count: usize, machine, slot| {
        let options = Options { machine, slot, ..Options::default() };
        let disks = disks(&named(&many[..count]), &options).ok()?;
        disks.last().map(|disk| (disk.bus, disk.slot))
    };
    assert_eq!(last(11, Machine::Q35, None), Some(("pcie.0", 0x1a)));
    assert_eq!(last(12, Machine::Q35, None), None);
    assert_eq!(last(8, Machine::Pc, None), Some(("pci.0", 0x1f)));
    assert_eq!(last(9, Machine::Pc, None), None);
    assert_eq!(last(12, Machine::Q35, Some(9)), Some(("pcie.0", 0x14)));
    assert_eq!(last(2, Machine::Q35, Some(0x1f)), None);
    assert_eq!((slot("0x12"), slot("18")), (Ok(0x12), Ok(18)));
    for bad in ["0", "0x20", "x", ""] {
        assert!(slot(bad).is_err(), "{bad}");
    }
}

#[test]
fn windows_wants_an_end_of_waiting() {
    use std::time::Duration;
    assert!(!suits_windows(NoPathRetry::Queue) && suits_windows(NoPathRetry::Fail));
    assert!(suits_windows(NoPathRetry::For(Duration::from_secs(40))));
    assert!(!suits_windows(NoPathRetry::For(Duration::from_secs(60))));
}
