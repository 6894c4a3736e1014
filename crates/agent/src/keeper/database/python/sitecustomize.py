"""Python imports this module when it starts; it is on the path of Patroni alone.

Patroni reads the addresses of the store once, when it starts, and the store's members every ten TTLs (200 s). Where all members
that it knows are replaced meanwhile, it loses the store, and a primary without the store gives up its role. With this, SIGHUP has
it take the addresses of patroni.yml as well, and read the members again.
"""

import importlib.abc
import importlib.machinery
import sys

EXTENDED = "patroni.dcs.etcd"


def extend(etcd):
    client = etcd.AbstractEtcdClientWithFailover
    reload_config = client.reload_config

    def reload_config_and_hosts(self, config):
        reload_config(self, config)
        hosts = config.get("hosts")
        if not isinstance(hosts, list) or not hosts or "hosts" not in self._config:
            return
        protocol = self._config.get("protocol", "http")
        hosts = [etcd.uri(protocol, etcd.split_host_port(host, 2379)) for host in hosts]
        if set(hosts) != set(self._config["hosts"]):
            self._config["hosts"] = hosts
            self._machines_cache_updated = 0

    client.reload_config = reload_config_and_hosts


class Finder(importlib.abc.MetaPathFinder):
    """Extends the module as soon as it is imported; nothing else is touched, and nothing is imported that Patroni does not."""

    def find_spec(self, name, path, target=None):
        if name != EXTENDED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_extend(module):
            execute(module)
            try:
                extend(module)
            except Exception as why:
                print(f"gaiola: this Patroni cannot be told of new members of the store: {why!r}", file=sys.stderr)

        spec.loader.exec_module = execute_and_extend
        return spec


sys.meta_path.insert(0, Finder())
