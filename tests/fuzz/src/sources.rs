//! Sources and dependency files.

use potluck_model::certain;
use potluck_model::scan::{self, Target};

/// Names come out no longer than they went in, and names that a compiler escapes read back.
pub fn depfile(input: &[u8]) {
    let found = scan::dependencies(input);
    let bytes: usize = found.iter().map(|name| name.len()).sum();
    assert!(bytes <= input.len(), "{bytes} bytes of names in {} bytes", input.len());
    // As gcc writes them: what make reads is escaped. A backslash at the end of a name is not told from an escape.
    let names: Vec<&[u8]> = input
        .split(|b| matches!(b, 0 | b'\n' | b'\r' | b'\t'))
        .filter(|n| !n.is_empty() && !n.contains(&b'\\') && !n.ends_with(b":"))
        .take(64)
        .collect();
    let mut text = b"a.o:".to_vec();
    for name in &names {
        text.extend_from_slice(b" \\\n ");
        for c in name.iter() {
            match c {
                b' ' | b'#' => text.extend_from_slice(&[b'\\', *c]),
                b'$' => text.extend_from_slice(b"$$"),
                _ => text.push(*c),
            }
        }
    }
    text.push(b'\n');
    let read: Vec<Vec<u8>> = scan::dependencies(&text).into_iter().map(|n| n.into_owned()).collect();
    assert_eq!(read, names, "{}", String::from_utf8_lossy(&text));
}

/// Longest name that the scanner looks at.
const NAME_BYTES_MAX: usize = 4096;

/// What is opened for certain is among what is predicted: otherwise an honest worker would be called a liar, or a header
/// never be sent.
pub fn directives(input: &[u8]) {
    let found = scan::directives(input);
    let bytes: usize = found.includes.iter().map(|i| name(&i.target).len()).sum();
    assert!(bytes <= 4 * input.len(), "{bytes} bytes of names in {} bytes", input.len());
    for name in certain::quoted(input).into_iter().filter(|n| n.len() < NAME_BYTES_MAX) {
        let is_predicted = found.includes.iter().any(|i| i.target == Target::Quoted(name.clone()));
        assert!(is_predicted, "{:?} is certain and not predicted", String::from_utf8_lossy(&name));
    }
}

fn name(target: &Target) -> &[u8] {
    match target {
        Target::Quoted(name) | Target::Angled(name) | Target::Macro(name) => name,
    }
}
