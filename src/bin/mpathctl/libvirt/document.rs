//! The XML itself, and QEMU's arguments in it.
//!
//! The device is written as JSON, like libvirt's own: QEMU makes the devices of plain `-device`
//! arguments before those, and a plain one without an address takes a slot that libvirt has given
//! away. A chardev cannot be written as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Disk;

/// How soon QEMU tries again when the backend has gone.
const RECONNECT_MS: u32 = 1000;

/// What QEMU is told of one disk.
pub fn arguments(disk: &Disk) -> Vec<String> {
    let chardev = format!("{}-socket", disk.id);
    // QEMU ends an option's value at a comma; two of them are one.
    let path = disk.socket.replace(',', ",,");
    vec![
        "-chardev".to_owned(),
        format!("socket,id={chardev},path={path},reconnect-ms={RECONNECT_MS}"),
        "-device".to_owned(),
        device(disk, &chardev),
    ]
}

fn device(disk: &Disk, chardev: &str) -> String {
    // In this order, which a map would not keep.
    let mut properties = vec![
        ("driver", json!("vhost-user-scsi-pci")),
        ("id", json!(disk.id)),
        ("chardev", json!(chardev)),
        ("bus", json!(disk.bus)),
        ("addr", json!(format!("{:#x}", disk.slot))),
    ];
    let number = |value: Option<u32>| value.map(Value::from);
    let further = [
        ("num_queues", number(disk.queues.map(u32::from))),
        ("max_sectors", number(disk.max_sectors)),
        ("bootindex", number(disk.boot.map(u32::from))),
    ];
    properties.extend(further.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let words: Vec<String> =
        properties.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", words.join(","))
}

/// One well-formed document: a domain with nothing but what belongs to our disks.
pub fn text(disks: &[Disk]) -> String {
    let mut text = "\
<!-- For the domain's XML (virsh edit): xmlns:qemu goes into its <domain>, the rest below it. -->
<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <qemu:commandline>
"
    .to_owned();
    for argument in disks.iter().flat_map(arguments) {
        // A string takes everything.
        let _ = writeln!(text, "    <qemu:arg value='{}'/>", escaped(&argument));
    }
    text.push_str("  </qemu:commandline>\n</domain>\n");
    text
}

/// As the value of an attribute between single quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            one => escaped.push(one),
        }
    }
    escaped
}
