//! One user's row is held by somebody: publishes to that user are refused in time, and nobody else notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::cluster::Backing;
use crate::databases;

/// Half a second for a place among the user's, three times as much for the lock, and some more for a busy machine.
const REFUSED: Duration = Duration::from_millis(3_000);

#[tokio::test(flavor = "multi_thread")]
async fn whose_row_is_held_takes_no_connection_from_others() {
    if databases::setting("TEST_POSTGRES_URL").is_none() {
        return;
    }
    let backing = Backing::postgres().await;
    let a = backing.node(&[]).await;
    a.publish("held", "before").await;
    let mut holder = backing.beside().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1 FROM user_feed WHERE user_id = 'held' FOR UPDATE")
        .execute(&mut holder)
        .await
        .unwrap();

    let publish = |user: String| {
        let a = &a;
        async move {
            let began = Instant::now();
            let body = json!({ "userId": user, "title": "now" });
            (a.publish_body(body).await.0, began.elapsed())
        }
    };
    let to_the_held = join_all((0..40).map(|_| publish("held".to_owned())));
    let to_others = async {
        let mut statuses = Vec::new();
        for number in 0..40 {
            statuses.push(publish(format!("other{number}")).await.0);
        }
        statuses
    };
    let (held, others) = tokio::join!(to_the_held, to_others);
    assert_eq!(others, [StatusCode::CREATED; 40]);
    for (status, took) in held {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(took <= REFUSED, "{took:?}");
    }

    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .unwrap();
    assert_eq!(a.publish("held", "after").await["seq"], 2);
}
