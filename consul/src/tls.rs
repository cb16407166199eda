//! One TLS configuration for both HTTP clients, made from the files that `[consul]` names.

use std::path::Path;
use std::sync::Arc;

use config::ConsulConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::Error;

/// Makes the configuration. Without an `https` address nothing of the system is read.
pub(crate) fn client_config(settings: &ConsulConfig) -> Result<ClientConfig, Error> {
    // The first one to call this wins, and all of this project wants the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ClientConfig::builder();
    let builder = match &settings.ca_file {
        Some(file) => builder.with_root_certificates(authorities(file)?),
        None if settings.addresses.iter().any(|a| a.starts_with("https://")) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = Verifier::new(provider).map_err(|e| Error::Setup {
                why: format!("the system's certificate authorities cannot be read ({e}); name a ca_file in [consul]"),
            })?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let (Some(cert_file), Some(key_file)) = (&settings.cert_file, &settings.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| fault("key_file", key_file, e))?;
    builder
        .with_client_auth_cert(certificates("cert_file", cert_file)?, key)
        .map_err(|e| fault("cert_file", cert_file, format!("it does not go with the key_file: {e}")))
}

fn authorities(file: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("ca_file", file)? {
        store.add(certificate).map_err(|e| fault("ca_file", file, e))?;
    }
    Ok(store)
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    let found = found.map_err(|e| fault(key, file, e))?;
    if found.is_empty() {
        return Err(fault(key, file, "it holds no certificate in PEM form"));
    }
    Ok(found)
}

fn fault(key: &'static str, file: &Path, why: impl ToString) -> Error {
    Error::File { key, file: file.to_owned(), why: why.to_string() }
}
