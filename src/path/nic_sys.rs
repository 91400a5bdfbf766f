//! getifaddrs(3): which interface has an address.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The name of the interface that has `address`.
pub fn interface_of(address: IpAddr) -> Option<String> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the call stores a list in `list`, which is freed below, or fails.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut at = list;
    // SAFETY: the list's elements are valid until it is freed; the last one's `ifa_next` is null.
    while let Some(one) = unsafe { at.as_ref() } {
        if found.is_none() && address_of(one) == Some(address) {
            // SAFETY: every element has a name, which ends with a zero.
            let name = unsafe { CStr::from_ptr(one.ifa_name) };
            found = name.to_str().ok().map(str::to_owned);
        }
        at = one.ifa_next;
    }
    // SAFETY: made by getifaddrs, and not used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn address_of(one: &libc::ifaddrs) -> Option<IpAddr> {
    // SAFETY: null or a socket address that lives as long as the list.
    let family = unsafe { one.ifa_addr.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of these; the list's memory is aligned for it.
            let v4 = unsafe { one.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { one.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
