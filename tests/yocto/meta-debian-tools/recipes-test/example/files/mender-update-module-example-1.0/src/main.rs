//! The smallest Update Module: it knows no state, and succeeds in every one.

fn main() {}
