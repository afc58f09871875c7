//! From a decoded instruction to a slot: which handler, and with which operands.

use super::{atomic, bits, control, crypto, float, integer, memory, multiply, system};
use crate::hart::Registers;
use crate::hart::block::{Handler, Slot};
use crate::isa::{Instruction, OPERATIONS, Op, TABLE};

/// A slot, and what it means for the block.
pub(super) struct Lowered {
    pub(super) slot: Slot,
    /// No instruction of the block comes after it.
    pub(super) ends_block: bool,
    /// Where its jump leads, from the block's start.
    pub(super) taken: i64,
}

/// The slot that ends a block whose last instruction does not.
pub(super) fn fall_through() -> Slot {
    Slot { handler: control::fall_through, rd: Registers::NOWHERE, rs1: 0, rs2: 0, extra: 0, imm: 0 }
}

/// What lowering an operation takes: looked up, since the host could not foresee the jumps of a `match`.
#[derive(Clone, Copy)]
struct Lowering {
    handler: Handler,
    /// Its destination is a floating-point register.
    float_target: bool,
    ends_block: bool,
    /// It has a third source register or a rounding mode.
    has_extra: bool,
    /// Its slot holds something of its place in the block.
    has_place: bool,
}

static LOWERINGS: [Lowering; OPERATIONS] = {
    let nothing = Lowering {
        handler: system::illegal,
        float_target: false,
        ends_block: true,
        has_extra: false,
        has_place: false,
    };
    let mut all = [nothing; OPERATIONS];
    let mut index = 0;
    while index < OPERATIONS {
        let op = TABLE[index].op;
        all[index] = Lowering {
            handler: handler(op),
            float_target: op.uses().writes_float(),
            ends_block: ends_block(op),
            has_extra: TABLE[index].encoding.has_rounding_mode(),
            has_place: matches!(op, Op::Jal | Op::Jalr | Op::Auipc) || is_branch(op),
        };
        index += 1;
    }
    all
};

/// Lowers the instruction `offset` bytes from the block's start; `None` is one that does not exist.
#[inline(always)]
pub(super) fn lower(instruction: Option<Instruction>, offset: u64) -> Lowered {
    let Some(instruction) = instruction else {
        let slot = Slot { handler: system::illegal, ..fall_through() };
        return Lowered { slot, ends_block: true, taken: 0 };
    };
    let Instruction { op, rd, rs1, rs2, rs3, rm, imm, .. } = instruction;
    let Lowering { handler, float_target, ends_block, has_extra, has_place } = LOWERINGS[op as usize];
    let rd = std::hint::select_unpredictable((rd == 0) & !float_target, Registers::NOWHERE, rd);
    let extra = if has_extra { rs3 & 31 | rm << 5 } else { 0 };
    let slot = Slot { handler, rd, rs1, rs2, extra, imm };
    let lowered = Lowered { slot, ends_block, taken: 0 };
    if has_place { with_place(lowered, instruction, offset) } else { lowered }
}

/// Puts in what an instruction knows of its place.
fn with_place(mut lowered: Lowered, instruction: Instruction, offset: u64) -> Lowered {
    let Instruction { op, length, rd, imm, .. } = instruction;
    let place = i32::try_from(offset).unwrap_or(0);
    let slot = &mut lowered.slot;
    match op {
        Op::Jal => {
            lowered.taken = i64::from(imm) + i64::from(place);
            slot.imm = place + i32::from(length);
            if rd == 0 {
                slot.handler = control::j;
            }
        }
        // The link, halved, is below 256: a block has at most 62 instructions.
        Op::Jalr => slot.rs2 = u8::try_from((place + i32::from(length)) / 2).unwrap_or(0),
        Op::Auipc => slot.imm = imm.wrapping_add(place),
        _ => lowered.taken = i64::from(imm) + i64::from(place),
    }
    lowered
}

const fn is_branch(op: Op) -> bool {
    matches!(op, Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu)
}

/// Whether control may go elsewhere than to the next instruction, or what the next instruction means may change.
pub(crate) const fn ends_block(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        Jal | Jalr
            | Beq
            | Bne
            | Blt
            | Bge
            | Bltu
            | Bgeu
            | Ecall
            | Ebreak
            | FenceI
            | Csrrw
            | Csrrs
            | Csrrc
            | Csrrwi
            | Csrrsi
            | Csrrci
            | WrsNto
            | WrsSto
            | Sret
            | Mret
            | Wfi
            | SfenceVma
            | SinvalVma
            | SfenceWInval
            | SfenceInvalIr
    )
}

const fn handler(op: Op) -> Handler {
    use Op::*;
    match op {
        Lui => integer::lui,
        Auipc => integer::auipc,
        Jal => control::jal,
        Jalr => control::jalr,
        Beq => control::beq,
        Bne => control::bne,
        Blt => control::blt,
        Bge => control::bge,
        Bltu => control::bltu,
        Bgeu => control::bgeu,
        Lb => memory::lb,
        Lh => memory::lh,
        Lw => memory::lw,
        Lbu => memory::lbu,
        Lhu => memory::lhu,
        Lwu => memory::lwu,
        Ld => memory::ld,
        Sb => memory::sb,
        Sh => memory::sh,
        Sw => memory::sw,
        Sd => memory::sd,
        Addi => integer::addi,
        Slti => integer::slti,
        Sltiu => integer::sltiu,
        Xori => integer::xori,
        Ori => integer::ori,
        Andi => integer::andi,
        Slli => integer::slli,
        Srli => integer::srli,
        Srai => integer::srai,
        Add => integer::add,
        Sub => integer::sub,
        Sll => integer::sll,
        Slt => integer::slt,
        Sltu => integer::sltu,
        Xor => integer::xor,
        Srl => integer::srl,
        Sra => integer::sra,
        Or => integer::or,
        And => integer::and,
        Addiw => integer::addiw,
        Slliw => integer::slliw,
        Srliw => integer::srliw,
        Sraiw => integer::sraiw,
        Addw => integer::addw,
        Subw => integer::subw,
        Sllw => integer::sllw,
        Srlw => integer::srlw,
        Sraw => integer::sraw,
        Fence => memory::fence,
        FenceI => system::fence_i,
        Ecall => system::ecall,
        Ebreak => system::ebreak,
        Csrrw => system::csrrw,
        Csrrs => system::csrrs,
        Csrrc => system::csrrc,
        Csrrwi => system::csrrwi,
        Csrrsi => system::csrrsi,
        Csrrci => system::csrrci,
        Mul => multiply::mul,
        Mulh => multiply::mulh,
        Mulhsu => multiply::mulhsu,
        Mulhu => multiply::mulhu,
        Div => multiply::div,
        Divu => multiply::divu,
        Rem => multiply::rem,
        Remu => multiply::remu,
        Mulw => multiply::mulw,
        Divw => multiply::divw,
        Divuw => multiply::divuw,
        Remw => multiply::remw,
        Remuw => multiply::remuw,
        LrW => atomic::lr_w,
        LrD => atomic::lr_d,
        ScW => atomic::sc_w,
        ScD => atomic::sc_d,
        AmoswapW => atomic::amoswap_w,
        AmoaddW => atomic::amoadd_w,
        AmoxorW => atomic::amoxor_w,
        AmoandW => atomic::amoand_w,
        AmoorW => atomic::amoor_w,
        AmominW => atomic::amomin_w,
        AmomaxW => atomic::amomax_w,
        AmominuW => atomic::amominu_w,
        AmomaxuW => atomic::amomaxu_w,
        AmoswapD => atomic::amoswap_d,
        AmoaddD => atomic::amoadd_d,
        AmoxorD => atomic::amoxor_d,
        AmoandD => atomic::amoand_d,
        AmoorD => atomic::amoor_d,
        AmominD => atomic::amomin_d,
        AmomaxD => atomic::amomax_d,
        AmominuD => atomic::amominu_d,
        AmomaxuD => atomic::amomaxu_d,
        Flw => float::flw,
        Fsw => float::fsw,
        FmaddS => float::fmadd_s,
        FmsubS => float::fmsub_s,
        FnmsubS => float::fnmsub_s,
        FnmaddS => float::fnmadd_s,
        FaddS => float::fadd_s,
        FsubS => float::fsub_s,
        FmulS => float::fmul_s,
        FdivS => float::fdiv_s,
        FsqrtS => float::fsqrt_s,
        FsgnjS => float::fsgnj_s,
        FsgnjnS => float::fsgnjn_s,
        FsgnjxS => float::fsgnjx_s,
        FminS => float::fmin_s,
        FmaxS => float::fmax_s,
        FcvtWS => float::fcvt_w_s,
        FcvtWuS => float::fcvt_wu_s,
        FcvtLS => float::fcvt_l_s,
        FcvtLuS => float::fcvt_lu_s,
        FmvXW => float::fmv_x_w,
        FmvWX => float::fmv_w_x,
        FeqS => float::feq_s,
        FltS => float::flt_s,
        FleS => float::fle_s,
        FclassS => float::fclass_s,
        FcvtSW => float::fcvt_s_w,
        FcvtSWu => float::fcvt_s_wu,
        FcvtSL => float::fcvt_s_l,
        FcvtSLu => float::fcvt_s_lu,
        Fld => float::fld,
        Fsd => float::fsd,
        FmaddD => float::fmadd_d,
        FmsubD => float::fmsub_d,
        FnmsubD => float::fnmsub_d,
        FnmaddD => float::fnmadd_d,
        FaddD => float::fadd_d,
        FsubD => float::fsub_d,
        FmulD => float::fmul_d,
        FdivD => float::fdiv_d,
        FsqrtD => float::fsqrt_d,
        FsgnjD => float::fsgnj_d,
        FsgnjnD => float::fsgnjn_d,
        FsgnjxD => float::fsgnjx_d,
        FminD => float::fmin_d,
        FmaxD => float::fmax_d,
        FcvtSD => float::fcvt_s_d,
        FcvtDS => float::fcvt_d_s,
        FeqD => float::feq_d,
        FltD => float::flt_d,
        FleD => float::fle_d,
        FclassD => float::fclass_d,
        FcvtWD => float::fcvt_w_d,
        FcvtWuD => float::fcvt_wu_d,
        FcvtLD => float::fcvt_l_d,
        FcvtLuD => float::fcvt_lu_d,
        FcvtDW => float::fcvt_d_w,
        FcvtDWu => float::fcvt_d_wu,
        FcvtDL => float::fcvt_d_l,
        FcvtDLu => float::fcvt_d_lu,
        FmvXD => float::fmv_x_d,
        FmvDX => float::fmv_d_x,
        AddUw => bits::add_uw,
        Sh1add => bits::sh1add,
        Sh2add => bits::sh2add,
        Sh3add => bits::sh3add,
        Sh1addUw => bits::sh1add_uw,
        Sh2addUw => bits::sh2add_uw,
        Sh3addUw => bits::sh3add_uw,
        SlliUw => bits::slli_uw,
        Andn => bits::andn,
        Orn => bits::orn,
        Xnor => bits::xnor,
        Clz => bits::clz,
        Ctz => bits::ctz,
        Cpop => bits::cpop,
        Clzw => bits::clzw,
        Ctzw => bits::ctzw,
        Cpopw => bits::cpopw,
        Max => bits::max,
        Maxu => bits::maxu,
        Min => bits::min,
        Minu => bits::minu,
        SextB => bits::sext_b,
        SextH => bits::sext_h,
        Rol => bits::rol,
        Ror => bits::ror,
        Rori => bits::rori,
        Rolw => bits::rolw,
        Rorw => bits::rorw,
        Roriw => bits::roriw,
        OrcB => bits::orc_b,
        Rev8 => bits::rev8,
        Clmul => bits::clmul,
        Clmulh => bits::clmulh,
        Clmulr => bits::clmulr,
        Pack => bits::pack,
        Packh => bits::packh,
        Packw => bits::packw,
        Brev8 => bits::brev8,
        Xperm4 => bits::xperm4,
        Xperm8 => bits::xperm8,
        Bclr => bits::bclr,
        Bclri => bits::bclri,
        Bext => bits::bext,
        Bexti => bits::bexti,
        Binv => bits::binv,
        Binvi => bits::binvi,
        Bset => bits::bset,
        Bseti => bits::bseti,
        Aes64ds => crypto::aes64ds,
        Aes64dsm => crypto::aes64dsm,
        Aes64im => crypto::aes64im,
        Aes64ks1i => crypto::aes64ks1i,
        Aes64ks2 => crypto::aes64ks2,
        Aes64es => crypto::aes64es,
        Aes64esm => crypto::aes64esm,
        Sha256sum0 => crypto::sha256sum0,
        Sha256sum1 => crypto::sha256sum1,
        Sha256sig0 => crypto::sha256sig0,
        Sha256sig1 => crypto::sha256sig1,
        Sha512sum0 => crypto::sha512sum0,
        Sha512sum1 => crypto::sha512sum1,
        Sha512sig0 => crypto::sha512sig0,
        Sha512sig1 => crypto::sha512sig1,
        Sm4ed => crypto::sm4ed,
        Sm4ks => crypto::sm4ks,
        Sm3p0 => crypto::sm3p0,
        Sm3p1 => crypto::sm3p1,
        CzeroEqz => bits::czero_eqz,
        CzeroNez => bits::czero_nez,
        CboInval => memory::cbo_inval,
        CboClean | CboFlush => memory::cbo_clean,
        CboZero => memory::cbo_zero,
        WrsNto => system::wrs_nto,
        WrsSto => system::wrs_sto,
        Sret => system::sret,
        Mret => system::mret,
        Wfi => system::wfi,
        SfenceVma | SinvalVma => system::sfence_vma,
        SfenceWInval | SfenceInvalIr => system::sfence_order,
    }
}
