//! What attributes of classes, fields and methods have in common: annotations, which stay bytes, and being there once.

use crate::constants::ConstantPool;
use crate::context::Context;
use crate::error::Result;

/// Annotations as they are in the file (JVMS 4.7.16 to 4.7.22): reflection parses them, in Java. They are not checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Annotations<'a> {
    /// `RuntimeVisibleAnnotations`.
    pub visible: Option<&'a [u8]>,
    /// `RuntimeInvisibleAnnotations`.
    pub invisible: Option<&'a [u8]>,
    /// `RuntimeVisibleTypeAnnotations`.
    pub visible_type: Option<&'a [u8]>,
    /// `RuntimeInvisibleTypeAnnotations`.
    pub invisible_type: Option<&'a [u8]>,
    /// `RuntimeVisibleParameterAnnotations`, only of methods.
    pub visible_parameter: Option<&'a [u8]>,
    /// `RuntimeInvisibleParameterAnnotations`, only of methods.
    pub invisible_parameter: Option<&'a [u8]>,
    /// `AnnotationDefault`, only of methods.
    pub default: Option<&'a [u8]>,
}

/// Which attributes an owner has had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    names: u64,
}

impl Seen {
    /// Notes the attribute of this number; whether it has been there before.
    pub(crate) fn again(&mut self, number: u32) -> bool {
        let before = self.names;
        self.names |= 1 << number;
        before == self.names
    }
}

impl<'a> Annotations<'a> {
    /// Takes an attribute if it is one of annotations. `owner` is for the message, with a space before it.
    pub(crate) fn take(
        &mut self,
        name: &[u8],
        body: &'a [u8],
        owner: &str,
        seen: &mut Seen,
        context: &Context<'a>,
    ) -> Result<()> {
        let is_method = owner == " for method";
        let (place, number) = match name {
            b"RuntimeVisibleAnnotations" => (&mut self.visible, 40),
            b"RuntimeInvisibleAnnotations" => (&mut self.invisible, 41),
            b"RuntimeVisibleTypeAnnotations" => (&mut self.visible_type, 42),
            b"RuntimeInvisibleTypeAnnotations" => (&mut self.invisible_type, 43),
            b"RuntimeVisibleParameterAnnotations" if is_method => (&mut self.visible_parameter, 44),
            b"RuntimeInvisibleParameterAnnotations" if is_method => (&mut self.invisible_parameter, 45),
            b"AnnotationDefault" if is_method => (&mut self.default, 46),
            _ => return Ok(()),
        };
        if seen.again(number) {
            return context.error(format_args!("Multiple {} attributes{owner}", String::from_utf8_lossy(name)));
        }
        *place = Some(body);
        Ok(())
    }
}

/// Checks the index of a generic signature.
pub(crate) fn signature_index<'a>(index: u16, pool: &ConstantPool<'a>, context: &Context<'a>) -> Result<u16> {
    match pool.utf8(index) {
        Some(_) => Ok(index),
        None => context.error(format_args!("Invalid constant pool index {index} in Signature attribute")),
    }
}
