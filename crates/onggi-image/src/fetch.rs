//! One file by its URL: `import http://…`. No credentials, no retry; a redirect leads neither out of TLS nor into this machine.

use std::io::Read;

use ureq::http::Uri;

use crate::{
    error::ImageError,
    http::{HttpClient, Payload, ProxySettings, Timeouts},
    url::{self, Origin},
};

/// As registries' answers may have.
const MAX_REDIRECTS: usize = 5;

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
    let mut place = uri;
    for _ in 0..=MAX_REDIRECTS {
        let answer = client.send("GET", &place, &[], Payload::None);
        let answer = answer.map_err(|source| failed(cause(&source)))?;
        let location = answer.headers().get("location").and_then(|to| to.to_str().ok());
        match location.filter(|_| answer.status().is_redirection()) {
            Some(to) => place = redirected(&place, to).map_err(failed)?,
            None if answer.status().is_success() => return Ok(Box::new(answer.into_body().into_reader())),
            None => return Err(failed(format!("the server answers {}", answer.status()))),
        }
    }
    Err(failed("there were too many redirects".to_owned()))
}

/// Where an answer points to, if that may be asked.
fn redirected(from: &Uri, location: &str) -> Result<Uri, String> {
    let refused = |why: &str| format!("its server redirects to {location:.200}, {why}");
    let to = url::resolve(from, location).ok_or_else(|| refused("which is no http or https URL"))?;
    match (Origin::of(from), Origin::of(&to)) {
        (Some(from), Some(to)) if from.tls && !to.tls => Err(refused("which is not protected by TLS")),
        (Some(from), Some(to)) if to.is_loopback() && !from.is_loopback() => Err(refused("which is this machine")),
        _ => Ok(to),
    }
}

/// The innermost reason: the URL is said already.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| onggi_sys::error::cause(error), cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_neither_out_of_tls_nor_into_this_machine() {
        for (from, location, want) in [
            ("https://a.example/x", "https://b.example/y", Some("https://b.example/y")),
            ("https://a.example/d/x", "y", Some("https://a.example/d/y")),
            ("http://a.example/x", "https://a.example/x", Some("https://a.example/x")),
            ("http://a.example/x", "http://b.example/x", Some("http://b.example/x")),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:2/x", Some("http://127.0.0.1:2/x")),
            ("https://a.example/x", "http://a.example/x", None),
            ("http://a.example/x", "http://127.0.0.1/x", None),
            ("https://a.example/x", "https://localhost/x", None),
            ("http://a.example/x", "file:///etc/passwd", None),
            ("http://a.example/x", "", None),
        ] {
            let to = redirected(&from.parse().unwrap(), location).ok().map(|uri| uri.to_string());
            assert_eq!(to.as_deref(), want, "{from} {location}");
        }
    }
}
