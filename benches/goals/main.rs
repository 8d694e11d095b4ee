//! The goals of leno, each beside the floor that it stands on, measured in the same run.
//!
//! `cargo bench -p leno-benches --bench goals` runs all of them; `-- 3 6` runs the third and the sixth.

mod append;
mod catchup;
mod cold;
mod disk;
mod floor;
mod governance;
mod live;
mod merge;
mod stock;
mod sync;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use leno_benches::Outcome;
use leno_benches::report::Report;

/// One group of lines.
type Goal = fn(&Path, &mut Report) -> Outcome;

const GOALS: [(&str, Goal); 9] = [
    ("1", catchup::run),
    ("2", append::run),
    ("3", disk::run),
    ("4", merge::run),
    ("5", wire::run),
    ("6", live::run),
    ("7", cold::run),
    ("8", sync::run),
    ("9", governance::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [child, rest @ ..] if child == cold::CHILD => cold::child(rest),
        _ => all(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn all(arguments: &[String]) -> Outcome {
    // Cargo hands `--bench` to every benchmark.
    let wanted: Vec<_> = arguments
        .iter()
        .filter(|it| !it.starts_with("--"))
        .collect();
    // Beside the build, because folders for temporary files are often no disk.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut report = Report::default();
    floor::run(&mut report)?;
    for (name, goal) in GOALS {
        if wanted.is_empty() || wanted.iter().any(|it| *it == name) {
            goal(folder.path(), &mut report)?;
        }
    }
    println!("\n{report}");
    Ok(())
}
