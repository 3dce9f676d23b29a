//! A body as it is read (RFC 9112, sections 6 and 7).

use httparse::{EMPTY_HEADER, Status};
use hyper::body::{Buf as _, Bytes, Frame, SizeHint};

use super::{MAX_HEAD, MAX_HEADERS, Nonsense, fields::all};

/// Most bytes of the line with a chunk's size, extensions and all.
const MAX_LINE: usize = 4096;

/// What is still to come of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing.
    Ended,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// All until the connection closes.
    UntilClose,
}

/// What comes next of a body in chunks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// A line with a size.
    Size,
    /// So many bytes.
    Data(u64),
    /// The end of a chunk.
    End,
    /// The trailers, or the empty line in their place.
    Trailers,
}

impl Body {
    /// So many bytes.
    pub(crate) fn length(length: u64) -> Self {
        match length {
            0 => Body::Ended,
            _ => Body::Length(length),
        }
    }

    /// Chunks.
    pub(crate) fn chunked() -> Self {
        Body::Chunks(Chunks::Size)
    }

    /// Whether nothing more comes.
    pub(crate) fn has_ended(&self) -> bool {
        *self == Body::Ended
    }

    /// Bytes that are known to come in a row.
    pub(crate) fn expected(&self) -> u64 {
        match self {
            Body::Ended => 0,
            Body::Length(left) | Body::Chunks(Chunks::Data(left)) => *left,
            // Not known, and not to be waited for.
            Body::Chunks(_) => 0,
            Body::UntilClose => u64::MAX,
        }
    }

    /// How much more comes.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Body::Ended => SizeHint::with_exact(0),
            Body::Length(left) => SizeHint::with_exact(*left),
            _ => SizeHint::default(),
        }
    }

    /// Takes the next piece from what was read. None: that needs more of it, or nothing comes.
    ///
    /// # Errors
    ///
    /// It is not in chunks.
    pub(crate) fn take(&mut self, read: &mut Bytes) -> Result<Option<Frame<Bytes>>, Nonsense> {
        match self {
            Body::Ended => Ok(None),
            Body::UntilClose => Ok(piece(read, u64::MAX).map(Frame::data)),
            Body::Length(left) => {
                let piece = piece(read, *left);
                *left -= piece.as_ref().map_or(0, Bytes::len) as u64;
                if *left == 0 {
                    *self = Body::Ended;
                }
                Ok(piece.map(Frame::data))
            }
            Body::Chunks(chunks) => {
                while !read.is_empty() {
                    if let Chunks::Data(left) = chunks {
                        let piece = piece(read, *left);
                        *left -= piece.as_ref().map_or(0, Bytes::len) as u64;
                        if *left == 0 {
                            *chunks = Chunks::End;
                        }
                        // What is there of the end: who has the last piece is to know it.
                        if chunks.step(read)? == Step::Over {
                            *self = Body::Ended;
                        }
                        return Ok(piece.map(Frame::data));
                    }
                    match chunks.step(read)? {
                        Step::On => {}
                        Step::More => return Ok(None),
                        Step::Over => {
                            *self = Body::Ended;
                            return Ok(None);
                        }
                        Step::Trailers => {
                            let trailers = trailers(read)?;
                            if trailers.is_some() {
                                *self = Body::Ended;
                            }
                            return Ok(trailers);
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    /// The connection has closed: whether that is the end.
    pub(crate) fn close(&mut self) -> bool {
        if *self == Body::UntilClose {
            *self = Body::Ended;
        }
        self.has_ended()
    }
}

/// What a look between two chunks has found.
#[derive(PartialEq, Eq)]
enum Step {
    /// Something that has an end: look on.
    On,
    /// The beginning of something.
    More,
    /// The end of the body.
    Over,
    /// Trailers.
    Trailers,
}

impl Chunks {
    /// Looks as far as bytes of a chunk, or trailers.
    fn step(&mut self, read: &mut Bytes) -> Result<Step, Nonsense> {
        if *self == Chunks::End {
            match &**read {
                [b'\r', b'\n', ..] => {
                    read.advance(2);
                    *self = Chunks::Size;
                }
                [] | [b'\r'] => return Ok(Step::More),
                _ => return Err(Nonsense::Chunk),
            }
        }
        if *self == Chunks::Size {
            match size(read)? {
                None => return Ok(Step::More),
                Some((line, 0)) => {
                    read.advance(line);
                    *self = Chunks::Trailers;
                }
                Some((line, size)) => {
                    read.advance(line);
                    *self = Chunks::Data(size);
                }
            }
        }
        if *self != Chunks::Trailers {
            return Ok(Step::On);
        }
        match &**read {
            [b'\r', b'\n', ..] => {
                read.advance(2);
                Ok(Step::Over)
            }
            [] | [b'\r'] => Ok(Step::More),
            _ => Ok(Step::Trailers),
        }
    }
}

fn piece(read: &mut Bytes, most: u64) -> Option<Bytes> {
    let count = usize::try_from(most).map_or(read.len(), |most| most.min(read.len()));
    (count > 0).then(|| read.split_to(count))
}

/// The length of the line with a chunk's size, and the size.
fn size(read: &[u8]) -> Result<Option<(usize, u64)>, Nonsense> {
    // The parser takes no digits for zero, and an extension to go on behind a line's end.
    if read.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(Nonsense::Chunk);
    }
    let known = &read[..read.len().min(MAX_LINE)];
    match httparse::parse_chunk_size(known).map_err(|_| Nonsense::Chunk)? {
        Status::Complete((line, size)) => match memchr::memchr(b'\n', known) {
            Some(end) if end + 1 == line => Ok(Some((line, size))),
            _ => Err(Nonsense::Chunk),
        },
        Status::Partial if read.len() >= MAX_LINE => Err(Nonsense::Chunk),
        Status::Partial => Ok(None),
    }
}

fn trailers(read: &mut Bytes) -> Result<Option<Frame<Bytes>>, Nonsense> {
    let mut parsed = [EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(read, &mut parsed)? {
        Status::Complete((length, parsed)) if length <= MAX_HEAD => {
            if has_bare_ends(&read[..length]) {
                return Err(Nonsense::Chunk);
            }
            let trailers = all(read, parsed)?;
            read.advance(length);
            Ok(Some(Frame::trailers(trailers)))
        }
        Status::Partial if read.len() <= MAX_HEAD => Ok(None),
        _ => Err(Nonsense::TooLarge),
    }
}

/// Whether a line ends with a line feed alone, which the parser takes for an end, and others do not.
fn has_bare_ends(lines: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', lines).any(|end| !lines[..end].ends_with(b"\r"))
}
