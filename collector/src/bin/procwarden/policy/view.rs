//! A policy, as an object for programs.

use procwarden_proto::v1;
use serde::Serialize;

use crate::json::{hex_unless_empty, shown, shown_all, shown_unless_empty, when};

/// One revision of a policy, without its text.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyObject {
    pub(crate) name: String,
    /// 0 before the first one.
    pub(crate) revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    rules: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    groups: Vec<String>,
    /// What hosts run, where that is not the newest revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<u64>,
}

impl From<&v1::PolicyInfo> for PolicyObject {
    fn from(info: &v1::PolicyInfo) -> Self {
        Self {
            name: shown(&info.name),
            revision: info.revision,
            published_at: when(info.published_at_ms),
            author: shown_unless_empty(&info.author),
            comment: shown_unless_empty(&info.comment),
            rules: info.rules,
            hash: hex_unless_empty(&info.hash),
            groups: shown_all(&info.groups),
            running: info.running,
        }
    }
}
