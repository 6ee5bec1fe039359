//! Shrinks a cocktail that failed: leaves out one fault after the other, as long as it still fails.

use faults::rig::Trouble;
use faults::scenario::{Options, Scenario, parts, run};

use crate::table::say;

/// Answers which faults can be left out. One pass, so it takes as many runs as there are faults.
pub(crate) async fn shrink(scenario: &Scenario, options: &Options) -> Result<Vec<usize>, Trouble> {
    let mut options = options.clone();
    for fault in 0..parts(options.seconds.unwrap_or(scenario.seconds)) {
        if options.without.contains(&fault) {
            continue;
        }
        options.without.push(fault);
        let outcome = run(scenario, &options).await?;
        if outcome.report.violations.is_empty() {
            options.without.pop();
            say(&format!("      without fault {fault} it passes: kept"));
        } else {
            say(&format!(
                "      without fault {fault} it still fails: left out"
            ));
        }
    }
    Ok(options.without)
}
