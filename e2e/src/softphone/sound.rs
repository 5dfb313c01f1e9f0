//! Tones as WAV files, and how much of a recording is a tone.

use std::{f64::consts::TAU, fs, path::Path};

use anyhow::{Context, Result, ensure};

/// Samples a second of every file here: that of G.711.
pub const SAMPLE_RATE: u32 = 8_000;
/// Octets of a WAV file that hold one second.
pub const BYTES_PER_SECOND: u64 = 16_000;
/// Samples that are judged together: a tenth of a second.
const WINDOW: usize = 800;
/// Loudness of a tone: a quarter of what sixteen bits hold.
const AMPLITUDE: f64 = 8_000.0;

/// Writes a mono WAV file with a sine of `hertz` that lasts `seconds`.
///
/// Errors: the file cannot be written.
pub fn write_tone(path: &Path, hertz: u32, seconds: u32) -> Result<()> {
    let samples = (0..SAMPLE_RATE * seconds).flat_map(|number| {
        let phase = TAU * f64::from(hertz) * f64::from(number) / f64::from(SAMPLE_RATE);
        sample(AMPLITUDE * phase.sin()).to_le_bytes()
    });
    let data: Vec<u8> = samples.collect();
    let length = u32::try_from(data.len())?;
    let mut file = Vec::with_capacity(data.len() + 44);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + length).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    file.extend_from_slice(&(2 * SAMPLE_RATE).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(&data);
    fs::write(path, file).with_context(|| format!("{} cannot be written", path.display()))
}

/// Share of the energy of a mono WAV file that lies at `hertz`, 0 to 1, by Goertzel's method.
///
/// Each tenth of a second is taken by itself: a packet left out shifts the phase of what follows.
///
/// Errors: the file is no WAV file of sixteen bits at [`SAMPLE_RATE`], or is silent.
pub fn share_of_tone(path: &Path, hertz: u32) -> Result<f64> {
    let samples = read(path)?;
    let energy: f64 = samples.iter().map(|sample| sample * sample).sum();
    ensure!(energy > 0.0, "{} is silent", path.display());
    let of_tone: f64 = samples.chunks(WINDOW).map(|window| energy_at(window, hertz)).sum();
    Ok(of_tone / energy)
}

/// Energy at `hertz` in one window.
fn energy_at(window: &[f64], hertz: u32) -> f64 {
    let coefficient = 2.0 * (TAU * f64::from(hertz) / f64::from(SAMPLE_RATE)).cos();
    let (last, before) =
        window.iter().fold((0.0, 0.0), |(last, before), sample| (sample + coefficient * last - before, last));
    let power = last * last + before * before - coefficient * last * before;
    let samples: f64 = window.iter().map(|_| 1.0).sum();
    2.0 * power / samples
}

/// The samples of a file, which may still be written to: what is there counts, not what its header says.
fn read(path: &Path) -> Result<Vec<f64>> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let name = path.display();
    let rate = bytes.get(24..28).context("a WAV header")?;
    ensure!(bytes.starts_with(b"RIFF"), "{name} is no WAV file");
    ensure!(rate == SAMPLE_RATE.to_le_bytes(), "{name} has another sample rate");
    ensure!(bytes.get(22..24) == Some(&[1, 0]), "{name} is not mono");
    let start =
        bytes.windows(4).position(|four| four == b"data").with_context(|| format!("{name} has no data"))?;
    let data = bytes.get(start + 8..).unwrap_or_default();
    let samples = data.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok());
    Ok(samples.map(|pair| f64::from(i16::from_le_bytes(pair))).collect())
}

/// The nearest sixteen bits.
fn sample(value: f64) -> i16 {
    let bounded = value.clamp(-32_768.0, 32_767.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "bounded to sixteen bits in the line above")]
    let sample = bounded as i16;
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_all_of_its_own_energy_and_none_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tone.wav");

        write_tone(&file, 440, 2).unwrap();

        assert!(share_of_tone(&file, 440).unwrap() > 0.99);
        assert!(share_of_tone(&file, 1_000).unwrap() < 0.01);
    }
}
