//! Errors in words: every cause of one, on one safe line. Pure.

use std::error::Error;

use procwarden_common::printable::printable_text;

/// Longest text: some of it comes from a peer.
const CHARS_MAX: usize = 1000;

/// The error and its causes, joined by colons. A cause that the text before
/// it already holds is not repeated.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = describe(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = describe(error);
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    safe(&text)
}

/// Text that a peer may have written: bounded, and without control bytes.
pub(crate) fn safe(text: &str) -> String {
    let bounded: String = text.chars().take(CHARS_MAX).collect();
    printable_text(&bounded).into_owned()
}

/// One error without its causes.
fn describe(error: &(dyn Error + 'static)) -> String {
    // A status' own text adds code and metadata.
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        let message = status.message();
        let is_empty = message.is_empty();
        return if is_empty {
            status.code().description().to_owned()
        } else {
            message.to_owned()
        };
    }
    // An I/O error hides the error that it wraps from `source`.
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    let refused = match wrapped {
        Some(wrapped) => wrapped.downcast_ref::<rustls::Error>(),
        None => error.downcast_ref::<rustls::Error>(),
    };
    match refused {
        // rustls prints what our own verifier says in debug form.
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(own))) => {
            format!("invalid peer certificate: {}", own.0)
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let inner = Layer {
            text: "refused\x1b[31m",
            source: None,
        };
        let middle = Layer {
            text: "io",
            source: Some(Box::new(inner)),
        };
        let outer = Layer {
            text: "io",
            source: Some(Box::new(middle)),
        };
        assert_eq!(chain(&outer), "io: refused\\1b[31m");
    }

    #[test]
    fn a_status_says_its_message() {
        assert_eq!(
            chain(&tonic::Status::not_found("no such token")),
            "no such token"
        );
    }
}
