//! Tests of `web.rs`, on servers on loopback.

use super::*;
use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server does after its answer.
#[derive(Clone, Copy)]
enum Then {
    /// Closes the connection.
    Close,
    /// Says nothing more until the client goes away.
    Hold,
    /// Has not even read the request, so that the kernel resets the connection.
    Reset,
}

/// A server that gives each connection one scripted answer, however wrong, and keeps the requests.
struct Rude {
    url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Rude {
    fn serving(answers: Vec<(String, Then)>) -> Self {
        Self::start(None, answers)
    }

    fn start(tls: Option<Arc<ServerConfig>>, answers: Vec<(String, Then)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/b/shop.dump", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for (answer, then) in answers {
                let (stream, _) = listener.accept().unwrap();
                match &tls {
                    None => speak(stream, &answer, then, &seen),
                    Some(tls) => {
                        let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                        speak(StreamOwned::new(connection, stream), &answer, then, &seen);
                    }
                }
            }
        });
        Self { url: url.parse().unwrap(), requests }
    }

    fn one(answer: impl Into<String>) -> Self {
        Self::serving(vec![(answer.into(), Then::Close)])
    }

    fn request(&self, number: usize) -> String {
        self.requests.lock().unwrap()[number].to_ascii_lowercase()
    }
}

trait Peek {
    /// Waits until something can be read, without reading it.
    fn await_byte(&self);
}

impl Peek for TcpStream {
    fn await_byte(&self) {
        self.peek(&mut [0]).unwrap();
    }
}

impl Peek for StreamOwned<ServerConnection, TcpStream> {
    fn await_byte(&self) {
        self.sock.await_byte();
    }
}

fn speak(mut stream: impl Read + Write + Peek, answer: &str, then: Then, requests: &Mutex<Vec<String>>) {
    if matches!(then, Then::Reset) {
        stream.await_byte();
        return;
    }
    let mut request = Vec::new();
    let mut byte = [0];
    // A client that does not trust us goes away before it has asked anything.
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    requests.lock().unwrap().push(String::from_utf8(request).unwrap());
    let sent = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
    if matches!(then, Then::Hold) && sent.is_ok() {
        while matches!(stream.read(&mut byte), Ok(1)) {}
    }
}

fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn ok(headers: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    answer("200 OK", &[headers, &[&length]].concat(), body)
}

fn part(range: &str, headers: &[&str], body: &str) -> String {
    let range = format!("Content-Range: bytes {range}");
    let length = format!("Content-Length: {}", body.len());
    answer("206 Partial Content", &[headers, &[&range, &length]].concat(), body)
}

fn redirect(to: &str) -> String {
    answer("302 Found", &[&format!("Location: {to}"), "Content-Length: 0"], "")
}

fn web() -> Web {
    Web::new(&WebOptions::default()).unwrap()
}

fn impatient() -> Web {
    Web::new(&WebOptions { read_timeout: Duration::from_millis(50), ..WebOptions::default() }).unwrap()
}

/// The file that most tests are about: ten bytes with a tag.
const DATA: &str = "0123456789";
const TAG: &str = "ETag: \"v1\"";

fn known(server: &Rude) -> Meta {
    Meta {
        url: server.url.clone(),
        length: Some(10),
        validator: Some(Validator::Etag("\"v1\"".into())),
        last_modified: None,
        accept_ranges: true,
    }
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    full_at: Option<usize>,
}

impl Kept {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }
}

impl Sink for Kept {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.full_at.is_some_and(|full| self.bytes.len() + chunk.len() > full) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}

/// A sink that has the first bytes of the file already.
fn having(bytes: &str) -> Kept {
    Kept { bytes: bytes.into(), full_at: None }
}

fn never() -> watch::Receiver<bool> {
    watch::channel(false).1
}

async fn download(server: &Rude, meta: &Meta, sink: &mut Kept) -> Result<Received, WebError> {
    let from = sink.bytes.len() as u64;
    web().download(&server.url, meta, from, sink, &mut never()).await
}

/// What a download that has four bytes makes of an answer: the file, or the error.
async fn resumed(answer: String) -> Result<String, WebError> {
    let server = Rude::one(answer);
    let mut sink = having("0123");
    download(&server, &known(&server), &mut sink).await.map(|_| sink.text().to_owned())
}

#[tokio::test]
async fn a_listing_is_asked_for_as_json_first_and_told_where_it_was_found() {
    let mut server = Rude::serving(vec![
        (redirect("/b/shop/?x=1"), Then::Close),
        (ok(&["Content-Type: text/html;charset=UTF-8"], "<a href=x>"), Then::Close),
    ]);
    server.url.set_username("me").unwrap();
    server.url.set_password(Some("s%3Acret")).unwrap();
    let page = web().list(&server.url).await.unwrap();
    assert_eq!(page.body, b"<a href=x>");
    assert_eq!(page.content_type.as_deref(), Some("text/html;charset=UTF-8"));
    let port = server.url.port().unwrap();
    assert_eq!(page.final_url.as_str(), format!("http://me:s%3Acret@127.0.0.1:{port}/b/shop/?x=1"));
    assert!(server.request(0).contains("accept: application/json, text/html;q=0.9"));
    assert!(server.request(0).contains("accept-encoding: identity"));
    assert!(server.request(0).contains("user-agent: pg_staging/"));
    // "me:s:cret" in base64, on both requests, since both went to one server.
    assert!(server.request(0).contains("authorization: basic bwu6czpjcmv0"));
    assert!(server.request(1).contains("authorization: basic bwu6czpjcmv0"));
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_server() {
    let other = Rude::one(ok(&[], "page"));
    let mut server = Rude::one(redirect(other.url.as_str()));
    server.url.set_username("me").unwrap();
    server.url.set_password(Some("secret")).unwrap();
    let page = web().list(&server.url).await.unwrap();
    assert_eq!(page.final_url, other.url);
    assert!(server.request(0).contains("authorization"));
    assert!(!other.request(0).contains("authorization"));
    assert!(!other.request(0).contains("referer"));
}

#[tokio::test]
async fn a_redirect_away_from_http_is_refused() {
    let server = Rude::one(redirect("ftp://h.example/x"));
    let error = web().list(&server.url).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the redirect from {} to ftp://h.example/x is not followed: it leads away from HTTP",
            server.url
        )
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn the_eleventh_redirect_is_refused() {
    let server = Rude::serving(vec![(redirect("/b/shop.dump"), Then::Close); 12]);
    let error = web().list(&server.url).await.unwrap_err();
    assert!(matches!(error, WebError::Redirect { reason: RedirectRefusal::TooMany, .. }), "{error:?}");
    assert_eq!(server.requests.lock().unwrap().len(), 11);
}

#[tokio::test]
async fn head_tells_length_tag_and_ranges() {
    let server = Rude::one(answer(
        "200 OK",
        &[
            TAG,
            "Content-Length: 5000000000",
            "Accept-Ranges: bytes",
            "Last-Modified: Sat, 21 Nov 2026 03:12:46 GMT",
        ],
        "",
    ));
    let meta = web().head(&server.url).await.unwrap();
    assert!(server.request(0).starts_with("head /b/shop.dump http/1.1"));
    assert_eq!(
        meta,
        Meta {
            url: server.url.clone(),
            length: Some(5_000_000_000),
            validator: Some(Validator::Etag("\"v1\"".into())),
            last_modified: Some("2026-11-21T03:12:46Z".parse().unwrap()),
            accept_ranges: true,
        }
    );
}

#[tokio::test]
async fn a_weak_tag_is_no_validator() {
    let modified = "Last-Modified: Sat, 21 Nov 2026 03:12:46 GMT";
    let server = Rude::one(ok(&["ETag: W/\"v1\"", modified], ""));
    let meta = web().head(&server.url).await.unwrap();
    assert_eq!(meta.validator, Some(Validator::LastModified("Sat, 21 Nov 2026 03:12:46 GMT".into())));
    assert!(!meta.accept_ranges);
}

#[tokio::test]
async fn where_head_is_refused_or_tells_nothing_the_first_byte_is_asked_for() {
    for refusal in ["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented", "200 OK"] {
        let server = Rude::serving(vec![
            (answer(refusal, &["Transfer-Encoding: chunked"], ""), Then::Close),
            (part("0-0/10", &[TAG], "0"), Then::Close),
        ]);
        let meta = web().head(&server.url).await.unwrap();
        assert_eq!(meta, known(&server), "{refusal}");
        assert!(server.request(1).contains("range: bytes=0-0"));
    }
}

#[tokio::test]
async fn a_probe_of_an_empty_file_or_a_server_without_ranges_tells_the_length() {
    let refused = || (answer("405 Method Not Allowed", &["Content-Length: 0"], ""), Then::Close);
    let empty = answer("416 Range Not Satisfiable", &["Content-Range: bytes */0"], "");
    let server = Rude::serving(vec![refused(), (empty, Then::Close)]);
    let meta = web().head(&server.url).await.unwrap();
    assert_eq!((meta.length, meta.accept_ranges), (Some(0), true));
    let server = Rude::serving(vec![refused(), (ok(&[], DATA), Then::Close)]);
    let meta = web().head(&server.url).await.unwrap();
    assert_eq!((meta.length, meta.accept_ranges), (Some(10), false));
    let server = Rude::serving(vec![refused(), (answer("403 Forbidden", &[], ""), Then::Close)]);
    let error = web().head(&server.url).await.unwrap_err();
    assert!(matches!(error, WebError::Status { code: 403, .. }), "{error:?}");
}

#[tokio::test]
async fn a_whole_download_asks_for_no_range() {
    let server = Rude::one(ok(&[TAG], DATA));
    let mut sink = having("");
    let received = download(&server, &known(&server), &mut sink).await.unwrap();
    assert_eq!(received, Received { from: 0, bytes: 10, restarted: false });
    assert_eq!(sink.text(), DATA);
    assert!(!server.request(0).contains("range:"));
}

#[tokio::test]
async fn a_download_goes_on_where_it_was() {
    let server = Rude::one(part("4-9/10", &[TAG], "456789"));
    let mut sink = having("0123");
    let received = download(&server, &known(&server), &mut sink).await.unwrap();
    assert_eq!(received, Received { from: 4, bytes: 6, restarted: false });
    assert_eq!(sink.text(), DATA);
    assert!(server.request(0).contains("\r\nrange: bytes=4-\r\n"));
    assert!(server.request(0).contains("if-range: \"v1\""));
}

#[tokio::test]
async fn a_server_that_ignores_range_makes_the_download_begin_again() {
    let server = Rude::one(ok(&[TAG], DATA));
    let mut sink = having("0123");
    let received = download(&server, &known(&server), &mut sink).await.unwrap();
    assert_eq!(received, Received { from: 0, bytes: 10, restarted: true });
    assert_eq!(sink.text(), DATA);
    // Without a tag the length alone speaks for the file.
    assert_eq!(resumed(ok(&[], DATA)).await.unwrap(), DATA);
}

#[tokio::test]
async fn nothing_left_to_fetch_is_a_download() {
    let all = || answer("416 Range Not Satisfiable", &["Content-Range: bytes */10"], "");
    let server = Rude::one(all());
    let all_of_it = Received { from: 10, bytes: 0, restarted: false };
    assert_eq!(download(&server, &known(&server), &mut having(DATA)).await.unwrap(), all_of_it);
    assert!(server.requests.lock().unwrap().is_empty());
    let unknown = Meta { length: None, ..known(&server) };
    assert_eq!(download(&server, &unknown, &mut having(DATA)).await.unwrap(), all_of_it);
    let error = resumed(all()).await.unwrap_err();
    assert!(matches!(error, WebError::Changed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_has_changed_is_refused_before_a_byte_of_it() {
    for (rude, detail) in [
        (ok(&["ETag: \"v2\""], DATA), "its etag was \"v1\" and now is \"v2\""),
        (ok(&["ETag: W/\"v1\""], DATA), "its etag was \"v1\" and now is W/\"v1\""),
        (part("4-9/10", &["ETag: \"v2\""], "456789"), "its etag was \"v1\" and now is \"v2\""),
        (ok(&[], "012345678"), "it had 10 bytes and now has 9"),
        (part("4-10/11", &[TAG], "456789x"), "it had 10 bytes and now has 11"),
        (answer("412 Precondition Failed", &[], ""), "the server says so (412)"),
        (
            answer("416 Range Not Satisfiable", &["Content-Range: bytes */3"], ""),
            "it now ends at byte 3, before byte 4",
        ),
    ] {
        let server = Rude::one(rude);
        let mut sink = having("0123");
        let error = download(&server, &known(&server), &mut sink).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} has changed since it was first seen: {detail}", server.url)
        );
        assert!(!error.is_transient());
        assert_eq!(sink.text(), "0123");
    }
}

#[tokio::test]
async fn a_changed_time_is_a_changed_file() {
    let server = Rude::one(ok(&["Last-Modified: Sun, 22 Nov 2026 03:12:46 GMT"], DATA));
    let validator = Validator::LastModified("Sat, 21 Nov 2026 03:12:46 GMT".into());
    let meta = Meta { validator: Some(validator), ..known(&server) };
    let error = download(&server, &meta, &mut having("01")).await.unwrap_err();
    assert!(matches!(error, WebError::Changed { .. }), "{error:?}");
    assert!(server.request(0).contains("if-range: sat, 21 nov 2026 03:12:46 gmt"));
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    let none = answer("206 Partial Content", &["Content-Length: 6"], "456789");
    let many = ["Content-Type: multipart/byteranges; boundary=x", "Content-Length: 1"];
    let rude = [
        (part("0-9/10", &[TAG], DATA), "bytes 0-9/10"),
        (part("5-9/10", &[TAG], "56789"), "bytes 5-9/10"),
        (part("4-3/10", &[TAG], ""), "bytes 4-3/10"),
        (part("*/10", &[TAG], ""), "bytes */10"),
        (part("99999999999999999999-9/10", &[TAG], ""), "bytes 99999999999999999999-9/10"),
        (none, "no range"),
        (answer("206 Partial Content", &many, "-"), "no range"),
    ];
    for (rude, said) in rude {
        let error = resumed(rude).await.unwrap_err();
        assert!(matches!(error, WebError::Range { .. }), "{error:?}");
        assert!(
            error.to_string().ends_with(&format!("were asked for, and the server sent {said}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_short_and_what_came_is_kept() {
    let chunked = ["Transfer-Encoding: chunked", "Content-Range: bytes 4-9/10"];
    for rude in [
        answer("206 Partial Content", &["Content-Length: 6", "Content-Range: bytes 4-9/10"], "45"),
        answer("206 Partial Content", &chunked, "2\r\n45\r\n"),
        answer("206 Partial Content", &chunked, "2\r\n45\r\n0\r\n\r\n"),
        answer("206 Partial Content", &["Content-Range: bytes 4-9/10"], "45"),
        // A server that serves no more than two bytes at a time.
        part("4-5/10", &[TAG], "45"),
    ] {
        let server = Rude::one(rude);
        let mut sink = having("0123");
        let error = download(&server, &known(&server), &mut sink).await.unwrap_err();
        assert_eq!(error.to_string(), format!("only 2 of 6 bytes of {} came", server.url));
        assert!(error.is_transient());
        assert_eq!(sink.text(), "012345");
    }
}

#[tokio::test]
async fn more_than_was_announced_is_not_taken() {
    let server = Rude::one(answer("200 OK", &[], "0123456789x"));
    let mut sink = having("");
    let error = download(&server, &known(&server), &mut sink).await.unwrap_err();
    assert!(matches!(error, WebError::Changed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    for rude in [String::new(), answer("206 Partial Content", &["Content-Range: bytes 4-9/10"], "45")] {
        let server = Rude::serving(vec![(rude, Then::Hold)]);
        let (meta, mut sink) = (known(&server), having("0123"));
        let error = impatient().download(&server.url, &meta, 4, &mut sink, &mut never()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no byte of {} came within 0.05 s", server.url));
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_may_be_tried_again() {
    for (rude, then) in [("", Then::Close), ("", Then::Reset), ("HTTP/1.1 200", Then::Close)] {
        let server = Rude::serving(vec![(rude.to_owned(), then); 3]);
        let error = download(&server, &known(&server), &mut having("")).await.unwrap_err();
        assert!(matches!(error, WebError::Interrupted { .. }), "{error:?}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_refused_connection_may_be_tried_again_and_says_where() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("http://me:secret@{}/b/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = web().list(&url).await.unwrap_err();
    let shown = format!("cannot connect to http://127.0.0.1:{}/b/: ", url.port().unwrap());
    assert!(error.to_string().starts_with(&shown), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.is_transient());
    assert!(error.hint().unwrap().contains("backup_host"));
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let url: Url = "http://no-such-host.invalid/b/".parse().unwrap();
    let error = web().list(&url).await.unwrap_err();
    assert!(matches!(error, WebError::Host { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot find the host of http://no-such-host.invalid/b/: "));
}

#[tokio::test]
async fn other_schemes_are_refused() {
    let url: Url = "file:///etc/passwd".parse().unwrap();
    let error = web().head(&url).await.unwrap_err();
    assert_eq!(error.to_string(), "file:///etc/passwd is not an http or https URL");
}

#[tokio::test]
async fn an_encoded_dump_is_refused() {
    let gzip = ["Content-Encoding: gzip"];
    for server in [Rude::one(ok(&gzip, DATA)), Rude::one(part("4-9/10", &gzip, "456789"))] {
        let error = download(&server, &known(&server), &mut having("0123")).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{} comes encoded as gzip", server.url));
        assert!(!error.is_transient());
    }
    assert_eq!(resumed(ok(&["Content-Encoding: identity"], DATA)).await.unwrap(), DATA);
}

#[tokio::test]
async fn statuses_tell_whether_to_try_again_and_when() {
    let date = "Date: Tue, 24 Nov 2026 05:00:00 GMT";
    let cases: [(&str, &[&str], bool, Option<u64>); 9] = [
        ("500 Internal Server Error", &[], true, None),
        ("503 Service Unavailable", &["Retry-After: 7"], true, Some(7)),
        ("429 Too Many Requests", &["Retry-After: Tue, 24 Nov 2026 05:01:30 GMT", date], true, Some(90)),
        ("429 Too Many Requests", &["Retry-After: Tue, 24 Nov 2026 04:00:00 GMT", date], true, Some(0)),
        ("429 Too Many Requests", &["Retry-After: soon"], true, None),
        ("408 Request Timeout", &[], true, None),
        ("501 Not Implemented", &[], false, None),
        ("401 Unauthorized", &[], false, None),
        ("403 Forbidden", &[], false, None),
    ];
    for (status, headers, transient, seconds) in cases {
        let headers = [headers, &["Content-Length: 0"]].concat();
        let error = resumed(answer(status, &headers, "")).await.unwrap_err();
        assert!(error.to_string().ends_with(&format!("/b/shop.dump was answered with {status}")), "{error}");
        assert_eq!(
            (error.is_transient(), error.retry_after()),
            (transient, seconds.map(Duration::from_secs))
        );
    }
}

#[tokio::test]
async fn what_an_object_store_says_is_told() {
    let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>No.</Message></Error>";
    let xml = ["Content-Type: application/xml"];
    let server = Rude::one(answer("403 Forbidden", &xml, body));
    let error = web().list(&server.url).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} was answered with 403 AccessDenied: No", server.url));

    let server = Rude::one(answer("404 Not Found", &xml, &body.replace("AccessDenied", "NoSuchBucket")));
    let error = web().list(&server.url).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} does not exist (NoSuchBucket: No)", server.url));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_sink_that_is_full_ends_the_download() {
    let server = Rude::one(ok(&[TAG], DATA));
    let mut sink = Kept { full_at: Some(5), ..Kept::default() };
    let error = download(&server, &known(&server), &mut sink).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot keep what came of {}", server.url));
    assert_eq!(error.source().unwrap().to_string(), "no storage space");
    assert!(!error.is_transient());
}

/// Raises the stop signal with the first bytes that come.
struct StopAtFirst(Kept, watch::Sender<bool>);

impl Sink for StopAtFirst {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.1.send_replace(true);
        self.0.write(chunk)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.0.restart()
    }
}

#[tokio::test]
async fn a_stop_ends_the_download_between_two_chunks() {
    let server = Rude::serving(vec![(answer("200 OK", &["Content-Length: 10"], "0123"), Then::Hold)]);
    let (raise, mut stop) = watch::channel(false);
    let mut sink = StopAtFirst(Kept::default(), raise);
    let error = web().download(&server.url, &known(&server), 0, &mut sink, &mut stop).await.unwrap_err();
    assert_eq!(error.to_string(), format!("stopped while reading {}", server.url));
    assert_eq!(sink.0.text(), "0123");
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_an_answer() {
    let server = Rude::serving(vec![(String::new(), Then::Hold)]);
    let (raise, mut stop) = watch::channel(false);
    let (web, meta, mut sink) = (web(), known(&server), having(""));
    let waiting = web.download(&server.url, &meta, 0, &mut sink, &mut stop);
    let (ended, ()) = tokio::join!(waiting, async { assert!(!raise.send_replace(true)) });
    assert!(matches!(ended, Err(WebError::Stopped { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_part_is_read_from_servers_with_and_without_ranges() {
    let read = async |rude: String, first, last| {
        let server = Rude::one(rude);
        let bytes = web().get_range(&server.url, &known(&server), first, last).await;
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    };
    assert_eq!(read(part("2-4/10", &[TAG], "234"), 2, 4).await.unwrap(), "234");
    assert_eq!(read(part("8-9/10", &[TAG], "89"), 8, 99).await.unwrap(), "89");
    assert_eq!(read(ok(&[TAG], DATA), 0, 3).await.unwrap(), "0123");
    assert_eq!(read(ok(&[TAG], DATA), 0, 99).await.unwrap(), DATA);
    let end = answer("416 Range Not Satisfiable", &["Content-Range: bytes */10"], "");
    assert_eq!(read(end, 10, 19).await.unwrap(), "");
    let error = read(ok(&[TAG], DATA), 2, 4).await.unwrap_err();
    assert!(matches!(error, WebError::NoRanges { .. }), "{error:?}");
    let error = read(part("2-9/10", &[TAG], "23456789"), 2, 4).await.unwrap_err();
    assert!(error.to_string().starts_with("bytes 2-4 of http://"), "{error}");
    let error = read(part("2-4/10", &["ETag: \"v2\""], "234"), 2, 4).await.unwrap_err();
    assert!(matches!(error, WebError::Changed { .. }), "{error:?}");
    let short = answer("206 Partial Content", &["Content-Range: bytes 2-4/10"], "23");
    let error = read(short, 2, 4).await.unwrap_err();
    assert!(matches!(error, WebError::Short { got: 2, expected: 3, .. }), "{error:?}");
}

#[tokio::test]
async fn a_long_part_is_streamed_and_never_replaced_by_the_whole() {
    let stream = async |rude: String| {
        let server = Rude::one(rude);
        let mut sink = having("");
        let ended = web().download_range(&server.url, &known(&server), 0, 5, &mut sink, &mut never()).await;
        ended.map(|bytes| (bytes, sink.text().to_owned()))
    };
    assert_eq!(stream(part("0-5/10", &[TAG], "012345")).await.unwrap(), (6, "012345".into()));
    let error = stream(ok(&[TAG], DATA)).await.unwrap_err();
    assert!(matches!(error, WebError::NoRanges { .. }), "{error:?}");
    let error = stream(part("0-1/10", &[TAG], "01")).await.unwrap_err();
    assert!(matches!(error, WebError::Short { got: 2, expected: 6, .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_announced_or_not() {
    for rude in [ok(&[], DATA), answer("200 OK", &[], DATA)] {
        let server = Rude::serving(vec![(rude, Then::Close); 2]);
        assert_eq!(web().get_small(&server.url, 10).await.unwrap(), DATA.as_bytes());
        let error = web().get_small(&server.url, 9).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{} is longer than 9 bytes", server.url));
    }
    let server = Rude::one(answer("200 OK", &["Content-Length: 67108865"], ""));
    let error = web().list(&server.url).await.unwrap_err();
    assert!(matches!(error, WebError::TooLarge { limit: LISTING_LIMIT, .. }), "{error:?}");
}

#[tokio::test]
async fn a_sum_is_read_and_may_be_missing_but_not_wrong() {
    let sum = async |rude: String| {
        let mut server = Rude::one(rude);
        server.url.set_path("/b/a%20b.2026-11-21.dump.sha256");
        web().sha256_of(&server.url).await
    };
    let hex = "0a".repeat(32);
    assert_eq!(sum(ok(&[], &format!("{hex}  a b.2026-11-21.dump\n"))).await.unwrap(), Some([10; 32]));
    assert_eq!(sum(answer("404 Not Found", &[], "")).await.unwrap(), None);
    let error = sum(ok(&[], &format!("{hex}  other.dump\n"))).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot use the sums in http://"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "no SHA-256 sum for a b.2026-11-21.dump in it");
}

/// A server's side of TLS with a certificate of its own for 127.0.0.1, and that certificate as a file.
fn own_certificate() -> (Arc<ServerConfig>, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), file)
}

#[tokio::test]
async fn a_server_is_trusted_when_its_authority_is() {
    let (config, file) = own_certificate();
    let server = Rude::start(
        Some(config),
        vec![
            (ok(&[TAG], DATA), Then::Close),
            (redirect("http://127.0.0.1:9/"), Then::Close),
            (String::new(), Then::Close),
            (String::new(), Then::Close),
        ],
    );
    let options = WebOptions { ca_file: Some(file.path().to_owned()), ..WebOptions::default() };
    let trusting = Web::new(&options).unwrap();
    assert_eq!(trusting.get_small(&server.url, 10).await.unwrap(), DATA.as_bytes());

    let error = trusting.get_small(&server.url, 10).await.unwrap_err();
    assert!(matches!(error, WebError::Redirect { reason: RedirectRefusal::Downgrade, .. }), "{error:?}");
    assert!(error.to_string().contains(" to http://127.0.0.1:9/ is not followed"), "{error}");

    let error = web().get_small(&server.url, 10).await.unwrap_err();
    assert!(error.to_string().starts_with("no secure connection to https://127.0.0.1:"), "{error}");
    assert!(!error.is_transient());
    assert!(error.hint().unwrap().contains("ca_file"));

    let mut other_name = server.url.clone();
    other_name.set_host(Some("localhost")).unwrap();
    let error = trusting.get_small(&other_name, 10).await.unwrap_err();
    assert!(matches!(error, WebError::Tls { fault: TlsFault::Certificate, .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_prefers_http2_is_spoken_to_in_http1() {
    let (config, file) = own_certificate();
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Rude::start(Some(Arc::new(config)), vec![(ok(&[], DATA), Then::Close)]);
    let options = WebOptions { ca_file: Some(file.path().to_owned()), ..WebOptions::default() };
    let web = Web::new(&options).unwrap();
    assert_eq!(web.get_small(&server.url, 10).await.unwrap(), DATA.as_bytes());
}

#[tokio::test]
async fn https_to_a_server_of_plain_http_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("https://{}/b/", listener.local_addr().unwrap()).parse().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        while matches!(stream.read(&mut [0]), Ok(1)) {}
    });
    let error = web().list(&url).await.unwrap_err();
    assert!(matches!(error, WebError::Tls { fault: TlsFault::Protocol, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("http://"));
}

#[test]
fn a_file_of_authorities_must_hold_some() {
    let cause = |path: PathBuf| {
        let options = WebOptions { ca_file: Some(path), ..WebOptions::default() };
        let error = Web::new(&options).unwrap_err();
        assert!(error.to_string().starts_with("cannot read certificates from "), "{error}");
        error.source().unwrap().to_string()
    };
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(cause(empty.path().to_owned()), "there is no certificate in it");
    assert!(cause(empty.path().join("none")).contains("I/O error"));
}
