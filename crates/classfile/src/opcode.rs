//! Instructions of the JVM (JVMS chapter 6): one line each, from which names, lengths and decoding follow.

/// What follows an opcode in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// Nothing.
    None,
    /// A signed byte: `bipush`.
    Byte,
    /// A signed 16-bit number: `sipush`.
    Short,
    /// The index of a local variable: one byte, two after `wide`.
    Local,
    /// The index of a local variable and a number to add, each one byte, or two after `wide`: `iinc`.
    Increment,
    /// The index of a constant, one byte: `ldc`.
    Constant8,
    /// The index of a constant, two bytes.
    Constant16,
    /// Where to go, from this instruction: a signed 16-bit number.
    Branch16,
    /// The same in 32 bits.
    Branch32,
    /// The index of a constant, the number of argument slots and a zero byte.
    InvokeInterface,
    /// The index of a constant and two zero bytes.
    InvokeDynamic,
    /// The code of a type, one byte: `newarray`.
    ArrayType,
    /// The index of a constant, two bytes, and a number of dimensions.
    Dimensions,
    /// Padding, then a table for consecutive numbers.
    TableSwitch,
    /// Padding, then sorted pairs of number and target.
    LookupSwitch,
    /// Another instruction with wider operands.
    Wide,
}

macro_rules! opcodes {
    ($($code:literal $name:ident $mnemonic:literal $operands:ident,)*) => {
        /// An opcode.
        #[allow(missing_docs, reason = "the names are those of the JVMS")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Opcode { $($name = $code,)* }

        impl Opcode {
            /// The opcode of this byte, if there is one that class files may have.
            pub const fn of(byte: u8) -> Option<Self> {
                match byte { $($code => Some(Self::$name),)* _ => None }
            }

            /// How the JVMS writes it.
            pub const fn mnemonic(self) -> &'static str {
                match self { $(Self::$name => $mnemonic,)* }
            }

            /// What follows it.
            pub const fn operands(self) -> Operands {
                match self { $(Self::$name => Operands::$operands,)* }
            }
        }
    };
}

opcodes! {
    0x00 Nop "nop" None,
    0x01 AConstNull "aconst_null" None,
    0x02 IConstM1 "iconst_m1" None,
    0x03 IConst0 "iconst_0" None,
    0x04 IConst1 "iconst_1" None,
    0x05 IConst2 "iconst_2" None,
    0x06 IConst3 "iconst_3" None,
    0x07 IConst4 "iconst_4" None,
    0x08 IConst5 "iconst_5" None,
    0x09 LConst0 "lconst_0" None,
    0x0A LConst1 "lconst_1" None,
    0x0B FConst0 "fconst_0" None,
    0x0C FConst1 "fconst_1" None,
    0x0D FConst2 "fconst_2" None,
    0x0E DConst0 "dconst_0" None,
    0x0F DConst1 "dconst_1" None,
    0x10 BiPush "bipush" Byte,
    0x11 SiPush "sipush" Short,
    0x12 Ldc "ldc" Constant8,
    0x13 LdcW "ldc_w" Constant16,
    0x14 Ldc2W "ldc2_w" Constant16,
    0x15 ILoad "iload" Local,
    0x16 LLoad "lload" Local,
    0x17 FLoad "fload" Local,
    0x18 DLoad "dload" Local,
    0x19 ALoad "aload" Local,
    0x1A ILoad0 "iload_0" None,
    0x1B ILoad1 "iload_1" None,
    0x1C ILoad2 "iload_2" None,
    0x1D ILoad3 "iload_3" None,
    0x1E LLoad0 "lload_0" None,
    0x1F LLoad1 "lload_1" None,
    0x20 LLoad2 "lload_2" None,
    0x21 LLoad3 "lload_3" None,
    0x22 FLoad0 "fload_0" None,
    0x23 FLoad1 "fload_1" None,
    0x24 FLoad2 "fload_2" None,
    0x25 FLoad3 "fload_3" None,
    0x26 DLoad0 "dload_0" None,
    0x27 DLoad1 "dload_1" None,
    0x28 DLoad2 "dload_2" None,
    0x29 DLoad3 "dload_3" None,
    0x2A ALoad0 "aload_0" None,
    0x2B ALoad1 "aload_1" None,
    0x2C ALoad2 "aload_2" None,
    0x2D ALoad3 "aload_3" None,
    0x2E IALoad "iaload" None,
    0x2F LALoad "laload" None,
    0x30 FALoad "faload" None,
    0x31 DALoad "daload" None,
    0x32 AALoad "aaload" None,
    0x33 BALoad "baload" None,
    0x34 CALoad "caload" None,
    0x35 SALoad "saload" None,
    0x36 IStore "istore" Local,
    0x37 LStore "lstore" Local,
    0x38 FStore "fstore" Local,
    0x39 DStore "dstore" Local,
    0x3A AStore "astore" Local,
    0x3B IStore0 "istore_0" None,
    0x3C IStore1 "istore_1" None,
    0x3D IStore2 "istore_2" None,
    0x3E IStore3 "istore_3" None,
    0x3F LStore0 "lstore_0" None,
    0x40 LStore1 "lstore_1" None,
    0x41 LStore2 "lstore_2" None,
    0x42 LStore3 "lstore_3" None,
    0x43 FStore0 "fstore_0" None,
    0x44 FStore1 "fstore_1" None,
    0x45 FStore2 "fstore_2" None,
    0x46 FStore3 "fstore_3" None,
    0x47 DStore0 "dstore_0" None,
    0x48 DStore1 "dstore_1" None,
    0x49 DStore2 "dstore_2" None,
    0x4A DStore3 "dstore_3" None,
    0x4B AStore0 "astore_0" None,
    0x4C AStore1 "astore_1" None,
    0x4D AStore2 "astore_2" None,
    0x4E AStore3 "astore_3" None,
    0x4F IAStore "iastore" None,
    0x50 LAStore "lastore" None,
    0x51 FAStore "fastore" None,
    0x52 DAStore "dastore" None,
    0x53 AAStore "aastore" None,
    0x54 BAStore "bastore" None,
    0x55 CAStore "castore" None,
    0x56 SAStore "sastore" None,
    0x57 Pop "pop" None,
    0x58 Pop2 "pop2" None,
    0x59 Dup "dup" None,
    0x5A DupX1 "dup_x1" None,
    0x5B DupX2 "dup_x2" None,
    0x5C Dup2 "dup2" None,
    0x5D Dup2X1 "dup2_x1" None,
    0x5E Dup2X2 "dup2_x2" None,
    0x5F Swap "swap" None,
    0x60 IAdd "iadd" None,
    0x61 LAdd "ladd" None,
    0x62 FAdd "fadd" None,
    0x63 DAdd "dadd" None,
    0x64 ISub "isub" None,
    0x65 LSub "lsub" None,
    0x66 FSub "fsub" None,
    0x67 DSub "dsub" None,
    0x68 IMul "imul" None,
    0x69 LMul "lmul" None,
    0x6A FMul "fmul" None,
    0x6B DMul "dmul" None,
    0x6C IDiv "idiv" None,
    0x6D LDiv "ldiv" None,
    0x6E FDiv "fdiv" None,
    0x6F DDiv "ddiv" None,
    0x70 IRem "irem" None,
    0x71 LRem "lrem" None,
    0x72 FRem "frem" None,
    0x73 DRem "drem" None,
    0x74 INeg "ineg" None,
    0x75 LNeg "lneg" None,
    0x76 FNeg "fneg" None,
    0x77 DNeg "dneg" None,
    0x78 IShl "ishl" None,
    0x79 LShl "lshl" None,
    0x7A IShr "ishr" None,
    0x7B LShr "lshr" None,
    0x7C IUShr "iushr" None,
    0x7D LUShr "lushr" None,
    0x7E IAnd "iand" None,
    0x7F LAnd "land" None,
    0x80 IOr "ior" None,
    0x81 LOr "lor" None,
    0x82 IXor "ixor" None,
    0x83 LXor "lxor" None,
    0x84 IInc "iinc" Increment,
    0x85 I2L "i2l" None,
    0x86 I2F "i2f" None,
    0x87 I2D "i2d" None,
    0x88 L2I "l2i" None,
    0x89 L2F "l2f" None,
    0x8A L2D "l2d" None,
    0x8B F2I "f2i" None,
    0x8C F2L "f2l" None,
    0x8D F2D "f2d" None,
    0x8E D2I "d2i" None,
    0x8F D2L "d2l" None,
    0x90 D2F "d2f" None,
    0x91 I2B "i2b" None,
    0x92 I2C "i2c" None,
    0x93 I2S "i2s" None,
    0x94 LCmp "lcmp" None,
    0x95 FCmpL "fcmpl" None,
    0x96 FCmpG "fcmpg" None,
    0x97 DCmpL "dcmpl" None,
    0x98 DCmpG "dcmpg" None,
    0x99 IfEq "ifeq" Branch16,
    0x9A IfNe "ifne" Branch16,
    0x9B IfLt "iflt" Branch16,
    0x9C IfGe "ifge" Branch16,
    0x9D IfGt "ifgt" Branch16,
    0x9E IfLe "ifle" Branch16,
    0x9F IfICmpEq "if_icmpeq" Branch16,
    0xA0 IfICmpNe "if_icmpne" Branch16,
    0xA1 IfICmpLt "if_icmplt" Branch16,
    0xA2 IfICmpGe "if_icmpge" Branch16,
    0xA3 IfICmpGt "if_icmpgt" Branch16,
    0xA4 IfICmpLe "if_icmple" Branch16,
    0xA5 IfACmpEq "if_acmpeq" Branch16,
    0xA6 IfACmpNe "if_acmpne" Branch16,
    0xA7 Goto "goto" Branch16,
    0xA8 Jsr "jsr" Branch16,
    0xA9 Ret "ret" Local,
    0xAA TableSwitch "tableswitch" TableSwitch,
    0xAB LookupSwitch "lookupswitch" LookupSwitch,
    0xAC IReturn "ireturn" None,
    0xAD LReturn "lreturn" None,
    0xAE FReturn "freturn" None,
    0xAF DReturn "dreturn" None,
    0xB0 AReturn "areturn" None,
    0xB1 Return "return" None,
    0xB2 GetStatic "getstatic" Constant16,
    0xB3 PutStatic "putstatic" Constant16,
    0xB4 GetField "getfield" Constant16,
    0xB5 PutField "putfield" Constant16,
    0xB6 InvokeVirtual "invokevirtual" Constant16,
    0xB7 InvokeSpecial "invokespecial" Constant16,
    0xB8 InvokeStatic "invokestatic" Constant16,
    0xB9 InvokeInterface "invokeinterface" InvokeInterface,
    0xBA InvokeDynamic "invokedynamic" InvokeDynamic,
    0xBB New "new" Constant16,
    0xBC NewArray "newarray" ArrayType,
    0xBD ANewArray "anewarray" Constant16,
    0xBE ArrayLength "arraylength" None,
    0xBF AThrow "athrow" None,
    0xC0 CheckCast "checkcast" Constant16,
    0xC1 InstanceOf "instanceof" Constant16,
    0xC2 MonitorEnter "monitorenter" None,
    0xC3 MonitorExit "monitorexit" None,
    0xC4 Wide "wide" Wide,
    0xC5 MultiANewArray "multianewarray" Dimensions,
    0xC6 IfNull "ifnull" Branch16,
    0xC7 IfNonNull "ifnonnull" Branch16,
    0xC8 GotoW "goto_w" Branch32,
    0xC9 JsrW "jsr_w" Branch32,
}

impl Opcode {
    /// Whether control never goes on to the next instruction.
    pub const fn ends_block(self) -> bool {
        use Opcode::{
            AReturn, AThrow, DReturn, FReturn, Goto, GotoW, IReturn, LReturn, LookupSwitch, Ret, Return, TableSwitch,
        };
        matches!(
            self,
            Goto | GotoW
                | Ret
                | TableSwitch
                | LookupSwitch
                | IReturn
                | LReturn
                | FReturn
                | DReturn
                | AReturn
                | Return
                | AThrow
        )
    }
}

/// Why no instruction could be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No opcode has this byte.
    Opcode(u8),
    /// `wide` before an opcode that has no wide form.
    Wide(u8),
    /// The code ends within the instruction.
    Truncated,
    /// `tableswitch` whose lowest number is above its highest.
    TableBounds,
    /// A switch with more entries than code can hold, or less than none.
    EntryCount,
}

/// An instruction in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Offset of its first byte in the code.
    pub offset: u16,
    /// The opcode, that after `wide` if there is one.
    pub opcode: Opcode,
    /// Whether it is after `wide`.
    pub wide: bool,
    /// The whole instruction, `wide` included.
    pub bytes: &'a [u8],
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    match bytes.get(offset..offset + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

fn i32_at(bytes: &[u8], offset: usize) -> i32 {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

impl<'a> Instruction<'a> {
    /// Decodes the instruction at `offset`.
    ///
    /// # Errors
    /// If there is none.
    pub fn decode(code: &'a [u8], offset: u16) -> Result<Self, Malformed> {
        let rest = code.get(usize::from(offset)..).unwrap_or_default();
        let &first = rest.first().ok_or(Malformed::Truncated)?;
        let mut opcode = Opcode::of(first).ok_or(Malformed::Opcode(first))?;
        let wide = opcode == Opcode::Wide;
        let length = match opcode.operands() {
            Operands::None => 1,
            Operands::Byte | Operands::Local | Operands::Constant8 | Operands::ArrayType => 2,
            Operands::Short | Operands::Increment | Operands::Constant16 | Operands::Branch16 => 3,
            Operands::Dimensions => 4,
            Operands::Branch32 | Operands::InvokeInterface | Operands::InvokeDynamic => 5,
            Operands::Wide => {
                let &second = rest.get(1).ok_or(Malformed::Truncated)?;
                opcode = Opcode::of(second).ok_or(Malformed::Wide(second))?;
                match opcode.operands() {
                    Operands::Local => 4,
                    Operands::Increment => 6,
                    _ => return Err(Malformed::Wide(second)),
                }
            }
            Operands::TableSwitch => {
                let base = 1 + padding(offset);
                let header = rest.get(base..base + 12).ok_or(Malformed::Truncated)?;
                let (low, high) = (i64::from(i32_at(header, 4)), i64::from(i32_at(header, 8)));
                if low > high {
                    return Err(Malformed::TableBounds);
                }
                let entries = usize::try_from(high - low + 1).map_err(|_| Malformed::EntryCount)?;
                entries.checked_mul(4).ok_or(Malformed::EntryCount)?.saturating_add(base + 12)
            }
            Operands::LookupSwitch => {
                let base = 1 + padding(offset);
                let header = rest.get(base..base + 8).ok_or(Malformed::Truncated)?;
                let pairs = usize::try_from(i32_at(header, 4)).map_err(|_| Malformed::EntryCount)?;
                pairs.checked_mul(8).ok_or(Malformed::EntryCount)?.saturating_add(base + 8)
            }
        };
        let bytes = rest.get(..length).ok_or(Malformed::Truncated)?;
        Ok(Self { offset, opcode, wide, bytes })
    }

    /// Offset of the instruction behind it.
    pub fn end(&self) -> u32 {
        // An instruction is within code of at most 65,535 bytes.
        u32::from(self.offset) + u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// The index of the local variable that it names in its operands or, as `iload_0`, in its opcode.
    pub fn local(&self) -> Option<u16> {
        let byte = self.opcode as u8;
        match self.opcode.operands() {
            Operands::Local | Operands::Increment if self.wide => Some(u16_at(self.bytes, 2)),
            Operands::Local | Operands::Increment => self.bytes.get(1).map(|&index| u16::from(index)),
            // Groups of four from iload_0 and from istore_0 on.
            _ if (0x1A..=0x2D).contains(&byte) => Some(u16::from((byte - 0x1A) & 3)),
            _ if (0x3B..=0x4E).contains(&byte) => Some(u16::from((byte - 0x3B) & 3)),
            _ => None,
        }
    }

    /// The number in the operands of `bipush`, `sipush` and `iinc`.
    pub fn immediate(&self) -> i16 {
        match self.opcode.operands() {
            Operands::Byte => i16::from(self.bytes[1].cast_signed()),
            Operands::Short => u16_at(self.bytes, 1).cast_signed(),
            Operands::Increment if self.wide => u16_at(self.bytes, 4).cast_signed(),
            Operands::Increment => i16::from(self.bytes[2].cast_signed()),
            _ => 0,
        }
    }

    /// The index of the constant in its operands.
    pub fn constant(&self) -> Option<u16> {
        match self.opcode.operands() {
            Operands::Constant8 => self.bytes.get(1).map(|&index| u16::from(index)),
            Operands::Constant16 | Operands::Dimensions | Operands::InvokeInterface | Operands::InvokeDynamic => {
                Some(u16_at(self.bytes, 1))
            }
            _ => None,
        }
    }

    /// Where it may go but to the next instruction, if it is a branch but not a switch. May be outside of the code.
    pub fn branch(&self) -> Option<i64> {
        let distance = match self.opcode.operands() {
            Operands::Branch16 => i64::from(u16_at(self.bytes, 1).cast_signed()),
            Operands::Branch32 => i64::from(i32_at(self.bytes, 1)),
            _ => return None,
        };
        Some(i64::from(self.offset) + distance)
    }

    /// The table of a switch.
    pub fn switch(&self) -> Option<Switch<'a>> {
        let base = 1 + padding(self.offset);
        let body = self.bytes.get(base..)?;
        let target = i64::from(self.offset);
        match self.opcode {
            Opcode::TableSwitch => {
                let low = Some(i32_at(body, 4));
                Some(Switch { origin: target, default: target + i64::from(i32_at(body, 0)), low, entries: &body[12..] })
            }
            Opcode::LookupSwitch => Some(Switch {
                origin: target,
                default: target + i64::from(i32_at(body, 0)),
                low: None,
                entries: &body[8..],
            }),
            _ => None,
        }
    }

    /// The bytes that align the table of a switch, which should be 0.
    pub fn padding(&self) -> &'a [u8] {
        match self.opcode {
            Opcode::TableSwitch | Opcode::LookupSwitch => &self.bytes[1..=padding(self.offset)],
            _ => &[],
        }
    }
}

/// Bytes between the opcode of a switch at `offset` and its table.
fn padding(offset: u16) -> usize {
    usize::from(3 - (offset & 3))
}

/// The table of `tableswitch` or `lookupswitch`.
#[derive(Clone, Copy, Debug)]
pub struct Switch<'a> {
    origin: i64,
    /// Where all other numbers go. May be outside of the code.
    pub default: i64,
    /// The lowest number of `tableswitch`.
    low: Option<i32>,
    entries: &'a [u8],
}

impl<'a> Switch<'a> {
    /// Numbers and where they go, which may be outside of the code.
    pub fn cases(&self) -> impl Iterator<Item = (i32, i64)> + use<'a> {
        let Self { origin, low, entries, .. } = *self;
        let size = if low.is_some() { 4 } else { 8 };
        let mut number = low.unwrap_or_default();
        entries.chunks_exact(size).map(move |entry| {
            let key = if size == 4 { number } else { i32_at(entry, 0) };
            number = number.wrapping_add(1);
            (key, origin + i64::from(i32_at(entry, size - 4)))
        })
    }
}

/// The instructions of a method, in order. After the first that cannot be decoded there are no more.
#[derive(Clone, Debug)]
pub struct Instructions<'a> {
    code: &'a [u8],
    offset: u32,
}

impl<'a> Instructions<'a> {
    /// The instructions of `code`, of which only the first 65,535 bytes count.
    pub fn new(code: &'a [u8]) -> Self {
        Self { code: &code[..code.len().min(65_535)], offset: 0 }
    }
}

impl<'a> Iterator for Instructions<'a> {
    type Item = Result<Instruction<'a>, (u16, Malformed)>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = u16::try_from(self.offset).ok().filter(|&offset| usize::from(offset) < self.code.len())?;
        match Instruction::decode(self.code, offset) {
            Ok(instruction) => {
                self.offset = instruction.end();
                Some(Ok(instruction))
            }
            Err(malformed) => {
                self.offset = u32::MAX;
                Some(Err((offset, malformed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_every_form() {
        let decode = |bytes: &'static [u8], offset| Instruction::decode(bytes, offset).unwrap();
        assert_eq!(decode(&[0x10, 0xFE], 0).immediate(), -2);
        assert_eq!(decode(&[0x2C], 0).local(), Some(2));
        assert_eq!(decode(&[0x4E], 0).local(), Some(3));
        assert_eq!(decode(&[0xC4, 0x84, 1, 2, 0xFF, 0xFE], 0).local(), Some(0x102));
        assert_eq!(decode(&[0xC4, 0x84, 1, 2, 0xFF, 0xFE], 0).immediate(), -2);
        assert_eq!(decode(&[0, 0, 0xA7, 0xFF, 0xFE], 2).branch(), Some(0));
        let table = [0u8, 0xAA, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 3];
        let switch = Instruction::decode(&table, 1).unwrap();
        assert_eq!(switch.end(), 24);
        assert_eq!(switch.switch().unwrap().default, 2);
        assert_eq!(switch.switch().unwrap().cases().collect::<Vec<_>>(), [(7, 3), (8, 4)]);
    }

    #[test]
    fn malformed() {
        assert_eq!(Instruction::decode(&[0xCA], 0), Err(Malformed::Opcode(0xCA)));
        assert_eq!(Instruction::decode(&[0xC4, 0], 0), Err(Malformed::Wide(0)));
        assert_eq!(Instruction::decode(&[0x11, 0], 0), Err(Malformed::Truncated));
        let lowest_above = [0xAA, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1];
        assert_eq!(Instruction::decode(&lowest_above, 0), Err(Malformed::TableBounds));
        let negative = [0xAB, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(Instruction::decode(&negative, 0), Err(Malformed::EntryCount));
    }
}
