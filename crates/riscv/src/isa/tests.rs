use super::*;

#[test]
fn words_of_the_manual() {
    let cases: [(u32, &str); 24] = [
        (0xffb5_8513, "addi a0,a1,-5"),
        (0x1234_5537, "lui a0,0x12345"),
        (0x0001_3503, "ld a0,0(sp)"),
        (0x00a1_3423, "sd a0,8(sp)"),
        (0xfe05_1ee3, "bne a0,zero,0xffc"),
        (0x0000_006f, "jal zero,0x1000"),
        (0x4015_d513, "srai a0,a1,0x1"),
        (0x02b5_0533, "mul a0,a0,a1"),
        (0x0ec5_b52f, "amoswap.d.aqrl a0,a2,(a1)"),
        (0x02c5_f553, "fadd.d fa0,fa1,fa2"),
        (0xc205_1553, "fcvt.w.d a0,fa0,rtz"),
        (0x0ff0_000f, "fence iorw,iorw"),
        (0x0100_000f, "pause"),
        (0x3020_0073, "mret"),
        (0x1205_0073, "sfence.vma a0,zero"),
        (0xc010_2573, "csrrs a0,time,zero"),
        (0x0202_c073, ".word 0x0202c073"),
        (0x1141, "c.addi sp,-16"),
        (0x0001, "c.nop"),
        (0x8082, "c.jr ra"),
        (0x9522, "c.add a0,s0"),
        (0x6105, "c.addi16sp sp,32"),
        (0xe022, "c.sdsp s0,0(sp)"),
        (0x0000, ".short 0x0000"),
    ];
    for (word, text) in cases {
        assert_eq!(disassemble(word, 0x1000), text);
    }
}
