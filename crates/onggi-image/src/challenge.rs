//! `WWW-Authenticate` (RFC 9110, 11.6.1): which authentication a registry asks for. Pure and bounded.

/// Longest header that is looked at; real ones have about 200 bytes.
pub(crate) const MAX_HEADER: usize = 8 << 10;
/// Most challenges and most parameters per challenge that are kept.
const MAX_ITEMS: usize = 16;

/// One authentication scheme that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Parameters, names in lower case, in order.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter; `None` when absent or given twice, which would be ambiguous.
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut values = self.params.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

/// Reads every challenge of one header value. What does not follow the grammar ends the reading; the
/// challenges before it are kept.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if header.len() > MAX_HEADER {
        return found;
    }
    let mut rest = Cursor(header);
    while found.len() < MAX_ITEMS {
        rest.skip(|b| is_space(b) || b == b',');
        let Some(scheme) = rest.token() else { break };
        let mut challenge = Challenge { scheme: scheme.to_ascii_lowercase(), params: Vec::new() };
        let whole = rest.params_into(&mut challenge.params);
        found.push(challenge);
        if !whole {
            break;
        }
    }
    found
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, accept: impl Fn(u8) -> bool) {
        let n = self.0.bytes().take_while(|&b| accept(b)).count();
        self.0 = &self.0[n..];
    }

    fn eat(&mut self, text: char) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// RFC 9110, 5.6.2.
    fn token(&mut self) -> Option<&'a str> {
        let n = self.0.bytes().take_while(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)).count();
        let (token, rest) = self.0.split_at(n);
        self.0 = rest;
        (n > 0).then_some(token)
    }

    /// RFC 9110, 5.6.4. `None` when the closing quote is missing.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }

    /// `name = value`; leaves the cursor alone when something else follows.
    fn param(&mut self) -> Option<(String, String)> {
        let mut ahead = *self;
        let name = ahead.token()?.to_ascii_lowercase();
        ahead.skip(is_space);
        if !ahead.eat('=') {
            return None;
        }
        ahead.skip(is_space);
        let value = if ahead.0.starts_with('"') { ahead.quoted()? } else { ahead.token()?.to_owned() };
        *self = ahead;
        Some((name, value))
    }

    /// RFC 9110, 11.2: one run of base64-like characters instead of parameters.
    fn token68(&mut self) {
        let mut ahead = *self;
        ahead.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        ahead.skip(|b| b == b'=');
        let end = ahead;
        ahead.skip(is_space);
        if ahead.0.is_empty() || ahead.0.starts_with(',') {
            *self = end;
        }
    }

    /// Reads parameters until the next scheme or the end. False when the text is broken or has too many.
    fn params_into(&mut self, params: &mut Vec<(String, String)>) -> bool {
        let mut comma = false;
        loop {
            self.skip(|b| is_space(b) || (b == b',' && !params.is_empty()));
            if self.0.is_empty() {
                return true;
            }
            match self.param() {
                Some(_) if params.len() == MAX_ITEMS => return false,
                Some(param) => params.push(param),
                None if params.is_empty() && !comma && !self.0.starts_with(',') => {
                    let before = self.0.len();
                    self.token68();
                    comma = true;
                    if self.0.len() == before {
                        return false;
                    }
                }
                None => return self.0.starts_with(',') || starts_scheme(*self),
            }
        }
    }
}

/// A token that is not followed by `=` begins the next challenge.
fn starts_scheme(mut rest: Cursor<'_>) -> bool {
    rest.token().is_some() && !rest.0.starts_with('=')
}

fn is_space(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(header: &str) -> Vec<String> {
        let one = |c: Challenge| {
            let params: Vec<String> = c.params.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{}({})", c.scheme, params.join(";"))
        };
        parse_challenges(header).into_iter().map(one).collect()
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        assert_eq!(
            shown(hub),
            [
                "bearer(realm=https://auth.docker.io/token;service=registry.docker.io;scope=repository:library/nginx:pull)"
            ]
        );
        assert_eq!(shown(r#"Basic realm="Registry Realm""#), ["basic(realm=Registry Realm)"]);
        assert_eq!(shown(r#"bearer Realm = "a" , error=invalid_token"#), ["bearer(realm=a;error=invalid_token)"]);
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        assert_eq!(
            shown(r#"Negotiate, Basic realm="x", Bearer realm="y",service=s"#),
            ["negotiate()", "basic(realm=x)", "bearer(realm=y;service=s)"]
        );
        assert_eq!(shown(r#"NTLM TlRMTVNTUAACAA==, Basic realm="x""#), ["ntlm()", "basic(realm=x)"]);
    }

    #[test]
    fn quoted_pairs_and_commas_stay_inside_a_value() {
        assert_eq!(shown(r#"Bearer realm="a\"b,c=d",service="e\\""#), [r#"bearer(realm=a"b,c=d;service=e\)"#]);
    }

    #[test]
    fn a_parameter_given_twice_has_no_value() {
        let found = parse_challenges(r#"Bearer realm="https://a",realm="https://evil""#);
        assert_eq!(found[0].param("realm"), None);
    }

    #[test]
    fn broken_headers_give_what_was_whole() {
        assert_eq!(shown(r#"Basic realm="x", Bearer realm="unclosed"#)[0], "basic(realm=x)");
        assert!(shown("").is_empty());
        assert!(shown("=").is_empty());
        assert!(parse_challenges(&"a,".repeat(MAX_HEADER)).is_empty());
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic_and_bounded(header in ".{0,200}") {
            let found = parse_challenges(&header);
            prop_assert!(found.len() <= MAX_ITEMS && found.iter().all(|c| c.params.len() <= MAX_ITEMS));
        }

        #[test]
        fn written_parameters_are_read_back(values in prop::collection::vec("[ -~]{0,20}", 1..5)) {
            let quote = |v: &String| format!("\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\""));
            let params: Vec<String> = values.iter().enumerate().map(|(i, v)| format!("p{i}={}", quote(v))).collect();
            let found = parse_challenges(&format!("Bearer {}", params.join(", ")));
            prop_assert_eq!(found.len(), 1);
            for (i, v) in values.iter().enumerate() {
                prop_assert_eq!(found[0].param(&format!("p{i}")), Some(v.as_str()));
            }
        }
    }
}
