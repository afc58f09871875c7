//! What the parts of a class file need to know of it while they are parsed: its name for messages, and the rules of its version.

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::names::{self, FieldType, MethodType};
use crate::{flags, mutf8};

/// The oldest version of class files.
const MAJOR_MIN: u16 = 45;
/// The newest: that of JDK 17.
const MAJOR_MAX: u16 = 61;
const PREVIEW: u16 = 65_535;

/// What the parts of a class file need to know of it.
pub(crate) struct Context<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) access_flags: u16,
}

impl<'a> Context<'a> {
    /// The class's name for messages.
    pub(crate) fn name(&self) -> String {
        mutf8::decode(self.name)
    }

    /// Fails with a message that ends by naming the class file.
    pub(crate) fn error<T>(&self, message: impl Display) -> Result<T> {
        self.error_text(format!("{message} in class file {}", self.name()))
    }

    /// Whether a descriptor goes wrong at the name of a class.
    fn has_illegal_class(&self, descriptor: &[u8]) -> bool {
        let mut rest = descriptor;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first == b'L' {
                let Some(end) = after.iter().position(|&byte| byte == b';') else { return false };
                if !names::is_internal_name(&after[..end], self.major) {
                    return true;
                }
                rest = &after[end + 1..];
            }
        }
        false
    }

    /// Fails with a message.
    pub(crate) fn error_text<T>(&self, message: String) -> Result<T> {
        Err(Error::Format(message))
    }

    pub(crate) fn is_interface(&self) -> bool {
        self.access_flags & flags::INTERFACE != 0
    }

    pub(crate) fn check_version(&self, preview: bool) -> Result<()> {
        let Self { major, minor, .. } = *self;
        let name = self.name();
        let version = format!("(class file version {major}.{minor})");
        let problem = if major < MAJOR_MIN {
            format!("{name} {version} was compiled with an invalid major version")
        } else if major > MAJOR_MAX {
            format!(
                "{name} has been compiled by a more recent version of the Java Runtime {version}, this version of the \
                 Java Runtime only recognizes class file versions up to {MAJOR_MAX}.0"
            )
        } else if major < 56 || minor == 0 {
            return Ok(());
        } else if minor != PREVIEW {
            format!("{name} {version} was compiled with an invalid non-zero minor version")
        } else if major != MAJOR_MAX {
            format!(
                "{name} {version} was compiled with preview features that are unsupported. This version of the Java \
                 Runtime only recognizes preview features for class file version {MAJOR_MAX}.{PREVIEW}"
            )
        } else if !preview {
            format!("Preview features are not enabled for {name} {version}. Try running with '--enable-preview'")
        } else {
            return Ok(());
        };
        Err(Error::UnsupportedVersion(problem))
    }

    pub(crate) fn check_class_flags(&self) -> Result<()> {
        let has = |flag: u16| self.access_flags & flag != 0;
        let modern = self.major >= 49;
        let illegal = (has(flags::ABSTRACT) && has(flags::FINAL))
            || (has(flags::INTERFACE) && !has(flags::ABSTRACT))
            || (has(flags::INTERFACE) && has(flags::FINAL))
            || (has(flags::INTERFACE) && modern && has(flags::SUPER | flags::ENUM))
            || (!has(flags::INTERFACE) && modern && has(flags::ANNOTATION));
        if illegal {
            return self.error_text(format!(
                "Illegal class modifiers in class {}: 0x{:X}",
                self.name(),
                self.access_flags
            ));
        }
        Ok(())
    }

    pub(crate) fn check_field_flags(&self, access_flags: u16) -> Result<()> {
        let has = |flag: u16| access_flags & flag != 0;
        let illegal = if self.is_interface() {
            let constant = flags::PUBLIC | flags::STATIC | flags::FINAL;
            access_flags & constant != constant
                || has(flags::PRIVATE | flags::PROTECTED | flags::VOLATILE | flags::TRANSIENT)
                || (self.major >= 49 && has(flags::ENUM))
        } else {
            flags::has_two_visibilities(access_flags) || (has(flags::FINAL) && has(flags::VOLATILE))
        };
        if illegal {
            return self.error_text(format!("Illegal field modifiers in class {}: 0x{access_flags:X}", self.name()));
        }
        Ok(())
    }

    pub(crate) fn check_method_flags(&self, access_flags: u16, name: &[u8]) -> Result<()> {
        use flags::{ABSTRACT, BRIDGE, FINAL, NATIVE, PRIVATE, PROTECTED, PUBLIC, STATIC, STRICT, SYNCHRONIZED};
        let has = |flag: u16| access_flags & flag != 0;
        // `strictfp` has no meaning, so no contradiction, from version 60 on.
        let strict = self.major < 61 && has(STRICT);
        let illegal = if self.is_interface() {
            match self.major {
                52.. => {
                    has(PUBLIC) == has(PRIVATE)
                        || has(NATIVE | PROTECTED | FINAL | SYNCHRONIZED)
                        || (has(ABSTRACT) && (has(PRIVATE | STATIC) || strict))
                }
                49.. => {
                    !has(PUBLIC)
                        || !has(ABSTRACT)
                        || has(PRIVATE | PROTECTED | STATIC | FINAL | SYNCHRONIZED | NATIVE | STRICT)
                }
                _ => !has(PUBLIC) || !has(ABSTRACT) || has(STATIC | FINAL | NATIVE),
            }
        } else if flags::has_two_visibilities(access_flags) {
            true
        } else if name == b"<init>" {
            has(STATIC | FINAL | SYNCHRONIZED | NATIVE | ABSTRACT) || (self.major >= 49 && has(BRIDGE))
        } else {
            has(ABSTRACT)
                && (has(FINAL | NATIVE | PRIVATE | STATIC) || (self.major >= 49 && (has(SYNCHRONIZED) || strict)))
        };
        if illegal {
            return self.error_text(format!(
                "Method {} in class {} has illegal modifiers: 0x{access_flags:X}",
                mutf8::decode(name),
                self.name()
            ));
        }
        Ok(())
    }

    pub(crate) fn check_field_name(&self, name: &[u8]) -> Result<()> {
        if names::is_field_name(name, self.major) {
            return Ok(());
        }
        self.error_text(format!("Illegal field name \"{}\" in class {}", mutf8::decode(name), self.name()))
    }

    pub(crate) fn check_method_name(&self, name: &[u8]) -> Result<()> {
        if names::is_method_name(name, self.major) {
            return Ok(());
        }
        self.error_text(format!("Illegal method name \"{}\" in class {}", mutf8::decode(name), self.name()))
    }

    pub(crate) fn illegal_class_name<T>(&self, name: &[u8]) -> Result<T> {
        self.error(format_args!("Illegal class name \"{}\"", mutf8::decode(name)))
    }

    pub(crate) fn illegal_signature<T>(&self, what: &str, name: &[u8], descriptor: &[u8]) -> Result<T> {
        if self.major >= 49 && self.has_illegal_class(descriptor) {
            return self.error("Class name is empty or contains illegal character in descriptor");
        }
        self.error_text(format!(
            "{what} \"{}\" in class {} has illegal signature \"{}\"",
            mutf8::decode(name),
            self.name(),
            mutf8::decode(descriptor)
        ))
    }

    pub(crate) fn check_field_descriptor(&self, name: &[u8], descriptor: &[u8]) -> Result<()> {
        match FieldType::parse_prefix(descriptor, self.major) {
            Some((_, [])) => Ok(()),
            _ => self.illegal_signature("Field", name, descriptor),
        }
    }

    /// Checks the descriptor of a method of this name. Returns the slots that its parameters take.
    pub(crate) fn check_method_descriptor(&self, name: &[u8], descriptor: &[u8]) -> Result<u16> {
        // A class initializer takes no arguments, and what begins with `<` returns nothing.
        let initializer = name == b"<clinit>" && self.major >= 51 && descriptor != b"()V";
        match MethodType::parse_version(descriptor, self.major) {
            Some(method) if !initializer && (!name.starts_with(b"<") || descriptor.ends_with(b")V")) => {
                Ok(method.argument_slots)
            }
            _ => self.illegal_signature("Method", name, descriptor),
        }
    }
}
