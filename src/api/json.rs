//! Reads JSON strictly: each name once, no nesting that hurts, and errors that tell where but never repeat what.

use std::borrow::{Borrow, Cow};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;

/// Deeper nesting is refused before it can exhaust the stack; `serde_json` itself stops at 128.
const MAX_DEPTH: usize = 100;

/// The name of a member; copied only where it is spelled with escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl Borrow<str> for Name<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text of a JSON document (RFC 8259), any value, that every later reader reads the same way.
pub(super) fn check(body: &[u8]) -> Result<&str, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::malformed(
            "body_empty",
            "The body is empty; a JSON object is expected.",
        ));
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(Problem::malformed("utf8_invalid", "The body is not UTF-8."));
    };

    let fault = Cell::new(Fault::Syntax);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let walked = Walk {
        depth: 0,
        fault: &fault,
    }
    .deserialize(&mut deserializer);
    match walked.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(text),
        Err(error) => Err(fault.get().at(error.line(), error.column())),
    }
}

#[derive(Clone, Copy)]
enum Fault {
    Syntax,
    Deep,
    Repeated,
}

impl Fault {
    fn at(self, line: usize, column: usize) -> Problem {
        let (code, what) = match self {
            Self::Syntax => ("json_invalid", "The body is not JSON"),
            Self::Deep => ("json_too_deep", "The body is nested too deeply"),
            Self::Repeated => (
                "json_duplicate_key",
                "An object of the body has the same name twice",
            ),
        };
        Problem::malformed(code, format!("{what}: line {line}, column {column}."))
    }
}

/// Visits a value and all that is in it, and keeps nothing.
struct Walk<'f> {
    /// Containers around the value.
    depth: usize,
    /// Why the walk ends early, for serde's errors cannot say.
    fault: &'f Cell<Fault>,
}

impl Walk<'_> {
    fn inside<E: de::Error>(&self) -> Result<Walk<'_>, E> {
        if self.depth == MAX_DEPTH {
            self.fault.set(Fault::Deep);
            return Err(E::custom("nested too deeply"));
        }
        Ok(Walk {
            depth: self.depth + 1,
            fault: self.fault,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Walk { depth, fault } = self.inside()?;
        while items.next_element_seed(Walk { depth, fault })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Walk { depth, fault } = self.inside()?;
        // Ordered rather than hashed: most objects are small, and nobody can choose names that collide.
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<Name<'de>>()? {
            if !names.insert(name) {
                fault.set(Fault::Repeated);
                return Err(de::Error::custom("the same name twice"));
            }
            members.next_value_seed(Walk { depth, fault })?;
        }
        Ok(())
    }
}

/// A checked value without the spaces around its tokens.
pub(super) struct Compact {
    pub(super) text: String,
    /// Containers inside each other, with the value itself.
    pub(super) depth: usize,
}

/// Takes the spaces out of checked JSON; strings and numbers stay as they are spelled.
pub(super) fn compact(json: &str) -> Compact {
    let mut text = String::with_capacity(json.len());
    let (mut open, mut depth) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    // Whatever means something is one byte, and never a part of another character.
    let mut kept = 0;
    for (at, byte) in json.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                text.push_str(&json[kept..at]);
                kept = at + 1;
            }
            b'"' => in_string = true,
            b'{' | b'[' => {
                open += 1;
                depth = depth.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    text.push_str(&json[kept..]);
    Compact { text, depth }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &[u8]) -> &'static str {
        match check(body) {
            Ok(_) => "",
            Err(problem) => problem.code(),
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_reason() {
        for (body, expected) in [
            (&b"{}"[..], ""),
            (
                br#" {"a": [1, -0, 2.5e3, null, true, "\u00e9\ud83d\ude00"], "b": {"a": 1}} "#,
                "",
            ),
            (b"[]", ""),
            (b"7", ""),
            (b"", "body_empty"),
            (b" \r\n\t", "body_empty"),
            (b"\xff", "utf8_invalid"),
            (b"{\"a\":\"\xed\xa0\x80\"}", "utf8_invalid"),
            (b"\xef\xbb\xbf{}", "json_invalid"),
            (b"{", "json_invalid"),
            (b"{} {}", "json_invalid"),
            (b"{'a': 1}", "json_invalid"),
            (b"{\"a\": NaN}", "json_invalid"),
            (b"{\"a\": 1e309}", "json_invalid"),
            (b"{\"a\": 01}", "json_invalid"),
            (b"{\"a\": \"\n\"}", "json_invalid"),
            (br#"{"a": "\ud800"}"#, "json_invalid"),
            (br#"{"a": "\ud800\ud800"}"#, "json_invalid"),
            (br#"{"a": 1, "b": 2, "a": 1}"#, "json_duplicate_key"),
            (br#"{"a": 1, "\u0061": 1}"#, "json_duplicate_key"),
            (br#"[{"b": {"a": 1, "a": 2}}]"#, "json_duplicate_key"),
        ] {
            assert_eq!(code(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn nesting_has_an_end() {
        for open in ["[", "{\"a\":"] {
            assert_eq!(code(open.repeat(10_000).as_bytes()), "json_too_deep");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(code(nested(MAX_DEPTH).as_bytes()), "");
        assert_eq!(code(nested(MAX_DEPTH + 1).as_bytes()), "json_too_deep");
    }

    #[test]
    fn an_error_tells_where_but_not_what() {
        let problem = check(b"{\n \"hunter2\" \"x\"}").unwrap_err();
        assert_eq!(
            problem.to_string(),
            "The body is not JSON: line 2, column 12."
        );
    }

    #[test]
    fn compacting_keeps_the_tokens() {
        for (json, text, depth) in [
            ("7", "7", 0),
            (" { } ", "{}", 1),
            (
                "{ \"a b\" : [ 1 , \" \\\" { \" ] }",
                "{\"a b\":[1,\" \\\" { \"]}",
                2,
            ),
            ("[[], [[\"\\\\\"], [ ]]]", "[[],[[\"\\\\\"],[]]]", 3),
        ] {
            let compact = compact(json);
            assert_eq!(
                (compact.text.as_str(), compact.depth),
                (text, depth),
                "{json}"
            );
        }
    }
}
