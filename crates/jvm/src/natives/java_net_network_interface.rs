//! `java.net.NetworkInterface`

use std::net::IpAddr;

use super::inet;
use super::support::{VOID, boolean, field, int, make, natives, socket_exception};
use crate::allocate;
use crate::exceptions;
use crate::handle::Handle;
use crate::interpreter::Arguments;
use crate::loader;
use crate::object::Reference;
use crate::services;
use crate::services::network::{self, Interface};
use crate::strings;
use crate::thread::{Result, Thread};

const CLASS: &str = "java/net/NetworkInterface";

/// The interfaces, with the addresses of IPv6 only if that is used.
fn interfaces(thread: &mut Thread) -> Result<Vec<Interface>> {
    let mut found = network::interfaces().map_err(|failure| socket_exception(thread, &failure))?;
    if !inet::has_ipv6(thread)? {
        found.iter_mut().for_each(|interface| interface.addresses.retain(|bound| bound.address.is_ipv4()));
        found.retain(|interface| !interface.addresses.is_empty());
    }
    Ok(found)
}

/// The object of an interface.
fn object(thread: &mut Thread, interface: &Interface) -> Result<Handle> {
    let name = strings::new(thread, &interface.name)?;
    let name = thread.handle(name);
    let object = make(thread, CLASS, "()V", Vec::new)?;
    object.get().set_reference(field!("java/net/NetworkInterface", "name", "Ljava/lang/String;"), name.get());
    object.get().set_reference(field!("java/net/NetworkInterface", "displayName", "Ljava/lang/String;"), name.get());
    object.get().write(field!("java/net/NetworkInterface", "index", "I"), interface.index);
    let count = u32::try_from(interface.addresses.len()).unwrap_or(0);
    let addresses = allocate::reference_array(thread, loader::boot_class("java/net/InetAddress"), count)?;
    let addresses = thread.handle(addresses);
    let bindings = allocate::reference_array(thread, loader::boot_class("java/net/InterfaceAddress"), count)?;
    let bindings = thread.handle(bindings);
    for (index, bound) in (0..count).zip(&interface.addresses) {
        let nameless = thread.handle(Reference::NULL);
        let address = inet::object(thread, bound.address, bound.scope, nameless)?;
        if bound.scope != 0 {
            inet::set_interface(address.get(), object.get());
        }
        addresses.get().set_reference_element(index, address.get());
        let binding = make(thread, "java/net/InterfaceAddress", "()V", Vec::new)?;
        let place = field!("java/net/InterfaceAddress", "address", "Ljava/net/InetAddress;");
        binding.get().set_reference(place, address.get());
        binding.get().write(field!("java/net/InterfaceAddress", "maskLength", "S"), i16::from(bound.prefix));
        if let Some(broadcast) = bound.broadcast {
            let broadcast = inet::object(thread, IpAddr::V4(broadcast), 0, nameless)?;
            let place = field!("java/net/InterfaceAddress", "broadcast", "Ljava/net/Inet4Address;");
            binding.get().set_reference(place, broadcast.get());
        }
        bindings.get().set_reference_element(index, binding.get());
    }
    let place = field!("java/net/NetworkInterface", "addrs", "[Ljava/net/InetAddress;");
    object.get().set_reference(place, addresses.get());
    let place = field!("java/net/NetworkInterface", "bindings", "[Ljava/net/InterfaceAddress;");
    object.get().set_reference(place, bindings.get());
    let children = allocate::reference_array(thread, loader::boot_class(CLASS), 0)?;
    let place = field!("java/net/NetworkInterface", "childs", "[Ljava/net/NetworkInterface;");
    object.get().set_reference(place, children);
    Ok(object)
}

fn all(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let interfaces = interfaces(thread)?;
    let count = u32::try_from(interfaces.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, loader::boot_class(CLASS), count)?;
    let array = thread.handle(array);
    for (index, interface) in (0..count).zip(&interfaces) {
        let object = object(thread, interface)?;
        array.get().set_reference_element(index, object.get());
    }
    Ok(array.get().slot())
}

/// The object of the first interface that fits; `null` if none does.
fn find(thread: &mut Thread, fits: impl Fn(&Interface) -> bool) -> Result<u64> {
    let interfaces = interfaces(thread)?;
    match interfaces.iter().find(|interface| fits(interface)) {
        Some(interface) => Ok(object(thread, interface)?.slot()),
        None => Ok(0),
    }
}

/// The object of the interface with this number.
pub(super) fn of_index(thread: &mut Thread, index: i32) -> Result<Option<Handle>> {
    let interfaces = interfaces(thread)?;
    interfaces.iter().find(|interface| interface.index == index).map(|found| object(thread, found)).transpose()
}

/// The number of the interface that has this address.
pub(super) fn of_address(address: IpAddr) -> services::Result<Option<i32>> {
    let has = |interface: &&Interface| interface.addresses.iter().any(|bound| bound.address == address);
    Ok(network::interfaces()?.iter().find(has).map(|interface| interface.index))
}

/// What the first argument, a name, names.
fn named(thread: &mut Thread, arguments: Arguments) -> Result<Option<Interface>> {
    if arguments.reference(0).is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let name = strings::text(arguments.reference(0));
    Ok(interfaces(thread)?.into_iter().find(|interface| interface.name == name))
}

fn has(thread: &mut Thread, arguments: Arguments, flag: i32) -> Result<u64> {
    let interface = named(thread, arguments)?;
    Ok(boolean(interface.is_some_and(|interface| interface.flags & flag != 0)))
}

fn hardware_address(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::text(arguments.reference(1));
    let interface = interfaces(thread)?.into_iter().find(|interface| interface.name == name);
    match interface.and_then(|interface| interface.hardware) {
        Some(address) if address != [0; 6] => Ok(allocate::byte_array(thread, &address)?.slot()),
        _ => Ok(0),
    }
}

natives! { "java/net/NetworkInterface":
    "init" "()V" => |_, _| Ok(VOID);
    "getAll" "()[Ljava/net/NetworkInterface;" => all;
    "getByName0" "(Ljava/lang/String;)Ljava/net/NetworkInterface;" => |thread, arguments| {
        let name = strings::text(arguments.reference(0));
        find(thread, |interface| interface.name == name)
    };
    "getByIndex0" "(I)Ljava/net/NetworkInterface;" => |thread, arguments| {
        let index = arguments.int(0);
        find(thread, |interface| interface.index == index)
    };
    "getByInetAddress0" "(Ljava/net/InetAddress;)Ljava/net/NetworkInterface;" => |thread, arguments| {
        let wanted = inet::address(thread, arguments.reference(0), 0)?.ip();
        find(thread, |interface| interface.addresses.iter().any(|bound| bound.address == wanted))
    };
    "boundInetAddress0" "(Ljava/net/InetAddress;)Z" => |thread, arguments| {
        let wanted = inet::address(thread, arguments.reference(0), 0)?.ip();
        let bound = |interface: &Interface| interface.addresses.iter().any(|bound| bound.address == wanted);
        Ok(boolean(interfaces(thread)?.iter().any(bound)))
    };
    "isUp0" "(Ljava/lang/String;I)Z" => |thread, arguments| {
        let running = libc::IFF_UP | libc::IFF_RUNNING;
        let interface = named(thread, arguments)?;
        Ok(boolean(interface.is_some_and(|interface| interface.flags & running == running)))
    };
    "isLoopback0" "(Ljava/lang/String;I)Z" => |thread, arguments| has(thread, arguments, libc::IFF_LOOPBACK);
    "isP2P0" "(Ljava/lang/String;I)Z" => |thread, arguments| has(thread, arguments, libc::IFF_POINTOPOINT);
    "supportsMulticast0" "(Ljava/lang/String;I)Z" => |thread, arguments| has(thread, arguments, libc::IFF_MULTICAST);
    "getMacAddr0" "([BLjava/lang/String;I)[B" => hardware_address;
    "getMTU0" "(Ljava/lang/String;I)I" => |thread, arguments| {
        let interface = named(thread, arguments)?;
        Ok(int(interface.map_or(0, |interface| network::frame_size(&interface.name))))
    };
}
