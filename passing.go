package watt

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/rewind"
	"github.com/org/watt/internal/roundtrip"
)

// Headers of a request that a sibling has handed over, and of its answer. They are believed on its connections only.
const (
	headerCaller = "X-Watt-Caller" // the app that has made it, if one has
	headerRemote = "X-Watt-Remote" // the address that it came from
	headerWaited = "X-Watt-Waited" // the microseconds since it has arrived
	headerAsks   = "X-Watt-Asks"   // the status by which the sibling wants to hear that it is admitted; the client does not
	headerTarget = "X-Watt-Target" // what was requested, if that is an absolute URL
	headerNoHost = "X-Watt-Nohost" // the request names no host
	headerLast   = "X-Watt-Last"   // of an answer after which the client's connection is to be closed
)

// handedHeaders are those of a request.
func handedHeaders() []string {
	return []string{headerCaller, headerRemote, headerWaited, headerAsks, headerTarget, headerNoHost}
}

// shownBeats is how many beats of a sibling the page may take to show a request that was handed over. It is not a time:
// one that is stopped, or gets no processor, shows nothing, and must not be handed more and more.
const shownBeats = 2

// passing is a request that a sibling serves, and the writer of its answer.
type passing struct {
	http.ResponseWriter
	door    *door
	to      *neighbour
	request *request
	body    *rewind.Body
	whole   io.ReadCloser // the body once more, if the sibling has not begun
	begun   bool          // the sibling has said that it has admitted the request
	last    bool          // the connection ends with the answer
	asking  []string      // Proxy-Authenticate of the answer, which a proxy would keep to itself
	unshown atomic.Bool   // counts as one that the sibling is about to have
}

// pass has a sibling serve the request. It reports false, and the request is as it was, if that has not begun.
func (d *door) pass(to *neighbour, w http.ResponseWriter, r *http.Request, q *request) bool {
	x := &passing{ResponseWriter: w, door: d, to: to, request: q, body: rewind.New(r.Body)}
	x.unshown.Store(true)
	defer x.shown()
	defer x.awaitShown().Stop()
	if !d.app.passes.join(q) {
		return false
	}
	defer func() {
		d.app.passes.remove(q)
		if x.whole == nil {
			x.end()
		}
	}()
	_ = q.answer.EnableFullDuplex() // as the handler may have it there
	x.proxy().ServeHTTP(x, r)
	if x.whole != nil {
		r.Body = x.whole
		q.intake.halfDuplex()
	}
	return x.whole == nil
}

// shown is called once the page shows the request, or does not any more.
func (x *passing) shown() {
	if x.unshown.CompareAndSwap(true, false) {
		x.to.handed.Add(-1)
	}
}

// awaitShown returns a timer that calls shown when the sibling has run for long enough.
func (x *passing) awaitShown() *time.Timer {
	const never, pause = math.MaxInt64, shownBeats * beatEvery
	began := x.to.slot.Beat.Load()
	var timer *time.Timer
	timer = time.AfterFunc(never, func() {
		beats := x.to.slot.Beat.Load() - began
		if beats >= 0 && beats < shownBeats && x.unshown.Load() { // a new process begins at 0
			timer.Reset(pause)
			return
		}
		x.shown()
	})
	timer.Reset(pause) // once the function can see the timer
	return timer
}

// end ends a request that the sibling has begun.
func (x *passing) end() {
	x.door.app.tallies.instance(x.door.app.first).HandedOver.Add(1)
	if x.body.Open() { // the answer has said that the connection ends
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now())
		x.body.End()
	}
	x.request.end()
}

func (x *passing) proxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		FlushInterval:  -1,
		Transport:      x,
		ErrorLog:       zap.NewStdLog(x.door.app.log),
		Rewrite:        x.rewrite,
		ModifyResponse: x.answered,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { x.failed(err) },
	}
}

// RoundTrip implements [http.RoundTripper].
func (x *passing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := x.to.RoundTrip(req)
	if err == nil {
		x.asking = resp.Header["Proxy-Authenticate"]
		if resp.StatusCode == http.StatusSwitchingProtocols { // nobody has asked for that: ReverseProxy forgets it
			_ = resp.Body.Close()
		}
	}
	return resp, err
}

// RoundTrip implements [http.RoundTripper]: the request is the sibling's, or was refused at its door.
func (n *neighbour) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.pool.RoundTrip(req, time.Time{}, nil)
	if err != nil && lost(err) {
		n.slot.Doubt()
	}
	return orRefusal(resp, err)
}

// rewrite makes the request what the sibling is sent: as it is, and from whom.
func (x *passing) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	host := x.door.app.name + suffix
	out.URL = &url.URL{Scheme: "http", Host: host, Path: in.URL.Path, RawPath: in.URL.RawPath, ForceQuery: in.URL.ForceQuery, RawQuery: in.URL.RawQuery}
	out.Host = in.Host
	for _, name := range handedHeaders() {
		delete(out.Header, name)
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Proxy-Authorization"} {
		if v := in.Header[name]; v != nil {
			out.Header[name] = v
		}
	}
	if in.URL.Host != "" {
		out.Header.Set(headerTarget, in.RequestURI)
	}
	if in.Host == "" {
		out.Header.Set(headerNoHost, "1")
	}
	out.Header.Set(headerCaller, x.request.peer.caller)
	out.Header.Set(headerRemote, in.RemoteAddr)
	out.Header.Set(headerWaited, strconv.FormatInt(time.Since(x.request.arrived).Microseconds(), 10))
	setRemaining(out.Header, x.request.deadline)
	out.Header.Set(headerAsks, strconv.Itoa(http.StatusProcessing))
	if !roundtrip.HasBody(out) {
		return
	}
	out.Body, out.GetBody = x.body.Restart(), x.body.Again
	out.Trailer = in.Trailer        // which is filled when the body has been read
	if in.Header["Expect"] == nil { // so that a sibling that does not come to it has read nothing of it
		out.Header.Set("Expect", "100-continue")
		out.Header.Set(headerAsks, strconv.Itoa(http.StatusContinue))
	}
}

// accepted makes a request that was handed over what it was.
func (p *peer) accepted(r *http.Request) *peer {
	own := &peer{caller: first(r.Header, headerCaller), handed: true}
	if from := first(r.Header, headerRemote); from != "" {
		r.RemoteAddr = from
	}
	waited, _ := strconv.ParseInt(first(r.Header, headerWaited), 10, 64)
	own.waited = time.Duration(max(0, waited)) * time.Microsecond
	if own.asks, _ = strconv.Atoi(first(r.Header, headerAsks)); own.asks == http.StatusContinue {
		delete(r.Header, "Expect") // which is not the client's
	}
	if target := first(r.Header, headerTarget); target != "" {
		if u, err := url.ParseRequestURI(target); err == nil {
			r.URL, r.RequestURI = u, target
		}
	}
	if r.Header[headerNoHost] != nil {
		r.Host = ""
	}
	for _, name := range handedHeaders() {
		delete(r.Header, name)
	}
	return own
}

// answered is called when the head of the answer has come.
func (x *passing) answered(resp *http.Response) error {
	x.shown()
	x.last = x.last || resp.Header[headerLast] != nil
	delete(resp.Header, headerLast)
	if x.asking != nil {
		resp.Header["Proxy-Authenticate"] = x.asking
	}
	for _, name := range []string{"Content-Type", "Date"} {
		if resp.Header[name] == nil {
			x.Header()[name] = nil // the handler wants none: the server must not add one
		}
	}
	if isEventStream(resp.Header) {
		x.request.hijacked() // it has its seat there, and ends with this instance
		resp.Body = &stream{resp.Body, x.request}
	}
	return nil
}

// stream is the body of an answer without end. It is whole when this instance ends it.
type stream struct {
	io.ReadCloser
	request *request
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && errors.Is(s.request.reason(), errDraining) {
		err = io.EOF
	}
	return n, err
}

// WriteHeader sends the status, and that the connection is of no more use where the body has not come to its end.
// What the sibling says first is that it has admitted the request. That a client may go on is for the server of its
// connection to say.
func (x *passing) WriteHeader(status int) {
	x.request.stopTimer() // the sibling keeps its time
	if !x.begun && status < http.StatusOK || status == http.StatusContinue {
		x.begun = true
		return
	}
	if status >= http.StatusOK && (x.last || x.body.Open() || x.request.peer.lameDuck()) {
		x.Header().Set("Connection", "close")
	}
	x.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (x *passing) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// untouched reports whether the sibling has not begun the request: one that has ended would have said so.
func (x *passing) untouched(err error) bool { return untouched(err) || lost(err) && !x.begun }

// failed answers a request that the sibling has not served, unless it has not begun to.
func (x *passing) failed(err error) {
	call, known := errors.AsType[*CallError](err)
	refused := x.untouched(err)
	if refused {
		if x.whole = x.body.Restart(); x.whole != nil {
			return
		}
	}
	if errors.Is(err, errAborted) {
		panic(http.ErrAbortHandler) // as it did there
	}
	x.body.Leave()
	if refused || known && !call.Started {
		if !known {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		x.door.refuse(x, x.request.peer, err)
		return
	}
	if x.request.reason() == nil {
		if bodyFailed(err) { // the client has failed it
			err = &CallError{Status: http.StatusBadRequest, Started: true, Err: err}
		} else {
			x.door.app.log.Warn("a sibling has failed a request that was handed over", zap.Error(err))
		}
	}
	x.request.peer.sayLate(x.Header(), err)
	err = x.failure(err)
	x.request.peer.sayDied(x.Header(), err)
	WriteError(x, err)
}

// failure explains why a sibling has not served what it has begun to.
func (x *passing) failure(err error) error {
	if lost(err) {
		err = fmt.Errorf("%w: %w", ErrInstanceDied, err)
	}
	if call, known := errors.AsType[*CallError](err); known {
		return call
	}
	return &CallError{App: x.door.app.name, Started: true, Err: err}
}
