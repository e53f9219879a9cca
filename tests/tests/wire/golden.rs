//! The table and the file agree, row by row.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use super::rows;

const HEAD: &str = "\
# The bytes of every message, record and part of one: `name hexadecimal`.
# Written by tests/tests/wire.rs (DISTRIBUTARY_GOLDEN=write); specified in docs/WIRE.md.
# A row is never changed or taken away without a new major version of the protocol.
";

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", "wire.txt"].iter().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn every_row_is_as_it_was() {
    let rows = rows::all();
    let table: BTreeMap<&str, String> =
        rows.iter().map(|row| (row.name.as_str(), hex(&row.bytes))).collect();
    assert_eq!(table.len(), rows.len(), "two rows have one name");
    if std::env::var_os("DISTRIBUTARY_GOLDEN").is_some_and(|value| value == "write") {
        let lines = rows.iter().map(|row| format!("{} {}\n", row.name, hex(&row.bytes)));
        std::fs::write(path(), HEAD.to_owned() + &lines.collect::<String>()).unwrap();
        panic!("{} is written anew: look at the difference, then run without", path().display());
    }
    let file = std::fs::read_to_string(path()).unwrap();
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let golden: BTreeMap<&str, &str> =
        lines.map(|line| line.split_once(' ').expect("a line is `name hex`")).collect();
    let mut wrong = Vec::new();
    for (name, bytes) in &table {
        match golden.get(name) {
            None => wrong.push(format!("{name}: no row in the file")),
            Some(golden) if golden != bytes => {
                wrong.push(format!("{name}:\n  file {golden}\n  now  {bytes}"));
            }
            Some(_) => {}
        }
    }
    let gone = golden.keys().filter(|name| !table.contains_key(**name));
    wrong.extend(gone.map(|name| format!("{name}: only in the file")));
    assert!(wrong.is_empty(), "the bytes on the wire have changed:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_reads_back_as_itself() {
    for row in rows::all() {
        let again = (row.read)(&row.bytes);
        assert_eq!(again.as_deref(), Ok(&row.bytes[..]), "{}", row.name);
    }
}
