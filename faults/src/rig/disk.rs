//! A small disk for PostgreSQL, which can be full. Mounting one needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Trouble;
use super::process::said;
use super::services::own_folder;

const MEGABYTES: usize = 64;
const BALLAST: &str = "ballast";

pub(super) struct Disk {
    mounted: PathBuf,
    /// In it, and PostgreSQL's.
    folder: PathBuf,
}

impl Disk {
    pub(super) fn mount(within: &Path) -> Result<Self, Trouble> {
        let mounted = own_folder(within, "disk")?;
        let size = format!("size={MEGABYTES}m,mode=755");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&mounted);
        said("mount", &mut mount)?;
        let folder = own_folder(&mounted, "tablespace")?;
        Ok(Self { mounted, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Until nothing more fits.
    pub(super) fn fill(&self) -> Result<(), Trouble> {
        let file = std::fs::File::create(self.mounted.join(BALLAST));
        let mut file = file.map_err(Trouble::io("fill", "the small disk"))?;
        for size in [1 << 20, 4_096] {
            let zeros = vec![0; size];
            while file.write_all(&zeros).is_ok() {}
        }
        Ok(())
    }

    pub(super) fn empty(&self) -> Result<(), Trouble> {
        std::fs::remove_file(self.mounted.join(BALLAST))
            .map_err(Trouble::io("empty", "the small disk"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until it ends.
        let _gone = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}
