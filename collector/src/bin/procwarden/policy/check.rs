//! `procwarden policy check`: what would be wrong with a file, without a
//! collector. Exit code 2 when there are errors, with `--strict` also when there
//! are warnings.

use std::path::Path;

use serde::Serialize;

use super::local;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{DiagnosticObject, shown};

/// The outcome as an object.
#[derive(Debug, Serialize)]
struct CheckObject {
    file: String,
    ok: bool,
    rules: usize,
    diagnostics: Vec<DiagnosticObject>,
}

pub(super) fn run(
    file: &Path,
    settings: bool,
    strict: bool,
    context: &mut Context,
) -> Result<(), Failure> {
    let now = context.now();
    let out = &mut context.out;
    let is_settings = settings || local::is_settings(file);
    let policy = if is_settings {
        local::load(None, Some(file), now)
    } else {
        local::load(Some(file), None, now)
    }?;
    let outcome = policy.report(out, strict, "the file would not be published");
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
