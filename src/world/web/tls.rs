//! TLS: which authorities are trusted, which protocol is spoken, and what kind of fault an error is.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::{CaFileError, TlsFault, WebError, WebOptions};

/// TLS as rustls with ring does it. A host without any trusted authority can still speak plain HTTP, so that an
/// empty store is no error before a server has to be proven.
pub(super) fn tls(options: &WebOptions) -> Result<ClientConfig, WebError> {
    let mut roots = RootCertStore::empty();
    // Bundles hold the odd certificate that cannot be used; what it would have vouched for fails with its own error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &options.ca_file {
        add_authorities(&mut roots, path)
            .map_err(|source| WebError::CaFile { path: path.clone(), source })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| WebError::Client { cause: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Not h2: there all downloads from a host share one connection and its window, so that a few whose sinks wait
    // (for pg_restore) starve the others until they count as stalled.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), CaFileError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before { Err(CaFileError::Empty) } else { Ok(()) }
}

pub(super) fn tls_fault(error: &rustls::Error) -> TlsFault {
    match error {
        // A bad signature means that the authority of that name is another one than the one that signed.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => TlsFault::Issuer,
        rustls::Error::InvalidCertificate(_) => TlsFault::Certificate,
        _ => TlsFault::Protocol,
    }
}
