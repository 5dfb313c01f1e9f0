//! What stores do when things fail: crashes, full disks, damaged files.

mod crash;
mod damage;
mod full_disk;
mod support;
