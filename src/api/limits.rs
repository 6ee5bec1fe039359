//! How much publishers may send, each of them and to each user: counted before anything is written.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::caller::Publisher;
use super::problem::Problem;
use crate::config::EventLimit;
use crate::rate::{Buckets, Several};
use crate::user::UserId;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Through this node; other nodes count on their own.
#[derive(Debug)]
pub struct PublishLimits {
    per_publisher: Buckets<String>,
    per_user: Buckets<UserId>,
}

impl PublishLimits {
    #[must_use]
    pub fn new(per_publisher: EventLimit, per_user: EventLimit) -> Self {
        Self {
            per_publisher: Buckets::new(per_publisher),
            per_user: Buckets::new(per_user),
        }
    }

    /// Counts one for each of `users`, who may be named more than once, and as many for the publisher; or nothing.
    pub(super) fn count<'u>(
        &self,
        publisher: &Publisher,
        users: impl IntoIterator<Item = &'u UserId>,
    ) -> Result<(), Problem> {
        let users = tally(users);
        let all = users.values().sum();
        self.count_all(publisher, all, &users)
    }

    /// Counts one for the publisher of something that is for everyone.
    pub(super) fn count_broadcast(&self, publisher: &Publisher) -> Result<(), Problem> {
        self.count_all(publisher, 1, &HashMap::new())
    }

    /// Counts one for a user who sends something to themselves.
    pub(super) fn count_own(&self, user: &UserId) -> Result<(), Problem> {
        self.per_user(&tally([user]))
    }

    fn count_all(
        &self,
        publisher: &Publisher,
        all: u32,
        users: &HashMap<UserId, u32>,
    ) -> Result<(), Problem> {
        let publisher = HashMap::from([(publisher.name.clone(), all)]);
        if !self.per_user.can_ever(users) {
            return Err(Problem::TooManyForLimit);
        }
        granted(
            self.per_publisher.take(&publisher),
            "publisher",
            self.per_publisher.limit(),
        )?;
        let users = self.per_user(users);
        if users.is_err() {
            self.per_publisher.give_back(&publisher);
        }
        users
    }

    fn per_user(&self, users: &HashMap<UserId, u32>) -> Result<(), Problem> {
        granted(self.per_user.take(users), "user", self.per_user.limit())
    }
}

fn tally<'u>(users: impl IntoIterator<Item = &'u UserId>) -> HashMap<UserId, u32> {
    let mut counts = HashMap::new();
    for user in users {
        *counts.entry(user.clone()).or_insert(0) += 1;
    }
    counts
}

fn granted(taken: Several, policy: &'static str, limit: EventLimit) -> Result<(), Problem> {
    match taken {
        Several::Granted => Ok(()),
        Several::Later { left, wait } => Err(Problem::RateLimited(Exceeded {
            policy,
            limit,
            left,
            retry_after: whole_seconds(wait),
        })),
        Several::Never => Err(Problem::TooManyForLimit),
    }
}

/// Which limit there was too much for, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    policy: &'static str,
    limit: EventLimit,
    left: u32,
    retry_after: u64,
}

impl Exceeded {
    /// As the description of the API shows it.
    pub(super) const EXAMPLE: Self = Self {
        policy: "publisher",
        limit: EventLimit {
            rate: 50,
            burst: 100,
        },
        left: 3,
        retry_after: 2,
    };

    /// `Retry-After`, and what says the same in the words of draft-ietf-httpapi-ratelimit-headers: the quota that is
    /// there again after a window of seconds, and what remains of it.
    pub(super) fn headers(self) -> HeaderMap {
        let Self {
            policy,
            limit: EventLimit { rate, burst },
            left,
            retry_after,
        } = self;
        let window = burst.div_ceil(rate.max(1));
        let mut headers = HeaderMap::from_iter([(header::RETRY_AFTER, retry_after.into())]);
        for (name, value) in [
            (
                RATE_LIMIT_POLICY,
                format!("\"{policy}\";q={burst};w={window}"),
            ),
            (RATE_LIMIT, format!("\"{policy}\";r={left};t={retry_after}")),
        ] {
            headers.extend(HeaderValue::from_str(&value).map(|value| (name, value)));
        }
        headers
    }
}

/// `Retry-After` has no fractions; 0 would be no wait at all.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> Vec<UserId> {
        let user = |name: &&str| UserId::try_from(*name).unwrap();
        names.iter().map(user).collect()
    }

    fn shop() -> Publisher {
        let name = "key:shop".to_owned();
        Publisher { name }
    }

    fn status(counted: Result<(), Problem>) -> u16 {
        counted.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_counts_for_its_publisher_and_for_each_user() {
        let limits = PublishLimits::new(
            EventLimit { rate: 1, burst: 5 },
            EventLimit { rate: 1, burst: 2 },
        );
        let count = |names: &[&str]| status(limits.count(&shop(), &users(names)));
        assert_eq!(count(&["1", "1", "2"]), 200);
        assert_eq!(count(&["1", "3"]), 429, "user 1 has had two");
        assert_eq!(count(&["3", "3"]), 200, "the refused one cost nothing");
        assert_eq!(count(&["4"]), 429, "the publisher has sent five");
        assert_eq!(status(limits.count_broadcast(&shop())), 429);
        assert_eq!(
            count(&["5", "5", "5"]),
            422,
            "no wait helps three for one user"
        );
        assert_eq!(count(&["1", "2", "3", "4", "5", "6"]), 422);
        let other = Publisher {
            name: "key:other".to_owned(),
        };
        assert_eq!(status(limits.count(&other, &users(&["5", "5", "5"]))), 422);
        assert_eq!(status(limits.count_own(&users(&["6"])[0])), 200);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (wait, seconds) in [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait)), seconds);
        }
    }
}
