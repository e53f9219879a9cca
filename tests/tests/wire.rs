//! The bytes on the wire and on the disk, as `docs/WIRE.md` specifies them.
//!
//! `tests/golden/wire.txt` holds one line of hexadecimal bytes for every message, record and
//! part of one. A change of these bytes is a change of the protocol; to make one on purpose,
//! run the tests with `DISTRIBUTARY_GOLDEN=write` (which fails, and writes the file anew),
//! look at the difference, and change `docs/WIRE.md` with it.

#[cfg(test)]
#[path = "wire"]
mod wire {
    #[macro_use]
    mod each;
    mod golden;
    mod hostile;
    mod layout;
    mod rows;
    mod sample;
    mod store;
}
