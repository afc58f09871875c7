//! `META-INF/MANIFEST.MF` of a jar: what the launcher and the class loader ask of it.

/// The main attributes of a manifest, and sections of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Name and value in the file's order: of the whole jar.
    pub main: Vec<(String, String)>,
    /// The same of entries and packages; the first of each is its name.
    pub sections: Vec<Vec<(String, String)>>,
}

impl Manifest {
    /// Parses a manifest. Lines that are not `name: value` are left out.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut manifest = Self::default();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        // Lines end with CR, LF or both; one that begins with a space goes on with the one before, even within a character.
        let text: Vec<u8> = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n").into_bytes();
        // Joining works on bytes, so what was cut within a character is read from the original where that matters.
        let source: &[u8] = if str::from_utf8(bytes).is_ok() { &text } else { bytes };
        for line in source.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match (line.split_first(), lines.last_mut()) {
                (Some((b' ', rest)), Some(last)) if !last.is_empty() => last.extend_from_slice(rest),
                _ => lines.push(line.to_vec()),
            }
        }
        let mut section: Vec<(String, String)> = Vec::new();
        let mut in_main = true;
        for line in lines.into_iter().chain([Vec::new()]) {
            if line.is_empty() {
                let done = std::mem::take(&mut section);
                if in_main && !done.is_empty() {
                    manifest.main = done;
                    in_main = false;
                } else if !done.is_empty() {
                    manifest.sections.push(done);
                }
            } else if let Some((name, value)) = String::from_utf8_lossy(&line).split_once(": ") {
                section.push((name.to_owned(), value.to_owned()));
            }
        }
        manifest
    }

    /// The main attribute of this name; names do not tell upper from lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.main.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// `Main-Class`.
    pub fn main_class(&self) -> Option<&str> {
        self.get("Main-Class")
    }

    /// `Class-Path`: other jars and folders, as URLs relative to this one.
    pub fn class_path(&self) -> impl Iterator<Item = &str> {
        self.get("Class-Path").unwrap_or("").split_whitespace()
    }

    /// Whether the jar has classes for newer versions below `META-INF/versions`.
    pub fn is_multi_release(&self) -> bool {
        self.get("Multi-Release").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_and_sections() {
        let text = b"Manifest-Version: 1.0\r\nMain-Class: a.\r\n B\r\nclass-path: x.jar\r\n  lib/y.jar\r\nMulti-Release: true\r\n\r\nName: p/\r\nSealed: true\r\n";
        let manifest = Manifest::parse(text);
        assert_eq!(manifest.main_class(), Some("a.B"));
        assert_eq!(manifest.class_path().collect::<Vec<_>>(), ["x.jar", "lib/y.jar"]);
        assert!(manifest.is_multi_release());
        assert_eq!(manifest.sections[0][1], ("Sealed".to_owned(), "true".to_owned()));
    }

    #[test]
    fn a_character_cut_between_lines() {
        let manifest = Manifest::parse(b"Main-Class: A\xC3\n \xBC\n");
        assert_eq!(manifest.main_class(), Some("A\u{FC}"));
    }
}
