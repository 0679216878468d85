//! One file by its URL: `import http://…`. No credentials, no redirects, no retry.

use std::io::Read;

use ureq::http::Uri;

use crate::{
    error::ImageError,
    http::{HttpClient, Payload, ProxySettings, Timeouts},
};

/// Opens the body of a URL for reading.
///
/// # Errors
/// It is no URL, the server cannot be reached, or it answers with anything but success.
pub fn open_url(text: &str, proxies: &ProxySettings) -> Result<Box<dyn Read + Send>, ImageError> {
    let invalid = |reason: String| ImageError::Invalid { what: format!("the URL {text:?}"), reason };
    let uri: Uri = text.parse().map_err(|_| invalid("it does not follow the grammar".to_owned()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("only http and https are fetched".to_owned()));
    }
    let client = HttpClient::new(true, &[], None, Timeouts::default(), proxies)?;
    let answer = client.send("GET", &uri, &[], Payload::None);
    let answer = answer.map_err(|source| ImageError::RegistryUnreachable {
        registry: uri.authority().map(ToString::to_string).unwrap_or_default(),
        source,
    })?;
    if !answer.status().is_success() {
        return Err(invalid(format!("the server answers {}", answer.status())));
    }
    Ok(Box::new(answer.into_body().into_reader()))
}
