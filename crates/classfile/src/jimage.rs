//! The run-time image of a JDK, `lib/modules`: every class and resource of its modules, found without a search.
//!
//! The format has no specification but the JDK's own sources (module `java.base`, package `jdk.internal.jimage`):
//!
//! ```text
//! header     7 x u32     magic CAFEDADA, version 1.0, flags, resources, n, bytes of locations, bytes of strings
//! redirect   n x i32     by hash of the full name: > 0 a second hash's seed, < 0 the index itself as -1 - index, 0 nothing
//! offsets    n x u32     by index: where the location begins
//! locations              attributes: a byte kind * 8 + (length - 1), then so many bytes, most significant first; kind 0 ends
//! strings                modified UTF-8, each ended by NUL
//! resources              at the offsets that locations give
//! ```
//!
//! A full name is `/module/parent/base.extension`, as `/java.base/java/lang/Object.class`. Numbers of the header and tables have the byte order of
//! the host that made the image; only little-endian images are read. The file stays mapped: looking up costs two hashes of the name and
//! touches only the pages where the answer is.

use std::io::Read;

/// What is wrong with an image, or with a resource of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not such a file, or for another processor.
    #[error("not a run-time image of a JDK for this processor: it must begin with CAFEDADA in little-endian order")]
    Magic,
    /// A version that is not known.
    #[error("run-time image of version {0}.{1}, but only 1.0 is known; use the class library of JDK 17")]
    Version(u16, u16),
    /// Tables that are not within the file.
    #[error("run-time image is cut off; install the class library again")]
    Truncated,
    /// A resource whose contents cannot be had.
    #[error("resource of a run-time image is damaged; install the class library again")]
    Resource,
    /// A resource that is compressed in a way that is not known.
    #[error("resource of a run-time image is compressed by {0:?}; make the image without --compress=1")]
    Compression(String),
}

const MAGIC: u32 = 0xCAFE_DADA;
const RESOURCE_MAGIC: u32 = 0xCAFE_FAFA;
const HASH_SEED: u32 = 0x0100_0193;
const HEADER_SIZE: usize = 28;
const RESOURCE_HEADER_SIZE: usize = 29;

/// A run-time image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    redirect: &'a [u8],
    offsets: &'a [u8],
    locations: &'a [u8],
    strings: &'a [u8],
    resources: &'a [u8],
}

/// A resource of an image: its name in parts, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Location<'a> {
    /// The module, as `java.base`.
    pub module: &'a [u8],
    /// The folders, as `java/lang`; empty at a module's top.
    pub parent: &'a [u8],
    /// The name up to the last dot, as `Object`.
    pub base: &'a [u8],
    /// What is behind the last dot, as `class`; empty if there is none.
    pub extension: &'a [u8],
    offset: u64,
    compressed: u64,
    size: u64,
}

impl Location<'_> {
    /// Bytes of its contents.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The full name in pieces.
    fn pieces(&self) -> [&[u8]; 7] {
        let unless = |text: &[u8], separator: &'static [u8]| if text.is_empty() { &[] } else { separator };
        let (before, behind) = (unless(self.module, b"/"), unless(self.parent, b"/"));
        [before, self.module, before, self.parent, behind, self.base, unless(self.extension, b".")]
    }

    /// Whether the full name is that of `parts`, one after the other.
    fn is_named(&self, parts: &[&[u8]]) -> bool {
        self.pieces().into_iter().chain([self.extension]).flatten().eq(parts.iter().copied().flatten())
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn hash(parts: &[&[u8]], seed: u32) -> u32 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(seed, |hash, &byte| hash.wrapping_mul(HASH_SEED) ^ u32::from(byte)) & 0x7FFF_FFFF
}

impl<'a> Image<'a> {
    /// An image in these bytes, which are best the mapped file.
    ///
    /// # Errors
    /// If the bytes are something else, or too short for their own tables.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let field = |index: usize| u32_at(bytes, index * 4).ok_or(Error::Magic);
        if field(0)? != MAGIC {
            return Err(Error::Magic);
        }
        let version = field(1)?;
        if version != 1 << 16 {
            let [a, b, c, d] = version.to_be_bytes();
            return Err(Error::Version(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        }
        let mut rest = &bytes[HEADER_SIZE.min(bytes.len())..];
        let mut part = |size: usize| -> Result<&'a [u8], Error> {
            let (part, after) = rest.split_at_checked(size).ok_or(Error::Truncated)?;
            rest = after;
            Ok(part)
        };
        let entries = (field(4)? as usize).checked_mul(4).ok_or(Error::Truncated)?;
        let redirect = part(entries)?;
        let offsets = part(entries)?;
        let locations = part(field(5)? as usize)?;
        let strings = part(field(6)? as usize)?;
        Ok(Self { redirect, offsets, locations, strings, resources: rest })
    }

    /// Finds a resource by module and path, as `java.base` and `java/lang/Object.class`.
    pub fn find(&self, module: &str, path: &str) -> Option<Location<'a>> {
        self.find_parts(&[b"/", module.as_bytes(), b"/", path.as_bytes()])
    }

    fn find_parts(&self, name: &[&[u8]]) -> Option<Location<'a>> {
        let entries = u32::try_from(self.redirect.len() / 4).ok().filter(|&entries| entries > 0)?;
        let first = hash(name, HASH_SEED) % entries;
        let value = u32_at(self.redirect, first as usize * 4)?.cast_signed();
        let index = match value {
            1.. => hash(name, value.cast_unsigned()) % entries,
            ..=-1 => (-1 - value).cast_unsigned(),
            0 => return None,
        };
        let location = self.location(index as usize)?;
        // Names that are not in the image hash to those of others.
        location.is_named(name).then_some(location)
    }

    /// All resources, in no order that means something.
    pub fn iter(&self) -> impl Iterator<Item = Location<'a>> + '_ {
        (0..self.offsets.len() / 4).filter_map(|index| self.location(index))
    }

    fn location(&self, index: usize) -> Option<Location<'a>> {
        let offset = u32_at(self.offsets, index.checked_mul(4)?)? as usize;
        let mut rest = self.locations.get(offset..)?;
        let mut location = Location::default();
        loop {
            let (&head, after) = rest.split_first()?;
            let (kind, length) = (head >> 3, usize::from(head & 7) + 1);
            if kind == 0 {
                return Some(location);
            }
            let (bytes, after) = after.split_at_checked(length)?;
            let value = bytes.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte));
            match kind {
                1 => location.module = self.string(value)?,
                2 => location.parent = self.string(value)?,
                3 => location.base = self.string(value)?,
                4 => location.extension = self.string(value)?,
                5 => location.offset = value,
                6 => location.compressed = value,
                7 => location.size = value,
                _ => return None,
            }
            rest = after;
        }
    }

    fn string(&self, offset: u64) -> Option<&'a [u8]> {
        let text = self.strings.get(usize::try_from(offset).ok()?..)?;
        text.split(|&byte| byte == 0).next()
    }

    /// The contents of a resource that is not compressed, where they are. All are so in the images that distributions ship.
    pub fn stored(&self, location: &Location<'a>) -> Option<&'a [u8]> {
        if location.compressed != 0 {
            return None;
        }
        self.bytes(location.offset, location.size)
    }

    fn bytes(&self, offset: u64, size: u64) -> Option<&'a [u8]> {
        self.resources.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(size).ok()?)
    }

    /// The contents of a resource, whether compressed or not.
    ///
    /// # Errors
    /// If they are not in the file, or compressed by something else than `zip`.
    pub fn read(&self, location: &Location<'a>) -> Result<std::borrow::Cow<'a, [u8]>, Error> {
        if location.compressed == 0 {
            return self.bytes(location.offset, location.size).map(Into::into).ok_or(Error::Resource);
        }
        let packed = self.bytes(location.offset, location.compressed).ok_or(Error::Resource)?;
        let (size, name) = (|| {
            let magic = u32_at(packed, 0)?;
            let name = self.string(u64::from(u32_at(packed, 20)?))?;
            (magic == RESOURCE_MAGIC).then_some((u64_at(packed, 12)?, name))
        })()
        .ok_or(Error::Resource)?;
        if name != b"zip" || size != location.size {
            return Err(Error::Compression(String::from_utf8_lossy(name).into_owned()));
        }
        let body = packed.get(RESOURCE_HEADER_SIZE..).ok_or(Error::Resource)?;
        let mut contents = Vec::new();
        let read = flate2::read::ZlibDecoder::new(body).take(size).read_to_end(&mut contents);
        if read.is_err() || contents.len() as u64 != size {
            return Err(Error::Resource);
        }
        Ok(contents.into())
    }

    /// The module that has classes in a package, named as `java/lang`.
    pub fn module_of_package(&self, package: &str) -> Option<&'a [u8]> {
        let dotted = package.replace('/', ".");
        let location = self.find_parts(&[b"/packages/", dotted.as_bytes()])?;
        let entries = self.stored(&location)?;
        // Pairs of whether the package is empty in that module, and the module's name.
        let (pairs, _) = entries.as_chunks::<8>();
        let pair = pairs.iter().find(|pair| u32_at(*pair, 0) == Some(0))?;
        self.string(u64::from(u32_at(pair, 4)?))
    }
}

/// Does everything that can be done with an image, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(image) = Image::new(bytes) else { return };
    for location in image.iter().take(1000) {
        let _ = image.read(&location);
    }
    image.find("java.base", "java/lang/Object.class");
    image.module_of_package("java/lang");
}
