//! The language, country and encoding that the host's user has set: `LC_ALL`, `LC_CTYPE`, `LC_MESSAGES` and `LANG`, as the C library reads them.
//!
//! A name is `language_COUNTRY.encoding@modifier`, of which all but the language may be missing. A host that does not have the locale behaves as if none
//! were set.

use std::ffi::CStr;

/// What a locale is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// What characters are: `LC_CTYPE`.
    Characters,
    /// What messages are written in: `LC_MESSAGES`.
    Messages,
}

/// The parts of a locale's name, as the class library names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locale {
    /// Two or three letters.
    pub language: String,
    /// Four letters, if it is said.
    pub script: Option<String>,
    /// Two letters, if it is said.
    pub country: Option<String>,
}

/// The host's locale, if the host has it; closed at the end.
struct Host(libc::locale_t);

impl Host {
    fn open() -> Option<Self> {
        // SAFETY: the name ends with NUL; nothing is to be based on.
        let locale = unsafe { libc::newlocale(libc::LC_ALL_MASK, c"".as_ptr(), std::ptr::null_mut()) };
        (!locale.is_null()).then(|| Self(locale))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: made by `open`, and used no more.
        unsafe { libc::freelocale(self.0) };
    }
}

/// The locale that is set for a category.
pub fn locale(category: Category) -> Locale {
    let variable = if category == Category::Characters { "LC_CTYPE" } else { "LC_MESSAGES" };
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = ["LC_ALL", variable, "LANG"].iter().find_map(set).filter(|_| Host::open().is_some());
    parse(&name.unwrap_or_default())
}

fn parse(name: &str) -> Locale {
    let name = if matches!(name, "" | "C" | "POSIX") { "en_US" } else { name };
    let (name, modifier) = name.split_once('@').unwrap_or((name, ""));
    let (name, _) = name.split_once('.').unwrap_or((name, ""));
    let (language, country) = name.split_once('_').unwrap_or((name, ""));
    let language = if matches!(language, "" | "C" | "POSIX") { "en" } else { language };
    let script = match modifier {
        "latin" => Some("Latn"),
        "cyrillic" => Some("Cyrl"),
        "devanagari" => Some("Deva"),
        _ if modifier.len() == 4 && modifier.starts_with(|first: char| first.is_ascii_uppercase()) => Some(modifier),
        _ => None,
    };
    Locale {
        language: language.into(),
        script: script.map(str::to_owned),
        country: (!country.is_empty()).then(|| country.to_owned()),
    }
}

/// The name of the encoding that the host's texts are in.
pub fn encoding() -> String {
    let Some(host) = Host::open() else { return "ANSI_X3.4-1968".into() };
    // SAFETY: the locale is open, and the text is copied before it is closed.
    let name = unsafe {
        let name = libc::nl_langinfo_l(libc::CODESET, host.0);
        CStr::from_ptr(name).to_string_lossy().into_owned()
    };
    match name.as_str() {
        "" => "ISO8859-1".into(),
        // The class library has an own one for what hosts mean by it.
        "EUC-JP" => "EUC-JP-LINUX".into(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        let parts = |name: &str| {
            let Locale { language, script, country } = parse(name);
            format!("{language}/{}/{}", script.unwrap_or_default(), country.unwrap_or_default())
        };
        assert_eq!(parts(""), "en//US");
        assert_eq!(parts("POSIX"), "en//US");
        assert_eq!(parts("C.UTF-8"), "en//");
        assert_eq!(parts("de_CH.ISO8859-1@euro"), "de//CH");
        assert_eq!(parts("sr_RS@latin"), "sr/Latn/RS");
        assert_eq!(parts("sr_RS.UTF-8@Cyrl"), "sr/Cyrl/RS");
        assert_eq!(parts("eo.utf8"), "eo//");
        assert_eq!(parts("nds@x"), "nds//");
    }
}
