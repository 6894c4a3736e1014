//! `gaiola maintenance`: whether balancers refuse clients.

use crate::args::{Global, MaintenanceCommand};
use crate::change::change;
use crate::connect::SiteClient;
use crate::operator;
use crate::output::Exit;
use anyhow::{Context as _, bail};
use gaiola_control::api::{Change, NewMaintenance};
use gaiola_model::placement::Maintenance;
use gaiola_model::proxy::InlinePage;
use gaiola_wire::proxy_file::content_type;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// `gaiola maintenance`.
pub(crate) fn maintenance(global: &Global, command: &MaintenanceCommand) -> anyhow::Result<Exit> {
    let (of, asked) = match command {
        MaintenanceCommand::On {
            of,
            page,
            allow,
            retry_after,
        } => {
            let page = page.as_deref().map(read).transpose()?;
            let asked = NewMaintenance {
                by: operator::name(),
                page,
                allow: allow.clone(),
                retry_after: *retry_after,
            };
            (of, Some(asked))
        }
        MaintenanceCommand::Off { of } => (of, None),
    };
    let client = SiteClient::find(global, &of.file)?;
    change(global, &client, Change::Maintenance(asked))
}

/// The page in this file.
fn read(path: &Path) -> anyhow::Result<InlinePage> {
    let shown = path.display();
    let most = Maintenance::LARGEST_PAGE as u64;
    let mut body = String::new();
    let file = File::open(path).with_context(|| format!("cannot open the page {shown}"))?;
    let read = file.take(most + 1).read_to_string(&mut body);
    read.with_context(|| format!("cannot read the page {shown}, which should be a text in UTF-8"))?;
    match body.len() as u64 {
        0 => bail!("the page {shown} is empty: leave --page out for the site's own page"),
        bytes if bytes > most => bail!(
            "the page {shown} has more than {most} bytes, which is the most: let it link to what is large"
        ),
        _ => Ok(InlinePage {
            content_type: content_type(path).into(),
            body,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_text_of_64_kib_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let page = |name: &str, body: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, body).unwrap();
            read(&path).map_err(|error| format!("{error:#}"))
        };
        let short = page("a.txt", b"back at noon").unwrap();
        assert_eq!(short.content_type, "text/plain; charset=utf-8");
        assert_eq!(short.body, "back at noon");
        let longest = page("a.html", &[b'x'; 65536]).unwrap();
        assert_eq!(longest.content_type, "text/html; charset=utf-8");
        for (body, why) in [
            (&[b'x'; 65537][..], "has more than 65536 bytes"),
            (&b""[..], "is empty"),
            (&b"\xff"[..], "should be a text in UTF-8"),
        ] {
            let said = page("b.html", body).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let said = format!("{:#}", read(Path::new("/nowhere/a.html")).unwrap_err());
        assert!(
            said.starts_with("cannot open the page /nowhere/a.html: "),
            "{said}"
        );
    }
}
