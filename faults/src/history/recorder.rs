//! Writes a history while it happens: one clock and one order for all who take part.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;

use super::{Event, Line};

pub struct Recorder {
    began: Instant,
    /// The first failure to write, if any: a history with a hole proves nothing.
    file: Mutex<(BufWriter<File>, Option<io::Error>)>,
}

impl Recorder {
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = BufWriter::new(File::create(path)?);
        Ok(Self {
            began: Instant::now(),
            file: Mutex::new((file, None)),
        })
    }

    /// Appends an event. The time is taken under the lock, so lines are in the order of their times.
    pub fn add(&self, event: Event) {
        let mut file = self.file.lock();
        let at = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let written = serde_json::to_writer(&mut file.0, &Line { at, event })
            .map_err(io::Error::from)
            .and_then(|()| file.0.write_all(b"\n"));
        if let Err(error) = written {
            file.1.get_or_insert(error);
        }
    }

    /// Flushes; an error that any line met is answered here.
    pub fn finish(&self) -> io::Result<()> {
        let mut file = self.file.lock();
        if let Some(error) = file.1.take() {
            return Err(error);
        }
        file.0.flush()
    }
}
