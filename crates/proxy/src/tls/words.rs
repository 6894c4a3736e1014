//! Why TLS failed, as text: what the peer did, and what to check.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why there is no TLS with the peer, a client or a server, which the text calls "it".
pub(crate) fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why),
        Error::AlertReceived(alert) => refused(*alert),
        Error::PeerIncompatible(what) => incompatible(what),
        Error::NoCertificatesPresented => "it has shown no certificate".into(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS".into(),
        Error::InvalidMessage(_) | Error::PeerMisbehaved(_) => {
            format!("it breaks the rules of TLS ({error})")
        }
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "it sent a message of TLS that is not its turn".into()
        }
        Error::DecryptError => "a message was changed on its way, or is of another session".into(),
        Error::NoApplicationProtocol => {
            "it offers no protocol (ALPN) of those that are spoken here".into()
        }
        Error::General(words) => words.clone(),
        other => other.to_string(),
    }
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as Why;
    match why {
        Why::UnknownIssuer => "its certificate comes from no authority that is trusted here; \
                               name the file of that authority (ca, client_ca)"
            .into(),
        Why::Expired | Why::ExpiredContext { .. } => {
            "its certificate is no longer valid; renew it".into()
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "its certificate is not valid yet; do the clocks agree?".into()
        }
        Why::NotValidForNameContext { expected, .. } => {
            let name = expected.to_str();
            format!("its certificate is not for {name}; say in `host` what it is for")
        }
        Why::NotValidForName => {
            "its certificate is for another name; say in `host` what it is for".into()
        }
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose: servers' say serverAuth, clients' clientAuth"
                .into()
        }
        Why::Revoked => "its certificate has been revoked".into(),
        Why::BadEncoding => "its certificate cannot be read".into(),
        // A CA that was recreated has the same name but another key; a peer whose key is not its certificate's is
        // reported as the same.
        Why::BadSignature => "its certificate is signed with another key than that of the \
                              authority of this name that is trusted here (ca, client_ca), or \
                              the key that it uses is not its certificate's"
            .into(),
        other => format!("its certificate cannot be accepted ({other})"),
    }
}

/// The meaning of the alert that the peer ends with (RFC 8446, section 6.2).
fn refused(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => {
            "it demands a certificate, and was shown none (tls.certificate)".into()
        }
        Alert::UnknownCA => {
            "it refuses the certificate: it comes from no authority that it trusts".into()
        }
        Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::AccessDenied => "it refuses the certificate that it was shown".into(),
        Alert::CertificateExpired => {
            "it refuses the certificate: it is no longer valid, or not yet".into()
        }
        Alert::CertificateRevoked => "it refuses the certificate: it has been revoked".into(),
        Alert::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3, or not the one wanted".into(),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "it refuses the handshake: it has no cipher or key in common with us, or wants a certificate"
                .into()
        }
        Alert::UnrecognisedName => "it serves nothing by the name that it was asked for (sni)".into(),
        Alert::NoApplicationProtocol => "it speaks no protocol (ALPN) of those offered".into(),
        Alert::CloseNotify | Alert::UserCanceled => "it ended the handshake".into(),
        other => format!("it ended TLS with the alert {other:?}"),
    }
}

fn incompatible(what: &PeerIncompatible) -> String {
    use PeerIncompatible as What;
    match what {
        What::Tls12NotOffered
        | What::Tls12NotOfferedOrEnabled
        | What::SupportedVersionsExtensionRequired
        | What::ServerDoesNotSupportTls12Or13
        | What::ServerTlsVersionIsDisabledByOurConfig => {
            "it speaks no version of TLS of those that are spoken here: 1.2 and 1.3, or min_version on"
                .into()
        }
        What::NoCipherSuitesInCommon
        | What::NoKxGroupsInCommon
        | What::NoSignatureSchemesInCommon
        | What::NoCertificateRequestSignatureSchemesInCommon => {
            "it knows no cipher, key exchange or signature of those that are spoken here".into()
        }
        other => format!("it speaks TLS in a way that is not spoken here ({other:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_failures_are_not_described_in_a_librarys_variants() {
        use CertificateError as Why;
        for (error, words) in [
            (
                Error::InvalidCertificate(Why::UnknownIssuer),
                "no authority that is trusted here; name the file",
            ),
            (
                Error::InvalidCertificate(Why::NotValidForNameContext {
                    expected: "a.example".try_into().unwrap(),
                    presented: Vec::new(),
                }),
                "its certificate is not for a.example; say in `host`",
            ),
            (
                Error::InvalidCertificate(Why::BadSignature),
                "that is trusted here (ca, client_ca), or the key that it uses is not its certificate's",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "it demands a certificate",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "it does not speak TLS",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                "no version of TLS",
            ),
        ] {
            let text = in_words(&error);
            assert!(text.contains(words), "{error:?}: {text}");
        }
    }
}
