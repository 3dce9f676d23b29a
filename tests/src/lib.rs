//! Weir tests.
