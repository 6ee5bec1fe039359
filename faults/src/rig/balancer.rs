//! What a balancer does about nodes: asks each whether it is ready, and sends nobody to one that is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Rig;
use super::node::get;
use crate::load::Cluster;
use crate::tasks::Task;

/// Between two questions; a node is taken out after two bad answers in a row, and back in after a good one.
const PERIOD: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);

impl Rig {
    /// Asks nodes as long as the tasks are held.
    #[must_use]
    pub fn balance(&self, cluster: &Arc<Cluster>) -> Vec<Task> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| {
                let doors = (node.admin, node.front.address());
                Task::start(watch(node.number, doors, Arc::clone(cluster)))
            })
            .collect()
    }
}

async fn watch(node: usize, doors: (SocketAddr, SocketAddr), cluster: Arc<Cluster>) {
    let mut bad = 0;
    loop {
        let asking = tokio::time::timeout(PATIENCE, is_ready(doors));
        match asking.await.unwrap_or(false) {
            true => bad = 0,
            false => bad += 1,
        }
        cluster.set_ready(node, bad < 2);
        tokio::time::sleep(PERIOD).await;
    }
}

/// Says that it is, and can be reached.
async fn is_ready((admin, front): (SocketAddr, SocketAddr)) -> bool {
    let ready = get(admin, "/readyz").await;
    ready.is_some_and(|(status, _)| status == 200)
        && get(front, "/api/client-config").await.is_some()
}
