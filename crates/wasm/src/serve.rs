//! A component that answers HTTP requests (`wasi:http/proxy`): a fresh instance for each, from a pool.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use machine::permissions::Permissions;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::Store;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView};

use crate::limits::{CpuTime, Hold, MemoryLimit, Ticker, limit};
use crate::program::{Code, Program, REQUESTS_MAX, one_line};
use crate::settings::Settings;
use crate::trap::{self, End};
use crate::wasi::{self, ComponentState, PermissionError, component_linker};

/// Why a program cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It is a module.
    #[error("a server must be a component that exports wasi:http/incoming-handler; this is a module")]
    Module,
    /// It lacks what a server must have.
    #[error("it cannot serve: {0}")]
    Component(String),
    /// A permission.
    #[error(transparent)]
    Permission(#[from] PermissionError),
    /// The host's side.
    #[error("cannot listen on {address}: {cause}; choose another with --serve")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the host said.
        cause: io::Error,
    },
    /// No threads, or no event loop.
    #[error("the host gives no event loop: {0}")]
    Host(io::Error),
}

type Body = UnsyncBoxBody<Bytes, HttpError>;

struct Shared {
    pre: ProxyPre<ComponentState>,
    settings: Settings,
    permissions: Arc<Permissions>,
    /// So many more requests may be handled.
    room: Semaphore,
    served: AtomicU64,
    hold: Hold,
    failed: Box<dyn Fn(&str) + Send + Sync>,
}

/// What others do to a server.
#[derive(Clone)]
pub struct ServerControl(Arc<Shared>);

impl ServerControl {
    /// Its guests stand still within milliseconds, and those of requests to come do not begin.
    pub fn hold(&self) {
        self.0.hold.hold();
    }

    /// They go on.
    pub fn release(&self) {
        self.0.hold.release();
    }

    /// Whether they stand still.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.hold.is_held()
    }

    /// Requests that have been taken.
    #[must_use]
    pub fn served_count(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }
}

/// An HTTP server whose handler is a guest.
pub struct Server {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    ticker: Ticker,
}

impl Server {
    /// Listens on `address`; requests are answered once [`Self::run`] is called. `failed` is told what a failing guest did, in one line
    /// and its backtrace.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn new(
        program: &Program,
        settings: Settings,
        address: SocketAddr,
        failed: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, ServerError> {
        let Code::Component(component) = &program.code else { return Err(ServerError::Module) };
        let engine = &program.host.engine;
        let permissions = Arc::new(wasi::resolve(&settings.permissions)?);
        let wrong = |error: wasmtime::Error| ServerError::Component(one_line(&error));
        let linker = component_linker(engine).map_err(wrong)?;
        let pre = linker.instantiate_pre(component).and_then(ProxyPre::new).map_err(wrong)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServerError::Host)?;
        let listener =
            runtime.block_on(TcpListener::bind(address)).map_err(|cause| ServerError::Listen { address, cause })?;
        let shared = Shared {
            pre,
            settings,
            permissions,
            room: Semaphore::new(REQUESTS_MAX as usize),
            served: AtomicU64::new(0),
            hold: Hold::default(),
            failed: Box::new(failed),
        };
        let ticker = Ticker::start(engine).map_err(ServerError::Host)?;
        Ok(Self { shared: Arc::new(shared), runtime, listener, ticker })
    }

    /// Where it listens: with the port that the host chose, if zero was asked for.
    ///
    /// # Errors
    /// The host does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What others do to it.
    #[must_use]
    pub fn control(&self) -> ServerControl {
        ServerControl(Arc::clone(&self.shared))
    }

    /// Answers requests for ever.
    ///
    /// # Errors
    /// The host gives no more connections.
    pub fn run(self) -> io::Result<Infallible> {
        let Self { shared, runtime, listener, ticker: _ticker } = self;
        runtime.block_on(async {
            loop {
                let connection = match listener.accept().await {
                    Ok((connection, _)) => connection,
                    // Too many open files, or a client that has gone already: others may do better.
                    Err(_) => {
                        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                        continue;
                    }
                };
                // Without it, only small answers are late.
                let _ = connection.set_nodelay(true);
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(shared.answer(request).await) }
                    });
                    // What goes wrong here is a client's business: it sees its connection end.
                    let _ = http1::Builder::new()
                        .keep_alive(true)
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        })
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        self.served.fetch_add(1, Ordering::Relaxed);
        match self.handle(request).await {
            Ok(response) => response,
            Err(error) => {
                match trap::end(&error) {
                    End::Exit(status) => (self.failed)(&format!("a request ended the program with status {status}")),
                    End::Failed(report) => (self.failed)(&report),
                }
                let text = Full::new(Bytes::from_static(b"the program failed\n"));
                let mut response = Response::new(text.map_err(|never: Infallible| match never {}).boxed_unsync());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    async fn handle(self: &Arc<Self>, request: Request<Incoming>) -> wasmtime::Result<Response<Body>> {
        let memory = MemoryLimit::new(self.settings.memory_bytes);
        let state = ComponentState::new(&self.settings, &self.permissions, memory)?;
        let mut store = Store::new(self.pre.engine(), state);
        let cpu_time = CpuTime::new(self.settings.cpu_time);
        limit(&mut store, |state| &mut state.memory, &cpu_time);
        let (sender, receiver) = oneshot::channel();
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let out = store.data_mut().http().new_response_outparam(sender)?;
        let (pre, hold) = (self.pre.clone(), Arc::clone(self));
        // A task of its own: the guest may go on after it has given its answer.
        let task = tokio::spawn(async move {
            let guest = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
            };
            hold.hold.obey(cpu_time.count(guest)).await
        });
        match receiver.await {
            Ok(Ok(response)) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Ok(Err(code)) => Err(code.into()),
            Err(_) => match task.await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Err(wasmtime::format_err!("it returned without an answer")),
                Err(panic) => Err(panic.into()),
            },
        }
    }
}
