//! The site's files that a proxy serves, and what it serves while some of them are not on its server's disk yet.
//!
//! A part whose files are missing stays as it was: a release or a certificate that has not arrived keeps nothing else of a new
//! configuration back.

use gaiola_model::placement::{CertificateCopy, LackingFiles, ProxyFiles, ReleaseNumber};
use gaiola_model::{Placement, ServerName, Tier};
use std::collections::BTreeSet;

/// What is on a server's disk, of the files that its proxy serves or served last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesHere {
    /// Releases, with the contents that the placement names.
    pub releases: BTreeSet<ReleaseNumber>,
    /// Copies of certificates, by their contents.
    pub certificates: BTreeSet<String>,
}

/// The files that the proxy of a server is to serve.
pub fn files_wanted(placement: &Placement, server: ServerName) -> ProxyFiles {
    let tls = placement.config.tls();
    let is_web = server.tier == Tier::Web;
    ProxyFiles {
        releases: (placement.web_releases.iter().copied())
            .filter(|_| is_web)
            .collect(),
        certificates: tls
            .filter(|_| server.tier == Tier::Balancer)
            .map(|tls| CertificateCopy {
                contents: tls.contents.clone(),
                folders: tls.certificates.len(),
            }),
    }
}

/// What the proxy serves now of what it is to serve. `last`: what it served before; `None`: nothing, so far as is known.
///
/// `None`: it is not configured anew, because it would have nothing of one kind. A proxy that serves goes on as it is, and one that has
/// just started is not ready, so that clients are sent to other servers: a web server without any release would answer for files
/// that exist with 404, a balancer without certificates would refuse clients of its VIPs or serve them without TLS.
pub fn files_to_serve(
    wanted: &ProxyFiles,
    last: Option<&ProxyFiles>,
    here: &FilesHere,
) -> Option<ProxyFiles> {
    Some(ProxyFiles {
        releases: releases_to_serve(wanted, last, here)?,
        certificates: certificates_to_serve(wanted, last, here)?,
    })
}

/// All that are wanted; while some are missing, after those that are here all that were served before, whose assets clients may ask for.
fn releases_to_serve(
    wanted: &ProxyFiles,
    last: Option<&ProxyFiles>,
    here: &FilesHere,
) -> Option<Vec<ReleaseNumber>> {
    let is_here = |release: &ReleaseNumber| here.releases.contains(release);
    let mut all: Vec<ReleaseNumber> = wanted.releases.clone();
    all.retain(is_here);
    if all.len() == wanted.releases.len() {
        return Some(all);
    }
    for former in last.into_iter().flat_map(|last| &last.releases) {
        if is_here(former) && !all.contains(former) {
            all.push(*former);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// The certificates that are wanted; while they are missing, what was served before: others, or no TLS at all.
fn certificates_to_serve(
    wanted: &ProxyFiles,
    last: Option<&ProxyFiles>,
    here: &FilesHere,
) -> Option<Option<CertificateCopy>> {
    let is_here = |copy: &CertificateCopy| here.certificates.contains(&copy.contents);
    match (&wanted.certificates, last.map(|last| &last.certificates)) {
        (None, _) => Some(None),
        (Some(new), _) if is_here(new) => Some(Some(new.clone())),
        (Some(_), Some(None)) => Some(None),
        (Some(_), Some(Some(old))) if is_here(old) => Some(Some(old.clone())),
        (Some(_), Some(Some(_)) | None) => None,
    }
}

/// What of the files that are wanted is not served.
pub fn files_lacking(wanted: &ProxyFiles, served: &ProxyFiles) -> LackingFiles {
    let releases = wanted.releases.iter().copied();
    LackingFiles {
        releases: releases
            .filter(|release| !served.releases.contains(release))
            .collect(),
        certificates: wanted.certificates.is_some() && wanted.certificates != served.certificates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<C: FromIterator<ReleaseNumber>>(numbers: &[u64]) -> C {
        numbers.iter().copied().map(ReleaseNumber).collect()
    }

    fn web(releases: &[u64]) -> ProxyFiles {
        ProxyFiles {
            releases: numbers(releases),
            certificates: None,
        }
    }

    fn balancer(contents: Option<&str>) -> ProxyFiles {
        ProxyFiles {
            releases: Vec::new(),
            certificates: contents.map(|contents| CertificateCopy {
                contents: contents.into(),
                folders: 2,
            }),
        }
    }

    fn here(releases: &[u64], certificates: &[&str]) -> FilesHere {
        FilesHere {
            releases: numbers(releases),
            certificates: certificates.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_web_server_serves_a_new_release_once_it_is_here_and_until_then_what_it_served() {
        let last = web(&[7, 6]);
        let serve = |wanted: &[u64], there: &[u64]| {
            files_to_serve(&web(wanted), Some(&last), &here(there, &[]))
        };
        assert_eq!(serve(&[8, 7], &[6, 7, 8]), Some(web(&[8, 7])));
        assert_eq!(serve(&[8, 7], &[6, 7]), Some(web(&[7, 6])));
        assert_eq!(serve(&[8], &[7]), Some(web(&[7])));
        assert_eq!(serve(&[8, 7], &[6, 8]), Some(web(&[8, 6])));
        assert_eq!(serve(&[8], &[]), None);
    }

    #[test]
    fn a_web_server_that_has_just_started_serves_what_is_here_and_waits_for_the_first_release() {
        let serve = |there: &[u64]| files_to_serve(&web(&[8, 7]), None, &here(there, &[]));
        assert_eq!(serve(&[7]), Some(web(&[7])));
        assert_eq!(serve(&[6]), None);
    }

    #[test]
    fn a_balancer_keeps_its_certificates_until_the_new_ones_are_here() {
        let new = balancer(Some("new"));
        let serve = |last: Option<&ProxyFiles>, there: &[&str]| {
            files_to_serve(&new, last, &here(&[], there))
        };
        let (old, plain) = (balancer(Some("old")), balancer(None));
        assert_eq!(serve(Some(&old), &["old", "new"]), Some(new.clone()));
        assert_eq!(serve(Some(&old), &["old"]), Some(old.clone()));
        assert_eq!(serve(Some(&old), &[]), None);
        assert_eq!(serve(Some(&plain), &[]), Some(plain.clone()));
        assert_eq!(serve(None, &["old"]), None);
        assert_eq!(serve(None, &["new"]), Some(new.clone()));
        let without = files_to_serve(&plain, Some(&old), &here(&[], &["old"]));
        assert_eq!(without, Some(plain));
    }

    #[test]
    fn one_that_serves_no_files_lacks_none() {
        let none = ProxyFiles::default();
        let served = files_to_serve(&none, None, &FilesHere::default());
        assert_eq!(served, Some(none.clone()));
        assert!(files_lacking(&none, &none).is_none());
    }

    #[test]
    fn what_is_not_served_is_lacking() {
        let lacking = files_lacking(&web(&[8, 7]), &web(&[7, 6]));
        assert_eq!(lacking.releases, numbers(&[8]));
        assert!(!lacking.certificates);
        let certificates = |served| files_lacking(&balancer(Some("new")), &balancer(served));
        assert!(certificates(Some("old")).certificates);
        assert!(certificates(None).certificates);
        assert!(certificates(Some("new")).is_none());
        assert!(files_lacking(&balancer(None), &balancer(Some("old"))).is_none());
    }
}
