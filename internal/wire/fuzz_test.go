package wire_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/wire"
)

// FuzzAnswer sends arbitrary bytes for an answer and closes the connection. What the caller gets must be
// the same as from http.Transport.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		ok, ok + ok, "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 100 Continue\r\n\r\n" + ok, "HTTP/1.1 103 \r\nLink: x\r\n\r\n" + ok,
		"HTTP/1.1 101 Odd\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 099 Odd\r\nContent-Length: -1\r\n\r\n",
	} {
		f.Add([]byte(s), http.MethodGet)
		f.Add([]byte(s), http.MethodHead)
		f.Add([]byte(s), http.MethodPost)
	}
	f.Fuzz(func(t *testing.T, answer []byte, method string) {
		switch method {
		case http.MethodHead, http.MethodPost:
		default:
			method = http.MethodGet
		}
		trip := func(rt func(dial func() net.Conn) http.RoundTripper) (status, content, fault string) {
			var servers sync.WaitGroup
			defer servers.Wait()
			transport := rt(func() net.Conn {
				here, there := pipe.New(new(pipe.Buffers), "caller:1", "callee:80")
				servers.Go(func() {
					defer there.Close()
					if req, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
						io.Copy(io.Discard, req.Body)
						there.Write(answer)
					}
				})
				return here
			})
			defer transport.(interface{ CloseIdleConnections() }).CloseIdleConnections()
			var body io.Reader
			if method == http.MethodPost {
				body = io.MultiReader(strings.NewReader("hello")) // of unknown length
			}
			resp, err := transport.RoundTrip(request(t, t.Context(), method, body))
			if err != nil {
				return "", "", "failed"
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				fault = "truncated"
			}
			return resp.Status, string(got), fault
		}
		status, content, fault := trip(func(dial func() net.Conn) http.RoundTripper {
			return lean{&wire.Pool{Dial: func(context.Context) (net.Conn, error) { return dial(), nil }}}
		})
		wantStatus, wantContent, wantFault := trip(func(dial func() net.Conn) http.RoundTripper {
			return &http.Transport{
				DialContext:            func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
				DisableCompression:     true,
				MaxResponseHeaderBytes: 1 << 20,
			}
		})
		if status != wantStatus || content != wantContent || fault != wantFault {
			t.Errorf("got %q, %q, %q\nwant %q, %q, %q", status, content, fault, wantStatus, wantContent, wantFault)
		}
	})
}
