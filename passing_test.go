//go:build linux

package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// addTold adds what tells how a request has arrived, or needs more of its connection than others.
func addTold(mux *http.ServeMux, env *watt.Env) {
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		deadline, _ := r.Context().Deadline()
		by, _ := watt.AnswerBy(r.Context())
		fmt.Fprintf(w, "%d caller=%s remote=%s query=%s body=%d sum=%s deadline=%d by=%d headers=%v", env.Instance, watt.Caller(r.Context()),
			r.RemoteAddr, r.URL.RawQuery, n, r.Trailer.Get("X-Sum"), deadline.UnixNano(), by.UnixNano(), r.Header)
	})
	mux.HandleFunc("/odd", func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"], h["Date"], h["Proxy-Authenticate"] = nil, nil, []string{"Basic"}
		fmt.Fprintf(w, "<html>%d host=%q target=%s url=%s key=%s", env.Instance, r.Host, r.RequestURI, r.URL, r.Header.Get("Proxy-Authorization"))
	})
	mux.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		http.NewResponseController(w).Flush()
		io.Copy(flushing{w}, r.Body)
	})
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/last", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	mux.HandleFunc("/half", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "half")
		if r.URL.RawQuery == "" {
			panic(http.ErrAbortHandler)
		}
		panic("of the handler")
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "%d\n", env.Instance)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

// busyFirst starts a pair whose first instance is busy until a byte is sent on the connection that is returned, and
// returns others to that instance: what comes on them is handed to the second.
func busyFirst(t *testing.T, rt *watt.Runtime, n int) (top *watttest.Topology, busy net.Conn, others []net.Conn) {
	t.Helper()
	top = watttest.Start(t, rt)
	for range n {
		others = append(others, dialPair(t, top, "0"))
	}
	busy = dialPair(t, top, "0")
	reading(t, busy)
	soon(t, "the first to be busy", busyAndQueued(t, rt, 1, 0))
	return top, busy, others
}

func busyAndQueued(t *testing.T, rt *watt.Runtime, busy, queued int) func() bool {
	t.Helper()
	return func() bool { s := statusOf(t, rt, "pair"); return s.Busy == busy && s.Queued == queued }
}

func TestAHandedOverRequestStreamsBothWays(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 1)
	conn := conns[0]
	fmt.Fprint(conn, "POST /copy HTTP/1.1\r\nHost: pair\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, said); err != nil || string(said) != "one" {
		t.Errorf("got %q, %v before the next was sent", said, err)
	}
	fmt.Fprint(conn, "3\r\ntwo\r\n0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestTimeoutHoldsWhileTheBodyOfWhatWasHandedOverStalls(t *testing.T) {
	_, _, conns := busyFirst(t, brisk(), 1)
	reading(t, conns[0])
	answer, err := io.ReadAll(conns[0]) // until the connection is closed
	if err != nil || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
		t.Errorf("got %q, %v", answer, err)
	}
}

// bothBusy starts a pair of which both instances are busy, until a byte is sent on one of the first two connections
// that are returned, and has a request wait at the first, on the third.
func bothBusy(t *testing.T, rt *watt.Runtime, request string) (first, second, waiting net.Conn) {
	t.Helper()
	top, first, conns := busyFirst(t, rt, 1)
	second = dialPair(t, top, "1")
	reading(t, second)
	soon(t, "both to be busy", busyAndQueued(t, rt, 2, 0))
	fmt.Fprint(conns[0], request)
	soon(t, "the third to wait", busyAndQueued(t, rt, 2, 1))
	return first, second, conns[0]
}

func TestAHandedOverRequestIsWhatItWas(t *testing.T) {
	rt := pair()
	_, second, conn := bothBusy(t, rt, "POST /told?a=1;b=%zz HTTP/1.1\r\nHost: pair\r\nX-Own: mine\r\nX-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n"+
		"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
	waits := time.Now()
	soon(t, "it to have waited", func() bool { return time.Since(waits) > 200*time.Millisecond })
	moves := time.Now()
	fmt.Fprint(second, "x")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	got := read(t, resp, err)
	want := fmt.Sprintf("1 caller= remote=%s query=a=1;b=%%zz body=3 sum=7 deadline=%d by=", conn.LocalAddr(), time.Time{}.UnixNano())
	if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " headers=map[Forwarded:[for=9.9.9.9] X-Forwarded-For:[9.9.9.9] X-Own:[mine]]") {
		t.Errorf("got %q, want %q", got, want)
	}
	var by int64
	fmt.Sscan(got[len(want):], &by)
	if by > moves.Add(30*time.Second).UnixNano() {
		t.Error("Timeout counts from when it was handed over, not from its arrival")
	}
}

func TestWhatIsOddOfARequestAndItsAnswerIsHandedOver(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 5)
	for i, c := range []struct{ target, host, want string }{
		{"http://a.example/odd?x=1", "pair", `host="a.example" target=http://a.example/odd?x=1 url=http://a.example/odd?x=1 key=k`},
		{"/odd", "", `host="" target=/odd url=/odd key=k`},
		{"/odd", "pair", `host="pair" target=/odd url=/odd key=k`},
		{"/odd?", "pair", `host="pair" target=/odd? url=/odd? key=k`},
		{"/o%64d", "pair", `host="pair" target=/o%64d url=/o%64d key=k`},
	} {
		fmt.Fprintf(conns[i], "GET %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: k\r\n\r\n", c.target, c.host)
		resp, err := http.ReadResponse(bufio.NewReader(conns[i]), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, resp, nil), "<html>1 "+c.want; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if h := resp.Header; h["Content-Type"] != nil || h["Date"] != nil || h.Get("Proxy-Authenticate") != "Basic" {
			t.Errorf("got headers %v", h)
		}
	}
}

// handCall has a call of the clerk's wait at the first instance of a pair, and then handed to the second.
func handCall(ctx context.Context, t *testing.T, rt *watt.Runtime, path string) (<-chan result, net.Conn) {
	t.Helper()
	top := watttest.Start(t, rt)
	first, second, third := dialPair(t, top, "0"), dialPair(t, top, "1"), dialPair(t, top, "1")
	reading(t, first)
	soon(t, "one to be busy", busyAndQueued(t, rt, 1, 0))
	reading(t, second)
	soon(t, "both to be busy", busyAndQueued(t, rt, 2, 0))
	reading(t, third)
	soon(t, "the second to have more to do", busyAndQueued(t, rt, 2, 1))
	call := going(ctx, rt, "clerk.watt.local"+path)
	soon(t, "the call to wait at the first", busyAndQueued(t, rt, 2, 2))
	for _, conn := range []net.Conn{second, third} {
		fmt.Fprint(conn, "x")
		answered(t, conn)
	}
	return call, first
}

func TestAHandedOverCallKeepsItsCallerAndItsDeadline(t *testing.T) {
	rt := pair()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	call, _ := handCall(ctx, t, rt, "/told")
	r := within(t, call, "the answer")
	var left int64
	_, text, _ := strings.Cut(r.body, " deadline=")
	fmt.Sscan(text, &left)
	deadline, _ := ctx.Deadline()
	if !strings.HasPrefix(r.body, "1 caller=clerk remote=clerk.watt.local:80 ") || strings.Contains(r.body, "X-Watt-") ||
		time.Unix(0, left).Sub(deadline).Abs() > time.Second {
		t.Errorf("got %+v", r)
	}
}

func TestAnInstanceThatIsRestartedWaitsForWhatItHasHandedOver(t *testing.T) {
	rt := pair()
	call, first := handCall(t.Context(), t, rt, "/hold")
	soon(t, "the call to be at the second", func() bool { return statusOf(t, rt, "pair").PerInstance[1].Busy == 1 })
	fmt.Fprint(first, "x")
	answered(t, first)
	restarted := make(chan error, 1)
	go func() { restarted <- rt.Restart("pair", 0) }()
	select {
	case err := <-restarted:
		t.Errorf("restarted while a call was in progress by way of it: %v", err)
	case r := <-call:
		t.Errorf("the call was cut: %+v", r)
	case <-time.After(1500 * time.Millisecond): // more than what is cut may take
		get(t.Context(), rt, "gate.watt.local/open")
		if err := within(t, restarted, "the restart"); err != nil {
			t.Error(err)
		}
		if r := within(t, call, "the call"); r.status != http.StatusOK || !strings.HasSuffix(r.body, " 1") {
			t.Errorf("got %+v", r)
		}
	}
}

func TestAnInstanceThatDrainsTellsClientsToGoByAnswersOfSiblings(t *testing.T) {
	rt := pair()
	_, busy, conns := busyFirst(t, rt, 1)
	restarted := make(chan error, 1)
	go func() { restarted <- rt.Restart("pair", 0) }()
	soon(t, "an answer that says so", func() bool {
		fmt.Fprint(conns[0], "GET /who HTTP/1.1\r\nHost: pair\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
		if body := read(t, resp, err); !strings.HasSuffix(body, " 1") {
			t.Fatalf("got %q", body)
		}
		return resp.Close
	})
	fmt.Fprint(busy, "x")
	if err := within(t, restarted, "the restart"); err != nil {
		t.Error(err)
	}
}

func TestAShutdownTellsClientsOfInstancesToGoBeforeThoseDrain(t *testing.T) {
	rt := pair()
	top := watttest.Start(t, rt)
	call := going(t.Context(), rt, "clerk.watt.local/hold") // whose caller drains first
	soon(t, "it to be in progress", busyAndQueued(t, rt, 1, 0))
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Shutdown(context.Background()) }()
	ask := func(path string) bool {
		conn := dialTCP(t, strings.TrimPrefix(top.URL("pair"), "http://"))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: pair\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		read(t, resp, err)
		return resp != nil && resp.Close
	}
	soon(t, "an answer that tells to go", func() bool { return ask("/who") })
	ask("/release")
	if r := within(t, call, "the end of the call"); r.status != http.StatusOK {
		t.Errorf("got %+v", r)
	}
	if err := within(t, stopped, "the shutdown"); err != nil {
		t.Error(err)
	}
}

func TestAHandedOverStreamLeavesItsInstanceFreeAndEndsWithTheFirst(t *testing.T) {
	rt := pair()
	_, busy, conns := busyFirst(t, rt, 2)
	fmt.Fprint(conns[0], "GET /events HTTP/1.1\r\nHost: pair\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	if line, err := events.ReadString('\n'); line != "1\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if got := words(t, conns[1], "/who"); got[1] != "1" {
		t.Errorf("got %q, want instance 1", got)
	}
	fmt.Fprint(busy, "x")
	if err := rt.Restart("pair", 0); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(events); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end of the stream", rest, err)
	}
}

func TestAHandedOverStreamIsNotWholeIfItsSiblingDies(t *testing.T) {
	rt := pair()
	_, busy, conns := busyFirst(t, rt, 1)
	fmt.Fprint(conns[0], "GET /events HTTP/1.1\r\nHost: pair\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sibling := statusOf(t, rt, "pair").PerInstance[1].PID
	syscall.Kill(sibling, syscall.SIGKILL)
	if rest, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want that it was cut", rest, err)
	}
	soon(t, "its end", func() bool { return statusOf(t, rt, "pair").PerInstance[1].PID != sibling })
	fmt.Fprint(busy, "x")
	answered(t, busy)
}

func TestAHandlerMayCutTheConnectionOfWhatWasHandedOver(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 1)
	fmt.Fprint(conns[0], "GET /abort HTTP/1.1\r\nHost: pair\r\n\r\n")
	if answer, err := io.ReadAll(conns[0]); len(answer) > 0 || err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %q, %v, want the connection closed", answer, err)
	}
}

func TestAHandlerMayEndTheConnectionOfWhatWasHandedOver(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 1)
	fmt.Fprint(conns[0], "GET /last HTTP/1.1\r\nHost: pair\r\n\r\n")
	answer, err := io.ReadAll(conns[0]) // until the connection is closed
	if err != nil || !strings.Contains(string(answer), "\r\nConnection: close\r\n") || strings.Contains(string(answer), "X-Watt-") {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestHalfAnAnswerToWhatWasHandedOverIsCut(t *testing.T) {
	rt := pair()
	_, _, conns := busyFirst(t, rt, 3)
	for i, path := range []string{"/half", "/half?panics"} {
		fmt.Fprintf(conns[i], "GET %s HTTP/1.1\r\nHost: pair\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conns[i]), nil)
		if err != nil { // nothing of it, as if it were not handed over
			continue
		}
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %s, %q, %v", path, resp.Status, body, err)
		}
	}
	if got := words(t, conns[2], "/who"); got[1] != "1" {
		t.Errorf("got %q: the sibling is taken for dead", got)
	}
}

func TestABodyThatASiblingDoesNotReadEndsTheConnectionAndTheAnswerSaysSo(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 1)
	fmt.Fprint(conns[0], "POST /who HTTP/1.1\r\nHost: pair\r\nContent-Length: 1000\r\n\r\n")
	in := bufio.NewReader(conns[0])
	resp, err := http.ReadResponse(in, nil)
	if body := read(t, resp, err); !strings.HasSuffix(body, " 1") || !resp.Close {
		t.Errorf("got %q, closed after it: %t", body, resp.Close)
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v after the answer", rest, err)
	}
}

func TestABodyThatBreaksOffIsNoFaultOfTheSibling(t *testing.T) {
	_, _, conns := busyFirst(t, pair(), 1)
	fmt.Fprint(conns[0], "POST /told HTTP/1.1\r\nHost: pair\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp, nil); resp.StatusCode != http.StatusBadRequest || !resp.Close {
		t.Errorf("got %s, %q, closed after it: %t", resp.Status, body, resp.Close)
	}
}

func TestWhoAsksBeforeTheBodyIsAnsweredByTheHandlerThatReadsIt(t *testing.T) {
	rt := pair()
	_, _, conns := busyFirst(t, rt, 2)
	for i, c := range []struct{ path, first string }{{"/read", "HTTP/1.1 100 Continue"}, {"/hold", "HTTP/1.1 200 OK"}} {
		fmt.Fprintf(conns[i], "POST %s HTTP/1.1\r\nHost: pair\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", c.path)
		if c.path == "/hold" { // and does not read it
			soon(t, "the handler to be called", func() bool { return statusOf(t, rt, "gate").Busy == 1 })
			get(t.Context(), rt, "gate.watt.local/open")
		}
		line, err := bufio.NewReader(conns[i]).ReadString('\n')
		if strings.TrimSpace(line) != c.first {
			t.Errorf("%s: got %q, %v, want %s", c.path, line, err, c.first)
		}
		fmt.Fprint(conns[i], "x")
	}
}

func TestARequestThatWouldBeRefusedIsHandedOver(t *testing.T) {
	rt := tight()
	_, _, conns := busyFirst(t, rt, 1)
	if got := words(t, conns[0], "/who"); got[1] != "1" {
		t.Errorf("got %q, want instance 1", got)
	}
	soon(t, "it to be counted", func() bool { return statusOf(t, rt, "pair").PerInstance[0].HandedOver == 1 })
}

func TestWhatNeedsItsConnectionWaitsWhereItIs(t *testing.T) {
	for name, header := range map[string]string{
		"another protocol": "Connection: Upgrade\r\nUpgrade: websocket",
		"gRPC":             "Content-Type: application/grpc",
	} {
		t.Run(name, func(t *testing.T) {
			rt := pair()
			_, busy, conns := busyFirst(t, rt, 2)
			fmt.Fprintf(conns[0], "GET /who HTTP/1.1\r\nHost: pair\r\n%s\r\n\r\n", header)
			soon(t, "it to wait", busyAndQueued(t, rt, 1, 1))
			if got := words(t, conns[1], "/who"); got[1] != "1" {
				t.Errorf("what needs none: got %q, want instance 1", got)
			}
			fmt.Fprint(busy, "x")
			if got := answered(t, conns[0]); got[1] != "0" {
				t.Errorf("got %q, want instance 0", got)
			}
		})
	}
}
