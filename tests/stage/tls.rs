//! TLS in front of a server that speaks none: with a certificate for [`LOCAL`] that an authority of its own has signed.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{
    LOCAL, Stage,
    error::{Result, StageError},
    scratch::tell,
};

/// A door with TLS to the server on a port. Dropping it closes it.
#[derive(Debug)]
pub struct TlsDoor {
    port: u16,
    authority: PathBuf,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TlsDoor {
    /// Opens a door to the server that listens on `behind`.
    pub fn open(stage: &Stage, behind: u16) -> Result<TlsDoor> {
        let (config, authority) = certified().map_err(|error| StageError::Unfit(error.to_string()))?;
        let path = stage.scratch().new_folder("tls")?.join("ca.pem");
        stage.scratch().write(&path, authority)?;
        let unfit = |error: std::io::Error| StageError::Unfit(error.to_string());
        let listener = TcpListener::bind((LOCAL, 0)).map_err(unfit)?;
        let port = listener.local_addr().map_err(unfit)?.port();
        let closing = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&closing);
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let config = Arc::clone(&config);
                // A client that does not trust us goes away, which is what it should do.
                thread::spawn(move || client.map(|client| pass_on(client, config, behind)));
            }
        });
        Ok(TlsDoor { port, authority: path, closing, thread: Some(thread) })
    }

    /// The port, on [`LOCAL`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate, in PEM.
    pub fn authority(&self) -> String {
        self.authority.display().to_string()
    }
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // A connection wakes the thread that waits for one; it then sees that we are closing.
        let woken = TcpStream::connect((LOCAL, self.port)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken)
            && thread.join().is_err()
        {
            tell("the thread of a door with TLS panicked");
        }
    }
}

/// The server's side of TLS, and the certificate of the authority that vouches for it.
fn certified() -> std::result::Result<(Arc<ServerConfig>, String), Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let vouching = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![LOCAL.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((Arc::new(config), vouching))
}

/// One request and its answer, after which the connection closes.
fn pass_on(client: TcpStream, config: Arc<ServerConfig>, behind: u16) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    let mut server = TcpStream::connect((LOCAL, behind))?;
    server.write_all(&head)?;
    std::io::copy(&mut server, &mut client)?;
    client.conn.send_close_notify();
    client.flush()?;
    client.sock.shutdown(Shutdown::Write)
}
