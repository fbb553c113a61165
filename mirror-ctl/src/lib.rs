//! Agent and command line.
