//! From permissions to a WASI context: what a guest sees of the host.
//!
//! WASI has no paths outside of directories that a guest was given, so a permission for a file is one for nothing else than that: its
//! directory must be named. Write permission includes reading, since WASI has no other.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine::permissions::{Endpoint, Permissions};
use wasmtime::Engine;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::limits::MemoryLimit;
use crate::settings::Settings;

/// A permission that cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum PermissionError {
    /// Not a directory, or not there.
    #[error("cannot give the program {}: {cause}; it must be a directory", path.display())]
    Directory {
        /// What was to be given.
        path: PathBuf,
        /// What the host said.
        cause: String,
    },
    /// A name that does not resolve.
    #[error("cannot allow the network address {endpoint}: {cause}")]
    Host {
        /// What was to be allowed.
        endpoint: Endpoint,
        /// What the resolver said.
        cause: std::io::Error,
    },
}

/// The addresses that a guest may connect to: names resolved once, at the start.
pub(crate) fn resolve(permissions: &Permissions) -> Result<Permissions, PermissionError> {
    let mut resolved = permissions.clone();
    for endpoint in &permissions.network {
        let Some(host) = &endpoint.host else { continue };
        let addresses = (host.as_str(), endpoint.port.unwrap_or(0))
            .to_socket_addrs()
            .map_err(|cause| PermissionError::Host { endpoint: endpoint.clone(), cause })?;
        let found = addresses.map(|address| Endpoint { host: Some(address.ip().to_string()), port: endpoint.port });
        resolved.network.extend(found);
    }
    Ok(resolved)
}

/// Builds the context: arguments, environment, standard streams, directories, network. `permissions` are resolved.
pub(crate) fn builder(settings: &Settings, permissions: &Arc<Permissions>) -> Result<WasiCtxBuilder, PermissionError> {
    let mut builder = WasiCtxBuilder::new();
    builder.inherit_stdio().args(&settings.arguments).envs(&settings.environment);
    // The guest has this thread for itself.
    builder.allow_blocking_current_thread(true);
    let mut give = |path: &Path, name: &Path, permissions| {
        builder.preopened_dir(path, name.to_string_lossy(), permissions).map(drop).map_err(|error| {
            PermissionError::Directory { path: path.to_owned(), cause: crate::program::one_line(&error) }
        })
    };
    for volume in &settings.volumes {
        let permissions = if volume.is_writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        give(&volume.host, Path::new(&volume.guest), permissions)?;
    }
    for (paths, permissions) in
        [(&settings.permissions.write, FsPerms::ReadWrite), (&settings.permissions.read, FsPerms::ReadOnly)]
    {
        for path in paths {
            // Under the name it was given by, and under its full one.
            give(path, path, permissions)?;
            if let Ok(full) = path.canonicalize()
                && full != *path
            {
                give(path, &full, permissions)?;
            }
        }
    }
    let network = !permissions.network.is_empty();
    builder.allow_tcp(network).allow_udp(network).allow_ip_name_lookup(network);
    let permissions = Arc::clone(permissions);
    builder.socket_addr_check(move |address: SocketAddr, _| {
        // Sockets that only receive or connect are bound to port 0 first: that reaches nothing yet.
        let allowed = address.port() == 0 || permissions.allow_address(address);
        Box::pin(async move { allowed })
    });
    Ok(builder)
}

/// What a component's store holds.
pub(crate) struct ComponentState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(crate) memory: MemoryLimit,
}

impl ComponentState {
    pub(crate) fn new(
        settings: &Settings,
        permissions: &Arc<Permissions>,
        memory: MemoryLimit,
    ) -> Result<Self, PermissionError> {
        Ok(Self {
            wasi: builder(settings, permissions)?.build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: Hooks(Arc::clone(permissions)),
            memory,
        })
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Outgoing requests go where the permissions allow.
struct Hooks(Arc<Permissions>);

type Answer =
    wasmtime_wasi_http::Result<(hyper::Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>)>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let uri = request.uri();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let allowed = self.0.network.iter().any(|endpoint| endpoint.covers(host, port));
        Box::new(async move {
            if !allowed {
                return Err(HttpError::HttpRequestDenied);
            }
            let (response, connection) = wasmtime_wasi_http::default_send_request(request, options).await?;
            let connection: Box<dyn Future<Output = Result<(), HttpError>> + Send> = Box::new(connection);
            Ok((response.map(http_body_util::BodyExt::boxed_unsync), connection))
        })
    }
}

/// A linker with all of WASI preview 2 and `wasi:http`.
pub(crate) fn component_linker(engine: &Engine) -> wasmtime::Result<Linker<ComponentState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}
