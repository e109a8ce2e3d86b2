//! What a test can plan: a conduct, for which requests, how often, and from when.

use super::Request;

/// One way to misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// An error status, with `Retry-After` in seconds where given. 405 for [`Asked::Head`] is a server without HEAD.
    Fail {
        /// Such as 404, 429 or 503.
        status: u16,
        /// Value of `Retry-After`.
        retry_after: Option<u64>,
    },
    /// 200 with this page instead of the file: a login form, a maintenance note.
    Html(String),
    /// 200 with a page of that kind, whatever is there: a listing as another server gives it.
    Page {
        /// The content type; none is sent when it is empty.
        kind: &'static str,
        /// The body.
        body: String,
    },
    /// 401 unless the request has exactly this Authorization.
    Locked(String),
    /// 302 to this address.
    Redirect(String),
    /// This content instead of the file's, properly served; with its own ETag unless told.
    Content {
        /// The bytes.
        bytes: Vec<u8>,
        /// The ETag, with its quotes: the file's own makes a change that nobody is told of.
        tag: Option<String>,
    },
    /// 200 with the whole content, whatever range is asked for.
    IgnoreRange,
    /// 206 also when the validator in `If-Range` is not the present one.
    IgnoreIfRange,
    /// Another ETag in every answer.
    NewTag,
    /// Neither ETag nor Last-Modified.
    NoValidator,
    /// No Content-Length: the body comes in chunks.
    Chunked,
    /// This Content-Length, whatever the body's length; the connection closes after the body.
    ClaimLength(u64),
    /// The connection closes after that many bytes of the body.
    CloseAfter(u64),
    /// Nothing more comes after that many bytes of the body, until [`super::RudeServer::release`].
    StallAfter(u64),
    /// Nothing of the file from that byte on comes, until [`super::RudeServer::release`].
    StallAt(u64),
    /// That many bytes of the body each second.
    Slow(u64),
}

/// Which requests a plan is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// All of them.
    #[default]
    Any,
    /// HEAD.
    Head,
    /// GET, with or without a range.
    Get,
    /// GET of a range.
    Range,
}

/// A conduct, and when it applies.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) conduct: Conduct,
    asked: Asked,
    skip: u64,
    times: Option<u64>,
}

impl Plan {
    /// That conduct, for every request.
    pub fn new(conduct: Conduct) -> Plan {
        Plan { conduct, asked: Asked::Any, skip: 0, times: None }
    }

    /// Only for requests of that kind.
    pub fn on(self, asked: Asked) -> Plan {
        Plan { asked, ..self }
    }

    /// Only after that many matching requests went well.
    pub fn after(self, requests: u64) -> Plan {
        Plan { skip: requests, ..self }
    }

    /// Only that many times; then all is well.
    pub fn times(self, times: u64) -> Plan {
        Plan { times: Some(times), ..self }
    }
}

impl From<Conduct> for Plan {
    fn from(conduct: Conduct) -> Plan {
        Plan::new(conduct)
    }
}

/// A plan, and how often its time has come.
#[derive(Debug)]
pub(super) struct Planned {
    plan: Plan,
    seen: u64,
}

impl Planned {
    pub(super) fn new(plan: Plan) -> Planned {
        Planned { plan, seen: 0 }
    }

    /// Counts a request for this plan's path, and gives the conduct if it applies.
    pub(super) fn meet(&mut self, request: &Request) -> Option<Conduct> {
        let matches = match self.plan.asked {
            Asked::Any => true,
            Asked::Head => request.method == "HEAD",
            Asked::Get => request.method == "GET",
            Asked::Range => request.method == "GET" && request.header("range").is_some(),
        };
        if !matches {
            return None;
        }
        let turn = self.seen;
        self.seen += 1;
        let begun = turn >= self.plan.skip;
        let over = self.plan.times.is_some_and(|times| turn >= self.plan.skip.saturating_add(times));
        (begun && !over).then(|| self.plan.conduct.clone())
    }
}
