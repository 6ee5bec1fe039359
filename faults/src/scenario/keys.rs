//! Storms of one key: many requests at once on all nodes, some of them while a node is killed, some with another body.

use std::time::Duration;

use serde_json::json;

use super::inject::Scene;
use crate::load::{Publish, user_name};
use crate::rig::Trouble;
use crate::tasks::Task;

const AT_ONCE: u64 = 50;
const DOWN: Duration = Duration::from_secs(2);

impl Scene<'_> {
    pub(super) async fn key_storm(&mut self) -> Result<(), Trouble> {
        let prefix = self.random.draw();
        let storms = self.duration.as_secs().max(3);
        for storm in 0..storms {
            let requests = self.requests(&format!("storm-{prefix:x}-{storm}"), storm);
            let killed = match storm == storms / 2 {
                true => self.any_node().map(|node| node.number),
                false => None,
            };
            let killed = killed.and_then(|number| self.rig.nodes.get(number));
            if let Some(node) = killed {
                tokio::time::sleep(Duration::from_millis(3)).await;
                node.process.signal("KILL");
                node.process.ended(DOWN).await;
                tokio::time::sleep(DOWN).await;
                node.begin().await?;
            }
            for request in requests {
                request.await;
            }
            self.other_body(&format!("storm-{prefix:x}-{storm}")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    fn requests(&self, key: &str, storm: u64) -> Vec<Task> {
        let user = user_name(self.random.fork(storm).below(self.load.size.users));
        let request = |number| Publish {
            cluster: self.load.cluster.clone(),
            recorder: self.load.recorder.clone(),
            key: key.to_owned(),
            user: user.clone(),
            random: self.random.fork(storm * AT_ONCE + number),
            padding: 0,
        };
        (0..AT_ONCE)
            .map(|number| Task::start(request(number).run()))
            .collect()
    }

    /// The same key with another body is refused by every node.
    async fn other_body(&self, key: &str) {
        let body = json!({ "userId": user_name(0), "title": "another" });
        for node in 0..self.rig.nodes.len() {
            let answer = self.load.cluster.publish(node, key, &body).await;
            let status = answer.map_or(0, |(status, ..)| status);
            let what =
                format!("the key {key} with another body was answered {status} by node {node}");
            self.expect(&what, status == 422);
        }
    }
}
