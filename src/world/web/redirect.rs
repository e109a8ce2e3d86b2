//! Which redirects are followed.

use reqwest::redirect::{Attempt, Policy};

use super::RedirectRefusal;
use crate::backup::without_password;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// What the client's redirect policy hands through reqwest, whose own error does not tell where it led.
#[derive(Debug, thiserror::Error)]
#[error("the redirect to {to} is refused")]
pub(super) struct RefusedRedirect {
    pub(super) to: String,
    pub(super) reason: RedirectRefusal,
}

/// Follows what leads to HTTP, never from HTTPS to HTTP, and ten times in a row at most.
pub(super) fn policy() -> Policy {
    Policy::custom(|attempt| match refusal(&attempt) {
        None => attempt.follow(),
        Some(reason) => {
            let to = without_password(attempt.url());
            attempt.error(RefusedRedirect { to, reason })
        }
    })
}

fn refusal(attempt: &Attempt<'_>) -> Option<RedirectRefusal> {
    let from_https = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    match attempt.url().scheme() {
        "https" | "http" if attempt.previous().len() > MAX_REDIRECTS => Some(RedirectRefusal::TooMany),
        "http" if from_https => Some(RedirectRefusal::Downgrade),
        "https" | "http" => None,
        _ => Some(RedirectRefusal::Scheme),
    }
}
