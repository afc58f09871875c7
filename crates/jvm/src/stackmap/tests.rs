//! Maps against what compilers say of their own code, and against the way subroutines run.

use classfile::constants::Constant;
use classfile::jimage::Image;
use classfile::{ClassFile, Options};

use super::*;

struct Pool<'a>(&'a classfile::constants::ConstantPool<'a>);

impl Constants for Pool<'_> {
    fn is_reference(&self, index: u16) -> bool {
        match self.0.get(index) {
            Constant::Integer(_) | Constant::Float(_) => false,
            Constant::Dynamic(_) => self.0.dynamic(index).is_some_and(|(_, ty)| matches!(ty[0], b'L' | b'[')),
            _ => true,
        }
    }
    fn descriptor(&self, index: u16, dynamic: bool) -> &[u8] {
        if dynamic { self.0.dynamic(index).unwrap().1 } else { self.0.member(index).unwrap().descriptor }
    }
}

/// A frame of `StackMapTable`: for each slot, whether it is a reference; `None` if nothing is said.
type Declared = (u16, Vec<Option<bool>>, Vec<Option<bool>>);

/// Reads a `StackMapTable` (JVMS 4.7.4).
fn declared(table: &[u8], mut locals: Vec<Vec<Option<bool>>>) -> Vec<Declared> {
    let mut bytes = table.iter().copied();
    let mut u8 = || bytes.next().unwrap();
    macro_rules! u16 {
        () => {
            u16::from_be_bytes([u8(), u8()])
        };
    }
    macro_rules! verification_type {
        () => {
            match u8() {
                0 => vec![None],
                3 | 4 => vec![Some(false), None],
                5 | 6 => vec![Some(true)],
                7 | 8 => {
                    let _index: u16 = u16!();
                    vec![Some(true)]
                }
                _ => vec![Some(false)],
            }
        };
    }
    let mut frames = Vec::new();
    let mut bci: i32 = -1;
    for _ in 0..u16!() {
        let kind = u8();
        let mut stack: Vec<Vec<Option<bool>>> = Vec::new();
        let delta = match kind {
            0..=63 => u16::from(kind),
            64..=127 => {
                stack.push(verification_type!());
                u16::from(kind - 64)
            }
            _ => u16!(),
        };
        match kind {
            247 => stack.push(verification_type!()),
            248..=250 => locals.truncate(locals.len() - usize::from(251 - kind)),
            252..=254 => (251..kind).for_each(|_| locals.push(verification_type!())),
            255 => {
                locals = (0..u16!()).map(|_| verification_type!()).collect();
                stack = (0..u16!()).map(|_| verification_type!()).collect();
            }
            _ => {}
        }
        bci += i32::from(delta) + 1;
        frames.push((u16::try_from(bci).unwrap(), locals.concat(), stack.concat()));
    }
    frames
}

fn check(name: &str, map: Map<'_>, (bci, locals, stack): &Declared) {
    for (index, expected) in locals.iter().enumerate() {
        if let Some(expected) = expected {
            assert_eq!(map.local(index), *expected, "{name} at {bci}: local {index}");
        }
    }
    for (index, expected) in stack.iter().enumerate() {
        if let Some(expected) = expected {
            assert_eq!(map.operand(index), *expected, "{name} at {bci}: operand {index}");
        }
    }
    assert!(!map.operand(stack.len()), "{name} at {bci}: depth");
}

#[test]
fn every_frame_that_the_jdk_declares() {
    let homes = std::fs::read_dir("/usr/lib/jvm").expect("JDK 17 is installed; run cargo xtask setup");
    let home = homes
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|home| home.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-17-openjdk")))
        .expect("JDK 17 is installed; run cargo xtask setup");
    let bytes = std::fs::read(home.join("lib/modules")).unwrap();
    let image = Image::new(&bytes).unwrap();
    let (mut methods, mut frames, mut size) = (0, 0, 0);
    for location in image.iter().filter(|l| l.extension == b"class" && l.module == b"java.base") {
        let contents = image.stored(&location).unwrap();
        let Ok(class) = ClassFile::parse(contents, Options::default()) else { continue };
        for method in &class.methods {
            let Some(code) = &method.code else { continue };
            let handlers: Vec<_> = code.handlers.iter().map(|h| (h.start, h.end, h.handler)).collect();
            let source = Source {
                code: code.bytes,
                handlers: &handlers,
                max_locals: code.max_locals,
                max_stack: code.max_stack,
                is_static: method.is_static(),
                descriptor: method.descriptor,
            };
            let maps = analyze(source, &Pool(&class.constants)).unwrap();
            methods += 1;
            size += maps.size();
            let mut first: Vec<Vec<Option<bool>>> = Vec::new();
            if !method.is_static() {
                first.push(vec![Some(true)]);
            }
            effect::arguments(method.descriptor, |reference, count| {
                first.push(if count == 2 { vec![Some(false), None] } else { vec![Some(reference)] });
            });
            let name = format!("{}.{}", String::from_utf8_lossy(class.name), String::from_utf8_lossy(method.name));
            for frame in declared(code.stack_map_table.unwrap_or(&[0, 0]), first) {
                // Some frames are for code that cannot be reached.
                let Some(map) = maps.at(frame.0, |_| unreachable!()) else { continue };
                check(&name, map, &frame);
                frames += 1;
            }
        }
    }
    assert!(methods > 40_000 && frames > 90_000, "{methods} methods, {frames} frames");
    assert!(size < 40 << 20, "{size} bytes of maps for {methods} methods");
}

struct None_;

impl Constants for None_ {
    fn is_reference(&self, _: u16) -> bool {
        false
    }
    fn descriptor(&self, _: u16, _: bool) -> &[u8] {
        b"()V"
    }
}

#[test]
fn a_subroutine_with_a_caller_that_has_a_number_and_one_that_has_a_reference() {
    let code = [
        0x01, 0x4C, // 0: aconst_null; astore_1
        0xA8, 0, 11, // 2: jsr 13
        0x2B, 0x57, // 5: aload_1; pop
        0x03, 0x3C, // 7: iconst_0; istore_1
        0xA8, 0, 4,    // 9: jsr 13
        0xB1, // 12: return
        0x4D, // 13: astore_2
        0x00, // 14: nop
        0xA9, 2, // 15: ret 2
    ];
    let source =
        Source { code: &code, handlers: &[], max_locals: 3, max_stack: 1, is_static: true, descriptor: b"()V" };
    let maps = analyze(source, &None_).unwrap();
    // At 14, local 2 holds the return address: 5 when local 1 is a reference, 12 when it is a number.
    assert!(maps.at(14, |slot| if slot == 2 { 5 } else { 0 }).unwrap().local(1));
    assert!(!maps.at(14, |slot| if slot == 2 { 12 } else { 0 }).unwrap().local(1));
    // At 13 it is the operand.
    assert!(maps.at(13, |slot| if slot == 3 { 5 } else { 0 }).unwrap().local(1));
    // Back at the callers; and the return address is forgotten.
    assert!(maps.at(5, |_| unreachable!()).unwrap().local(1));
    assert!(!maps.at(12, |_| unreachable!()).unwrap().local(1));
    assert!(maps.at(99, |_| 0).is_none());
}

#[test]
fn dead_variables_are_dropped() {
    let code = [
        0x2A, 0x4C, // 0: aload_0; astore_1
        0x00, // 2: nop
        0x1C, 0x99, 0xFF, 0xFE, // 3: iload_2; ifeq 2
        0x2B, 0x57, // 7: aload_1; pop
        0xB1, // 9: return
        0x57, 0x2A, 0x57, // 10: pop; aload_0; pop
        0xB1, // 13: return
    ];
    let (no_handlers, handlers): (&[_], &[_]) = (&[], &[(2, 3, 10)]);
    let descriptor = b"(Ljava/lang/Object;)V";
    let source = |handlers| Source { code: &code, handlers, max_locals: 3, max_stack: 1, is_static: true, descriptor };
    let maps = |source| {
        let mut maps = analyze(source, &None_).unwrap();
        assert!([2, 9].iter().all(|&bci| maps.at(bci, |_| 0).unwrap().local(0)));
        maps.drop_dead(source);
        maps
    };
    let lives = |maps: &Maps, bci| [0, 1].map(|local| maps.at(bci, |_| unreachable!()).unwrap().local(local));
    let without = maps(source(no_handlers));
    assert_eq!(
        [0, 2, 4, 7, 9].map(|bci| lives(&without, bci)),
        [[true, false], [false, true], [false, true], [false, true], [false, false]]
    );
    // In the loop the handler may still read the parameter.
    let with = maps(source(handlers));
    assert_eq!(
        [2, 4, 7, 9, 10].map(|bci| lives(&with, bci)),
        [[true, true], [true, true], [false, true], [false, false], [true, false]]
    );
}

#[test]
fn arguments_of_natives() {
    assert_eq!(arguments(b"(I[JLjava/lang/String;D[[Lx;)V", false), [true, false, true, true, false, false, true]);
    assert_eq!(arguments(b"()J", true), []);
}

#[test]
fn hostile_code_yields_some_maps() {
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let code: Vec<u8> = (0..40)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Mostly jsr, ret and branches a short way.
                match seed >> 60 {
                    0..4 => 0xA8 + (seed.to_le_bytes()[5] & 1),
                    4..9 => seed.to_le_bytes()[4] & 7,
                    _ => seed.to_le_bytes()[4],
                }
            })
            .collect();
        let source = Source {
            code: &code,
            handlers: &[(0, 30, 5), (3, 9, 20)],
            max_locals: 3,
            max_stack: 4,
            is_static: true,
            descriptor: b"(I)V",
        };
        if let Ok(maps) = analyze(source, &None_) {
            let _ = maps.at(5, |_| 0).map(|map| map.operand(70));
            let mut maps = maps;
            maps.drop_dead(source);
        }
    }
}
