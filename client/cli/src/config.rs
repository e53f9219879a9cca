//! Where a flag's value comes from: the flag, the environment, the file, the default.
//!
//! The file's values become the parser's defaults, so that they are read by the same rules
//! as flags; the environment is the parser's own. Both are added for every flag there is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::args::Cli;
use crate::exit::{Exit, Failure};

/// Longest configuration file, in bytes.
const FILE_LEN_MAX: u64 = 1024 * 1024;
/// The flag that names the file; it has no place in the file itself.
const CONFIG_FLAG: &str = "config";
const LOG_LEVEL_FLAG: &str = "log-level";

/// What the command line came to.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A command to run.
    Cli(Box<Cli>),
    /// It was answered: help, version, or an error that has been printed.
    Answered(Exit),
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error("cannot read the configuration {path:?}: {reason}")]
    Read { path: PathBuf, reason: io::Error },
    #[error("the configuration {path:?} is longer than {FILE_LEN_MAX} bytes")]
    TooLong { path: PathBuf },
    #[error("the configuration {path:?} is not TOML: {reason}")]
    Syntax { path: PathBuf, reason: Box<toml::de::Error> },
    #[error(
        "unknown key {key:?} in the configuration; there is one table for each command, such as \
         [push], and its keys are the flags' names"
    )]
    UnknownKey { key: String },
    #[error("{key:?} in the configuration must be {expected}, not {found}")]
    Kind { key: String, expected: &'static str, found: &'static str },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Read { .. } | ConfigError::TooLong { .. } => Self::failed(error),
            _ => Self::usage(error),
        }
    }
}

/// Parses `arguments` (with the program's name in front) together with environment and file.
///
/// # Errors
/// [`Failure`] if the configuration file cannot be used. Errors of the command line are
/// printed and answered.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Parsed, Failure> {
    let file = file_named(&arguments).map(load).transpose()?.unwrap_or_default();
    let command = with_file(with_variables(Cli::command()), &file)?;
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| {
        let table = matches.subcommand_name().and_then(|name| file.get(name));
        let level = table.and_then(|table| table.get(LOG_LEVEL_FLAG)).and_then(Value::as_str);
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.log_level = cli.log_level.or_else(|| level.map(str::to_owned));
        Ok(cli)
    });
    match parsed {
        Ok(cli) => Ok(Parsed::Cli(Box::new(cli))),
        Err(error) => {
            // If nobody takes the text, the exit code still says it.
            let _ = error.print();
            Ok(Parsed::Answered(if error.exit_code() == 0 { Exit::Done } else { Exit::Usage }))
        }
    }
}

/// The environment variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("DISTRIBUTARY_{}", flag.to_uppercase().replace('-', "_"))
}

/// The command with environment variables, as completions and the parser see it.
pub(crate) fn with_variables(command: clap::Command) -> clap::Command {
    command.mut_args(add_variable).mut_subcommands(with_variables)
}

fn add_variable(arg: Arg) -> Arg {
    let Some(name) = arg.get_long().map(variable) else {
        return arg;
    };
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = arg.env(name).hide_env(true);
    if is_flag { arg.value_parser(BoolishValueParser::new()) } else { arg }
}

/// The file that flag or environment name. Looked for before parsing, since the file decides
/// how the rest is parsed.
fn file_named(arguments: &[OsString]) -> Option<PathBuf> {
    let flag = format!("--{CONFIG_FLAG}");
    let with_value = format!("{flag}=");
    let mut found = None;
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next().filter(|argument| *argument != "--") {
        if *argument == *flag {
            found = rest.next().map(PathBuf::from);
        } else if let Some(value) = argument.to_str().and_then(|a| a.strip_prefix(&with_value)) {
            found = Some(PathBuf::from(value));
        }
    }
    found.or_else(|| std::env::var_os(variable(CONFIG_FLAG)).map(PathBuf::from))
}

fn load(path: PathBuf) -> Result<Table, ConfigError> {
    let mut text = String::new();
    let read =
        File::open(&path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_string(&mut text));
    match read {
        Err(reason) => Err(ConfigError::Read { path, reason }),
        Ok(len) if len as u64 > FILE_LEN_MAX => Err(ConfigError::TooLong { path }),
        Ok(_) => {
            text.parse().map_err(|reason| ConfigError::Syntax { path, reason: Box::new(reason) })
        }
    }
}

/// Makes the file's values the defaults of the flags that they name.
fn with_file(mut command: clap::Command, file: &Table) -> Result<clap::Command, ConfigError> {
    let globals: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|long| *long != CONFIG_FLAG)
        .map(str::to_owned)
        .collect();
    for (name, value) in file {
        let Some(subcommand) = command.find_subcommand(name).cloned() else {
            return Err(ConfigError::UnknownKey { key: name.clone() });
        };
        let table = as_table(name, value)?;
        let set = with_table(subcommand, name, table, &globals)?;
        command = command.mut_subcommand(name, |_| set);
    }
    Ok(command)
}

fn with_table(
    mut command: clap::Command,
    path: &str,
    table: &Table,
    globals: &[String],
) -> Result<clap::Command, ConfigError> {
    for (name, value) in table {
        let key = format!("{path}.{name}");
        if has_flag(&command, name) {
            command = with_default(command, &key, name, value)?;
        } else if globals.contains(name) {
            if !value.is_str() {
                return Err(wrong_kind(&key, "a string", value));
            }
        } else if let Some(nested) = command.find_subcommand(name).cloned() {
            let set = with_table(nested, &key, as_table(&key, value)?, globals)?;
            command = command.mut_subcommand(name, |_| set);
        } else {
            command = with_nested_default(command, &key, name, value)?;
        }
    }
    Ok(command)
}

/// Sets a flag that only the subcommands of `command` have, such as `dir` of `certs`.
fn with_nested_default(
    mut command: clap::Command,
    key: &str,
    name: &str,
    value: &Value,
) -> Result<clap::Command, ConfigError> {
    let holders: Vec<clap::Command> =
        command.get_subcommands().filter(|nested| has_flag(nested, name)).cloned().collect();
    if holders.is_empty() {
        return Err(ConfigError::UnknownKey { key: key.to_owned() });
    }
    for holder in holders {
        let id = holder.get_name().to_owned();
        let set = with_default(holder, key, name, value)?;
        command = command.mut_subcommand(id, |_| set);
    }
    Ok(command)
}

fn has_flag(command: &clap::Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(name))
}

fn with_default(
    command: clap::Command,
    key: &str,
    name: &str,
    value: &Value,
) -> Result<clap::Command, ConfigError> {
    let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(name)) else {
        return Err(ConfigError::UnknownKey { key: key.to_owned() });
    };
    let values = match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(set)) => vec![set.to_string()],
        (ArgAction::SetTrue, other) => return Err(wrong_kind(key, "true or false", other)),
        (ArgAction::Append, Value::Array(items)) => {
            items.iter().map(|item| scalar(key, item)).collect::<Result<_, _>>()?
        }
        (_, single) => vec![scalar(key, single)?],
    };
    let id = arg.get_id().clone();
    Ok(command.mut_arg(id, |arg| arg.required(false).default_values(values)))
}

fn scalar(key: &str, value: &Value) -> Result<String, ConfigError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        other => Err(wrong_kind(key, "a string or a number", other)),
    }
}

fn as_table<'a>(key: &str, value: &'a Value) -> Result<&'a Table, ConfigError> {
    value.as_table().ok_or_else(|| wrong_kind(key, "a table", value))
}

fn wrong_kind(key: &str, expected: &'static str, found: &Value) -> ConfigError {
    ConfigError::Kind { key: key.to_owned(), expected, found: found.type_str() }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::Duration;

    use clap::error::ErrorKind;
    use shared::job::{Keep, Quorum, Selector};

    use super::*;
    use crate::args::{CertsCommand, Command, PushArgs};

    /// Parses with the text of a configuration file and without the environment.
    fn parsed(file: &str, arguments: &[&str]) -> Result<Cli, String> {
        let file: Table = file.parse().unwrap();
        let command = with_file(Cli::command(), &file).map_err(|error| error.to_string())?;
        let arguments = ["distributary"].iter().chain(arguments);
        let matches = command.try_get_matches_from(arguments).map_err(|e| e.to_string())?;
        Cli::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    fn push(file: &str, arguments: &[&str]) -> PushArgs {
        match parsed(file, arguments).unwrap().command {
            Command::Push(push) => push,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_goes_before_the_file_and_that_before_the_default() {
        let file = "[push]\nbase = 'file:1'\nquorum = 2\nallow-case = true\nto = ['a', 'k=v']\n";
        let args = push(file, &["push", "x", "--base", "flag:1", "--priority", "9"]);
        assert_eq!(args.contact.base(), Ok("flag:1"));
        assert_eq!((args.quorum, args.priority, args.allow_case), (Quorum::Count(2), 9, true));
        assert_eq!(args.to.len(), 2);
        assert_eq!((args.keep.0, args.grace), (Keep::Forever, Duration::from_secs(300)));
        assert!(args.contact.identity().is_err());
        let args = push(file, &["push", "x", "--to", "b"]);
        assert_eq!(args.to, [Selector::Names(vec!["b".parse().unwrap()])]);
        assert_eq!(args.contact.base(), Ok("file:1"));
    }

    #[test]
    fn a_table_reaches_the_subcommands_below_it() {
        let file =
            "[job]\nbase = 'file:1'\n[certs]\ndir = 'pki'\n[certs.issue]\nvalid-for = '1h'\n";
        let Command::Job(job) = parsed(file, &["job", "ls"]).unwrap().command else { panic!() };
        assert_eq!(job.contact.base(), Ok("file:1"));
        let flag = ["job", "ls", "--base", "flag:1"];
        let Command::Job(job) = parsed(file, &flag).unwrap().command else { panic!() };
        assert_eq!(job.contact.base(), Ok("flag:1"));
        let issue = ["certs", "issue", "--role", "node", "--name", "n", "--out", "o"];
        let Command::Certs(certs) = parsed(file, &issue).unwrap().command else { panic!() };
        let CertsCommand::Issue(issue) = certs.command else { panic!() };
        assert_eq!((issue.dir, issue.valid_for), (PathBuf::from("pki"), Duration::from_secs(3600)));
        assert!(parsed(file, &["certs", "init"]).is_ok());
    }

    #[test]
    fn unknown_keys_and_wrong_kinds_are_named() {
        for (file, named) in [
            ("[push]\nbass = 'x'", "push.bass"),
            ("[pusch]\nbase = 'x'", "pusch"),
            ("base = 'x'", "base"),
            ("push = 1", "push"),
            ("[push]\npaths = ['x']", "push.paths"),
            ("[push]\nconfig = 'x'", "push.config"),
            ("[node.x]\ny = 1", "node.x"),
            ("[certs.issue]\nnope = 1", "certs.issue.nope"),
            ("[push]\njson = 'yes'", "push.json"),
            ("[push]\nbase = ['a:1']", "push.base"),
            ("[push]\nlog-level = 3", "push.log-level"),
        ] {
            let error = parsed(file, &["push", "x"]).unwrap_err();
            assert!(error.contains(&format!("{named:?}")), "{file}: {error}");
        }
        assert!(parsed("[push]\nlog-level = 'debug'", &["push", "x"]).is_ok());
    }

    #[test]
    fn a_wrong_value_in_the_file_is_an_error_of_its_flag() {
        let error = parsed("[push]\nrate = 'fast'", &["push", "x"]).unwrap_err();
        assert!(error.contains("--rate") && error.contains("\"fast\""), "{error}");
    }

    #[test]
    fn the_file_is_found_among_the_arguments() {
        let found = |arguments: &[&str]| {
            file_named(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
        };
        let path = Some(PathBuf::from("f"));
        assert_eq!(found(&["d", "push", "--config", "f", "x"]), path);
        assert_eq!(found(&["d", "--config=f", "push", "x"]), path);
        assert_eq!(found(&["d", "push", "--", "--config", "f"]), None);
    }

    #[test]
    fn every_flag_has_its_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                if let Some(long) = arg.get_long() {
                    assert_eq!(arg.get_env(), Some(OsStr::new(&variable(long))), "{long}");
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&with_variables(Cli::command()));
        assert_eq!(variable("no-progress"), "DISTRIBUTARY_NO_PROGRESS");
    }

    #[test]
    fn paths_end_options_and_must_be_there() {
        let paths = |arguments: &[&str]| push("", arguments).paths;
        assert_eq!(paths(&["push", "DIR/", "."])[0].as_os_str(), "DIR/");
        assert_eq!(
            paths(&["push", "--json", "--", "--json", "-x"]),
            [PathBuf::from("--json"), "-x".into()]
        );
        let kind = |arguments: &[&str]| {
            let arguments = ["distributary"].iter().chain(arguments);
            Cli::command().try_get_matches_from(arguments).map(drop).map_err(|error| error.kind())
        };
        assert_eq!(kind(&["push"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(kind(&["push", "--live", "-"]), Ok(()));
        assert_eq!(kind(&["push", "x", "--object", "o"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(kind(&["push", "x", "--priority", "10"]), Err(ErrorKind::ValueValidation));
        assert_eq!(kind(&["push", "x", "--name", "all"]), Err(ErrorKind::ValueValidation));
        assert_eq!(kind(&["push", "x", "--name", "Up"]), Err(ErrorKind::ValueValidation));
        assert_eq!(kind(&["push", "x", "--quorum", "0"]), Err(ErrorKind::ValueValidation));
        assert_eq!(kind(&["push", "x", "--bogus"]), Err(ErrorKind::UnknownArgument));
        assert_eq!(kind(&["nodes"]), Ok(()));
        assert_eq!(kind(&["nodes", "label", "n", "k=v", "x=y", "--base", "b:1"]), Ok(()));
        assert_eq!(kind(&["nodes", "label", "n"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(kind(&["job", "show"]), Err(ErrorKind::MissingRequiredArgument));
    }
}
