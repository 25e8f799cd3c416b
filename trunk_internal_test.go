package watt

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/timers"
	"github.com/org/watt/internal/trunk"
)

// elsewhere returns a way to call an app as another process does, by a trunk.
func elsewhere(t *testing.T, rt *Runtime, app string) *trunk.Client {
	t.Helper()
	client := &trunk.Client{Buffers: new(pipe.Buffers), Timers: new(timers.Pool), Dial: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		rt.app(app).place.(*door).serveTrunk(&foreign{Conn: far, what: connection{Caller: "far"}, local: address(app)})
		return near, nil
	}}
	t.Cleanup(client.Close)
	return client
}

// long is the length of an answer of which most is under way while the rest has room in a pipe: its handler has
// returned, so that a drain has more to wait for than handlers.
const long = 270 << 10

// unread returns a runtime with an app that gives such an answer, and an answer.
func unread(t *testing.T) (*Runtime, *http.Response) {
	t.Helper()
	rt := New(App{Name: "a", DrainTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Repeat("x", long))
	})})
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a.watt.local/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := elsewhere(t, rt, "a").RoundTrip(req, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return rt, resp
}

func TestADrainLetsTheAnswersOnTrunksComeToTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, resp := unread(t)
		defer resp.Body.Close()
		down := make(chan error, 1)
		go func() { down <- rt.Shutdown(context.Background()) }()
		time.Sleep(3 * lingerTime)
		if n, err := io.Copy(io.Discard, resp.Body); n != long || err != nil {
			t.Errorf("got %d bytes and %v, want %d", n, err, long)
		}
		began := time.Now()
		if err := <-down; err != nil || time.Since(began) > time.Second {
			t.Errorf("it took %v more, and ended with %v", time.Since(began), err)
		}
	})
}

func TestADrainCutsAnswersOnTrunksThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, resp := unread(t)
		defer resp.Body.Close()
		began := time.Now()
		err := rt.Shutdown(context.Background())
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "1 answer was cut") || took < 10*time.Second || took > 12*time.Second {
			t.Errorf("it took %v, and ended with %v", took, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
}

// TestATrunkThatComesLateEndsWithTheOthers has one come after the others were told to leave, and one after they were cut.
func TestATrunkThatComesLateEndsWithTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, resp := unread(t)
		resp.Body.Close()
		door := rt.app("a").place.(*door)
		late := func() net.Conn {
			near, far := net.Pipe()
			door.serveTrunk(&foreign{Conn: far, local: address("a")})
			t.Cleanup(func() { near.Close() })
			near.SetReadDeadline(time.Now().Add(time.Second))
			return near
		}
		door.callers.endRequests()
		leaving := late()
		if _, err := leaving.Read(make([]byte, 64)); err != nil { // a word to leave
			t.Errorf("got %v", err)
		}
		leaving.Close()
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if n, err := io.Copy(io.Discard, late()); n != 0 || err != nil {
			t.Errorf("got %d bytes and %v", n, err)
		}
	})
}

func TestWhatIsNoCallCutsATrunkAndIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.WarnLevel)
		rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
		rt.Logger = zap.New(core)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer rt.Shutdown(context.Background())
		near, far := net.Pipe()
		defer near.Close()
		rt.app("a").place.(*door).serveTrunk(&foreign{Conn: far, what: connection{Caller: "far"}, local: address("a")})
		io.WriteString(near, strings.Repeat("x", 13))
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("it was answered")
		}
		synctest.Wait()
		if all := logs.All(); len(all) != 1 || all[0].ContextMap()["caller"] != "far" {
			t.Errorf("got %v", all)
		}
	})
}
