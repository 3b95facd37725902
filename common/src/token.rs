//! The enrolment token: one string that carries everything an agent needs.
//!
//! Form: `pwt1.` and base64url (no padding) of a protobuf `EnrollmentToken`
//! followed by the first 4 bytes of its SHA-256, so that a string cut short by
//! a mail client is told from a wrong one.
//!
//! Never: the secret in `Debug` or in an error.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, DecodeKind};
use procwarden_proto::v1;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::limits;

/// What every token of this version begins with.
const PREFIX: &str = "pwt1.";

/// Bytes of the digest at the end.
const CHECK_BYTES: usize = 4;

/// Longest token string; a real one has a few hundred characters.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Most addresses or groups in a token.
const LIST_MAX: usize = 64;

/// Longest `name:port`: a host name, a colon and five digits, and the brackets
/// of an IPv6 address.
const ADDRESS_BYTES_MAX: usize = limits::HOST_NAME_BYTES_MAX + 8;

/// What a token carries. `Debug` never prints the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Public id.
    pub id: String,
    /// Proof of possession.
    pub secret: [u8; 32],
    /// `name:port` of the enrolment listener, best first; never empty.
    pub addresses: Vec<String>,
    /// SHA-256 of the fleet CA's certificate in DER.
    pub ca_sha256: [u8; 32],
    /// Groups, for the reader.
    pub groups: Vec<String>,
}

/// Why a text is not a token, in words for whoever pasted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Nothing was given.
    #[error("the token is empty: create one with `procwarden token create`")]
    Empty,
    /// Another kind of text, or a newer token.
    #[error("not an enrolment token: it does not begin with pwt1.")]
    WrongPrefix,
    /// Far more than any token.
    #[error("not an enrolment token: it is longer than {TOKEN_BYTES_MAX} characters")]
    TooLong,
    /// A character outside base64url.
    #[error("the token is damaged: character {position} does not belong in it; copy it again")]
    WrongCharacter {
        /// Place in the text without white space, from 1.
        position: usize,
    },
    /// The digest at the end does not fit.
    #[error("the token is cut short or damaged: copy the whole line again")]
    CutShort,
    /// Intact, but not what this version expects.
    #[error("the token cannot be used: {0}; create a new one with `procwarden token create`")]
    Content(&'static str),
}

impl Token {
    /// The string to hand to an agent. It is a secret: whoever has it can
    /// enrol a host until it expires.
    #[must_use]
    pub fn encode(&self) -> String {
        let message = v1::EnrollmentToken {
            id: self.id.clone(),
            secret: self.secret.to_vec().into(),
            addresses: self.addresses.clone(),
            ca_sha256: self.ca_sha256.to_vec().into(),
            groups: self.groups.clone(),
        };
        let mut bytes = message.encode_to_vec();
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads a token string. White space is ignored anywhere: mail clients
    /// and terminals wrap long lines.
    ///
    /// # Errors
    /// When it is not a whole, undamaged token of this version.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let text: String = text.split_whitespace().collect();
        if text.is_empty() {
            return Err(InvalidToken::Empty);
        }
        let body = text.strip_prefix(PREFIX).ok_or(InvalidToken::WrongPrefix)?;
        let bytes = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map_err(|error| match error.kind {
                DecodeKind::Symbol => InvalidToken::WrongCharacter {
                    position: PREFIX.len() + error.position + 1,
                },
                _ => InvalidToken::CutShort,
            })?;
        let (encoded, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(InvalidToken::CutShort)?;
        if check_of(encoded) != *check {
            return Err(InvalidToken::CutShort);
        }
        let message = v1::EnrollmentToken::decode(encoded)
            .map_err(|_| InvalidToken::Content("it was made by another version"))?;
        Self::from_message(message).map_err(InvalidToken::Content)
    }

    fn from_message(message: v1::EnrollmentToken) -> Result<Self, &'static str> {
        if !is_word(&message.id, limits::NAME_BYTES_MAX) {
            return Err("its id has a wrong form");
        }
        if message.addresses.is_empty() {
            return Err("it holds no address of a collector");
        }
        if message.addresses.len() > LIST_MAX || message.groups.len() > LIST_MAX {
            return Err("it holds too many addresses or groups");
        }
        if !message.addresses.iter().all(|address| is_address(address)) {
            return Err("one of its addresses is not name:port");
        }
        if !message
            .groups
            .iter()
            .all(|group| is_word(group, limits::NAME_BYTES_MAX))
        {
            return Err("one of its groups has a wrong name");
        }
        let secret = message.secret.as_ref().try_into();
        let ca_sha256 = message.ca_sha256.as_ref().try_into();
        Ok(Self {
            id: message.id,
            secret: secret.map_err(|_| "its secret has not 32 bytes")?,
            addresses: message.addresses,
            ca_sha256: ca_sha256.map_err(|_| "its CA digest has not 32 bytes")?,
            groups: message.groups,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("secret", &"(hidden)")
            .field("addresses", &self.addresses)
            .field(
                "ca_sha256",
                &data_encoding::HEXLOWER.encode(&self.ca_sha256),
            )
            .field("groups", &self.groups)
            .finish()
    }
}

fn check_of(encoded: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::digest(encoded);
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

/// Visible ASCII of bounded length: safe to show and to log.
fn is_word(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    is_word(text, ADDRESS_BYTES_MAX)
        && parts.is_some_and(|(name, port)| {
            !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            id: "k3v9".into(),
            secret: [0xaa; 32],
            addresses: vec!["collector.example:7442".into(), "[2001:db8::1]:7442".into()],
            ca_sha256: [0xbb; 32],
            groups: vec!["web".into()],
        }
    }

    #[test]
    fn a_wrapped_token_still_parses() {
        let text = token().encode();
        let (first, second) = text.split_at(60);
        assert_eq!(
            Token::parse(&format!(" {first}\r\n  {second}\n")),
            Ok(token())
        );
    }

    #[test]
    fn every_cut_is_told_from_another_kind_of_text() {
        let text = token().encode();
        for length in PREFIX.len()..text.len() {
            assert_eq!(
                Token::parse(&text[..length]),
                Err(InvalidToken::CutShort),
                "{length}"
            );
        }
        assert_eq!(Token::parse("pwt2.AAAA"), Err(InvalidToken::WrongPrefix));
        assert_eq!(Token::parse(" \n"), Err(InvalidToken::Empty));
        assert_eq!(
            Token::parse("pwt1.ab*d"),
            Err(InvalidToken::WrongCharacter { position: 8 })
        );
        assert_eq!(Token::parse(&"x".repeat(9_000)), Err(InvalidToken::TooLong));
    }

    #[test]
    fn an_intact_token_with_wrong_content_is_refused() {
        let wrong = [
            Token {
                addresses: Vec::new(),
                ..token()
            },
            Token {
                addresses: vec!["collector".into()],
                ..token()
            },
            Token {
                addresses: vec!["collector:0".into()],
                ..token()
            },
            Token {
                addresses: vec![":7442".into()],
                ..token()
            },
            Token {
                id: String::new(),
                ..token()
            },
            Token {
                groups: vec!["a b".into()],
                ..token()
            },
            Token {
                groups: vec!["\u{1b}[2J".into()],
                ..token()
            },
        ];
        for token in wrong {
            let parsed = Token::parse(&token.encode());
            assert!(
                matches!(parsed, Err(InvalidToken::Content(_))),
                "{token:?}: {parsed:?}"
            );
        }
    }

    #[test]
    fn the_secret_is_not_in_the_debug_form() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("(hidden)"));
        assert!(!shown.contains("170") && !shown.contains("aaaa"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_token_parses_from_what_it_encodes(
            id in "[a-z0-9]{1,16}",
            secret in any::<[u8; 32]>(),
            addresses in proptest::collection::vec("[a-z0-9.-]{1,20}:[1-9][0-9]{0,3}", 1..4),
            ca_sha256 in any::<[u8; 32]>(),
            groups in proptest::collection::vec("[a-z0-9_.-]{1,20}", 0..4),
        ) {
            let token = Token { id, secret, addresses, ca_sha256, groups };
            prop_assert_eq!(Token::parse(&token.encode()), Ok(token));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in "(pwt1\\.)?[A-Za-z0-9_-]{0,80}") {
            prop_assert!(Token::parse(&text).is_err());
        }
    }
}
