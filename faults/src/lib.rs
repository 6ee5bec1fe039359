//! Faults: breaks a running cluster on purpose, and checks from what was seen that nothing acknowledged was lost.
//!
//! ```text
//!   load: publishers ──HTTP──► proxy ─► node ─► proxy ─► PostgreSQL        scenario: what is broken, and when
//!         devices ◄─Socket.IO─ proxy ─◄ node ─► proxy ─► Redis
//!           │
//!           ▼
//!        history (NDJSON) ──► check: C1 to C12 ──► a line of the table, or the lines that prove a broken promise
//! ```
//!
//! Nodes, Redis and PostgreSQL are processes of their own ([`rig`]); Bellhop is known by its contract only.

// What is proved, and from what.

pub mod history;

pub mod check;

// What is broken.

pub mod proxy;

pub mod rig;

pub mod load;

pub mod scenario;

// The house.

pub mod random;

pub mod tasks;
