//! Which assertions are on: `-ea`, `-da`, `-esa`, `-dsa` and their forms for classes and packages.

/// What the command line says of assertions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assertions {
    /// In classes of the JDK.
    pub system: bool,
    /// In all others.
    pub default: bool,
    /// In a class of this name.
    pub classes: Vec<(String, bool)>,
    /// In a package of this name and below; empty: the unnamed package.
    pub packages: Vec<(String, bool)>,
}

impl Assertions {
    /// Notes what is behind `-ea` or `-da`: nothing, `:Class`, `:package...` or `:...`. `None` if it is something else.
    pub fn set(&mut self, names: &str, on: bool) -> Option<()> {
        if names.is_empty() {
            self.default = on;
            return Some(());
        }
        let name = names.strip_prefix(':')?;
        match name.strip_suffix("...") {
            Some(package) => self.packages.push((package.into(), on)),
            None => self.classes.push((name.into(), on)),
        }
        Some(())
    }

    /// Whether assertions are on in a class, named with dots, which may be one of the JDK's. Of two that mean the same, the last counts.
    #[must_use]
    pub fn are_on(&self, class: &str, system: bool) -> bool {
        let default = if system { self.system } else { self.default };
        if let Some((_, on)) = self.classes.iter().rev().find(|(name, _)| name == class) {
            return *on;
        }
        let package = class.rsplit_once('.').map_or("", |(package, _)| package);
        let covers = |name: &str| {
            name == package
                || (!name.is_empty() && package.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        };
        // The longest name is the nearest package.
        let packages = self.packages.iter().enumerate().filter(|(_, (name, _))| covers(name));
        packages.max_by_key(|(index, (name, _))| (name.len(), *index)).map_or(default, |(_, (_, on))| *on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_counts() {
        let mut assertions = Assertions { system: true, ..Assertions::default() };
        assert_eq!(assertions.set("", true), Some(()));
        assert_eq!(assertions.set(":a.b...", false), Some(()));
        assert_eq!(assertions.set(":a.b.c.D", true), Some(()));
        assert_eq!(assertions.set("x", true), None);
        assert!(assertions.are_on("x.Y", false) && assertions.are_on("a.X", true) && !assertions.are_on("a.b.X", true));
        assert!(!assertions.are_on("a.b.c.X", true) && assertions.are_on("a.b.c.D", true));
        assert!(assertions.are_on("a.bb.X", true));
    }
}
