//! A page of the walk over all users, as both databases answer it.

use super::UserPage;
use super::row::stored_user;

/// A user, whether there is something to do for them, and how many users the page would have had if
/// none of them had much.
pub(super) type Walked = (String, bool, i64);

impl UserPage {
    pub(super) fn of(rows: Vec<Walked>, limit: u32) -> Result<Self, sqlx::Error> {
        let is_full = |candidates: i64| candidates >= i64::from(limit);
        let is_short = |candidates: i64| candidates > rows.len() as i64;
        let goes_on = rows
            .last()
            .is_some_and(|(.., candidates)| is_full(*candidates) || is_short(*candidates));
        let mut page = Self {
            due: Vec::new(),
            next: None,
        };
        for (user, is_due, _) in rows {
            let user = stored_user(&user)?;
            if is_due {
                page.due.push(user.clone());
            }
            page.next = goes_on.then_some(user);
        }
        Ok(page)
    }
}
