//! The library that every Update Module is written on.
