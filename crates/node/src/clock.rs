//! The only place that reads clocks and the operating system's random numbers.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use model::{Instant, WallTime};
use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};

static STARTED_MICROS: OnceLock<u64> = OnceLock::new();

/// Time since the process started, on the clock that also runs while the machine is suspended.
///
/// A frozen process or a suspended virtual machine must see its leases expire, so `CLOCK_BOOTTIME`, not
/// `CLOCK_MONOTONIC`.
pub fn now() -> Instant {
    let boot = boot_micros();
    let started = *STARTED_MICROS.get_or_init(|| boot);
    Instant::from_micros(boot.saturating_sub(started))
}

/// The wall clock, for what is written down.
pub fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The instant of the runtime's own clock that lies as far ahead as `deadline` does.
pub fn runtime_instant(deadline: Instant) -> std::time::Instant {
    std::time::Instant::now() + deadline.saturating_since(now())
}

/// Sixty-four bits from the operating system's generator.
///
/// Panics: never; a system without random numbers falls back to the clock, which is enough for tags and seeds
/// (keys are read from files).
pub fn random_seed() -> u64 {
    let mut bytes = [0_u8; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        Ok(_) | Err(_) => boot_micros() ^ u64::from(std::process::id()) << 32,
    }
}

fn boot_micros() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}
