//! OCSP responses (RFC 6960): what an authority says of a certificate today, stapled to it for clients.

use der::Decode;
use std::time::Duration;
use x509_ocsp::{BasicOcspResponse, OcspResponse, OcspResponseStatus};

/// Why a response is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStaple {
    /// It cannot be decoded.
    #[error("it is no OCSP response in DER ({0})")]
    Malformed(der::Error),
    /// The authority answered with an error.
    #[error("it is no answer but an error of the authority: {0:?}")]
    Unsuccessful(OcspResponseStatus),
    /// It is about another certificate.
    #[error("it is of another certificate than the one beside it")]
    OfAnother,
}

/// Checks that a response is for the certificate with this serial number, and returns the end of its validity since
/// 1970; `None`: it has no end. Clients verify its signature.
///
/// # Errors
/// Why it is unusable.
pub(super) fn until(response: &[u8], serial: &[u8]) -> Result<Option<Duration>, BadStaple> {
    let response = OcspResponse::from_der(response).map_err(BadStaple::Malformed)?;
    let bytes = match (response.response_status, response.response_bytes) {
        (OcspResponseStatus::Successful, Some(bytes)) => bytes.response,
        (status, _) => return Err(BadStaple::Unsuccessful(status)),
    };
    let basic = BasicOcspResponse::from_der(bytes.as_bytes()).map_err(BadStaple::Malformed)?;
    let mut all = basic.tbs_response_data.responses.iter();
    let of_it = |serial_number: &[u8]| trimmed(serial_number) == trimmed(serial);
    let found = all.find(|single| of_it(single.cert_id.serial_number.as_bytes()));
    let found = found.ok_or(BadStaple::OfAnother)?;
    Ok(found.next_update.map(|end| end.0.to_unix_duration()))
}

/// A number without leading zeros, which encoders may add.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_about_it_is_refused() {
        let malformed =
            |response: &[u8]| matches!(until(response, &[1]).unwrap_err(), BadStaple::Malformed(_));
        assert!(malformed(b"") && malformed(b"not DER") && malformed(b"\x30\x00"));
        assert_eq!(
            until(b"\x30\x03\x0a\x01\x06", &[1]),
            Err(BadStaple::Unsuccessful(OcspResponseStatus::Unauthorized))
        );
    }
}
