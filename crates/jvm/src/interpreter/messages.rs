//! Exceptions that instructions throw, with the messages that HotSpot gives.

use crate::arena::Meta;
use crate::exceptions::throw;
use crate::link;
use crate::metadata::{Class, Method};
use crate::object::Reference;
use crate::thread::{Thread, Thrown};

#[cold]
#[inline(never)]
pub(super) fn index(thread: &mut Thread, index: i32, length: u32) -> Thrown {
    let message = format!("Index {index} out of bounds for length {length}");
    throw(thread, "java/lang/ArrayIndexOutOfBoundsException", message)
}

#[cold]
#[inline(never)]
pub(super) fn division(thread: &mut Thread) -> Thrown {
    throw(thread, "java/lang/ArithmeticException", "/ by zero")
}

#[cold]
#[inline(never)]
pub(super) fn array_store(thread: &mut Thread, value: Reference) -> Thrown {
    let name = value.class().external_name();
    throw(thread, "java/lang/ArrayStoreException", name)
}

/// Which class could not be cast to which, and where both are.
#[cold]
#[inline(never)]
pub(crate) fn class_cast(thread: &mut Thread, from: Meta<Class>, to: Meta<Class>) -> Thrown {
    let (from_name, to_name) = (from.external_name(), to.external_name());
    let places = link::where_are(from, to);
    throw(
        thread,
        "java/lang/ClassCastException",
        format!("class {from_name} cannot be cast to class {to_name} ({places})"),
    )
}

#[cold]
#[inline(never)]
pub(super) fn negative_size(thread: &mut Thread, length: i32) -> Thrown {
    throw(thread, "java/lang/NegativeArraySizeException", length.to_string())
}

#[cold]
#[inline(never)]
pub(super) fn instantiation(thread: &mut Thread, class: Meta<Class>) -> Thrown {
    throw(thread, "java/lang/InstantiationError", class.external_name())
}

/// Whether some interface of a class has an instance method with code: then methods are selected as such ones are.
fn has_defaults(class: Meta<Class>) -> bool {
    class
        .all_interfaces
        .get()
        .iter()
        .any(|interface| interface.methods.get().iter().any(|method| !method.is_abstract() && !method.is_static()))
}

/// A class as messages of selection name it.
fn kind_of(class: Meta<Class>) -> String {
    format!("{} {}", link::kind_word(class), class.external_name())
}

/// `selected` has no code; it was found for `resolved` in an object of class `receiver`, if that is known.
#[cold]
#[inline(never)]
pub(super) fn abstract_method(
    thread: &mut Thread,
    selected: Meta<Method>,
    resolved: Meta<Method>,
    receiver: Option<Meta<Class>>,
) -> Thrown {
    let word = |method: Meta<Method>| if method.is_abstract() { "abstract " } else { "" };
    let signature = link::method_signature(None, resolved.name, resolved.descriptor);
    let of = kind_of(resolved.class);
    let message = match receiver {
        Some(class) if selected.class.is_interface() && has_defaults(class) => {
            format!("Method {}.{}{} is abstract", class.name, selected.name, selected.descriptor)
        }
        Some(class) => {
            let mut text = format!(
                "Receiver class {} does not define or inherit an implementation of the resolved method '{}{signature}' of {of}.",
                class.external_name(),
                word(resolved)
            );
            if selected != resolved {
                let signature = link::method_signature(Some(selected.class), selected.name, selected.descriptor);
                text += &format!(" Selected method is '{}{signature}'.", word(selected));
            }
            text
        }
        None => format!("Missing implementation of resolved method '{}{signature}' of {of}.", word(resolved)),
    };
    throw(thread, "java/lang/AbstractMethodError", message)
}

#[cold]
#[inline(never)]
pub(super) fn conflict(thread: &mut Thread, method: Meta<Method>) -> Thrown {
    let declared = method.class.all_interfaces.get().iter();
    let defaults = declared.filter_map(|interface| interface.declared_method(method.name, method.descriptor));
    let names: Vec<String> = defaults
        .filter(|found| !found.is_abstract() && !found.is_static())
        .map(|found| format!("{}.{}", found.class.name, found.name))
        .collect();
    let message = format!("Conflicting default methods: {}", names.join(" "));
    throw(thread, "java/lang/IncompatibleClassChangeError", message)
}

#[cold]
#[inline(never)]
pub(super) fn not_public(thread: &mut Thread, method: Meta<Method>) -> Thrown {
    let message = link::method_text(method.class, method.name, method.descriptor);
    throw(thread, "java/lang/IllegalAccessError", message)
}

/// An interface's `invokespecial` on an object that is none of its own.
#[cold]
#[inline(never)]
pub(super) fn not_below(thread: &mut Thread, class: Meta<Class>, interface: Meta<Class>) -> Thrown {
    let (class, interface) = (class.external_name(), interface.external_name());
    let message = format!("Receiver class {class} must be the current class or a subtype of interface {interface}");
    throw(thread, "java/lang/IllegalAccessError", message)
}

#[cold]
#[inline(never)]
pub(super) fn not_implemented(thread: &mut Thread, class: Meta<Class>, interface: Meta<Class>) -> Thrown {
    let message = format!(
        "Class {} does not implement the requested interface {}",
        class.external_name(),
        interface.external_name()
    );
    throw(thread, "java/lang/IncompatibleClassChangeError", message)
}
