package trunk_test

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// FuzzServer sends arbitrary bytes to a callee that answers in all ways, reads what it says, and ends. Serve must end then,
// and every call that was not answered hear of that: else it is a goroutine left behind.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"", "GET / HTTP/1.1\r\nHost: callee\r\n\r\n", frame(kindRequest, 1, plainRequest()),
		frame(kindRequest, 1, plainRequest()) + frame(kindGone, 1, ""), frame(kindCredit, 1, number(100)),
		frame(kindRequest, 1, "\x03"+number(1)+text("POST")+text("callee")+text("/?whole")+number(1)+text("A")+text("1")+"content"),
		frame(kindRequest, 1, "\x00"+number(0)+text("GET")+text("callee")+text("/?streamed")+number(0)) +
			frame(kindCredit, 1, number(256<<10)) + frame(kindRequest, 2, plainRequest()) + frame(kindGone, 1, ""),
		frame(kindRequest, 1, plainRequest()) + frame(kindRequest, 1, plainRequest()), "\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00\x01",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		b, served := caller(t, pair, func(c *incoming) {
			switch c.Request.URL.RawQuery {
			case "whole":
				whole(c, "answer")
			case "streamed":
				streamed(c, endless)
			case "cut":
				c.Answer(nil, nil, false, errOver)
			default:
				c.Inform(http.StatusEarlyHints, c.Request.Header)
				<-gone(c)
			}
		})
		var reader sync.WaitGroup
		reader.Go(func() { io.Copy(io.Discard, b.r) })
		b.Write(said)
		if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		} else {
			b.Close()
		}
		if err := <-served; err == nil {
			t.Error("Serve has ended without an error")
		}
		reader.Wait()
	})
}

// FuzzClient has a callee say arbitrary bytes to two calls, and end. Both must end then.
func FuzzClient(f *testing.F) {
	for _, s := range []string{
		"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", frame(kindAnswer, 1, plainAnswer(true, "answer")),
		frame(kindAnswer, 2, plainAnswer(false, "")) + frame(kindData, 2, "content") + frame(kindEnd, 2, number(1)+text("T")+text("1")),
		frame(kindInform, 1, number(103)+number(0)) + frame(kindCut, 1, "no answer") + frame(kindLeave, 0, ""),
		frame(kindAnswer, 1, plainAnswer(false, "")) + frame(kindData, 1, strings.Repeat("x", 70_000)),
		frame(kindEnd, 1, number(0)), frame(kindData, 1, "content"), "\xff\xff\xff\xff\x05\x00\x00\x00\x00\x00\x00\x00\x01",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		client := script(t, pair, func(b *bare) {
			b.hear()
			b.hear()
			var reader sync.WaitGroup
			reader.Go(func() { io.Copy(io.Discard, b.r) })
			b.Write(said)
			if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
			} else {
				b.Close()
			}
			reader.Wait()
		})
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil },
		})
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
				if err != nil {
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			})
		}
		callers.Wait()
	})
}
