//! Manifests in the one format or the other. Only media types change: configuration and layers keep their bytes.

use std::{fmt, str::FromStr};

use onggi_spec::{
    ParseError,
    image::{Descriptor, Index, Manifest, media_type as m},
};
use serde_json::{Value, json};

use super::{CopyRule, FormatError, Raw};
use crate::EngineError;

/// The two families of media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFormat {
    /// OCI image-spec 1.
    Oci,
    /// Docker image manifest version 2, schema 2.
    Docker,
}

impl FromStr for ManifestFormat {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "oci" | "oci-archive" | "oci-dir" => Ok(Self::Oci),
            "docker" | "v2s2" | "docker-archive" | "docker-dir" => Ok(Self::Docker),
            _ => Err(ParseError::new("manifest format", text, "it is oci or docker (v2s2)")),
        }
    }
}

impl fmt::Display for ManifestFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        })
    }
}

impl ManifestFormat {
    pub(crate) fn manifest(self) -> &'static str {
        match self {
            Self::Oci => m::OCI_MANIFEST,
            Self::Docker => m::DOCKER_MANIFEST,
        }
    }

    pub(crate) fn config(self) -> &'static str {
        match self {
            Self::Oci => m::OCI_CONFIG,
            Self::Docker => m::DOCKER_CONFIG,
        }
    }

    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Oci => m::OCI_INDEX,
            Self::Docker => m::DOCKER_LIST,
        }
    }
}

/// Layers of the one family and their names in the other.
const LAYERS: [(&str, &str); 5] = [
    (m::OCI_LAYER, m::DOCKER_LAYER),
    (m::OCI_LAYER_GZIP, m::DOCKER_LAYER_GZIP),
    (m::OCI_LAYER_ZSTD, m::DOCKER_LAYER_ZSTD),
    (m::OCI_NONDIST_GZIP, m::DOCKER_FOREIGN_GZIP),
    (m::OCI_CONFIG, m::DOCKER_CONFIG),
];

/// The same manifest in another format. One that is in it already keeps its bytes.
pub(super) fn convert(
    raw: &Raw,
    manifest: Manifest,
    format: ManifestFormat,
    preserve: bool,
) -> Result<Raw, EngineError> {
    if raw.media_type == format.manifest() {
        return Ok(raw.clone());
    }
    if preserve {
        let (from, to) = (raw.media_type.clone(), format.manifest().to_owned());
        return Err(FormatError::WouldChange { from, to }.into());
    }
    let renamed = |d: &Descriptor| Descriptor { media_type: renamed(&d.media_type, format), ..d.clone() };
    let layers: Vec<Descriptor> = manifest.layers.iter().map(renamed).collect();
    let mut document = build(format, &renamed(&manifest.config), &layers);
    if format == ManifestFormat::Oci && !manifest.annotations.is_empty() {
        document["annotations"] = json!(manifest.annotations);
    }
    Ok(Raw::new(document.to_string().into_bytes(), format.manifest()))
}

fn renamed(media_type: &str, format: ManifestFormat) -> String {
    let pair = LAYERS.iter().find(|(oci, docker)| [*oci, *docker].contains(&media_type));
    match (pair, format) {
        (Some((oci, _)), ManifestFormat::Oci) => (*oci).to_owned(),
        (Some((_, docker)), ManifestFormat::Docker) => (*docker).to_owned(),
        (None, _) => media_type.to_owned(),
    }
}

/// A manifest of its parts.
pub(crate) fn build(format: ManifestFormat, config: &Descriptor, layers: &[Descriptor]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": format.manifest(), "config": config, "layers": layers })
}

/// The media type of a layer by its compression.
pub(crate) fn layer_type(format: ManifestFormat, codec: onggi_storage::decompress::Codec) -> &'static str {
    use onggi_storage::decompress::Codec;
    match (format, codec) {
        (ManifestFormat::Oci, Codec::Gzip) => m::OCI_LAYER_GZIP,
        (ManifestFormat::Oci, Codec::Zstd) => m::OCI_LAYER_ZSTD,
        (ManifestFormat::Oci, _) => m::OCI_LAYER,
        (ManifestFormat::Docker, Codec::Gzip) => m::DOCKER_LAYER_GZIP,
        (ManifestFormat::Docker, Codec::Zstd) => m::DOCKER_LAYER_ZSTD,
        (ManifestFormat::Docker, _) => m::DOCKER_LAYER,
    }
}

/// An index whose entries have been converted.
pub(super) fn rebuild_index(index: &Index, entries: Vec<Descriptor>, rule: &CopyRule) -> Result<Raw, EngineError> {
    let own = index.media_type.clone().unwrap_or_else(|| m::OCI_INDEX.to_owned());
    let wanted = rule.format.map_or(own.clone(), |f| f.index().to_owned());
    if rule.preserve_digests {
        return Err(FormatError::WouldChange { from: own, to: wanted }.into());
    }
    let mut document = json!({ "schemaVersion": 2, "mediaType": wanted, "manifests": entries });
    if wanted == m::OCI_INDEX && !index.annotations.is_empty() {
        document["annotations"] = json!(index.annotations);
    }
    Ok(Raw::new(document.to_string().into_bytes(), &wanted))
}

#[cfg(test)]
mod tests {
    use onggi_image::digest_of;
    use onggi_spec::image::Document;

    use super::super::blob::descriptor;
    use super::*;

    #[test]
    fn there_and_back_is_the_same_manifest() {
        let config = descriptor(m::OCI_CONFIG, digest_of(b"c"), 1);
        let layers =
            [descriptor(m::OCI_LAYER_GZIP, digest_of(b"l"), 1), descriptor(m::OCI_LAYER_ZSTD, digest_of(b"z"), 1)];
        let oci = Raw::new(build(ManifestFormat::Oci, &config, &layers).to_string().into_bytes(), m::OCI_MANIFEST);
        let parse = |raw: &Raw| match raw.document().unwrap() {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => panic!("an index"),
        };
        let docker = convert(&oci, parse(&oci), ManifestFormat::Docker, false).unwrap();
        assert_eq!(parse(&docker).layers[0].media_type, m::DOCKER_LAYER_GZIP);
        let back = convert(&docker, parse(&docker), ManifestFormat::Oci, false).unwrap();
        assert_eq!(back, oci);
        assert!(convert(&oci, parse(&oci), ManifestFormat::Docker, true).is_err());
        assert_eq!(convert(&oci, parse(&oci), ManifestFormat::Oci, true).unwrap(), oci);
    }
}
