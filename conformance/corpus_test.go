package conformance_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing/iotest"
	"time"
)

// corpus is the exchanges that must be the same over every transport.
func corpus() []scenario {
	return slices.Concat(requests(), bodies(), faults(), handlers(), answers(), expectations(), upgrades(), framings(), queries())
}

// describe reads the request's body, and answers with what it has seen.
func describe(w http.ResponseWriter, r *http.Request) {
	in := r.Context().Value(sightKey{}).(*sight)
	var readError string
	in.Body, readError = digest(r.Body)
	in.Body += readError
	in.Trailer = r.Trailer
	w.Header().Set("X-Seen", in.Body)
	fmt.Fprintln(w, in.Method, in.URI, in.Host, in.Body, in.ContentLength, in.TransferEncoding, in.Trailer)
}

// raw answers with bytes that no server would send, and closes the connection.
func raw(answer string) http.HandlerFunc {
	return hijack(func(conn net.Conn, _ *bufio.Reader) { io.WriteString(conn, answer) })
}

// hijack hands the connection over before the body is read, and closes it at the end.
func hijack(f func(net.Conn, *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		f(conn, rw.Reader)
	}
}

func newRequest(method, url string, changes ...func(*http.Request)) func() *http.Request {
	return func() *http.Request {
		req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
		if err != nil {
			panic(err)
		}
		for _, change := range changes {
			change(req)
		}
		return req
	}
}

// sending makes a POST whose body is not known to be in memory; length may be wrong.
func sending(r func() io.Reader, length int64, changes ...func(*http.Request)) func() *http.Request {
	return func() *http.Request {
		req := newRequest(http.MethodPost, "http://callee.test/", changes...)()
		req.Body, req.ContentLength = track(r()), length
		return req
	}
}

func get(changes ...func(*http.Request)) func() *http.Request {
	return newRequest(http.MethodGet, "http://callee.test/", changes...)
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

func text(size int) string { return strings.Repeat("0123456789abcdef", size/16) }

// requests is about what is on the wire before the body.
func requests() []scenario {
	all := map[string]func() *http.Request{
		"no method":                      func() *http.Request { r := get()(); r.Method = ""; return r },
		"host of its own":                get(func(r *http.Request) { r.Host = "other.test:99" }),
		"host that is none":              get(func(r *http.Request) { r.Host = "a b/c" }),
		"host in unicode":                get(func(r *http.Request) { r.Host = "bücher.test" }),
		"close":                          get(func(r *http.Request) { r.Close = true }),
		"close header":                   get(header("Connection", "close")),
		"escaped path":                   newRequest("GET", "http://callee.test/a%2Fb/%C3%BC%20?x=%26&y=+"),
		"raw path":                       get(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b", "/a%2fb" }),
		"empty path":                     newRequest("GET", "http://callee.test"),
		"query only":                     newRequest("GET", "http://callee.test?a=b"),
		"forced query":                   newRequest("GET", "http://callee.test/?"),
		"fragment":                       newRequest("GET", "http://callee.test/#part"),
		"opaque":                         get(func(r *http.Request) { r.URL.Opaque = "//other.test/x" }),
		"star":                           func() *http.Request { r := get()(); r.Method, r.URL.Path = "OPTIONS", "*"; return r },
		"two slashes":                    get(func(r *http.Request) { r.URL.Path = "//other.test/x" }),
		"raw path of another path":       get(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b", "/c" }),
		"semicolons":                     newRequest("GET", "http://callee.test/?a;b=c;d"),
		"for the next hop":               get(header("Te", "trailers"), header("Keep-Alive", "timeout=5"), header("Proxy-Connection", "close")),
		"host header":                    get(header("Host", "other.test")),
		"host in capitals":               get(func(r *http.Request) { r.Host = "CALLEE.test:80" }),
		"control character":              get(func(r *http.Request) { r.URL.Opaque = "/a\x01b" }),
		"userinfo":                       newRequest("GET", "http://me:secret@callee.test/"),
		"no user agent":                  get(header("User-Agent", "")),
		"user agent":                     get(header("User-Agent", "a\tb")),
		"utf-8 in a header":              get(header("X-Name", "bücher ☃")),
		"a pragma":                       get(header("Pragma", "no-cache")),
		"latin-1 in a header":            get(header("X-Name", "b\xfccher")),
		"many values":                    get(header("X-Name", "a", "", " b ", "a")),
		"odd case":                       get(header("x-oDD", "1")),
		"invalid name":                   get(header("X Name", "1")),
		"empty name":                     get(header("", "1")),
		"invalid value":                  get(header("X-Name", "a\r\nX-Evil: 1")),
		"zero in a value":                get(header("X-Name", "a\x00b")),
		"invalid method":                 func() *http.Request { r := get()(); r.Method = "GE T"; return r },
		"nil header":                     func() *http.Request { r := get()(); r.Header = nil; return r },
		"no host":                        func() *http.Request { r := get()(); r.URL.Host = ""; return r },
		"nil URL":                        func() *http.Request { r := get()(); r.URL = nil; return r },
		"length without body":            get(func(r *http.Request) { r.ContentLength = 5 }),
		"content-length header":          get(header("Content-Length", "5")),
		"transfer-encoding":              get(header("Transfer-Encoding", "gzip")),
		"trailer without body":           get(func(r *http.Request) { r.Trailer = http.Header{"X-T": {"1"}} }),
		"accepts gzip":                   get(header("Accept-Encoding", "gzip")),
		"long line":                      newRequest("GET", "http://callee.test/"+text(20<<10)),
		"1,000 headers":                  get(thousand),
		"too much header for the server": get(header("X-Long", text(2<<20))),
		"cookies": get(func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "a", Value: "b c"})
			r.AddCookie(&http.Cookie{Name: "d", Value: "e"})
		}),
	}
	var out []scenario
	for name, req := range all {
		out = append(out, scenario{name: "request/" + name, handler: describe, request: req, retry: name == "too much header for the server" || name == "length without body"})
	}
	for _, name := range []string{"userinfo", "nil header", "cookies", "close", "escaped path", "nil URL"} {
		out = append(out, scenario{name: "client/" + name, handler: describe, request: all[name], client: true, soften: func(_ string, seen *observation) {
			seen.Same = false // Client makes another
		}})
	}
	return out
}

func thousand(r *http.Request) {
	for i := range 1000 {
		r.Header.Set(fmt.Sprintf("X-Header-%d", i), text(160))
	}
}

// bodies sends all kinds of bodies with all methods.
func bodies() []scenario {
	kinds := map[string]func(*http.Request){
		"none":           func(*http.Request) {},
		"NoBody":         func(r *http.Request) { r.Body = http.NoBody },
		"NoBody chunked": func(r *http.Request) { r.Body, r.TransferEncoding = http.NoBody, []string{"chunked"} },
		"in memory":      memory("hello"),
		"16 KiB":         memory(text(16 << 10)),
		"20 KiB":         memory(text(20 << 10)),
		"1 MiB":          memory(text(1 << 20)),
		"stream":         stream("hello", 5),
		"unknown":        stream("hello", -1),
		"zero":           stream("hello", 0), // which means unknown
		"empty":          stream("", 0),
		"1 MiB unknown":  stream(text(1<<20), -1),
		"one byte":       stream("x", -1),
		"chunked":        func(r *http.Request) { memory("hello")(r); r.TransferEncoding = []string{"chunked"} },
		"identity":       func(r *http.Request) { memory("hello")(r); r.TransferEncoding = []string{"identity"} },
		"trailers": func(r *http.Request) {
			stream("hello", -1)(r)
			r.Trailer = http.Header{"X-Before": {"1"}, "X-During": nil}
			r.Body.(*trackedBody).Reader = io.MultiReader(strings.NewReader("hello"), atEOF(func() { r.Trailer.Set("X-During", "2") }))
		},
		"trailer without chunks": func(r *http.Request) { memory("hello")(r); r.Trailer = http.Header{"X-T": {"1"}} },
	}
	var out []scenario
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "SEARCH", "custom"} {
		for name, change := range kinds {
			out = append(out, scenario{
				name: "body/" + method + " " + name, handler: describe,
				request: func() *http.Request { r := get(change)(); r.Method = method; return r },
			})
		}
	}
	return append(out,
		scenario{name: "body/8 MiB", handler: describe, request: get(post, memory(text(8<<20)))},
		scenario{name: "body/8 MiB stream", handler: describe, request: get(post, stream(text(8<<20), 8<<20))},
		scenario{name: "body/8 MiB unknown", handler: describe, request: get(post, stream(text(8<<20), -1))},
		scenario{name: "body/slow to begin", handler: describe, request: get(func(r *http.Request) {
			r.Body = track(io.MultiReader(atEOF(func() { <-time.After(300 * time.Millisecond) }), strings.NewReader("late")))
		})},
		scenario{name: "body/one byte at a time", handler: describe, request: sending(func() io.Reader {
			return iotest.OneByteReader(strings.NewReader(text(160)))
		}, -1)},
		scenario{name: "body/end with the data", handler: describe, request: sending(func() io.Reader {
			return iotest.DataErrReader(strings.NewReader(text(160)))
		}, 160)},
		scenario{name: "body/bad trailer", retry: true, handler: describe, request: sending(func() io.Reader { return strings.NewReader("x") }, -1, func(r *http.Request) {
			r.Trailer = http.Header{"Content-Length": {"1"}}
		})},
		scenario{name: "body/invalid trailer", handler: describe, request: sending(func() io.Reader { return strings.NewReader("x") }, -1, func(r *http.Request) {
			r.Trailer = http.Header{"X-T": {"a\nb"}}
		})},
	)
}

func post(r *http.Request) { r.Method = http.MethodPost }

// memory gives the request a body as http.NewRequest makes it.
func memory(content string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(content)), int64(len(content))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
	}
}

func stream(content string, length int64) func(*http.Request) {
	return func(r *http.Request) { r.Body, r.ContentLength = track(strings.NewReader(content)), length }
}

// atEOF is a reader without content that calls itself at its end.
type atEOF func()

func (f atEOF) Read([]byte) (int, error) { f(); return 0, io.EOF }

// faults is requests that cannot be sent to their end.
func faults() []scenario {
	unread := func(r io.Reader) func() io.Reader {
		return func() io.Reader { return io.MultiReader(r, iotest.ErrReader(errBody)) }
	}
	// How much of it the server sees is a matter of time.
	calledOrNot := func(_ string, seen *observation) { seen.Handler = sight{} }
	gone := func(name string, req func() *http.Request) scenario {
		return scenario{name: "fault/" + name, handler: describe, request: req, soften: calledOrNot}
	}
	short := func(r *http.Request) { memory("hello")(r); r.ContentLength = 6 }
	long := func(r *http.Request) { memory("hello")(r); r.ContentLength = 4 }
	return []scenario{
		gone("at once, known length", sending(unread(strings.NewReader("")), 5)),
		gone("at once, unknown length", sending(unread(strings.NewReader("")), -1)),
		gone("at once, GET", func() *http.Request { r := sending(unread(strings.NewReader("")), -1)(); r.Method = "GET"; return r }),
		gone("midway, known length", sending(unread(strings.NewReader("hel")), 5)),
		gone("midway, unknown length", sending(unread(strings.NewReader("hel")), -1)),
		// Of the length 5 the server would have it all, and could answer before anybody hears of the error.
		gone("with the data", sending(func() io.Reader { return iotest.DataErrReader(unread(strings.NewReader("hello"))()) }, 6)),
		gone("with the data, unknown length", sending(func() io.Reader { return iotest.DataErrReader(unread(strings.NewReader("hello"))()) }, -1)),
		gone("midway, long", sending(func() io.Reader { return unread(strings.NewReader(text(1 << 20)))() }, 2<<20)),
		gone("short", sending(func() io.Reader { return strings.NewReader("hello") }, 6)),
		gone("short, long", sending(func() io.Reader { return strings.NewReader(text(1 << 20)) }, 2<<20)),
		gone("short, in memory", get(post, short)),
		gone("long, in memory", get(post, long)),
		gone("cannot be closed", func() *http.Request {
			r := get(post)()
			r.Body, r.ContentLength = uncloseable{strings.NewReader("hello")}, 6
			return r
		}),
	}
}

type uncloseable struct{ io.Reader }

func (uncloseable) Close() error { return errBody }
