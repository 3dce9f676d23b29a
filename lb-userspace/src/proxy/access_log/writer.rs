//! The thread that writes lines.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that wait at most: some 4 MiB.
const QUEUE: usize = 8192;
/// How soon a rotation is noticed where nothing is written.
const IDLE: Duration = Duration::from_secs(1);

/// How often files were to be opened anew.
static ROTATIONS: AtomicU64 = AtomicU64::new(0);

/// Has every log's file opened anew before its next line, as after a rotation.
pub fn reopen() {
    ROTATIONS.fetch_add(1, Relaxed);
}

/// A place that lines are written to. Its thread ends, and all is written, when it is dropped.
pub struct Writer {
    queue: Option<SyncSender<Vec<u8>>>,
    thread: Option<thread::JoinHandle<()>>,
    dropped: AtomicU64,
}

impl Writer {
    /// Opens `stdout`, or a file by its path, at its end.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or there can be no thread.
    pub fn open(to: &str) -> io::Result<Writer> {
        let (queue, lines) = sync_channel(QUEUE);
        let mut output = Output::open(to)?;
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || output.run(&lines))?;
        Ok(Writer {
            queue: Some(queue),
            thread: Some(thread),
            dropped: AtomicU64::new(0),
        })
    }

    /// Takes a line, or drops it if too many wait.
    pub fn write(&self, line: Vec<u8>) {
        let taken = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.try_send(line).is_ok());
        if !taken {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the access log's thread has panicked");
        }
    }
}

struct Output {
    /// `None`: stdout.
    path: Option<PathBuf>,
    to: BufWriter<Box<dyn Write + Send>>,
    /// [`ROTATIONS`] when it was opened.
    rotations: u64,
    failing: bool,
}

impl Output {
    fn open(to: &str) -> io::Result<Output> {
        let rotations = ROTATIONS.load(Relaxed);
        let path = (to != "stdout").then(|| PathBuf::from(to));
        let to: Box<dyn Write + Send> = match &path {
            Some(path) => Box::new(append(path)?),
            None => Box::new(io::stdout()),
        };
        Ok(Output {
            path,
            to: BufWriter::with_capacity(64 << 10, to),
            rotations,
            failing: false,
        })
    }

    fn run(&mut self, lines: &Receiver<Vec<u8>>) {
        loop {
            let line = match lines.try_recv() {
                Ok(line) => Ok(line),
                // Nothing waits: what there is goes out, so that it can be read at once.
                Err(_) => {
                    let flushed = self.to.flush();
                    self.tell(flushed);
                    lines.recv_timeout(IDLE)
                }
            };
            let rotations = ROTATIONS.load(Relaxed);
            if rotations != self.rotations {
                self.rotations = rotations;
                self.open_anew();
            }
            match line {
                Ok(line) => {
                    let written = self.to.write_all(&line);
                    self.tell(written);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn open_anew(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        let flushed = self.to.flush();
        let opened = append(path);
        self.tell(flushed);
        match opened {
            Ok(file) => self.to = BufWriter::with_capacity(64 << 10, Box::new(file)),
            Err(error) => self.tell(Err(error)),
        }
    }

    /// Says the first failure of a row.
    fn tell(&mut self, result: io::Result<()>) {
        if let (Err(error), false) = (&result, self.failing) {
            let to = self
                .path
                .as_deref()
                .unwrap_or(Path::new("stdout"))
                .display();
            tracing::error!("cannot write the access log to {to}: {error}");
        }
        self.failing = result.is_err();
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Instant};

    fn wait_for(path: &Path, text: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(path).unwrap_or_default() != text {
            assert!(Instant::now() < until, "{:?}", fs::read_to_string(path));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn files_are_written_and_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let writer = Writer::open(path.to_str().unwrap()).unwrap();
        writer.write(b"one\n".to_vec());
        wait_for(&path, "before\none\n");
        let old = directory.path().join("log.1");
        fs::rename(&path, &old).unwrap();
        reopen();
        writer.write(b"two\n".to_vec());
        wait_for(&path, "two\n");
        wait_for(&old, "before\none\n");
        writer.write(b"three\n".to_vec());
        drop(writer);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert!(Writer::open("/nowhere/at/all").is_err());
    }

    #[test]
    fn a_slow_disk_makes_nobody_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for both: nobody reads, and it is full after 64 KiB.
        let held = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let writer = Writer::open(path.to_str().unwrap()).unwrap();
        for _ in 0..2 * QUEUE {
            writer.write(vec![b'x'; 1024]);
        }
        assert!(writer.dropped() > 0 && writer.dropped() < 2 * QUEUE as u64);
        // Whoever reads it to its end lets the thread end.
        let reader = thread::spawn(move || {
            use std::io::Read;
            let mut held = held;
            let mut buffer = vec![0; 1 << 20];
            let mut read = 0;
            let expected = (2 * QUEUE as u64 - writer.dropped()) * 1024;
            while read < expected {
                read += held.read(&mut buffer).unwrap() as u64;
            }
            drop(writer);
        });
        reader.join().unwrap();
    }
}
