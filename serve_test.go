package watt_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// What a call leaves unread in a connection when it gives that up, a server could still read.
func TestAServeAppThatSaysNoMoreButReadsOnSeesARequestOnce(t *testing.T) {
	for name, unread := range map[string]bool{"before it has read the request": true, "when it has": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen atomic.Int32
				answer := func(conn net.Conn, br *bufio.Reader) {
					if r, err := http.ReadRequest(br); err == nil {
						io.Copy(io.Discard, r.Body)
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						if r.URL.Path == "/pay" {
							seen.Add(1)
						}
					}
				}
				first := true
				rt := start(t, speaking("a", func(conn net.Conn) {
					br := bufio.NewReader(conn)
					answer(conn, br)
					if first {
						first = false
						time.Sleep(time.Second) // until the next request is under way
						if !unread {
							br.Peek(1)
						}
						conn.(interface{ CloseWrite() error }).CloseWrite()
						time.Sleep(time.Second)
					}
					answer(conn, br)
				}, nil))
				get(t.Context(), rt, "a.watt.local/")
				resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://a.watt.local/pay", strings.NewReader("10")))
				if unread {
					read(t, resp, err)
				} else if call, ok := errors.AsType[*watt.CallError](err); !ok || !call.Started {
					t.Errorf("got %v, want a started call", err)
				}
				time.Sleep(time.Minute)
				if got := seen.Load(); got > 1 || unread && got == 0 {
					t.Errorf("the request was seen %d times", got)
				}
			})
		})
	}
}
