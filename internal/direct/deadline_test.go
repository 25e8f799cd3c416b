package direct_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// controlled runs handler in a bubble, with a request whose body does not come, and an answer that is not read
// before the handler has returned.
func controlled(t *testing.T, handler func(*http.ResponseController, http.ResponseWriter, *http.Request)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		req, body := post(t, r, -1)
		c := newCallee(func(w http.ResponseWriter, r *http.Request) { handler(http.NewResponseController(w), w, r) })
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		<-c.returned
		resp.Body.Close()
		body.closedOnce(t)
		w.Close()
	})
}

// wantTimeout fails the test unless err is a timeout, and came so long after start.
func wantTimeout(t *testing.T, err error, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || got != want {
		t.Errorf("got error %v after %v, want %v after %v", err, got, os.ErrDeadlineExceeded, want)
	}
}

func TestAReadDeadlineEndsTheReadingOfTheRequest(t *testing.T) {
	controlled(t, func(rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if err := rc.SetReadDeadline(start.Add(time.Second)); err != nil { // before there is a pipe
			t.Error(err)
		}
		_, err := io.Copy(io.Discard, r.Body)
		wantTimeout(t, err, start, time.Second)
		if err := rc.SetReadDeadline(start.Add(3 * time.Second)); err != nil { // and once there is
			t.Error(err)
		}
		_, err = io.Copy(io.Discard, r.Body)
		wantTimeout(t, err, start, 3*time.Second)
		_, err = r.Body.Read(make([]byte, 1))
		wantTimeout(t, err, start, 3*time.Second)
		if _, err := io.WriteString(w, text(10<<10)); err != nil {
			t.Errorf("got error %v from Write", err)
		}
	})
}

func TestAReadDeadlineEndsAReadInProgressAndCanBeLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		req, _ := post(t, r, -1)
		start := time.Now()
		c := newCallee(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			time.AfterFunc(time.Second, func() { rc.SetReadDeadline(time.Now()) })
			_, err := r.Body.Read(make([]byte, 1))
			wantTimeout(t, err, start, time.Second)
			rc.SetReadDeadline(time.Time{})
			echo(w, r)
		})
		go func() {
			time.Sleep(time.Hour)
			io.WriteString(w, "late")
			w.Close()
		}()
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, resp.Body, "-1 [chunked] late <nil> 0 EOF", nil)
	})
}

func TestABodyInMemoryTakesNoTime(t *testing.T) {
	resp := answer(t, request(t, t.Context(), http.MethodPost, strings.NewReader("hello")), func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		echo(w, r)
	})
	wantBody(t, resp.Body, "5 [] hello <nil> 0 EOF", nil)
}

func TestAWriteDeadlineEndsTheWritingOfAnAnswer(t *testing.T) {
	for name, flushed := range map[string]bool{"before the pipe": false, "with the pipe": true} {
		t.Run(name, func(t *testing.T) {
			controlled(t, func(rc *http.ResponseController, w http.ResponseWriter, _ *http.Request) {
				if flushed {
					rc.Flush()
				}
				start := time.Now()
				if err := rc.SetWriteDeadline(start.Add(time.Second)); err != nil {
					t.Error(err)
				}
				_, err := io.WriteString(w, text(1<<20))
				wantTimeout(t, err, start, time.Second)
			})
		})
	}
}

func TestAWriteDeadlineEndsAWriteInProgress(t *testing.T) {
	controlled(t, func(rc *http.ResponseController, w http.ResponseWriter, _ *http.Request) {
		start := time.Now()
		time.AfterFunc(time.Second, func() { rc.SetWriteDeadline(time.Now()) })
		_, err := io.WriteString(w, text(1<<20))
		wantTimeout(t, err, start, time.Second)
	})
}

func TestAnAnswerThatAWriteDeadlineHasEndedIsNotTakenForAWholeOne(t *testing.T) {
	for name, length := range map[string]string{"of unknown length": "", "of known length": "204800"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCallee(func(w http.ResponseWriter, _ *http.Request) {
					rc := http.NewResponseController(w)
					if length != "" {
						w.Header().Set("Content-Length", length)
					}
					io.WriteString(w, text(4<<10))
					start := time.Now()
					rc.SetWriteDeadline(start.Add(time.Second))
					_, err := io.WriteString(w, text(100<<10))
					wantTimeout(t, err, start, time.Second)
					rc.SetWriteDeadline(time.Time{}) // what comes now would follow a gap
					_, err = io.WriteString(w, "more")
					wantTimeout(t, err, start, time.Second)
					wantTimeout(t, rc.Flush(), start, time.Second)
				})
				resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				<-c.returned
				wantBody(t, resp.Body, text(4<<10), io.ErrUnexpectedEOF)
			})
		})
	}
}

func TestAWriteDeadlineDoesNotConcernWhatFitsIntoABuffer(t *testing.T) {
	resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
		if _, err := io.WriteString(w, text(2048)); err != nil {
			t.Error(err)
		}
	})
	wantBody(t, resp.Body, text(2048), nil)
}

func TestAControllerCanDoAllButHijack(t *testing.T) {
	get(t, func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		for name, err := range map[string]error{
			"EnableFullDuplex": rc.EnableFullDuplex(),
			"SetReadDeadline":  rc.SetReadDeadline(time.Now()),
			"SetWriteDeadline": rc.SetWriteDeadline(time.Now().Add(time.Minute)),
			"Flush":            rc.Flush(),
		} {
			if err != nil {
				t.Errorf("got error %v from %s", err, name)
			}
		}
		if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("got error %v from Hijack, want %v", err, http.ErrNotSupported)
		}
		w.(http.Flusher).Flush()
	})
}
