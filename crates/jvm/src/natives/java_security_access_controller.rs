//! `java.security.AccessController`: on whose behalf the code on the stack runs, for security managers.

use super::support::field;
use super::{Arguments, Table, nothing};
use crate::allocate;
use crate::handle::Handle;
use crate::known;
use crate::link;
use crate::loader;
use crate::object::Reference;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[(
    "java/security/AccessController",
    &[
        ("getStackAccessControlContext", "", context_of_stack),
        ("getInheritedAccessControlContext", "", inherited),
        ("ensureMaterializedForStackWalk", "", nothing),
        ("getProtectionDomain", "", |_, a| Ok(domain(a.reference(0)).slot())),
    ],
)];

fn domain(mirror: Reference) -> Reference {
    mirror.reference(known::class_protection_domain())
}

/// The protection domains of the frames down to the first `doPrivileged`, and the context that was given to that.
fn context_of_stack(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let mut domains: Vec<Handle> = Vec::new();
    let mut add = |thread: &Thread, mirror: Reference| {
        let found = domain(mirror);
        if !found.is_null() && domains.last().is_none_or(|last| last.get() != found) {
            domains.push(thread.handle(found));
        }
    };
    let mut privileged = None;
    for frame in thread.frames().skip(1) {
        let method = frame.method();
        if method.class.name.bytes() == b"java/security/AccessController" && method.name.bytes() == b"executePrivileged"
        {
            // executePrivileged(action, context, caller)
            // SAFETY: a static method of three references has them in its first locals.
            let (context, caller) = unsafe { (frame.locals().add(1).read(), frame.locals().add(2).read()) };
            privileged = Some(thread.handle(Reference::of_slot(context)));
            let caller = Reference::of_slot(caller);
            if !caller.is_null() {
                add(thread, caller);
            }
            break;
        }
        add(thread, method.class.mirror());
    }
    let given = privileged.filter(|context| !context.is_null());
    if domains.is_empty() && privileged.is_some() && given.is_none() {
        return Ok(0);
    }
    let class = loader::boot_class("java/security/AccessControlContext");
    link::initialize(thread, class)?;
    let array = if domains.is_empty() {
        thread.handle(Reference::NULL)
    } else {
        let element = loader::boot_class("java/security/ProtectionDomain");
        let count = u32::try_from(domains.len()).unwrap_or(u32::MAX);
        let array = allocate::reference_array(thread, element, count)?;
        for (index, domain) in (0..count).zip(&domains) {
            array.set_reference_element(index, domain.get());
        }
        thread.handle(array)
    };
    let context = allocate::instance(thread, class)?;
    context.set_reference(
        field!("java/security/AccessControlContext", "context", "[Ljava/security/ProtectionDomain;"),
        array.get(),
    );
    if let Some(given) = given {
        let offset =
            field!("java/security/AccessControlContext", "privilegedContext", "Ljava/security/AccessControlContext;");
        context.set_reference(offset, given.get());
    }
    context.write(field!("java/security/AccessControlContext", "isPrivileged", "Z"), privileged.is_some());
    context.write(field!("java/security/AccessControlContext", "isAuthorized", "Z"), true);
    Ok(context.slot())
}

/// The context of the thread that started the current one.
fn inherited(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let offset = field!("java/lang/Thread", "inheritedAccessControlContext", "Ljava/security/AccessControlContext;");
    Ok(thread.object.map_or(0, |object| object.get().reference(offset).slot()))
}
