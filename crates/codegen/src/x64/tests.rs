//! What the assembler writes, read by another's disassembler.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::*;

fn text(code: &[u8]) -> Vec<String> {
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut lines = Vec::new();
    for instruction in Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE) {
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        lines.push(line);
    }
    lines
}

fn check(expected: &str, emit: impl FnOnce(&mut Assembler)) {
    let mut asm = Assembler::new();
    emit(&mut asm);
    assert_eq!(text(&asm.finish()).join("; "), expected);
}

#[test]
fn operands() {
    use Gpr::*;
    check("mov rax, [r15-80h]", |a| a.mov(Size::B64, Rax, Mem::at(R15, -128)));
    check("mov ecx, [r13]", |a| a.mov(Size::B32, Rcx, Mem::at(R13, 0)));
    check("mov [rsp+8], r12", |a| a.mov_store(Size::B64, Mem::at(Rsp, 8), R12));
    check("mov rax, gs:[r12+1000h]", |a| a.mov(Size::B64, Rax, Mem::at(R12, 0x1000).gs()));
    check("lea r8, [rbp+r9*4+1]", |a| a.lea(R8, Mem::indexed(Rbp, R9, Scale::Four, 1)));
    check("lea rsi, [rdi*8]", |a| a.lea(Rsi, Mem::scaled(Rdi, Scale::Eight, 0)));
    check("mov al, gs:[7Fh]", |a| a.mov(Size::B8, Rax, Mem::absolute(0x7f).gs()));
}

#[test]
fn bytes_of_any_register() {
    use Gpr::*;
    for (register, name) in [(Rax, "al"), (Rbx, "bl"), (Rbp, "bpl"), (Rsi, "sil"), (Rdi, "dil"), (R8, "r8b")] {
        check(&format!("mov [rax], {name}"), |a| a.mov_store(Size::B8, Mem::at(Rax, 0), register));
        check(&format!("movzx ecx, {name}"), |a| a.movzx(Rcx, Size::B8, register));
        check(&format!("setl {name}"), |a| a.setcc(Cc::L, register));
    }
}

#[test]
fn arithmetic() {
    use Gpr::*;
    check("add rax, r9", |a| a.alu(Alu::Add, Size::B64, Rax, R9));
    check("xor [r15+8], ecx", |a| a.alu_store(Alu::Xor, Size::B32, Mem::at(R15, 8), Rcx));
    check("sub r14, 7Fh", |a| a.alu_imm(Alu::Sub, Size::B64, R14, 127));
    check("cmp qword ptr [rax], 12345678h", |a| a.alu_imm(Alu::Cmp, Size::B64, Mem::at(Rax, 0), 0x1234_5678));
    check("cmp word ptr [rax], 1234h", |a| a.alu_imm(Alu::Cmp, Size::B16, Mem::at(Rax, 0), 0x1234));
    check("and dl, 0FFh", |a| a.alu_imm(Alu::And, Size::B8, Rdx, -1));
    check("mov r11d, 0FFFFFFFFh", |a| a.mov_imm(R11, 0xffff_ffff));
    check("mov rdi, 0FFFFFFFFFFFFFFFFh", |a| a.mov_imm(Rdi, u64::MAX));
    check("mov r8, 123456789ABCDEF0h", |a| a.mov_imm(R8, 0x1234_5678_9abc_def0));
    check("movsxd r12, eax", |a| a.movsx(R12, Size::B32, Rax));
    check("movsx rax, word ptr [rdi]", |a| a.movsx(Rax, Size::B16, Mem::at(Rdi, 0)));
    check("imul r10, [r15]", |a| a.imul(Size::B64, R10, Mem::at(R15, 0)));
    check("cqo; idiv rcx", |a| {
        a.sign_into_rdx(Size::B64);
        a.idiv(Size::B64, Rcx);
    });
    check("shl r9, 20h", |a| a.shift(Shift::Shl, Size::B64, R9, 32));
    check("sar eax, 1", |a| a.shift(Shift::Sar, Size::B32, Rax, 1));
    check("shlx rax, r9, r13", |a| a.shlx(Size::B64, Rax, R9, R13));
    check("sarx ebx, [r15+8], ecx", |a| a.sarx(Size::B32, Rbx, Mem::at(R15, 8), Rcx));
    check("shrx rsi, rdi, r8", |a| a.shrx(Size::B64, Rsi, Rdi, R8));
    check("rorx r8, rax, 7", |a| a.rorx(Size::B64, R8, Rax, 7));
    check("andn rax, r8, rbx", |a| a.andn(Size::B64, Rax, R8, Rbx));
    check("bswap r9", |a| a.bswap(Size::B64, R9));
    check("lzcnt rax, r8; tzcnt ecx, edx; popcnt rdi, rsi", |a| {
        a.lzcnt(Size::B64, Rax, R8);
        a.tzcnt(Size::B32, Rcx, Rdx);
        a.popcnt(Size::B64, Rdi, Rsi);
    });
    check("cmovb r8, rax", |a| a.cmov(Cc::B, Size::B64, R8, Rax));
    check("not r12; neg dword ptr [rax]", |a| {
        a.not(Size::B64, R12);
        a.neg(Size::B32, Mem::at(Rax, 0));
    });
}

#[test]
fn atomics() {
    use Gpr::*;
    check("lock xadd gs:[rdi], r8", |a| {
        a.lock();
        a.xadd(Size::B64, Mem::at(Rdi, 0).gs(), R8);
    });
    check("lock cmpxchg [rcx], edx", |a| {
        a.lock();
        a.cmpxchg(Size::B32, Mem::at(Rcx, 0), Rdx);
    });
    check("xchg [rax], rcx", |a| a.xchg(Size::B64, Mem::at(Rax, 0), Rcx));
    check("mfence; pause", |a| {
        a.mfence();
        a.pause();
    });
}

#[test]
fn jumps() {
    use Gpr::*;
    check("push r12; pop rax; ret; call qword ptr [r15+100h]; jmp rax", |a| {
        a.push(R12);
        a.pop(Rax);
        a.ret();
        a.call_rm(Mem::at(R15, 0x100));
        a.jmp_rm(Rax);
    });
    let mut asm = Assembler::new();
    let (back, forth) = (asm.label(), asm.label());
    asm.bind(back);
    asm.jcc(Cc::Ne, forth);
    asm.jmp(back);
    asm.bind(forth);
    let site = asm.jmp_patchable(back);
    let code = asm.finish();
    assert_eq!((site + 1) % 4, 0);
    assert_eq!(text(&code)[..2], ["jne 000000000000100Bh", "jmp 0000000000001000h"]);
    assert_eq!(text(&code).last().unwrap(), "jmp 0000000000001000h");
    let mut asm = Assembler::new();
    let label = asm.label();
    asm.bind(label);
    asm.push(Rax);
    let compare = asm.offset();
    asm.test(Size::B64, Rax, Rax);
    let site = asm.jcc_patchable(Cc::E, label, compare);
    assert_eq!((site + 1) % 4, 0);
    assert_eq!(text(&asm.finish()).join("; "), "push rax; xchg ax, ax; test rax, rax; je 0000000000001000h");
    check("sub r14, 1; add rax, 12345h", |a| {
        a.alu_imm_long(Alu::Sub, R14, 1);
        assert_eq!(a.offset(), 7);
        a.alu_imm_long(Alu::Add, Rax, 0x12345);
    });
}

#[test]
fn floating_point_in_all_registers() {
    for (n, m) in (0..16).flat_map(|n| (0..16).map(move |m| (n, m))) {
        let (a, b) = (Xmm(n), Xmm(m));
        for (precision, s) in [(Precision::Single, "ss"), (Precision::Double, "sd")] {
            for (op, name) in [
                (Scalar::Sqrt, "sqrt"),
                (Scalar::Add, "add"),
                (Scalar::Mul, "mul"),
                (Scalar::Sub, "sub"),
                (Scalar::Min, "min"),
                (Scalar::Div, "div"),
                (Scalar::Max, "max"),
            ] {
                check(&format!("{name}{s} xmm{n}, xmm{m}"), |asm| asm.scalar(op, precision, a, b));
                check(&format!("v{name}{s} xmm{n}, xmm9, xmm{m}"), |asm| asm.scalar_of(op, precision, a, Xmm(9), b));
            }
            check(&format!("ucomi{s} xmm{n}, xmm{m}; comi{s} xmm{n}, xmm{m}"), |asm| {
                asm.ucomis(precision, a, b);
                asm.comis(precision, a, b);
            });
            for (op, name) in
                [(Fma::Madd, "fmadd"), (Fma::Msub, "fmsub"), (Fma::Nmadd, "fnmadd"), (Fma::Nmsub, "fnmsub")]
            {
                check(&format!("v{name}213{s} xmm{n}, xmm{m}, xmm9; v{name}231{s} xmm{n}, xmm{m}, xmm1"), |asm| {
                    asm.fma_213(op, precision, a, b, Xmm(9));
                    asm.fma_231(op, precision, a, b, Xmm(1));
                });
            }
        }
        check(&format!("movaps xmm{n}, xmm{m}; cvtss2sd xmm{n}, xmm{m}; cvtsd2ss xmm{n}, xmm{m}"), |asm| {
            asm.movaps(a, b);
            asm.cvt_format(Precision::Single, a, b);
            asm.cvt_format(Precision::Double, a, b);
        });
        let text = format!("andps xmm{n}, xmm{m}; andnps xmm{n}, xmm{m}; orps xmm{n}, xmm{m}; xorps xmm{n}, xmm{m}");
        check(&text, |asm| {
            for op in [Logic::And, Logic::Andn, Logic::Or, Logic::Xor] {
                asm.logic(op, a, b);
            }
        });
        check(&format!("pcmpeqb xmm{n}, xmm{m}; pclmullqlqdq xmm{n}, xmm{m}"), |asm| {
            asm.pcmpeqb(a, b);
            asm.pclmulqdq(a, b);
        });
        for (op, name) in [(Aes::Enc, "enc"), (Aes::Enclast, "enclast"), (Aes::Dec, "dec"), (Aes::Declast, "declast")] {
            check(&format!("aes{name} xmm{n}, xmm{m}"), |asm| asm.aes(op, a, b));
        }
        check(&format!("aesimc xmm{n}, xmm{m}; aeskeygenassist xmm{n}, xmm{m}, 36h"), |asm| {
            asm.aesimc(a, b);
            asm.aeskeygenassist(a, b, 54);
        });
        check(&format!("punpcklqdq xmm{n}, xmm{m}; pshufd xmm{n}, xmm{m}, 55h"), |asm| {
            asm.punpcklqdq(a, b);
            asm.pshufd(a, b, 85);
        });
    }
}

#[test]
fn several_numbers_at_once() {
    use Gpr::*;
    for (n, m) in (0..16).flat_map(|n| (0..16).map(move |m| (n, m))) {
        let (a, b) = (Xmm(n), Xmm(m));
        for (precision, s) in [(Precision::Single, "ps"), (Precision::Double, "pd")] {
            for (op, name) in [(Scalar::Add, "add"), (Scalar::Mul, "mul"), (Scalar::Sub, "sub"), (Scalar::Div, "div")] {
                check(&format!("v{name}{s} ymm{n}, ymm9, ymm{m}"), |asm| asm.packed(op, precision, a, Xmm(9), b));
            }
            check(&format!("vsqrt{s} ymm{n}, ymm{m}"), |asm| asm.root_packed(precision, a, b));
            for (op, name) in
                [(Fma::Madd, "fmadd"), (Fma::Msub, "fmsub"), (Fma::Nmadd, "fnmadd"), (Fma::Nmsub, "fnmsub")]
            {
                check(&format!("v{name}213{s} ymm{n}, ymm{m}, ymm9"), |asm| {
                    asm.fma_213_packed(op, precision, a, b, Xmm(9));
                });
            }
            check(&format!("vcmpunord{s} ymm{n}, ymm9, ymm{m}"), |asm| asm.unordered(precision, a, Xmm(9), b));
            check(&format!("vmovmsk{s} ecx, ymm{m}"), |asm| asm.signs(precision, Rcx, b));
        }
        check(&format!("vbroadcastss ymm{n}, xmm{m}; vbroadcastsd ymm{n}, xmm{m}; vmovaps ymm{n}, ymm{m}"), |asm| {
            asm.broadcast(Precision::Single, a, b);
            asm.broadcast(Precision::Double, a, b);
            asm.move_packed(a, b);
        });
        for (shift, name) in (0..).zip(["b", "w", "d", "q"]) {
            check(&format!("vpbroadcast{name} ymm{n}, xmm{m}"), |asm| asm.broadcast_integer(shift, a, b));
        }
    }
    check("vmovups ymm9, gs:[r12+r8*8+10h]; vmovups gs:[rax], ymm1; vzeroupper", |a| {
        a.load_packed(Xmm(9), Mem::indexed(R12, R8, Scale::Eight, 16).gs());
        a.store_packed(Mem::at(Rax, 0).gs(), Xmm(1));
        a.zero_upper();
    });
}

#[test]
fn floating_point_with_memory_and_integers() {
    use Gpr::*;
    check("movsd xmm9, [r15+100h]; movss [rax], xmm1; movsd xmm0, gs:[r12+8]", |a| {
        a.load_scalar(Precision::Double, Xmm(9), Mem::at(R15, 0x100));
        a.store_scalar(Precision::Single, Mem::at(Rax, 0), Xmm(1));
        a.load_scalar(Precision::Double, Xmm(0), Mem::at(R12, 8).gs());
    });
    check("addsd xmm8, [r15+100h]", |a| a.scalar(Scalar::Add, Precision::Double, Xmm(8), Mem::at(R15, 0x100)));
    check("movq xmm9, rax; movd xmm1, r8d; movq r9, xmm8; movd eax, xmm0; pextrq rcx, xmm12, 1", |a| {
        a.mov_to_xmm(Size::B64, Xmm(9), Rax);
        a.mov_to_xmm(Size::B32, Xmm(1), R8);
        a.mov_from_xmm(Size::B64, R9, Xmm(8));
        a.mov_from_xmm(Size::B32, Rax, Xmm(0));
        a.upper_half(Rcx, Xmm(12));
    });
    check("cvtsi2sd xmm9, r8; cvtsi2ss xmm0, eax; cvttsd2si r9, xmm1; cvtss2si eax, xmm15", |a| {
        a.cvt_from_integer(Precision::Double, Size::B64, Xmm(9), R8);
        a.cvt_from_integer(Precision::Single, Size::B32, Xmm(0), Rax);
        a.cvtt_to_integer(Precision::Double, Size::B64, R9, Xmm(1));
        a.cvt_to_integer(Precision::Single, Size::B32, Rax, Xmm(15));
    });
    check("ldmxcsr [r15+80h]; stmxcsr [r15+80h]", |a| {
        a.ldmxcsr(Mem::at(R15, 0x80));
        a.stmxcsr(Mem::at(R15, 0x80));
    });
}

#[test]
fn bits_of_registers() {
    use Gpr::*;
    check("bt rax, r9; bts r8, rcx; btr eax, ecx; btc r12, rax", |a| {
        a.bit(Bit::Test, Size::B64, Rax, R9);
        a.bit(Bit::Set, Size::B64, R8, Rcx);
        a.bit(Bit::Reset, Size::B32, Rax, Rcx);
        a.bit(Bit::Complement, Size::B64, R12, Rax);
    });
    check("bts rax, 3Fh; btr r9, 1; btc rcx, 7", |a| {
        a.bit_imm(Bit::Set, Size::B64, Rax, 63);
        a.bit_imm(Bit::Reset, Size::B64, R9, 1);
        a.bit_imm(Bit::Complement, Size::B64, Rcx, 7);
    });
}
