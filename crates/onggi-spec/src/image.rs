//! OCI image types: descriptor, manifest, index, image configuration (image-spec 1.1, Docker schema 2).
//!
//! A document has exactly one meaning here or is refused (CVE-2021-41190): its kind follows from its
//! members, the `mediaType` inside and the registry's Content-Type must agree with that, no member may
//! occur twice or in another letter case. Everything is bounded before it is parsed (I12). Values from an
//! image are data (I8): nothing here acts on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{Digest, ParseError, oci::runtime::nullable};

/// Media types of manifests, configurations and layers.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// OCI layer that registries may not redistribute (deprecated), uncompressed.
    pub const OCI_NONDIST: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    /// The same, gzip.
    pub const OCI_NONDIST_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    /// The same, zstd.
    pub const OCI_NONDIST_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker schema 2 manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, uncompressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd (written by buildkit and buildah).
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker layer fetched from its `urls`.
    pub const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// What a client asks a registry for, best first.
    pub const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
}

/// Largest manifest, index or configuration that is read, in bytes (the distribution project's own limit).
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;
/// Most layers of one image: overlay stacks at most 500 lower directories (fs/overlayfs, OVL_MAX_STACK).
pub const MAX_LAYERS: usize = 500;
/// Most entries of one index.
pub const MAX_INDEX_ENTRIES: usize = 1000;

/// How the tar stream of a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl LayerCompression {
    /// The compression that a layer's media type declares; `None` when it is not a layer this program knows.
    pub fn of(media: &str) -> Option<Self> {
        use media_type as m;
        Some(match media {
            m::OCI_LAYER | m::OCI_NONDIST | m::DOCKER_LAYER => Self::None,
            m::OCI_LAYER_GZIP | m::OCI_NONDIST_GZIP | m::DOCKER_LAYER_GZIP | m::DOCKER_FOREIGN_GZIP => Self::Gzip,
            m::OCI_LAYER_ZSTD | m::OCI_NONDIST_ZSTD | m::DOCKER_LAYER_ZSTD => Self::Zstd,
            _ => return None,
        })
    }
}

/// A reference to a blob (descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Other places to fetch it from. Never followed: they are a stranger's URLs (CVE-2020-15157).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Platform of an index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The content itself in base64; a stranger's word until it is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

/// An image manifest (manifest.md; Docker schema 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Own media type; required by Docker, recommended by OCI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or manifest list (image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Manifests.
    #[serde(deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a registry answered for a tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time, for the length of a pull")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

impl Document {
    /// Reads a manifest or index; `content_type` is the registry's header, parameters are ignored.
    ///
    /// # Errors
    /// When it is neither, both, too large, of another schema, or when its kind, its `mediaType` and the
    /// Content-Type disagree.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ParseError> {
        let keys = top_level_keys("image manifest", bytes, &MANIFEST_KEYS)?;
        let has = |k: &str| keys.contains_key(k);
        if has("manifests") && (has("layers") || has("config")) {
            return Err(manifest_error(
                "it is both a manifest and an index (manifests together with layers or config)",
            ));
        }
        if has("fsLayers") || has("signatures") {
            return Err(manifest_error("Docker schema 1 manifests are not supported")
                .hint("push the image again with a client newer than 2017"));
        }
        let (document, own, kinds) = if has("manifests") {
            let index: Index = read("image index", bytes)?;
            check_index(&index)?;
            let own = index.media_type.clone();
            (Self::Index(index), own, [media_type::OCI_INDEX, media_type::DOCKER_LIST])
        } else {
            let manifest: Manifest = read("image manifest", bytes)?;
            check_manifest(&manifest)?;
            let own = manifest.media_type.clone();
            (Self::Manifest(manifest), own, [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST])
        };
        check_media_types(own.as_deref(), content_type, kinds)?;
        Ok(document)
    }
}

/// The image configuration (config.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`; empty in some old images.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// Layers.
    pub rootfs: RootfsConfig,
    /// How it was made.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Reads an image configuration.
    ///
    /// # Errors
    /// When it is too large, not JSON of the right shape, or ambiguous.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "image configuration";
        top_level_keys(WHAT, bytes, &CONFIG_KEYS)?;
        let config: Self = read(WHAT, bytes)?;
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(ParseError::new(WHAT, "rootfs.diff_ids", format!("more than {MAX_LAYERS} layers")));
        }
        Ok(config)
    }

    /// The platform it runs on.
    pub fn platform(&self) -> Platform {
        let Self { architecture, os, variant, .. } = self;
        Platform { architecture: architecture.clone(), os: os.clone(), variant: variant.clone(), os_version: None }
    }
}

/// Defaults for containers of an image. Every member may be absent or `null`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`; the empty string is root.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`, `53/udp`, `80`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `KEY=VALUE`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the whole command without an entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that want a volume.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory; `/` when empty.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks it to stop: `SIGQUIT`, `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for builds on top of this image.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell of Dockerfile shell forms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// `{}`, the value of set-like maps. Members are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// Health check of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", …]`; empty inherits.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures in a row before it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

/// Layers of an image by the digest of their uncompressed tar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootfsConfig {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub typ: String,
    /// Lowest first.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Made no layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

const MANIFEST_KEYS: [&str; 10] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
    "signatures",
];
const CONFIG_KEYS: [&str; 8] = ["architecture", "os", "variant", "created", "author", "config", "rootfs", "history"];

fn manifest_error(reason: impl Into<String>) -> ParseError {
    ParseError::new("image manifest", "", reason)
}

/// The members of a JSON object, refusing one that differs from a known name only in letter case:
/// Go's decoder would take it for that name, so two programs would read two images.
fn top_level_keys(
    what: &'static str,
    bytes: &[u8],
    known: &[&str],
) -> Result<BTreeMap<String, IgnoredAny>, ParseError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(ParseError::new(
            what,
            "",
            format!("{} bytes are more than the limit of {MAX_DOCUMENT}", bytes.len()),
        ));
    }
    let keys: BTreeMap<String, IgnoredAny> = read(what, bytes)?;
    let odd = keys.keys().find(|k| known.iter().any(|n| n != k && n.eq_ignore_ascii_case(k)));
    match odd {
        Some(k) => Err(ParseError::new(what, k, "a member differs from a known one only in letter case")),
        None => Ok(keys),
    }
}

fn read<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ParseError> {
    serde_json::from_slice(bytes).map_err(|e| ParseError::new(what, "", cut(&e.to_string())))
}

/// Text of a stranger, or an error that quotes it, short enough to be shown.
fn cut(text: &str) -> String {
    /// Characters: a media type or a digest with what is said of it.
    const SHOWN: usize = 300;
    text.chars().take(SHOWN).collect()
}

fn check_index(index: &Index) -> Result<(), ParseError> {
    check_schema(index.schema_version)?;
    if index.manifests.len() > MAX_INDEX_ENTRIES {
        return Err(manifest_error(format!("more than {MAX_INDEX_ENTRIES} manifests in one index")));
    }
    Ok(())
}

fn check_manifest(manifest: &Manifest) -> Result<(), ParseError> {
    check_schema(manifest.schema_version)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(manifest_error(format!("more than {MAX_LAYERS} layers")));
    }
    Ok(())
}

fn check_schema(version: u32) -> Result<(), ParseError> {
    if version == 2 {
        return Ok(());
    }
    Err(manifest_error(format!("schemaVersion {version} is not supported (only 2)")))
}

fn check_media_types(own: Option<&str>, content_type: Option<&str>, kinds: [&str; 2]) -> Result<(), ParseError> {
    if let Some(own) = own.filter(|own| !kinds.contains(own)) {
        return Err(manifest_error(format!("its mediaType {:?} contradicts its members", cut(own))));
    }
    let Some(header) = content_type.map(|h| h.split(';').next().unwrap_or_default().trim()) else { return Ok(()) };
    // Registries that do not know better say JSON or octets; that claims nothing.
    let claims_nothing = ["", "application/json", "application/octet-stream", "text/plain"].contains(&header);
    if claims_nothing {
        return Ok(());
    }
    match own {
        Some(own) if own != header => Err(manifest_error(format!(
            "the registry calls it {:?}, the document calls itself {:?}",
            cut(header),
            cut(own)
        ))),
        None if !kinds.contains(&header) => {
            Err(manifest_error(format!("the registry's Content-Type {:?} contradicts its members", cut(header))))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{D}","size":2}},"layers":[{{"mediaType":"l","digest":"{D}","size":3}}]{extra}}}"#
        )
    }

    #[test]
    fn manifests_and_indexes_are_told_apart_by_their_members() {
        assert!(matches!(Document::parse(manifest("").as_bytes(), None), Ok(Document::Manifest(_))));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{D}","size":3,"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#
        );
        assert!(matches!(Document::parse(index.as_bytes(), Some(media_type::OCI_INDEX)), Ok(Document::Index(_))));
    }

    #[test]
    fn ambiguous_documents_are_refused_cve_2021_41190() {
        let cases = [
            (manifest(r#","manifests":[]"#), None),
            (manifest(r#","Manifests":[]"#), None),
            (manifest(r#","layers":[]"#), None),
            (manifest(r#","mediaType":"application/vnd.oci.image.index.v1+json""#), None),
            (manifest(""), Some(media_type::OCI_INDEX)),
            (
                manifest(r#","mediaType":"application/vnd.oci.image.manifest.v1+json""#),
                Some(media_type::DOCKER_MANIFEST),
            ),
            (manifest("").replace(":2,", ":1,"), None),
            (manifest("").replace("sha256:", "sha512:"), None),
            (manifest("").replace(r#""size":3"#, r#""size":-3"#), None),
            (r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#.to_owned(), None),
            ("[]".to_owned(), None),
            ("{}".to_owned(), None),
        ];
        for (text, content_type) in cases {
            assert!(Document::parse(text.as_bytes(), content_type).is_err(), "{text} {content_type:?}");
        }
    }

    #[test]
    fn a_content_type_that_claims_nothing_or_has_parameters_is_fine() {
        for header in ["application/json", "application/vnd.oci.image.manifest.v1+json; charset=utf-8", ""] {
            assert!(Document::parse(manifest("").as_bytes(), Some(header)).is_ok(), "{header}");
        }
    }

    #[test]
    fn an_image_configuration_may_have_nulls_everywhere() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"User":null,"Env":null,"Entrypoint":null,"Cmd":["nginx","-g"],
            "ExposedPorts":{{"80/tcp":{{}}}},"Volumes":null,"Labels":null,"WorkingDir":""}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).expect("parses");
        assert_eq!(config.config.cmd.as_deref(), Some(["nginx".to_owned(), "-g".to_owned()].as_slice()));
        assert_eq!(config.config.entrypoint, None);
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        let none = format!(r#"{{"config":null,"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#);
        assert!(ImageConfig::parse(none.as_bytes()).is_ok());
        let upper = text.replace("\"rootfs\"", "\"Rootfs\":{},\"rootfs\"");
        assert!(ImageConfig::parse(upper.as_bytes()).is_err());
    }

    #[test]
    fn oversized_documents_are_refused_unread() {
        assert!(Document::parse(&vec![b' '; MAX_DOCUMENT + 1], None).is_err());
        assert!(ImageConfig::parse(&vec![b' '; MAX_DOCUMENT + 1]).is_err());
    }

    #[test]
    fn layer_media_types_declare_their_compression() {
        assert_eq!(LayerCompression::of(media_type::DOCKER_LAYER_GZIP), Some(LayerCompression::Gzip));
        assert_eq!(LayerCompression::of(media_type::OCI_LAYER_ZSTD), Some(LayerCompression::Zstd));
        assert_eq!(LayerCompression::of("application/x-ai-model"), None);
    }
}
