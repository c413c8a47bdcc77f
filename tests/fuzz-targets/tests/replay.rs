//! Runs every target on its corpus in `fuzz/corpus/` and on mutations of it: all truncations, and single changed bytes.
//! What libFuzzer has found is in the corpus, so that it stays fixed.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use fuzz_targets::{TARGETS, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Changed bytes for each file of the corpus: with the truncations some thousand runs.
const CHANGES: usize = 500;

/// The largest file of a corpus, in bytes: all of its truncations are run.
const SEED_MAX: usize = 4096;

/// The largest peak memory of this process, in KiB. The corpora and the parsers need some MiB.
const PEAK_MAX: u64 = 256 << 10;

/// The limit for memory of this process that is only reserved, in bytes: a parser that trusts a size in its input asks
/// for GiB, and may not write to them.
const RESERVED_MAX: u64 = 1 << 30;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The files in the corpus of `target`.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    let paths = names(&directory).into_iter().map(|name| directory.join(name));
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs `target` on every file of its corpus, on all truncations, with each byte but padding changed to two others, and
/// with random changes that are the same every time.
fn run_mutations(target: &Target) {
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize
    };
    for (path, content) in corpus(target.name) {
        println!("{}", path.display()); // the last one of a target, if a parser panics
        assert!(content.len() <= SEED_MAX, "{} has more than {SEED_MAX} bytes", path.display());
        for length in 0..=content.len() {
            target.run(&content[..length]);
        }
        // A digit is valid where the others are, and makes sizes large.
        // Padding of archives is zeros between zeros; a zero beside something else ends a field.
        let is_padding = |place: &usize| content[place.saturating_sub(1)..].iter().take(3).all(|byte| *byte == 0);
        let places = (0..content.len()).filter(|place| !is_padding(place));
        for (place, byte) in places.flat_map(|place| [(place, b'7'), (place, 0xff)]) {
            let mut changed = content.clone();
            changed[place] = byte;
            target.run(&changed);
        }
        for _ in 0..CHANGES.min(content.len() * 256) {
            let mut changed = content.clone();
            changed[random() % content.len()] = random() as u8;
            target.run(&changed);
        }
    }
}

#[test]
fn no_mutation_of_the_corpora_panics_or_needs_much_memory() {
    let maximum = getrlimit(Resource::Data).maximum;
    let limit = Rlimit { current: Some(maximum.map_or(RESERVED_MAX, |most| most.min(RESERVED_MAX))), maximum };
    setrlimit(Resource::Data, limit).unwrap_or_else(|error| panic!("limiting memory to {limit:?}: {error}"));
    thread::scope(|scope| TARGETS.iter().for_each(|target| drop(scope.spawn(|| run_mutations(target)))));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
    let peak: u64 = peak.trim().parse().unwrap();
    assert!(peak <= PEAK_MAX, "peak memory {peak} KiB: the limit is {PEAK_MAX}");
}

#[test]
fn every_parser_accepts_a_file_of_its_corpus() {
    for target in TARGETS {
        let runs: Vec<_> = corpus(target.name).iter().map(|(_, content)| target.run(content)).collect();
        let parsers = runs.first().map_or(1, Vec::len);
        for parser in 0..parsers {
            assert!(runs.iter().any(|run| run[parser]), "parser {parser} of {} accepts no file", target.name);
        }
    }
}

#[test]
fn every_target_has_an_executable_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let files: BTreeSet<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz().join("targets")), files);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        let source = fs::read_to_string(fuzz().join("targets").join(&name).with_extension("rs")).unwrap();
        assert!(source.contains(&format!("run(\"{name}\", ")), "{name}.rs runs another target");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "fuzz/Cargo.toml has no executable {name}");
    }
}
