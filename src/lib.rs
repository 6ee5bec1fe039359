//! Bellhop: emit to `user:<id>` on any node reaches that user's sockets on every node.

pub mod user;

pub mod notification;

pub mod event;

pub mod tasks;

pub mod metrics;

pub mod config;
