//! The contents of our certificates and of the requests for them: names, usage and validity.

use super::provider;
use gaiola_wire::x509;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Validity of the authority, in years.
const CA_YEARS: i16 = 30;
/// Validity of a server's certificate, in years.
const CERT_YEARS: i16 = 5;
/// A certificate that ends sooner is issued again.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Length of an uncompressed point on P-256.
const P256_POINT: usize = 65;

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is not PKCS#10 in PEM, it asks for what no server has, or it was not signed by the key in it.
    #[error("it cannot be read, or its own key has not signed it")]
    Malformed(#[source] rcgen::Error),
    /// Its key is of another kind.
    #[error("its key is not an ECDSA key on P-256")]
    Key,
    /// It is for another name, or for other addresses.
    #[error("it is for {requested}, not for {wanted}")]
    Names {
        /// What it names.
        requested: String,
        /// What it must name.
        wanted: String,
    },
}

/// What a server's certificate is valid for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    name: String,
    addresses: BTreeSet<IpAddr>,
}

impl Names {
    pub(super) fn new(name: &str, addresses: &[IpAddr]) -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            name: name.into(),
            addresses: addresses.iter().copied().chain([local]).collect(),
        }
    }

    /// The names in a certificate that is valid now and will be for a while.
    pub(super) fn of_lasting(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509::decode(certificate).ok()?;
        let now = Duration::from_secs(jiff::Timestamp::now().as_second().try_into().ok()?);
        let lasts = now >= certificate.not_before && certificate.not_after >= now + RENEW_BEFORE;
        let names = certificate.alternative_names.filter(|_| lasts)?;
        (names.dns.is_empty() && names.others == 0).then_some(())?;
        Some(Self {
            name: certificate.common_names.into_iter().next()?,
            addresses: names.addresses.into_iter().collect(),
        })
    }

    /// Parses a request and checks that it is for these names, and signed by the key in it.
    pub(super) fn check(
        &self,
        request: &str,
    ) -> Result<CertificateSigningRequestParams, RequestError> {
        let request =
            CertificateSigningRequestParams::from_pem(request).map_err(RequestError::Malformed)?;
        let key = &request.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != P256_POINT {
            return Err(RequestError::Key);
        }
        let params = &request.params;
        let addresses: Option<BTreeSet<IpAddr>> = params.subject_alt_names.iter().map(ip).collect();
        if params.distinguished_name != common_name(&self.name)
            || addresses.as_ref() != Some(&self.addresses)
        {
            return Err(RequestError::Names {
                requested: describe(params),
                wanted: describe(&self.request_params()),
            });
        }
        Ok(request)
    }

    /// What a server requests.
    pub(super) fn request_params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .subject_alt_names
            .extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = common_name(&self.name);
        params
    }

    /// What the authority signs.
    pub(super) fn params(&self) -> CertificateParams {
        let mut params = self.request_params();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        valid_for(&mut params, CERT_YEARS);
        params
    }
}

/// Whether a certificate was signed by the authority and is valid now.
pub(super) fn is_of(ca: &[CertificateDer<'static>], certificate: &CertificateDer<'_>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(ca.iter().cloned());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .is_ok_and(|verifier| {
            verifier
                .verify_client_cert(certificate, &[], UnixTime::now())
                .is_ok()
        })
}

/// The names and addresses in a request. Untrusted text is escaped.
fn describe(params: &CertificateParams) -> String {
    let names = params.distinguished_name.iter();
    let mut all: Vec<String> = names
        .map(|(_, value)| match value {
            DnValue::Utf8String(name) => name.escape_debug().to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    all.extend(params.subject_alt_names.iter().map(|name| match ip(name) {
        Some(address) => address.to_string(),
        None => format!("{name:?}"),
    }));
    all.join(", ")
}

fn ip(name: &SanType) -> Option<IpAddr> {
    match name {
        SanType::IpAddress(address) => Some(*address),
        _ => None,
    }
}

pub(super) fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Gaiola site authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_YEARS);
    params
}

pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Valid from two days ago, so that a server with a slow clock accepts it too.
pub(super) fn valid_for(params: &mut CertificateParams, years: i16) {
    let now = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now());
    let from = now.date() - jiff::Span::new().days(2);
    let to = now.date() + jiff::Span::new().years(years);
    let [from, to] = [from, to].map(|date| {
        rcgen::date_time_ymd(
            i32::from(date.year()),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    });
    params.not_before = from;
    params.not_after = to;
}
