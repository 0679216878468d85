//! TLS of registries: rustls below the HTTP client, and whom it believes.
//!
//! Certificates are verified as rustls does it, against the system's authorities and those that the user configured
//! for the registry. One thing is accepted beyond that: a certificate that is itself one of them, byte for byte. The
//! one that Docker's documentation makes for a registry is such a thing, an authority and the server's own at once.
//! Its time, its names and the server's possession of its key count as for any other. Nothing is read from the system
//! before the first connection needs it.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};
use ureq::{
    Error,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
        time::Instant,
    },
};

use crate::{error::ImageError, options::ClientIdentity};

/// Signatures of servers that only count where nothing is verified.
const OUTDATED: [SignatureScheme; 2] = [SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy];

/// Encrypts connections to `https` URLs.
#[derive(Debug, Clone)]
pub(crate) struct Tls(Arc<Setup>);

struct Setup {
    verify: bool,
    /// Trusted beside the system's.
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
    config: OnceLock<Arc<ClientConfig>>,
}

/// Why a server's certificate was not accepted, as far as there is something else to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    /// Nobody who is trusted here signed it.
    #[error("its certificate is of an unknown authority")]
    Unknown,
    /// It is an authority's, and none that is trusted here.
    #[error("its certificate is self-signed or an authority's own, and not one of those trusted here")]
    Authority,
    /// It was valid once.
    #[error("its certificate has expired")]
    Expired,
    /// It will be valid.
    #[error("its certificate is not valid yet")]
    NotYet,
    /// It is for other names.
    #[error("its certificate is for other names")]
    OtherName,
    /// It is for no name at all.
    #[error("its certificate is for no name at all: it has no subjectAltName")]
    NoName,
}

impl Tls {
    /// `authorities` are PEM texts.
    pub(crate) fn new(
        verify: bool,
        authorities: &[String],
        identity: Option<&ClientIdentity>,
    ) -> Result<Self, ImageError> {
        let provider = Arc::new(ring::default_provider());
        let authorities = authorities.iter().map(|pem| chain(pem, "a certificate authority"));
        let authorities = authorities.collect::<Result<Vec<_>, _>>()?.concat();
        let identity = identity.map(|own| certified(own, &provider).map(Arc::new)).transpose()?;
        Ok(Self(Arc::new(Setup { verify, authorities, identity, provider, config: OnceLock::new() })))
    }
}

/// The certificates of a PEM text.
fn chain(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, ImageError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|e| unusable(what, e))
}

fn certified(own: &ClientIdentity, provider: &CryptoProvider) -> Result<CertifiedKey, ImageError> {
    const WHAT: &str = "the client certificate";
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|e| unusable(WHAT, e))?;
    CertifiedKey::from_der(chain(&own.certificate, WHAT)?, key, provider).map_err(|e| unusable(WHAT, e))
}

fn unusable(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> ImageError {
    ImageError::Setup { what: what.to_owned(), source: Box::new(source) }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("verify", &self.verify).finish_non_exhaustive()
    }
}

impl Setup {
    fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let builder =
            ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier()?);
        let config = match &self.identity {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone()))),
            None => builder.with_no_client_auth(),
        };
        Ok(self.config.get_or_init(|| Arc::new(config)).clone())
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
        if !self.verify {
            let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
            schemes.extend(OUTDATED);
            return Ok(Arc::new(Anybody { schemes }));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let strict = strict.map_err(|e| rustls::Error::General(format!("certificate authorities: {e}")))?;
        Ok(Arc::new(Trusted { strict, authorities: self.authorities.clone() }))
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsStream>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
        let config = self.0.config().map_err(invalid)?;
        let mut connection = ClientConnection::new(config, name).map_err(invalid)?;
        let mut below = TransportAdapter::new(Box::new(transport) as Box<dyn Transport>, details.current_time.clone());
        below.set_timeout(remaining(details));
        connection.complete_io(&mut below)?;
        let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let stream = StreamOwned::new(connection, below);
        Ok(Some(Either::B(TlsStream { buffers: LazyBuffers::new(sizes.0, sizes.1), stream })))
    }
}

/// As rustls wraps what it finds wrong in a handshake.
fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The time for a connection, less what it took to make the one below.
fn remaining(details: &ConnectionDetails<'_>) -> NextTimeout {
    let passed = match (details.now, (details.current_time)()) {
        (Instant::Exact(then), Instant::Exact(now)) => now.saturating_duration_since(then),
        _ => Duration::ZERO,
    };
    let mut left = details.timeout;
    if !left.after.is_not_happening() {
        left.after = left.after.saturating_sub(passed).into();
    }
    left
}

/// An encrypted connection.
pub(crate) struct TlsStream {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsStream").field(&self.stream.sock.inner()).finish()
    }
}

impl Transport for TlsStream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Verifies.
#[derive(Debug)]
struct Trusted {
    strict: Arc<WebPkiServerVerifier>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// It is the very certificate that is trusted. The system's are asked for again: this is rare, and to keep them is not cheap.
    fn knows(&self, certificate: &CertificateDer<'_>) -> bool {
        let same = |known: &CertificateDer<'_>| known.as_ref() == certificate.as_ref();
        self.authorities.iter().any(same) || rustls_native_certs::load_native_certs().certs.iter().any(same)
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match &verdict {
            // webpki looks at the time first: one that is an authority's "only" is valid now. The name comes last there.
            Err(rustls::Error::InvalidCertificate(e)) if is_authority(e) && self.knows(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// What webpki thinks of a certificate, where rustls has no word of its own for it.
fn of_webpki(error: &CertificateError) -> Option<&webpki::Error> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

fn is_authority(error: &CertificateError) -> bool {
    matches!(of_webpki(error), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The same in words where rustls only has those of programs; its own have more to say about times and names.
pub(crate) fn in_words(error: io::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match distrust(&error) {
        Some(why @ (Distrust::Authority | Distrust::NoName)) => Box::new(why),
        _ => Box::new(error),
    }
}

/// What is wrong with the server's certificate, if that is why there is no connection.
pub(crate) fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<Distrust> {
    if let Some(known) = error.downcast_ref() {
        return Some(*known);
    }
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    let rustls::Error::InvalidCertificate(error) = inner.downcast_ref()? else { return None };
    match error {
        CertificateError::UnknownIssuer => Some(Distrust::Unknown),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some(Distrust::Expired),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Some(Distrust::NotYet),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => Some(Distrust::NoName),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(Distrust::OtherName)
        }
        // Names are an extension, which the first version of certificates does not have.
        _ => match of_webpki(error)? {
            webpki::Error::CaUsedAsEndEntity => Some(Distrust::Authority),
            webpki::Error::UnsupportedCertVersion => Some(Distrust::NoName),
            _ => None,
        },
    }
}

/// Accepts everybody: `--tls-verify=false`.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use rustls::{ServerConfig, ServerConnection, server::ResolvesServerCert};

    use super::*;

    const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

    /// As Docker's documentation makes one, with other extensions.
    fn certificate(dir: &Path, name: &str, extensions: &[&str]) -> ClientIdentity {
        let at = |end: &str| dir.join(format!("{name}.{end}"));
        let mut openssl = Command::new("/usr/bin/openssl");
        openssl.args(["req", "-newkey", "rsa:2048", "-nodes", "-sha256", "-x509", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(at("key")).arg("-out").arg(at("crt"));
        openssl.args(extensions.iter().flat_map(|e| ["-addext", e]));
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = |end| std::fs::read_to_string(at(end)).unwrap();
        ClientIdentity { certificate: text("crt"), key: text("key") }
    }

    /// A server that shows this, whether or not the key belongs to it.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    /// A handshake of both sides in memory.
    fn greet(tls: &Tls, certificate: &str, key: &str, name: &'static str) -> Result<(), rustls::Error> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let shown = CertifiedKey::new(chain(certificate, "it").unwrap(), ring::sign::any_supported_type(&key).unwrap());
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let mut client = ClientConnection::new(tls.0.config()?, ServerName::try_from(name).unwrap())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn refused(greeting: Result<(), rustls::Error>) -> Option<Distrust> {
        let Error::Io(error) = invalid(greeting.expect_err("must be refused")) else { panic!("not as rustls says it") };
        distrust(&error)
    }

    fn trusting(certificates: &[&str]) -> Tls {
        Tls::new(true, &certificates.iter().map(|&c| c.to_owned()).collect::<Vec<_>>(), None).unwrap()
    }

    #[test]
    fn a_self_signed_certificate_is_accepted_where_exactly_it_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let own = certificate(dir.path(), "own", &[NAMES]);
        let other = certificate(dir.path(), "other", &[NAMES]);
        let tls = trusting(&[&other.certificate, &own.certificate]);
        for name in ["localhost", "127.0.0.1"] {
            greet(&tls, &own.certificate, &own.key, name).unwrap();
        }
        let wrong = refused(greet(&tls, &own.certificate, &own.key, "r.example"));
        assert_eq!(wrong, Some(Distrust::OtherName));
        let tls = trusting(&[&other.certificate]);
        assert_eq!(refused(greet(&tls, &own.certificate, &own.key, "localhost")), Some(Distrust::Authority));
        assert_eq!(refused(greet(&trusting(&[]), &own.certificate, &own.key, "localhost")), Some(Distrust::Authority));
    }

    #[test]
    fn who_has_not_the_key_of_a_trusted_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = certificate(dir.path(), "own", &[NAMES]);
        let thief = certificate(dir.path(), "thief", &[NAMES]);
        let error = greet(&trusting(&[&own.certificate]), &own.certificate, &thief.key, "localhost");
        assert_eq!(error, Err(CertificateError::BadSignature.into()));
    }

    #[test]
    fn a_certificate_without_names_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for extensions in [&[] as &[&str], &["basicConstraints=critical,CA:FALSE"]] {
            let own = certificate(dir.path(), "nameless", extensions);
            let tls = trusting(&[&own.certificate]);
            assert_eq!(refused(greet(&tls, &own.certificate, &own.key, "localhost")), Some(Distrust::NoName));
        }
    }

    #[test]
    fn a_trusted_certificate_counts_only_in_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let own = certificate(dir.path(), "own", &[NAMES]);
        let tls = trusting(&[&own.certificate]);
        let verifier = tls.0.verifier().unwrap();
        let verdict = |time: u64| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
            let verdict = verifier.verify_server_cert(
                &tls.0.authorities[0],
                &[],
                &ServerName::try_from("localhost").unwrap(),
                &[],
                time,
            );
            verdict.map(drop)
        };
        let now = UnixTime::now().as_secs();
        verdict(now).unwrap();
        assert_eq!(refused(verdict(now + 3 * 86400)), Some(Distrust::Expired));
        assert_eq!(refused(verdict(now - 86400)), Some(Distrust::NotYet));
    }

    #[test]
    fn nobody_is_verified_when_the_user_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let own = certificate(dir.path(), "own", &[]);
        greet(&Tls::new(false, &[], None).unwrap(), &own.certificate, &own.key, "r.example").unwrap();
    }

    #[test]
    fn a_certificate_of_ours_with_the_key_of_another_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let own = certificate(dir.path(), "own", &[]);
        let key = certificate(dir.path(), "other", &[]).key;
        let error = Tls::new(true, &[], Some(&ClientIdentity { key, ..own })).expect_err("they do not belong together");
        assert_eq!(error.to_string(), "the client certificate cannot be used");
    }
}
