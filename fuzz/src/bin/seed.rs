//! Writes the seeds of every target to `corpus/`, where cargo-fuzz looks for them.

use std::collections::BTreeMap;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut counts = BTreeMap::new();
    for (target, bytes) in leno_fuzz::seeds() {
        let folder = corpus.join(&target);
        std::fs::create_dir_all(&folder)?;
        let count = counts.entry(target).or_insert(0);
        std::fs::write(folder.join(format!("seed-{count}")), bytes)?;
        *count += 1;
    }
    for (target, count) in counts {
        println!("{target}: {count} seeds");
    }
    Ok(())
}
