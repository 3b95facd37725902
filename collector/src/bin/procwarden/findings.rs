//! `procwarden findings`: what the agents found.

use procwarden_common::finding::StoredFinding;
use procwarden_common::finding::view::FindingView;
use procwarden_common::wire::{severity_to_wire, state_to_wire};
use procwarden_proto::v1;

use crate::cli::{Filter, FindingsCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::since::Since;

mod detail;
mod rows;

/// Findings asked for at a time; the collector may answer with fewer.
const PAGE_FINDINGS: u64 = 200;

/// Answers that were cut short because the collector searched a lot in vain;
/// so many are about six million findings.
const CUTS_MAX: u32 = 50;

pub(crate) async fn run(command: FindingsCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        FindingsCommand::List {
            filter,
            since,
            until,
            limit,
        } => {
            let millis = |time: Option<Since>| time.map_or(0, |t| t.resolve(context.now()).0);
            let filter = v1::FindingFilter {
                since_ms: millis(since),
                until_ms: millis(until),
                ..filter_to_wire(filter)
            };
            list(filter, limit, context).await
        }
        FindingsCommand::Show { id } => show(id, context).await,
        FindingsCommand::Watch { filter } => watch(filter_to_wire(filter), context).await,
    }
}

fn filter_to_wire(filter: Filter) -> v1::FindingFilter {
    v1::FindingFilter {
        host: filter.host.unwrap_or_default(),
        user: filter.user.unwrap_or_default(),
        indicator: filter
            .indicator
            .map(|id| id.to_string())
            .unwrap_or_default(),
        min_severity: filter
            .severity
            .map_or(0, |severity| severity_to_wire(severity).into()),
        state: filter.state.map_or(0, |state| state_to_wire(state).into()),
        exe: filter.exe.unwrap_or_default(),
        text: filter.text.unwrap_or_default(),
        ..v1::FindingFilter::default()
    }
}

/// Follows the collector's pages until there are `limit` findings or no more.
async fn list(filter: v1::FindingFilter, limit: u64, context: &mut Context) -> Result<(), Failure> {
    let mut listing = rows::Listing::default();
    let mut cursor = bytes::Bytes::new();
    let mut left = limit;
    let mut cuts = 0;
    while left > 0 && cuts < CUTS_MAX {
        let request = v1::ListFindingsRequest {
            filter: Some(filter.clone()),
            limit: u32::try_from(left.min(PAGE_FINDINGS)).unwrap_or(u32::MAX),
            cursor,
        };
        let answer = context.admin().await?.list_findings(request).await;
        let page = answer.map_err(|status| context.refused("list the findings", &status))?;
        let page = page.into_inner();
        for finding in page
            .findings
            .into_iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            let finding = stored_from_wire(finding)?;
            left -= 1;
            if context.out.json() {
                context.out.object(&FindingView::of_stored(&finding))?;
            } else if let Some(full) = listing.add(&finding) {
                context.out.table(&full)?;
            }
        }
        cursor = page.next_cursor;
        cuts += u32::from(page.cut);
        if cursor.is_empty() {
            break;
        }
    }
    if let Some(rest) = listing.rest().filter(|_| !context.out.json()) {
        context.out.table(&rest)?;
    }
    if cuts >= CUTS_MAX && !cursor.is_empty() {
        context.out.remark(
            "the search ended before it came to the oldest findings: narrow it with --since, \
             --until or --host",
        );
    } else if !cursor.is_empty() {
        context.out.remark(&format!(
            "there are more than {limit} findings: raise --limit to see them"
        ));
    }
    Ok(())
}

async fn show(id: String, context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .show_finding(v1::ShowFindingRequest { id })
        .await;
    let answer = answer.map_err(|status| context.refused("show the finding", &status))?;
    let finding = answer.into_inner().finding.ok_or_else(|| {
        Failure::Run("cannot show the finding: the collector's answer is empty".into())
    })?;
    let finding = stored_from_wire(finding)?;
    if context.out.json() {
        return context.out.object(&FindingView::of_stored(&finding));
    }
    detail::write(&finding, &mut context.out)
}

async fn watch(filter: v1::FindingFilter, context: &mut Context) -> Result<(), Failure> {
    let request = v1::WatchFindingsRequest {
        filter: Some(filter),
    };
    let answer = context.admin().await?.watch_findings(request).await;
    let mut stream = answer
        .map_err(|status| context.refused("watch the findings", &status))?
        .into_inner();
    if !context.out.json() {
        context.out.remark("waiting for findings; end with Ctrl-C");
    }
    loop {
        let next = stream.message().await;
        let next = next.map_err(|status| context.refused("watch the findings", &status))?;
        let Some(message) = next else {
            return Err(Failure::Run(
                "the collector ended the watch: it stops or restarts; start the command again"
                    .into(),
            ));
        };
        let Some(finding) = message.finding else {
            continue;
        };
        let finding = stored_from_wire(finding)?;
        if context.out.json() {
            context.out.object(&FindingView::of_stored(&finding))?;
        } else {
            context
                .out
                .severity_line(finding.finding.severity(), &rows::line(&finding))?;
        }
        context.out.flush()?;
    }
}

fn stored_from_wire(finding: v1::StoredFinding) -> Result<StoredFinding, Failure> {
    finding.try_into().map_err(|error| {
        Failure::Run(format!(
            "cannot read a finding of the collector ({error}); install the same version of \
             procwarden and procwarden-collector"
        ))
    })
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::FindingState;
    use procwarden_common::severity::Severity;

    use super::*;

    #[test]
    fn flags_that_are_not_given_do_not_narrow_the_answer() {
        assert_eq!(
            filter_to_wire(Filter::default()),
            v1::FindingFilter::default()
        );
        let filter = Filter {
            severity: Some(Severity::High),
            state: Some(FindingState::Ended),
            text: Some("xmrig".into()),
            ..Filter::default()
        };
        let wire = filter_to_wire(filter);
        assert_eq!(wire.min_severity(), v1::Severity::High);
        assert_eq!(wire.state(), v1::FindingState::Ended);
        assert_eq!(wire.text, "xmrig");
    }
}
