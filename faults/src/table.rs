//! The table that a run prints: a line for each scenario, and below it what was broken.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use faults::check::{Check, Limits, Percentiles, Report};
use faults::scenario::Scenario;

/// Violations of one kind that are shown in full.
const SHOWN: usize = 3;

/// A line on standard output; a reader that is gone misses nothing.
pub(crate) fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    let _gone = writeln!(output, "{line}").and_then(|()| output.flush());
}

pub(crate) fn head() {
    say(
        "| fault | what | acknowledged (uncertain) | delivered | lost | duplicated (raw) | misordered | crossed | lag p50/p99/max ms | recovery p50/p99/max ms | publish p99 ms (failed) | more MiB | bounds | verdict |",
    );
    say(
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    );
}

pub(crate) fn line(scenario: &Scenario, report: &Report) {
    let figures = &report.figures;
    let Limits {
        lag_p99,
        lag_max,
        recovery_p99,
        recovery_max,
        publish_p99,
        held_publish_p99,
        memory,
        ..
    } = scenario.limits;
    let mut bounds = Vec::new();
    for (name, bound) in [
        ("lag p99", lag_p99),
        ("lag max", lag_max),
        ("recovery p99", recovery_p99),
        ("recovery max", recovery_max),
        ("publish p99", publish_p99),
        ("to the held", held_publish_p99),
        ("MiB", memory),
    ] {
        bounds.extend(bound.map(|bound| format!("{name} {bound}")));
    }
    let verdict = match report.violations.len() {
        0 => "pass".to_owned(),
        count => format!("**FAIL** ({count})"),
    };
    say(&format!(
        "| {} | {} | {} ({}) | {} | {} | {} ({}) | {} | {} | {} | {} | {} ({}) | {} | {} | {verdict} |",
        scenario.id,
        scenario.what,
        figures.acknowledged,
        figures.uncertain,
        figures.delivered,
        report.of(Check::Lost),
        report.of(Check::Duplicated),
        figures.raw_duplicates,
        report.of(Check::Misordered) + report.of(Check::RealTime),
        report.of(Check::WrongUser),
        percentiles(figures.lag),
        percentiles(figures.recovery),
        figures.publish.p99,
        figures.failed_publishes,
        figures.memory,
        bounds.join(", "),
    ));
    for remark in &report.remarks {
        say(&format!("      {remark}"));
    }
}

fn percentiles(percentiles: Percentiles) -> String {
    let Percentiles {
        samples,
        p50,
        p99,
        max,
    } = percentiles;
    match samples {
        0 => "–".to_owned(),
        _ => format!("{p50}/{p99}/{max}"),
    }
}

/// What was broken, a few of each kind, with the lines that show it.
pub(crate) fn violations(report: &Report, history: &Path) {
    let mut by_check: BTreeMap<Check, Vec<_>> = BTreeMap::new();
    for violation in &report.violations {
        by_check.entry(violation.check).or_default().push(violation);
    }
    for (check, violations) in by_check {
        for violation in violations.iter().take(SHOWN) {
            say(&format!(
                "      {check}: {} (lines {:?})",
                violation.what, violation.lines
            ));
        }
        if violations.len() > SHOWN {
            say(&format!("      {check}: {} more", violations.len() - SHOWN));
        }
    }
    if !report.violations.is_empty() {
        say(&format!("      history: {}", history.display()));
    }
}
