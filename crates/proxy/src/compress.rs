//! Compresses bodies on their way to clients.
//!
//! A compressor takes some MB of memory for as long as its response lasts. A worker has [`MOST`] for all of them:
//! beyond that, responses are sent as they are.

use brotli::CompressorWriter;
use flate2::write::GzEncoder;
use gaiola_model::http::Coding;
use gaiola_model::proxy::Compression;
use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

/// Memory for a worker's compressors.
const MOST: usize = 64 << 20;
/// Compressed bytes that are worth a chunk of their own.
const CHUNK: usize = 16 << 10;
/// Logarithms of the window: how far back repetitions are found. They bound the memory of a compressor at every level.
const BROTLI_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 18;
/// Brotli's buffer for its output.
const BROTLI_BUFFER: usize = 4 << 10;

/// Memory that a compressor takes at most, by measurement (docs/decisions/compression.md).
const fn memory(coding: Coding, level: u8) -> usize {
    const KIB: usize = 1 << 10;
    match (coding, level) {
        (Coding::Gzip, _) => 448 * KIB,
        (Coding::Zstd, ..=3) => 2048 * KIB,
        (Coding::Zstd, ..=6) => 4096 * KIB,
        (Coding::Zstd, _) => 12_288 * KIB,
        (Coding::Brotli, ..=2) => 256 * KIB,
        (Coding::Brotli, 3) => 2048 * KIB,
        (Coding::Brotli, _) => 6656 * KIB,
    }
}

/// How much memory the compressors of a worker hold.
#[derive(Debug, Default)]
pub(crate) struct Memory(Cell<usize>);

/// A part of that memory, given back when it is dropped.
struct Held {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Held {
    fn of(memory: &Rc<Memory>, bytes: usize) -> Option<Self> {
        let held = memory.0.get() + bytes;
        (held <= MOST).then(|| {
            memory.0.set(held);
            let memory = Rc::clone(memory);
            Self { memory, bytes }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.set(self.memory.0.get() - self.bytes);
    }
}

/// A body that is being compressed.
pub(crate) struct Compressor {
    encoder: Encoder,
    /// The head in front of the first chunk, until it has been written.
    head: Vec<u8>,
    /// The size of the chunk that [`Self::chunk`] returns.
    size: String,
    _held: Held,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// The body is complete: the rest of what is to be written.
    Done(Vec<u8>),
}

impl Compressor {
    /// A compressor with the policy's level; `None`: there is no memory for it.
    pub(crate) fn new(policy: &Compression, coding: Coding, memory: &Rc<Memory>) -> Option<Self> {
        let (level, out) = (policy.level(coding), Vec::new());
        let held = Held::of(memory, self::memory(coding, level))?;
        let encoder = match coding {
            Coding::Gzip => {
                Encoder::Gzip(GzEncoder::new(out, flate2::Compression::new(level.into())))
            }
            Coding::Brotli => {
                let (level, window) = (level.into(), BROTLI_WINDOW);
                let encoder = CompressorWriter::new(out, BROTLI_BUFFER, level, window);
                Encoder::Brotli(Box::new(encoder))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level.into()).ok()?;
                encoder.window_log(ZSTD_WINDOW).ok()?;
                Encoder::Zstd(encoder)
            }
        };
        Some(Self {
            encoder,
            head: Vec::new(),
            size: String::new(),
            _held: held,
        })
    }

    /// Sets the head that the first chunk follows.
    pub(crate) fn set_head<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        self.head = pieces.flatten().copied().collect();
    }

    /// Takes a piece of the body.
    ///
    /// # Errors
    /// The library failed, for lack of memory.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Done(_) => unreachable!("nothing follows the end"),
        }
    }

    /// Makes everything taken so far readable to the client.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Done(_) => Ok(()),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let rest = match std::mem::replace(&mut self.encoder, Encoder::Done(Vec::new())) {
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Brotli(encoder) => encoder.into_inner(),
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Done(rest) => rest,
        };
        self.encoder = Encoder::Done(rest);
        Ok(())
    }

    /// Whether enough is compressed to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.compressed().len() >= CHUNK
    }

    /// What is to be written now: the head if it has not been, what is compressed as a chunk, and after the end the last
    /// chunk (RFC 9112, section 7.1). To be followed by [`Self::written`].
    pub(crate) fn chunk(&mut self) -> [&[u8]; 5] {
        let len = self.compressed().len();
        self.size = format!("{len:x}\r\n");
        let last: &[u8] = match self.encoder {
            Encoder::Done(_) => b"0\r\n\r\n",
            _ => b"",
        };
        match self.compressed() {
            b"" => [&self.head, b"", b"", b"", last],
            compressed => [&self.head, self.size.as_bytes(), compressed, b"\r\n", last],
        }
    }

    /// Forgets what has been written.
    pub(crate) fn written(&mut self) {
        self.head = Vec::new();
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.get_mut().clear(),
            Encoder::Brotli(encoder) => encoder.get_mut().clear(),
            Encoder::Zstd(encoder) => encoder.get_mut().clear(),
            Encoder::Done(rest) => rest.clear(),
        }
    }

    fn compressed(&self) -> &[u8] {
        match &self.encoder {
            Encoder::Gzip(encoder) => encoder.get_ref(),
            Encoder::Brotli(encoder) => encoder.get_ref(),
            Encoder::Zstd(encoder) => encoder.get_ref(),
            Encoder::Done(rest) => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn compressor(coding: Coding) -> Compressor {
        Compressor::new(&Compression::default(), coding, &Rc::default()).unwrap()
    }

    /// As much of the contents as these bytes have; the rest may be missing.
    fn contents(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let (mut contents, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            contents.extend_from_slice(&piece[..count]);
        }
        contents
    }

    #[test]
    fn what_is_flushed_can_be_read_before_the_end() {
        for coding in Coding::ALL {
            let mut compressor = compressor(coding);
            compressor.write(b"first").unwrap();
            compressor.flush().unwrap();
            let mut sent = compressor.compressed().to_vec();
            assert_eq!(contents(coding, &sent), b"first", "{coding:?}");
            compressor.written();
            compressor.write(&[b'x'; 100_000]).unwrap();
            compressor.finish().unwrap();
            sent.extend_from_slice(compressor.compressed());
            assert_eq!(contents(coding, &sent).len(), 100_005, "{coding:?}");
            assert!(sent.len() < 1000);
        }
    }

    #[test]
    fn a_chunk_has_its_head_its_size_and_the_last_one_its_end() {
        let mut compressor = compressor(Coding::Gzip);
        compressor.set_head([&b"HTTP/1.1 "[..], b"200"].into_iter());
        compressor.write(b"a").unwrap();
        compressor.flush().unwrap();
        let len = compressor.compressed().len();
        let size = format!("{len:x}\r\n");
        let [head, first, data, end, last] = compressor.chunk();
        assert_eq!((head, first), (&b"HTTP/1.1 200"[..], size.as_bytes()));
        assert_eq!((data.len(), end, last), (len, &b"\r\n"[..], &b""[..]));
        compressor.written();
        assert_eq!(compressor.chunk().concat(), b"");
        compressor.finish().unwrap();
        assert!(compressor.chunk().concat().ends_with(b"\r\n0\r\n\r\n"));
        compressor.written();
        assert_eq!(compressor.chunk().concat(), b"0\r\n\r\n");
    }

    #[test]
    fn beyond_the_memory_of_a_worker_nothing_is_compressed() {
        let memory = Rc::<Memory>::default();
        let policy = Compression::default();
        let more = || Compressor::new(&policy, Coding::Zstd, &memory);
        let all: Vec<_> = std::iter::from_fn(more).collect();
        assert_eq!(all.len(), MOST / self::memory(Coding::Zstd, 3));
        drop(all);
        assert_eq!(memory.0.get(), 0);
        assert!(more().is_some());
    }
}
