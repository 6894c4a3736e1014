//! How responses are compressed.

use super::*;
use gaiola_model::http::Coding;
use gaiola_model::proxy::Compression;

fn read(frontend: &str, route: &str) -> Vec<Option<Compression>> {
    let text = format!(
        "[frontend.www]\nbind = ':80'\nbackend = 'app'\n{frontend}\n[[frontend.www.route]]\npath = '/a'\n\
         backend = 'app'\n{route}\n[backend.app.server]\na = '10.0.0.1:80'"
    );
    let file = load(&text, &around()).unwrap();
    let Mode::Http { routes, .. } = &file.config.frontends[0].mode else {
        panic!("HTTP")
    };
    routes.iter().map(|route| route.compress.clone()).collect()
}

#[test]
fn a_routes_own_word_comes_before_that_of_its_frontend() {
    let default = Some(Compression::default());
    assert_eq!(read("", ""), [None, None]);
    assert_eq!(
        read("compress = true", ""),
        [default.clone(), default.clone()]
    );
    assert_eq!(
        read("compress = true", "compress = false"),
        [None, default.clone()]
    );
    assert_eq!(read("compress = false", "compress = true"), [default, None]);
}

#[test]
fn encodings_levels_types_and_sizes_can_be_written() {
    let route = "compress = { encodings = ['gzip', 'br'], levels = { gzip = 9 }, types = ['text/*', 'Application/JSON'], min_size = '2KiB' }";
    let own = Compression {
        codings: vec![(Coding::Gzip, 9), (Coding::Brotli, 5)],
        types: vec!["text/*".into(), "application/json".into()],
        min_size: 2048,
    };
    assert_eq!(read("", route), [Some(own), None]);
}

#[test]
fn mistakes_about_compression_are_reported_at_once() {
    let text = "[frontend.www]\nbind = ':80'\nbackend = 'app'\n[frontend.www.compress]\n\
        encodings = ['brotli', 'gzip', 'gzip', 'deflate']\nlevels = { gzip = 10, br = 11 }\n\
        types = ['html', '*/*']\nmin_size = '1 page'\nlevel = 3\n[backend.app.server]\na = '10.0.0.1:80'";
    assert_eq!(
        said(text),
        [
            "5:14: `encodings` \"brotli\" is not an encoding that is supported; write \"br\"",
            "5:32: `encodings` has \"gzip\" twice; leave one of them out",
            "5:40: `encodings` \"deflate\" is not an encoding that is supported; write \"zstd\", \"br\" or \"gzip\"",
            "6:19: `gzip` is 10; it is from 1 to 9",
            "6:28: `br` is 11; it is from 0 to 6",
            "7:10: `types` \"html\" is not a media type; write it as \"text/html\", \"text/*\" or \"application/*+json\"",
            "7:18: `types` \"*/*\" has more than one `*`; write it as \"text/html\", \"text/*\" or \"application/*+json\"",
            "8:12: `min_size` \"1 page\" is not a size; write a number and B, KB, MB, GB, KiB, MiB or GiB: \"10MB\"",
            "9:1: unknown key \"level\" in [frontend.www.compress]; did you mean `levels`?",
        ]
    );
}
