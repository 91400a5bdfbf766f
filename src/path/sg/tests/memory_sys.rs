//! A command's data, as the kernel that the tests have sees it.

use crate::path::sg::command::Data;

/// The bytes of flat data. The command is under way: they are the fake kernel's.
pub fn bytes(data: &Data<'_>) -> &'static mut [u8] {
    match data {
        Data::None => &mut [],
        Data::Out(memory) | Data::In(memory) => {
            assert_eq!(memory.pieces(), 0, "the fake kernel takes no lists");
            // SAFETY: the memory lives until the call returns, in which the slice is used, and
            // nobody else touches it in that time.
            unsafe { std::slice::from_raw_parts_mut(memory.base().cast(), memory.len()) }
        }
    }
}
