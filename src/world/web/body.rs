//! The body of an answer on its way into memory or a sink.

use reqwest::{Response, header};
use tokio::sync::watch;
use url::Url;

use super::answer::number;
use super::error::{changed, short};
use super::{Sink, Web, WebError};
use crate::backup::without_password;

impl Web {
    /// Streams an answer into the sink and gives its length, which is the announced one if there is one.
    pub(super) async fn pour(
        &self,
        mut response: Response,
        url: &Url,
        length: Option<u64>,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<u64, WebError> {
        let mut got: u64 = 0;
        loop {
            let chunk = unless_stopped(url, stop, response.chunk()).await?;
            let Some(chunk) = chunk.map_err(|error| self.broken(&error, url, got, length))? else {
                break;
            };
            let now = got.saturating_add(chunk.len() as u64);
            if let Some(length) = length.filter(|length| now > *length) {
                return Err(changed(url, &format!("more than {length} bytes came")));
            }
            sink.write(&chunk).map_err(|source| WebError::Sink { url: without_password(url), source })?;
            got = now;
        }
        match length {
            Some(expected) if got < expected => Err(short(url, got, expected)),
            _ => Ok(got),
        }
    }

    /// An answer's whole body in memory.
    pub(super) async fn collect(
        &self,
        mut response: Response,
        url: &Url,
        limit: u64,
    ) -> Result<Vec<u8>, WebError> {
        let too_large = || WebError::TooLarge { url: without_password(url), limit };
        let length = number(response.headers(), &header::CONTENT_LENGTH);
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            let got = body.len() as u64;
            let chunk = response.chunk().await.map_err(|error| self.broken(&error, url, got, length))?;
            let Some(chunk) = chunk else { return Ok(body) };
            if got.saturating_add(chunk.len() as u64) > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// Waits for `work`, but no longer than until `stop` becomes true.
pub(super) async fn unless_stopped<T>(
    url: &Url,
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Result<T, WebError> {
    let stopped = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Whoever could have stopped us is gone.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped => Err(WebError::Stopped { url: without_password(url) }),
        done = work => Ok(done),
    }
}
