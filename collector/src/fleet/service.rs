//! `FleetService` by hand: the road of its two calls from HTTP/2 to the API.
//!
//! What tonic generates encodes and decodes each stream in buffers of its own;
//! with ten thousand streams that are idle nearly always, those buffers were
//! half of the collector's memory. `Connect` therefore reads and writes framed
//! bytes itself; `Renew` is an ordinary call.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use procwarden_common::limits::MESSAGE_BYTES_MAX;
use procwarden_proto::v1;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{Api, peer_of};
use crate::session::{Outgoing, Requests};

const CONNECT: &str = "/procwarden.v1.FleetService/Connect";
const RENEW: &str = "/procwarden.v1.FleetService/Renew";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module.
#[derive(Clone)]
pub(super) struct FleetRoutes(pub(super) Arc<Api>);

impl NamedService for FleetRoutes {
    const NAME: &'static str = "procwarden.v1.FleetService";
}

impl Service<HttpRequest<Body>> for FleetRoutes {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let api = Arc::clone(&self.0);
        match request.uri().path() {
            CONNECT => Box::pin(async move { Ok(connect(&api, request)) }),
            RENEW => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default()).apply_max_message_size_config(
                    Some(MESSAGE_BYTES_MAX),
                    Some(MESSAGE_BYTES_MAX),
                );
                Ok(grpc.unary(Renew(api), request).await)
            }),
            _ => Box::pin(async {
                Ok(Status::unimplemented("there is no such call here").into_http())
            }),
        }
    }
}

/// Begins a session, which lasts as long as the response's body.
fn connect(api: &Api, request: HttpRequest<Body>) -> HttpResponse<Body> {
    let (head, body) = request.into_parts();
    if head.headers.get(CONTENT_TYPE) != Some(&GRPC) {
        return Status::invalid_argument("this is no call of gRPC").into_http();
    }
    let peer = match peer_of(&head.extensions) {
        Ok(peer) => peer,
        Err(status) => return status.into_http(),
    };
    let (outgoing, answers) = Outgoing::channel();
    match api.connect(peer, Requests::new(body), outgoing) {
        Ok(()) => {
            let mut response = HttpResponse::new(Body::new(answers));
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response
        }
        Err(status) => status.into_http(),
    }
}

struct Renew(Arc<Api>);

impl UnaryService<v1::RenewRequest> for Renew {
    type Response = v1::RenewResponse;
    type Future = Answer<Result<Response<v1::RenewResponse>, Status>>;

    fn call(&mut self, request: Request<v1::RenewRequest>) -> Self::Future {
        let api = Arc::clone(&self.0);
        Box::pin(async move { api.renew(request).await })
    }
}
