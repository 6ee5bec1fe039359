//! The members of a body, taken one by one; whatever breaks a rule is noted, and all of it is answered at once.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::json::{self, Name};
use super::problem::{FieldError, MAX_ERRORS, Problem};
use crate::user::UserId;

const USER_ID: &str = "1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : -, or an integer";

/// The members of an object that are not yet taken, and what was wrong with those that are.
///
/// A reader of a member that breaks a rule notes the error and answers a stand-in; the stand-ins go no
/// further, because [`Fields::finish`] then fails.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the object is in the body, as a JSON pointer.
    place: String,
    members: BTreeMap<Name<'a>, &'a RawValue>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// The members of a body that [`json::check`] let pass, if it is an object.
    pub(super) fn of(body: &'a [u8]) -> Result<Self, Problem> {
        let text = json::check(body)?;
        Self::at(String::new(), text).map_err(|error| Problem::Invalid(vec![error]))
    }

    /// The members of the object `json` at `place`.
    fn at(place: String, json: &'a str) -> Result<Self, FieldError> {
        let is_object = json.trim_start().starts_with('{');
        match serde_json::from_str(json) {
            Ok(members) if is_object => Ok(Self {
                place,
                members,
                errors: Vec::new(),
            }),
            Ok(_) | Err(_) => Err(FieldError {
                pointer: place,
                code: "type_mismatch",
                expected: "an object",
            }),
        }
    }

    /// The members of the object `json`, the value at `name`. What is wrong in there counts when it is
    /// [absorbed](Fields::absorb).
    pub(super) fn inside(&mut self, name: &str, json: &'a str) -> Option<Self> {
        match Self::at(format!("{}/{name}", self.place), json) {
            Ok(inside) => Some(inside),
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    /// Takes over what was wrong inside, with the members that nobody took.
    pub(super) fn absorb(&mut self, mut inside: Self) {
        inside.refuse_rest();
        self.errors.append(&mut inside.errors);
    }

    /// Whether there are more errors already than an answer lists: there is no use in looking for others.
    pub(super) fn has_enough_errors(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// Notes that the object itself breaks a rule.
    pub(super) fn refuse_as_a_whole(&mut self, code: &'static str, expected: &'static str) {
        let pointer = self.place.clone();
        self.errors.push(FieldError {
            pointer,
            code,
            expected,
        });
    }

    /// Whether the member is there, be it `null`.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Whether the member is there and a string.
    pub(super) fn is_text(&self, name: &str) -> bool {
        self.json(name).is_some_and(|json| json.starts_with('"'))
    }

    /// Whether no member is left.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the member is there and `null`; it is taken then.
    pub(super) fn take_null(&mut self, name: &str) -> bool {
        let is_null = self.json(name) == Some("null");
        if is_null {
            self.members.remove(name);
        }
        is_null
    }

    /// Whether [`Fields::take`] would find it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.json(name).is_some_and(|json| json != "null")
    }

    fn json(&self, name: &str) -> Option<&'a str> {
        self.members.get(name).map(|value| value.get())
    }

    /// Notes that the member breaks a rule.
    pub(super) fn refuse(&mut self, name: &str, code: &'static str, expected: &'static str) {
        let pointer = format!("{}/{name}", self.place);
        self.errors.push(FieldError {
            pointer,
            code,
            expected,
        });
    }

    /// The JSON of a member; `null` counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let json = self.members.remove(name)?.get();
        (json != "null").then_some(json)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let json = self.take(name)?;
        let text = serde_json::from_str(json).ok();
        if text.is_none() {
            self.refuse(name, "type_mismatch", "a string");
        }
        text
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let json = self.take(name)?;
        let boolean = serde_json::from_str(json).ok();
        if boolean.is_none() {
            self.refuse(name, "type_mismatch", "true or false");
        }
        boolean
    }

    /// The compact JSON of an object.
    pub(super) fn object(&mut self, name: &str) -> Option<json::Compact> {
        let json = self.take(name)?;
        if !json.starts_with('{') {
            self.refuse(name, "type_mismatch", "an object");
            return None;
        }
        Some(json::compact(json))
    }

    /// The JSON of each item of the array `json`, the value at `name`.
    pub(super) fn items(&mut self, name: &str, json: &'a str) -> Option<Vec<&'a str>> {
        let items = serde_json::from_str::<Vec<&RawValue>>(json).ok();
        if items.is_none() {
            self.refuse(name, "type_mismatch", "an array");
        }
        Some(items?.into_iter().map(RawValue::get).collect())
    }

    /// The user that `json`, the value at `name`, spells.
    pub(super) fn user(&mut self, name: &str, json: &str) -> Option<UserId> {
        let user = serde_json::from_str(json).ok();
        if user.is_none() {
            let is_integer = json
                .bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_digit());
            let code = if json.starts_with('"') || is_integer {
                "user_id_invalid"
            } else {
                "type_mismatch"
            };
            self.refuse(name, code, USER_ID);
        }
        user
    }

    /// Succeeds if no member broke a rule and none is left.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        self.refuse_rest();
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.truncate(MAX_ERRORS);
        Err(Problem::Invalid(self.errors))
    }

    fn refuse_rest(&mut self) {
        for name in std::mem::take(&mut self.members).into_keys() {
            let token = FieldError::token(&name.0);
            self.refuse(&token, "unknown_field", "a field that this request has");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The errors of a refused body as `pointer code`; for one that cannot be read, its code.
    pub(in crate::api) fn errors(problem: Problem) -> Vec<String> {
        let Problem::Invalid(errors) = problem else {
            return vec![problem.code().to_owned()];
        };
        let spell = |error: &FieldError| format!("{} {}", error.pointer, error.code);
        errors.iter().map(spell).collect()
    }

    #[test]
    fn only_an_object_has_members() {
        for body in ["[]", "[1]", "7", "null", "\"text\"", " true"] {
            assert_eq!(
                errors(Fields::of(body.as_bytes()).unwrap_err()),
                [" type_mismatch"],
                "{body}"
            );
        }
        assert!(Fields::of(b"\n{}").unwrap().finish().is_ok());
    }

    #[test]
    fn every_member_that_is_left_is_an_error() {
        let body = format!(
            r#"{{"a/b~c": 1, "{}": 2, "x": null, "known": null}}"#,
            "n".repeat(100)
        );
        let mut fields = Fields::of(body.as_bytes()).unwrap();
        assert_eq!(fields.text("known"), None);
        let long = format!("/{} unknown_field", "n".repeat(64));
        let found = errors(fields.finish().unwrap_err());
        assert_eq!(found, ["/a~1b~0c unknown_field", &long, "/x unknown_field"]);
    }

    #[test]
    fn the_list_of_errors_has_an_end() {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"n{n}\":1")).collect();
        let body = format!("{{{}}}", members.join(","));
        let found = errors(Fields::of(body.as_bytes()).unwrap().finish().unwrap_err());
        assert_eq!(found.len(), MAX_ERRORS);
    }
}
