package watt_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// announced is the head of a request whose body of 1000 bytes does not come by itself.
const announced = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"

// says answers with so many bytes, without a look at the request.
func says(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("a", n)) }
}

// answerOn returns the next answer on conn and the time that it took, body included.
func answerOn(t *testing.T, in *bufio.Reader) (*http.Response, string, time.Duration) {
	t.Helper()
	began := time.Now()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Errorf("after %v: %v", time.Since(began), err)
		return &http.Response{}, "", time.Since(began)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("after %d bytes: %v", len(body), err)
	}
	return resp, string(body), time.Since(began)
}

func TestASilentBodyThatIsNotReadDelaysItsAnswerByASecondAtMost(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"short":   says(10),
		"as much as is held back": func(w http.ResponseWriter, _ *http.Request) {
			says(1000)(w, nil)
			w.Write(make([]byte, 1048))
		},
		"more":   says(2049),
		"copied": func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, io.LimitReader(endless{}, 9000)) },
		"flushed": func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			says(10)(w, r)
		},
		"events": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
		},
		"closed":  func(_ http.ResponseWriter, r *http.Request) { r.Body.Close() },
		"a panic": func(http.ResponseWriter, *http.Request) { panic("on purpose") },
		"full duplex": func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			says(9000)(w, r)
		},
		"left to a reader": func(_ http.ResponseWriter, r *http.Request) { go readAll(nil, r) },
		"out of time":      http.TimeoutHandler(http.HandlerFunc(readAll), 100*time.Millisecond, "late").ServeHTTP,
		"unavailable":      nil,
	} {
		t.Run(name, func(t *testing.T) { wantSoon(t, h, false) })
		t.Run(name+", over the mesh", func(t *testing.T) { wantSoon(t, h, true) })
	}
}

func TestInDuplexASilentBodyDelaysTheAnswersEndByAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := bubble(t, public(app("web", func(w http.ResponseWriter, _ *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.WriteString(w, "hello")
			http.NewResponseController(w).Flush()
		})))
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, announced)
		_, body, took := answerOn(t, bufio.NewReader(conn))
		if body != "hello" {
			t.Errorf("got %q", body)
		}
		wantTook(t, took, 50*time.Millisecond)
	})
}

// wantSoon fails the test unless h answers a request whose body does not come, and the connection ends. If h is nil
// the request is shed.
func wantSoon(t *testing.T, h http.HandlerFunc, mesh bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		web := public(watt.App{Name: "web", Handler: h, Workers: 1, Queue: -1})
		if h == nil {
			web.Handler = http.HandlerFunc(work)
		}
		rt, dial := bubble(t, web)
		if h == nil { // none is free
			going(t.Context(), rt, "web.watt.local/20s")
			synctest.Wait()
		}
		conn := dial()
		if mesh {
			conn.Close()
			var err error
			if conn, err = rt.Env().Dial(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		}
		defer conn.Close()
		io.WriteString(conn, announced)
		resp, _, took := answerOn(t, bufio.NewReader(conn))
		if took > 1100*time.Millisecond {
			t.Errorf("got %s after %v", resp.Status, took)
		}
		if s := statusOf(t, rt, "web"); s.Busy != 0 && h != nil {
			t.Errorf("%d workers are busy", s.Busy)
		}
		io.WriteString(conn, strings.Repeat("x", 1000)+"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if rest, _ := io.ReadAll(conn); len(rest) > 0 {
			t.Errorf("the connection was used again: %q", rest)
		}
		time.Sleep(time.Minute) // whatever runs ends
	})
}

func TestALongBodyThatIsNotReadDelaysNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := bubble(t, public(app("web", says(10))))
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 262144\r\n\r\n")
		_, _, took := answerOn(t, bufio.NewReader(conn))
		wantTook(t, took, 0)
	})
}

func TestAnAnswerThatIsCutDoesNotWaitForItsRequestsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := bubble(t, public(app("web", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })))
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, announced)
		began := time.Now()
		if got, err := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
		wantTook(t, time.Since(began), 0)
	})
}

func TestAnUnreadBodyThatHasComeKeepsItsConnection(t *testing.T) {
	for name, body := range map[string]string{
		"a length": "Content-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000),
		"chunks":   "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	} {
		for _, size := range []int{10, 9000} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, dial := bubble(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/decoded" {
							json.NewDecoder(r.Body).Decode(new(struct{}))
						}
						says(size)(w, r)
						time.Sleep(5 * time.Second)
						if err := r.Context().Err(); err != nil {
							t.Errorf("the context has ended: %v", err)
						}
					})))
					conn := dial()
					defer conn.Close()
					in := bufio.NewReader(conn)
					for _, path := range []string{"/", "/decoded", "/"} {
						go io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\n"+body)
						if resp, got, _ := answerOn(t, in); resp.Close || len(got) != size {
							t.Errorf("got %s and %d bytes, closed after it: %t", resp.Status, len(got), resp.Close)
						}
					}
				})
			})
		}
	}
}

func TestASlowBodyMayBeReadAfterTheStatusWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := bubble(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, "got ")
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err)
		})))
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, announced)
		go func() {
			for range 10 {
				time.Sleep(time.Second)
				io.WriteString(conn, strings.Repeat("x", 100))
			}
		}()
		if resp, got, _ := answerOn(t, bufio.NewReader(conn)); got != "got 1000 <nil>" || resp.Close {
			t.Errorf("got %s, %q", resp.Status, got)
		}
	})
}

func TestAnAnswerGoesOnWithoutItsRequestsBodyUntilTheClientGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 20 * time.Second
		ended := make(chan time.Time, 1)
		_, dial := bubble(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				says(9000)(w, r)
				select {
				case <-time.After(pause):
				case <-r.Context().Done():
				}
			}
			ended <- time.Now()
		})))
		conn := dial()
		io.WriteString(conn, announced)
		began := time.Now()
		if _, err := io.CopyN(io.Discard, conn, 5*9000); err != nil {
			t.Error(err)
		}
		conn.Close()
		if took := (<-ended).Sub(began); took < 4*pause || took > 7*pause {
			t.Errorf("the context ended after %v", took)
		}
	})
}

func TestWhatIsTooLargeIsToldWhileTheClientSends(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"by WriteError": http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				watt.WriteError(w, err)
			}
		}), 100),
		"by its length": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no", http.StatusRequestEntityTooLarge)
		}),
		"in duplex": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			http.Error(w, "no", http.StatusRequestEntityTooLarge)
			http.NewResponseController(w).Flush()
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, dial := bubble(t, public(watt.App{Name: "web", Handler: h}))
				conn := dial()
				defer conn.Close()
				io.WriteString(conn, announced+strings.Repeat("x", 500))
				resp, _, took := answerOn(t, bufio.NewReader(conn))
				if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
					t.Errorf("got %s, closed after it: %t", resp.Status, resp.Close)
				}
				wantTook(t, took, 0)
			})
		})
	}
}

func TestAClientThatGoesOnSendingGetsItsAnswer(t *testing.T) { // and not a connection that was reset
	rt := start(t, public(app("web", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })))
	for range 20 {
		conn := dialTCP(t, publicAddr(t, rt, "web"))
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		go io.Copy(conn, endless{})
		if resp, _, _ := answerOn(t, bufio.NewReader(conn)); resp.StatusCode != http.StatusForbidden {
			t.Errorf("got %s", resp.Status)
		}
		conn.Close()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestTheRestOfABodyIsNotTakenForItsEnd(t *testing.T) {
	read := make(chan error, 1)
	rt := start(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
		says(9000)(w, r)
		_, err := io.ReadAll(r.Body)
		read <- err
	})))
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	io.WriteString(conn, announced+strings.Repeat("x", 1000))
	if err := within(t, read, "the end of the body"); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("got %v, want %v", err, http.ErrBodyReadAfterClose)
	}
}

func TestABodyThatNobodyReadsIsNotAskedFor(t *testing.T) {
	rt := start(t, public(app("web", says(9000))))
	got := raw(t, publicAddr(t, rt, "web"), "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("got %.200q", got)
	}
}

func TestAHijackedConnectionIsLeftAlone(t *testing.T) {
	rt := start(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		r.Body.Close()
		go func() {
			defer conn.Close()
			io.CopyN(conn, conn, 5)
		}()
	})))
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	io.WriteString(conn, announced)
	soon(t, "the end of the handler", func() bool { s := statusOf(t, rt, "web"); return s.Busy == 0 && s.Conns == 1 })
	io.WriteString(conn, "hello")
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestNothingIsHeldForGoodByASilentBody has handlers do what made the server wait for the body, or miss the client's end.
func TestNothingIsHeldForGoodByASilentBody(t *testing.T) {
	upgrade := "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1000\r\n\r\n"
	old := "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 1000\r\n\r\n"
	waits := func(kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}
	takes := func(first bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			if first {
				w.WriteHeader(http.StatusSwitchingProtocols)
			}
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		request string
	}{
		"a stream whose client goes":       {waits("text/event-stream"), announced},
		"an answer whose client goes":      {waits("text/plain"), announced},
		"a hijack":                         {takes(false), upgrade},
		"a hijack behind the head":         {takes(true), upgrade},
		"HTTP/1.0, kept by the handler":    {keeps(9000), old},
		"HTTP/1.0, kept by a short answer": {keeps(10), old},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt, dial := bubble(t, public(watt.App{Name: "web", Handler: test.handler, Workers: 1, MaxConns: 1, Timeout: 5 * time.Second}))
				conn := dial()
				io.WriteString(conn, test.request)
				http.ReadResponse(bufio.NewReader(conn), nil)
				conn.Close()
				time.Sleep(time.Minute)
				if s := statusOf(t, rt, "web"); s.Busy != 0 || s.Conns != 0 || s.PublicConns != 0 {
					t.Errorf("a minute after the client has gone: busy %d, conns %d, public conns %d", s.Busy, s.Conns, s.PublicConns)
				}
			})
		})
	}
}

// keeps answers with so many bytes, and promises the connection to a client of HTTP/1.0.
func keeps(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "keep-alive")
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.WriteHeader(http.StatusOK)
		says(n)(w, r)
	}
}

func TestTrailersOfAnUnreadBodyAreCleanedToo(t *testing.T) {
	got := make(chan http.Header, 1)
	rt := start(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
		says(9000)(w, r)
		got <- r.Trailer.Clone()
	})))
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"+
		"X-Sum: 7\r\nX-Watt-Caller: admin\r\nTraceparent: evil\r\n\r\n")
	h := within(t, got, "the trailers")
	if h.Get("X-Sum") != "7" || h.Get("X-Watt-Caller") != "" || h.Get("Traceparent") != "" {
		t.Errorf("got %v", h)
	}
}

// What a proxy reads while it answers may end just when the rest is to be read for the answer's sake.
func TestTrailersBelongToWhoHasReadTheBodyToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "web", Listen: "web:1", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, r.Body)
				r.Trailer.Del("Sum")
				read <- err
			}()
			synctest.Wait()
			w.(http.Flusher).Flush()
			if err := <-read; err != nil {
				t.Error(err)
			}
		})})
		client := listening(t, rt, newDiary(), "web:1")["web:1"]
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		req := request(t.Context(), http.MethodPost, "http://web:1/", r)
		req.Trailer = http.Header{"Sum": {"7"}}
		go func() {
			_, _ = io.WriteString(w, "some")
			time.Sleep(time.Millisecond) // until the answer waits for the rest
			_ = w.Close()
		}()
		resp, err := client.Do(req)
		read(t, resp, err)
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Whoever still reads the body of a request whose handler has returned, as a proxy may, only sees that it is over.
func TestWhoReadsOnDoesNotLookAtTheTrailersThatTheServerReads(t *testing.T) {
	rt := start(t, public(app("web", func(_ http.ResponseWriter, r *http.Request) {
		_ = r.Body.Close()
		began := make(chan bool)
		go func() {
			close(began)
			_, _ = r.Body.Read(make([]byte, 1))
		}()
		<-began
	})))
	for range 100 {
		conn := dialTCP(t, publicAddr(t, rt, "web"))
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSum: 7\r\n\r\n")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesOfAFormEndWithTheirRequest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	rt := start(t, public(app("web", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 10); err != nil {
			t.Error(err)
		}
		if files, _ := os.ReadDir(dir); len(files) != 1 {
			t.Errorf("got the files %v", files)
		}
	})))
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, err := m.CreateFormFile("file", "name")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(make([]byte, 12<<20))
	m.Close()
	for _, host := range []string{publicAddr(t, rt, "web"), "web.watt.local"} {
		resp, err := rt.Env().Client.Post("http://"+host, m.FormDataContentType(), bytes.NewReader(form.Bytes()))
		read(t, resp, err)
		soon(t, "the end of the file", func() bool { files, _ := os.ReadDir(dir); return len(files) == 0 })
	}
}

// Removing the files takes a while, in which the drain's time ends: after the answer has promised that the connection stays.
func TestARequestThatIsCutAfterItsAnswerTakesTheConnectionWithIt(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("GODEBUG", "multipartfiles=distinct")
	began := make(chan struct{})
	web := public(app("web", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if err := r.ParseMultipartForm(1); err != nil {
				t.Error(err)
			}
			close(began)
		}
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
	}))
	web.DrainTimeout = 3 * time.Millisecond
	rt := start(t, web)
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	for range 900 {
		part, err := m.CreateFormFile("file", "name")
		if err != nil {
			t.Fatal(err)
		}
		part.Write([]byte("content"))
	}
	m.Close()
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", m.FormDataContentType(), form.Len(), &form)
	<-began
	_ = rt.Drain("web", 0) // which says what was cut
	if err := rt.Restart("web", 0); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	if _, err := http.ReadResponse(answers, nil); err != nil {
		return // cut before the answer
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err := http.ReadResponse(answers, nil); err == nil && resp.StatusCode != http.StatusOK {
		t.Errorf("the next request got %d", resp.StatusCode)
	}
}
