//! Which history this is: a value that changes whenever the database may have gone backwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// The epoch as this node knows it now. Cloning shares it: what one replaces, all see.
#[derive(Clone, Debug)]
pub struct Epoch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    value: RwLock<Arc<str>>,
    generation: AtomicU64,
}

impl Epoch {
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value.into()),
            generation: AtomicU64::new(0),
        }))
    }

    #[must_use]
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.value.read())
    }

    /// Whether this is the present one.
    #[must_use]
    pub fn is(&self, value: &str) -> bool {
        **self.0.value.read() == *value
    }

    /// How often it was replaced: who compared something with the epoch can tell by it whether that still holds.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Answers whether it was another one. Who sees the new generation sees the new value.
    pub fn replace(&self, value: &str) -> bool {
        let mut present = self.0.value.write();
        if **present == *value {
            return false;
        }
        *present = value.into();
        self.0.generation.fetch_add(1, Ordering::Release);
        true
    }
}

impl From<&str> for Epoch {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Epoch {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_replaces_all_see() {
        let epoch = Epoch::from("e1");
        let other = epoch.clone();
        assert!(!epoch.replace("e1"));
        assert_eq!((&*other.get(), other.generation()), ("e1", 0));
        assert!(epoch.replace("e2"));
        assert_eq!((&*other.get(), other.generation()), ("e2", 1));
    }
}
