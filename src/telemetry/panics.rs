//! Panics that are expected and caught, of libraries that are given broken input: what is wrong with the input is told
//! elsewhere, so nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static ARE_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// `Err`: it panicked. Whatever it worked on is not to be used then.
pub fn caught<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !ARE_EXPECTED.get() {
                print(panic);
            }
        }));
    });
    let before = ARE_EXPECTED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    ARE_EXPECTED.set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_caught_and_what_does_not_is_given_back() {
        assert_eq!(caught(|| 1).ok(), Some(1));
        let nested = caught(|| caught(|| panic!("inner")).is_err());
        assert_eq!(nested.ok(), Some(true));
        assert!(caught(|| panic!("outer")).is_err());
        assert!(!ARE_EXPECTED.get());
    }
}
