//! `fieldspool check`: all that is wrong with the configuration, and with `--plan` what will be polled.

use std::io::Write;

use super::Failure;
use super::args::Check;
use crate::config::report;

/// Exit 0 if there is no fault, 78 if there is, 66 if there is nothing to check.
pub(super) fn check(check: &Check, out: &mut dyn Write) -> Result<u8, Failure> {
    let place = check.file.as_deref().or(check.place.config.as_deref());
    let report = report::check(place, check.plan, crate::clock::wall_us());
    out.write_all(report.text.as_bytes())?;
    Ok(report.exit)
}
