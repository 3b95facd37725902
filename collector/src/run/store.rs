//! `store check` and `store rebuild`: look after journal and index while no
//! collector runs. A running one holds the lock, and then both refuse.

use super::{Failure, say};
use crate::config::Config;
use crate::findings::{self, CheckReport, IndexReport};

/// Reads journal and index as a whole; exit 2 when something is wrong.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    refuse_uninitialised(config)?;
    let report = findings::check(&config.data_dir)?;
    lines(&report).iter().for_each(|line| say(line));
    if report.is_good() {
        return Ok(());
    }
    let advice = match report.index {
        IndexReport::Damaged(_) => "the index is made again by the next start or `store rebuild`",
        IndexReport::Sound { .. } | IndexReport::Missing => {
            "what is damaged in the journal is left out; the rest is served"
        }
    };
    Err(Failure::Negative(format!(
        "the store is not as it should be: {advice}"
    )))
}

/// Makes the index anew from the journal.
pub(super) fn rebuild(config: &Config) -> Result<(), Failure> {
    refuse_uninitialised(config)?;
    let report = findings::rebuild(&config.data_dir)?;
    lines(&report).iter().for_each(|line| say(line));
    Ok(())
}

fn refuse_uninitialised(config: &Config) -> Result<(), Failure> {
    if config.data_dir.is_dir() {
        Ok(())
    } else {
        Err(Failure::not_initialised(&config.data_dir))
    }
}

fn lines(report: &CheckReport) -> Vec<String> {
    let (records, bytes) = (report.records, report.journal_bytes);
    let mut lines = vec![format!("journal  {records} records, {bytes} bytes")];
    for (count, what) in [
        (report.damaged, "damaged places, left out"),
        (report.undecodable, "records that make no sense, left out"),
        (report.cut_bytes, "bytes of an unfinished write, cut off"),
    ] {
        if count > 0 {
            lines.push(format!("         {count} {what}"));
        }
    }
    lines.push(match &report.index {
        IndexReport::Sound { findings, findings_open, position } => {
            let behind = report.journal_end.0.saturating_sub(position.0);
            format!("index    {findings} findings, {findings_open} open, {behind} bytes behind the journal")
        }
        IndexReport::Missing => "index    none; the next start makes it".into(),
        IndexReport::Damaged(why) => format!("index    damaged: {why}"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Position;

    #[test]
    fn a_report_names_what_is_damaged_and_nothing_that_is_not() {
        let sound = IndexReport::Sound {
            position: Position(90),
            findings: 4,
            findings_open: 3,
        };
        let good = CheckReport {
            journal_bytes: 100,
            records: 5,
            damaged: 0,
            undecodable: 0,
            cut_bytes: 0,
            journal_end: Position(100),
            index: sound,
        };
        let expected = [
            "journal  5 records, 100 bytes",
            "index    4 findings, 3 open, 10 bytes behind the journal",
        ];
        assert_eq!(lines(&good), expected);
        let index = IndexReport::Damaged("checksum".into());
        let bad = lines(&CheckReport {
            damaged: 2,
            index,
            ..good
        });
        assert_eq!(bad[1], "         2 damaged places, left out");
        assert_eq!(bad[2], "index    damaged: checksum");
    }
}
