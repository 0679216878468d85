//! Content that a descriptor carries itself (image-spec, descriptor.md, `data`): taken instead of a request, but only when it
//! is what digest and size say.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use onggi_spec::image::Descriptor;

use crate::digest_of;

/// The bytes that a descriptor carries. None when it carries none, or something else than it describes.
pub fn embedded(descriptor: &Descriptor) -> Option<Vec<u8>> {
    let bytes = BASE64_STANDARD.decode(descriptor.data.as_deref()?).ok()?;
    (bytes.len() as u64 == descriptor.size && digest_of(&bytes) == descriptor.digest).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_content_counts_only_when_digest_and_size_agree() {
        let descriptor = |data: &str, size: u64| -> Descriptor {
            let digest = digest_of(b"{}");
            let text = format!(r#"{{"mediaType":"x","digest":"{digest}","size":{size},"data":{data}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(embedded(&descriptor(r#""e30=""#, 2)).unwrap(), b"{}");
        for (data, size) in [(r#""e30=""#, 3), (r#""e31=""#, 2), (r#""!""#, 2), ("null", 2)] {
            assert!(embedded(&descriptor(data, size)).is_none(), "{data} {size}");
        }
    }
}
