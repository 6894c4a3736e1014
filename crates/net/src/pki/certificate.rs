//! The contents of our certificates: names, usage and validity.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use x509_parser::extensions::GeneralName;

/// Validity of the authority, in years.
const CA_YEARS: i16 = 30;
/// Validity of a server's certificate, in years.
const CERT_YEARS: i16 = 5;
/// A certificate with fewer days left is issued again.
const RENEW_DAYS: i64 = 365;

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
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let now = jiff::Timestamp::now().as_second();
        let (from, to) = (
            parsed.validity().not_before.timestamp(),
            parsed.validity().not_after.timestamp(),
        );
        if now < from || to - now < RENEW_DAYS * 24 * 3600 {
            return None;
        }
        let names = parsed.subject_alternative_name().ok()??;
        let name = parsed.subject().iter_common_name().next()?;
        let mut found = Self {
            name: name.as_str().ok()?.into(),
            addresses: BTreeSet::new(),
        };
        for name in &names.value.general_names {
            match name {
                GeneralName::IPAddress(bytes) => {
                    found.addresses.insert(address(bytes)?);
                }
                _ => return None,
            }
        }
        Some(found)
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

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
