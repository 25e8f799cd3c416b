package trunk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnAnswerArrivesAsItWasGiven(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	for name, test := range map[string]struct {
		resp    http.Response
		content string
		whole   bool
		trailer http.Header // after the body
	}{
		"whole":            {http.Response{Status: "200 OK", StatusCode: http.StatusOK, ContentLength: 7}, "content", true, nil},
		"empty":            {http.Response{Status: "204 No Content", StatusCode: http.StatusNoContent}, "", true, nil},
		"to HEAD":          {http.Response{Status: "200 OK", StatusCode: http.StatusOK, ContentLength: 1 << 40}, "", true, nil},
		"of an odd status": {http.Response{Status: "999 Odd", StatusCode: 999}, "", true, nil},
		"with headers": {http.Response{
			Status: "200 OK", StatusCode: http.StatusOK, Header: http.Header{"A": {"1", "2"}, "B": {""}, "C": {"3"}},
		}, "", true, nil},
		"in parts": {http.Response{
			Status: "200 OK", StatusCode: http.StatusOK, ContentLength: -1, TransferEncoding: []string{"chunked"},
		}, long, false, nil},
		"in parts, of known length": {http.Response{Status: "200 OK", StatusCode: http.StatusOK, ContentLength: 200_000}, long, false, nil},
		"in no part":                {http.Response{Status: "200 OK", StatusCode: http.StatusOK, ContentLength: -1}, "", false, nil},
		"with announced trailers": {http.Response{
			Status: "200 OK", StatusCode: http.StatusOK, ContentLength: -1, Trailer: http.Header{"T": nil, "U": nil},
		}, "content", false, http.Header{"T": {"1", "2"}, "U": nil}},
		"with other trailers": {http.Response{Status: "200 OK", StatusCode: http.StatusOK, ContentLength: -1}, "content", false, http.Header{"T": {"1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			given := make(chan *http.Response, 1)
			copied := test.resp
			given <- &copied
			client, _ := serve(t, pair, func(c *incoming) {
				resp := <-given
				if resp.Body = http.NoBody; !test.whole {
					resp.Body = &trailing{Reader: strings.NewReader(test.content), then: func() { resp.Trailer = test.trailer }}
				}
				c.Answer(resp, []byte(test.content), test.whole, nil)
			})
			req := request(t, t.Context(), http.MethodGet, "")
			resp, err := client.RoundTrip(req, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if resp.Request != req {
				t.Error("it is the answer to another request")
			}
			if want := test.resp.Trailer; !reflect.DeepEqual(resp.Trailer, want) {
				t.Errorf("got trailers %v before the body, want %v", resp.Trailer, want)
			}
			if got := readAll(t, resp, nil); got != test.content {
				t.Errorf("got %d bytes, want %d", len(got), len(test.content))
			}
			test.resp.Trailer = test.trailer
			if got, want := answer(resp), answer(&test.resp); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
		})
	}
}

// answer describes an answer, without its body.
func answer(r *http.Response) string {
	return fmt.Sprint(r.StatusCode, " ", r.Status, " ", len(r.Header), r.Header, " ", r.ContentLength, " ", r.TransferEncoding, " ", r.Trailer)
}

// trailing is a body that calls then at its end.
type trailing struct {
	io.Reader
	then func()
}

func (b *trailing) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		b.then()
	}
	return n, err
}

func (b *trailing) Close() error { return nil }

func TestAnAnswerThatIsCutOffSaysSo(t *testing.T) {
	errCallee := errors.New("the callee has failed")
	for name, test := range map[string]struct {
		answer func(*incoming)
		want   string
	}{
		"before it":             {func(c *incoming) { c.Answer(nil, nil, false, io.ErrUnexpectedEOF) }, "unexpected EOF"},
		"before it, with words": {func(c *incoming) { c.Answer(nil, nil, false, errCallee) }, errCallee.Error()},
		"in it":                 {func(c *incoming) { streamed(c, cut(io.ErrUnexpectedEOF)) }, "unexpected EOF"},
		"in it, with words":     {func(c *incoming) { streamed(c, cut(errCallee)) }, errCallee.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, pair, test.answer)
			resp, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
			if strings.HasPrefix(name, "in it") {
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var got []byte
				if got, err = io.ReadAll(resp.Body); string(got) != "content" {
					t.Errorf("got %q before it was cut", got)
				}
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("got error %v, want %s", err, test.want)
			}
			if isUnexpected := errors.Is(err, io.ErrUnexpectedEOF); isUnexpected != (test.want == "unexpected EOF") {
				t.Errorf("got error %#v", err)
			}
		})
	}
}

func cut(err error) func(io.Writer) error {
	return func(w io.Writer) error {
		io.WriteString(w, "content")
		return err
	}
}

func TestAnErrorOfAnyLengthConcernsItsCallAlone(t *testing.T) {
	fail := make(chan struct{})
	client, n := serve(t, pair, func(c *incoming) {
		if c.Request.Method == http.MethodGet {
			<-fail
			whole(c, "content")
			return
		}
		c.Answer(nil, nil, false, errors.New("no: "+strings.Repeat("x", 5<<20))) // it names a header, and is longer than a frame may be
		close(fail)
	})
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		if got := get(t, client); got != "content" {
			t.Errorf("got %q of another call", got)
		}
	})
	for n.dials() == 0 || n.latest().Calls() == 0 {
		runtime.Gosched()
	}
	_, err := client.RoundTrip(request(t, t.Context(), http.MethodDelete, ""), time.Time{})
	if err == nil || !strings.HasPrefix(err.Error(), "no: x") {
		t.Errorf("got error %.100v, want the callee's", err)
	}
}

func TestAfterItsEndABodyKeepsToWhatItSaid(t *testing.T) {
	for name, handle := range map[string]func(*incoming){
		"whole": func(c *incoming) { whole(c, "content") },
		"in parts": func(c *incoming) {
			streamed(c, func(w io.Writer) error { io.WriteString(w, "content"); return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, pair, handle)
			ctx, cancel := context.WithCancelCause(t.Context())
			resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			io.ReadAll(resp.Body)
			cancel(errOver)
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("got %d, %v after the end, want %v", n, err, io.EOF)
			}
			for range 2 {
				if err := resp.Body.Close(); err != nil {
					t.Errorf("got error %v of Close", err)
				}
			}
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Errorf("got %d, %v after Close, want %v", n, err, http.ErrBodyReadAfterClose)
			}
		})
	}
}

func TestReadingEndsWithTheContext(t *testing.T) {
	for name, handle := range map[string]func(*incoming){
		"whole":    func(c *incoming) { whole(c, "content") },
		"in parts": func(c *incoming) { streamed(c, endless) },
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, pair, handle)
			ctx, cancel := context.WithCancelCause(t.Context())
			resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			io.ReadFull(resp.Body, make([]byte, 3))
			cancel(errOver)
			for err == nil {
				_, err = resp.Body.Read(make([]byte, 1))
			}
			if !errors.Is(err, errOver) {
				t.Errorf("got error %v, want the context's cause", err)
			}
		})
	}
}

// endless writes until nobody reads.
func endless(w io.Writer) error {
	for p := make([]byte, 10_000); ; {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
}

// counting is an endless body that counts what was read of it.
type counting struct{ read, most atomic.Int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.read.Add(int64(len(p)))
	c.most.Store(max(c.most.Load(), int64(len(p))))
	return len(p), nil
}

func (c *counting) Close() error { return nil }

func TestABodyThatNobodyReadsIsBoundedAndDoesNotHoldUpOthers(t *testing.T) {
	const window = 256 << 10
	left := make(chan struct{})
	var body counting
	client, n := serve(t, pair, func(c *incoming) {
		if c.Request.Method == http.MethodGet {
			whole(c, "answer")
			return
		}
		c.OnGone(func() { close(left) })
		resp := response()
		resp.ContentLength, resp.Body = -1, &body
		c.Answer(resp, nil, false, nil)
	})
	resp, err := client.RoundTrip(request(t, t.Context(), http.MethodPost, ""), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if got := get(t, client); got != "answer" {
			t.Errorf("got %q", got)
		}
	}
	if got := body.read.Load(); got > window {
		t.Errorf("%d bytes were sent that nobody reads, want at most %d", got, window)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 10*window)); err != nil {
		t.Errorf("got error %v", err)
	}
	if got := body.read.Load(); got < 10*window || got > 11*window {
		t.Errorf("%d bytes were sent of which %d were read", got, 10*window)
	}
	resp.Body.Close()
	<-left
	if got := n.dials(); got != 1 {
		t.Errorf("dialled %d times, want once", got)
	}
}

// bits is a body that gives much at once, and then comes bit by bit.
type bits struct {
	much   int
	asked  chan int // for how much each Read is
	more   chan struct{}
	closed chan struct{}
}

func (b *bits) Read(p []byte) (int, error) {
	b.asked <- len(p)
	if b.much > 0 {
		b.much -= len(p)
		return len(p), nil
	}
	if _, ok := <-b.more; !ok {
		return 0, io.EOF
	}
	return 1, nil
}

func (b *bits) Close() error {
	close(b.closed)
	return nil
}

// TestAnAnswerThatComesBitByBitTakesLittleMemory has much come of it before.
func TestAnAnswerThatComesBitByBitTakesLittleMemory(t *testing.T) {
	body := &bits{much: 100 << 10, asked: make(chan int, 100), more: make(chan struct{}), closed: make(chan struct{})}
	client, _ := serve(t, pair, func(c *incoming) {
		resp := response()
		resp.Body, resp.ContentLength = body, -1
		c.Answer(resp, nil, false, nil)
	})
	resp, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		read <- err
	}()
	body.more <- struct{}{} // by then it has asked for that
	body.more <- struct{}{}
	close(body.more)
	if err := errors.Join(<-read, resp.Body.Close()); err != nil {
		t.Error(err)
	}
	<-body.closed
	close(body.asked)
	var most, last int
	for n := range body.asked {
		most, last = max(most, n), n
	}
	if most < 60<<10 || last > 4<<10 {
		t.Errorf("it was asked for up to %d bytes at once, and at last for %d", most, last)
	}
}

// TestTheBodyOfAnAnswerIsClosed has one that is sent whole: what it has lent is another call's then.
func TestTheBodyOfAnAnswerIsClosed(t *testing.T) {
	body := &bits{closed: make(chan struct{})}
	client, _ := serve(t, pair, func(c *incoming) {
		resp := response()
		resp.Body, resp.ContentLength = body, 6
		c.Answer(resp, []byte("answer"), true, nil)
	})
	if got := get(t, client); got != "answer" {
		t.Errorf("got %q", got)
	}
	<-body.closed
}
