use super::*;

fn emulated(text: &str) -> EmulatedAddress {
    match Address::parse(text) {
        Ok(Address::Emulated(address)) => address,
        other => panic!("{text}: {other:?}"),
    }
}

fn message(text: &str) -> String {
    Address::parse(text).unwrap_err().to_string()
}

#[test]
fn parse_emulated_has_defaults() {
    let address = emulated("emulated:disk.img");
    assert_eq!(address.image, Path::new("disk.img"));
    assert_eq!((address.port, address.group, address.block), (1, 1, 512));
    assert_eq!(address.cache, Cache::Writeback);
    assert_eq!(
        (address.state, address.size, address.wwid),
        (AccessState::ActiveOptimized, None, None)
    );
}

#[test]
fn parse_emulated_reads_every_setting() {
    let text = "emulated:/a/b%3Fc.img?port=2&group=7&state=standby&size=64M&block=4096\
                &cache=none&wwid=naa.6025648000000001aaaaaaaaaaaaaaaa";
    let address = emulated(text);
    assert_eq!(address.image, Path::new("/a/b?c.img"));
    assert_eq!((address.port, address.group, address.block), (2, 7, 4096));
    assert_eq!((address.state, address.size), (AccessState::Standby, Some(64 << 20)));
    assert_eq!(address.cache, Cache::None);
    let address = Address::Emulated(address);
    assert_eq!(address.to_string(), text);
    assert_eq!(address.short_name(), "b?c.img:2");
    assert_eq!(address.kind(), "emulated");
}

#[test]
fn parse_takes_short_state_names() {
    assert_eq!(emulated("emulated:d?state=an").state, AccessState::ActiveNonOptimized);
    assert_eq!(emulated("emulated:d?state=optimized").state, AccessState::ActiveOptimized);
    assert_eq!(
        emulated("emulated:d?state=active/non-optimized").state,
        AccessState::ActiveNonOptimized
    );
}

#[test]
fn parse_names_key_and_value_of_an_error() {
    assert!(message("emulated:d?port=0").contains("port=0: a number from 1"));
    assert!(message("emulated:d?port=1&port=2").contains("port is given twice"));
    assert!(message("emulated:d?prot=1").contains("unknown setting prot"));
    assert!(message("emulated:d?size=12X").contains("size=12X"));
    assert!(message("emulated:d?size=9999999T").contains("more bytes"));
    assert!(message("emulated:d?block=520").contains("512 or 4096"));
    let writethrough = message("emulated:d?cache=writethrough");
    assert!(writethrough.contains("cache=writethrough: writeback"), "{writethrough}");
    assert!(message("emulated:d?state=up").contains("transitioning"));
    assert!(message("emulated:d?wwid=naa.5").contains("wwid=naa.5"));
    assert!(message("emulated:").contains("image is missing"));
    assert!(message("emulated:a%2").contains("%25"));
}

#[test]
fn parse_takes_every_name_of_a_host_device() {
    for (text, name) in [
        ("/dev/sg3", "sg3"),
        ("/dev/bsg/1:0:0:0", "1:0:0:0"),
        ("/dev/disk/by-path/pci-0000:00:04.0-scsi-0:0:0:1", "pci-0000:00:04.0-scsi-0:0:0:1"),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address, Address::Host(HostAddress { node: PathBuf::from(text) }));
        assert_eq!(
            (address.kind(), &*address.short_name(), address.to_string()),
            ("sg", name, text.to_owned())
        );
    }
}

#[test]
fn parse_refuses_unknown_kinds() {
    assert!(message("nbd:x").contains("not an address"));
    assert!(message("dev/sg3").contains("not an address"));
}

#[test]
fn parse_null_reads_the_size() {
    let address = Address::parse("null:1T").unwrap();
    assert_eq!(address, Address::Null(NullAddress { size: 1 << 40 }));
    assert_eq!(address.to_string(), "null:1T");
    assert_eq!(address.short_name(), "null-1T");
    assert!(message("null:").contains("size="));
    assert!(message("null:-1").contains("size=-1"));
    assert!(message("null:0").contains("size=0"));
}
