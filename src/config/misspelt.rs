//! Variables that look like ours and that no setting reads: typing errors, and settings of another version.

use std::collections::BTreeSet;
use std::fmt;

use clap::Command;
use strsim::levenshtein as distance;

/// What ours begin with.
const PREFIX: &str = "BELLHOP_";

/// More changes of single characters than this, and two names have nothing to do with each other.
const FAR: usize = 4;

/// The same for settings with conventional names, which other programs' variables are named like.
const NEAR: usize = 2;

/// A variable of the environment that nothing reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    pub name: String,
    /// The name that was perhaps meant.
    pub meant: Option<String>,
}

impl fmt::Display for Misspelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is read by nothing", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, "; is {meant} meant?"),
            None => Ok(()),
        }
    }
}

/// The variables of the environment, `.env` and all, that neither `command` nor any of its subcommands reads, and that begin
/// like ours, or are almost one with a conventional name that is not set.
#[must_use]
pub fn misspelt(command: &Command) -> Vec<Misspelt> {
    let known = variables(command);
    let (ours, conventional): (BTreeSet<_>, BTreeSet<_>) =
        known.into_iter().partition(|name| name.starts_with(PREFIX));
    let unset = |name: &String| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let missing = conventional
        .iter()
        .filter(|name| unset(name))
        .cloned()
        .collect();
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| !value.is_empty() && !is_of_kubernetes(name, value))
        .filter(|(name, _)| !ours.contains(name) && !conventional.contains(name))
        .filter_map(|(name, _)| {
            let is_like_ours = name.starts_with(PREFIX);
            let meant = match is_like_ours {
                true => nearest(&name, &ours, FAR),
                false => nearest(&name, &missing, NEAR),
            };
            (is_like_ours || meant.is_some()).then_some(Misspelt { name, meant })
        })
        .collect()
}

fn variables(command: &Command) -> BTreeSet<String> {
    let own = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str());
    let own: BTreeSet<String> = own.map(str::to_owned).collect();
    let of_subcommands = command.get_subcommands().flat_map(variables);
    own.into_iter().chain(of_subcommands).collect()
}

/// Kubernetes tells every pod of a namespace the addresses of a service called `bellhop` by such variables.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP")
        || value.starts_with("tcp://")
}

fn nearest(name: &str, known: &BTreeSet<String>, far: usize) -> Option<String> {
    let distances = known.iter().map(|other| (distance(name, other), other));
    let (distance, other) = distances.min()?;
    (distance <= far).then(|| other.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let known = ["BELLHOP_LISTEN", "BELLHOP_ADMIN_LISTEN", "BELLHOP_URL"];
        let known = known.map(str::to_owned).into();
        for (name, meant) in [
            ("BELLHOP_LISTN", Some("BELLHOP_LISTEN")),
            ("BELLHOP_ADMINLISTEN", Some("BELLHOP_ADMIN_LISTEN")),
            ("BELLHOP_UR", Some("BELLHOP_URL")),
            ("BELLHOP_SOMETHING_ELSE", None),
        ] {
            assert_eq!(nearest(name, &known, FAR).as_deref(), meant, "{name}");
        }
    }

    #[test]
    fn a_distance_counts_single_changes() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("abc", "ac", 1),
        ] {
            assert_eq!(distance(one, other), expected);
            assert_eq!(distance(other, one), expected);
        }
    }

    #[test]
    fn what_kubernetes_sets_is_not_misspelt() {
        assert!(is_of_kubernetes("BELLHOP_PORT", "tcp://10.0.0.1:3000"));
        assert!(is_of_kubernetes("BELLHOP_SERVICE_PORT_HTTP", "3000"));
        assert!(is_of_kubernetes("BELLHOP_PORT_3000_TCP_ADDR", "10.0.0.1"));
        assert!(!is_of_kubernetes("BELLHOP_PORT", "3000"));
    }
}
