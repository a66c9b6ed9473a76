//! One recording on disk: stereo 16-bit WAV by hound, playable at every moment.
//!
//! The sizes in the header are made true with every [`Wav::flush`], so a killed process leaves a file that plays up to there.
//! A disk that is full or gone costs the sound of that time and nothing else: the file is mended and gone on with as soon as
//! it can be written again, and silence (a hole in the file, which takes no space) stands for what is missing.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use crate::media::RecordingId;

/// Bytes before the first sample in the files that we write.
pub const HEADER: u64 = 44;
/// Bytes of one frame: two channels of 16 bits.
pub const FRAME: u64 = 4;
/// Most frames in one file; the sizes in it have 32 bits, and some players read them signed. 18 hours at 8 kHz.
pub const MAX_FRAMES: u64 = (2 << 30) / FRAME - 1024;
/// Most files of one recording.
pub const MAX_PARTS: u32 = 99;
/// Samples that are handed to hound at a time; it keeps a buffer of this size for each file.
const PIECE: usize = 128;

/// Bytes on their way to the disk, shared by all files of one thread, so that none keeps a buffer of its own.
pub type Scratch = Rc<RefCell<Vec<u8>>>;

/// Where a recording lies: `DIR/YYYY/MM/DD/ID.wav` by the date in its id (UTC); later parts `ID-2.wav`, …
pub fn path(dir: &Path, id: RecordingId, part: u32) -> PathBuf {
    let date = id.minted_at().timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = dir.join(format!("{:04}/{:02}/{:02}", date.year(), date.month(), date.day()));
    day.join(if part == 1 { format!("{id}.wav") } else { format!("{id}-{part}.wav") })
}

/// Files of a recording that exist, in order.
pub fn parts(dir: &Path, id: RecordingId) -> Vec<PathBuf> {
    (1..=MAX_PARTS).map(|part| path(dir, id, part)).take_while(|path| path.exists()).collect()
}

/// A recording that is being written.
pub struct Wav {
    dir: PathBuf,
    id: RecordingId,
    rate: u32,
    part: u32,
    /// Frames that belong into this part so far, and those of them that could not be written.
    frames: u64,
    missing: u64,
    max_frames: u64,
    writer: Option<WavWriter<Bytes>>,
    /// Some file of it was made.
    made: bool,
    /// What the writer writes to.
    bytes: Bytes,
}

impl Wav {
    /// A recording whose file is made at once if that is possible. A file that is there already (the call outlived a
    /// restart) is left alone: the next part is begun.
    pub fn new(dir: &Path, id: RecordingId, rate: u32, scratch: Scratch) -> (Wav, io::Result<()>) {
        let part = parts(dir, id).len() as u32 + 1;
        let (dir, bytes) = (dir.to_owned(), Bytes::new(None, scratch));
        let mut wav = Wav {
            dir,
            id,
            rate,
            part,
            frames: 0,
            missing: 0,
            max_frames: MAX_FRAMES,
            writer: None,
            made: part > 1,
            bytes,
        };
        let made = wav.reopen();
        (wav, made)
    }

    /// Appends interleaved frames.
    ///
    /// # Errors
    /// They did not reach the file. They count as written for the timeline; [`Wav::reopen`] puts silence for them.
    pub fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        let (mut rest, mut result) = (samples, Ok(()));
        while !rest.is_empty() {
            if self.frames >= self.max_frames {
                if self.part >= MAX_PARTS {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                result = result.and(self.roll());
            }
            let room = usize::try_from((self.max_frames - self.frames) * 2).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            self.frames += now.len() as u64 / 2;
            let written = match &mut self.writer {
                Some(writer) => append(writer, now).and_then(|()| self.bytes.spill()),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            if written.is_err() {
                self.writer = None;
                self.missing += now.len() as u64 / 2;
                result = result.and(written);
            }
            rest = later;
        }
        result
    }

    /// Makes the header true.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.as_mut().map_or(Ok(()), |writer| writer.flush().map_err(other));
        if result.is_err() {
            self.writer = None;
        }
        result
    }

    /// Whether it can be written as far as we know.
    pub fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether any file of it was made.
    pub fn made(&self) -> bool {
        self.made
    }

    /// The file that is being written.
    pub fn path(&self) -> PathBuf {
        path(&self.dir, self.id, self.part)
    }

    /// Frames that were put in as silence because they could not be written.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Makes the file, or mends it and goes on after a failure.
    ///
    /// # Errors
    /// It still cannot be written.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.writer = None;
        let path = path(&self.dir, self.id, self.part);
        if let Some(day) = path.parent() {
            fs::create_dir_all(day)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path)?;
        if file.metadata()?.len() < HEADER {
            let spec =
                WavSpec { channels: 2, sample_rate: self.rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
            let bytes = Bytes::new(Some(file.try_clone()?), self.bytes.scratch());
            WavWriter::new(bytes, spec).and_then(WavWriter::finalize).map_err(other)?;
        }
        resize(&file, self.frames)?;
        self.bytes = Bytes::new(Some(file), self.bytes.scratch());
        self.writer = Some(WavWriter::new_append(self.bytes.clone()).map_err(other)?);
        self.made = true;
        Ok(())
    }

    /// Closes the file.
    ///
    /// # Errors
    /// The last sound did not reach it.
    pub fn finish(mut self) -> io::Result<()> {
        match self.writer.take() {
            Some(writer) => writer.finalize().map_err(other),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn roll(&mut self) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            writer.finalize().map_err(other)?;
        }
        self.part += 1;
        self.frames = 0;
        self.reopen()
    }
}

/// Makes the sizes in a file true that a killed process left. Whether it had to be mended.
///
/// # Errors
/// It cannot be read or written, or is no file of ours.
pub fn repair(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut header = [0; HEADER as usize];
    if length < HEADER {
        // Killed before the header was written: there is no sound in it.
        let spec = WavSpec { channels: 2, sample_rate: 8000, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let writer = WavWriter::new(Bytes::new(Some(file), Scratch::default()), spec).map_err(other)?;
        return writer.finalize().map_err(other).map(|()| true);
    }
    file.read_exact_at(&mut header, 0)?;
    if &header[..4] != b"RIFF" || &header[8..16] != b"WAVEfmt " || &header[36..40] != b"data" {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let frames = (length - HEADER) / FRAME;
    let data = u32::from_le_bytes([header[40], header[41], header[42], header[43]]);
    if u64::from(data) == length - HEADER && u64::from(data).is_multiple_of(FRAME) {
        return Ok(false);
    }
    resize(&file, frames)?;
    Ok(true)
}

/// Length of a file in frames, and its rate, as its header says.
///
/// # Errors
/// It is no WAV file.
pub fn length(path: &Path) -> io::Result<(u64, u32)> {
    let reader = WavReader::open(path).map_err(other)?;
    Ok((u64::from(reader.duration()), reader.spec().sample_rate))
}

/// Makes a file so many frames long; those that are new are silence.
fn resize(file: &File, frames: u64) -> io::Result<()> {
    let data = u32::try_from(frames * FRAME).map_err(|_| io::ErrorKind::FileTooLarge)?;
    file.set_len(HEADER + u64::from(data))?;
    file.write_all_at(&(data + HEADER as u32 - 8).to_le_bytes(), 4)?;
    file.write_all_at(&data.to_le_bytes(), HEADER - 4)
}

fn append(writer: &mut WavWriter<Bytes>, samples: &[i16]) -> io::Result<()> {
    for piece in samples.chunks(PIECE) {
        let mut into = writer.get_i16_writer(piece.len() as u32);
        piece.iter().for_each(|sample| into.write_sample(*sample));
        into.flush().map_err(other)?;
    }
    Ok(())
}

fn other(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        error => io::Error::other(error),
    }
}

/// What hound writes to: a file with a position of its own, so that a seek costs nothing, and the thread's buffer. Once a
/// write has failed nothing more is written, above all not the header of what is not there.
#[derive(Clone)]
struct Bytes(Rc<RefCell<Place>>);

struct Place {
    file: Option<File>,
    /// Where the first byte of the buffer belongs.
    at: u64,
    buffer: Scratch,
}

impl Bytes {
    fn new(file: Option<File>, buffer: Scratch) -> Bytes {
        Bytes(Rc::new(RefCell::new(Place { file, at: 0, buffer })))
    }

    fn scratch(&self) -> Scratch {
        self.0.borrow().buffer.clone()
    }

    /// Empties the buffer into the file; the buffer is then another file's.
    fn spill(&self) -> io::Result<()> {
        let place = &mut *self.0.borrow_mut();
        let mut buffer = place.buffer.borrow_mut();
        if buffer.is_empty() {
            return Ok(());
        }
        let result = match &place.file {
            Some(file) => file.write_all_at(&buffer, place.at),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if result.is_err() {
            place.file = None;
        }
        place.at += buffer.len() as u64;
        buffer.clear();
        result
    }
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow().buffer.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spill()
    }
}

impl Read for Bytes {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.spill()?;
        let place = &mut *self.0.borrow_mut();
        let read = place.file.as_ref().map_or(Ok(0), |file| file.read_at(bytes, place.at))?;
        place.at += read as u64;
        Ok(read)
    }
}

impl Seek for Bytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.spill()?;
        let place = &mut *self.0.borrow_mut();
        let to = match (to, &place.file) {
            (SeekFrom::Start(at), _) => Some(at),
            (SeekFrom::Current(by), _) => place.at.checked_add_signed(by),
            (SeekFrom::End(by), Some(file)) => file.metadata()?.len().checked_add_signed(by),
            (SeekFrom::End(_), None) => None,
        };
        place.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(place.at)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // hound writes a last header when it is dropped, but does not flush it.
        let _ = self.spill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Rng, Wall};

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("strowger-wav-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn id() -> RecordingId {
        RecordingId::mint(Wall::from_micros(1_795_350_000_000_000), &mut Rng::from_number(1))
    }

    fn samples(path: &Path) -> Vec<i16> {
        WavReader::open(path).expect("a WAV file").into_samples().map(|s| s.expect("a sample")).collect()
    }

    #[test]
    fn a_file_is_readable_after_every_flush() {
        let dir = Dir::new("flush");
        let (mut wav, made) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        assert!(made.is_ok() && wav.is_open());
        let path = path(&dir.0, id(), 1);
        assert!(path.ends_with(format!("2026/11/22/{}.wav", id())), "{path:?}");
        assert!(samples(&path).is_empty());
        let sound: Vec<i16> = (0..500).collect();
        for i in 1..4 {
            wav.write(&sound).expect("written");
            wav.flush().expect("flushed");
            assert_eq!(samples(&path), sound.repeat(i));
            assert_eq!(length(&path).ok(), Some((250 * i as u64, 8000)));
        }
        wav.write(&sound).expect("written");
        assert!(wav.finish().is_ok());
        assert_eq!(samples(&path), sound.repeat(4));
        assert_eq!(repair(&path).ok(), Some(false));
        // The same recording again begins another part.
        let (again, _) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        assert!(again.finish().is_ok());
        assert_eq!(parts(&dir.0, id()).len(), 2);
    }

    #[test]
    fn what_a_kill_leaves_is_mended() {
        let dir = Dir::new("kill");
        let (mut wav, _) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        wav.write(&[7; 1000]).expect("written");
        wav.flush().expect("flushed");
        let path = path(&dir.0, id(), 1);
        // Killed with data behind the header's sizes and half a frame at the end.
        let file = OpenOptions::new().write(true).open(&path).expect("there");
        file.write_all_at(&[1; 403], HEADER + 2000).expect("written");
        std::mem::forget(wav);
        assert_eq!(samples(&path).len(), 1000, "readable without repair");
        assert_eq!(repair(&path).ok(), Some(true));
        assert_eq!(samples(&path).len(), 1200);
        for (length, frames) in [(0, Some(0)), (20, Some(0)), (HEADER, Some(0)), (HEADER + 5, Some(1))] {
            file.set_len(length).expect("cut");
            assert!(repair(&path).is_ok());
            assert_eq!(super::length(&path).ok().map(|(frames, _)| frames), frames, "{length}");
        }
        fs::write(&path, [b'x'; 100]).expect("written");
        assert!(repair(&path).is_err());
    }

    #[test]
    fn a_failure_costs_its_time_only() {
        let dir = Dir::new("full");
        fs::write(&dir.0, "in the way").expect("written");
        let (mut wav, made) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        assert!(made.is_err());
        assert!(wav.write(&[1; 400]).is_err() && wav.flush().is_ok());
        fs::remove_file(&dir.0).expect("removed");
        assert!(wav.reopen().is_ok());
        wav.write(&[2; 400]).expect("written");
        assert_eq!(wav.missing(), 200);
        assert!(wav.finish().is_ok());
        let path = path(&dir.0, id(), 1);
        assert_eq!(samples(&path), [vec![0; 400], vec![2; 400]].concat());
        // A disk that is full in the middle: what did not fit is silence.
        let (mut wav, _) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        wav.write(&[3; 400]).expect("written");
        wav.flush().expect("flushed");
        wav.writer = None;
        assert!(wav.write(&[4; 400]).is_err());
        assert!(wav.reopen().is_ok());
        wav.write(&[5; 400]).expect("written");
        assert!(wav.finish().is_ok());
        let second = super::path(&dir.0, id(), 2);
        assert_eq!(samples(&second), [vec![3; 400], vec![0; 400], vec![5; 400]].concat());
    }

    #[test]
    fn a_file_is_followed_by_another_before_it_is_too_long() {
        let dir = Dir::new("roll");
        let (mut wav, _) = Wav::new(&dir.0, id(), 8000, Scratch::default());
        wav.max_frames = 300;
        let sound: Vec<i16> = (0..1000).collect();
        wav.write(&sound).expect("written");
        wav.write(&sound).expect("written");
        assert!(wav.finish().is_ok());
        let parts = parts(&dir.0, id());
        assert_eq!(parts.len(), 4);
        let all: Vec<i16> = parts.iter().flat_map(|path| samples(path)).collect();
        assert_eq!(all, sound.repeat(2));
    }
}
