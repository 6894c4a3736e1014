//! The contents of our certificates: names, usage and validity.

use gaiola_wire::x509;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Validity of the authority, in years.
const CA_YEARS: i16 = 30;
/// Validity of a server's certificate, in years.
const CERT_YEARS: i16 = 5;
/// A certificate that ends sooner is issued again.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * 24 * 3600);

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

    pub(super) fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .subject_alt_names
            .extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = common_name(&self.name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        valid_for(&mut params, CERT_YEARS);
        Ok(params)
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

/// Whether a certificate and a key are those of an authority made by [`authority_params`]: certificates issued with them
/// name the same subject and the same key as it has.
pub(super) fn is_authority(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let subject_and_key = |certificate: &CertificateDer<'_>| {
        let certificate = x509::decode(certificate).ok()?;
        Some((certificate.subject_der, certificate.key_identifier))
    };
    let made = authority_params().self_signed(key);
    let made = made.ok().and_then(|made| subject_and_key(made.der()));
    made.is_some() && made == subject_and_key(certificate)
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
