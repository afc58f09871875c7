//! What can be wrong with a class file, as the exception that Java code will see.

/// Why a class file is refused. The text is the message of the Java exception, worded as HotSpot words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `java.lang.ClassFormatError`.
    #[error("{0}")]
    Format(String),
    /// `java.lang.UnsupportedClassVersionError`.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// `java.lang.NoClassDefFoundError`: a class of another name, or a module descriptor.
    #[error("{0}")]
    NoClassDefinition(String),
}

impl Error {
    /// The internal name of the Java class of this exception.
    pub fn java_class(&self) -> &'static str {
        match self {
            Error::Format(_) => "java/lang/ClassFormatError",
            Error::UnsupportedVersion(_) => "java/lang/UnsupportedClassVersionError",
            Error::NoClassDefinition(_) => "java/lang/NoClassDefFoundError",
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The error for a file that ends too early.
pub(crate) fn truncated() -> Error {
    Error::Format("Truncated class file".into())
}
