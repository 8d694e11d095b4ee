//! The transport port of leno, its in-memory network and its conformance suite.
