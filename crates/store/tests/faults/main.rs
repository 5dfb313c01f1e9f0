//! What stores do when things fail: crashes, full disks, damaged files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may fail as tests do"
)]

mod crash;
mod damage;
mod full_disk;
mod support;
mod user_data;
