package conformance_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing/iotest"
	"time"
)

// handlers is what a net/http server can make of a request.
func handlers() []scenario {
	late := func(name string, req func() *http.Request, h http.HandlerFunc) scenario {
		return scenario{name: "handler/" + name, handler: h, request: req, retry: true}
	}
	eight := sending(func() io.Reader { return strings.NewReader(text(8 << 20)) }, 8<<20)
	eightChunked := sending(func() io.Reader { return strings.NewReader(text(8 << 20)) }, -1)
	early := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }
	earlyLong := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(1<<20)) }
	duplex := func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.WriteString(w, "before")
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
		io.WriteString(w, "after")
	}
	out := []scenario{
		late("answers without reading", eight, early),
		late("answers without reading chunks", eightChunked, early),
		late("answers at length without reading", eight, earlyLong),
		late("answers without reading a little", sending(func() io.Reader { return strings.NewReader(text(100 << 10)) }, -1), early),
		late("reads half", eight, func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 4<<20)
			early(w, r)
		}),
		late("reads slowly", sending(func() io.Reader { return strings.NewReader(text(1 << 20)) }, 1<<20), func(w http.ResponseWriter, r *http.Request) {
			for buf := make([]byte, 100<<10); ; <-time.After(5 * time.Millisecond) {
				if _, err := io.ReadFull(r.Body, buf); err != nil {
					break
				}
			}
			io.WriteString(w, "done")
		}),
		late("full duplex", eight, duplex),
		late("full duplex in chunks", eightChunked, duplex),
		late("panics before bytes", eight, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		late("panics", get(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		late("panics after bytes", get(), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "partly")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}),
		late("panics after a length", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "partly")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}),
		late("long answer", get(), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(8<<20)) }),
		late("long answer of known length", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(8<<20))
			io.WriteString(w, text(8<<20))
		}),
		late("trailers", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Declared, X-Forgotten")
			io.WriteString(w, "body")
			w.Header().Set("X-Declared", "1")
			w.Header().Set(http.TrailerPrefix+"X-Undeclared", "2")
		}),
		late("early hints", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Set("Link", "</b>")
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "done")
		}),
		late("cookies", get(), func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		}),
		late("utf-8", get(), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Name", "bücher ☃ \xff") }),
		late("1,000 headers", get(), func(w http.ResponseWriter, r *http.Request) { thousand(r); maps.Copy(w.Header(), r.Header) }),
		late("pragma", get(), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Pragma", "no-cache") }),
		late("compressed", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "not really")
		}),
		late("closes", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "bye")
		}),
		{name: "handler/informs for ever", request: get(), blind: true, handler: func(w http.ResponseWriter, r *http.Request) {
			for i := range 20 { // or it takes tens of thousands of answers until they are too many
				w.Header().Set("X-Hint-"+strconv.Itoa(i), text(400))
			}
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}},
		late("announces a trailer after the status", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.Header().Set("Trailer", "X-T")
			io.WriteString(w, "body")
			w.Header().Set("X-T", "1")
		}),
		late("announces a trailer after bytes", get(), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "body")
			http.NewResponseController(w).Flush()
			w.Header().Set("Trailer", "X-T")
			w.Header().Set("X-T", "1")
			w.Header().Set(http.TrailerPrefix+"X-Marked", "2")
		}),
		late("answers twice", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			w.Header().Set("X-Late", "1")
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "body")
		}),
		late("writes nothing, and then something", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Write(nil)
			w.Header().Set("X-Late", "1")
			http.NewResponseController(w).Flush()
			w.Write([]byte{})
			io.WriteString(w, "body")
		}),
		late("flushes HEAD", newRequest("HEAD", "http://callee.test/"), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "body")
			http.NewResponseController(w).Flush()
			io.WriteString(w, text(4<<10))
		}),
		late("informs of everything", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			for _, status := range []int{100, 102, 103, 199} {
				w.WriteHeader(status)
			}
			io.WriteString(w, "ok")
		}),
		late("says more than its length", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			n, err := io.WriteString(w, "okay")
			w.Header().Set("X-N", fmt.Sprint(n, err))
			io.WriteString(w, "ok")
		}),
		late("says less than its length", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "ok")
		}),
		late("reads nothing, and then all", eight, func(w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(nil)
			got, readErr := digest(r.Body)
			m, end := r.Body.Read(nil)
			fmt.Fprint(w, n, err, got, readErr, m, end)
		}),
		late("closes the body and reads", get(post, memory("hello")), func(w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(make([]byte, 2))
			fmt.Fprint(w, n, err, r.Body.Close(), r.Body.Close())
			n, err = r.Body.Read(make([]byte, 2))
			fmt.Fprint(w, n, err)
		}),
		late("reads beyond the end", get(post, memory("hello")), func(w http.ResponseWriter, r *http.Request) {
			got, err := digest(r.Body)
			n, end := r.Body.Read(make([]byte, 2))
			fmt.Fprint(w, got, err, n, end, r.Body.Close())
			n, end = r.Body.Read(make([]byte, 2))
			fmt.Fprint(w, n, end)
		}),
		late("says 101", get(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusSwitchingProtocols)
			_, err := io.WriteString(w, "body")
			fmt.Fprint(w, err)
		}),
		late("redirects", get(), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) }),
	}
	for _, method := range []string{"GET", "HEAD", "POST"} {
		for _, status := range []int{200, 204, 205, 304, 404, 500, 599, 999} {
			for _, content := range []string{"", "body", text(100 << 10)} {
				out = append(out, scenario{
					name:    fmt.Sprintf("status/%s %d %d", method, status, len(content)),
					request: newRequest(method, "http://callee.test/"),
					handler: func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Etag", `"1"`)
						w.WriteHeader(status)
						io.WriteString(w, content)
					},
				})
			}
		}
	}
	return out
}

// answers is what other servers may send.
func answers() []scenario {
	all := map[string]string{
		"nothing":                     "",
		"garbage":                     "\x00\x01\x02garbage\r\n\r\n",
		"garbage without an end":      "garbage",
		"another protocol":            "SSH-2.0-OpenSSH_9.6\r\n",
		"part of a status line":       "HTTP/1.1 20",
		"no status":                   "HTTP/1.1\r\n\r\n",
		"status of two digits":        "HTTP/1.1 20 OK\r\n\r\n",
		"status below 100":            "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
		"negative status":             "HTTP/1.1 -10 Odd\r\n\r\n",
		"empty reason":                "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
		"no reason":                   "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0":                    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.0 that stays":         "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 in chunks":          "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.2":                    "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2.0":                    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/0.9":                    "<html>",
		"bare line feeds, and others": "HTTP/1.1 200 OK\nX-Name: 1\n\nbody\r\nContent-Length: 0\r\n\r\n",
		"bare line feed in a header":  "HTTP/1.1 200 OK\r\nX-Name: 1\nContent-Length: 2\r\nX-Other: 2\r\n\r\nok",
		"bare carriage return":        "HTTP/1.1 200 O\rK\r\nX-Name: 1\r2\r\nContent-Length: 2\r\n\r\nok",
		"zero in the status":          "HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
		"lower case":                  "HTTP/1.1 200 OK\r\nx-name: 1\r\ncontent-length: 2\r\n\r\nok",
		"one name many times":         "HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\nX-A: 3\r\nX-A:\r\nContent-Length: 2\r\nX-B: 4\r\n\r\nok",
		"space before a colon":        "HTTP/1.1 200 OK\r\nX-Name : 1\r\nContent-Length: 2\r\n\r\nok",
		"two spaces":                  "HTTP/1.1  200  OK\r\nContent-Length: 2\r\n\r\nok",
		"length with a sign":          "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"length with zeros":           "HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok",
		"enormous length":             "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nok",
		"status above 599":            "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
		"bare line feeds":             "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"part of a header":            "HTTP/1.1 200 OK\r\nContent-Le",
		"headers without end":         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
		"header without colon":        "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
		"header with a space":         "HTTP/1.1 200 OK\r\nX Name: 1\r\nContent-Length: 0\r\n\r\n",
		"header over two lines":       "HTTP/1.1 200 OK\r\nX-Name: 1\r\n  2\r\nContent-Length: 0\r\n\r\n",
		"zero in a header":            "HTTP/1.1 200 OK\r\nX-Name: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"negative length":             "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"length that is none":         "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
		"empty length":                "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
		"two lengths":                 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
		"the same length twice":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"length and chunks":           "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok!\r\n0\r\n\r\n",
		"unknown encoding":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"truncated body":              "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartly",
		"until the end":               "HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"until the end, kept":         "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nuntil the end",
		"close":                       "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"truncated chunk":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"malformed chunk":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n\r\n",
		"chunk without end":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello, world\r\n0\r\n\r\n",
		"huge chunk":                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"chunk with extension":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",
		"no last chunk":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		"no end of trailers":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n",
		"malformed trailer":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nnonsense\r\n\r\n",
		"long trailer":                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: " + text(8<<10) + "\r\n\r\n",
		"forbidden trailer":           "HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"trailer declared in vain":    "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nContent-Length: 0\r\n\r\n",
		"two answers":                 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"two answers without body":    "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
		"204 with a body":             "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody",
		"204 in chunks":               "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"304 with a length":           "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
		"only informational":          "HTTP/1.1 103 Early Hints\r\n\r\n",
		"unasked 100":                 "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"many informational":          strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 100) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"informational with length":   "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"101 without upgrade":         "HTTP/1.1 101 Switching Protocols\r\n\r\nwhat now",
		"101 that names no protocol":  "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\nwhat now",
		"101 for another hop":         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\n\r\nwhat now",
		"headers of 900 KiB":          "HTTP/1.1 200 OK\r\nX-Long: " + text(900<<10) + "\r\nContent-Length: 2\r\n\r\nok",
		"headers of 2 MiB":            "HTTP/1.1 200 OK\r\nX-Long: " + text(2<<20) + "\r\nContent-Length: 2\r\n\r\nok",
		"status line of 2 MiB":        "HTTP/1.1 200 " + text(2<<20) + "\r\n\r\n",
		"headers without an end":      "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Many: 1\r\n", 200<<10),
	}
	var out []scenario
	for name, answer := range all {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			if len(answer) > 100<<10 && method != http.MethodGet {
				continue // it takes long
			}
			out = append(out, scenario{name: "answer/" + method + " " + name, hijacks: true, handler: raw(answer), request: newRequest(method, "http://callee.test/")})
		}
	}
	flood := "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	return append(out,
		scenario{name: "answer/flood of informational", hijacks: true, handler: raw(strings.Repeat(flood, 30<<10)), request: get(), blind: true},
		scenario{name: "answer/informational that nobody sees", hijacks: true, handler: raw(strings.Repeat(flood, 100) + ok), request: get(), blind: true},
		scenario{name: "answer/while the body is sent", request: sending(func() io.Reader { return strings.NewReader(text(8 << 20)) }, 8<<20), hijacks: true, handler: hijack(func(conn net.Conn, body *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			io.CopyN(io.Discard, body, 8<<20)
			io.WriteString(conn, "done")
		})},
	)
}

// expectations is requests that ask before they send their body.
func expectations() []scenario {
	asking := func(r *http.Request) { r.Header.Set("Expect", "100-continue") }
	small := sending(func() io.Reader { return strings.NewReader("hello") }, 5, asking)
	large := sending(func() io.Reader { return strings.NewReader(text(1 << 20)) }, -1, asking)
	refuse := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", status) }
	}
	return []scenario{
		{name: "expect/accepted", handler: describe, request: small},
		{name: "expect/accepted in memory", handler: describe, request: get(post, memory("hello"), asking)},
		{name: "expect/accepted large", handler: describe, request: large},
		{name: "expect/odd case", handler: describe, request: sending(func() io.Reader { return strings.NewReader("hello") }, 5, header("Expect", "100-Continue"))},
		{name: "expect/custom method", handler: describe, request: func() *http.Request { r := large(); r.Method = "custom"; return r }},
		{name: "expect/GET", handler: describe, request: func() *http.Request { r := small(); r.Method = "GET"; return r }},
		{name: "expect/GET unknown length", handler: describe, request: func() *http.Request { r := large(); r.Method = "GET"; return r }, soften: func(_ string, seen *observation) {
			seen.Traced = nil // wire does not wait: Request.Write reads the body before the headers
		}},
		{name: "expect/without body", handler: describe, request: get(asking)},
		{name: "expect/417", handler: refuse(417), request: small},
		{name: "expect/413", handler: refuse(413), request: large},
		{name: "expect/413 in memory", handler: refuse(413), request: get(post, memory("hello"), asking)},
		{name: "expect/unknown", handler: describe, request: get(header("Expect", "miracles"))},
		{name: "expect/refused, body wanted", request: small, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 417 No\r\nContent-Length: 10\r\n\r\n")
			body := make([]byte, 5)
			_, err := io.ReadFull(r, body)
			fmt.Fprintf(conn, "%-10s", fmt.Sprint(string(body), err))
		})},
		{name: "expect/refused, closed", request: small, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 10\r\n\r\n")
			r.Discard(r.Buffered())
			fmt.Fprintf(conn, "%10d", r.Buffered())
		})},
		{name: "expect/ignored", request: small, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			body := make([]byte, 5)
			_, err := io.ReadFull(r, body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n\r\n%s %v", body, err)
		})},
		{name: "expect/100 twice", request: small, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 2))
			body := make([]byte, 5)
			_, err := io.ReadFull(r, body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n\r\n%s %v", body, err)
		})},
		{name: "expect/103 before 100", handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusEarlyHints); describe(w, r) }, request: small},
		{name: "expect/nothing", request: small, hijacks: true, handler: raw("")},
		{name: "expect/body fails", handler: describe, request: sending(func() io.Reader { return iotest.ErrReader(errBody) }, 5, asking), soften: func(_ string, seen *observation) {
			seen.Handler = sight{}
			seen.Traced = seen.Traced[:min(len(seen.Traced), 1)] // http.Transport may return between the two words for 100
		}},
	}
}

// upgrades is connections that speak something else after 101.
func upgrades() []scenario {
	upgrade := func(r *http.Request) { r.Header.Set("Connection", "Upgrade"); r.Header.Set("Upgrade", "test") }
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n"
	writeFirst := func(rwc io.ReadWriteCloser) string {
		_, err := io.WriteString(rwc, text(1<<20))
		half := rwc.(interface{ CloseWrite() error }).CloseWrite()
		got, readErr := digest(rwc)
		return fmt.Sprint(err, half, got, readErr)
	}
	return []scenario{
		{name: "upgrade/caller ends first", request: get(upgrade), dialog: writeFirst, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, switching)
			got, err := digest(r)
			fmt.Fprint(conn, "got ", got, err)
		})},
		{name: "upgrade/callee ends first", request: get(upgrade), hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, switching+"and more")
			conn.(interface{ CloseWrite() error }).CloseWrite()
			io.Copy(io.Discard, r)
		}), dialog: func(rwc io.ReadWriteCloser) string {
			got, readErr := digest(rwc)
			_, err := io.WriteString(rwc, "still writing")
			return fmt.Sprint(got, readErr, err, rwc.Close())
		}},
		{name: "upgrade/much with the answer", request: get(upgrade), hijacks: true, handler: raw(switching + text(1<<20)), dialog: func(rwc io.ReadWriteCloser) string {
			one := make([]byte, 3)
			_, err := io.ReadFull(rwc, one)
			got, readErr := digest(rwc)
			return fmt.Sprint(string(one), err, got, readErr)
		}},
		{name: "upgrade/closed twice", request: get(upgrade), hijacks: true, handler: raw(switching), dialog: func(rwc io.ReadWriteCloser) string {
			first := rwc.Close()
			rwc.Close()
			_, err := rwc.Read(make([]byte, 1))
			_, werr := rwc.Write([]byte("x"))
			return fmt.Sprint(first, kind(err), kind(werr))
		}},
		{name: "upgrade/with a body", request: get(post, memory("hello"), upgrade), dialog: writeFirst, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, switching)
			got, err := digest(r)
			fmt.Fprint(conn, "got ", got, err)
		})},
		{name: "upgrade/after 103", request: get(upgrade), dialog: writeFirst, hijacks: true, handler: hijack(func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n"+switching)
			got, err := digest(r)
			fmt.Fprint(conn, "got ", got, err)
		})},
		{name: "upgrade/refused", request: get(upgrade), handler: describe},
	}
}
