//! Bellhop.

pub mod user;
