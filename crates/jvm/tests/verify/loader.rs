//! A class loader that only knows files: those of the JDK's image, and before them those of a jar. It answers what verification asks, and links as
//! far as the verdict on a class depends on it.

use std::collections::HashMap;
use std::rc::Rc;

use classfile::jar::Jar;
use classfile::jimage::Image;
use classfile::{ClassFile, Options, flags};
use jvm::verify::{self, Hierarchy, MemberKind};

/// What the loader keeps of a class.
struct Known {
    name: Vec<u8>,
    flags: u16,
    superclass: Option<Vec<u8>>,
    permitted: Option<Vec<Vec<u8>>>,
    fields: Vec<(Vec<u8>, Vec<u8>, u16)>,
    methods: Vec<(Vec<u8>, Vec<u8>, u16)>,
}

impl Known {
    fn new(class: &ClassFile<'_>) -> Self {
        let name = |index: u16| class.constants.class_name(index).unwrap().to_vec();
        let of_member = |name: &[u8], descriptor: &[u8], flags: u16| (name.to_vec(), descriptor.to_vec(), flags);
        Self {
            name: class.name.to_vec(),
            flags: class.access_flags,
            superclass: class.super_name.map(<[u8]>::to_vec),
            permitted: class.permitted_subclasses.map(|classes| classes.iter().map(name).collect()),
            fields: class
                .fields
                .iter()
                .map(|field| of_member(field.name, field.descriptor, field.access_flags))
                .collect(),
            methods: class
                .methods
                .iter()
                .map(|method| of_member(method.name, method.descriptor, method.access_flags))
                .collect(),
        }
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

pub(crate) struct Loader<'a> {
    image: Image<'a>,
    jar: Option<&'a Jar<'a>>,
    known: HashMap<Vec<u8>, Option<Rc<Known>>>,
    /// The class that is verified, which `known` has.
    pub(crate) verifying: Option<Vec<u8>>,
}

fn package(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&byte| byte == b'/').map_or(&[], |end| &name[..end])
}

impl<'a> Loader<'a> {
    pub(crate) fn new(image: Image<'a>, jar: Option<&'a Jar<'a>>) -> Self {
        Self { image, jar, known: HashMap::new(), verifying: None }
    }

    fn load(&mut self, name: &[u8]) -> Result<Rc<Known>, String> {
        let text = || format!("java.lang.NoClassDefFoundError: {}", String::from_utf8_lossy(name));
        if let Some(known) = self.known.get(name) {
            return known.clone().ok_or_else(text);
        }
        let path = format!("{}.class", String::from_utf8_lossy(name));
        let entry = self.jar.and_then(|jar| jar.entry(&path).map(|entry| jar.read(entry).unwrap()));
        let bytes = entry.or_else(|| {
            let package = package(name);
            let module = self.image.module_of_package(str::from_utf8(package).ok()?)?;
            let location = self.image.find(str::from_utf8(module).ok()?, &path)?;
            self.image.stored(&location).map(Into::into)
        });
        let known = bytes.and_then(|bytes| {
            ClassFile::parse(&bytes, Options { name: Some(name), preview: false })
                .ok()
                .map(|class| Rc::new(Known::new(&class)))
        });
        self.known.insert(name.to_vec(), known.clone());
        known.ok_or_else(text)
    }

    fn supers(&mut self, name: &[u8]) -> Vec<Rc<Known>> {
        let mut all = Vec::new();
        let mut next = Some(name.to_vec());
        while let Some(class) = next.and_then(|name| self.load(&name).ok()) {
            next = class.superclass.clone();
            all.push(class);
        }
        all
    }

    /// What becomes of a class that is defined from these bytes: `OK`, or the exception as Java prints it.
    pub(crate) fn verdict(&mut self, name: &str, bytes: &[u8]) -> String {
        let class = match ClassFile::parse(bytes, Options { name: Some(name.as_bytes()), preview: false }) {
            Ok(class) => class,
            Err(error) => return exception(error.java_class(), &error),
        };
        self.known.insert(class.name.to_vec(), Some(Rc::new(Known::new(&class))));
        self.verifying = Some(class.name.to_vec());
        let verdict = match self.link(&class) {
            Err(text) => text,
            Ok(()) => match verify::verify(&class, self) {
                Ok(()) => "OK".into(),
                Err(verify::Error::Verify(text)) => exception("java/lang/VerifyError", text.lines().next().unwrap()),
                Err(verify::Error::Format(text)) => exception("java/lang/ClassFormatError", text),
                Err(verify::Error::Load(text)) => text,
            },
        };
        self.known.remove(class.name);
        verdict
    }

    /// What linking checks of the classes above: whether they may be there.
    fn link(&mut self, class: &ClassFile<'_>) -> Result<(), String> {
        let accessible = |other: &Known| other.has(flags::PUBLIC) || package(&other.name) == package(class.name);
        let error = |kind: &str| Err(format!("java.lang.{kind}: "));
        if let Some(name) = class.super_name {
            if name == class.name {
                return error("ClassCircularityError");
            }
            let superclass = self.load(name)?;
            let sealed = superclass.permitted.as_ref().is_some_and(|all| !all.iter().any(|name| name == class.name));
            if superclass.has(flags::INTERFACE | flags::FINAL) || sealed {
                return error("IncompatibleClassChangeError");
            }
            if !accessible(&superclass) {
                return error("IllegalAccessError");
            }
        }
        for name in class.interfaces.iter().map(|index| class.constants.class_name(index).unwrap()) {
            if name == class.name {
                return error("ClassCircularityError");
            }
            let interface = self.load(name)?;
            if !interface.has(flags::INTERFACE) {
                return error("IncompatibleClassChangeError");
            }
            if !accessible(&interface) {
                return error("IllegalAccessError");
            }
        }
        let above = self.supers(class.name);
        for method in class.methods.iter().filter(|method| method.access_flags & (flags::STATIC | flags::PRIVATE) == 0)
        {
            if method.name.starts_with(b"<") || class.is_interface() {
                continue;
            }
            for other in &above[1.min(above.len())..] {
                let overridden = other.methods.iter().find(|(name, descriptor, modifiers)| {
                    name == method.name
                        && descriptor == method.descriptor
                        && modifiers & (flags::STATIC | flags::PRIVATE) == 0
                        && (modifiers & (flags::PUBLIC | flags::PROTECTED) != 0
                            || package(&other.name) == package(class.name))
                });
                if overridden.is_some_and(|(_, _, modifiers)| modifiers & flags::FINAL != 0) {
                    return error("IncompatibleClassChangeError");
                }
            }
        }
        Ok(())
    }
}

fn exception(class: &str, text: impl std::fmt::Display) -> String {
    format!("{}: {text}", class.replace('/', "."))
}

impl Hierarchy for Loader<'_> {
    type Failure = String;

    fn is_interface(&mut self, class: &[u8]) -> Result<bool, String> {
        Ok(self.load(class)?.has(flags::INTERFACE))
    }

    fn is_subclass(&mut self, class: &[u8], other: &[u8]) -> Result<bool, String> {
        self.load(other)?;
        self.load(class)?;
        if self.supers(class).iter().any(|above| above.name == other) {
            return Ok(true);
        }
        Ok(false)
    }

    fn superclass(&mut self, class: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.load(class)?.superclass.clone())
    }

    fn has_superclass(&mut self, name: &[u8]) -> bool {
        let class = self.verifying.clone().unwrap();
        self.supers(&class)[1..].iter().any(|above| above.name == name)
    }

    fn is_protected_elsewhere(
        &mut self,
        class: &[u8],
        name: &[u8],
        descriptor: &[u8],
        kind: MemberKind,
    ) -> Result<bool, String> {
        self.load(class)?;
        let own = self.verifying.clone().unwrap();
        for above in self.supers(class) {
            let members = match kind {
                MemberKind::Field => &above.fields,
                MemberKind::Method => &above.methods,
            };
            if let Some((_, _, modifiers)) = members.iter().find(|member| member.0 == name && member.1 == descriptor) {
                return Ok(modifiers & flags::PROTECTED != 0 && package(&above.name) != package(&own));
            }
        }
        Ok(false)
    }
}
