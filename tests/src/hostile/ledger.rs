//! Rows of the ledger.

use base::ledger::stored::{Key, read_back, sum};

use super::input::Input;
use super::memory;

/// A row: which table, a key, whether the checksum is right, a body.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (table, right) = (input.byte(), !input.byte().is_multiple_of(8));
    let (id, name) = (input.take(16).to_vec(), String::from_utf8_lossy(input.take(4)).into_owned());
    let body = input.rest();
    let key = match table % 6 {
        0 => Key::Meta(&name),
        1 => Key::Node(&name),
        2 => Key::Head(&id),
        3 => Key::Status(&id),
        4 => Key::Line(&id, &name),
        _ => Key::List,
    };
    let claimed = if right { sum(key, body) } else { id.clone() };
    let (read, peak) = memory::peak_of(|| read_back(key, body, &claimed));
    // A body may be as long as a list of 10,000 names; what it claims is bounded by that.
    let most = 16 * 1024 * 1024 + 64 * body.len();
    assert!(peak <= most, "{peak} bytes for {} of a row", body.len());
    let Ok(again) = read else { return };
    assert!(right || sum(key, body) == claimed, "a row without its checksum was used");
    assert!(again.len() <= body.len());
    let sealed = sum(key, &again);
    assert_eq!(read_back(key, &again, &sealed), Ok(again.clone()));
    // A row cannot stand for another.
    if !matches!(key, Key::List) {
        assert!(read_back(Key::Meta("another"), &again, &sealed).is_err());
    }
}
