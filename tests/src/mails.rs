//! A mail as its reader sees it: decoded by a MIME parser, not by hand.

use mail_parser::{MessageParser, MimeHeaders};

/// One received mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Recipients of the envelope.
    pub to: Vec<String>,
    /// Message-ID, without its angle brackets.
    pub message_id: String,
    /// Decoded subject.
    pub subject: String,
    /// Decoded text, attachments included.
    pub text: String,
    /// Names of the attachments.
    pub attachments: Vec<String>,
    /// As it came over the wire.
    pub raw: Vec<u8>,
}

impl Mail {
    /// Decodes a mail; nothing when it is none.
    #[must_use]
    pub fn parse(to: Vec<String>, raw: &[u8]) -> Option<Self> {
        let message = MessageParser::default().parse(raw)?;
        let mut text = message
            .body_text(0)
            .map(|t| t.into_owned())
            .unwrap_or_default();
        let mut attachments = Vec::new();
        for part in message.attachments() {
            attachments.push(part.attachment_name().unwrap_or_default().to_owned());
            text.push_str(part.text_contents().unwrap_or_default());
        }
        Some(Self {
            to,
            message_id: message.message_id().unwrap_or_default().to_owned(),
            subject: message.subject().unwrap_or_default().to_owned(),
            text,
            attachments,
            raw: raw.to_vec(),
        })
    }

    /// Whether it tells about the finding with this id.
    #[must_use]
    pub fn tells_of(&self, finding_id: &str) -> bool {
        self.text.contains(finding_id)
    }
}

/// How many different mails (by Message-ID: a resend after a crash is the
/// same mail) tell about a finding.
#[must_use]
pub fn mails_about(mails: &[Mail], finding_id: &str) -> usize {
    let mut ids: Vec<&str> = Vec::new();
    for mail in mails.iter().filter(|mail| mail.tells_of(finding_id)) {
        if !ids.contains(&mail.message_id.as_str()) {
            ids.push(&mail.message_id);
        }
    }
    ids.len()
}
