package direct_test

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/direct"
)

// served returns the head of the answer that is passed on, as it is then, and its body.
func served(t *testing.T, common *direct.Common, handler http.HandlerFunc) (http.Header, string) {
	t.Helper()
	c := newCallee(handler)
	c.exchange = &direct.Exchange{Common: common}
	r := request(t, c.ctx, http.MethodGet, nil)
	c.exchange.Given(r)
	var head http.Header
	var body []byte
	c.exchange.Serve(r, c, func(resp *http.Response, err error) {
		if err != nil {
			t.Error(err)
			return
		}
		head = resp.Header.Clone()
		body, err = io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Error(err)
		}
	}, nil)
	return head, string(body)
}

func TestAnAnswerThatIsPassedOnHasNothingOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that all have the same date
		common := sharing()
		for i := range 100 {
			long := i%10 == 9 // its head is not kept
			served(t, common, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Set-Cookie"] = []string{"secret=1", "secret=2"}
				for n := range 100 {
					if n < 3 || long {
						w.Header().Set("X-Of-"+string(rune('A'+n%26))+string(rune('a'+n/26)), "another")
					}
				}
				io.WriteString(w, "secret")
			})
			head, body := served(t, common, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
			want := http.Header{
				"Content-Length": {"5"}, "Content-Type": {"text/plain; charset=utf-8"}, "Date": {"Sat, 01 Jan 2000 00:00:00 GMT"},
			}
			if !reflect.DeepEqual(head, want) || body != "hello" {
				t.Fatalf("got %v %q, want %v", head, body, want)
			}
		}
	})
}

func TestAnAnswerHasTheDateOfItsSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		common := sharing()
		for range 5 {
			for range 2 {
				head, _ := served(t, common, func(http.ResponseWriter, *http.Request) {})
				if got, want := head.Get("Date"), time.Now().UTC().Format(http.TimeFormat); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(24 * time.Hour)
		if head, _ := served(t, common, func(http.ResponseWriter, *http.Request) {}); head.Get("Date") != "Sun, 02 Jan 2000 00:00:02 GMT" {
			t.Errorf("got %s", head.Get("Date"))
		}
	})
}
