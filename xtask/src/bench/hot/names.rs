//! From the name of one function to a pattern that still finds it when the code has changed.
//!
//! Which instances of a generic function exist, and which of several equal ones the compiler keeps, differs from build to
//! build. So a pattern has `*` for the arguments of generics, for hashes of crates, and for the crate that happened to
//! instantiate. Rust's symbol name mangling, version 0 (rustc book, "v0 Symbol Format").

/// A name that a linker script finds: `_RNvMs_NtCs8x_5alloc3vecINtB4_3VecyE4pushCs9_3std` becomes
/// `_RNvMs_NtCs*_5alloc3vecINtB4_3Vec*4push*`. A name that is not understood stays as it is, without hashes.
pub(super) fn pattern(name: &str) -> String {
    let Some(symbol) = name.strip_prefix("_R") else { return name.to_owned() };
    let mut parser = Parser { text: symbol, at: 0, depth: 0, generic: None, last: None };
    let Some(()) = parser.path() else { return without_hashes(name) };
    let end = parser.at;
    let text = match (parser.generic, parser.last) {
        (Some(generic), Some(last)) if last > generic => format!("{}*{}*", &symbol[..generic], &symbol[last..end]),
        (Some(generic), _) => format!("{}*", &symbol[..generic]),
        // An instantiating crate, or the number that the compiler gives to copies.
        (None, _) if end < symbol.len() => format!("{}*", &symbol[..end]),
        (None, _) => symbol.to_owned(),
    };
    format!("_R{}", without_hashes(&text))
}

/// The same for a program so large that every instance of what it uses would be a third of it: this one alone.
pub(super) fn instance(name: &str) -> String {
    without_hashes(name)
}

/// `NtCs9xyz_4core` → `NtCs*_4core` (`s` and a number in base 62).
fn without_hashes(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("Cs") {
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_hash = (8..=13).contains(&digits) && after[digits..].starts_with('_');
        if is_hash {
            out.push('*');
        }
        rest = if is_hash { &after[digits..] } else { after };
    }
    out + rest
}

/// Walks over a name; every function returns `None` where it is not understood.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// How many types, generic arguments or inner paths we are in.
    depth: usize,
    /// Where the first arguments of a generic begin.
    generic: Option<usize>,
    /// Where the outermost path's own name begins.
    last: Option<usize>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn inner(&mut self, parse: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn number(&mut self) -> Option<()> {
        while self.next()? != b'_' {}
        Some(())
    }

    fn disambiguator(&mut self) -> Option<()> {
        if self.take(b's') { self.number() } else { Some(()) }
    }

    fn identifier(&mut self) -> Option<()> {
        self.disambiguator()?;
        self.plain_identifier()
    }

    fn plain_identifier(&mut self) -> Option<()> {
        self.take(b'u');
        let rest = &self.text[self.at..];
        // A closure's own name is empty: a 0 stands alone.
        let digits = if rest.starts_with('0') { 1 } else { rest.bytes().take_while(u8::is_ascii_digit).count() };
        let length: usize = rest[..digits].parse().ok()?;
        self.at += digits;
        self.take(b'_');
        self.at += length;
        (self.at <= self.text.len()).then_some(())
    }

    fn path(&mut self) -> Option<()> {
        match self.next()? {
            b'C' => self.identifier(),
            b'M' => {
                self.disambiguator()?;
                self.inner(Self::path)?;
                self.inner(Self::kind)
            }
            b'X' => {
                self.disambiguator()?;
                self.inner(Self::path)?;
                self.inner(Self::kind)?;
                self.inner(Self::path)
            }
            b'Y' => {
                self.inner(Self::kind)?;
                self.inner(Self::path)
            }
            b'N' => {
                self.next()?;
                self.inner(Self::path)?;
                if self.depth == 0 {
                    self.last = Some(self.at);
                }
                self.identifier()
            }
            b'I' => {
                self.inner(Self::path)?;
                self.generic.get_or_insert(self.at);
                self.until_end(Self::argument)
            }
            b'B' => self.number(),
            _ => None,
        }
    }

    /// A list that ends with `E`.
    fn until_end(&mut self, parse: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        while !self.take(b'E') {
            self.inner(&parse)?;
        }
        Some(())
    }

    fn argument(&mut self) -> Option<()> {
        if self.take(b'L') {
            return self.number();
        }
        if self.take(b'K') { self.constant() } else { self.kind() }
    }

    fn constant(&mut self) -> Option<()> {
        if self.take(b'p') {
            return Some(());
        }
        if self.take(b'B') {
            return self.number();
        }
        self.kind()?;
        self.number()
    }

    /// A type.
    fn kind(&mut self) -> Option<()> {
        match self.peek()? {
            b'a'..=b'z' => self.next().map(drop),
            b'C' | b'M' | b'X' | b'Y' | b'N' | b'I' | b'B' => self.inner(Self::path),
            byte => {
                self.at += 1;
                self.compound(byte)
            }
        }
    }

    fn compound(&mut self, byte: u8) -> Option<()> {
        match byte {
            b'A' => {
                self.kind()?;
                self.constant()
            }
            b'S' | b'P' | b'O' => self.kind(),
            b'T' => self.until_end(Self::kind),
            b'R' | b'Q' => {
                if self.take(b'L') {
                    self.number()?;
                }
                self.kind()
            }
            b'F' => self.signature(),
            b'D' => {
                self.binder()?;
                self.until_end(Self::bound)?;
                self.next()?;
                self.number()
            }
            _ => None,
        }
    }

    fn binder(&mut self) -> Option<()> {
        if self.take(b'G') { self.number() } else { Some(()) }
    }

    fn signature(&mut self) -> Option<()> {
        self.binder()?;
        self.take(b'U');
        if self.take(b'K') && !self.take(b'C') {
            self.plain_identifier()?;
        }
        self.until_end(Self::kind)?;
        self.kind()
    }

    /// One trait of `dyn`, with what its associated types are.
    fn bound(&mut self) -> Option<()> {
        self.path()?;
        while self.take(b'p') {
            self.plain_identifier()?;
            self.kind()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_function_is_named_without_hashes() {
        assert_eq!(pattern("_RNvCs1DRnZkZK5mh_9onggi_oci4main"), "_RNvCs*_9onggi_oci4main");
        assert_eq!(
            pattern("_RNvMs_NtNtCs1DRnZkZK5mh_9onggi_oci3cli4argsNtB4_4Args4text"),
            "_RNvMs_NtNtCs*_9onggi_oci3cli4argsNtB4_4Args4text"
        );
    }

    #[test]
    fn every_instance_of_a_generic_function_is_meant() {
        for instance in ["NtNtCs1DRnZkZK5mh_3std3env6ArgsOsE", "INtNtB4_6option6OptionhEEB1T_", "DNtB2_3AnyEL_EB1_"] {
            let name = format!("_RINvNtCs1DRnZkZK5mh_4core3ptr13drop_in_place{instance}");
            assert_eq!(pattern(&name), "_RINvNtCs*_4core3ptr13drop_in_place*");
        }
        assert_eq!(
            pattern("_RNvMsF_NtCs1DRnZkZK5mh_5alloc3vecINtB5_3VechE4pushCs1DRnZkZK5mh_12onggi_cgroup"),
            "_RNvMsF_NtCs*_5alloc3vecINtB5_3Vec*4push*"
        );
        assert_eq!(
            pattern("_RNCNCINvNtCs1DRnZkZK5mh_6rustix5mount8fsconfigReE00Cs1DRnZkZK5mh_9onggi_sys"),
            "_RNCNCINvNtCs*_6rustix5mount8fsconfig*0*"
        );
        let drop = "_RNvXso_NtCs1DRnZkZK5mh_5alloc3vecINtB5_3VecNtNtCs1DRnZkZK5mh_3oci7runtime4HookENtNtNtCs1DRnZkZK5mh_4core3ops4drop4Drop4dropBL_";
        assert_eq!(pattern(drop), "_RNvXso_NtCs*_5alloc3vecINtB5_3Vec*4drop*");
    }

    #[test]
    fn one_instance_keeps_everything_but_hashes() {
        assert_eq!(
            instance("_RINvNtCs1DRnZkZK5mh_4core3ptr13drop_in_placeNtNtCs1DRnZkZK5mh_3std4path7PathBufE"),
            "_RINvNtCs*_4core3ptr13drop_in_placeNtNtCs*_3std4path7PathBufE"
        );
    }

    #[test]
    fn copies_lose_their_number_and_strange_names_stay() {
        assert_eq!(pattern("_RNvMNtCs1DRnZkZK5mh_4core3stre5lines.190"), "_RNvMNtCs*_4core3stre5lines*");
        assert_eq!(pattern("_RZZ"), "_RZZ");
        assert_eq!(pattern("_RNvCs1DRnZkZK5mh_9onggi_oci99short"), "_RNvCs*_9onggi_oci99short");
        assert_eq!(pattern("main"), "main");
    }
}
