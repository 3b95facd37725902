//! `procwarden policy check`: what would be wrong with a file, without a
//! collector. Exit code 2 when there are errors.

use std::path::Path;

use serde::Serialize;

use super::local;
use crate::failure::Failure;
use crate::json::{DiagnosticObject, shown};
use crate::output::Output;

/// The outcome as an object.
#[derive(Debug, Serialize)]
struct CheckObject {
    file: String,
    ok: bool,
    rules: usize,
    diagnostics: Vec<DiagnosticObject>,
}

pub(super) fn run(file: &Path, settings: bool, out: &mut Output) -> Result<(), Failure> {
    let is_settings = settings || local::is_settings(file);
    let policy = if is_settings {
        local::load(None, Some(file))
    } else {
        local::load(Some(file), None)
    }?;
    let outcome = policy.report(out, "the file would not be published");
    let name = shown(&file.to_string_lossy());
    if out.json() {
        out.object(&CheckObject {
            file: name,
            ok: outcome.is_ok(),
            rules: policy.rules,
            diagnostics: policy.diagnostics.iter().map(Into::into).collect(),
        })?;
    } else if outcome.is_ok() && is_settings {
        out.line(&format!("{name}: the settings are good"))?;
    } else if outcome.is_ok() {
        out.line(&format!("{name}: {} rule(s), no errors", policy.rules))?;
    }
    outcome
}
