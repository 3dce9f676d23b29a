//! From text to types, with errors that say which field, what was given and what would be right.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::{
    bounds,
    problem::{Position, Problem, did_you_mean, join},
};

/// Reads JSON. `at` is where in the configuration it belongs, such as `services.web`; it starts
/// the problem's field. Follow with [`Config::check`](super::Config::check).
///
/// # Errors
///
/// The first fault of syntax or type.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8], at: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    // What cannot be read at all is the first thing to say.
    let document: Value =
        serde_json::from_slice(bytes).map_err(|error| json_syntax(bytes, &error))?;
    parsed.map_err(|error| {
        let inner = error.inner();
        let mut problem = fault(&document, at, error.path(), &json_message(inner));
        problem.at = Some(json_position(inner));
        problem
    })
}

/// Reads TOML. Follow with [`Config::check`](super::Config::check).
///
/// # Errors
///
/// The first fault of syntax or type.
pub fn from_toml<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        malformed(bytes, position(bytes, offset), "TOML", "UTF-8 text")
    })?;
    let place = |error: &toml::de::Error| position(bytes, error.span().map_or(0, |s| s.start));
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| malformed(bytes, place(&error), "TOML", error.message()))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let document = toml::from_str(text).unwrap_or_default();
        let mut problem = fault(&document, "", error.path(), error.inner().message());
        problem.at = Some(place(error.inner()));
        problem
    })
}

fn json_syntax(bytes: &[u8], error: &serde_json::Error) -> Problem {
    malformed(bytes, json_position(error), "JSON", &json_message(error))
}

fn json_position(error: &serde_json::Error) -> Position {
    Position {
        line: error.line(),
        column: error.column(),
    }
}

/// The message without its position.
fn json_message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => message,
    }
}

fn position(bytes: &[u8], offset: usize) -> Position {
    let before = &bytes[..offset.min(bytes.len())];
    let start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |n| n + 1);
    Position {
        line: before.iter().filter(|b| **b == b'\n').count() + 1,
        column: before.len() - start + 1,
    }
}

/// Text that is not of the format. The value is the line's, from shortly before the fault.
fn malformed(bytes: &[u8], at: Position, format: &str, message: &str) -> Problem {
    let line = bytes.split(|b| *b == b'\n').nth(at.line.saturating_sub(1));
    let line = line.unwrap_or_default();
    let start = at.column.saturating_sub(40).min(line.len());
    let value = String::from_utf8_lossy(&line[start..]);
    let mut problem = Problem::new("", value.trim(), format!("valid {format}: {message}"));
    problem.at = Some(at);
    problem
}

/// What serde's message says of a document that has the wrong types.
fn fault(document: &Value, at: &str, path: &Path, message: &str) -> Problem {
    let mut field = at.to_owned();
    let mut key = "";
    let mut value = Some(document);
    for segment in path.iter() {
        match segment {
            Segment::Map { key: name } => {
                field = join(&field, name);
                value = value.and_then(|value| value.get(name));
                key = name;
            }
            Segment::Seq { index } => {
                field += &format!("[{index}]");
                value = value.and_then(|value| value.get(index));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let value = match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    // The last one: what was given is quoted before it.
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let quoted: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let one_of = |wrong| {
        let names = quoted.iter().copied();
        format!("{}{}", quoted.join(", "), did_you_mean(wrong, names))
    };
    // Where serde names the field, the path may end before it.
    let named = |name: &str| match key == name {
        true => field.clone(),
        false => join(&field, name),
    };
    let (kind, name) = what.split_once(" `").unwrap_or_default();
    let name = name.strip_suffix('`').unwrap_or(name);
    match kind {
        "missing field" => {
            Problem::new(join(&field, name), "", "a value, as the field is required")
        }
        "duplicate field" => Problem::new(named(name), name, "each name only once"),
        "unknown field" => Problem::new(
            named(name),
            name,
            format!("one of the fields {}", one_of(name)),
        ),
        "unknown variant" => Problem::new(field, value, format!("one of {}", one_of(name))),
        _ if expected.is_empty() => Problem::new(field, value, plain(key, message)),
        _ => Problem::new(field, value, plain(key, expected)),
    }
}

/// Serde's and the standard library's words for what they expect, in a reader's words.
fn plain(key: &str, expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" => bounds::say_number(key),
        "i32" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a duration" => bounds::say_duration(key),
        "a string" | "path string" => "text in quotes".to_owned(),
        // What the formats say where a name such as "nat" belongs.
        "wanted string or table" | "expected value" => "text in quotes".to_owned(),
        "IP address" | "invalid IP address syntax" => "an IPv4 or IPv6 address".to_owned(),
        "socket address" | "invalid socket address syntax" => {
            "an address and port such as 10.0.0.11:8080 or [2001:db8::11]:8080".to_owned()
        }
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        _ if expected.starts_with("struct ") => "a table".to_owned(),
        _ => expected.to_owned(),
    }
}
