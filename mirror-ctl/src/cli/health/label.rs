//! `health label`.

use anyhow::Result;

use super::Label;
use crate::health::truth::store;

pub(super) fn run(args: &Label) -> Result<()> {
    let label = store::write(&args.file, &args.truth, &args.out)?;
    let unexplained = label.failures.iter().filter(|f| label.cause(f).is_none());
    println!(
        "{}: {} s, {} faults, {} failures, {} of them not by a fault",
        args.out.display(),
        label.seconds,
        label.episodes.len(),
        label.failures.len(),
        unexplained.count()
    );
    Ok(())
}
