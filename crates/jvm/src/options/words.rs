//! The words of a command line: those of the environment, and those of argument files in place of `@file`.

use std::collections::VecDeque;

use super::OptionError;

/// Words that are still to be read.
#[derive(Debug)]
pub(super) struct Words {
    words: VecDeque<String>,
    /// So many of the next ones are from argument files, where `@` means nothing.
    literal: usize,
    /// Whether `@file` still means a file: not behind `--disable-@files`.
    files: bool,
}

impl Words {
    /// The words of a command line.
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words: words.into(), literal: 0, files: true }
    }

    /// The next word as it is.
    pub(super) fn next(&mut self) -> Option<String> {
        self.literal = self.literal.saturating_sub(1);
        self.words.pop_front()
    }

    /// The next word where options are: of `@file` the first of its words.
    pub(super) fn next_option(&mut self) -> Result<Option<String>, OptionError> {
        loop {
            let literal = self.literal > 0 || !self.files;
            let Some(word) = self.next() else { return Ok(None) };
            if word == "--disable-@files" {
                self.files = false;
                continue;
            }
            let Some(name) = word.strip_prefix('@').filter(|_| !literal) else { return Ok(Some(word)) };
            if name.starts_with('@') {
                return Ok(Some(name.to_owned()));
            }
            let text = std::fs::read_to_string(name).map_err(|_| OptionError::ArgumentFile(name.into()))?;
            let words = split(&text);
            self.literal += words.len();
            words.into_iter().rev().for_each(|word| self.words.push_front(word));
        }
    }

    /// Whether an option is among those before the main class; `is_valued` tells options that take the next word.
    pub(super) fn has_option(&self, option: &str, is_valued: impl Fn(&str) -> bool) -> bool {
        let mut words = self.words.iter();
        while let Some(word) = words.next().filter(|word| word.starts_with(['-', '@'])) {
            if word == option {
                return true;
            }
            if is_valued(word) {
                words.next();
            }
        }
        false
    }

    /// What is left.
    pub(super) fn rest(self) -> Vec<String> {
        self.words.into()
    }
}

/// The words of an argument file: separated by white space, quoted by `"` or `'`, comments from `#` on, continued by `\` at the end of a line.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(&first) = characters.peek() {
        if first.is_whitespace() {
            characters.next();
        } else if first == '#' {
            characters.by_ref().find(|&c| c == '\n');
        } else {
            let mut word = String::new();
            let mut quote = None;
            while let Some(&c) = characters.peek() {
                match quote {
                    None if c.is_whitespace() => break,
                    None if c == '"' || c == '\'' => quote = Some(c),
                    Some(open) if c == open => quote = None,
                    Some(_) if c == '\\' => {
                        characters.next();
                        match characters.peek() {
                            Some('n') => word.push('\n'),
                            Some('r') => word.push('\r'),
                            Some('t') => word.push('\t'),
                            // The word goes on where the next line's text begins.
                            Some('\n') => {
                                while characters.next_if(|c| c.is_whitespace()).is_some() {}
                                continue;
                            }
                            other => word.extend(other),
                        }
                    }
                    _ => word.push(c),
                }
                characters.next();
            }
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_files() {
        assert_eq!(split("-cp \"a b\":c # no\n Main 'x\\'y'"), ["-cp", "a b:c", "Main", "x'y"]);
        assert_eq!(split("\"a\\tb\\\n   c\""), ["a\tbc"]);
        let mut words = Words::new(vec!["@@x".into(), "--disable-@files".into(), "@y".into()]);
        assert_eq!(words.next_option(), Ok(Some("@x".into())));
        assert_eq!(words.next_option(), Ok(Some("@y".into())));
        let words = Words::new(["-cp", "x", "-a", "Main", "-b"].map(str::to_owned).to_vec());
        let has = |option| words.has_option(option, |word| word == "-cp");
        assert!(has("-a") && !has("-b") && !has("x"));
    }
}
