//! The program: arguments → command → exit code.

use std::process::ExitCode;

use bellhop::command::{self, Arguments};

fn main() -> ExitCode {
    // Before any thread: a `.env` file fills in what the environment does not say.
    let dotenv = dotenvy::dotenv();
    let arguments = Arguments::of_process();
    if let Err(error) = dotenv
        && !error.not_found()
    {
        command::complain(&format!(".env: {error}"));
        return ExitCode::from(command::USAGE);
    }
    let program = std::env::args().next();
    command::run(arguments, program.as_deref().unwrap_or("bellhop"))
}
