//! The node's certificate, pinned.
//!
//! lnd makes its own certificate: a CA used as end entity, which ordinary verification refuses. We know the exact
//! certificate from its file, so we compare bytes, and check that the peer holds its private key.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use std::sync::Arc;
use thiserror::Error as ThisError;

/// The peer showed another certificate than the pinned one.
#[derive(ThisError)]
#[error("{PIN_MISMATCH}")]
struct PinMismatch;

impl std::fmt::Debug for PinMismatch {
    /// The text too: rustls shows a verifier's error by its debug form.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PIN_MISMATCH)
    }
}

/// Text of the refusal; TLS errors reach us as text only.
pub(crate) const PIN_MISMATCH: &str = "the server's certificate is not the pinned one";

/// Accepts exactly one certificate, whatever name or date it carries.
#[derive(Debug)]
pub(crate) struct PinnedCertificate {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl PinnedCertificate {
    /// Reads the first certificate of a PEM text.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<PinnedCertificate, String> {
        let pinned = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
        if pinned.is_empty() {
            return Err("the certificate is empty".to_owned());
        }
        Ok(PinnedCertificate { pinned, provider: Arc::new(rustls::crypto::ring::default_provider()) })
    }
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.pinned.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(PinMismatch)))))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Only bytes are compared, so that any will do: the PEM form of "pinned".
    const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----\ncGlubmVk\n-----END CERTIFICATE-----\n";

    #[test]
    fn only_the_pinned_bytes_are_accepted() {
        let verifier = PinnedCertificate::from_pem(PEM).expect("a certificate");
        let verify = |der: &[u8]| {
            let name = ServerName::try_from("another.name").expect("a name");
            verifier.verify_server_cert(&CertificateDer::from(der), &[], &name, &[], UnixTime::now())
        };
        assert!(verify(b"pinned").is_ok());
        for other in [&b"pinne"[..], b"pinnedx", b"", b"Pinned"] {
            let error = verify(other).expect_err("another certificate").to_string();
            assert!(error.contains(PIN_MISMATCH), "{error}");
        }
    }

    #[test]
    fn other_files_are_no_certificates() {
        for text in [&b""[..], b"-----BEGIN PRIVATE KEY-----\ncGlubmVk\n-----END PRIVATE KEY-----\n", &[0xff; 300]] {
            assert!(PinnedCertificate::from_pem(text).is_err());
        }
    }
}
