//! What is counted, and the series of metrics.

use super::*;

#[test]
fn what_is_done_with_servers_and_what_passes_is_counted() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    let asked = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    client.send(asked);
    assert_eq!(client.response().status, 200);
    let server = "backend=\"app\",server=\"s1\"";
    let has = |sample: String| {
        let metrics = proxy.admin("/metrics");
        let text = metrics.text();
        assert!(
            text.lines().any(|line| line == sample),
            "{sample} in {text}"
        );
    };
    let series = format!("frontend=\"site\",{server}");
    has(format!("gaiola_bytes_in_total{{{series}}} {}", asked.len()));
    let sent = &proxy.log_lines(1)[0]["bytes"];
    has(format!("gaiola_bytes_out_total{{{series}}} {sent}"));
    has("gaiola_connections_total{frontend=\"site\"} 1".into());
    has(format!("gaiola_server_up{{{server}}} 1"));
    has(format!("gaiola_server_downs_total{{{server}}} 0"));
    config.revision.0 += 1;
    config.backends[0].servers[0].admin = gaiola_model::proxy::Admin::Maint;
    proxy.configure(&config);
    has(format!("gaiola_server_up{{{server}}} 0"));
    has(format!("gaiola_server_state{{{server},state=\"maint\"}} 1"));
}

/// The value of a sample, once the metrics have it.
fn sample(proxy: &Proxy, name: &str) -> Option<u64> {
    let metrics = proxy.admin("/metrics");
    let mut lines = metrics.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

#[test]
fn series_of_what_is_gone_go_as_well() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/").status, 200);
    let has = |what: &str| proxy.admin("/metrics").text().contains(what);
    assert!(has("backend=\"app\",server=\"s1\"") && has("backend=\"app\",server=\"-\""));
    config.revision.0 += 1;
    config.backends[0].name = "other".into();
    config.frontends[0] = http_frontend(bind, "other");
    proxy.configure(&config);
    eventually("nothing names the backend", || !has("backend=\"app\""));
    assert!(has("backend=\"other\",server=\"s1\""));
}

#[test]
fn failed_checks_ejections_and_redispatches_are_counted() {
    let (origin, nobody, bind) = (Origin::start("s1"), free_address(), free_address());
    let mut config = config(bind, &[nobody, origin.address]);
    let [refused, checked] = ["refuses", "checked"];
    config.backends[0].servers[0].name = refused.into();
    let mut other = backend(checked, vec![server("s", nobody)]);
    other.check = Some(patient_check(CheckKind::Tcp));
    config.backends.push(other);
    let proxy = Proxy::serving(&config);
    let of = |name: &str, backend: &str, server: &str| {
        format!("gaiola_{name}_total{{backend=\"{backend}\",server=\"{server}\"}}")
    };
    let ejections = of("server_ejections", "app", refused);
    assert_eq!(sample(&proxy, &ejections), Some(0));
    let mut client = Client::connect(bind);
    eventually("it is put out", || {
        assert_eq!(client.get("/").status, 200);
        sample(&proxy, &ejections) == Some(1)
    });
    let series = format!("{{frontend=\"site\",backend=\"app\",server=\"{refused}\"}}");
    let redispatches = sample(&proxy, &format!("gaiola_redispatches_total{series}"));
    assert!(redispatches.unwrap() >= 3, "{redispatches:?}");
    let failed = of("server_checks_failed", checked, "s");
    eventually("a check has failed", || sample(&proxy, &failed) > Some(0));
}

#[test]
fn a_configuration_that_is_refused_is_counted() {
    let (origin, bind) = (Origin::start("s1"), free_address());
    let mut config = config(bind, &[origin.address]);
    let proxy = Proxy::serving(&config);
    let count = |result: &str| {
        let name = format!("gaiola_config_reloads_total{{result=\"{result}\"}}");
        sample(&proxy, &name).unwrap()
    };
    let successful = || sample(&proxy, "gaiola_config_last_reload_successful").unwrap();
    assert_eq!((count("taken"), count("failed"), successful()), (1, 0, 1));
    let since = sample(
        &proxy,
        "gaiola_config_last_reload_success_timestamp_seconds",
    );
    assert!(since > Some(1_700_000_000));
    config.revision.0 += 1;
    config.backends[0].servers[0].weight = 1000;
    refused(&proxy, &ControlRequest::Configure(Box::new(config)));
    assert_eq!((count("taken"), count("failed"), successful()), (1, 1, 0));
}
