//! What people read first is what runs.

/// The lines of README.md run as the example of `Peer::open`, in a folder of its own.
#[test]
fn three_lines_to_live_data_are_those_of_the_running_example() {
    let (_, block) = include_str!("../../README.md")
        .split_once("## Three lines to live data\n\n```rust,no_run\n")
        .unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let example = include_str!("../../src/peer.rs");
    let mut lines = 0;
    for line in block.lines().map(str::trim).filter(|it| it.len() > 1) {
        let line = line.replace("open(\"songs\")", "open(folder)");
        // The example ends where README.md says that all is well.
        if line != "Ok(())" {
            assert!(example.contains(&line), "{line}");
            lines += 1;
        }
    }
    assert_eq!(lines, 12);
}
