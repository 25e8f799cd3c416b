package watt_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// due calls an app that has the given Timeout, under ctx, and returns what AnswerBy says there of the time left.
func due(ctx context.Context, t *testing.T, timeout time.Duration, upgrade bool) (left time.Duration, limited bool) {
	t.Helper()
	a := app("a", func(_ http.ResponseWriter, r *http.Request) {
		var by time.Time
		if by, limited = watt.AnswerBy(r.Context()); limited {
			left = time.Until(by)
		}
	})
	a.Timeout = timeout
	rt := start(t, a)
	req := request(ctx, http.MethodGet, "http://a.watt.local/", http.NoBody)
	if upgrade { // it takes another way
		req = upgrading(ctx, "http://a.watt.local/")
	}
	resp, err := rt.Env().Client.Do(req)
	read(t, resp, err)
	return left, limited
}

func TestAnswerByIsTheEarlierOfTimeoutAndDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, deadline time.Duration
		want              time.Duration
	}{
		"Timeout alone":    {timeout: 3 * time.Second, want: 3 * time.Second},
		"Timeout earlier":  {timeout: 3 * time.Second, deadline: 5 * time.Second, want: 3 * time.Second},
		"deadline earlier": {timeout: 5 * time.Second, deadline: 3 * time.Second, want: 3 * time.Second},
		"deadline alone":   {timeout: -1, deadline: 3 * time.Second, want: 3 * time.Second},
		"neither":          {timeout: -1},
	} {
		for _, upgrade := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					if c.deadline > 0 {
						ctx, cancel = context.WithTimeout(ctx, c.deadline)
					}
					defer cancel()
					left, limited := due(ctx, t, c.timeout, upgrade)
					if left != c.want || limited != (c.want > 0) {
						t.Errorf("got %v, %v, want %v", left, limited, c.want)
					}
				})
			})
		}
	}
}

func TestAnswerByOfNoRequestIsTheContextsDeadline(t *testing.T) {
	if by, limited := watt.AnswerBy(t.Context()); limited {
		t.Errorf("got %v", by)
	}
	want := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(t.Context(), want)
	defer cancel()
	if by, limited := watt.AnswerBy(ctx); !by.Equal(want) || !limited {
		t.Errorf("got %v, %v, want %v", by, limited, want)
	}
}
