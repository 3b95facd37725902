//! Findings: listed, shown, watched.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;
use procwarden_common::printable::{printable, unprintable};
use procwarden_common::wire::{severity_from_wire, state_from_wire};
use procwarden_proto::v1;
use tonic::Status;

use super::AdminContext;
use super::refusal::{internal, invalid, not_found, off_thread};
use crate::findings::{ExeFilter, FindingFilter, Findings};

mod watch;
pub(in crate::admin) use watch::FindingStream;

/// Findings of one answer where the operator names no number.
const LIMIT_DEFAULT: usize = 100;

/// Findings of one answer.
const LIMIT_MAX: usize = 1_000;

/// Findings read from the index at once; bounds what an answer can overshoot.
const PAGE_FINDINGS: usize = 16;

/// Findings read at once where all are visited: bounds the memory, as each may
/// carry a command line of 32 KiB.
const VISITED_FINDINGS: usize = 256;

/// An answer that has grown to this size is sent; the rest is behind the cursor.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Digits of a finding's id that are enough to name it.
const ID_PREFIX_DIGITS_MIN: usize = 6;

/// Digits of a whole id.
const ID_DIGITS: usize = 32;

/// Ids named when a prefix is that of several findings.
const AMBIGUOUS_NAMED_MAX: usize = 10;

impl AdminContext {
    /// Visits every finding of the history that a filter lets through.
    pub(super) fn each_finding(
        &self,
        filter: &FindingFilter,
        mut visit: impl FnMut(&StoredFinding),
    ) -> Result<(), Status> {
        let mut cursor = None;
        loop {
            let page = self
                .findings
                .list(filter, cursor.as_deref(), VISITED_FINDINGS)?;
            page.findings.iter().for_each(&mut visit);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// One page, newest first. It may be shorter than asked for when findings
    /// are long; an empty cursor alone means that there is no more.
    pub(super) async fn list_findings(
        &self,
        request: v1::ListFindingsRequest,
    ) -> Result<v1::ListFindingsResponse, Status> {
        let filter = self.filter(request.filter.unwrap_or_default())?;
        let limit = match request.limit as usize {
            0 => LIMIT_DEFAULT,
            limit => limit.min(LIMIT_MAX),
        };
        let cursor = (!request.cursor.is_empty()).then(|| request.cursor.to_vec());
        let findings = self.findings.clone();
        off_thread(move || list(&findings, &filter, cursor, limit)).await?
    }

    /// One finding with all its evidence, by id or the beginning of it.
    pub(super) async fn show_finding(
        &self,
        request: v1::ShowFindingRequest,
    ) -> Result<v1::ShowFindingResponse, Status> {
        let wanted = request.id.trim().to_ascii_lowercase();
        let findings = self.findings.clone();
        let stored = off_thread(move || show(&findings, &wanted)).await??;
        Ok(v1::ShowFindingResponse {
            finding: Some((&stored).into()),
        })
    }

    /// The filter of a request, every word of it checked.
    pub(super) fn filter(&self, filter: v1::FindingFilter) -> Result<FindingFilter, Status> {
        let indicator = |id: &String| {
            id.parse()
                .map_err(|error| invalid(format!("{}: {error}", printable(id.as_bytes()))))
        };
        let user = |text: &String| raw("the account", text);
        let wire = |error: procwarden_common::wire::InvalidMessage| invalid(error.to_string());
        let given = |text: &String| !text.is_empty();
        Ok(FindingFilter {
            host: Some(&filter.host)
                .filter(|h| given(h))
                .map(|h| self.find_host(h))
                .transpose()?,
            user: Some(&filter.user)
                .filter(|u| given(u))
                .map(user)
                .transpose()?,
            indicator: Some(&filter.indicator)
                .filter(|i| given(i))
                .map(indicator)
                .transpose()?,
            min_severity: (filter.min_severity != 0)
                .then(|| severity_from_wire(filter.min_severity).map_err(wire))
                .transpose()?,
            state: (filter.state != 0)
                .then(|| state_from_wire(filter.state).map_err(wire))
                .transpose()?,
            since: (filter.since_ms != 0).then_some(UnixMillis(filter.since_ms)),
            until: (filter.until_ms != 0).then_some(UnixMillis(filter.until_ms)),
            exe: Some(&filter.exe)
                .filter(|e| given(e))
                .map(exe)
                .transpose()?,
            text: Some(&filter.text)
                .filter(|t| given(t))
                .map(|text| raw("the text", text))
                .transpose()?,
        })
    }
}

/// The bytes of a text in printable form.
fn raw(what: &str, text: &str) -> Result<Vec<u8>, Status> {
    unprintable(text).map_err(|error| invalid(format!("{what} is {error}")))
}

/// A digest is all digits; a path begins with a slash, or is what the kernel
/// writes in place of one.
fn exe(text: &String) -> Result<ExeFilter, Status> {
    let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    match digest.ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(sum) => Ok(ExeFilter::Sha256(sum)),
        None => raw("the executable", text).map(ExeFilter::Path),
    }
}

fn list(
    findings: &Findings,
    filter: &FindingFilter,
    mut cursor: Option<Vec<u8>>,
    limit: usize,
) -> Result<v1::ListFindingsResponse, Status> {
    let mut answer = v1::ListFindingsResponse::default();
    let mut bytes = 0;
    while answer.findings.len() < limit && bytes < ANSWER_BYTES_MAX {
        let wanted = PAGE_FINDINGS.min(limit - answer.findings.len());
        let page = findings.list(filter, cursor.as_deref(), wanted)?;
        for stored in &page.findings {
            let message = v1::StoredFinding::from(stored);
            bytes += prost::Message::encoded_len(&message);
            answer.findings.push(message);
        }
        cursor = page.next_cursor;
        answer.cut = page.is_cut;
        if cursor.is_none() || page.is_cut {
            break;
        }
    }
    answer.next_cursor = cursor.unwrap_or_default().into();
    Ok(answer)
}

/// The finding of an id, or of the beginning of one.
pub(super) fn show(findings: &Findings, wanted: &str) -> Result<StoredFinding, Status> {
    let is_hex = wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(ID_PREFIX_DIGITS_MIN..=ID_DIGITS).contains(&wanted.len()) {
        let sentence = format!(
            "not the id of a finding: use {ID_PREFIX_DIGITS_MIN} to {ID_DIGITS} hexadecimal digits"
        );
        return Err(invalid(sentence));
    }
    let id = find_id(findings, wanted)?;
    let unknown = || not_found(format!("there is no finding {wanted}"));
    findings.get(id)?.ok_or_else(unknown)
}

fn find_id(findings: &Findings, wanted: &str) -> Result<FindingId, Status> {
    if wanted.len() == ID_DIGITS {
        return wanted.parse().map_err(|error| internal(format!("{error}")));
    }
    match findings.find_prefix(wanted)?.as_slice() {
        [] => Err(not_found(format!(
            "there is no finding whose id begins with {wanted}"
        ))),
        [only] => Ok(*only),
        several => {
            let named = several.iter().take(AMBIGUOUS_NAMED_MAX);
            let ids: Vec<String> = named.map(FindingId::to_string).collect();
            let ids = ids.join(", ");
            Err(invalid(format!(
                "several findings begin with {wanted}, use more digits: {ids}"
            )))
        }
    }
}
