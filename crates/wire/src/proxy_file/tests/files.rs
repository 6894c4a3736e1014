//! How a route's files are served.

use super::*;
use gaiola_model::proxy::{CacheControl, FileOptions, FilePattern};

fn route(lines: &str) -> String {
    format!("[frontend.www]\nbind = ':80'\n[[frontend.www.route]]\n{lines}\n")
}

#[test]
fn what_is_served_for_a_missing_file_and_how_long_it_is_kept_is_read() {
    let text = route(
        "files = 'public'\ntry = ['{path}.html', 'index.html']\nnot_found = '404.html'\nprecompressed = true\n\
         [frontend.www.route.cache_control]\nfingerprinted = 'public, max-age=31536000, immutable'\n\
         '*.html' = 'no-cache'\n'/docs/*' = 'Max-Age=60'",
    );
    let file = load(&text, &around()).unwrap();
    let Mode::Http { routes, .. } = &file.config.frontends[0].mode else {
        panic!("HTTP")
    };
    let rule = |files, value: &str| CacheControl {
        files,
        value: value.into(),
    };
    let name = |name: &str| FilePattern::Name(name.into());
    let immutable = "public, max-age=31536000, immutable";
    let options = FileOptions {
        tries: vec!["{path}.html".into(), "/index.html".into()],
        not_found: Some("/404.html".into()),
        precompressed: true,
        cache_control: vec![
            rule(FilePattern::Fingerprinted, immutable),
            rule(name("*.html"), "no-cache"),
            rule(name("/docs/*"), "Max-Age=60"),
        ],
    };
    assert_eq!(routes[0].file_options, options);
}

#[test]
fn mistakes_about_files_are_reported_at_once() {
    let text = route(
        "files = 'public'\ntry = ['$uri', '=404', '{uri}.html', '{path}', '/../x', '/.git']\n\
         not_found = '/errors/'\n[frontend.www.route.cache_control]\nfingerprint = 'no-cache'\n\
         'assets/*' = 'no-cache'\n'/a/' = 'no-cache'\n'*.js' = 'max_age=60'\n'*.css' = 'max-age'\n\
         '*' = \"no-cache\\r\\nX: y\"",
    );
    assert_eq!(
        said(&text),
        [
            "5:8: `try` \"$uri\" is nginx's: there are no such variables; write {path} for the request's path: \"{path}.html\", \"/index.html\"",
            "5:16: `try` \"=404\" is nginx's; write not_found = \"/404.html\", or no `backend`: a missing file then gets 404",
            "5:24: `try` \"{uri}.html\" has an unknown variable; {path} stands for the request's path; there are no other variables",
            "5:38: `try` \"{path}\" is the request's own name; leave it out: the file of the request's own name always comes first",
            "5:48: `try` \"/../x\" is never served; name a file below the directory that does not begin with a dot",
            "5:57: `try` \"/.git\" is never served; name a file below the directory that does not begin with a dot",
            "6:13: `not_found` \"/errors/\" is not the name of a file; name a file below the directory: \"/404.html\"",
            "8:1: `cache_control` has \"fingerprint\", which fits no file; did you mean `fingerprinted`?",
            "9:1: `cache_control` has \"assets/*\", which fits no file; begin the whole path with a slash: \"/assets/*\"",
            "10:1: `cache_control` has \"/a/\", which fits no file; write \"/a/*\" for all files below it",
            "11:10: `*.js` \"max_age=60\" has the unknown directive \"max_age\"; did you mean `max-age`?",
            "12:11: `*.css` \"max-age\" has max-age without a number of seconds; write it as max-age=3600",
            "13:7: `*` \"no-cache\\r\\nX: y\" is no value of a field; write it as \"no-cache\" or \"public, max-age=3600\"",
        ]
    );
}

#[test]
fn a_route_without_files_has_none_to_say_more_about() {
    let text = route("rule = [{ return = 200 }]\ntry = '/index.html'\ncache_control = 'no-cache'");
    assert_eq!(
        said(&text),
        [
            "5:1: `try` has no meaning here; it is for routes with `files`",
            "6:1: `cache_control` has no meaning here; it is for routes with `files`",
            "6:17: `cache_control` is not a table of files and values; write it as cache_control = { \"*.html\" = \"no-cache\" }; \"*\" stands for every file",
        ]
    );
}
