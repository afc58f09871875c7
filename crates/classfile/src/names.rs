//! Names and descriptors (JVMS 4.2 and 4.3).

use std::fmt;

use crate::mutf8;

/// The version from which names may hold any character but a few; before, they are Java identifiers.
const FREE_NAMES: u16 = 49;

/// Array types have at most so many dimensions.
pub const DIMENSIONS_MAX: usize = 255;
/// The arguments of a method take at most so many slots, the receiver included.
pub const ARGUMENT_SLOTS_MAX: u16 = 255;

/// Whether `name` may name a field or local variable, in a class file of version `major`.
pub fn is_field_name(name: &[u8], major: u16) -> bool {
    if major >= FREE_NAMES { is_unqualified(name) } else { is_java_identifier(name) }
}

/// Whether `name` may name a method. `<init>` and `<clinit>` may.
pub fn is_method_name(name: &[u8], major: u16) -> bool {
    match name {
        b"<init>" | b"<clinit>" => true,
        _ if major >= FREE_NAMES => is_unqualified(name) && !name.contains(&b'<') && !name.contains(&b'>'),
        _ => is_java_identifier(name),
    }
}

/// Whether `name` may be that of a class in a constant: an internal name, or the descriptor of an array.
pub fn is_class_name(name: &[u8], major: u16) -> bool {
    match name.first() {
        None => false,
        Some(b'[') => FieldType::parse_prefix(name, major).is_some_and(|(_, rest)| rest.is_empty()),
        Some(_) => is_internal_name(name, major),
    }
}

/// Whether `name` is the internal form of the name of a class or interface: identifiers with `/` between them.
pub fn is_internal_name(name: &[u8], major: u16) -> bool {
    name.split(|&byte| byte == b'/').all(|part| is_field_name(part, major))
}

fn is_unqualified(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'.' | b';' | b'[' | b'/'))
}

fn is_java_identifier(name: &[u8]) -> bool {
    if name.iter().all(u8::is_ascii) {
        return name.first().is_some_and(|first| !first.is_ascii_digit())
            && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$');
    }
    let text = mutf8::decode(name);
    let starts = |c: char| c.is_alphabetic() || c == '_' || c == '$' || is_currency(c);
    text.starts_with(starts) && text.chars().all(|c| starts(c) || c.is_numeric() || is_ignorable(c))
}

fn is_currency(c: char) -> bool {
    matches!(c, '\u{A2}'..='\u{A5}' | '\u{20A0}'..='\u{20CF}')
}

fn is_ignorable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{203F}' | '\u{2040}')
}

/// What a field descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base<'a> {
    /// `B`
    Byte,
    /// `C`
    Char,
    /// `D`
    Double,
    /// `F`
    Float,
    /// `I`
    Int,
    /// `J`
    Long,
    /// `S`
    Short,
    /// `Z`
    Boolean,
    /// `L...;`: the internal name.
    Class(&'a [u8]),
    /// `V`, only as what a method returns.
    Void,
}

/// A type as descriptors write it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldType<'a> {
    /// As it was written, for example `[Ljava/lang/String;`.
    pub descriptor: &'a [u8],
    /// Dimensions if it is an array, else 0.
    pub dimensions: u8,
    /// The type, or that of an array's innermost elements.
    pub base: Base<'a>,
}

impl fmt::Debug for FieldType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mutf8::decode(self.descriptor))
    }
}

impl<'a> FieldType<'a> {
    /// A descriptor that is nothing but one type.
    pub fn parse(descriptor: &'a [u8]) -> Option<Self> {
        Self::parse_prefix(descriptor, u16::MAX).filter(|(_, rest)| rest.is_empty()).map(|(parsed, _)| parsed)
    }

    /// The type at the beginning, and what is after it.
    pub fn parse_prefix(text: &'a [u8], major: u16) -> Option<(Self, &'a [u8])> {
        let dimensions = text.iter().take_while(|&&byte| byte == b'[').count();
        let (&first, rest) = text.get(dimensions..)?.split_first()?;
        let (base, rest) = match first {
            b'B' => (Base::Byte, rest),
            b'C' => (Base::Char, rest),
            b'D' => (Base::Double, rest),
            b'F' => (Base::Float, rest),
            b'I' => (Base::Int, rest),
            b'J' => (Base::Long, rest),
            b'S' => (Base::Short, rest),
            b'Z' => (Base::Boolean, rest),
            b'L' => {
                let end = rest.iter().position(|&byte| byte == b';')?;
                let name = &rest[..end];
                if !is_internal_name(name, major) {
                    return None;
                }
                (Base::Class(name), &rest[end + 1..])
            }
            _ => return None,
        };
        let dimensions = u8::try_from(dimensions).ok()?;
        Some((Self { descriptor: &text[..text.len() - rest.len()], dimensions, base }, rest))
    }

    /// Slots that a value takes in a frame: 2 for `long` and `double`, 0 for `void`.
    pub fn slots(&self) -> u16 {
        match (self.dimensions, self.base) {
            (0, Base::Long | Base::Double) => 2,
            (0, Base::Void) => 0,
            _ => 1,
        }
    }

    /// Whether values are references.
    pub fn is_reference(&self) -> bool {
        self.dimensions > 0 || matches!(self.base, Base::Class(_))
    }
}

/// The descriptor of a method, well formed.
#[derive(Clone, Copy, Debug)]
pub struct MethodType<'a> {
    parameters: &'a [u8],
    returns: FieldType<'a>,
    /// Slots that the parameters take, without a receiver.
    pub argument_slots: u16,
}

impl<'a> MethodType<'a> {
    /// Parses a method's descriptor. Class names in it follow the rules of version `major`.
    pub fn parse_version(descriptor: &'a [u8], major: u16) -> Option<Self> {
        let text = descriptor.strip_prefix(b"(")?;
        let mut rest = text;
        let mut slots = 0u16;
        while rest.first()? != &b')' {
            let (parameter, after) = FieldType::parse_prefix(rest, major)?;
            // The number of parameters is bounded by the 65,535 bytes of the text.
            slots = slots.saturating_add(parameter.slots());
            rest = after;
        }
        let parameters = &text[..text.len() - rest.len()];
        let rest = &rest[1..];
        let returns = match rest {
            b"V" => FieldType { descriptor: rest, dimensions: 0, base: Base::Void },
            _ => FieldType::parse_prefix(rest, major).filter(|(_, rest)| rest.is_empty())?.0,
        };
        Some(Self { parameters, returns, argument_slots: slots })
    }

    /// Parses a method's descriptor by the rules of today's class files.
    pub fn parse(descriptor: &'a [u8]) -> Option<Self> {
        Self::parse_version(descriptor, u16::MAX)
    }

    /// The types of the parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = FieldType<'a>> + Clone + use<'a> {
        let mut rest = self.parameters;
        std::iter::from_fn(move || {
            let (parameter, after) = FieldType::parse_prefix(rest, u16::MAX)?;
            rest = after;
            Some(parameter)
        })
    }

    /// What the method returns.
    pub fn returns(&self) -> FieldType<'a> {
        self.returns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        let method = MethodType::parse(b"(I[[JLjava/lang/String;D)[Z").unwrap();
        assert_eq!(format!("{:?}", method.parameters().collect::<Vec<_>>()), "[I, [[J, Ljava/lang/String;, D]");
        assert_eq!((method.argument_slots, method.returns().dimensions), (5, 1));
        for bad in [&b""[..], b"()", b"(", b"(V)V", b"()VV", b"(L;)V", b"(La//b;)V", b"(La.b;)V", b"()[V", b"I", b"(I"]
        {
            assert!(MethodType::parse(bad).is_none(), "{}", mutf8::decode(bad));
        }
        assert!(FieldType::parse(&[&[b'['; 255][..], b"I"].concat()).is_some());
        assert!(FieldType::parse(&[&[b'['; 256][..], b"I"].concat()).is_none());
    }

    #[test]
    fn names() {
        assert!(is_class_name(b"a/b", 61) && is_class_name(b"[I", 61) && is_class_name(b"[La;", 61));
        assert!(!is_class_name(b"", 61) && !is_class_name(b"/a", 61) && !is_class_name(b"a/", 61));
        assert!(!is_class_name(b"[a", 61) && !is_class_name(b"La;", 61));
        assert!(is_field_name(b"a-b", 49) && !is_field_name(b"a-b", 48) && !is_field_name(b"1a", 48));
        assert!(is_method_name(b"<init>", 45) && !is_method_name(b"<x>", 61) && !is_method_name(b"a>b", 52));
        assert!(is_field_name("größe".as_bytes(), 45));
    }
}
