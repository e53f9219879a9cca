#![no_main]

use distributary_tests::hostile::{self, memory::Counting};

#[global_allocator]
static COUNTING: Counting = Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| (hostile::target("ledger").run)(data));
