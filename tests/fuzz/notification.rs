//! Notifications: no message is too odd to be answered, and what was understood can be said again.
#![no_main]
#![allow(unsafe_code, reason = "the entry point that libFuzzer calls")]

use sluice::config::KeyEncoding;
use sluice::source::notification::{Announcement, EventKind, KeySpelling, ObjectEvent, announce, decode};

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let Ok(Announcement::Objects(events)) = decode(message) else { return };
    assert!(!events.is_empty());
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.record as usize, index);
        for encoding in [KeyEncoding::Auto, KeyEncoding::Form, KeyEncoding::Literal] {
            let candidates = event.key_candidates(encoding);
            assert!(matches!(candidates.len(), 1 | 2), "{candidates:?}");
            assert_ne!(candidates.first(), candidates.get(1));
        }
        if event.kind == EventKind::Created {
            said_again(event);
        }
    }
});

fn said_again(event: &ObjectEvent) {
    let once = ObjectEvent { record: 0, ..event.clone() };
    let message = announce(&once).to_string();
    let Ok(Announcement::Objects(read)) = decode(message.as_bytes()) else { panic!("{message}") };
    // a plain key that MinIO repeats is literal either way
    let literal = ObjectEvent { key_spelling: KeySpelling::Literal, ..once.clone() };
    assert!(read == [once] || read == [literal], "{message} is {read:?}");
}
