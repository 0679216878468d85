//! Absolute paths inside a container, as text. Never resolved here: that happens at apply time, in-root.

/// PATH_MAX without the terminator.
pub const MAX_PATH: usize = 4095;

/// `/a//b/./c/` becomes `/a/b/c`. `None` when relative, with `..`, with a NUL byte, or too long.
pub fn normalise(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            return None;
        }
        out.push('/');
        out.push_str(part);
    }
    Some(if out.is_empty() { "/".to_owned() } else { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_without_looking_at_a_filesystem() {
        assert_eq!(normalise("/a//b/./c/").as_deref(), Some("/a/b/c"));
        assert_eq!(normalise("//").as_deref(), Some("/"));
        for bad in ["", "a", "/a/..", "/..", "/a\0", "./a"] {
            assert_eq!(normalise(bad), None, "{bad:?}");
        }
    }
}
