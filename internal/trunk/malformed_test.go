package trunk_test

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// headless is the content of an answer's frame with a head of the test's making.
func headless(head string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(head)))) + head
}

const huge = "\xff\xff\xff\xff\xff\xff\xff\xff\x7f"

func TestWhatIsNoAnswerEndsTheConnection(t *testing.T) {
	ok := frame(kindAnswer, 1, plainAnswer(true, "answer"))
	begin := frame(kindAnswer, 1, plainAnswer(false, ""))
	for name, said := range map[string]string{
		"no kind":                      frame(0, 1, ""),
		"an unknown kind":              frame(kindLeave+1, 1, ""),
		"an unknown kind of no call":   frame(kindLeave+1, 7, ""),
		"the caller's kind":            frame(kindRequest, 1, plainRequest()),
		"the caller's kind of no call": frame(kindGone, 7, ""),
		"a huge length":                "\xff\xff\xff\xff" + ok[4:],
		"a length beyond the limit":    "\x00\x40\x00\x01" + ok[4:],
		"an empty answer":              frame(kindAnswer, 1, ""),
		"no head":                      frame(kindAnswer, 1, headless("")+"answer"),
		"a head that is longer":        frame(kindAnswer, 1, "\x00\x00\xff\xff\x01"),
		"a head of a huge length":      frame(kindAnswer, 1, "\xff\xff\xff\xff\x01"),
		"a head cut short":             frame(kindAnswer, 1, headless("\x01\xc8\x01\x00\x05200")),
		"no status":                    frame(kindAnswer, 1, headless("\x01\x00\x00\x00\x00\x00")),
		"a huge status":                frame(kindAnswer, 1, headless("\x01"+huge+"\x00\x00\x00\x00")),
		"a length below none":          frame(kindAnswer, 1, headless("\x01"+number(200)+number(1<<63+1)+text("200 OK")+"\x00\x00")),
		"more headers than bytes":      frame(kindAnswer, 1, headless("\x01"+number(200)+"\x00\x00"+number(1<<40)+"\x00")),
		"fewer headers than promised":  frame(kindAnswer, 1, headless("\x01"+number(200)+"\x00\x00"+number(3)+text("A")+text("aaaa"))),
		"trailers without end":         frame(kindAnswer, 1, headless("\x01"+number(200)+"\x00\x00\x00"+huge)),
		"a number without end":         frame(kindAnswer, 1, headless("\x01"+strings.Repeat("\xff", 100))),
		"a part before the answer":     frame(kindData, 1, "content"),
		"an end before the answer":     frame(kindEnd, 1, number(0)),
		"two answers":                  begin + begin,
		"an inform after the answer":   begin + frame(kindInform, 1, number(103)+number(0)),
		"an inform without a header":   frame(kindInform, 1, number(103)),
		"an empty inform":              frame(kindInform, 1, ""),
		"an inform that nobody wants":  frame(kindInform, 1, number(103)+number(0)) + ok,
		"an end without a header":      begin + frame(kindEnd, 1, ""),
		"an end with half a header":    begin + frame(kindEnd, 1, number(1)+text("T")),
		"a body of more than its room": begin + strings.Repeat(frame(kindData, 1, strings.Repeat("x", 32<<10)), 9),
		"one part of more than that":   begin + frame(kindData, 1, strings.Repeat("x", 256<<10+1)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := script(t, pipes, func(b *bare) {
					b.hear()
					b.say(said)
					if _, err := io.Copy(io.Discard, b); err != nil {
						t.Errorf("the connection has ended with %v", err)
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
				if err == nil {
					defer resp.Body.Close()
					synctest.Wait() // nobody has read, so that there is no room
					_, err = io.ReadAll(resp.Body)
				}
				if err == nil || ctx.Err() != nil {
					t.Errorf("got error %v", err)
				}
			})
		})
	}
}

func TestWhatConcernsNoCallIsNotHeard(t *testing.T) {
	client := script(t, pair, func(b *bare) {
		b.hear()
		b.say(frame(kindAnswer, 7, "what?"), frame(kindData, 7, strings.Repeat("x", 100_000)), frame(kindEnd, 7, ""),
			frame(kindCut, 7, ""), frame(kindInform, 7, ""), frame(kindAnswer, 1, plainAnswer(true, "answer")))
		b.hear()
	})
	if got := get(t, client); got != "answer" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsNoRequestEndsTheConnection(t *testing.T) {
	for name, said := range map[string]string{
		"no kind":                     frame(0, 1, ""),
		"an unknown kind":             frame(kindLeave+1, 1, ""),
		"the callee's kind":           frame(kindAnswer, 1, plainAnswer(true, "")),
		"the word to leave":           frame(kindLeave, 0, ""),
		"a huge length":               "\xff\xff\xff\xff" + frame(kindRequest, 1, plainRequest())[4:],
		"an empty request":            frame(kindRequest, 1, ""),
		"a request cut short":         frame(kindRequest, 1, plainRequest()[:5]),
		"a request without a target":  frame(kindRequest, 1, "\x00\x00"+text("GET")+text("callee")+text("")+"\x00"),
		"a target that is none":       frame(kindRequest, 1, "\x00\x00"+text("GET")+text("callee")+text("/\n")+"\x00"),
		"more headers than bytes":     frame(kindRequest, 1, "\x00\x00"+text("GET")+text("callee")+text("/")+number(1<<40)+"\x00"),
		"fewer headers than promised": frame(kindRequest, 1, "\x00\x00"+text("GET")+text("callee")+text("/")+number(2)+text("A")+text("a")),
		"a text of a huge length":     frame(kindRequest, 1, "\x00\x00"+huge+"GET"),
		"an empty credit":             frame(kindCredit, 1, ""),
		"a credit beyond the window":  frame(kindCredit, 1, number(256<<10+1)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := make(chan struct{})
				b, served := caller(t, pipes, func(c *incoming) { c.OnGone(func() { close(left) }) })
				b.say(frame(kindRequest, 77, plainRequest()))
				b.say(said)
				time.AfterFunc(time.Hour, func() { b.Close() })
				if err := <-served; err == nil || err == io.EOF { //nolint:errorlint // Serve returns it bare
					t.Errorf("Serve has returned %v", err)
				}
				<-left
				if _, err := io.Copy(io.Discard, b); err != nil {
					t.Errorf("the connection has ended with %v", err)
				}
			})
		})
	}
}

func TestWhatACallThatIsOverIsToldChangesNothing(t *testing.T) {
	b, _ := caller(t, pair, func(c *incoming) { whole(c, "answer") })
	for i := range 3 {
		id := uint64(i + 1)
		b.say(frame(kindRequest, id, plainRequest()))
		if kind, got, content, err := b.hear(); kind != kindAnswer || got != id || !strings.HasSuffix(content, "answer") {
			t.Errorf("heard %d of %d: %q, %v", kind, got, content, err)
		}
		b.say(frame(kindGone, id, ""), frame(kindCredit, id, number(1)), frame(kindGone, 99, ""), frame(kindCredit, 99, number(1)))
	}
}

// TestACreditIsNoMoreThanTheRoom has a caller give more of it than it has taken, and only then read.
func TestACreditIsNoMoreThanTheRoom(t *testing.T) {
	const window, most = 256 << 10, 64 << 10
	synctest.Test(t, func(t *testing.T) {
		var body counting
		b, _ := caller(t, pipes, func(c *incoming) {
			resp := response()
			resp.Body, resp.ContentLength = &body, -1
			c.Answer(resp, nil, false, nil)
		})
		b.say(frame(kindRequest, 1, plainRequest()))
		synctest.Wait()
		b.say(strings.Repeat(frame(kindCredit, 1, number(window)), 3))
		synctest.Wait()
		go io.Copy(io.Discard, b)
		synctest.Wait()
		if got := body.read.Load(); got < window-most || got > window+most { // and what was on its way
			t.Errorf("%d bytes were sent, want at most what there is credit for", got)
		}
	})
}

// TestAPromiseOfHeadersCostsLittleMemory has a frame promise as many as would have room in it.
func TestAPromiseOfHeadersCostsLittleMemory(t *testing.T) {
	const size = 4<<20 - 100
	b, served := caller(t, pair, func(*incoming) {})
	said := frame(kindRequest, 1, "\x00\x00"+text("GET")+text("callee")+text("/")+number(size/2)+"\xff"+strings.Repeat("\xff", size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.say(said)
	<-served
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16*size {
		t.Errorf("it took %d bytes, want at most %d", got, 16*size)
	}
}
