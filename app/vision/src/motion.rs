//! Does anything move in the picture? Judged on a coarse grid of luma means.
