//! Verification of a class while it is linked: the verifier's questions answered by the class's loader.

use std::sync::atomic::{AtomicBool, Ordering};

use classfile::{ClassFile, Options, flags};

use super::resolve;
use crate::arena::Meta;
use crate::exceptions;
use crate::loader;
use crate::log;
use crate::metadata::Class;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};
use crate::verify::{self, Error, Hierarchy, MemberKind};

/// `-Xverify:all`
static VERIFIES_ALL: AtomicBool = AtomicBool::new(false);

/// From now on the classes of the boot image are verified, too.
pub fn verify_all() {
    VERIFIES_ALL.store(true, Ordering::Relaxed);
}

/// Verifies a class, unless it is one of the boot image or of reflection.
///
/// # Errors
/// VerifyError and the like, or what loading a class that must be known throws.
pub(super) fn verify(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    let (start, length) = class.class_file;
    if length == 0 {
        // The library's classes are in its image.
        let file = if VERIFIES_ALL.load(Ordering::Relaxed) { loader::boot_file(class.name.bytes()) } else { None };
        return file.map_or(Ok(()), |bytes| verify_file(thread, class, bytes));
    }
    // SAFETY: the class's file is in its loader's part of the arena, which lives as long as the class, and is never written.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), length) };
    verify_file(thread, class, bytes)
}

/// Verifies what a class is, or will be when it is redefined.
///
/// # Errors
/// As [`verify()`].
pub(super) fn verify_file(thread: &mut Thread, class: Meta<Class>, bytes: &[u8]) -> Result<()> {
    if (class.trusted && !VERIFIES_ALL.load(Ordering::Relaxed)) || super::is_magic(class) {
        return Ok(());
    }
    let renamed;
    let bytes = if class.hidden {
        renamed = with_own_name(bytes, class.name.bytes());
        &renamed
    } else {
        bytes
    };
    let options = Options { name: None, preview: class.minor_version == u16::MAX };
    let file = match ClassFile::parse(bytes, options) {
        Ok(file) => file,
        Err(error) => return Err(exceptions::throw(thread, error.java_class(), error.to_string())),
    };
    let mut asked = Asked { thread, class };
    match verify::verify(&file, &mut asked) {
        Ok(()) => Ok(()),
        Err(Error::Verify(text)) => Err(exceptions::throw(asked.thread, "java/lang/VerifyError", text)),
        Err(Error::Format(text)) => Err(exceptions::throw(asked.thread, "java/lang/ClassFormatError", text)),
        Err(Error::Load(thrown)) => Err(thrown),
    }
}

/// The file of a hidden class with the name that it has got as the class that it is; elsewhere the old name means another class, if any (JVMS 5.4.3.1 and
/// `Lookup.defineHiddenClass`). The file was parsed before.
fn with_own_name(bytes: &[u8], name: &[u8]) -> Vec<u8> {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let count = u16_at(8);
    let mut at = 10;
    let mut places = vec![0; count];
    let mut index = 1;
    while index < count {
        places[index] = at;
        let (size, entries) = match bytes[at] {
            1 => (3 + u16_at(at + 1), 1),
            5 | 6 => (9, 2),
            7 | 8 | 16 | 19 | 20 => (3, 1),
            15 => (4, 1),
            _ => (5, 1),
        };
        at += size;
        index += entries;
    }
    let this_class = places[u16_at(at + 2)];
    let (Ok(new), Some(more)) = (u16::try_from(count), u16::try_from(count + 1).ok()) else { return bytes.to_vec() };
    let mut renamed = bytes[..at].to_vec();
    renamed[8..10].copy_from_slice(&more.to_be_bytes());
    renamed[this_class + 1..this_class + 3].copy_from_slice(&new.to_be_bytes());
    renamed.push(1);
    renamed.extend(u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
    renamed.extend_from_slice(name);
    renamed.extend_from_slice(&bytes[at..]);
    renamed
}

/// A class that is verified.
struct Asked<'t> {
    thread: &'t mut Thread,
    class: Meta<Class>,
}

impl Asked<'_> {
    fn load(&mut self, name: &[u8]) -> Result<Meta<Class>> {
        // Of a hidden class only this is found by its name.
        if name == self.class.name.bytes() {
            return Ok(self.class);
        }
        let name = Symbol::new(name);
        let data = loader::data(self.class.loader);
        let loaded = loader::load(self.thread, name, data);
        if loaded.is_ok() {
            log::tell(log::RESOLVE, &|| {
                let source = self.class.source_file.map_or_else(String::new, |file| format!(" {}", file.text()));
                format!("{} {}{source} (verification)", self.class.external_name(), name.dotted())
            });
        }
        loaded.map_err(|thrown| resolve::class_not_found(self.thread, name, thrown))
    }
}

impl Hierarchy for Asked<'_> {
    type Failure = Thrown;

    fn is_interface(&mut self, class: &[u8]) -> Result<bool> {
        Ok(self.load(class)?.is_interface())
    }

    fn is_subclass(&mut self, class: &[u8], other: &[u8]) -> Result<bool> {
        let other = self.load(other)?;
        let class = self.load(class)?;
        Ok(class.is_subtype_of(other))
    }

    fn superclass(&mut self, class: &[u8]) -> Result<Option<Vec<u8>>> {
        let class = self.load(class)?;
        Ok(class.super_class.map(|above| above.name.bytes().to_vec()))
    }

    fn has_superclass(&mut self, name: &[u8]) -> bool {
        self.class.superclasses().skip(1).any(|above| above.name.bytes() == name)
    }

    fn is_protected_elsewhere(
        &mut self,
        class: &[u8],
        name: &[u8],
        descriptor: &[u8],
        kind: MemberKind,
    ) -> Result<bool> {
        let class = self.load(class)?;
        let Some((name, descriptor)) = Symbol::find(name).zip(Symbol::find(descriptor)) else { return Ok(false) };
        let found = match kind {
            MemberKind::Field => class.find_field(name, descriptor).map(|(holder, field)| (holder, field.flags)),
            MemberKind::Method => class.find_method(name, descriptor).map(|method| (method.class, method.flags)),
        };
        Ok(found
            .is_some_and(|(holder, modifiers)| modifiers & flags::PROTECTED != 0 && !holder.same_package(self.class)))
    }
}
