//! What a function's name tells: its package, and whether it is the program's own, a library's or Go's.

use super::stack::{Frame, Stack};

/// First elements of the import paths of Go's standard library: the folders of `GOROOT/src` of Go 1.26, without
/// `cmd`, `builtin` and `testdata`. Check: `ls -d $(go env GOROOT)/src/*/`. Go leaves paths whose first element has
/// no dot to itself, but programs use them too (`module shop`), hence the list.
const STANDARD: &[&str] = &[
    "archive",
    "arena",
    "bufio",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "vendor",
    "weak",
];

/// Whose code a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program's own: package `main`, or a package of the main module.
    Program,
    /// Of a module that the program uses.
    Library,
    /// Go's standard library or runtime.
    Standard,
    /// The name is not known.
    Unknown,
}

/// The import path of a function's package as the linker writes it: `net/http` of `net/http.(*conn).serve`.
#[must_use]
pub fn package(func: &str) -> &str {
    // Type arguments have paths of their own.
    let head = func.split_once('[').map_or(func, |(head, _)| head);
    let last = head.rfind('/').map_or(0, |slash| slash + 1);
    match head.get(last..).and_then(|name| name.find('.')) {
        Some(dot) => head.get(..last + dot).unwrap_or(head),
        None => head,
    }
}

/// Whose code a function is. `modules` are the main modules of the programs, where they are known.
#[must_use]
pub fn origin(func: &str, modules: &[&str]) -> Origin {
    let package = package(func);
    let within = |module: &str| {
        package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if package.is_empty() {
        Origin::Unknown
    } else if package == "main" || modules.iter().any(|module| within(module)) {
        Origin::Program
    } else if STANDARD.contains(&package.split('/').next().unwrap_or(package)) {
        Origin::Standard
    } else {
        Origin::Library
    }
}

/// Where in a stack to point: the program's own function nearest to the wait; failing that, the function that the
/// goroutine was started with when it is a library's, the library's function nearest to the wait, the function that
/// it was started with.
#[must_use]
pub fn telling_frame<'stack>(stack: &'stack Stack, modules: &[&str]) -> Option<&'stack Frame> {
    let nearest = |wanted: Origin| stack.frames.iter().find(|frame| origin(&frame.func, modules) == wanted);
    let entry =
        stack.frames.iter().rev().find(|frame| package(&frame.func) != "runtime" && !is_wrapper(&frame.func));
    nearest(Origin::Program)
        .or_else(|| entry.filter(|frame| origin(&frame.func, modules) == Origin::Library))
        .or_else(|| nearest(Origin::Library))
        .or(entry)
        .or_else(|| stack.frames.first())
}

/// The compiler's own closure around the call of a `go` or `defer` statement.
fn is_wrapper(func: &str) -> bool {
    func.rsplit('.').next().is_some_and(|last| last.starts_with("gowrap") || last.starts_with("deferwrap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(functions: &[&str]) -> Stack {
        let frame = |func: &&str| Frame { func: (*func).into(), file: "".into(), line: 0, inlined: false };
        Stack { frames: functions.iter().map(frame).collect(), truncated: false }
    }

    fn tells(functions: &[&str], modules: &[&str]) -> Option<String> {
        telling_frame(&stack(functions), modules).map(|frame| frame.func.to_string())
    }

    #[test]
    fn packages() {
        assert_eq!(package("net/http.(*conn).serve"), "net/http");
        assert_eq!(package("main.main.func1"), "main");
        assert_eq!(package("gopkg.in/yaml%2ev3.(*Decoder).Decode"), "gopkg.in/yaml%2ev3");
        assert_eq!(package("main.each[go.shape.struct { github.com/a/b.c int }]"), "main");
        assert_eq!(package("slices.SortFunc[...]"), "slices");
        assert_eq!(package("_rt0_amd64"), "_rt0_amd64");
        assert_eq!(package("[unknown: not in pclntab]"), "");
    }

    #[test]
    fn origins() {
        assert_eq!(origin("internal/poll.(*FD).Read", &[]), Origin::Standard);
        assert_eq!(origin("vendor/golang.org/x/net/http2/hpack.Huffman", &[]), Origin::Standard);
        assert_eq!(origin("github.com/lib/pq.(*conn).recv", &[]), Origin::Library);
        assert_eq!(origin("main.main", &[]), Origin::Program);
        assert_eq!(origin("shop/store.(*Store).User", &["shop"]), Origin::Program);
        assert_eq!(origin("shopper.Run", &["shop"]), Origin::Library);
        assert_eq!(origin("[unknown]", &["shop"]), Origin::Unknown);
    }

    #[test]
    fn points_at_the_program_first() {
        let handler = [
            "internal/poll.runtime_pollWait",
            "github.com/lib/pq.(*conn).recv",
            "shop/store.(*Store).User",
            "main.handler",
            "net/http.(*conn).serve",
        ];
        assert_eq!(tells(&handler, &["shop"]).as_deref(), Some("shop/store.(*Store).User"));
        assert_eq!(tells(&handler, &[]).as_deref(), Some("main.handler"));
    }

    #[test]
    fn points_at_what_the_goroutine_is_for_when_none_of_it_is_the_programs() {
        let grpc = [
            "internal/poll.runtime_pollWait",
            "golang.org/x/net/http2.(*Framer).ReadFrame",
            "google.golang.org/grpc/internal/transport.(*http2Client).reader",
            "google.golang.org/grpc/internal/transport.newHTTP2Client.gowrap3",
            "runtime.goexit",
        ];
        let reader = "google.golang.org/grpc/internal/transport.(*http2Client).reader";
        assert_eq!(tells(&grpc, &[]).as_deref(), Some(reader));
        let transport =
            ["internal/poll.runtime_pollWait", "bufio.(*Reader).Peek", "net/http.(*persistConn).readLoop"];
        assert_eq!(tells(&transport, &[]).as_deref(), Some("net/http.(*persistConn).readLoop"));
        let library =
            ["internal/poll.runtime_pollWait", "github.com/lib/pq.(*conn).recv", "net/http.(*conn).serve"];
        assert_eq!(tells(&library, &[]).as_deref(), Some("github.com/lib/pq.(*conn).recv"));
        assert_eq!(tells(&["runtime.goexit"], &[]).as_deref(), Some("runtime.goexit"));
        assert_eq!(tells(&[], &[]), None);
    }
}
