//! Hostile bytes: the inputs that the fuzz targets of `tests/fuzz` found, replayed.

#[cfg(test)]
mod replay {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use distributary_tests::hostile::TARGETS;
    use distributary_tests::hostile::memory::{Counting, peak_of};

    #[global_allocator]
    static COUNTING: Counting = Counting;

    /// Bytes that all committed inputs may take together.
    const CORPUS_BYTES_MAX: u64 = 2 * 1024 * 1024;

    fn corpus() -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus"].iter().collect()
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn every_target_holds_to_its_promises_for_every_input() {
        let mut bytes = 0;
        for target in TARGETS {
            let folder = corpus().join(target.name);
            let inputs = names(&folder);
            assert!(!inputs.is_empty(), "{} has no inputs", target.name);
            for name in inputs {
                let input = fs::read(folder.join(&name)).unwrap();
                bytes += input.len() as u64;
                let run = std::panic::catch_unwind(|| (target.run)(&input));
                assert!(run.is_ok(), "{}/{name} does not hold; see above", target.name);
            }
        }
        assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes of inputs");
    }

    #[test]
    fn inputs_and_fuzz_targets_are_those_of_the_list() {
        let listed: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
        assert_eq!(names(&corpus()), listed);
        let sources = names(&corpus().with_file_name("targets"));
        let sources: BTreeSet<String> =
            sources.iter().map(|name| name.trim_end_matches(".rs").to_owned()).collect();
        assert_eq!(sources, listed);
    }

    #[test]
    fn the_allocator_counts() {
        let (block, peak) = peak_of(|| {
            drop(vec![1u8; 3_000_000]);
            vec![1u8; 1_000_000]
        });
        assert!((3_000_000..3_100_000).contains(&peak), "{peak}");
        let (_, less) = peak_of(|| drop(block));
        assert_eq!(less, 0);
    }
}
