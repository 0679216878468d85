//! `limit --io`: the limits of a disk in the words of cgroup v2's io.max, as settings of the vocabulary.

use onggi_spec::ParseError;

/// Words of io.max (cgroup-v2.rst), and the settings that they are.
const WORDS: [(&str, &str); 4] =
    [("rbps", "io-read-bps"), ("wbps", "io-write-bps"), ("riops", "io-read-iops"), ("wiops", "io-write-iops")];

/// `/dev/sda:rbps=1M,wiops=100`, or `weight=50`.
pub(super) fn settings(text: &str) -> Result<Vec<(String, String)>, ParseError> {
    let wrong = |reason: &str| {
        ParseError::new("io limit", text, reason)
            .hint("write DEVICE:rbps=1M,wbps=1M,riops=100,wiops=100 (any of them), or weight=50")
    };
    if let Some(weight) = text.strip_prefix("weight=") {
        return Ok(vec![("io-weight".to_owned(), weight.to_owned())]);
    }
    // Devices may be numbers: `8:0:rbps=1M`.
    let (device, limits) = text.rsplit_once(':').ok_or_else(|| wrong("there is no device"))?;
    let one = |limit: &str| {
        let (word, rate) = limit.split_once('=').ok_or_else(|| wrong("a limit is a word and a rate"))?;
        let (_, key) = WORDS.iter().find(|(name, _)| *name == word).ok_or_else(|| wrong("there is no such limit"))?;
        Ok(((*key).to_owned(), format!("{device}:{rate}")))
    };
    limits.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_disk_are_settings() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let found = settings("/dev/sda:rbps=1M,wiops=100").expect("it parses");
        assert_eq!(found, [pair("io-read-bps", "/dev/sda:1M"), pair("io-write-iops", "/dev/sda:100")]);
        assert_eq!(settings("8:0:wbps=max").expect("it parses"), [pair("io-write-bps", "8:0:max")]);
        assert_eq!(settings("weight=50").expect("it parses"), [pair("io-weight", "50")]);
        for bad in ["", "/dev/sda", "/dev/sda:1M", "/dev/sda:bps=1", "rbps=1M"] {
            assert!(settings(bad).is_err(), "{bad}");
        }
    }
}
