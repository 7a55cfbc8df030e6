//! `/admin/...`: faults and inspection over HTTP, JSON both ways, without signatures. Only when switched on.
//!
//! | request | does |
//! |---|---|
//! | GET /admin/streams | names |
//! | GET /admin/streams/NAME | connections, fragments with size and hash, acks sent |
//! | POST /admin/streams/NAME/end-get-media | ends the GetMedia answers that run now, silently |
//! | POST /admin/streams/NAME/fragments/NUMBER/corrupt | flips a payload byte on disk |
//! | DELETE /admin/streams/NAME/fragments/NUMBER | removes it |
//! | GET /admin/calls | calls per path |
//! | GET /admin/faults, POST (one fault, see `FaultKind`), DELETE | what waits, add, clear |
//! | POST /admin/expire | removes what is past its retention |

use std::sync::Arc;

use hyper::{Method, Response};
use serde_json::json;

use crate::errors::ServiceError;
use crate::faults::Fault;
use crate::local::{FragmentError, connections, corrupt_fragment, delete_fragment, find, fragments};
use crate::server::{Body, json as answer};
use crate::service::Service;

impl From<FragmentError> for ServiceError {
    fn from(error: FragmentError) -> Self {
        Self::operation("ResourceNotFoundException", 404, error.to_string())
    }
}

pub(crate) async fn handle(
    service: &Arc<Service>,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<Response<Body>, ServiceError> {
    let parts: Vec<&str> = path.trim_start_matches("/admin/").split('/').collect();
    let done = || answer(&json!({}));
    match (method.as_str(), &parts[..]) {
        ("GET", ["streams"]) => {
            answer(&service.all().iter().map(|stream| stream.name.clone()).collect::<Vec<_>>())
        }
        ("GET", ["streams", name]) => {
            let stream = find(service, name)?;
            let fragments = fragments(&stream).await?;
            answer(&json!({
                "stream": stream.info(),
                "connections": connections(&stream),
                "fragments": fragments,
                "acks": stream.acks(),
            }))
        }
        ("POST", ["streams", name, "end-get-media"]) => {
            find(service, name)?.end_get_media();
            done()
        }
        ("POST", ["streams", name, "fragments", number, "corrupt"]) => {
            corrupt_fragment(&*find(service, name)?, number).await?;
            done()
        }
        ("DELETE", ["streams", name, "fragments", number]) => {
            delete_fragment(&*find(service, name)?, number).await?;
            done()
        }
        ("GET", ["calls"]) => answer(&service.calls()),
        ("GET", ["faults"]) => answer(&service.faults.waiting()),
        ("POST", ["faults"]) => {
            let fault: Fault = serde_json::from_slice(body)
                .map_err(|error| ServiceError::invalid_argument(format!("fault: {error}")))?;
            service.faults.inject(fault);
            done()
        }
        ("DELETE", ["faults"]) => {
            service.faults.clear();
            done()
        }
        ("POST", ["expire"]) => {
            service.expire_all().await;
            done()
        }
        _ => Err(ServiceError::operation(
            "NotFound",
            404,
            format!("no {method} {path} here, see the admin module"),
        )),
    }
}
