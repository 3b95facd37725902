//! What a person may look at when the collector cannot be reached. Pure.
//!
//! These are words only. No decision ever depends on the text of an error:
//! the same refusal has several texts.

/// (part of the error, advice), first match wins.
const ADVICE: &[(&str, &str)] = &[
    (
        "NotValidForName",
        "the certificate there does not name this address: is it right, and does the collector's name list hold it?",
    ),
    (
        "not valid for name",
        "the certificate there does not name this address: is it right, and does the collector's name list hold it?",
    ),
    (
        "Expired",
        "a certificate is expired: are the clocks of both hosts right?",
    ),
    (
        "expired",
        "a certificate is expired: are the clocks of both hosts right?",
    ),
    (
        "invalid peer certificate",
        "the server there is not the collector of this host's fleet: is the address right?",
    ),
    (
        "fatal alert",
        "the collector refused this host's certificate: was the host revoked, or is the certificate of another fleet?",
    ),
    (
        "Connection refused",
        "nothing listens there: does the collector run?",
    ),
    (
        "lookup",
        "the name cannot be looked up: is it right, and does DNS work?",
    ),
    (
        BEFORE_ANSWER,
        "it often means that the certificate was refused: was the host revoked, or is the certificate of another fleet?",
    ),
];

/// What a stream is said to have died of that ended before it was answered.
pub(super) const BEFORE_ANSWER: &str = "before the collector answered";

/// Advice for an error; empty when there is none.
pub(super) fn of(error: &str) -> &'static str {
    ADVICE
        .iter()
        .find(|(part, _)| error.contains(part))
        .map_or("", |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_explained() {
        for error in [
            "transport error: received fatal alert: CertificateRevoked",
            "the connection ended before the collector answered: operation was canceled",
        ] {
            assert!(of(error).contains("was the host revoked"), "{error}");
        }
        assert_eq!(of("something else"), "");
    }
}
