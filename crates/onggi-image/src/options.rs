//! How registries are talked to: what the caller found in its environment and configuration, as plain data.

use crate::{
    credentials::Credentials,
    http::{ProxySettings, Timeouts},
    retry::RetryPolicy,
};

/// A certificate by which we are known to a registry: `client.cert` and `client.key` of its `certs.d` directory.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// PEM text of the certificate and its chain.
    pub certificate: String,
    /// PEM text of the private key.
    pub key: String,
}

impl std::fmt::Debug for ClientIdentity {
    /// The key is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// How one registry is talked to.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Verify certificates, and refuse plain HTTP except on loopback. When false, both are tried.
    pub tls_verify: bool,
    /// PEM texts of certificate authorities that are trusted beside the system's own, as kept in
    /// `/etc/docker/certs.d/<registry>/ca.crt`.
    pub authorities: Vec<String>,
    /// Shown to the registry when it asks for a certificate.
    pub identity: Option<ClientIdentity>,
    /// Shown to the registry and its own token service only.
    pub credentials: Option<Credentials>,
    /// Proxies, as found in the caller's environment.
    pub proxies: ProxySettings,
    /// Hosts of token services that may receive the credentials though they are on another domain.
    pub trusted_realms: Vec<String>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Repetition.
    pub retry: RetryPolicy,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            tls_verify: true,
            authorities: Vec::new(),
            identity: None,
            credentials: None,
            proxies: ProxySettings::default(),
            trusted_realms: Vec::new(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        }
    }
}
