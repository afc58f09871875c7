//! The instruction table: one line per instruction, from which everything else in [`crate::isa`] derives.
//!
//! A line is: name in [`Op`], mnemonic, extension, encoding, operands as assembly writes them.
//!
//! *Encoding* is the manual's own notation, most significant bits first: literal bits, `rd rs1 rs2 rs3` (five bits), `rd' rs1' rs2'` (three
//! bits, x8 to x15), `rd/rs1` (one field that is both), `rm`, `aq rl`, and immediates with the bits they hold: `imm[12|10:5]` is signed, `uimm`
//! unsigned. The prefix `nz` reserves the value zero. Words with `=` stand at the end and take no bits: they say what a register or
//! the immediate is, where no field does (`rs1=2`).
//!
//! *Operands*: `rd`, `fd` ... are registers (integer, floating point); `imm`; `imm20` is the upper immediate shifted down; `target` is the
//! address that the offset leads to; `block` an offset in whole cache blocks; `csr`, `zimm`, `rm`, `pred`, `succ`.
//!
//! Where a special case shares bits with a general line it stands above it: the first line that matches is meant, and `forms` are
//! tried before `operations`. Of others the common ones stand first.

use super::encoding::Encoding;

/// What the machine must offer for the instruction to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Extension {
    /// The base: RV64I.
    I,
    /// Multiplication and division.
    M,
    /// Atomic memory operations, load-reserved and store-conditional.
    A,
    /// Single-precision floating point.
    F,
    /// Double-precision floating point.
    D,
    /// Compressed instructions of the base.
    C,
    /// Compressed instructions of D.
    Zcd,
    /// Control and status registers.
    Zicsr,
    /// The instruction-fetch fence.
    Zifencei,
    /// Pause hint.
    Zihintpause,
    /// Address generation.
    Zba,
    /// Basic bit manipulation.
    Zbb,
    /// Carry-less multiplication.
    Zbc,
    /// Bit manipulation for cryptography, where Zbb does not have it.
    Zbkb,
    /// Crossbar permutations.
    Zbkx,
    /// Single bits.
    Zbs,
    /// AES, decryption; the two instructions of its key schedule stand here, which Zkne has too.
    Zknd,
    /// AES, encryption.
    Zkne,
    /// SHA-2.
    Zknh,
    /// SM4.
    Zksed,
    /// SM3.
    Zksh,
    /// Conditional zero.
    Zicond,
    /// Cache-block management.
    Zicbom,
    /// Cache-block prefetch hints.
    Zicbop,
    /// Cache-block zero.
    Zicboz,
    /// Wait on a reservation set.
    Zawrs,
    /// Fine-grained invalidation of address translations.
    Svinval,
    /// Privileged instructions: trap returns, `wfi`, `sfence.vma`.
    Privileged,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The operation that it performs.
    pub op: Op,
    /// Its name in assembly, without the `.aq` and `.rl` of atomics.
    pub mnemonic: &'static str,
    /// The extension it belongs to.
    pub extension: Extension,
    /// The bits.
    pub encoding: Encoding,
    /// The operands in the order and punctuation of assembly.
    pub operands: &'static str,
}

macro_rules! instructions {
    (
        operations { $($op:ident $mnemonic:literal $extension:ident $encoding:literal $operands:literal;)* }
        forms { $($form:literal $base:ident $form_extension:ident $form_encoding:literal $form_operands:literal;)* }
    ) => {
        /// What an instruction does. Compressed instructions are other forms of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Op {
            $(#[doc = concat!("`", $mnemonic, " ", $operands, "`")] $op,)*
        }

        /// How many operations there are: `op as usize` is less.
        pub const OPERATIONS: usize = [$($mnemonic),*].len();

        /// Every line: first one for each [`Op`], in its order, then the other forms of these operations.
        pub static TABLE: [Line; OPERATIONS + [$($form),*].len()] = [
            $(Line {
                op: Op::$op,
                mnemonic: $mnemonic,
                extension: Extension::$extension,
                encoding: const { Encoding::parse($encoding) },
                operands: $operands,
            },)*
            $(Line {
                op: Op::$base,
                mnemonic: $form,
                extension: Extension::$form_extension,
                encoding: const { Encoding::parse($form_encoding) },
                operands: $form_operands,
            },)*
        ];
    };
}

instructions! {
    operations {
        // RV32I
        Lui "lui" I "imm[31:12] rd 0110111" "rd,imm20";
        Auipc "auipc" I "imm[31:12] rd 0010111" "rd,imm20";
        Jal "jal" I "imm[20|10:1|11|19:12] rd 1101111" "rd,target";
        Jalr "jalr" I "imm[11:0] rs1 000 rd 1100111" "rd,imm(rs1)";
        Beq "beq" I "imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011" "rs1,rs2,target";
        Bne "bne" I "imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011" "rs1,rs2,target";
        Blt "blt" I "imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011" "rs1,rs2,target";
        Bge "bge" I "imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011" "rs1,rs2,target";
        Bltu "bltu" I "imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011" "rs1,rs2,target";
        Bgeu "bgeu" I "imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011" "rs1,rs2,target";
        Lb "lb" I "imm[11:0] rs1 000 rd 0000011" "rd,imm(rs1)";
        Lh "lh" I "imm[11:0] rs1 001 rd 0000011" "rd,imm(rs1)";
        Lw "lw" I "imm[11:0] rs1 010 rd 0000011" "rd,imm(rs1)";
        Lbu "lbu" I "imm[11:0] rs1 100 rd 0000011" "rd,imm(rs1)";
        Lhu "lhu" I "imm[11:0] rs1 101 rd 0000011" "rd,imm(rs1)";
        Sb "sb" I "imm[11:5] rs2 rs1 000 imm[4:0] 0100011" "rs2,imm(rs1)";
        Sh "sh" I "imm[11:5] rs2 rs1 001 imm[4:0] 0100011" "rs2,imm(rs1)";
        Sw "sw" I "imm[11:5] rs2 rs1 010 imm[4:0] 0100011" "rs2,imm(rs1)";
        Addi "addi" I "imm[11:0] rs1 000 rd 0010011" "rd,rs1,imm";
        Slti "slti" I "imm[11:0] rs1 010 rd 0010011" "rd,rs1,imm";
        Sltiu "sltiu" I "imm[11:0] rs1 011 rd 0010011" "rd,rs1,imm";
        Xori "xori" I "imm[11:0] rs1 100 rd 0010011" "rd,rs1,imm";
        Ori "ori" I "imm[11:0] rs1 110 rd 0010011" "rd,rs1,imm";
        Andi "andi" I "imm[11:0] rs1 111 rd 0010011" "rd,rs1,imm";
        Slli "slli" I "000000 uimm[5:0] rs1 001 rd 0010011" "rd,rs1,hex";
        Srli "srli" I "000000 uimm[5:0] rs1 101 rd 0010011" "rd,rs1,hex";
        Srai "srai" I "010000 uimm[5:0] rs1 101 rd 0010011" "rd,rs1,hex";
        Add "add" I "0000000 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Sub "sub" I "0100000 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Sll "sll" I "0000000 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Slt "slt" I "0000000 rs2 rs1 010 rd 0110011" "rd,rs1,rs2";
        Sltu "sltu" I "0000000 rs2 rs1 011 rd 0110011" "rd,rs1,rs2";
        Xor "xor" I "0000000 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Srl "srl" I "0000000 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        Sra "sra" I "0100000 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        Or "or" I "0000000 rs2 rs1 110 rd 0110011" "rd,rs1,rs2";
        And "and" I "0000000 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";
        Fence "fence" I "uimm[11:0] rs1 000 rd 0001111" "pred,succ";
        Ecall "ecall" I "000000000000 00000 000 00000 1110011" "";
        Ebreak "ebreak" I "000000000001 00000 000 00000 1110011" "";

        // RV64I
        Lwu "lwu" I "imm[11:0] rs1 110 rd 0000011" "rd,imm(rs1)";
        Ld "ld" I "imm[11:0] rs1 011 rd 0000011" "rd,imm(rs1)";
        Sd "sd" I "imm[11:5] rs2 rs1 011 imm[4:0] 0100011" "rs2,imm(rs1)";
        Addiw "addiw" I "imm[11:0] rs1 000 rd 0011011" "rd,rs1,imm";
        Slliw "slliw" I "0000000 uimm[4:0] rs1 001 rd 0011011" "rd,rs1,hex";
        Srliw "srliw" I "0000000 uimm[4:0] rs1 101 rd 0011011" "rd,rs1,hex";
        Sraiw "sraiw" I "0100000 uimm[4:0] rs1 101 rd 0011011" "rd,rs1,hex";
        Addw "addw" I "0000000 rs2 rs1 000 rd 0111011" "rd,rs1,rs2";
        Subw "subw" I "0100000 rs2 rs1 000 rd 0111011" "rd,rs1,rs2";
        Sllw "sllw" I "0000000 rs2 rs1 001 rd 0111011" "rd,rs1,rs2";
        Srlw "srlw" I "0000000 rs2 rs1 101 rd 0111011" "rd,rs1,rs2";
        Sraw "sraw" I "0100000 rs2 rs1 101 rd 0111011" "rd,rs1,rs2";

        FenceI "fence.i" Zifencei "imm[11:0] rs1 001 rd 0001111" "";

        Csrrw "csrrw" Zicsr "uimm[11:0] rs1 001 rd 1110011" "rd,csr,rs1";
        Csrrs "csrrs" Zicsr "uimm[11:0] rs1 010 rd 1110011" "rd,csr,rs1";
        Csrrc "csrrc" Zicsr "uimm[11:0] rs1 011 rd 1110011" "rd,csr,rs1";
        Csrrwi "csrrwi" Zicsr "uimm[11:0] rs1 101 rd 1110011" "rd,csr,zimm";
        Csrrsi "csrrsi" Zicsr "uimm[11:0] rs1 110 rd 1110011" "rd,csr,zimm";
        Csrrci "csrrci" Zicsr "uimm[11:0] rs1 111 rd 1110011" "rd,csr,zimm";

        Mul "mul" M "0000001 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Mulh "mulh" M "0000001 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Mulhsu "mulhsu" M "0000001 rs2 rs1 010 rd 0110011" "rd,rs1,rs2";
        Mulhu "mulhu" M "0000001 rs2 rs1 011 rd 0110011" "rd,rs1,rs2";
        Div "div" M "0000001 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Divu "divu" M "0000001 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        Rem "rem" M "0000001 rs2 rs1 110 rd 0110011" "rd,rs1,rs2";
        Remu "remu" M "0000001 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";
        Mulw "mulw" M "0000001 rs2 rs1 000 rd 0111011" "rd,rs1,rs2";
        Divw "divw" M "0000001 rs2 rs1 100 rd 0111011" "rd,rs1,rs2";
        Divuw "divuw" M "0000001 rs2 rs1 101 rd 0111011" "rd,rs1,rs2";
        Remw "remw" M "0000001 rs2 rs1 110 rd 0111011" "rd,rs1,rs2";
        Remuw "remuw" M "0000001 rs2 rs1 111 rd 0111011" "rd,rs1,rs2";

        LrW "lr.w" A "00010 aq rl 00000 rs1 010 rd 0101111" "rd,(rs1)";
        ScW "sc.w" A "00011 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmoswapW "amoswap.w" A "00001 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmoaddW "amoadd.w" A "00000 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmoxorW "amoxor.w" A "00100 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmoandW "amoand.w" A "01100 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmoorW "amoor.w" A "01000 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmominW "amomin.w" A "10000 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmomaxW "amomax.w" A "10100 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmominuW "amominu.w" A "11000 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        AmomaxuW "amomaxu.w" A "11100 aq rl rs2 rs1 010 rd 0101111" "rd,rs2,(rs1)";
        LrD "lr.d" A "00010 aq rl 00000 rs1 011 rd 0101111" "rd,(rs1)";
        ScD "sc.d" A "00011 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmoswapD "amoswap.d" A "00001 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmoaddD "amoadd.d" A "00000 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmoxorD "amoxor.d" A "00100 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmoandD "amoand.d" A "01100 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmoorD "amoor.d" A "01000 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmominD "amomin.d" A "10000 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmomaxD "amomax.d" A "10100 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmominuD "amominu.d" A "11000 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";
        AmomaxuD "amomaxu.d" A "11100 aq rl rs2 rs1 011 rd 0101111" "rd,rs2,(rs1)";

        Flw "flw" F "imm[11:0] rs1 010 rd 0000111" "fd,imm(rs1)";
        Fsw "fsw" F "imm[11:5] rs2 rs1 010 imm[4:0] 0100111" "fs2,imm(rs1)";
        FmaddS "fmadd.s" F "rs3 00 rs2 rs1 rm rd 1000011" "fd,fs1,fs2,fs3,rm";
        FmsubS "fmsub.s" F "rs3 00 rs2 rs1 rm rd 1000111" "fd,fs1,fs2,fs3,rm";
        FnmsubS "fnmsub.s" F "rs3 00 rs2 rs1 rm rd 1001011" "fd,fs1,fs2,fs3,rm";
        FnmaddS "fnmadd.s" F "rs3 00 rs2 rs1 rm rd 1001111" "fd,fs1,fs2,fs3,rm";
        FaddS "fadd.s" F "0000000 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FsubS "fsub.s" F "0000100 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FmulS "fmul.s" F "0001000 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FdivS "fdiv.s" F "0001100 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FsqrtS "fsqrt.s" F "0101100 00000 rs1 rm rd 1010011" "fd,fs1,rm";
        FsgnjS "fsgnj.s" F "0010000 rs2 rs1 000 rd 1010011" "fd,fs1,fs2";
        FsgnjnS "fsgnjn.s" F "0010000 rs2 rs1 001 rd 1010011" "fd,fs1,fs2";
        FsgnjxS "fsgnjx.s" F "0010000 rs2 rs1 010 rd 1010011" "fd,fs1,fs2";
        FminS "fmin.s" F "0010100 rs2 rs1 000 rd 1010011" "fd,fs1,fs2";
        FmaxS "fmax.s" F "0010100 rs2 rs1 001 rd 1010011" "fd,fs1,fs2";
        FcvtWS "fcvt.w.s" F "1100000 00000 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtWuS "fcvt.wu.s" F "1100000 00001 rs1 rm rd 1010011" "rd,fs1,rm";
        FmvXW "fmv.x.w" F "1110000 00000 rs1 000 rd 1010011" "rd,fs1";
        FeqS "feq.s" F "1010000 rs2 rs1 010 rd 1010011" "rd,fs1,fs2";
        FltS "flt.s" F "1010000 rs2 rs1 001 rd 1010011" "rd,fs1,fs2";
        FleS "fle.s" F "1010000 rs2 rs1 000 rd 1010011" "rd,fs1,fs2";
        FclassS "fclass.s" F "1110000 00000 rs1 001 rd 1010011" "rd,fs1";
        FcvtSW "fcvt.s.w" F "1101000 00000 rs1 rm rd 1010011" "fd,rs1,rm";
        FcvtSWu "fcvt.s.wu" F "1101000 00001 rs1 rm rd 1010011" "fd,rs1,rm";
        FmvWX "fmv.w.x" F "1111000 00000 rs1 000 rd 1010011" "fd,rs1";
        FcvtLS "fcvt.l.s" F "1100000 00010 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtLuS "fcvt.lu.s" F "1100000 00011 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtSL "fcvt.s.l" F "1101000 00010 rs1 rm rd 1010011" "fd,rs1,rm";
        FcvtSLu "fcvt.s.lu" F "1101000 00011 rs1 rm rd 1010011" "fd,rs1,rm";

        Fld "fld" D "imm[11:0] rs1 011 rd 0000111" "fd,imm(rs1)";
        Fsd "fsd" D "imm[11:5] rs2 rs1 011 imm[4:0] 0100111" "fs2,imm(rs1)";
        FmaddD "fmadd.d" D "rs3 01 rs2 rs1 rm rd 1000011" "fd,fs1,fs2,fs3,rm";
        FmsubD "fmsub.d" D "rs3 01 rs2 rs1 rm rd 1000111" "fd,fs1,fs2,fs3,rm";
        FnmsubD "fnmsub.d" D "rs3 01 rs2 rs1 rm rd 1001011" "fd,fs1,fs2,fs3,rm";
        FnmaddD "fnmadd.d" D "rs3 01 rs2 rs1 rm rd 1001111" "fd,fs1,fs2,fs3,rm";
        FaddD "fadd.d" D "0000001 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FsubD "fsub.d" D "0000101 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FmulD "fmul.d" D "0001001 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FdivD "fdiv.d" D "0001101 rs2 rs1 rm rd 1010011" "fd,fs1,fs2,rm";
        FsqrtD "fsqrt.d" D "0101101 00000 rs1 rm rd 1010011" "fd,fs1,rm";
        FsgnjD "fsgnj.d" D "0010001 rs2 rs1 000 rd 1010011" "fd,fs1,fs2";
        FsgnjnD "fsgnjn.d" D "0010001 rs2 rs1 001 rd 1010011" "fd,fs1,fs2";
        FsgnjxD "fsgnjx.d" D "0010001 rs2 rs1 010 rd 1010011" "fd,fs1,fs2";
        FminD "fmin.d" D "0010101 rs2 rs1 000 rd 1010011" "fd,fs1,fs2";
        FmaxD "fmax.d" D "0010101 rs2 rs1 001 rd 1010011" "fd,fs1,fs2";
        FcvtSD "fcvt.s.d" D "0100000 00001 rs1 rm rd 1010011" "fd,fs1,rm";
        FcvtDS "fcvt.d.s" D "0100001 00000 rs1 rm rd 1010011" "fd,fs1,rm";
        FeqD "feq.d" D "1010001 rs2 rs1 010 rd 1010011" "rd,fs1,fs2";
        FltD "flt.d" D "1010001 rs2 rs1 001 rd 1010011" "rd,fs1,fs2";
        FleD "fle.d" D "1010001 rs2 rs1 000 rd 1010011" "rd,fs1,fs2";
        FclassD "fclass.d" D "1110001 00000 rs1 001 rd 1010011" "rd,fs1";
        FcvtWD "fcvt.w.d" D "1100001 00000 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtWuD "fcvt.wu.d" D "1100001 00001 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtDW "fcvt.d.w" D "1101001 00000 rs1 rm rd 1010011" "fd,rs1,rm";
        FcvtDWu "fcvt.d.wu" D "1101001 00001 rs1 rm rd 1010011" "fd,rs1,rm";
        FcvtLD "fcvt.l.d" D "1100001 00010 rs1 rm rd 1010011" "rd,fs1,rm";
        FcvtLuD "fcvt.lu.d" D "1100001 00011 rs1 rm rd 1010011" "rd,fs1,rm";
        FmvXD "fmv.x.d" D "1110001 00000 rs1 000 rd 1010011" "rd,fs1";
        FcvtDL "fcvt.d.l" D "1101001 00010 rs1 rm rd 1010011" "fd,rs1,rm";
        FcvtDLu "fcvt.d.lu" D "1101001 00011 rs1 rm rd 1010011" "fd,rs1,rm";
        FmvDX "fmv.d.x" D "1111001 00000 rs1 000 rd 1010011" "fd,rs1";

        AddUw "add.uw" Zba "0000100 rs2 rs1 000 rd 0111011" "rd,rs1,rs2";
        Sh1add "sh1add" Zba "0010000 rs2 rs1 010 rd 0110011" "rd,rs1,rs2";
        Sh2add "sh2add" Zba "0010000 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Sh3add "sh3add" Zba "0010000 rs2 rs1 110 rd 0110011" "rd,rs1,rs2";
        Sh1addUw "sh1add.uw" Zba "0010000 rs2 rs1 010 rd 0111011" "rd,rs1,rs2";
        Sh2addUw "sh2add.uw" Zba "0010000 rs2 rs1 100 rd 0111011" "rd,rs1,rs2";
        Sh3addUw "sh3add.uw" Zba "0010000 rs2 rs1 110 rd 0111011" "rd,rs1,rs2";
        SlliUw "slli.uw" Zba "000010 uimm[5:0] rs1 001 rd 0011011" "rd,rs1,hex";

        Andn "andn" Zbb "0100000 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";
        Orn "orn" Zbb "0100000 rs2 rs1 110 rd 0110011" "rd,rs1,rs2";
        Xnor "xnor" Zbb "0100000 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Clz "clz" Zbb "011000000000 rs1 001 rd 0010011" "rd,rs1";
        Ctz "ctz" Zbb "011000000001 rs1 001 rd 0010011" "rd,rs1";
        Cpop "cpop" Zbb "011000000010 rs1 001 rd 0010011" "rd,rs1";
        Clzw "clzw" Zbb "011000000000 rs1 001 rd 0011011" "rd,rs1";
        Ctzw "ctzw" Zbb "011000000001 rs1 001 rd 0011011" "rd,rs1";
        Cpopw "cpopw" Zbb "011000000010 rs1 001 rd 0011011" "rd,rs1";
        Max "max" Zbb "0000101 rs2 rs1 110 rd 0110011" "rd,rs1,rs2";
        Maxu "maxu" Zbb "0000101 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";
        Min "min" Zbb "0000101 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Minu "minu" Zbb "0000101 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        SextB "sext.b" Zbb "011000000100 rs1 001 rd 0010011" "rd,rs1";
        SextH "sext.h" Zbb "011000000101 rs1 001 rd 0010011" "rd,rs1";
        Rol "rol" Zbb "0110000 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Ror "ror" Zbb "0110000 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        Rori "rori" Zbb "011000 uimm[5:0] rs1 101 rd 0010011" "rd,rs1,hex";
        Rolw "rolw" Zbb "0110000 rs2 rs1 001 rd 0111011" "rd,rs1,rs2";
        Rorw "rorw" Zbb "0110000 rs2 rs1 101 rd 0111011" "rd,rs1,rs2";
        Roriw "roriw" Zbb "0110000 uimm[4:0] rs1 101 rd 0011011" "rd,rs1,hex";
        OrcB "orc.b" Zbb "001010000111 rs1 101 rd 0010011" "rd,rs1";
        Rev8 "rev8" Zbb "011010111000 rs1 101 rd 0010011" "rd,rs1";

        Clmul "clmul" Zbc "0000101 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Clmulh "clmulh" Zbc "0000101 rs2 rs1 011 rd 0110011" "rd,rs1,rs2";
        Clmulr "clmulr" Zbc "0000101 rs2 rs1 010 rd 0110011" "rd,rs1,rs2";

        Pack "pack" Zbkb "0000100 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";
        Packh "packh" Zbkb "0000100 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";
        Packw "packw" Zbkb "0000100 rs2 rs1 100 rd 0111011" "rd,rs1,rs2";
        Brev8 "brev8" Zbkb "011010000111 rs1 101 rd 0010011" "rd,rs1";

        Xperm4 "xperm4" Zbkx "0010100 rs2 rs1 010 rd 0110011" "rd,rs1,rs2";
        Xperm8 "xperm8" Zbkx "0010100 rs2 rs1 100 rd 0110011" "rd,rs1,rs2";

        Bclr "bclr" Zbs "0100100 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Bclri "bclri" Zbs "010010 uimm[5:0] rs1 001 rd 0010011" "rd,rs1,hex";
        Bext "bext" Zbs "0100100 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        Bexti "bexti" Zbs "010010 uimm[5:0] rs1 101 rd 0010011" "rd,rs1,hex";
        Binv "binv" Zbs "0110100 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Binvi "binvi" Zbs "011010 uimm[5:0] rs1 001 rd 0010011" "rd,rs1,hex";
        Bset "bset" Zbs "0010100 rs2 rs1 001 rd 0110011" "rd,rs1,rs2";
        Bseti "bseti" Zbs "001010 uimm[5:0] rs1 001 rd 0010011" "rd,rs1,hex";

        Aes64ds "aes64ds" Zknd "0011101 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Aes64dsm "aes64dsm" Zknd "0011111 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Aes64im "aes64im" Zknd "001100000000 rs1 001 rd 0010011" "rd,rs1";
        Aes64ks1i "aes64ks1i" Zknd "00110001 rnum[3:0] rs1 001 rd 0010011" "rd,rs1,hex";
        Aes64ks2 "aes64ks2" Zknd "0111111 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Aes64es "aes64es" Zkne "0011001 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";
        Aes64esm "aes64esm" Zkne "0011011 rs2 rs1 000 rd 0110011" "rd,rs1,rs2";

        Sha256sum0 "sha256sum0" Zknh "000100000000 rs1 001 rd 0010011" "rd,rs1";
        Sha256sum1 "sha256sum1" Zknh "000100000001 rs1 001 rd 0010011" "rd,rs1";
        Sha256sig0 "sha256sig0" Zknh "000100000010 rs1 001 rd 0010011" "rd,rs1";
        Sha256sig1 "sha256sig1" Zknh "000100000011 rs1 001 rd 0010011" "rd,rs1";
        Sha512sum0 "sha512sum0" Zknh "000100000100 rs1 001 rd 0010011" "rd,rs1";
        Sha512sum1 "sha512sum1" Zknh "000100000101 rs1 001 rd 0010011" "rd,rs1";
        Sha512sig0 "sha512sig0" Zknh "000100000110 rs1 001 rd 0010011" "rd,rs1";
        Sha512sig1 "sha512sig1" Zknh "000100000111 rs1 001 rd 0010011" "rd,rs1";

        Sm4ed "sm4ed" Zksed "uimm[1:0] 11000 rs2 rs1 000 rd 0110011" "rd,rs1,rs2,hex";
        Sm4ks "sm4ks" Zksed "uimm[1:0] 11010 rs2 rs1 000 rd 0110011" "rd,rs1,rs2,hex";

        Sm3p0 "sm3p0" Zksh "000100001000 rs1 001 rd 0010011" "rd,rs1";
        Sm3p1 "sm3p1" Zksh "000100001001 rs1 001 rd 0010011" "rd,rs1";

        CzeroEqz "czero.eqz" Zicond "0000111 rs2 rs1 101 rd 0110011" "rd,rs1,rs2";
        CzeroNez "czero.nez" Zicond "0000111 rs2 rs1 111 rd 0110011" "rd,rs1,rs2";

        CboInval "cbo.inval" Zicbom "000000000000 rs1 010 00000 0001111" "(rs1)";
        CboClean "cbo.clean" Zicbom "000000000001 rs1 010 00000 0001111" "(rs1)";
        CboFlush "cbo.flush" Zicbom "000000000010 rs1 010 00000 0001111" "(rs1)";
        CboZero "cbo.zero" Zicboz "000000000100 rs1 010 00000 0001111" "(rs1)";

        WrsNto "wrs.nto" Zawrs "000000001101 00000 000 00000 1110011" "";
        WrsSto "wrs.sto" Zawrs "000000011101 00000 000 00000 1110011" "";

        Sret "sret" Privileged "0001000 00010 00000 000 00000 1110011" "";
        Mret "mret" Privileged "0011000 00010 00000 000 00000 1110011" "";
        Wfi "wfi" Privileged "0001000 00101 00000 000 00000 1110011" "";
        SfenceVma "sfence.vma" Privileged "0001001 rs2 rs1 000 00000 1110011" "rs1,rs2";
        SinvalVma "sinval.vma" Svinval "0001011 rs2 rs1 000 00000 1110011" "rs1,rs2";
        SfenceWInval "sfence.w.inval" Svinval "0001100 00000 00000 000 00000 1110011" "";
        SfenceInvalIr "sfence.inval.ir" Svinval "0001100 00001 00000 000 00000 1110011" "";
    }
    forms {
        // Hints: operations of the base without effect.
        "zext.h" Packw Zbb "000010000000 rs1 100 rd 0111011" "rd,rs1";
        "pause" Fence Zihintpause "000000010000 00000 000 00000 0001111 imm=16" "";
        "prefetch.i" Ori Zicbop "imm[11:5] 00000 rs1 110 00000 0010011" "block(rs1)";
        "prefetch.r" Ori Zicbop "imm[11:5] 00001 rs1 110 00000 0010011 imm=1" "block(rs1)";
        "prefetch.w" Ori Zicbop "imm[11:5] 00011 rs1 110 00000 0010011 imm=3" "block(rs1)";

        // Quadrant 0
        "c.addi4spn" Addi C "000 nzuimm[5:4|9:6|2|3] rd' 00 rs1=2" "rd,sp,imm";
        "c.fld" Fld Zcd "001 uimm[5:3] rs1' uimm[7:6] rd' 00" "fd,imm(rs1)";
        "c.lw" Lw C "010 uimm[5:3] rs1' uimm[2|6] rd' 00" "rd,imm(rs1)";
        "c.ld" Ld C "011 uimm[5:3] rs1' uimm[7:6] rd' 00" "rd,imm(rs1)";
        "c.fsd" Fsd Zcd "101 uimm[5:3] rs1' uimm[7:6] rs2' 00" "fs2,imm(rs1)";
        "c.sw" Sw C "110 uimm[5:3] rs1' uimm[2|6] rs2' 00" "rs2,imm(rs1)";
        "c.sd" Sd C "111 uimm[5:3] rs1' uimm[7:6] rs2' 00" "rs2,imm(rs1)";

        // Quadrant 1
        "c.addi" Addi C "000 imm[5] nzrd/rs1 imm[4:0] 01" "rd,imm";
        "c.nop" Addi C "000 imm[5] 00000 imm[4:0] 01" "";
        "c.addiw" Addiw C "001 imm[5] nzrd/rs1 imm[4:0] 01" "rd,imm";
        "c.li" Addi C "010 imm[5] rd imm[4:0] 01" "rd,imm";
        "c.addi16sp" Addi C "011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01 rd=2 rs1=2" "sp,imm";
        "c.lui" Lui C "011 nzimm[17] rd nzimm[16:12] 01" "rd,imm20";
        "c.srli" Srli C "100 uimm[5] 00 rd'/rs1' uimm[4:0] 01" "rd,hex";
        "c.srai" Srai C "100 uimm[5] 01 rd'/rs1' uimm[4:0] 01" "rd,hex";
        "c.andi" Andi C "100 imm[5] 10 rd'/rs1' imm[4:0] 01" "rd,imm";
        "c.sub" Sub C "100 0 11 rd'/rs1' 00 rs2' 01" "rd,rs2";
        "c.xor" Xor C "100 0 11 rd'/rs1' 01 rs2' 01" "rd,rs2";
        "c.or" Or C "100 0 11 rd'/rs1' 10 rs2' 01" "rd,rs2";
        "c.and" And C "100 0 11 rd'/rs1' 11 rs2' 01" "rd,rs2";
        "c.subw" Subw C "100 1 11 rd'/rs1' 00 rs2' 01" "rd,rs2";
        "c.addw" Addw C "100 1 11 rd'/rs1' 01 rs2' 01" "rd,rs2";
        "c.j" Jal C "101 imm[11|4|9:8|10|6|7|3:1|5] 01" "target";
        "c.beqz" Beq C "110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01" "rs1,target";
        "c.bnez" Bne C "111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01" "rs1,target";

        // Quadrant 2
        "c.slli" Slli C "000 uimm[5] rd/rs1 uimm[4:0] 10" "rd,hex";
        "c.fldsp" Fld Zcd "001 uimm[5] rd uimm[4:3|8:6] 10 rs1=2" "fd,imm(sp)";
        "c.lwsp" Lw C "010 uimm[5] nzrd uimm[4:2|7:6] 10 rs1=2" "rd,imm(sp)";
        "c.ldsp" Ld C "011 uimm[5] nzrd uimm[4:3|8:6] 10 rs1=2" "rd,imm(sp)";
        "c.mv" Add C "100 0 rd nzrs2 10" "rd,rs2";
        "c.jr" Jalr C "100 0 nzrs1 00000 10" "rs1";
        "c.add" Add C "100 1 rd/rs1 nzrs2 10" "rd,rs2";
        "c.jalr" Jalr C "100 1 nzrs1 00000 10 rd=1" "rs1";
        "c.ebreak" Ebreak C "100 1 00000 00000 10" "";
        "c.fsdsp" Fsd Zcd "101 uimm[5:3|8:6] rs2 10 rs1=2" "fs2,imm(sp)";
        "c.swsp" Sw C "110 uimm[5:2|7:6] rs2 10 rs1=2" "rs2,imm(sp)";
        "c.sdsp" Sd C "111 uimm[5:3|8:6] rs2 10 rs1=2" "rs2,imm(sp)";
    }
}

impl Op {
    /// Its line in the table.
    #[must_use]
    pub fn line(self) -> &'static Line {
        &TABLE[self as usize]
    }

    /// Every operation.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLE[..OPERATIONS].iter().map(|line| line.op)
    }
}
