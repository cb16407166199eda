//! Running the program as a person does, and looking at what it says.

use cli::rig::output;
use std::process::{Command, Output};
use std::time::Duration;

/// The program that is being tested.
pub(crate) const UNDERSTUDY: &str = env!("CARGO_BIN_EXE_understudy");

/// How a command ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Longer than any command waits by itself, and far longer than the demo takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// The program with these words, without the tester's own settings of Consul.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(UNDERSTUDY);
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONSUL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub(crate) fn run(words: &[&str]) -> Said {
    end(&mut command(words))
}

/// Runs any command to its end.
pub(crate) fn end(command: &mut Command) -> Said {
    said(&output(command, LIMIT).unwrap())
}

/// What an ended program said.
fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Said {
    /// It was refused with this code, in one sentence on one line that holds all these words, and nothing else.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("understudy: "), "{}", self.err);
        assert_eq!(self.out, "");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing: {}", self.err);
        }
    }

    /// It was done.
    #[track_caller]
    pub(crate) fn done(&self) -> &str {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        &self.out
    }

    /// It was done, and said JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.done()).unwrap()
    }
}
