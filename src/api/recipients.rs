//! Whom a body is for: one user, several, or everyone.

use std::collections::HashSet;

use super::fields::Fields;
use crate::publish::Recipients;
use crate::user::UserId;

const ONE_FORM: &str = "exactly one of userId and userIds";
const ONE_FORM_OR_ALL: &str = "exactly one of userId, userIds and broadcast";
const USER_IDS: &str = "1 to 1000 user ids, each once";
pub(super) const MAX_USERS: usize = 1_000;

/// Reads `userId`, `userIds` and, where `broadcast` says so, `broadcast`; exactly one of them is to be there.
pub(super) fn recipients(fields: &mut Fields<'_>, broadcast: bool) -> Recipients {
    let everyone = broadcast && fields.boolean("broadcast").unwrap_or(false);
    let one = fields.take("userId");
    let many = fields.take("userIds");

    let expected = if broadcast { ONE_FORM_OR_ALL } else { ONE_FORM };
    let forms = usize::from(everyone) + usize::from(one.is_some()) + usize::from(many.is_some());
    if forms > 1 {
        fields.refuse("userId", "ambiguous", expected);
    }
    match (one, many) {
        (None, None) if everyone => return Recipients::Everyone,
        (None, None) => fields.refuse("userId", "required", expected),
        (Some(json), _) => {
            return Recipients::Users(fields.user("userId", json).into_iter().collect());
        }
        (None, Some(json)) => return Recipients::Users(users(fields, json).unwrap_or_default()),
    }
    Recipients::Users(Vec::new())
}

/// In the order given. One user twice is a mistake of the caller, whichever way it is spelled.
fn users<'a>(fields: &mut Fields<'a>, json: &'a str) -> Option<Vec<UserId>> {
    let items = fields.items("userIds", json)?;
    if items.is_empty() {
        fields.refuse("userIds", "too_few", USER_IDS);
    }
    if items.len() > MAX_USERS {
        fields.refuse("userIds", "too_many", USER_IDS);
        return None;
    }
    let mut seen = HashSet::new();
    let mut users = Vec::with_capacity(items.len());
    for (index, json) in items.into_iter().enumerate() {
        let name = format!("userIds/{index}");
        let Some(user) = fields.user(&name, json) else {
            continue;
        };
        if !seen.insert(user.clone()) {
            fields.refuse(&name, "duplicate", USER_IDS);
        }
        users.push(user);
    }
    Some(users)
}
