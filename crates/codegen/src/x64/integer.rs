//! Instructions on general-purpose registers, and jumps.

use super::{Alu, Assembler, Cc, Gpr, Label, Mem, Opcode, Rm, Shift, Size, one, two};

/// Whether the low byte of `register` needs a REX prefix.
fn needs_rex(register: Gpr) -> bool {
    matches!(register, Gpr::Rsp | Gpr::Rbp | Gpr::Rsi | Gpr::Rdi)
}

fn byte_rm(size: Size, rm: Rm) -> bool {
    size == Size::B8 && matches!(rm, Rm::Gpr(register) if needs_rex(register))
}

/// The opcode of an instruction whose form for bytes is one less.
fn byte_or(size: Size, byte: u8) -> u8 {
    if size == Size::B8 { byte - 1 } else { byte }
}

impl Assembler {
    /// Writes an immediate of the size's width, at most 32 bits.
    fn immediate(&mut self, size: Size, value: i32) {
        let count = match size {
            Size::B8 => 1,
            Size::B16 => 2,
            Size::B32 | Size::B64 => 4,
        };
        self.bytes(&value.to_le_bytes()[..count]);
    }

    /// `dst = dst op src`.
    pub fn alu(&mut self, alu: Alu, size: Size, dst: Gpr, src: impl Into<Rm>) {
        let (src, byte) = (src.into(), byte_or(size, 3) | (alu as u8) << 3);
        let rex = byte_rm(size, src) || size == Size::B8 && needs_rex(dst);
        self.encode(one(byte).sized(size), dst as u8, src, rex);
    }

    /// `[dst] = [dst] op src`.
    pub fn alu_store(&mut self, alu: Alu, size: Size, dst: Mem, src: Gpr) {
        let byte = byte_or(size, 1) | (alu as u8) << 3;
        self.encode(one(byte).sized(size), src as u8, dst.into(), size == Size::B8 && needs_rex(src));
    }

    /// `dst = dst op value`, which is sign-extended.
    pub fn alu_imm(&mut self, alu: Alu, size: Size, dst: impl Into<Rm>, value: i32) {
        let dst = dst.into();
        let rex = byte_rm(size, dst);
        if size == Size::B8 {
            self.encode(one(0x80), alu as u8, dst, rex);
            self.immediate(Size::B8, value);
        } else if i8::try_from(value).is_ok() {
            self.encode(one(0x83).sized(size), alu as u8, dst, rex);
            self.immediate(Size::B8, value);
        } else {
            self.encode(one(0x81).sized(size), alu as u8, dst, rex);
            self.immediate(size, value);
        }
    }

    /// As [`Self::alu_imm`] on 64 bits, in a form that takes seven bytes whatever the value: as long as [`Self::entry`] at least.
    pub fn alu_imm_long(&mut self, alu: Alu, dst: Gpr, value: i32) {
        self.encode(one(0x81).sized(Size::B64), alu as u8, dst.into(), false);
        self.immediate(Size::B64, value);
    }

    /// Flags of `a & b`.
    pub fn test(&mut self, size: Size, a: impl Into<Rm>, b: Gpr) {
        let a = a.into();
        let rex = byte_rm(size, a) || size == Size::B8 && needs_rex(b);
        self.encode(one(byte_or(size, 0x85)).sized(size), b as u8, a, rex);
    }

    /// Flags of `a & value`.
    pub fn test_imm(&mut self, size: Size, a: impl Into<Rm>, value: i32) {
        let a = a.into();
        self.encode(one(byte_or(size, 0xf7)).sized(size), 0, a, byte_rm(size, a));
        self.immediate(size, value);
    }

    /// `dst = src`.
    pub fn mov(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>) {
        let src = src.into();
        let rex = byte_rm(size, src) || size == Size::B8 && needs_rex(dst);
        self.encode(one(byte_or(size, 0x8b)).sized(size), dst as u8, src, rex);
    }

    /// `[dst] = src`.
    pub fn mov_store(&mut self, size: Size, dst: Mem, src: Gpr) {
        let rex = size == Size::B8 && needs_rex(src);
        self.encode(one(byte_or(size, 0x89)).sized(size), src as u8, dst.into(), rex);
    }

    /// `[dst] = value`, which is sign-extended.
    pub fn mov_store_imm(&mut self, size: Size, dst: Mem, value: i32) {
        self.encode(one(byte_or(size, 0xc7)).sized(size), 0, dst.into(), false);
        self.immediate(size, value);
    }

    /// `dst = value` in the shortest form. The flags stay.
    pub fn mov_imm(&mut self, dst: Gpr, value: u64) {
        if let Ok(short) = u32::try_from(value) {
            if dst as u8 >= 8 {
                self.bytes(&[0x41]);
            }
            self.bytes(&[0xb8 | dst as u8 & 7]);
            self.bytes(&short.to_le_bytes());
        } else if let Ok(short) = i32::try_from(value.cast_signed()) {
            self.encode(one(0xc7).sized(Size::B64), 0, dst.into(), false);
            self.immediate(Size::B32, short);
        } else {
            self.bytes(&[0x48 | dst as u8 >> 3, 0xb8 | dst as u8 & 7]);
            self.bytes(&value.to_le_bytes());
        }
    }

    /// `dst = src` of a smaller size, sign-extended to 64 bits.
    pub fn movsx(&mut self, dst: Gpr, from: Size, src: impl Into<Rm>) {
        let src = src.into();
        let opcode = match from {
            Size::B8 => two(0xbe),
            Size::B16 => two(0xbf),
            Size::B32 => one(0x63),
            Size::B64 => one(0x8b),
        };
        self.encode(Opcode { wide: true, ..opcode }, dst as u8, src, byte_rm(from, src));
    }

    /// `dst = src` of a smaller size, zero-extended to 64 bits.
    pub fn movzx(&mut self, dst: Gpr, from: Size, src: impl Into<Rm>) {
        let src = src.into();
        let opcode = match from {
            Size::B8 => two(0xb6),
            Size::B16 => two(0xb7),
            Size::B32 => one(0x8b),
            Size::B64 => one(0x8b).sized(Size::B64),
        };
        self.encode(opcode, dst as u8, src, byte_rm(from, src));
    }

    /// `dst` = the address of `src`, without a segment.
    pub fn lea(&mut self, dst: Gpr, src: Mem) {
        self.encode(one(0x8d).sized(Size::B64), dst as u8, src.into(), false);
    }

    /// `dst` = the low 32 bits of the address of `src`.
    pub fn lea32(&mut self, dst: Gpr, src: Mem) {
        self.encode(one(0x8d), dst as u8, src.into(), false);
    }

    /// `dst = dst * src`; not for bytes.
    pub fn imul(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>) {
        self.encode(two(0xaf).sized(size), dst as u8, src.into(), false);
    }

    fn unary(&mut self, size: Size, extension: u8, rm: impl Into<Rm>) {
        let rm = rm.into();
        self.encode(one(byte_or(size, 0xf7)).sized(size), extension, rm, byte_rm(size, rm));
    }

    /// `rm = !rm`.
    pub fn not(&mut self, size: Size, rm: impl Into<Rm>) {
        self.unary(size, 2, rm);
    }

    /// `rm = -rm`.
    pub fn neg(&mut self, size: Size, rm: impl Into<Rm>) {
        self.unary(size, 3, rm);
    }

    /// `rdx:rax = rax * src`, unsigned.
    pub fn mul_wide(&mut self, size: Size, src: impl Into<Rm>) {
        self.unary(size, 4, src);
    }

    /// `rdx:rax = rax * src`, signed.
    pub fn imul_wide(&mut self, size: Size, src: impl Into<Rm>) {
        self.unary(size, 5, src);
    }

    /// `rax, rdx = rdx:rax / src` and its remainder, unsigned.
    pub fn div(&mut self, size: Size, src: impl Into<Rm>) {
        self.unary(size, 6, src);
    }

    /// `rax, rdx = rdx:rax / src` and its remainder, signed.
    pub fn idiv(&mut self, size: Size, src: impl Into<Rm>) {
        self.unary(size, 7, src);
    }

    /// `rdx` = the sign of `rax`: `cdq` or `cqo`.
    pub fn sign_into_rdx(&mut self, size: Size) {
        if size == Size::B64 {
            self.bytes(&[0x48]);
        }
        self.bytes(&[0x99]);
    }

    /// Shifts by a constant.
    pub fn shift(&mut self, shift: Shift, size: Size, dst: impl Into<Rm>, count: u8) {
        let dst = dst.into();
        if count == 1 {
            self.encode(one(byte_or(size, 0xd1)).sized(size), shift as u8, dst, byte_rm(size, dst));
        } else {
            self.encode(one(byte_or(size, 0xc1)).sized(size), shift as u8, dst, byte_rm(size, dst));
            self.bytes(&[count]);
        }
    }

    /// Shifts by `cl`.
    pub fn shift_cl(&mut self, shift: Shift, size: Size, dst: impl Into<Rm>) {
        let dst = dst.into();
        self.encode(one(byte_or(size, 0xd3)).sized(size), shift as u8, dst, byte_rm(size, dst));
    }

    fn bmi_shift(&mut self, prefix: u8, size: Size, dst: Gpr, src: Rm, count: Gpr) {
        let opcode = Opcode { prefix, map: 2, wide: size == Size::B64, ..one(0xf7) };
        self.encode_vex(opcode, dst as u8, count as u8, src);
    }

    /// `dst = src << count`; the flags stay.
    pub fn shlx(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>, count: Gpr) {
        self.bmi_shift(0x66, size, dst, src.into(), count);
    }

    /// `dst = src >> count`, unsigned; the flags stay.
    pub fn shrx(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>, count: Gpr) {
        self.bmi_shift(0xf2, size, dst, src.into(), count);
    }

    /// `dst = src >> count`, signed; the flags stay.
    pub fn sarx(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>, count: Gpr) {
        self.bmi_shift(0xf3, size, dst, src.into(), count);
    }

    /// `dst = src` rotated right; the flags stay.
    pub fn rorx(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>, count: u8) {
        let opcode = Opcode { prefix: 0xf2, map: 3, wide: size == Size::B64, ..one(0xf0) };
        self.encode_vex(opcode, dst as u8, 0, src.into());
        self.bytes(&[count]);
    }

    /// `dst = !a & b`.
    pub fn andn(&mut self, size: Size, dst: Gpr, a: Gpr, b: impl Into<Rm>) {
        let opcode = Opcode { prefix: 0, map: 2, wide: size == Size::B64, ..one(0xf2) };
        self.encode_vex(opcode, dst as u8, a as u8, b.into());
    }

    /// `dst = src` with its bytes in the other order.
    pub fn bswap(&mut self, size: Size, dst: Gpr) {
        let rex = u8::from(size == Size::B64) << 3 | dst as u8 >> 3;
        if rex != 0 {
            self.bytes(&[0x40 | rex]);
        }
        self.bytes(&[0x0f, 0xc8 | dst as u8 & 7]);
    }

    /// `dst` = leading zeroes of `src`.
    pub fn lzcnt(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>) {
        self.encode(Opcode { prefix: 0xf3, wide: size == Size::B64, ..two(0xbd) }, dst as u8, src.into(), false);
    }

    /// `dst` = trailing zeroes of `src`.
    pub fn tzcnt(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>) {
        self.encode(Opcode { prefix: 0xf3, wide: size == Size::B64, ..two(0xbc) }, dst as u8, src.into(), false);
    }

    /// `dst` = how many bits of `src` are set.
    pub fn popcnt(&mut self, size: Size, dst: Gpr, src: impl Into<Rm>) {
        self.encode(Opcode { prefix: 0xf3, wide: size == Size::B64, ..two(0xb8) }, dst as u8, src.into(), false);
    }

    /// The low byte of `dst` = whether `cc` holds.
    pub fn setcc(&mut self, cc: Cc, dst: Gpr) {
        self.encode(two(0x90 | cc as u8), 0, dst.into(), needs_rex(dst));
    }

    /// `dst = src` if `cc` holds; the upper half of a 32-bit destination becomes zero in any case.
    pub fn cmov(&mut self, cc: Cc, size: Size, dst: Gpr, src: impl Into<Rm>) {
        self.encode(two(0x40 | cc as u8).sized(size), dst as u8, src.into(), false);
    }

    /// Pushes a register.
    pub fn push(&mut self, src: Gpr) {
        self.encode_short(0x50, src);
    }

    /// Pops a register.
    pub fn pop(&mut self, dst: Gpr) {
        self.encode_short(0x58, dst);
    }

    fn encode_short(&mut self, byte: u8, register: Gpr) {
        if register as u8 >= 8 {
            self.bytes(&[0x41]);
        }
        self.bytes(&[byte | register as u8 & 7]);
    }

    /// Exchanges `dst` and `src`; with memory, atomically.
    pub fn xchg(&mut self, size: Size, dst: impl Into<Rm>, src: Gpr) {
        let dst = dst.into();
        let rex = byte_rm(size, dst) || size == Size::B8 && needs_rex(src);
        self.encode(one(byte_or(size, 0x87)).sized(size), src as u8, dst, rex);
    }

    /// The prefix that makes the next instruction atomic.
    pub fn lock(&mut self) {
        self.bytes(&[0xf0]);
    }

    /// `src, [dst] = [dst], [dst] + src`; with [`Self::lock`] before it, atomically.
    pub fn xadd(&mut self, size: Size, dst: Mem, src: Gpr) {
        self.encode(two(byte_or(size, 0xc1)).sized(size), src as u8, dst.into(), size == Size::B8 && needs_rex(src));
    }

    /// If `rax` is `[dst]`, that becomes `src`, else `rax` becomes that; with [`Self::lock`] before it, atomically.
    pub fn cmpxchg(&mut self, size: Size, dst: Mem, src: Gpr) {
        self.encode(two(byte_or(size, 0xb1)).sized(size), src as u8, dst.into(), size == Size::B8 && needs_rex(src));
    }

    /// Orders all loads and stores before it against those after it.
    pub fn mfence(&mut self) {
        self.bytes(&[0x0f, 0xae, 0xf0]);
    }

    /// Tells the processor that this is a loop which waits.
    pub fn pause(&mut self) {
        self.bytes(&[0xf3, 0x90]);
    }

    fn jump_target(&mut self, label: Label) {
        self.bytes(&[0; 4]);
        let end = self.offset();
        self.fixups.push((end, label));
    }

    /// Jumps if `cc` holds.
    pub fn jcc(&mut self, cc: Cc, label: Label) {
        self.bytes(&[0x0f, 0x80 | cc as u8]);
        self.jump_target(label);
    }

    /// Jumps.
    pub fn jmp(&mut self, label: Label) {
        self.bytes(&[0xe9]);
        self.jump_target(label);
    }

    /// Jumps to the address in a register or in memory.
    pub fn jmp_rm(&mut self, target: impl Into<Rm>) {
        self.encode(one(0xff), 4, target.into(), false);
    }

    /// Does nothing, in a form that the arena can make a jump or a call: at the beginning of a piece of code.
    pub fn entry(&mut self) {
        self.bytes(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
    }

    /// Jumps, in a form that can be patched: its displacement is aligned if the code's beginning is. Answers its offset.
    pub fn jmp_patchable(&mut self, label: Label) -> u32 {
        self.align(4, 1);
        let at = self.offset();
        self.jmp(label);
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Jumps if `cc` holds, in a form that can be patched, as [`Self::jmp_patchable`]. What makes that necessary stands before `compare`, an offset behind
    /// which neither labels nor jumps are: the processor takes a comparison and its jump as one.
    pub fn jcc_patchable(&mut self, cc: Cc, label: Label, compare: usize) -> u32 {
        self.align_at(compare, 4, 2);
        // From its second byte on it is laid out as the other jumps.
        let at = self.offset() + 1;
        self.jcc(cc, label);
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Calls, in a form that can be patched, as [`Self::jmp_patchable`].
    pub fn call_patchable(&mut self, label: Label) -> u32 {
        self.align(4, 1);
        let at = self.offset();
        self.call(label);
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Calls.
    pub fn call(&mut self, label: Label) {
        self.bytes(&[0xe8]);
        self.jump_target(label);
    }

    /// Calls the address in a register or in memory.
    pub fn call_rm(&mut self, target: impl Into<Rm>) {
        self.encode(one(0xff), 2, target.into(), false);
    }

    /// Returns.
    pub fn ret(&mut self) {
        self.bytes(&[0xc3]);
    }
}
