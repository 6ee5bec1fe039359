//! A fresh database for each test, gone when the test is over.

use bellhop::store::Store;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use uuid::Uuid;

/// Enough for the writers of one test, few enough for a server with the usual 100.
const POOL: u32 = 16;

/// An empty database, and what has to go when it goes.
pub struct Database {
    pub url: String,
    place: Place,
}

enum Place {
    Directory { _removed_on_drop: TempDir },
    Server(Box<Server>),
}

/// A database of its own on the server that `TEST_POSTGRES_URL` names.
struct Server {
    options: PgConnectOptions,
    database: String,
}

impl Database {
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/bellhop.db", directory.path().display());
        Self {
            url,
            place: Place::Directory {
                _removed_on_drop: directory,
            },
        }
    }

    /// `None`, and a word about it, where no server is given. In CI that is an error: a test that is
    /// skipped there is a test that nobody runs.
    pub async fn postgres() -> Option<Self> {
        let Some(server_url) = setting("TEST_POSTGRES_URL") else {
            assert!(
                setting("CI").is_none() && setting("PROFILE").as_deref() != Some("ci"),
                "TEST_POSTGRES_URL is not set"
            );
            skipped();
            return None;
        };
        let database = format!("bellhop_test_{}", Uuid::now_v7().simple());
        let mut url = url::Url::parse(&server_url).unwrap();
        url.set_path(&database);

        let server = Server {
            options: server_url.parse().unwrap(),
            database,
        };
        server
            .execute(format!("CREATE DATABASE {}", server.database))
            .await
            .unwrap();
        Some(Self {
            url: url.into(),
            place: Place::Server(Box::new(server)),
        })
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        match &self.place {
            Place::Directory { .. } => "main",
            Place::Server(server) => &server.database,
        }
    }

    /// A store on it, as one node has it.
    pub async fn open(&self) -> Store {
        Store::open(&self.url, POOL).await.unwrap()
    }

    /// As if so many hours had gone by since `column` of `table` was written. No store may be open.
    pub async fn age(&self, table: &str, column: &str, hours: u32) {
        let statement = match &self.place {
            Place::Directory { .. } => {
                format!("UPDATE {table} SET {column} = {column} - {hours} * 3600000")
            }
            Place::Server(_) => {
                format!("UPDATE {table} SET {column} = {column} - INTERVAL '{hours} hours'")
            }
        };
        let statement = AssertSqlSafe(statement);
        match &self.place {
            Place::Directory { .. } => {
                let options: SqliteConnectOptions = self.url.parse().unwrap();
                let mut connection = options.connect().await.unwrap();
                connection.execute(statement).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Server(_) => {
                self.connection().await.execute(statement).await.unwrap();
            }
        }
    }

    /// A connection beside the store's, to look behind it.
    pub async fn connection(&self) -> PgConnection {
        self.url
            .parse::<PgConnectOptions>()
            .unwrap()
            .connect()
            .await
            .unwrap()
    }
}

impl Server {
    async fn execute(&self, statement: String) -> Result<(), sqlx::Error> {
        let mut connection = self.options.connect().await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                // What could not be dropped is left to whoever owns the server.
                runtime.is_ok_and(|runtime| runtime.block_on(self.execute(drop)).is_ok())
            });
        });
    }
}

/// A variable of the environment, if it is set to something.
#[expect(
    clippy::disallowed_methods,
    reason = "which services tests may use is no setting of a node"
)]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(
    clippy::print_stderr,
    reason = "a test runner shows it with the test's name"
)]
fn skipped() {
    eprintln!("skipped: TEST_POSTGRES_URL is not set");
}
