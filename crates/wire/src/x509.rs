//! X.509 certificates (RFC 5280): which names one is for, and until when. Their signatures are verified by rustls.

use std::net::IpAddr;
use std::time::Duration;
use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{SubjectAltName, SubjectKeyIdentifier};

/// Certificates are read as they are: some authorities give serial numbers that RFC 5280 does not allow.
type Decoded = CertificateInner<Raw>;
type TbsCertificate = TbsCertificateInner<Raw>;

/// id-at-commonName (RFC 5280, appendix A.1).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// The subject as text, such as `CN=db1,O=example` (RFC 4514).
    pub subject: String,
    /// The subject in DER.
    pub subject_der: Vec<u8>,
    /// The subject's common names.
    pub common_names: Vec<String>,
    /// The subject's alternative names; `None`: there are none, or they cannot be read.
    pub alternative_names: Option<AlternativeNames>,
    /// Identifies the subject's key.
    pub key_identifier: Option<Vec<u8>>,
    /// Beginning of its validity, since 1970.
    pub not_before: Duration,
    /// End of its validity, since 1970.
    pub not_after: Duration,
}

/// Names that a certificate is valid for (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names in lower case, possibly beginning with `*.`.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// How many there are of other kinds.
    pub others: usize,
}

/// Bytes that are not a certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct BadCertificate(x509_cert::der::Error);

/// Reads a certificate in DER.
///
/// # Errors
/// It is not a certificate.
pub fn decode(der: &[u8]) -> Result<Certificate, BadCertificate> {
    let decoded = Decoded::from_der(der).map_err(BadCertificate)?;
    let certificate = decoded.tbs_certificate;
    let key = certificate.get::<SubjectKeyIdentifier>().ok().flatten();
    Ok(Certificate {
        serial: serial(&certificate),
        subject: certificate.subject.to_string(),
        subject_der: certificate.subject.to_der().map_err(BadCertificate)?,
        common_names: common_names(&certificate),
        alternative_names: alternative_names(&certificate),
        key_identifier: key.map(|(_, key)| key.0.as_bytes().to_vec()),
        not_before: certificate.validity.not_before.to_unix_duration(),
        not_after: certificate.validity.not_after.to_unix_duration(),
    })
}

fn serial(certificate: &TbsCertificate) -> Vec<u8> {
    let bytes = certificate.serial_number.as_bytes();
    bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect()
}

fn common_names(certificate: &TbsCertificate) -> Vec<String> {
    let attributes = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    attributes
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .filter_map(|attribute| text(&attribute.value))
        .collect()
}

fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::PrintableString => value
            .decode_as::<PrintableStringRef<'_>>()
            .ok()?
            .to_string(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.to_string(),
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.to_string(),
        _ => return None,
    };
    Some(text)
}

fn alternative_names(certificate: &TbsCertificate) -> Option<AlternativeNames> {
    let (_, list) = certificate.get::<SubjectAltName>().ok()??;
    let mut names = AlternativeNames::default();
    for name in &list.0 {
        match name {
            GeneralName::DnsName(name) => names.dns.push(name.as_str().to_ascii_lowercase()),
            GeneralName::IpAddress(bytes) => match address(bytes.as_bytes()) {
                Some(address) => names.addresses.push(address),
                None => names.others += 1,
            },
            _ => names.others += 1,
        }
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by OpenSSL.
    const NAMES: &[u8] = include_bytes!("../../../fuzz/seeds/x509/names");
    const COMMON_NAME_ALONE: &[u8] = include_bytes!("../../../fuzz/seeds/x509/common_name");

    #[test]
    fn a_certificate_says_whom_it_is_for_and_until_when() {
        let certificate = decode(NAMES).unwrap();
        assert_eq!(certificate.serial, [0xa1, 0xb2]);
        assert_eq!(certificate.subject, "CN=Db1,O=Guest book");
        assert_eq!(certificate.common_names, ["Db1"]);
        let names = AlternativeNames {
            dns: vec!["a.example".into(), "*.example.org".into()],
            addresses: vec![[10, 77, 4, 1].into(), "fd00::1".parse().unwrap()],
            others: 1,
        };
        assert_eq!(certificate.alternative_names, Some(names));
        assert_eq!(certificate.key_identifier.unwrap()[..2], [0xf8, 0x98]);
        assert_eq!(certificate.not_before.as_secs(), 1_796_015_481);
        assert_eq!(certificate.not_after.as_secs(), 2_111_375_481);
    }

    #[test]
    fn a_certificate_may_have_a_common_name_alone() {
        let certificate = decode(COMMON_NAME_ALONE).unwrap();
        assert_eq!(certificate.common_names, ["Old.example"]);
        assert_eq!(certificate.alternative_names, None);
    }

    #[test]
    fn what_is_cut_or_continued_is_no_certificate() {
        for end in 0..NAMES.len() {
            assert!(decode(&NAMES[..end]).is_err(), "{end} bytes");
        }
        assert!(decode(&[NAMES, b"\0"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            at in any::<prop::sample::Index>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let _ = decode(&bytes);
            let mut changed = NAMES.to_vec();
            let at = at.index(changed.len());
            let end = changed.len().min(at + bytes.len());
            changed[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = decode(&changed);
        }
    }
}
