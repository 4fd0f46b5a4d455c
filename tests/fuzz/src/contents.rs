//! Contents inside messages: packed bytes that say how long they are.

use potluck_model::limits::BLOB_BYTES_MAX;
use potluck_node::core_content as content;
use potluck_wire::pool::Harvested;

use crate::frugal::Frugal;

/// What a content says of its size is not believed before memory is taken, and what was packed comes back.
pub fn contents(input: &[u8]) {
    let mut numbers = Frugal::new(input);
    let flags = numbers.byte();
    let claimed = match flags & 3 {
        0 => u64::from(numbers.short()),
        1 => u64::from(numbers.short()) << 4,
        2 => BLOB_BYTES_MAX + u64::from(numbers.byte()),
        _ => u64::MAX - u64::from(numbers.byte()),
    };
    let packed = numbers.rest();
    let file = Harvested { content: Some(packed.to_vec()), size: claimed, raw: flags & 4 != 0, ..Harvested::default() };
    if let Some(raw) = content::inline(&file) {
        assert_eq!(raw.len() as u64, claimed);
    }
    // The caller has checked what is allowed: nothing that travels in a message is larger than this.
    if claimed <= 1 << 20
        && let Some(raw) = content::unpack(packed, claimed)
    {
        assert_eq!(raw.len() as u64, claimed);
    }
    let own = content::pack_inline(input);
    let file = Harvested { content: Some(own), size: input.len() as u64, ..Harvested::default() };
    if !input.is_empty() {
        assert_eq!(content::inline(&file).as_deref(), Some(input));
    }
    let own = content::pack(input).expect("memory is there");
    assert_eq!(content::unpack(&own, input.len() as u64).as_deref(), Some(input));
}
