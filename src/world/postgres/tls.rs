//! TLS to PostgreSQL and pgbouncer, with the certificates that libpq would use (PostgreSQL 15, 34.19).
//!
//! Certificates are judged by rustls: the host must be among the certificate's alternative names, its common name does not
//! count, and an authority's own certificate is no server's.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Trouble, causes};
use crate::world::libpq::{Authorities, Mode, Tls};

/// TLS as it is wanted.
pub(super) fn connector(tls: &Tls) -> Result<MakeRustlsConnect, Trouble> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let cannot = |error: Error| Trouble::new("cannot use TLS").because(error);
    let versions: &[_] = if tls.only_newest { &[&rustls::version::TLS13] } else { rustls::DEFAULT_VERSIONS };
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(cannot)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(tls, provider)?));
    let config = match &tls.ours {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let bad = |path: &Path| Trouble::new(format!("cannot use {}", path.display()));
            let chain = all(CertificateDer::pem_file_iter(certificate), certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key).because(error))?;
            config.with_client_auth_cert(chain, private).map_err(|error| bad(certificate).because(error))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// Whether it is TLS that a connection failed at.
pub(super) fn is_at_fault(error: &tokio_postgres::Error) -> bool {
    causes(error).any(|cause| {
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        within.is_some_and(|fault| fault.is::<Error>() || fault.is::<InvalidDnsNameError>())
    })
}

/// Judges a server's certificate as far as `sslmode` asks for.
#[derive(Debug)]
struct Verifier {
    /// Nobody who is trusted: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the certificate must name the host.
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Verifier, Trouble> {
        let names = tls.mode == Mode::VerifyFull;
        let mut roots = RootCertStore::empty();
        let file = match &tls.authorities {
            _ if tls.mode == Mode::Disable => return Ok(Verifier { chain: None, names, provider }),
            None => return Ok(Verifier { chain: None, names, provider }),
            Some(Authorities::System) => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "the system's certificates".to_owned()
            }
            Some(Authorities::File(file)) => {
                roots.add_parsable_certificates(all(CertificateDer::pem_file_iter(file), file)?);
                file.display().to_string()
            }
        };
        let revoked = match &tls.revoked {
            Some(file) => all(CertificateRevocationListDer::pem_file_iter(file), file)?,
            None => Vec::new(),
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .with_crls(revoked)
            .build()
            .map_err(|error| Trouble::new(format!("cannot verify servers by {file}")).because(error))?;
        Ok(Verifier { chain: Some(chain), names, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last, when all else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Everything of one kind in a PEM file.
fn all<T, E: std::fmt::Display>(
    items: Result<impl Iterator<Item = Result<T, E>>, E>,
    file: &Path,
) -> Result<Vec<T>, Trouble> {
    let items = items.and_then(Iterator::collect::<Result<Vec<T>, E>>);
    items.map_err(|error| Trouble::new(format!("cannot read {}", file.display())).because(error))
}
