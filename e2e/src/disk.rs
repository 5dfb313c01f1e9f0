//! A disk of its own for a folder of a server, small enough to be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// What fills the disk.
const FILLER: &str = "filler";

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts a file system of so many megabytes over `folder`, with what was in the folder.
    ///
    /// Errors: no rights (root is needed), or the content does not fit.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let aside = folder.with_extension("aside");
        copy(folder, &aside)?;
        let size = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tandem-e2e"]).arg(folder))?;
        let disk = Self { folder: folder.to_owned() };
        copy(&aside, folder)?;
        fs::remove_dir_all(&aside)?;
        Ok(disk)
    }

    /// Fills what is left of it.
    ///
    /// Errors: an error other than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.folder.join(FILLER))?;
        let zeros = vec![0; 65_536];
        for length in [zeros.len(), 4_096] {
            loop {
                match file.write_all(zeros.get(..length).context("a piece")?) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// Errors: it was not full.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.folder.join(FILLER)).map_err(Into::into)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server of a failed test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).output();
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
