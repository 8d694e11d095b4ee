//! Benchmarks of leno beside the floors they stand on.
