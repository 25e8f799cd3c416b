package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/org/watt"
)

// maxBody is the longest body of an action, in bytes.
const maxBody = 4 << 10

func (h *handler) restart(w http.ResponseWriter, r *http.Request) { h.toInstance(w, r, h.rt.Restart) }

func (h *handler) drain(w http.ResponseWriter, r *http.Request) {
	h.toInstance(w, r, func(app string, instance int) error {
		return h.answerOf(h.rt.Drain(app, instance), app, func(s *watt.Status) bool {
			return slices.ContainsFunc(s.PerInstance, func(in watt.InstanceStatus) bool {
				return in.Instance == instance && in.State == "drained"
			})
		})
	})
}

func (h *handler) toInstance(w http.ResponseWriter, r *http.Request, do func(app string, instance int) error) {
	instance, err := strconv.Atoi(r.PathValue("instance"))
	if err != nil {
		plain(w, http.StatusNotFound, "there is no such instance")
		return
	}
	h.done(w, do(r.PathValue("app"), instance))
}

// limits are what may be changed of an app; nil leaves a value as it is.
type limits struct {
	Workers, Queue, Instances *int
}

func (h *handler) change(w http.ResponseWriter, r *http.Request) {
	var l limits
	if !decode(w, r, &l, `"workers", "queue" or "instances"`) {
		return
	}
	app, had := r.PathValue("app"), 0
	err := h.rt.Update(app, func(a *watt.App) {
		had = a.Instances
		for _, field := range []struct{ to, is *int }{{&a.Workers, l.Workers}, {&a.Queue, l.Queue}, {&a.Instances, l.Instances}} {
			if field.is != nil {
				*field.to = *field.is
			}
		}
	})
	h.done(w, h.answerOf(err, app, func(s *watt.Status) bool { return s.Instances < had }))
}

// cutError tells what had to be cut for something that was done.
type cutError struct{ error }

// answerOf makes a cutError of err if the app's status shows that what was asked for was done: the runtime returns an error
// then, too.
func (h *handler) answerOf(err error, app string, done func(*watt.Status) bool) error {
	if err == nil {
		return nil
	}
	for _, s := range h.rt.Status() {
		if s.Name == app && done(&s) {
			return cutError{err}
		}
	}
	return err
}

// done answers an action that has ended with err.
func (h *handler) done(w http.ResponseWriter, err error) {
	h.watch.look()
	_, cut := errors.AsType[cutError](err)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case cut:
		plain(w, http.StatusOK, err.Error())
	case errors.Is(err, watt.ErrNoSuchApp):
		plain(w, http.StatusNotFound, err.Error())
	default:
		plain(w, http.StatusConflict, err.Error())
	}
}

// level is how much the log says, for a while.
type level struct {
	mu       sync.Mutex
	original zapcore.Level
	back     *time.Timer // nil if the level is the original one
}

func (h *handler) level(w http.ResponseWriter, r *http.Request) {
	if h.rt.Level == nil {
		plain(w, http.StatusNotFound, "the runtime's Level is not set")
		return
	}
	var wish struct {
		Level, For string
	}
	if !decode(w, r, &wish, `"level" or "for"`) {
		return
	}
	to, err := zapcore.ParseLevel(wish.Level)
	if err != nil || wish.Level == "" { // which is one to zap
		plain(w, http.StatusBadRequest, `"level" must be a level, as "debug"`)
		return
	}
	length, err := time.ParseDuration(wish.For)
	if err != nil || length <= 0 || length > 24*time.Hour {
		plain(w, http.StatusBadRequest, `"for" must be a duration of up to a day, as "10m"`)
		return
	}
	h.raised.set(h.rt, to, length)
	w.WriteHeader(http.StatusNoContent)
}

// set sets the level of rt, and restores the one that was there before it all after some time.
func (l *level) set(rt *watt.Runtime, to zapcore.Level, length time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back == nil {
		l.original = rt.Level.Level()
	} else {
		l.back.Stop()
	}
	_ = rt.SetLevel(to) // there is one
	var timer *time.Timer
	timer = time.AfterFunc(length, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.back == timer {
			_ = rt.SetLevel(l.original)
			l.back = nil
		}
	})
	l.back = timer
}

// decode reads what an action wants, and answers if it makes no sense, with what it may set.
func decode(w http.ResponseWriter, r *http.Request, v any, known string) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("there is more behind it")
	}
	if err != nil {
		plain(w, http.StatusBadRequest, fmt.Sprintf("not understood: %v; set %s", err, known))
		return false
	}
	return true
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}
