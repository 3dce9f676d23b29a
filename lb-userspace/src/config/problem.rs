//! What is wrong with a configuration, for people and for the API.

use std::{
    fmt::{self, Display},
    io,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Characters of a value that a [`Problem`] shows.
const VALUE_CHARS: usize = 80;
/// Names that an expectation lists before it says "and N more".
const LISTED: usize = 10;

/// One wrong field: where, what was given, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Path of the field, such as `services.web.pool`; empty for the document as a whole.
    pub field: String,
    /// The value as given, on one line and shortened to 80 characters; empty where none was.
    pub value: String,
    /// What would be right; reads on after "expected".
    pub expected: String,
    /// Where in the text; only syntax and types are checked while it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
}

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Byte of the line.
    pub column: usize,
}

impl Problem {
    /// A problem at no known place in a text. Shortens the value and escapes control characters.
    pub fn new(
        field: impl Into<String>,
        value: impl Display,
        expected: impl Into<String>,
    ) -> Problem {
        Problem {
            field: field.into(),
            value: one_line(&value.to_string()),
            expected: expected.into(),
            at: None,
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        if self.value.is_empty() {
            write!(f, "missing or empty, expected {}", self.expected)
        } else {
            write!(f, "got \"{}\", expected {}", self.value, self.expected)
        }
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with a configuration; never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one.
    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        value: impl Display,
        expected: impl Into<String>,
    ) {
        self.0.push(Problem::new(field, value, expected));
    }
}

impl Display for Problems {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot read the configuration: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It breaks the rules. Shown a line a problem, each after the file's name and, where
    /// known, line and column.
    #[error("{}", lines(file, problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
}

fn lines(file: &std::path::Path, problems: &Problems) -> String {
    let line = |problem: &Problem| match problem.at {
        Some(Position { line, column }) => {
            format!("{}:{line}:{column}: {problem}", file.display())
        }
        None => format!("{}: {problem}", file.display()),
    };
    problems.0.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The text, control characters escaped, cut to what a problem shows.
fn one_line(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let mut shown: String = text.chars().take(VALUE_CHARS).map(escape).collect();
    if shown.chars().count() > VALUE_CHARS || text.chars().nth(VALUE_CHARS).is_some() {
        shown = shown.chars().take(VALUE_CHARS - 3).collect::<String>() + "...";
    }
    shown
}

/// `a, b, c`, or `a, b and 7 more` where there are many.
pub(crate) fn listed<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(LISTED).map(|n| n.to_string()).collect();
    match (shown.is_empty(), names.count()) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// ` (did you mean "x"?)` where one of the names is close to the wrong one, else nothing.
pub(crate) fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    // A third of the letters, as compilers do.
    let close = wrong.chars().count().max(3) / 3;
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= close)
        .min()
        .map_or_else(String::new, |(_, name)| {
            format!(" (did you mean \"{name}\"?)")
        })
}

/// The path of a map's entry: a name that would read as two is quoted, as TOML does.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && (key.bytes()).all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = match plain {
        true => key.to_owned(),
        false => one_line(&format!("{key:?}")),
    };
    match path {
        "" => key,
        _ => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn display_is_one_line_with_field_and_value(
            keys in prop::collection::vec(any::<String>(), 1..4),
            value in any::<String>(),
        ) {
            let field = keys.iter().fold(String::new(), |path, key| join(&path, key));
            let problem = Problem::new(field, &value, "something else");
            let shown = problem.to_string();
            prop_assert!(shown.contains(&problem.field) && shown.contains(&problem.value));
            prop_assert!(problem.value.chars().count() <= VALUE_CHARS);
            prop_assert_eq!(problem.value.is_empty(), value.is_empty());
            prop_assert!(!shown.chars().any(char::is_control), "{:?}", shown);
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(one_line(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(one_line(&"x".repeat(81)), "x".repeat(77) + "...");
        assert_eq!(one_line("a\nb"), "a\\nb");
    }

    #[test]
    fn lists_end() {
        assert_eq!(listed::<&str>([]), "none");
        assert_eq!(listed(["a", "b"]), "a, b");
        assert_eq!(listed(0..12), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }

    #[test]
    fn paths_stay_unambiguous() {
        assert_eq!(join("services", "web-1"), "services.web-1");
        assert_eq!(join("services", "a.b"), "services.\"a.b\"");
        assert_eq!(join("services", ""), "services.\"\"");
    }

    #[test]
    fn guesses_only_what_is_close() {
        assert_eq!(
            did_you_mean("wbe", ["db", "web"]),
            " (did you mean \"web\"?)"
        );
        assert_eq!(did_you_mean("mail", ["db", "web"]), "");
    }
}
