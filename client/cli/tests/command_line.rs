//! The binary from outside: exit codes, configuration, certificates.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test like the tests do")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distributary"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISTRIBUTARY_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).args(arguments).envs(variables.iter().copied());
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_command_lines_are_exit_2_and_help_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let wrong: [&[&str]; 7] = [
        &[],
        &["push"],
        &["push", "x"],
        &["push", "x", "--base", "b:1"],
        &["push", "x", "--rate", "fast"],
        &["certs", "issue"],
        &["nosuch"],
    ];
    for arguments in wrong {
        let output = run(dir.path(), arguments, &[]);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", errors(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in
        [["--help"].as_slice(), &["push", "--help"], &["--version"], &["completions", "bash"]]
    {
        let output = run(dir.path(), arguments, &[]);
        assert_eq!((code(&output), output.stdout.is_empty()), (0, false), "{arguments:?}");
    }
}

#[test]
fn flag_goes_before_environment_before_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "[certs]\ndir = 'of-file'\n").unwrap();
    let init = |more: &[&str], variables: &[(&str, &str)]| {
        let arguments = [["certs", "init"].as_slice(), more].concat();
        let output = run(dir.path(), &arguments, variables);
        assert_eq!(code(&output), 0, "{}", errors(&output));
    };
    let exists = |name: &str| dir.path().join(name).join("ca.pem").exists();
    let variable = [("DISTRIBUTARY_DIR", "of-variable")];
    init(&["--config", "c.toml", "--dir", "of-flag"], &variable);
    assert!(exists("of-flag") && !exists("of-variable") && !exists("of-file"));
    init(&["--config", "c.toml"], &variable);
    assert!(exists("of-variable") && !exists("of-file"));
    init(&[], &[("DISTRIBUTARY_CONFIG", "c.toml")]);
    assert!(exists("of-file"));
}

#[test]
fn a_file_with_an_unknown_key_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), "[push]\nbass = 'b:1'\n").unwrap();
    let output = run(dir.path(), &["certs", "init", "--dir", "d", "--config", "c.toml"], &[]);
    assert_eq!((code(&output), dir.path().join("d").exists()), (2, false));
    assert!(errors(&output).contains("push.bass"), "{}", errors(&output));
    let output = run(dir.path(), &["certs", "init", "--dir", "d", "--config", "none.toml"], &[]);
    assert_eq!(code(&output), 1, "{}", errors(&output));
}

#[test]
fn a_flag_without_value_is_set_by_a_variable_too() {
    let dir = tempfile::tempdir().unwrap();
    for (value, said) in
        [("1", "--live"), ("true", "--live"), ("false", "--base"), ("perhaps", "perhaps")]
    {
        let output = run(dir.path(), &["push", "a-path"], &[("DISTRIBUTARY_LIVE", value)]);
        assert!(errors(&output).contains(said), "{value}: {}", errors(&output));
    }
}

#[test]
fn identities_are_made_and_checked_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let issue = |role: &str, name: &str, out: &str| {
        let arguments =
            ["certs", "issue", "--dir", "pki", "--role", role, "--name", name, "--out", out];
        code(&run(dir.path(), &arguments, &[]))
    };
    let init = ["certs", "init", "--dir", "pki"];
    assert_eq!((code(&run(dir.path(), &init, &[])), code(&run(dir.path(), &init, &[]))), (0, 1));
    assert_eq!(issue("client", "c1", "c1"), 0);
    assert_eq!(issue("client", "c1", "c1"), 1, "an identity is not overwritten");
    assert_eq!(issue("client", "all", "x"), 1);
    assert_eq!(issue("king", "c2", "x"), 2);
    assert_eq!(issue("node", "n1", "n1"), 0);
    let push = |identity: &str, path: &str| {
        let arguments = ["push", path, "--base", "127.0.0.1:1", "--identity", identity];
        let output = run(dir.path(), &arguments, &[]);
        (code(&output), errors(&output))
    };
    let (exit, text) = push("n1", "pki");
    assert_eq!(exit, 5, "{text}");
    let (exit, text) = push("c1", "missing-path");
    assert!(exit == 1 && text.contains("missing-path"), "{exit} {text}");
    std::os::unix::fs::symlink("pki", dir.path().join("link")).unwrap();
    let (exit, text) = push("c1", "link");
    assert!(exit == 1 && text.contains("link"), "{exit} {text}");
    let loose = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(dir.path().join("c1/key.pem"), loose).unwrap();
    let (exit, text) = push("c1", "pki");
    assert!(exit == 1 && text.contains("key.pem"), "{exit} {text}");
}
