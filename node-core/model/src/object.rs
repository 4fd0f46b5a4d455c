//! Whether bytes can be an object file, by their first ones. The reason: `ld` reads an object that it does not know as a
//! linker script, which is text that names files to read and to write.

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An object file of a format that compilers write.
    Object,
    /// Nothing at all, or text: no compiler writes that for an object.
    Never,
    /// A format that is not known here.
    Unknown,
}

/// Relocatable: what a compile without a link makes.
const ET_REL: u16 = 1;

/// LLVM bitcode, its wrapper, Mach-O of both widths and orders, WebAssembly, COFF with many sections.
const MAGICS: [&[u8]; 8] = [
    b"BC\xc0\xde",
    b"\xde\xc0\x17\x0b",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\0asm",
    b"\0\0\xff\xff",
];

/// Machines of COFF objects (Windows): i386, amd64, armnt, arm64.
const COFF: [u16; 4] = [0x014c, 0x8664, 0x01c4, 0xaa64];

/// See the module.
pub fn kind(bytes: &[u8]) -> Kind {
    if bytes.starts_with(b"\x7fELF") {
        return if is_elf(bytes) { Kind::Object } else { Kind::Never };
    }
    let coff = bytes.len() >= 20 && COFF.contains(&u16::from_le_bytes([bytes[0], bytes[1]]));
    if coff || MAGICS.iter().any(|m| bytes.starts_with(m)) {
        return Kind::Object;
    }
    // Nothing but zeroes is the beginning of no format.
    let is_empty = bytes.len() < 4 || bytes.starts_with(&[0; 4]);
    let is_text = bytes.iter().take(16).all(|c| matches!(c, b' '..=b'~' | b'\n' | b'\r' | b'\t'));
    if is_text || is_empty { Kind::Never } else { Kind::Unknown }
}

/// An ELF header that is whole, of an object, with all its sections inside the file.
fn is_elf(bytes: &[u8]) -> bool {
    let (Some(&class), Some(&order), Some(&version)) = (bytes.get(4), bytes.get(5), bytes.get(6)) else { return false };
    if !(1..=2).contains(&class) || !(1..=2).contains(&order) || version != 1 {
        return false;
    }
    let wide = class == 2;
    let number = |at: usize, len: usize| -> Option<u64> {
        let field = bytes.get(at..at + len)?;
        let add = |sum: u64, c: &u8| sum << 8 | u64::from(*c);
        Some(if order == 1 { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    };
    let (sections_at, sizes_at) = if wide { ((0x28, 8), 0x34) } else { ((0x20, 4), 0x28) };
    let header_bytes = if wide { 64 } else { 52 };
    let (Some(kind), Some(own), Some(at), Some(each), Some(count)) = (
        number(16, 2),
        number(sizes_at, 2),
        number(sections_at.0, sections_at.1),
        number(sizes_at + 6, 2),
        number(sizes_at + 8, 2),
    ) else {
        return false;
    };
    let end = each.checked_mul(count.max(1)).and_then(|size| at.checked_add(size));
    kind == u64::from(ET_REL)
        && own == header_bytes
        && at >= header_bytes
        && end.is_some_and(|end| end <= bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_nothing_are_no_objects() {
        for bytes in [
            &b""[..],
            b"INPUT(/etc/passwd)",
            b"OUTPUT(/home/a/.profile)\n",
            b"EVIL",
            &[0; 100],
            b"\x7fELF",
            b"\x7fELF=1;OUTPUT(x)\0",
        ] {
            assert_eq!(kind(bytes), Kind::Never, "{bytes:?}");
        }
        assert_eq!(kind(b"\x01\xdf\0\x05 some other format"), Kind::Unknown);
        assert_eq!(kind(b"BC\xc0\xde\x35\x14\0\0"), Kind::Object);
    }

    #[test]
    fn an_elf_header_must_be_whole() {
        let mut elf = vec![0u8; 64 + 2 * 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 1;
        elf[0x28] = 64;
        elf[0x34] = 64;
        elf[0x3a] = 64;
        elf[0x3c] = 2;
        assert_eq!(kind(&elf), Kind::Object);
        for (at, value) in [(4, 3), (5, 0), (6, 0), (16, 2), (0x28, 65), (0x28, 0), (0x34, 1), (0x3c, 3), (0x2f, 0xff)]
        {
            let mut bad = elf.clone();
            bad[at] = value;
            assert_eq!(kind(&bad), Kind::Never, "{at}");
        }
        assert_eq!(kind(&elf[..100]), Kind::Never);
    }
}
