//! `jdk.internal.reflect.ConstantPool`: the constants of a class, as annotations refer to them.

use super::support::{VOID, double, int, long, natives};
use super::{Arguments, java_lang_reflect as reflect};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::known;
use crate::link;
use crate::loader;
use crate::metadata::{Class, Pool, Tag};
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread};

/// The constants of the class that is asked about.
fn pool(arguments: Arguments) -> &'static Pool {
    loader::of_mirror(arguments.reference(1)).constants()
}

/// The index of a constant, if it is of one of the kinds.
fn index(thread: &mut Thread, arguments: Arguments, tags: &[Tag]) -> Result<u16> {
    let pool = pool(arguments);
    let wrong = |thread: &mut Thread, message: &str| {
        Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", message))
    };
    let length = pool.tags.get().len();
    match u16::try_from(arguments.int(2)) {
        Ok(index) if index > 0 && usize::from(index) < length => {
            match tags.is_empty() || tags.contains(&pool.tag(index)) {
                true => Ok(index),
                false => wrong(thread, "Wrong type at constant pool index"),
            }
        }
        _ => wrong(thread, "Constant pool index out of bounds"),
    }
}

const MEMBERS: [Tag; 3] = [Tag::Field, Tag::Method, Tag::InterfaceMethod];
const METHODS: [Tag; 2] = [Tag::Method, Tag::InterfaceMethod];

fn bits(thread: &mut Thread, arguments: Arguments, tag: Tag) -> Result<u64> {
    let index = index(thread, arguments, &[tag])?;
    Ok(pool(arguments).entry(index).value)
}

fn class_at(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let index = index(thread, arguments, &[Tag::Class])?;
    Ok(link::resolve_class(thread, pool(arguments), index)?.mirror().slot())
}

fn class_if_loaded(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let index = index(thread, arguments, &[Tag::Class])?;
    Ok(pool(arguments).class_at(index).map_or(0, |class| class.mirror().slot()))
}

/// The class that a member constant names: looked for, or only if it is resolved.
fn holder(thread: &mut Thread, arguments: Arguments, member: u16, load: bool) -> Result<Option<Meta<Class>>> {
    let pool = pool(arguments);
    let (index, _) = pool.pair(member);
    if load { link::resolve_class(thread, pool, index).map(Some) } else { Ok(pool.class_at(index)) }
}

fn missing(thread: &mut Thread, class: &str, name: Symbol) -> Result<u64> {
    Err(exceptions::throw(thread, class, name.text()))
}

fn method_at(thread: &mut Thread, arguments: Arguments, load: bool) -> Result<u64> {
    let index = index(thread, arguments, &METHODS)?;
    let Some(class) = holder(thread, arguments, index, load)? else { return Ok(VOID) };
    let (_, name, descriptor) = pool(arguments).member(index);
    let inherited = || class.all_interfaces.get().iter().find_map(|each| each.declared_method(name, descriptor));
    match class.find_method(name, descriptor).or_else(inherited) {
        Some(method) => Ok(reflect::reflected(thread, method)?.slot()),
        None => missing(thread, "java/lang/NoSuchMethodError", name),
    }
}

fn field_at(thread: &mut Thread, arguments: Arguments, load: bool) -> Result<u64> {
    let index = index(thread, arguments, &[Tag::Field])?;
    let Some(class) = holder(thread, arguments, index, load)? else { return Ok(VOID) };
    let (_, name, descriptor) = pool(arguments).member(index);
    let Some((class, field)) = class.find_field(name, descriptor) else {
        return missing(thread, "java/lang/NoSuchFieldError", name);
    };
    Ok(reflect::reflected_field(thread, class, field)?.slot())
}

fn texts(thread: &mut Thread, symbols: &[Symbol]) -> Result<u64> {
    let count = u32::try_from(symbols.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, known::string(), count)?;
    let array = thread.handle(array);
    for (index, &symbol) in (0..count).zip(symbols) {
        let text = strings::from_symbol(thread, symbol)?;
        array.get().set_reference_element(index, text);
    }
    Ok(array.slot())
}

natives! { "jdk/internal/reflect/ConstantPool":
    "getSize0" "" => |_, a| Ok(int(i32::try_from(pool(a).tags.get().len()).unwrap_or(i32::MAX)));
    "getClassAt0" "" => class_at;
    "getClassAtIfLoaded0" "" => class_if_loaded;
    "getClassRefIndexAt0" "" => |thread, a| {
        let index = index(thread, a, &MEMBERS)?;
        Ok(u64::from(pool(a).pair(index).0))
    };
    "getMethodAt0" "" => |thread, a| method_at(thread, a, true);
    "getMethodAtIfLoaded0" "" => |thread, a| method_at(thread, a, false);
    "getFieldAt0" "" => |thread, a| field_at(thread, a, true);
    "getFieldAtIfLoaded0" "" => |thread, a| field_at(thread, a, false);
    "getMemberRefInfoAt0" "" => |thread, a| {
        let index = index(thread, a, &MEMBERS)?;
        let (class, name, descriptor) = pool(a).member(index);
        texts(thread, &[class, name, descriptor])
    };
    "getNameAndTypeRefIndexAt0" "" => |thread, a| {
        let kinds = [Tag::Field, Tag::Method, Tag::InterfaceMethod, Tag::Dynamic, Tag::InvokeDynamic];
        let index = index(thread, a, &kinds)?;
        Ok(u64::from(pool(a).pair(index).1))
    };
    "getNameAndTypeRefInfoAt0" "" => |thread, a| {
        let index = index(thread, a, &[Tag::NameAndType])?;
        let (name, descriptor) = pool(a).name_and_type(index);
        texts(thread, &[name, descriptor])
    };
    "getIntAt0" "" => |thread, a| bits(thread, a, Tag::Integer);
    "getFloatAt0" "" => |thread, a| bits(thread, a, Tag::Float);
    "getLongAt0" "" => |thread, a| bits(thread, a, Tag::Long).map(|bits| long(bits.cast_signed()));
    "getDoubleAt0" "" => |thread, a| bits(thread, a, Tag::Double).map(|bits| double(f64::from_bits(bits)));
    "getStringAt0" "" => |thread, a| {
        let index = index(thread, a, &[Tag::String])?;
        let text = pool(a).symbol(index);
        Ok(strings::intern_symbol(thread, text)?.get().slot())
    };
    "getUTF8At0" "" => |thread, a| {
        let index = index(thread, a, &[Tag::Utf8])?;
        let text = pool(a).symbol(index);
        Ok(strings::from_symbol(thread, text)?.slot())
    };
    "getTagAt0" "" => |thread, a| {
        let index = index(thread, a, &[])?;
        Ok(int(i32::from(pool(a).tag(index) as u8)))
    };
}
