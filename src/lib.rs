//! Bellhop: emit to `user:<id>` on any node reaches that user's sockets on every node.
//!
//! ```text
//!      your backend                                            a user's device
//!           │ POST /api/notifications                                │ socket.io connect, JWT
//!           ▼                                                        ▼
//!       ┌─ api ─────┐                                           ┌─ session ─┐
//!       │  publish  │                                           │   auth    │  who are you?  → user 42
//!       └────┬──────┘                                           └────┬──────┘
//!  1 remember│                                             1 enter   │  hub, subscription confirmed
//!            ▼                                             2 read    │  what did I miss?  (store)
//!        ┌ store ┐  durable from here on  ◄──────────────────────────┤
//!        └───────┘                                         3 emit    │  catch-up, oldest first
//!  2 announce│                                             4 live    │
//!            ▼                                                       ▲
//!        ┌─ bus ─┐ ══ the nodes where 42 is connected ══►  ┌─ hub ─┐  each socket, cursor by cursor
//!        └───────┘                                         └───────┘
//! ```
//!
//! `main → command → node → front → api, session → publish, inbox, catch_up → announce → store, bus, hub → event →
//! notification → user`. `store`, `bus` and `hub` do not know each other: [`announce`] joins bus and hub after
//! [`publish`] and [`inbox`] have written to the store, [`catch_up`] and [`feed`] join store and hub, and [`node`]
//! runs the loop from bus to hub. One outside crate, one owner; `.ci/layers.sh` checks it.

#[cfg(all(
    not(debug_assertions),
    any(
        feature = "bug-read-before-subscribe",
        feature = "bug-no-gap-repair",
        feature = "bug-no-feed",
        feature = "bug-ignore-commit-order",
        feature = "bug-publish-before-commit",
        feature = "bug-no-resubscribe",
        feature = "bug-skip-on-full",
    )
))]
compile_error!("a feature bug-… builds a defect in, for tests only: not in a release build");

// The story.

pub mod user;

pub mod notification;

pub mod event;

pub mod epoch;

pub mod publish;

pub mod inbox;

pub mod announce;

pub mod api;

pub mod bus;

pub mod hub;

pub mod catch_up;

pub mod feed;

pub mod history;

mod gather;

pub mod presence;

pub mod receipts;

pub mod session;

pub mod auth;

pub mod store;

// The house.

pub mod front;

pub mod node;

pub mod tasks;

pub mod retention;

pub mod rate;

pub mod backoff;

pub mod tick;

pub mod config;

pub mod metrics;

pub mod telemetry;

pub mod client;

pub mod command;
