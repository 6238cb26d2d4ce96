//! Log-linear histogram.
