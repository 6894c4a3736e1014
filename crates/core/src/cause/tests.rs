//! The ends of real programs' output, and the line of each that says why.

use super::of;

macro_rules! causes {
    ($($name:ident: $tail:expr => $cause:expr;)*) => {
        $(#[test] fn $name() { assert_eq!(of($tail).as_deref(), Some($cause)); })*
    };
}

causes! {
    node_cannot_listen: r#"node:events:502
      throw er; // Unhandled 'error' event
      ^

Error: listen EADDRNOTAVAIL: address not available 203.0.113.1:1
    at Server.setupListenHandle [as _listen2] (node:net:1886:21)
    at listenInCluster (node:net:1965:12)
    at doListen (node:net:2139:7)
    at process.processTicksAndRejections (node:internal/process/task_queues:83:21)
Emitted 'error' event on Server instance at:
    at emitErrorNT (node:net:1944:8)
    at process.processTicksAndRejections (node:internal/process/task_queues:82:21) {
  code: 'EADDRNOTAVAIL',
  errno: -99,
  syscall: 'listen',
  address: '203.0.113.1',
  port: 1
}

Node.js v20.20.2
"# => r#"Error: listen EADDRNOTAVAIL: address not available 203.0.113.1:1"#;
    node_throws: r#"/srv/b.js:1
const x = {}; function go() { return x.a.b; }
                                         ^

TypeError: Cannot read properties of undefined (reading 'b')
    at go (/srv/b.js:1:42)
    at Object.<anonymous> (/srv/b.js:2:1)
    at Module._compile (node:internal/modules/cjs/loader:1521:14)
    at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
    at Module.load (node:internal/modules/cjs/loader:1266:32)
    at Module._load (node:internal/modules/cjs/loader:1091:12)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12)
    at node:internal/main/run_main_module:28:49

Node.js v20.20.2
"# => r#"TypeError: Cannot read properties of undefined (reading 'b')"#;
    node_misses_a_module: r#"node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module './nosuch'
Require stack:
- /srv/c.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)
    at Module._load (node:internal/modules/cjs/loader:1038:27)
    at Module.require (node:internal/modules/cjs/loader:1289:19)
    at require (node:internal/modules/helpers:182:18)
    at Object.<anonymous> (/srv/c.js:1:1)
    at Module._compile (node:internal/modules/cjs/loader:1521:14)
    at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
    at Module.load (node:internal/modules/cjs/loader:1266:32)
    at Module._load (node:internal/modules/cjs/loader:1091:12)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12) {
  code: 'MODULE_NOT_FOUND',
  requireStack: [ '/srv/c.js' ]
}

Node.js v20.20.2
"# => r#"Error: Cannot find module './nosuch'"#;
    node_rejects: r#"listening
/srv/d.js:1
console.log("listening"); Promise.reject(new Error("no database"))
                                         ^

Error: no database
    at Object.<anonymous> (/srv/d.js:1:42)
    at Module._compile (node:internal/modules/cjs/loader:1521:14)
    at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
    at Module.load (node:internal/modules/cjs/loader:1266:32)
    at Module._load (node:internal/modules/cjs/loader:1091:12)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12)
    at node:internal/main/run_main_module:28:49

Node.js v20.20.2
"# => r#"Error: no database"#;
    node_cannot_read_it: r#"/srv/e.js:1
function ( {
^^^^^^^^

SyntaxError: Function statements require a function name
    at wrapSafe (node:internal/modules/cjs/loader:1464:18)
    at Module._compile (node:internal/modules/cjs/loader:1495:20)
    at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
    at Module.load (node:internal/modules/cjs/loader:1266:32)
    at Module._load (node:internal/modules/cjs/loader:1091:12)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12)
    at node:internal/main/run_main_module:28:49

Node.js v20.20.2
"# => r#"SyntaxError: Function statements require a function name"#;
    java_throws: r#"Exception in thread "main" java.lang.IllegalStateException: cannot start
	at A.main(A.java:1)
Caused by: java.lang.NumberFormatException: For input string: "x1"
	at java.base/java.lang.NumberFormatException.forInputString(NumberFormatException.java:67)
	at java.base/java.lang.Integer.parseInt(Integer.java:668)
	at java.base/java.lang.Integer.parseInt(Integer.java:786)
	at A.main(A.java:1)
	at java.base/jdk.internal.reflect.NativeMethodAccessorImpl.invoke0(Native Method)
	at java.base/jdk.internal.reflect.NativeMethodAccessorImpl.invoke(NativeMethodAccessorImpl.java:77)
	at java.base/jdk.internal.reflect.DelegatingMethodAccessorImpl.invoke(DelegatingMethodAccessorImpl.java:43)
	at java.base/java.lang.reflect.Method.invoke(Method.java:569)
	at jdk.compiler/com.sun.tools.javac.launcher.Main.execute(Main.java:419)
	at jdk.compiler/com.sun.tools.javac.launcher.Main.run(Main.java:192)
	at jdk.compiler/com.sun.tools.javac.launcher.Main.main(Main.java:132)
"# => r#"Caused by: java.lang.NumberFormatException: For input string: "x1""#;
    java_misses_a_file: r#"Error: Unable to access jarfile nosuch.jar
"# => r#"Error: Unable to access jarfile nosuch.jar"#;
    python_raises: r#"Traceback (most recent call last):
  File "/srv/x.py", line 4, in <module>
    g()
  File "/srv/x.py", line 3, in g
    def g(): return f()
                    ^^^
  File "/srv/x.py", line 2, in f
    def f(): return os.environ["DATABASE_URL"]
                    ~~~~~~~~~~^^^^^^^^^^^^^^^^
  File "<frozen os>", line 679, in __getitem__
KeyError: 'DATABASE_URL'
"# => r#"KeyError: 'DATABASE_URL'"#;
    python_cannot_bind: r#"Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "<frozen runpy>", line 88, in _run_code
  File "/usr/lib/python3.11/http/server.py", line 1313, in <module>
    test(
  File "/usr/lib/python3.11/http/server.py", line 1260, in test
    with ServerClass(addr, HandlerClass) as httpd:
         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/socketserver.py", line 456, in __init__
    self.server_bind()
  File "/usr/lib/python3.11/http/server.py", line 1307, in server_bind
    return super().server_bind()
           ^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/http/server.py", line 136, in server_bind
    socketserver.TCPServer.server_bind(self)
  File "/usr/lib/python3.11/socketserver.py", line 472, in server_bind
    self.socket.bind(self.server_address)
OSError: [Errno 99] Cannot assign requested address
"# => r#"OSError: [Errno 99] Cannot assign requested address"#;
    python_raises_two_lines: r#"Traceback (most recent call last):
  File "<string>", line 3, in <module>
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "<string>", line 5, in <module>
RuntimeError: cannot start
see above
"# => r#"RuntimeError: cannot start"#;
    perl_misses_a_module: r#"Can't locate Nosuch.pm in @INC (you may need to install the Nosuch module) (@INC contains: /etc/perl) at -e line 1.
BEGIN failed--compilation aborted at -e line 1.
"# => r#"Can't locate Nosuch.pm in @INC (you may need to install the Nosuch module) (@INC contains: /etc/perl) at -e line 1."#;
    a_shell_finds_nothing: r#"sh: 1: nosuch: not found
"# => r#"sh: 1: nosuch: not found"#;
    node_runs_out_of_memory: r#"<--- JS stacktrace --->

FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
----- Native stack trace -----

 1: 0xb78db3 node::OOMErrorHandler(char const*, v8::OOMDetails const&) [node]
 2: 0xee8300 v8::Utils::ReportOOMFailure(v8::internal::Isolate*, char const*, v8::OOMDetails const&) [node]
 9: 0x15247d6 v8::internal::Runtime_AllocateInYoungGeneration(int, unsigned long*, v8::internal::Isolate*) [node]
10: 0x195e476  [node]
11: 0x195e477  [node]
"# => r#"FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"#;
    ruby_raises: r#"/usr/lib/ruby/3.1.0/socket.rb:61:in `connect_internal': Connection refused - connect(2) for 127.0.0.1:5432 (Errno::ECONNREFUSED)
	from /usr/lib/ruby/3.1.0/socket.rb:137:in `connect'
	from app.rb:4:in `<main>'
"# => r#"/usr/lib/ruby/3.1.0/socket.rb:61:in `connect_internal': Connection refused - connect(2) for 127.0.0.1:5432 (Errno::ECONNREFUSED)"#;
    ruby_shows_the_place: r#"app.rb:2:in `<main>': undefined method `upcase' for nil:NilClass (NoMethodError)

puts nil.upcase
        ^^^^^^^
Did you mean?  case
"# => r#"app.rb:2:in `<main>': undefined method `upcase' for nil:NilClass (NoMethodError)"#;
    gunicorn_cannot_load: r#"    mod = importlib.import_module(module)
  File "<frozen importlib._bootstrap>", line 1140, in _find_and_load_unlocked
ModuleNotFoundError: No module named 'shop'
[2026-01-02 03:04:05 +0000] [12] [INFO] Worker exiting (pid: 12)
[2026-01-02 03:04:05 +0000] [11] [ERROR] Worker (pid:12) exited with code 3
[2026-01-02 03:04:05 +0000] [11] [ERROR] Shutting down: Master
[2026-01-02 03:04:05 +0000] [11] [ERROR] Reason: Worker failed to boot.
"# => r#"ModuleNotFoundError: No module named 'shop'"#;
    uvicorn_cannot_bind: r#"INFO:     Started server process [42]
INFO:     Waiting for application startup.
INFO:     Application startup complete.
ERROR:    [Errno 98] error while attempting to bind on address ('10.77.3.1', 3001): address already in use
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
"# => r#"ERROR:    [Errno 98] error while attempting to bind on address ('10.77.3.1', 3001): address already in use"#;
    django_is_not_configured: r#"  File "/srv/venv/lib/python3.11/site-packages/django/conf/__init__.py", line 69, in __getattr__
    raise ImproperlyConfigured(
django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.
"# => r#"django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty."#;
    psycopg_says_more: r#"  File "/srv/app.py", line 9, in <module>
    connection = psycopg2.connect(url)
psycopg2.OperationalError: connection to server at "127.0.0.1", port 5432 failed: Connection refused
	Is the server running on that host and accepting TCP/IP connections?

"# => r#"psycopg2.OperationalError: connection to server at "127.0.0.1", port 5432 failed: Connection refused"#;
    spring_describes_it: r#"***************************
APPLICATION FAILED TO START
***************************

Description:

Web server failed to start. Port 3001 was already in use.

Action:

Identify and stop the process that's listening on port 3001 or configure this application to listen on another port.

"# => r#"Description: Web server failed to start. Port 3001 was already in use."#;
    go_panics: r#"panic: open config.json: no such file or directory

goroutine 1 [running]:
main.main()
	/srv/main.go:11 +0x85
exit status 2
"# => r#"panic: open config.json: no such file or directory"#;
    rust_panics: r#"thread 'main' panicked at src/main.rs:4:39:
called `Option::unwrap()` on a `None` value
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
"# => r#"thread 'main' panicked at src/main.rs:4:39: called `Option::unwrap()` on a `None` value"#;
    php_is_fatal: r#"PHP Fatal error:  Uncaught Error: Call to undefined function boot() in /srv/index.php:3
Stack trace:
#0 {main}
  thrown in /srv/index.php on line 3
"# => r#"PHP Fatal error:  Uncaught Error: Call to undefined function boot() in /srv/index.php:3"#;
    a_program_says_goodbye: r#"listening on 3001
no such table: guests

"# => r#"no such table: guests"#;
    an_old_error_is_not_it: r#"ValueError: bad input
GET /0 200
GET /1 200
GET /2 200
GET /3 200
GET /4 200
GET /5 200
GET /6 200
GET /7 200
GET /8 200
"# => r#"GET /8 200"#;
}

#[test]
fn who_wrote_nothing_gave_no_reason() {
    assert_eq!(of("\n\n"), None);
    assert_eq!(of("  only this\n").as_deref(), Some("only this"));
}
