package wire_test

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// A server that closes before it has read everything resets the connection, after what it has answered. That is the end of an
// answer which says of itself neither how long it is nor where it ends, to a request that the server did not want whole.
func TestAResetIsTheEndOfAnAnswerToARequestThatWasNotWanted(t *testing.T) {
	const toEnd = "HTTP/1.1 431 Too Large\r\n\r\nhalf"
	for name, c := range map[string]struct {
		header int
		answer string
		whole  bool
	}{
		"to its end":                      {4 << 20, toEnd, true},
		"to its end, for what it has got": {1 << 10, toEnd, false},
		"of a length":                     {4 << 20, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", false},
		"in chunks":                       {4 << 20, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			pool := sockets(t, func(conn net.Conn) {
				conn.Read(make([]byte, 1))
				io.WriteString(conn, c.answer)
				conn.Close()
			})
			req := request(t, t.Context(), http.MethodGet, nil)
			req.Header.Set("X-Long", text(c.header))
			resp, err := lean{pool}.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); string(got) != "half" || (err == nil) != c.whole {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
