//! What a node is made of, and how its pieces are put together.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use super::repairs::Repairs;
use super::{Shared, StartError};
use crate::announce::{Announcer, now_ms};
use crate::api::{
    self, ClientConfig, DevSignIn, Document, Health, Lane, Options, Origins, PublishLimits,
    Revocations,
};
use crate::auth::{ApiKeys, LEEWAY_SECONDS, Verifier};
use crate::bus::{self, Bus, Exchange, Receiver};
use crate::catch_up::CatchUp;
use crate::config::{self, Config, EventLimit};
use crate::epoch::Epoch;
use crate::feed::Feed;
use crate::front::{Front, Gate, Raw, slim};
use crate::hub::porch::Porch;
use crate::hub::transport::{Body, Endpoint, Transports};
use crate::hub::websocket::{Heart, Terms};
use crate::hub::{self, Hub};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::publish::Publisher;
use crate::rate::Bucket;
use crate::receipts::Receipts;
use crate::retention::Keeper;
use crate::session::{NEWCOMERS, Sessions};
use crate::store::{Retention, Store, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::{UserIds, causes};
use crate::tick;

/// How long the store may be away before the next log line says so, while a node waits for it to start.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What a node is made of.
#[derive(Debug)]
pub(super) struct Pieces {
    verifier: Verifier,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    /// What requests and sockets have begun: it ends before the other tasks, so that what it has to say
    /// still goes out.
    pub(super) work: Tasks,
    pub(super) health: Arc<Health>,
    transports: Arc<Transports>,
    epoch: Epoch,
    pub(super) store: Store,
    /// Others of this process use the store as well, and go on.
    pub(super) shares_store: bool,
    catch_up: CatchUp,
    receipts: Receipts,
    pub(super) hub: Hub,
    bus: Bus,
    feed: Feed,
}

impl Pieces {
    /// Builds what does not yet need the public port. The admin listener answers from the beginning.
    pub(super) async fn build(
        config: &Config,
        admin: TcpListener,
        shared: Shared,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let verifier = Verifier::new(&config.auth, config.auth.secret(true)?.as_ref())?;
        let (metrics, tasks, health) = (
            Arc::new(Metrics::new()),
            Tasks::default(),
            Arc::new(Health::default()),
        );
        let measured: Arc<OnceLock<Hub>> = Arc::default();
        serve_admin(admin, &tasks, &health, &metrics, Arc::clone(&measured));

        let shares_store = shared.store.is_some();
        let store = open_store(config, shared.store, &metrics, stop).await?;
        let epoch = Epoch::new(store.epoch().await?);
        for setting in store.doubts().await? {
            tracing::warn!(
                setting,
                "the database runs with this setting off: it may lose what it has acknowledged when the power goes"
            );
        }

        let catch_up = CatchUp::new(
            &store,
            Arc::clone(&metrics),
            tasks.clone(),
            epoch.clone(),
            config.sockets.replay_limit,
        );
        let transports = Arc::new(Transports::new(
            config.listen.socket_io_path.clone(),
            tasks.clone(),
        ));
        let hub = new_hub(config, &metrics, &transports, &epoch, catch_up.clone());
        measured.get_or_init(|| hub.clone());
        let (bus, incoming) = join_bus(config, shared.exchange, &epoch, &metrics, &tasks)?;
        let repairs = Repairs {
            store: store.clone(),
            hub: hub.clone(),
            bus: bus.clone(),
            epoch: epoch.clone(),
            metrics: Arc::clone(&metrics),
        };
        let feed = repairs.start(incoming, &tasks);
        Ok(Self {
            verifier,
            metrics,
            tasks,
            work: Tasks::default(),
            health,
            transports,
            epoch,
            store,
            shares_store,
            catch_up,
            receipts: Receipts::default(),
            hub,
            bus,
            feed,
        })
    }

    /// Puts the pieces behind the public port, and answers the tasks that serve it.
    pub(super) fn serve(&self, config: &Config, listener: TcpListener) -> Tasks {
        let announcer = Announcer::new(self.hub.clone(), self.bus.clone(), self.epoch.clone());
        let inbox = Inbox::new(
            self.store.clone(),
            announcer.clone(),
            self.work.clone(),
            Arc::clone(&self.metrics),
        );
        let publisher = Publisher::new(
            self.store.clone(),
            announcer,
            self.work.clone(),
            Arc::clone(&self.metrics),
        );
        let origins = Origins::new(&config.listen.cors_origins, config.auth.is_embedded());
        let (sockets, raw) = self.sockets(config, &origins, inbox.clone());
        self.keep_time(config, inbox.clone());
        self.transports.serve_by(sockets.clone());
        let connections = Tasks::default();
        let (api, lane) = self.api(config, &origins, publisher, inbox);
        let front = Front {
            api,
            lane,
            sockets,
            raw,
            socket_path: config.listen.socket_io_path.as_str().into(),
            health: Arc::clone(&self.health),
            limit_connections: stream_limit(connection_limit(config)),
            tasks: connections.clone(),
        };
        let (hub, feed, metrics) = (
            self.hub.clone(),
            self.feed.clone(),
            Arc::clone(&self.metrics),
        );
        self.tasks
            .essential("sweep", |stop| sweep(hub, feed, metrics, stop));
        connections.essential("front", |stop| front.serve(listener, stop));
        connections
    }

    /// Starts what is done by the clock rather than by a request.
    fn keep_time(&self, config: &Config, inbox: Inbox) {
        let retention = Retention {
            days: config.backends.retention_days,
            changes: config.backends.retention_changes,
        };
        let (store, metrics) = (self.store.clone(), Arc::clone(&self.metrics));
        let keeper = Keeper::new(store.clone(), inbox, Arc::clone(&metrics), retention);
        let expiring = keeper.clone();
        self.tasks.essential("expiry", |stop| expiring.expire(stop));
        self.tasks
            .essential("retention", |stop| keeper.forget(stop));
        let receipts = self.receipts.clone();
        self.tasks
            .essential("receipts", |stop| receipts.keep(store, metrics, stop));
    }

    /// The Socket.IO endpoint, with its sessions.
    fn sockets(&self, config: &Config, origins: &Origins, inbox: Inbox) -> (Endpoint, Option<Raw>) {
        let sessions = Arc::new(Sessions {
            verifier: self.verifier.clone(),
            hub: self.hub.clone(),
            bus: self.bus.clone(),
            inbox,
            catch_up: self.catch_up.clone(),
            feed: self.feed.clone(),
            metrics: Arc::clone(&self.metrics),
            epoch: self.epoch.clone(),
            receipts: self.receipts.clone(),
            newcomers: Bucket::new(NEWCOMERS),
            event_limit: config.limits.limit_events_per_socket,
            enabled: config.listen.enable_websocket,
            connect_timeout: config.sockets.connect_timeout(),
            tasks: self.work.clone(),
        });
        let speaking = sessions
            .serve(&config.sockets, &config.listen)
            .layer(tower::service_fn(not_found));
        let library = tower::ServiceBuilder::new()
            // The library keeps the request; it is to keep little.
            .map_request(slim)
            .map_response(|response: Response<_>| response.map(api::boxed))
            .service(speaking);
        let gate = Gate {
            library: Endpoint::new(library),
            transports: Arc::clone(&self.transports),
            hub: self.hub.clone(),
            origins: origins.clone(),
            health: Arc::clone(&self.health),
            porch: Porch::default(),
            rate: Arc::new(Bucket::new(EventLimit {
                rate: config.limits.limit_handshakes_per_second,
                burst: config.limits.limit_handshakes_per_second,
            })),
            metrics: Arc::clone(&self.metrics),
            limit_body: usize::try_from(config.sockets.max_payload_bytes).unwrap_or(usize::MAX),
            upgrades: config
                .listen
                .socket_io_transports
                .contains(&config::Transport::Websocket),
        };
        let raw = gate
            .upgrades
            .then(|| self.raw(&config.sockets, gate.clone(), sessions));
        let endpoint = tower::ServiceBuilder::new()
            // As on the API: what is answered has a name.
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(PropagateRequestIdLayer::x_request_id())
            // Outside of the gate, so that pages can read refusals too. Cookies carry no authority here, but sticky
            // sessions need them.
            .layer(api::cors(origins.clone()).allow_credentials(true))
            .map_response(|response: Response<_>| response.map(BodyExt::boxed_unsync))
            // A defect costs its own request, not the connection.
            .layer(CatchPanicLayer::new())
            .service(tower::service_fn(move |request| {
                gate.clone().answer(request)
            }));
        (Endpoint::new(endpoint), raw)
    }

    /// The way in for what is a WebSocket from the start.
    fn raw(&self, settings: &config::Sockets, gate: Gate, sessions: Arc<Sessions>) -> Raw {
        let terms = Terms {
            ping_interval: settings.ping_interval(),
            ping_timeout: settings.ping_timeout(),
            limit: gate.limit_body,
        };
        let heart = Arc::new(Heart::new(terms));
        self.tasks
            .essential("heart", |stop| Arc::clone(&heart).run(stop));
        Raw {
            gate,
            sessions,
            heart,
        }
    }

    fn api(
        &self,
        config: &Config,
        origins: &Origins,
        publisher: Publisher,
        inbox: Inbox,
    ) -> (Endpoint, Lane) {
        let secret = config
            .auth
            .allows_dev_sign_in()
            .then(|| config.auth.secret(false).ok().flatten())
            .flatten();
        api::service(api::State {
            publisher,
            inbox,
            store: self.store.clone(),
            presence: Presence::new(self.hub.clone(), self.bus.clone()),
            verifier: self.verifier.clone(),
            api_keys: ApiKeys::new(&config.auth.api_keys),
            revocations: Revocations::default(),
            limits: PublishLimits::new(
                config.limits.limit_publishes_per_key,
                config.limits.limit_publishes_per_user,
            ),
            client_config: ClientConfig::new(&config.listen),
            user_ids: UserIds(config.logs.log_user_ids),
            epoch: self.epoch.clone(),
            metrics: Arc::clone(&self.metrics),
            origins: origins.clone(),
            document: Document::default(),
            dev: secret.map(|secret| DevSignIn {
                auth: config.auth.clone(),
                secret,
            }),
            options: Options {
                allow_http_urls: config.limits.allow_http_urls,
                ..Options::default()
            },
        })
    }
}

/// Waits for a store that is away; then brings its schema up to date.
async fn open_store(
    config: &Config,
    shared: Option<Store>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Store, StartError> {
    let store = match shared {
        Some(store) => store,
        None => {
            Store::open(
                config.backends.database_url.expose(),
                config.backends.database_pool,
            )
            .await?
        }
    };
    loop {
        match store.migrate().await {
            Ok(0) => return Ok(store),
            Ok(applied) => {
                tracing::info!(applied, "the database schema is up to date");
                return Ok(store);
            }
            Err(error @ StoreError::Unavailable(_)) => {
                metrics.store_errors.of((&error).into()).increment(1);
                tracing::warn!(
                    error = causes(&error),
                    store = config.backends.database_url.place(),
                    "waiting for the store; is DATABASE_URL right?"
                );
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(STORE_RETRY) => {}
            () = stop.cancelled() => return Err(StartError::Stopped),
        }
    }
}

/// The registry of sockets; what their cursors ask for, `catch_up` does.
fn new_hub(
    config: &Config,
    metrics: &Arc<Metrics>,
    transports: &Arc<Transports>,
    epoch: &Epoch,
    catch_up: CatchUp,
) -> Hub {
    let limits = hub::Limits {
        sockets: connection_limit(config),
        per_user: config.limits.limit_connections_per_user,
    };
    metrics
        .connections_limit
        .of(())
        .set(u32::try_from(limits.sockets).unwrap_or(u32::MAX));
    Hub::new(
        Arc::clone(metrics),
        Arc::clone(transports),
        epoch.clone(),
        UserIds(config.logs.log_user_ids),
        limits,
        Box::new(move |seat, step, why| catch_up.follow(seat, step, why)),
    )
}

/// Joins the bus; what comes from it is for [`Repairs`] to take.
fn join_bus(
    config: &Config,
    exchange: Option<Exchange>,
    epoch: &Epoch,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<(Bus, Receiver), StartError> {
    let Some(url) = &config.backends.redis_url else {
        if !config.backends.is_sqlite() {
            tracing::warn!(
                "no REDIS_URL: if other nodes share this database, sockets hear from them a second later"
            );
        }
        return Ok(exchange.unwrap_or_default().join(Arc::clone(metrics)));
    };
    let settings = bus::redis::Config::new(url.expose(), &config.backends.bus_prefix);
    Ok(bus::redis::Bus::connect(
        &settings,
        epoch.clone(),
        Arc::clone(metrics),
        tasks,
    )?)
}

fn serve_admin(
    listener: TcpListener,
    tasks: &Tasks,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
    hub: Arc<OnceLock<Hub>>,
) {
    let metrics = Arc::clone(metrics);
    let router = api::admin_router(Arc::clone(health), move || {
        if let Some(hub) = hub.get() {
            hub.measure();
        }
        metrics.render()
    });
    tasks.essential("admin", |stop| async move {
        if let Err(error) = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
        {
            tracing::error!(%error, "the admin listener ended");
        }
    });
}

/// What is due each second.
async fn sweep(hub: Hub, feed: Feed, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut each_second = tick::every(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = each_second.tick() => {
                hub.sweep(now_ms() / 1_000, LEEWAY_SECONDS);
                feed.measure();
                metrics.upkeep();
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Sockets that this node takes at most, 0 for no limit: what is set, or what its descriptors allow.
fn connection_limit(config: &Config) -> usize {
    const MOST: usize = 20_000;
    config
        .limits
        .limit_connections
        .unwrap_or(descriptors().min(MOST))
}

/// Connections that this node accepts: for its sockets, and some more for the API and for handshakes that
/// are to be refused; never more than its descriptors allow.
fn stream_limit(sockets: usize) -> usize {
    const SPARE: usize = 256;
    match sockets {
        0 => descriptors(),
        sockets => sockets.saturating_add(SPARE).min(descriptors()),
    }
}

/// Files that may be open for clients, less what the node itself needs.
fn descriptors() -> usize {
    const RESERVED: u64 = 512;
    let all = rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024);
    usize::try_from(all.saturating_sub(RESERVED).max(64)).unwrap_or(usize::MAX)
}

/// Only for the layer's sake: what is not below the socket path never comes here.
async fn not_found(_: Request<Body>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}
