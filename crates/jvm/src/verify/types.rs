//! What verifiers know of a value: its type, and which type may stand for which.

use std::collections::HashMap;
use std::rc::Rc;

use classfile::names::{Base, FieldType};

use super::{Hierarchy, Problem};

/// The type of a slot of a frame (JVMS 4.10.1.2). A long or double takes two slots, the second of which has a type of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    /// Nothing that may be used.
    Top,
    Int,
    Float,
    Long,
    LongSecond,
    Double,
    DoubleSecond,
    Null,
    /// `this` in a constructor, before another constructor was called.
    UninitializedThis,
    /// What `new` at this offset made, before its constructor was called.
    Uninitialized(u16),
    /// Where `jsr` to the subroutine at this offset came from. Only in old class files.
    ReturnAddress(u16),
    Reference(Name),
}

impl Type {
    /// The second slot that this type needs.
    pub(super) fn second(self) -> Option<Self> {
        match self {
            Type::Long => Some(Type::LongSecond),
            Type::Double => Some(Type::DoubleSecond),
            _ => None,
        }
    }

    pub(super) fn is_second(self) -> bool {
        matches!(self, Type::LongSecond | Type::DoubleSecond)
    }

    /// Whether it takes one slot.
    pub(super) fn is_single(self) -> bool {
        !self.is_second() && self.second().is_none()
    }

    pub(super) fn is_reference_or_uninitialized(self) -> bool {
        matches!(self, Type::Null | Type::UninitializedThis | Type::Uninitialized(_) | Type::Reference(_))
    }
}

/// The name of a class, or the descriptor of an array, as a number; equal names have equal numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct Name(u32);

/// The names that a class's verification came across.
pub(super) struct Names {
    texts: Vec<Rc<[u8]>>,
    numbers: HashMap<Rc<[u8]>, Name>,
}

impl Names {
    /// Always the first.
    pub(super) const OBJECT: Name = Name(0);

    pub(super) fn new() -> Self {
        let mut names = Self { texts: Vec::new(), numbers: HashMap::new() };
        names.name(b"java/lang/Object");
        names
    }

    pub(super) fn name(&mut self, text: &[u8]) -> Name {
        if let Some(&name) = self.numbers.get(text) {
            return name;
        }
        // A class has at most 65,535 constants, and their names at most 255 component types.
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Rc<[u8]> = text.into();
        self.texts.push(Rc::clone(&text));
        self.numbers.insert(text, name);
        name
    }

    pub(super) fn text(&self, name: Name) -> Rc<[u8]> {
        Rc::clone(&self.texts[name.0 as usize])
    }

    pub(super) fn is_array(&self, name: Name) -> bool {
        self.texts[name.0 as usize].first() == Some(&b'[')
    }

    /// The type of a class constant.
    pub(super) fn reference(&mut self, text: &[u8]) -> Type {
        Type::Reference(self.name(text))
    }

    /// The type of values of a field or parameter; `Top` for `void`.
    pub(super) fn of(&mut self, field: FieldType<'_>) -> Type {
        match (field.dimensions, field.base) {
            (0, Base::Class(name)) => self.reference(name),
            (0, Base::Byte | Base::Char | Base::Int | Base::Short | Base::Boolean) => Type::Int,
            (0, Base::Float) => Type::Float,
            (0, Base::Long) => Type::Long,
            (0, Base::Double) => Type::Double,
            (0, Base::Void) => Type::Top,
            _ => self.reference(field.descriptor),
        }
    }

    /// The type of the elements of an array of references; `None` if it is something else.
    pub(super) fn reference_component(&mut self, array: Name) -> Option<Type> {
        let text = self.text(array);
        match text.strip_prefix(b"[")? {
            component @ [b'[', ..] => Some(self.reference(component)),
            [b'L', class @ .., b';'] => Some(self.reference(class)),
            _ => None,
        }
    }

    /// The array type whose elements have this type.
    pub(super) fn array_of(&mut self, component: &[u8]) -> Type {
        let text =
            if component.starts_with(b"[") { [b"[", component].concat() } else { [b"[L", component, b";"].concat() };
        self.reference(&text)
    }

    /// As HotSpot's messages write it.
    pub(super) fn describe(&self, of: Type) -> String {
        match of {
            Type::Top => "top".into(),
            Type::Int => "integer".into(),
            Type::Float => "float".into(),
            Type::Long => "long".into(),
            Type::LongSecond => "long_2nd".into(),
            Type::Double => "double".into(),
            Type::DoubleSecond => "double_2nd".into(),
            Type::Null => "null".into(),
            Type::UninitializedThis => "uninitializedThis".into(),
            Type::Uninitialized(offset) => format!("uninitialized {offset}"),
            Type::ReturnAddress(_) => "return address".into(),
            Type::Reference(name) => format!("'{}'", classfile::mutf8::decode(&self.text(name))),
        }
    }

    /// Whether a value of type `from` may be used as one of `to`. With `protected`, what is at stake is access to a protected member.
    pub(super) fn assignable<H: Hierarchy>(
        &mut self,
        from: Type,
        to: Type,
        protected: bool,
        hierarchy: &mut H,
    ) -> Result<bool, Problem<H::Failure>> {
        match (from, to) {
            (_, Type::Top) => Ok(true),
            (Type::Null, Type::Reference(_)) => Ok(true),
            (Type::Reference(from), Type::Reference(to)) if from != to => {
                self.reference_assignable(from, to, protected, hierarchy)
            }
            _ => Ok(from == to),
        }
    }

    fn reference_assignable<H: Hierarchy>(
        &mut self,
        from: Name,
        to: Name,
        protected: bool,
        hierarchy: &mut H,
    ) -> Result<bool, Problem<H::Failure>> {
        if to == Self::OBJECT {
            return Ok(true);
        }
        if self.is_array(to) {
            if !self.is_array(from) {
                return Ok(false);
            }
            return match (self.reference_component(from), self.reference_component(to)) {
                (Some(from), Some(to)) => self.assignable(from, to, protected, hierarchy),
                // At least one is of numbers; different ones, since they are different types.
                _ => Ok(false),
            };
        }
        let (from_text, to_text) = (self.text(from), self.text(to));
        // Verification treats interfaces like Object; calling through one checks.
        if hierarchy.is_interface(&to_text).map_err(Problem::Load)? && (!protected || from != Self::OBJECT) {
            return Ok(!self.is_array(from) || matches!(&*to_text, b"java/lang/Cloneable" | b"java/io/Serializable"));
        }
        if self.is_array(from) {
            return Ok(false);
        }
        hierarchy.is_subclass(&from_text, &to_text).map_err(Problem::Load)
    }

    /// The type that both may be used as, for the inferring verifier: the first common superclass (JVMS 4.10.2.2).
    pub(super) fn merge<H: Hierarchy>(
        &mut self,
        a: Type,
        b: Type,
        hierarchy: &mut H,
    ) -> Result<Type, Problem<H::Failure>> {
        match (a, b) {
            _ if a == b => Ok(a),
            (Type::Null, Type::Reference(_)) => Ok(b),
            (Type::Reference(_), Type::Null) => Ok(a),
            (Type::Reference(a), Type::Reference(b)) => self.merge_names(a, b, hierarchy).map(Type::Reference),
            _ => Ok(Type::Top),
        }
    }

    fn merge_names<H: Hierarchy>(&mut self, a: Name, b: Name, hierarchy: &mut H) -> Result<Name, Problem<H::Failure>> {
        if a == b {
            return Ok(a);
        }
        if a == Self::OBJECT || b == Self::OBJECT {
            return Ok(Self::OBJECT);
        }
        if self.is_array(a) && self.is_array(b) {
            return match (self.reference_component(a), self.reference_component(b)) {
                (Some(Type::Reference(a)), Some(Type::Reference(b))) => {
                    let merged = self.merge_names(a, b, hierarchy)?;
                    let text = self.text(merged);
                    match self.array_of(&text) {
                        Type::Reference(name) => Ok(name),
                        _ => Ok(Self::OBJECT),
                    }
                }
                _ => Ok(Self::OBJECT),
            };
        }
        if self.is_array(a) || self.is_array(b) {
            // Of an array and an interface that arrays have, that interface.
            let other = if self.is_array(a) { b } else { a };
            let text = self.text(other);
            let kept = matches!(&*text, b"java/lang/Cloneable" | b"java/io/Serializable");
            return Ok(if kept { other } else { Self::OBJECT });
        }
        // If either is an interface, what both have in common may as well be Object: interfaces are not checked here.
        if hierarchy.is_interface(&self.text(a)).map_err(Problem::Load)?
            || hierarchy.is_interface(&self.text(b)).map_err(Problem::Load)?
        {
            return Ok(Self::OBJECT);
        }
        let mut above = self.text(a).to_vec();
        let b_text = self.text(b);
        loop {
            if *above == *b_text || hierarchy.is_subclass(&b_text, &above).map_err(Problem::Load)? {
                return Ok(self.name(&above));
            }
            match hierarchy.superclass(&above).map_err(Problem::Load)? {
                Some(superclass) => above = superclass,
                None => return Ok(Self::OBJECT),
            }
        }
    }
}
