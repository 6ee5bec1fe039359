//! What is said twice says the same: README and `--help`, README and metrics, migrations, floors of the lock file.

use bellhop::command::Arguments;
use bellhop::metrics::Metrics;
use clap::CommandFactory;

const README: &str = include_str!("../../README.md");
const LOCK: &str = include_str!("../../Cargo.lock");

#[test]
fn every_setting_is_in_the_readme_with_its_default() {
    let command = Arguments::command();
    let mut settings = 0;
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        let row = README
            .lines()
            .find(|line| line.starts_with(&format!("| `{variable}` |")));
        let row =
            row.unwrap_or_else(|| panic!("{variable} is not in the README's table of settings"));
        let flag = format!("`--{}`", argument.get_long().unwrap());
        assert!(row.contains(&flag), "{flag} is not in {row}");
        for default in argument.get_default_values() {
            let default = format!("`{}`", default.to_str().unwrap());
            assert!(
                row.contains(&default),
                "the default {default} is not in {row}"
            );
        }
        settings += 1;
    }
    let rows = README
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("| `--"))
        .count();
    assert_eq!(rows, settings, "the README names a setting that is none");
}

#[test]
fn every_command_is_in_the_readme() {
    for command in Arguments::command().get_subcommands() {
        let name = format!("| `bellhop {}", command.get_name());
        assert!(README.lines().any(|line| line.starts_with(&name)), "{name}");
    }
}

#[test]
fn every_metric_is_in_the_readme() {
    for (name, _) in Metrics::TABLE {
        assert!(README.contains(&format!("| `{name}`")), "{name}");
    }
}

#[test]
fn both_databases_have_the_same_migrations() {
    let files = |database: &str| {
        let folder = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort();
        files
    };
    assert_eq!(files("postgres"), files("sqlite"));
    assert!(!files("postgres").is_empty());
}

/// Below these versions the crates panic on remote input or accept unbounded messages, which no
/// advisory database lists.
#[test]
fn the_lock_file_is_at_or_above_the_floors() {
    for (name, floor) in [
        ("socketioxide", [0, 18, 9]),
        ("engineioxide", [0, 17, 9]),
        ("socketioxide-parser-common", [0, 17, 2]),
        ("jsonwebtoken", [10, 3, 0]),
        ("tracing-subscriber", [0, 3, 20]),
        ("bytes", [1, 11, 1]),
    ] {
        let locked = LOCK
            .split("[[package]]")
            .filter(|package| package.contains(&format!("\nname = \"{name}\"\n")));
        let versions: Vec<[u64; 3]> = locked
            .map(|package| {
                let version = package
                    .split("version = \"")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap();
                let numbers: Vec<_> = version
                    .split('.')
                    .map(|number| number.parse().unwrap())
                    .collect();
                numbers.try_into().unwrap()
            })
            .collect();
        assert!(!versions.is_empty(), "{name} is not in the lock file");
        for version in versions {
            assert!(version >= floor, "{name} {version:?} is below {floor:?}");
        }
    }
}
