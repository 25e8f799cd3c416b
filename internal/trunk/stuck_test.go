package trunk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/trunk"
)

// maxQueued is what may wait for the other side to read, in bytes.
const maxQueued = 8 << 20

// TestACalleeThatDoesNotReadHoldsNobody has every call return at its time, and nothing wait but what there is room for.
func TestACalleeThatDoesNotReadHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		client := script(t, pipes, func(*bare) { <-end })
		defer close(end)
		const calls, size = 2000, 16 << 10
		before := heap()
		var callers sync.WaitGroup
		var mu sync.Mutex
		var waited, refused int
		for i := range calls {
			callers.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				start, by, want := time.Now(), time.Now().Add(time.Minute), context.DeadlineExceeded
				if i%2 == 0 {
					by, want = time.Time{}, errOver
					time.AfterFunc(time.Minute, func() { cancel(errOver) })
				}
				_, err := client.RoundTrip(request(t, ctx, http.MethodPost, strings.Repeat("x", size)), by)
				mu.Lock()
				defer mu.Unlock()
				switch took := time.Since(start); {
				case errors.Is(err, roundtrip.ErrNotSent) && took == 0:
					refused++
				case errors.Is(err, want) && took == time.Minute:
					waited++
				default:
					t.Errorf("got error %v after %v", err, took)
				}
			})
		}
		callers.Wait()
		if waited < maxQueued/size-10 || waited > 2*maxQueued/size || refused != calls-waited { // some are being written
			t.Errorf("%d calls waited and %d were refused, want %d to wait", waited, refused, maxQueued/size)
		}
		if got := heap() - before; got > 2*maxQueued {
			t.Errorf("%d bytes are kept, want at most %d", got, 2*maxQueued)
		}
	})
}

// heap returns what is in use after the collections that also empty the pools.
func heap() int {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestACallerThatDoesNotReadIsCutOff has it send so many requests that their answers have no room.
func TestACallerThatDoesNotReadIsCutOff(t *testing.T) {
	content := strings.Repeat("x", 60<<10)
	var answered sync.WaitGroup
	b, served := caller(t, pair, func(c *incoming) {
		defer answered.Done()
		whole(c, content)
	})
	before := heap()
	var sent int
	for i := range 1000 {
		answered.Add(1)
		if err := b.say(frame(kindRequest, uint64(i+1), plainRequest())); err != nil {
			answered.Done()
			break
		}
		sent++
	}
	if err := <-served; err == nil {
		t.Error("Serve has ended without an error")
	}
	if sent < maxQueued/len(content) {
		t.Errorf("it was cut off after %d requests", sent)
	}
	if got := heap() - before; got > 2*maxQueued {
		t.Errorf("%d bytes are kept, want at most %d", got, 2*maxQueued)
	}
}

// TestACallerThatDoesNotReadGetsLittleOfLongAnswers has many come in parts.
func TestACallerThatDoesNotReadGetsLittleOfLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, part = 200, 4 << 10
		bodies := make([]counting, calls)
		b, _ := caller(t, pipes, func(c *incoming) {
			resp := response()
			resp.Body, resp.ContentLength = &bodies[len(c.Request.URL.RawQuery)], -1
			c.Answer(resp, nil, false, nil)
		})
		for i := range calls {
			uri := "/?" + strings.Repeat("x", i)
			b.say(frame(kindRequest, uint64(i+1), "\x00"+number(0)+text("GET")+text("callee")+text(uri)+number(0)))
		}
		synctest.Wait()
		var got int64
		for i := range bodies {
			got += bodies[i].read.Load()
		}
		if most := int64(128<<10 + calls*part); got > most { // each has the part in hand that it waits with
			t.Errorf("%d bytes were taken, want at most %d", got, most)
		}
	})
}

// TestEndsOfConnectionsThatNobodyReadsWakeThoseWhoWrite has each side end while the other writes.
func TestEndsOfConnectionsThatNobodyReadsWakeThoseWhoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 3 {
			b, served := caller(t, pipes, func(c *incoming) { streamed(c, endless) })
			for i := range 50 {
				b.say(frame(kindRequest, uint64(i+1), plainRequest()))
			}
			synctest.Wait()
			b.Close()
			if err := <-served; err != io.EOF { //nolint:errorlint // Serve returns it bare
				t.Errorf("Serve has returned %v", err)
			}
		} // what still waits blocks the bubble
	})
}

// TestACalleeThatReadsAgainHearsOfAllThatWasGivenUp has callers give up when nothing more may wait.
func TestACalleeThatReadsAgainHearsOfAllThatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, heard := make(chan struct{}), make(chan map[uint64][]byte)
		client := script(t, pipes, func(b *bare) {
			<-read
			kinds := make(map[uint64][]byte)
			for {
				kind, id, _, err := b.hear()
				if err != nil {
					heard <- kinds
					return
				}
				kinds[id] = append(kinds[id], kind)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		sent := 0
		for size := 1 << 20; size > 0; {
			refused := make(chan bool, 1)
			callers.Go(func() {
				req := request(t, ctx, http.MethodGet, "")
				req.Header.Set("X", strings.Repeat("x", size))
				_, err := client.RoundTrip(req, time.Time{})
				refused <- errors.Is(err, roundtrip.ErrNotSent)
			})
			synctest.Wait()
			select {
			case <-refused:
				size /= 2
			default:
				sent++
			}
		}
		cancel()
		callers.Wait()
		close(read)
		synctest.Wait()
		client.CloseIdle()
		kinds := <-heard
		for id, got := range kinds {
			if want := []byte{kindRequest, kindGone}; !bytes.Equal(got, want) {
				t.Errorf("of call %d the callee has heard %d, want %d", id, got, want)
			}
		}
		if len(kinds) != sent {
			t.Errorf("of %d calls the callee has heard, want %d", len(kinds), sent)
		}
	})
}

// parting is a body of one part, with which its end comes.
type parting struct{}

func (parting) Read(p []byte) (int, error) { return len(p), io.EOF }

// TestAnAnswerThatWaitsForItsTurnIsNotSent has the last parts of many wait for a caller that does not read.
func TestAnAnswerThatWaitsForItsTurnIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, size, room = 40, 32 << 10, 256 << 10
		near, far := pipes(t)
		server := trunk.NewServer(far, new(pipe.Buffers), taking(func(c *incoming) {
			resp := response()
			resp.ContentLength, resp.Body = size, io.NopCloser(parting{})
			c.Answer(resp, nil, false, nil)
		}))
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve() })
		defer serving.Wait()
		defer near.Close()
		b := newBare(near)
		for i := range calls {
			b.say(frame(kindRequest, uint64(i+1), plainRequest()))
		}
		synctest.Wait()
		if got, least := server.Calls(), calls-2*room/size-2; got < least {
			t.Errorf("%d answers are not sent, want at least %d", got, least)
		}
		go io.Copy(io.Discard, b)
		if synctest.Wait(); server.Calls() != 0 {
			t.Errorf("%d answers are not sent, though all are read", server.Calls())
		}
	})
}

// TestShortAnswersThatWaitAreNotSent is the same of answers that are one frame each.
func TestShortAnswersThatWaitAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := pipes(t)
		server := trunk.NewServer(far, new(pipe.Buffers), taking(func(c *incoming) { whole(c, "answer") }))
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve() })
		defer serving.Wait()
		defer near.Close()
		b := newBare(near)
		for i := range 10 {
			b.say(frame(kindRequest, uint64(i+1), plainRequest()))
		}
		if synctest.Wait(); server.Calls() == 0 {
			t.Error("all answers are sent, though none is read")
		}
		go io.Copy(io.Discard, b)
		if synctest.Wait(); server.Calls() != 0 {
			t.Errorf("%d answers are not sent, though all are read", server.Calls())
		}
	})
}

// TestAnAnswerDoesNotWaitForTheRestOfAFrame has a caller that stops in the middle of what it says next.
func TestAnAnswerDoesNotWaitForTheRestOfAFrame(t *testing.T) {
	next := frame(kindRequest, 2, plainRequest())
	for name, part := range map[string]int{"in its head": 5, "after that": 13, "in its content": 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := caller(t, pipes, func(c *incoming) { whole(c, "answer") })
				b.SetDeadline(time.Now().Add(time.Minute))
				b.say(frame(kindRequest, 1, plainRequest()) + next[:part])
				if _, id, _, err := b.hear(); id != 1 || err != nil {
					t.Errorf("got %d and %v", id, err)
				}
				b.say(next[part:])
				if _, id, _, err := b.hear(); id != 2 || err != nil {
					t.Errorf("got %d and %v", id, err)
				}
			})
		})
	}
}
