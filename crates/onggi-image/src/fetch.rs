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
    let failed = |reason: String| ImageError::Fetch { url: text.to_owned(), reason };
    let uri: Uri = text.parse().map_err(|_| failed("it does not follow the grammar".to_owned()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(failed("only http and https are fetched".to_owned()));
    }
    let client = HttpClient::new(false, true, &[], None, Timeouts::default(), proxies)?;
    let answer = client.send("GET", &uri, &[], Payload::None);
    let answer = answer.map_err(|source| failed(cause(&source)))?;
    if !answer.status().is_success() {
        return Err(failed(format!("the server answers {}", answer.status())));
    }
    Ok(Box::new(answer.into_body().into_reader()))
}

/// The innermost reason: the URL is said already.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| onggi_sys::error::cause(error), cause)
}
